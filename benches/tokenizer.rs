//! Opening and tokenizing, beside the `tokenizers` crate: `cargo bench --bench tokenizer`.
//!
//! Real vocabularies and sentences where `tools/setup` has fetched them, else generated ones.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use centroid::bench::{Words, roberta_json};
use centroid::convert::{Architecture, Conversion, ConvertOptions};
use centroid::{Artifact, Options, Scheme, TextClassifier};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn cached(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(".cache")
        .join(part)
}

/// Opening RoBERTa-base from a mapped file: all checks, with and without the tokenizer.
fn open(c: &mut Criterion) {
    let options = ConvertOptions {
        plan: Architecture::RobertaBase.default_plan(Scheme::Pq),
        ..Default::default()
    };
    let conversion = Conversion::random(Architecture::RobertaBase, &options).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("roberta-base.centroid");
    conversion.write(&path, false, &|_| ()).unwrap();
    let mut group = c.benchmark_group("open roberta-base");
    group.bench_function("artifact", |b| {
        b.iter(|| black_box(Artifact::open(&path).unwrap()))
    });
    let artifact = Artifact::open(&path).unwrap();
    group.bench_function("tokenizer", |b| {
        b.iter(|| black_box(Words::open(&artifact).unwrap()))
    });
    group.bench_function("artifact, model and tokenizer", |b| {
        b.iter(|| {
            let artifact = Artifact::open(&path).unwrap();
            let options = Options::new().threads(1);
            black_box(TextClassifier::new(artifact, options).unwrap())
        })
    });
    let json = roberta_json(None).unwrap();
    group.sample_size(20);
    group.bench_function("tokenizer.json, by the tokenizers crate", |b| {
        b.iter(|| black_box(tokenizers::Tokenizer::from_bytes(&json).unwrap()))
    });
    group.bench_function("tokenizer.json, made tables", |b| {
        b.iter(|| black_box(Words::from_json(&json).unwrap()))
    });
    group.finish();
}

fn encode(c: &mut Criterion) {
    let bpe = cached("gpt2-bpe");
    let bpe = roberta_json(bpe.exists().then_some(&bpe)).unwrap();
    let wordpiece = std::fs::read(cached("minilm-l6-v2/tokenizer.json"));
    let reviews = std::fs::read_to_string(cached("reviews/movie.tsv")).unwrap_or_default();
    let mut lines: Vec<&str> = reviews
        .lines()
        .filter_map(|l| Some(l.split_once('\t')?.1))
        .collect();
    if lines.is_empty() {
        lines.push("The quick brown fox jumps over the lazy dog, and nobody was surprised.");
    }
    let long = lines
        .iter()
        .cycle()
        .take(200)
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    for (name, json) in [("byte-level", Some(bpe)), ("wordpiece", wordpiece.ok())] {
        let Some(json) = json else { continue };
        let words = Words::from_json(&json).unwrap();
        let mut reference = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        // Those of the file, which have no effect here.
        reference.with_padding(None).with_truncation(None).unwrap();
        let mut group = c.benchmark_group(format!("encode {name}"));
        for tokens in [8, 128] {
            let end = (long.char_indices().map(|(at, _)| at))
                .find(|&at| words.ids(&long[..at]).unwrap().len() >= tokens);
            let text = &long[..end.unwrap_or(long.len())];
            group.throughput(Throughput::Elements(tokens as u64));
            group.bench_function(format!("{tokens} tokens"), |b| {
                b.iter(|| black_box(words.ids(text).unwrap()))
            });
            group.bench_function(format!("{tokens} tokens, tokenizers crate"), |b| {
                b.iter(|| black_box(reference.encode_fast(text, true).unwrap()))
            });
        }
        let bytes: usize = lines.iter().map(|line| line.len()).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.sample_size(10);
        group.bench_function("reviews", |b| {
            b.iter(|| {
                lines
                    .iter()
                    .map(|line| words.ids(line).unwrap().len())
                    .sum::<usize>()
            })
        });
        group.bench_function("reviews, tokenizers crate", |b| {
            b.iter(|| {
                let ids = lines
                    .iter()
                    .map(|line| reference.encode_fast(*line, true).unwrap());
                ids.map(|ids| ids.len()).sum::<usize>()
            })
        });
        group.finish();
    }
}

criterion_group!(benches, open, encode);
criterion_main!(benches);
