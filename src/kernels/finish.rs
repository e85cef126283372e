//! From sums to outputs.

use super::{QuantizedRows, Weights};
use crate::layout::{TILE, Tile};

/// What a tile's outputs are scaled with and moved by.
pub(super) struct Constants {
    pub(super) factor: [f32; TILE],
    pub(super) bias: [f32; TILE],
    zero: [i32; TILE],
}

impl Constants {
    #[inline(always)]
    pub(super) fn new(weights: &Weights, tile: Tile) -> Self {
        let mut constants = Self {
            factor: [weights.scale; TILE],
            bias: [0.0; TILE],
            zero: [0; TILE],
        };
        let range = tile.first..tile.first + tile.width;
        if let Some(rows) = weights.row_scale {
            for (factor, row) in constants.factor.iter_mut().zip(&rows[range.clone()]) {
                *factor = weights.scale * row.to_f32();
            }
        }
        if let Some(bias) = weights.bias {
            constants.bias[..tile.width].copy_from_slice(&bias[range.clone()]);
        }
        for (zero, o) in constants.zero.iter_mut().zip(range) {
            *zero = weights.zero.of(o);
        }
        constants
    }
}

/// The last step of a product.
pub(super) trait Finish<S>: Sync {
    /// Fills `out` (up to 64 outputs of a tile) from the sums of row `row`.
    fn row(&self, constants: &Constants, row: usize, sums: &[S], out: &mut [f32]);
}

/// Fills the outputs of a tile with `value(o)`. A whole tile is computed even where there are fewer: a
/// loop of a fixed length.
#[inline(always)]
fn each(out: &mut [f32], value: impl Fn(usize) -> f32) {
    if let Ok(out) = <&mut [f32; TILE]>::try_from(&mut *out) {
        for (o, out) in out.iter_mut().enumerate() {
            *out = value(o);
        }
        return;
    }
    let mut all = [0.0; TILE];
    for (o, all) in all.iter_mut().enumerate() {
        *all = value(o);
    }
    out.copy_from_slice(&all[..out.len()]);
}

/// Exact sums of `int8` activations: the same operations in every instruction set, so that all of
/// them give the same bits.
pub(super) struct Int8<'a> {
    rows: &'a QuantizedRows,
    /// The number of the product's first row among them.
    first: usize,
}

impl<'a> Int8<'a> {
    pub(super) fn new(rows: &'a QuantizedRows, first: usize) -> Self {
        Self { rows, first }
    }
}

impl Finish<i32> for Int8<'_> {
    #[inline(always)]
    fn row(&self, constants: &Constants, row: usize, sums: &[i32], out: &mut [f32]) {
        let row = self.first + row;
        let (scale, total) = (self.rows.scale(row), self.rows.sum(row));
        let sums = &sums[..TILE];
        each(out, |o| {
            let sum = sums[o].wrapping_sub(constants.zero[o].wrapping_mul(total));
            sum as f32 * (scale * constants.factor[o]) + constants.bias[o]
        });
    }
}

/// Sums of `f32` activations.
pub(super) struct F32;

impl Finish<f32> for F32 {
    #[inline(always)]
    fn row(&self, constants: &Constants, _: usize, sums: &[f32], out: &mut [f32]) {
        let sums = &sums[..TILE];
        each(out, |o| sums[o] * constants.factor[o] + constants.bias[o]);
    }
}
