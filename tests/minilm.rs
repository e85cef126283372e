//! The real all-MiniLM-L6-v2 against `transformers`: ids and embeddings in `tests/data/minilm` were
//! computed by `tools/goldens/minilm.py`. `tools/fetch-minilm` brings the checkpoint.

use std::path::{Path, PathBuf};

use centroid::convert::{Conversion, ConvertOptions, Plan};
use centroid::{Artifact, Mode, Options, Scheme, SentenceEmbedder, Truncation};

const DIMENSIONS: usize = 384;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn checkpoint() -> PathBuf {
    let dir = root().join(".cache/minilm-l6-v2");
    assert!(
        dir.join("model.safetensors").exists(),
        "the MiniLM checkpoint is not there: run tools/fetch-minilm"
    );
    dir
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = root().join("tests/data/minilm").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn lines() -> Vec<String> {
    json("lines.json")
}

/// `transformers`' embeddings of the first lines, `[200][384]`.
fn embeddings() -> Vec<Vec<f32>> {
    let bytes = std::fs::read(root().join("tests/data/minilm/embeddings.f32")).unwrap();
    let values: Vec<f32> = (bytes.as_chunks().0.iter())
        .map(|&b| f32::from_le_bytes(b))
        .collect();
    values
        .chunks_exact(DIMENSIONS)
        .map(<[f32]>::to_vec)
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Mean and least cosine to `transformers`' embeddings.
fn cosines(artifact: Artifact, mode: Mode) -> (f64, f64) {
    let options = Options::new().mode(mode).truncation(Truncation::Truncate);
    let embedder = SentenceEmbedder::new(artifact, options).unwrap();
    let expected = embeddings();
    let lines = lines();
    let texts: Vec<&str> = lines.iter().take(expected.len()).map(|l| &l[..]).collect();
    let found = embedder.embed(&texts).unwrap();
    assert_eq!(found.len(), 200);
    let all: Vec<f64> = (found.iter().zip(&expected))
        .map(|(found, expected)| cosine(&found.vector, expected))
        .collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    (mean, all.iter().copied().fold(1.0, f64::min))
}

fn convert(scheme: Scheme) -> Artifact {
    let options = ConvertOptions {
        plan: Plan::new(scheme),
        ..Default::default()
    };
    let conversion = Conversion::from_directory(checkpoint(), &options).unwrap();
    Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap()
}

#[test]
fn f32_embeddings_equal_transformers() {
    let (mean, least) = cosines(convert(Scheme::F32), Mode::Exact);
    println!("f32 exact: mean cosine {mean:.8}, least {least:.8}");
    assert!(least > 0.99999, "{least}");
}

#[test]
fn int8_embeddings_stay_close() {
    let artifact = convert(Scheme::Int8);
    // Budgets of the mean and of the least cosine. Measured: 0.9993 and 0.9963 with f32
    // activations, 0.9960 and 0.9843 (the empty text) with 8-bit ones.
    for (mode, of_mean, of_least) in [(Mode::Exact, 0.999, 0.995), (Mode::Int8, 0.995, 0.98)] {
        let (mean, least) = cosines(artifact.clone(), mode);
        println!(
            "int8 {}: mean cosine {mean:.6}, least {least:.6}",
            mode.name()
        );
        assert!(
            mean > of_mean && least > of_least,
            "{}: {mean}, {least}",
            mode.name()
        );
    }
}

#[test]
fn token_ids_equal_transformers() {
    let expected: Vec<Vec<u32>> = json("ids.json");
    let lines = lines();
    assert_eq!(lines.len(), expected.len());
    assert!(lines.len() > 300);
    // MiniLM's own limit is 256 tokens: the rest of a longer line is not compared.
    let embedder = SentenceEmbedder::new(
        convert(Scheme::F16),
        Options::new().truncation(Truncation::Truncate),
    )
    .unwrap();
    let limit = embedder.max_length();
    assert_eq!(limit, 256);
    let texts: Vec<&str> = lines.iter().map(|l| &l[..]).collect();
    for ((found, expected), line) in embedder
        .embed(&texts)
        .unwrap()
        .iter()
        .zip(&expected)
        .zip(&lines)
    {
        assert_eq!(found.truncated, expected.len() > limit, "{line:?}");
        if !found.truncated {
            assert_eq!(&found.ids, expected, "{line:?}");
        } else {
            assert_eq!(found.ids[..limit - 1], expected[..limit - 1], "{line:?}");
        }
    }
}
