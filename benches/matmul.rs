//! Products straight from codes, on one thread: `cargo bench --bench matmul`.
//!
//! Throughput is in multiply-accumulates a second (criterion calls them elements).

use std::hint::black_box;

use centroid::bench::Matmul;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn matmul(c: &mut Criterion) {
    for shape in [[768, 768], [3072, 768], [768, 3072]] {
        for block in [4, 8] {
            let [out_features, in_features] = shape;
            let mut group =
                c.benchmark_group(format!("{out_features}x{in_features} block {block}"));
            for rows in [1, 2, 3, 4, 6, 7, 8, 16, 32, 128] {
                for (name, largest) in [
                    ("int8", 127),
                    ("int8, up to 64", 64),
                    ("int8, up to 32", 32),
                    ("int8, up to 16", 16),
                ] {
                    let mut matmul = Matmul::new(shape, block, rows, largest).unwrap();
                    group.throughput(Throughput::Elements(matmul.work()));
                    group.bench_function(BenchmarkId::new(name, rows), |b| {
                        b.iter(|| black_box(matmul.int8()))
                    });
                }
                let mut matmul = Matmul::new(shape, block, rows, 32).unwrap();
                group.bench_function(BenchmarkId::new("exact", rows), |b| {
                    b.iter(|| black_box(matmul.exact()))
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
