//! Whole forward passes of generated models on one thread, token ids or pixels in, labels out:
//! RoBERTa-base (13.8 MB) and EfficientNets. `cargo bench --bench forward`.

use std::hint::black_box;

use centroid::convert::{Architecture, Conversion, ConvertOptions};
use centroid::{Artifact, ImageClassifier, Mode, Options, Scheme, TextClassifier};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn generated(architecture: Architecture) -> Artifact {
    let options = ConvertOptions {
        plan: architecture.default_plan(Scheme::Pq),
        ..Default::default()
    };
    let conversion = Conversion::random(architecture, &options).unwrap();
    Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap()
}

fn encoder(c: &mut Criterion) {
    let artifact = generated(Architecture::RobertaBase);
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

fn networks(c: &mut Criterion) {
    let mut group = c.benchmark_group("networks");
    group.sample_size(10);
    for architecture in [
        Architecture::EfficientNetB3,
        Architecture::EfficientNetB0,
        Architecture::EfficientNetLite0,
    ] {
        let artifact = generated(architecture);
        for mode in [Mode::Int8, Mode::Exact] {
            let options = Options::new().threads(1).mode(mode);
            let classifier = ImageClassifier::new(artifact.clone(), options).unwrap();
            let values = classifier.size() * classifier.size() * 3;
            let image: Vec<f32> = (0..values)
                .map(|i| (i * 97 % 400) as f32 / 100.0 - 2.0)
                .collect();
            group.bench_function(BenchmarkId::new(architecture.name(), mode.name()), |b| {
                b.iter(|| black_box(classifier.classify_inputs(&[&image]).unwrap()))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encoder, networks);
criterion_main!(benches);
