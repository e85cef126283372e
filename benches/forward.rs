//! A whole forward pass of generated RoBERTa-base (13.8 MB) on one thread, token ids in, labels
//! out: `cargo bench --bench forward`.

use std::hint::black_box;

use centroid::convert::{Architecture, Conversion, ConvertOptions};
use centroid::{Artifact, Mode, Options, Scheme, TextClassifier};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn forward(c: &mut Criterion) {
    let options = ConvertOptions {
        plan: Architecture::RobertaBase.default_plan(Scheme::Pq),
        ..Default::default()
    };
    let conversion = Conversion::random(Architecture::RobertaBase, &options).unwrap();
    let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
    let mut group = c.benchmark_group("roberta-base");
    group.sample_size(10);
    for mode in [Mode::Int8, Mode::Exact] {
        let options = Options::new().threads(1).mode(mode);
        let classifier = TextClassifier::new(artifact.clone(), options).unwrap();
        for tokens in [1usize, 8, 32, 128] {
            let ids: Vec<u32> = (0..tokens as u32).map(|i| 4 + i * 97 % 50_000).collect();
            group.throughput(Throughput::Elements(tokens as u64));
            group.bench_function(BenchmarkId::new(mode.name(), tokens), |b| {
                b.iter(|| black_box(classifier.classify_ids(&[&ids]).unwrap()))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
