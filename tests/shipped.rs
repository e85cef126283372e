//! The models that ship: they open, keep their budgets of bytes, and are as good as they were made.

use std::path::{Path, PathBuf};

use centroid::{
    Artifact, ImageClassifier, Mode, Options, SentenceEmbedder, TextClassifier, Truncation,
};

const DIMENSIONS: usize = 384;
const LITE0_BYTES: u64 = 1_650_000;
/// Of 16 and 17 that were measured with AVX-512; sums round differently elsewhere.
const LITE0_RIGHT: usize = 15;

fn path(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(part)
}

#[test]
fn they_keep_their_budgets() {
    // The classifier has a twentieth of the bytes of its fp32 weights.
    for (name, budget) in [("minilm-l6", 4_400_000), ("sentiment", 4_543_000)] {
        let artifact = Artifact::open(path(&format!("models/{name}.centroid"))).unwrap();
        let bytes = artifact.weight_bytes();
        assert!(bytes <= budget, "{name}: {bytes}");
        assert_eq!(artifact.tokenizer_kind(), Some("tokenizer tables"));
        assert!(artifact.tokenizer_bytes() <= 450_000, "{name}");
        assert!(artifact.file_bytes() <= 5_000_000, "{name}");
        let said = |wanted: &str| artifact.provenance().iter().any(|(key, _)| key == wanted);
        for key in ["source_sha256", "training_data_sha256", "test"] {
            assert!(said(key), "{name}: {key}");
        }
    }
}

/// On sentences that neither the model nor its teacher was trained with; tests/data/sentiment says which.
#[test]
fn sentiment_is_right_about_sentences_it_has_not_seen() {
    let lines = std::fs::read_to_string(path("tests/data/sentiment/reviews.tsv")).unwrap();
    let lines = lines.lines().skip(1);
    let examples: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(examples.len(), 423);
    let texts: Vec<&str> = examples.iter().map(|&(text, _)| text).collect();
    for mode in [Mode::Exact, Mode::Int8] {
        let artifact = Artifact::open(path("models/sentiment.centroid")).unwrap();
        let model = TextClassifier::new(artifact, Options::new().mode(mode)).unwrap();
        let found = model.classify(&texts).unwrap();
        let right = found.iter().zip(&examples).filter(|(found, (_, label))| {
            let labels = found.labels.iter();
            let best = labels.max_by(|a, b| a.logit.total_cmp(&b.logit));
            best.unwrap().label == *label
        });
        let right = right.count();
        println!("{}: {right} of {} are right", mode.name(), examples.len());
        assert!(right as f64 > 0.82 * examples.len() as f64, "{right}");
    }
}

/// On 20 of ImageNet's pictures, of which the network in f32 knows 18. That is a check of the whole chain and no
/// accuracy.
#[test]
fn lite0_knows_what_pictures_show() {
    let model = Artifact::open(path("models/efficientnet-lite0.centroid")).unwrap();
    let bytes = model.weight_bytes();
    // Lite0 has 18.6 MB in f32.
    assert!(bytes <= LITE0_BYTES, "{bytes}");
    let said = |wanted: &str| model.provenance().iter().any(|(key, _)| key == wanted);
    for key in ["source_sha256", "training_data_sha256", "test"] {
        assert!(said(key), "{key}");
    }
    let pictures = path(".cache/lite0");
    let lines = std::fs::read_to_string(pictures.join("imagenet.tsv"))
        .expect("tools/fetch-lite0 fetches the pictures");
    let examples: Vec<(&str, &str)> = (lines.lines().skip(1))
        .filter_map(|line| line.split_once('\t'))
        .collect();
    assert_eq!(examples.len(), 20);
    let files: Vec<PathBuf> = (examples.iter().map(|(file, _)| pictures.join(file))).collect();
    for mode in [Mode::Exact, Mode::Int8] {
        let artifact = Artifact::open(path("models/efficientnet-lite0.centroid")).unwrap();
        let model = ImageClassifier::new(artifact, Options::new().mode(mode)).unwrap();
        let found = model.classify(&files).unwrap();
        let right = found.iter().zip(&examples);
        let right = right.filter(|(found, (_, label))| found.labels[0].label == *label);
        let right = right.count();
        println!("{}: {right} of 20 are right", mode.name());
        assert!(right >= LITE0_RIGHT, "{right}");
    }
}

