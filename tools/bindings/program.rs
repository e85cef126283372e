//! The Rust side of tools/bindings/run: opens a classifier, classifies one text, then all lines of a file.

use std::error::Error;
use std::io::{Write, stdout};
use std::time::Instant;

use centroid::{Artifact, Classification, Options, TextClassifier};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, file] = &arguments[..] else {
        return Err("usage: MODEL TEXTS".into());
    };
    let classifier = TextClassifier::new(Artifact::open(model)?, Options::new().threads(1))?;
    classifier.classify(&["a film that moves"])?;
    println!("first");
    stdout().flush()?;
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    // The best score's bits, one text after the other.
    let mut digest = 0u32;
    let add = |digest: u32, of: &Classification| {
        let bits = of.labels[0].logit.to_bits();
        digest.wrapping_mul(31).wrapping_add(bits)
    };
    let start = Instant::now();
    for batch in lines.chunks(32) {
        digest = classifier.classify(batch)?.iter().fold(digest, add);
    }
    println!("{} {} {digest}", lines.len(), start.elapsed().as_secs_f64());
    Ok(())
}
