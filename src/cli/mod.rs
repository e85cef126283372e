//! One file a verb; here is what they share: parsing, failing and writing.
//!
//! Results go to standard output, everything else to standard error. A failure is one line
//! `error: ...`, and the exit code is 2 for bad usage and 1 otherwise.

mod bench;
mod classify;
mod convert;
mod embed;
mod evaluate;
mod input;
mod inspect;
mod options;
mod output;
mod pictures;
mod progress;
mod texts;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "train")]
mod training;
mod values;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use output::{Out, one_line};

/// Models whose weights are codebooks: convert, inspect, run, score and measure `.centroid` files.
///
/// Exit codes: 0 success, 2 bad usage, 1 any other failure. A failure prints one line `error: ...`
/// to standard error.
#[derive(Parser)]
#[command(name = "centroid", version, max_term_width = 100)]
#[command(after_help = "The environment variable CENTROID_ISA chooses the instruction set.")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Convert(convert::Convert),
    Inspect(inspect::Inspect),
    Classify(classify::Classify),
    Embed(embed::Embed),
    Evaluate(evaluate::Evaluate),
    Bench(bench::Bench),
    #[cfg(feature = "train")]
    Train(train::Train),
}

/// Why a verb did not do its job.
pub enum Failure {
    /// What was asked for makes no sense, whatever the files hold.
    Usage(String),
    Failed(String),
    /// Nobody reads standard output any more.
    Closed,
    /// Help and version: text for standard output.
    Help(String),
}

impl From<centroid::Error> for Failure {
    fn from(error: centroid::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Reads the arguments.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Failure> {
    Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Failure::Help(error.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Failure::Usage(
            "a verb is missing: convert, inspect, classify, embed, evaluate, bench or train (--help explains \
             them)"
                .into(),
        ),
        _ => Failure::Usage(without_hints(&error.to_string())),
    })
}

/// clap's message in a line, without its hints and its usage.
fn without_hints(message: &str) -> String {
    let hints = ["\n\n  tip: ", "\n\nUsage: ", "\n\nFor more information"];
    let end = (hints.iter().filter_map(|hint| message.find(hint)).min()).unwrap_or(message.len());
    let words: Vec<&str> = message[..end].split_whitespace().collect();
    let text = words.join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

/// Does what the arguments ask for.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.verb {
        Verb::Convert(verb) => verb.run(),
        Verb::Inspect(verb) => verb.run(),
        Verb::Classify(verb) => verb.run(),
        Verb::Embed(verb) => verb.run(),
        Verb::Evaluate(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        #[cfg(feature = "train")]
        Verb::Train(verb) => verb.run(),
    }
}

/// Reports a failure; returns the exit code.
pub fn exit(done: Result<(), Failure>) -> ExitCode {
    let done = match done {
        Err(Failure::Help(text)) => {
            let mut out = Out::new();
            out.text(&text).and_then(|()| out.flush())
        }
        other => other,
    };
    let (code, message) = match done {
        // As for `cat`: the reader has what it wanted.
        Ok(()) | Err(Failure::Closed | Failure::Help(_)) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Failed(message)) => (1, message),
    };
    note(format_args!("error: {}", one_line(&message)));
    ExitCode::from(code)
}

/// A line on standard error; that nobody reads it is no failure.
fn note(line: std::fmt::Arguments) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
