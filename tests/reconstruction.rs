//! Quantized artifacts against the dense weights that their codes stand for.
//!
//! The artifacts in `tests/data/golden` were decoded by an independent reader (numpy, from
//! `format-spec.md` alone) and run in f64 by `tools/goldens/artifacts.py`. They are also the golden
//! files of format version 1, which every later release must open with the same answers.

use std::path::{Path, PathBuf};

use centroid::{Artifact, Mode, Options, SentenceEmbedder, TextClassifier, Truncation};
use serde::Deserialize;

/// Largest absolute error of mode `exact`.
const EXACT_BUDGET: f64 = 1e-3;
/// Largest error of mode `int8`, as a share of the largest answer; see `tests/parity.rs`.
const INT8_BUDGET: f64 = 0.15;

#[derive(Deserialize)]
struct Golden {
    checkpoint: String,
    answers: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Inputs {
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    text: String,
    pair: Option<String>,
}

fn data(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(part)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn run(artifact: &Artifact, mode: Mode, inputs: &[Input]) -> Vec<Vec<f32>> {
    let options = Options::new()
        .mode(mode)
        .threads(1)
        .truncation(Truncation::Truncate);
    if artifact.labels().is_some() {
        let classifier = TextClassifier::new(artifact.clone(), options).unwrap();
        let one = |input: &Input| {
            let result = match &input.pair {
                Some(pair) => classifier.classify_pairs(&[(&input.text, pair)]),
                None => classifier.classify(&[&input.text]),
            };
            let mut labels = result.unwrap().remove(0).labels;
            labels.sort_by_key(|label| label.index);
            labels.iter().map(|label| label.logit).collect()
        };
        inputs.iter().map(one).collect()
    } else {
        let embedder = SentenceEmbedder::new(artifact.clone(), options).unwrap();
        let one = |input: &Input| embedder.embed(&[&input.text]).unwrap().remove(0).vector;
        inputs.iter().map(one).collect()
    }
}

#[test]
fn artifacts_answer_like_their_reconstructed_weights() {
    let mut seen = 0;
    let mut names: Vec<_> = std::fs::read_dir(data("golden"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "centroid"))
        .collect();
    names.sort();
    for path in names {
        // Some are of other tests; those of this one are counted.
        let golden = std::fs::read(path.with_extension("json")).unwrap_or_default();
        let Ok(golden) = serde_json::from_slice::<Golden>(&golden) else {
            continue;
        };
        let checkpoint = data("checkpoints").join(&golden.checkpoint);
        let Inputs { inputs } = read(&checkpoint.join("golden.json"));
        let artifact = Artifact::open(&path).unwrap();
        assert_eq!(inputs.len(), golden.answers.len());
        let largest = golden
            .answers
            .iter()
            .flatten()
            .fold(0f64, |m, v| m.max(v.abs()));
        for (mode, budget) in [
            (Mode::Exact, EXACT_BUDGET),
            (Mode::Int8, INT8_BUDGET * largest),
        ] {
            let mut worst = 0f64;
            for (found, expected) in run(&artifact, mode, &inputs).iter().zip(&golden.answers) {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    worst = worst.max((f64::from(*found) - expected).abs());
                }
            }
            println!("{path:?} {}: {worst:.2e} of {largest:.2}", mode.name());
            assert!(worst < budget, "{path:?} {}: {worst}", mode.name());
        }
        seen += 1;
    }
    assert_eq!(seen, 10);
}
