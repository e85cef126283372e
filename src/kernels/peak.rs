//! What this core reaches by multiplying: the microkernel alone, on weights and rows that lie ready in the
//! first-level cache. What a product takes longer went into looking up centroids, into waiting for
//! memory, and into everything between. Tables of dot products multiply less, and can be faster.

use std::hint::black_box;
use std::time::Instant;

use super::Isa;
use super::dot::{Dot, STEP};
use super::gemm;
use super::micro::{Block, Rows};
use super::source::Panel;

/// The best of so many measurements.
const ROUNDS: usize = 40;
/// Calls of one, of some 200 nanoseconds each.
const CALLS: usize = 2000;

/// Multiply-accumulates a second of one core with the fastest `int8` products of `isa`.
pub(crate) fn int8(isa: Isa) -> f64 {
    // Codebooks as the converter makes them.
    dispatch_int8!(isa, 2, dot => measure(dot))
}

/// The same in `f32`.
pub(crate) fn f32(isa: Isa) -> f64 {
    dispatch_f32!(isa, dot => measure(dot))
}

fn measure<D: Dot>(dot: D) -> f64 {
    let steps = D::STEPS;
    let outputs = D::VECTORS * D::OUTPUTS;
    let stride = steps * STEP;
    let cells = vec![D::cell(bytemuck::Zeroable::zeroed()); outputs * stride];
    let rows = vec![D::act(bytemuck::Zeroable::zeroed()); D::ROWS * stride];
    let mut sums = vec![bytemuck::Zeroable::zeroed(); D::ROWS * crate::layout::TILE];
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS {
            let block = Block {
                source: Panel::new(black_box(&cells[..]), steps, outputs),
                rows: Rows::new(&rows, stride, (0, D::ROWS), (0, steps)),
                from: 0,
                to: steps,
                first: 0,
            };
            gemm::multiply_panel(dot, D::ROWS, &block, &mut sums);
        }
        black_box(&mut sums);
        best = best.min(start.elapsed().as_secs_f64());
    }
    (CALLS * D::ROWS * outputs * stride) as f64 / best
}
