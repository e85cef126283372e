//! How alike two embedding models see texts: the cosine of their vectors, and whether each text has the
//! same nearest neighbours among the others.
//!
//! ```text
//! cargo run --release --example retrieval -- ORIGINAL.centroid FILE.centroid TEXTS
//! ```
//!
//! TEXTS has a text a line. The original runs in mode `exact`, the file in both modes. Prints a line of
//! JSON for each mode: mean, 5th percentile and least cosine; the share of texts whose nearest neighbour
//! is the original's; and the share of the original's ten nearest that are among the file's ten nearest.

use std::error::Error;

use centroid::{Artifact, Mode, Options, SentenceEmbedder, Truncation};

/// Neighbours that are compared.
const NEAREST: usize = 10;

/// Vectors of norm 1.
fn vectors(file: &str, mode: Mode, texts: &[&str]) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let options = Options::new().mode(mode).truncation(Truncation::Truncate);
    let model = SentenceEmbedder::new(Artifact::open(file)?, options)?;
    let embeddings = model.embed(texts)?.into_iter().map(|embedding| {
        let norm = dot(&embedding.vector, &embedding.vector).sqrt();
        embedding.vector.iter().map(|value| value / norm).collect()
    });
    Ok(embeddings.collect())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((chunks, rest), (others, other)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0; 16];
    for (a, b) in chunks.iter().zip(others) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest = rest.iter().zip(other).map(|(a, b)| a * b);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// The numbers of the texts that are most like each one, the nearest first.
fn nearest(vectors: &[Vec<f32>]) -> Vec<Vec<usize>> {
    let of_text = |(text, vector): (usize, &Vec<f32>)| {
        let mut others: Vec<(f32, usize)> = (vectors.iter().enumerate())
            .filter(|&(other, _)| other != text)
            .map(|(other, of_other)| (-dot(vector, of_other), other))
            .collect();
        let count = NEAREST.min(others.len());
        if count < others.len() {
            others.select_nth_unstable_by(count, |a, b| a.0.total_cmp(&b.0));
        }
        others.truncate(count);
        others.sort_by(|a, b| a.0.total_cmp(&b.0));
        others.into_iter().map(|(_, other)| other).collect()
    };
    vectors.iter().enumerate().map(of_text).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [original, file, texts] = &arguments[..] else {
        return Err("retrieval ORIGINAL.centroid FILE.centroid TEXTS".into());
    };
    let texts = std::fs::read_to_string(texts)?;
    let texts: Vec<&str> = texts.lines().collect();
    if texts.len() < 2 {
        return Err("there are fewer than two texts".into());
    }
    let expected = vectors(original, Mode::Exact, &texts)?;
    let of_expected = nearest(&expected);
    for (name, mode) in [("exact", Mode::Exact), ("int8", Mode::Int8)] {
        let found = vectors(file, mode, &texts)?;
        let mut cosines: Vec<f32> = (expected.iter().zip(&found))
            .map(|(a, b)| dot(a, b))
            .collect();
        cosines.sort_by(f32::total_cmp);
        let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
        let (low, least) = (cosines[cosines.len() / 20], cosines[0]);
        let (mut first, mut shared) = (0, 0);
        for (a, b) in of_expected.iter().zip(nearest(&found)) {
            first += usize::from(a[0] == b[0]);
            shared += a.iter().filter(|text| b.contains(text)).count();
        }
        let of = of_expected.iter().map(Vec::len).sum::<usize>();
        let same = first as f64 / texts.len() as f64;
        let shared = shared as f64 / of as f64;
        println!(
            r#"{{"mode": "{name}", "texts": {}, "cosine": {mean:.4}, "cosine_5th": {low:.4}, "cosine_least": {least:.4}, "same_nearest": {same:.4}, "shared_of_ten": {shared:.4}}}"#,
            texts.len()
        );
    }
    Ok(())
}