/// Against `transformers`' ids and embeddings of 200 sentences that the model was not trained with.
#[test]
fn it_stays_close_to_the_original() {
    let golden = std::fs::read(path("tests/data/minilm/embeddings.f32")).unwrap();
    let golden: Vec<f32> = (golden.as_chunks().0.iter())
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect();
    let lines = std::fs::read(path("tests/data/minilm/lines.json")).unwrap();
    let lines: Vec<String> = serde_json::from_slice(&lines).unwrap();
    let ids = std::fs::read(path("tests/data/minilm/ids.json")).unwrap();
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&ids).unwrap();
    let texts: Vec<&str> = lines[..200].iter().map(|line| &line[..]).collect();
    for (mode, budget) in [(Mode::Exact, 0.87), (Mode::Int8, 0.865)] {
        let embedder = SentenceEmbedder::new(
            Artifact::read(path("models/minilm-l6.centroid")).unwrap(),
            Options::new().mode(mode).truncation(Truncation::Truncate),
        )
        .unwrap();
        assert_eq!(embedder.dimensions(), DIMENSIONS);
        let found = embedder.embed(&texts).unwrap();
        // The same in one array.
        let matrix = embedder.embed_matrix(&texts).unwrap();
        let rows: Vec<f32> = found.iter().flat_map(|of| of.vector.clone()).collect();
        assert_eq!(matrix.values, rows);
        assert!(found.iter().map(|of| of.tokens).eq(matrix.tokens));
        assert!(embedder.embed_matrix(&[]).unwrap().values.is_empty());
        for (found, ids) in found.iter().zip(&ids) {
            // All but the last, which is the separator also where a text was cut.
            let kept = found.ids.len() - 1;
            assert_eq!(found.ids[..kept], ids[..kept]);
        }
        let cosines: Vec<f32> = (found.iter().zip(golden.chunks_exact(DIMENSIONS)))
            .map(|(found, golden)| found.vector.iter().zip(golden).map(|(a, b)| a * b).sum())
            .collect();
        let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
        let least = cosines.iter().copied().fold(1.0, f32::min);
        println!("{}: mean cosine {mean:.4}, least {least:.4}", mode.name());
        assert!(mean > budget, "{}: {mean}", mode.name());
    }
}

/// A job that is large enough for several forward passes and threads.
#[test]
fn a_text_is_embedded_the_same_in_any_company() {
    let lines = std::fs::read(path("tests/data/minilm/lines.json")).unwrap();
    let lines: Vec<String> = serde_json::from_slice(&lines).unwrap();
    let texts: Vec<&str> = lines[..100].iter().map(|line| &line[..]).collect();
    for mode in [Mode::Exact, Mode::Int8] {
        let embed = |threads: usize, texts: &[&str]| -> Vec<Vec<u32>> {
            let artifact = Artifact::open(path("models/minilm-l6.centroid")).unwrap();
            let options = Options::new()
                .mode(mode)
                .threads(threads)
                .truncation(Truncation::Truncate);
            let embedder = SentenceEmbedder::new(artifact, options).unwrap();
            let bits = |vector: Vec<f32>| vector.into_iter().map(f32::to_bits).collect();
            let embeddings = embedder.embed(texts).unwrap();
            embeddings.into_iter().map(|e| bits(e.vector)).collect()
        };
        let together = embed(1, &texts);
        assert_eq!(together, embed(3, &texts));
        for i in (0..texts.len()).step_by(17) {
            assert_eq!(embed(2, &texts[i..i + 1])[0], together[i]);
        }
    }
}
