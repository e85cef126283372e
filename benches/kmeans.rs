//! Time to product-quantize one weight matrix of RoBERTa-base, for the block sizes in use.
//!
//! A whole model is 12 x (4 of 768 x 768 + 2 of 768 x 3072) and one of 50265 x 768.

use std::hint::black_box;

use centroid::quant::{
    Importance, Matrix,
    pq::{PqOptions, quantize},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Sums of uniform numbers: the bell shape of trained weights.
fn weights(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n)
        .map(|_| 0.05 * (0..6).map(|_| uniform()).sum::<f32>())
        .collect()
}

fn pq(c: &mut Criterion) {
    let mut group = c.benchmark_group("pq");
    group.sample_size(10);
    for (rows, cols, block) in [
        (768, 768, 4),
        (768, 768, 8),
        (768, 3072, 2),
        (768, 3072, 4),
        (768, 3072, 8),
        (50265, 768, 8),
        (50265, 768, 16),
    ] {
        let data = weights(rows * cols);
        let w = Matrix::new(&data, rows, cols).unwrap();
        group.throughput(Throughput::Elements(data.len() as u64));
        for row_scale in [false, true] {
            let mut options = PqOptions::new(block);
            options.row_scale = row_scale;
            let scaled = if row_scale { "/row-scale" } else { "" };
            group.bench_function(format!("{rows}x{cols}/b{block}{scaled}"), |bench| {
                bench.iter(|| {
                    quantize(black_box(w), Importance::default(), &options, &|_| ()).unwrap()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pq);
criterion_main!(benches);
