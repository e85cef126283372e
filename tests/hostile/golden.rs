//! Files of every version that was ever released, kept for ever. Nothing here writes them.

use std::path::PathBuf;

use centroid::Artifact;

use crate::build::Scheme;
use crate::valid::valid;

fn golden(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data/golden").join(name)
}

/// Sections of numbers, and the scales in the header: 4 bytes for `int8` codebooks, 8 for
/// integers. The two tensors that two layers share are plain values.
fn weight_bytes() -> u64 {
    let mut model = valid();
    let numbers = model.sections.iter().filter(|s| s.kind <= 9);
    let mut total = numbers.map(|s| s.bytes.len()).sum::<usize>();
    for tensor in model.tensors.clone() {
        total += match tensor.scheme {
            Scheme::Pq(pq)
                if model.bytes(pq.codebook).len() == (pq.centroids * pq.block) as usize =>
            {
                4
            }
            Scheme::Scalar(_) => 8,
            _ => 0,
        };
    }
    total as u64
}

#[test]
fn version_1_opens() {
    let path = golden("v1-every-scheme.centroid");
    for artifact in [Artifact::open(&path), Artifact::read(&path)] {
        let artifact = artifact.unwrap();
        assert_eq!(artifact.format_version(), 1);
        assert_eq!(artifact.kind().unwrap().name(), "encoder");
        assert_eq!(artifact.labels().unwrap(), crate::valid::LABELS);
        assert_eq!(artifact.provenance()[0].1, "by hand");
        assert!(artifact.tokenizer_bytes() > 1000);
        assert_eq!(artifact.weight_bytes(), weight_bytes());
    }
}

/// The files that the other tests damage are damaged versions of this one.
#[test]
fn version_1_is_what_these_tests_write() {
    let stored = std::fs::read(golden("v1-every-scheme.centroid")).unwrap();
    assert!(stored == valid().encode().bytes, "the encoder changed");
}

/// The answers are those of `tools/goldens/read_centroid.py`, which shares no code with the crate.
#[cfg(feature = "text")]
#[test]
fn version_1_answers() {
    use centroid::{Mode, Options, TextClassifier};

    #[derive(serde::Deserialize)]
    struct Golden {
        inputs: Vec<Input>,
        logits: Vec<Vec<f32>>,
    }
    #[derive(serde::Deserialize)]
    struct Input {
        text: String,
        ids: Vec<u32>,
    }

    let stored = std::fs::read(golden("v1-every-scheme.json")).unwrap();
    let expected: Golden = serde_json::from_slice(&stored).unwrap();
    assert_eq!((expected.inputs.len(), expected.logits.len()), (3, 3));
    let artifact = Artifact::open(golden("v1-every-scheme.centroid")).unwrap();
    let texts: Vec<&str> = expected.inputs.iter().map(|i| &*i.text).collect();
    // `int8` rounds activations to 8 bits; `exact` differs by the order of sums alone.
    for (mode, tolerance) in [(Mode::Exact, 1e-4), (Mode::Int8, 5e-2)] {
        let options = Options::new().threads(1).mode(mode);
        let classifier = TextClassifier::new(artifact.clone(), options).unwrap();
        let results = classifier.classify(&texts).unwrap();
        for ((result, input), logits) in results.iter().zip(&expected.inputs).zip(&expected.logits)
        {
            assert_eq!(result.ids, input.ids, "{}", input.text);
            for label in &result.labels {
                let difference = (label.logit - logits[label.index]).abs();
                let (text, name) = (&input.text, mode.name());
                assert!(difference <= tolerance, "{text} in {name}: {difference}");
            }
        }
    }
}

/// The same file with the same tokenizer as tables, and with byte-level ones.
#[test]
fn tokenizer_tables_are_what_these_tests_write() {
    use crate::tables::{byte_level, with, wordpiece};

    for (name, tables) in [
        ("v1-tables-wordpiece.centroid", wordpiece()),
        ("v1-tables-byte-level.centroid", byte_level()),
    ] {
        let stored = std::fs::read(golden(name)).unwrap();
        assert!(stored == with(&tables).encode().bytes, "{name} changed");
        let artifact = Artifact::open(golden(name)).unwrap();
        assert_eq!(artifact.tokenizer_bytes(), tables.encode().len() as u64);
        assert_eq!(artifact.weight_bytes(), weight_bytes());
    }
}

#[cfg(feature = "text")]
#[test]
fn tokenizer_tables_answer() {
    use centroid::{Options, TextClassifier};

    let open = |name| {
        let artifact = Artifact::open(golden(name)).unwrap();
        TextClassifier::new(artifact, Options::new().threads(1)).unwrap()
    };
    let texts = ["a b", "Ab c!", "abcabc hi [SEP] \u{e9}\u{4f60}", ""];
    let json = open("v1-every-scheme.centroid").classify(&texts).unwrap();
    let tables = open("v1-tables-wordpiece.centroid")
        .classify(&texts)
        .unwrap();
    assert_eq!(tables, json);
    let found = open("v1-tables-byte-level.centroid")
        .classify(&texts)
        .unwrap();
    let expected: [&[u32]; 4] = [
        &[2, 5, 1, 6, 3],
        &[2, 1, 6, 1, 7, 1, 3],
        &[2, 32, 32, 1, 12, 13, 1, 3, 1, 3],
        &[2, 3],
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.ids, expected);
    }
}

/// The image `number` of `tools/goldens/efficientnet.py`, of `side` by `side` pixels.
#[cfg(feature = "image")]
fn image(number: u64, side: usize) -> Vec<f32> {
    let value = |at: usize| {
        let z = ((1_000_000 + number) << 32) + at as u64;
        let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let upper = ((z ^ (z >> 31)) >> 40) as f32;
        2.0 * (upper / (1 << 23) as f32 - 1.0)
    };
    (0..3 * side * side).map(value).collect()
}

/// Networks of images; the answers are those of `tools/goldens/networks.py`.
#[cfg(feature = "image")]
#[test]
fn version_1_networks_answer() {
    use centroid::{ImageClassifier, Mode, Options};

    #[derive(serde::Deserialize)]
    struct Golden {
        images: u64,
        logits: Vec<Vec<f32>>,
    }

    for name in ["v1-network-pq", "v1-network-pq-f16", "v1-network-int4"] {
        let stored = std::fs::read(golden(&format!("{name}.json"))).unwrap();
        let expected: Golden = serde_json::from_slice(&stored).unwrap();
        assert_eq!((expected.images, expected.logits.len()), (3, 3));
        let artifact = Artifact::open(golden(&format!("{name}.centroid"))).unwrap();
        assert_eq!(artifact.format_version(), 1);
        assert_eq!(artifact.kind().unwrap().name(), "efficientnet");
        assert_eq!(artifact.labels().unwrap(), ["ant", "bee", "cow"]);
        for (mode, tolerance) in [(Mode::Exact, 1e-5), (Mode::Int8, 1e-2)] {
            let options = Options::new().threads(1).mode(mode);
            let classifier = ImageClassifier::new(artifact.clone(), options).unwrap();
            let images = [0, 1, 2].map(|number| image(number, classifier.size()));
            let results = classifier.classify_inputs(&[&images[0], &images[1], &images[2]]);
            for (result, logits) in results.unwrap().iter().zip(&expected.logits) {
                for label in &result.labels {
                    let difference = (label.logit - logits[label.index]).abs();
                    let mode = mode.name();
                    assert!(difference <= tolerance, "{name} in {mode}: {difference}");
                }
            }
        }
    }
}
