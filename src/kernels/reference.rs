//! The oracle of the kernel tests: what a product is, in its plainest form.

use super::{Codes, QuantizedRows, Weights};
use crate::layout::{INT8_GROUP, TILE};

/// Index of unit `j` of output `o`, as `format-spec.md` gives it.
fn unit(out_features: usize, units: usize, o: usize, j: usize) -> usize {
    let t = o / TILE;
    let w = TILE.min(out_features - TILE * t);
    TILE * t * units + j * w + (o - TILE * t)
}

/// The stored value of `W[o, k]` before scale and zero point: an integer for the integer schemes.
fn stored(weights: &Weights, o: usize, k: usize, int8: bool) -> f64 {
    let (out, columns) = (weights.out_features, weights.in_features);
    match weights.codes {
        Codes::Pq { codes, book } => {
            let (j, i) = (k / book.block, k % book.block);
            let code = usize::from(codes[unit(out, columns.div_ceil(book.block), o, j)]);
            if int8 {
                f64::from(book.int8[code * book.block + i])
            } else {
                f64::from(book.f32[code * book.block + i])
            }
        }
        Codes::Int8(values) => {
            let at = unit(out, columns.div_ceil(INT8_GROUP), o, k / INT8_GROUP);
            f64::from(values[at * INT8_GROUP + k % INT8_GROUP])
        }
        Codes::F16(values) => values[unit(out, columns, o, k)].to_f64(),
        Codes::F32(values) => f64::from(values[unit(out, columns, o, k)]),
    }
}

pub(super) fn linear_int8(weights: &Weights, x: &QuantizedRows) -> Vec<f32> {
    let mut y = Vec::new();
    for row in 0..x.rows() {
        for o in 0..weights.out_features {
            let zero = f64::from(weights.zero.of(o));
            let sum: f64 = (x.row(row).iter().enumerate())
                .map(|(k, &q)| f64::from(q) * (stored(weights, o, k, true) - zero))
                .sum();
            // Exact up to here; the last steps are rounded as the kernels round them.
            y.push(sum as i32 as f32 * (x.scale(row) * weights.factor(o)) + weights.bias(o));
        }
    }
    y
}

/// In `f64`, together with the sum of magnitudes that bounds the rounding of an `f32` sum.
pub(super) fn linear_f32(weights: &Weights, x: &[f32]) -> Vec<(f64, f64)> {
    let mut y = Vec::new();
    for row in x.chunks_exact(weights.in_features) {
        for o in 0..weights.out_features {
            let zero = f64::from(weights.zero.of(o));
            let factor = f64::from(weights.factor(o));
            let bias = f64::from(weights.bias(o));
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for (k, &x) in row.iter().enumerate() {
                let product = f64::from(x) * (stored(weights, o, k, false) - zero) * factor;
                sum += product;
                magnitude += product.abs();
            }
            y.push((sum + bias, magnitude + bias.abs()));
        }
    }
    y
}
