//! The `centroid` command.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let done = cli::parse(std::env::args_os()).and_then(cli::run);
    cli::exit(done)
}
