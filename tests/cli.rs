//! The contract of the `centroid` binary: exit codes, streams, and what scripts read.

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/convert.rs"]
mod convert;
#[path = "cli/evaluate.rs"]
mod evaluate;
#[path = "cli/images.rs"]
mod images;
#[path = "cli/inspect.rs"]
mod inspect;
#[path = "cli/texts.rs"]
mod texts;
#[cfg(feature = "train")]
#[path = "cli/train.rs"]
mod train;
#[path = "cli/usage.rs"]
mod usage;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// What a run left behind.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    /// Standard output of a run that succeeded.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }

    /// Standard output as one JSON value.
    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Standard output as JSON Lines.
    #[track_caller]
    fn json_lines(self) -> Vec<Value> {
        let out = self.ok();
        out.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    /// Checks the exit code and that standard error is one line with all of `parts`; returns
    /// standard output.
    #[track_caller]
    fn fails(self, code: i32, parts: &[&str]) -> String {
        let Run { out, err, .. } = self;
        assert_eq!(self.code, code, "{err}");
        assert!(err.starts_with("error: "), "{err:?}");
        assert!(err.ends_with('\n') && err.lines().count() == 1, "{err:?}");
        for part in parts {
            assert!(err.contains(part), "{part:?} is not in {err:?}");
        }
        out
    }
}

fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centroid"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn centroid<S: AsRef<OsStr>>(arguments: &[S]) -> Run {
    with_input(arguments, b"")
}

fn with_input<S: AsRef<OsStr>>(arguments: &[S], input: &[u8]) -> Run {
    let mut child = command(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A failing child stops reading.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    });
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `"a b c"` as arguments, `extra` ones behind.
fn words<'a>(line: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    line.split_whitespace()
        .chain(extra.iter().copied())
        .collect()
}

fn checkpoint(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/data/checkpoints").join(name);
    path.to_str().unwrap().to_owned()
}

/// Converts a checkpoint once a test run.
fn converted(cell: &'static OnceLock<PathBuf>, name: &str, flags: &str) -> &'static str {
    let path = cell.get_or_init(|| {
        let file = format!("cli-{name}.centroid");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        let (directory, output) = (checkpoint(name), path.to_str().unwrap());
        let start = ["convert", &directory, "-o", output, "--force"];
        let arguments = [&start[..], &words(flags, &[])].concat();
        centroid(&arguments).ok();
        path
    });
    path.to_str().unwrap()
}

/// A classifier with the labels `negative` and `positive`, at most 32 tokens, a token a byte or so.
fn classifier() -> &'static str {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    converted(&CELL, "roberta-seq", "--scheme f32")
}

/// An embedder of 28 dimensions.
fn embedder() -> &'static str {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    converted(&CELL, "sbert", "--scheme f32")
}

/// A field of each object.
fn all<'a>(values: &'a [Value], field: &str) -> Vec<&'a Value> {
    values.iter().map(|value| &value[field]).collect()
}
