//! Rewrites artifacts in place so that their tokenizers are tables: weights and answers stay the
//! same, opening is faster. `cargo run --release --example upgrade -- FILE...`

use std::process::ExitCode;

use centroid::Artifact;
use centroid::convert::with_tokenizer_tables;

fn main() -> ExitCode {
    for path in std::env::args().skip(1) {
        // Read, not mapped: the file is about to be replaced.
        let result = Artifact::read(&path).and_then(|a| with_tokenizer_tables(&a, &path, true));
        if let Err(error) = result {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
