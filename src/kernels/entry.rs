//! The two types of codebook values, and how weights of any scheme become values of either.

use std::ops::Range;

use bytemuck::Pod;

use super::{Codebook, Codes, Weights, Zero};
use crate::layout::{INT8_GROUP, Tile};

/// A value of a codebook.
pub(crate) trait Entry: Pod {
    /// The table to look codes up in without a check, if the codebook has one that fits.
    fn table<'a>(book: &'a Codebook, zero: &Zero) -> Option<&'a [Self]>;

    /// Stored integers as they are, where they are values of this type.
    fn stored(values: &[i8]) -> Option<&[Self]>;

    /// Hands `put(o, k, value)` the weights of outputs `outputs` (counted from the tile's first) and
    /// inputs `inputs`. Zero points are subtracted in `f32` only.
    fn decode(
        weights: &Weights,
        tile: Tile,
        outputs: Range<usize>,
        inputs: Range<usize>,
        put: impl FnMut(usize, usize, Self),
    );
}

impl Entry for i8 {
    fn table<'a>(book: &'a Codebook, _: &Zero) -> Option<&'a [i8]> {
        book.looks_up().then_some(&book.int8)
    }

    fn stored(values: &[i8]) -> Option<&[i8]> {
        Some(values)
    }

    fn decode(
        weights: &Weights,
        tile: Tile,
        outputs: Range<usize>,
        inputs: Range<usize>,
        mut put: impl FnMut(usize, usize, i8),
    ) {
        match weights.codes {
            Codes::Pq { codes, book } => {
                let units = Units::new(codes, tile, weights.in_features, book.block, 1);
                units.each(outputs, inputs, |o, k, i, code| {
                    put(o, k, book.int8[usize::from(code[0]) * book.block + i])
                });
            }
            Codes::Int8(values) => {
                let units = Units::new(values, tile, weights.in_features, INT8_GROUP, INT8_GROUP);
                units.each(outputs, inputs, |o, k, i, group| put(o, k, group[i]));
            }
            Codes::F16(_) | Codes::F32(_) => {
                unreachable!("f16 and f32 weights are always multiplied in f32")
            }
        }
    }
}

impl Entry for f32 {
    fn table<'a>(book: &'a Codebook, zero: &Zero) -> Option<&'a [f32]> {
        (book.looks_up() && matches!(zero, Zero::Tensor(0))).then_some(&book.f32)
    }

    fn stored(_: &[i8]) -> Option<&[f32]> {
        None
    }

    fn decode(
        weights: &Weights,
        tile: Tile,
        outputs: Range<usize>,
        inputs: Range<usize>,
        mut put: impl FnMut(usize, usize, f32),
    ) {
        let columns = weights.in_features;
        let zero = |o: usize| weights.zero.of(tile.first + o) as f32;
        match weights.codes {
            Codes::Pq { codes, book } => {
                let units = Units::new(codes, tile, columns, book.block, 1);
                units.each(outputs, inputs, |o, k, i, code| {
                    let centroid = usize::from(code[0]) * book.block;
                    put(o, k, book.f32[centroid + i] - zero(o))
                });
            }
            Codes::Int8(values) => {
                let units = Units::new(values, tile, columns, INT8_GROUP, INT8_GROUP);
                units.each(outputs, inputs, |o, k, i, group| {
                    put(o, k, f32::from(group[i]) - zero(o))
                });
            }
            Codes::F16(values) => {
                let units = Units::new(values, tile, columns, 1, 1);
                units.each(outputs, inputs, |o, k, _, v| put(o, k, v[0].to_f32()));
            }
            Codes::F32(values) => {
                let units = Units::new(values, tile, columns, 1, 1);
                units.each(outputs, inputs, |o, k, _, v| put(o, k, v[0]));
            }
        }
    }
}

/// A tile's units, `[units][width][each]`, of `block` inputs each.
struct Units<'a, T> {
    values: &'a [T],
    width: usize,
    block: usize,
    each: usize,
}

impl<'a, T> Units<'a, T> {
    fn new(values: &'a [T], tile: Tile, columns: usize, block: usize, each: usize) -> Self {
        let range = tile.range(columns.div_ceil(block));
        Self {
            values: &values[range.start * each..range.end * each],
            width: tile.width,
            block,
            each,
        }
    }

    /// For each output and input of the ranges: where it is in its unit, and the unit.
    fn each(
        &self,
        outputs: Range<usize>,
        inputs: Range<usize>,
        mut f: impl FnMut(usize, usize, usize, &[T]),
    ) {
        let mut k = inputs.start;
        while k < inputs.end {
            let unit = k / self.block;
            let end = ((unit + 1) * self.block).min(inputs.end);
            let row = &self.values[unit * self.width * self.each..][..self.width * self.each];
            for o in outputs.clone() {
                let values = &row[o * self.each..][..self.each];
                (k..end).for_each(|k| f(o, k, k - unit * self.block, values));
            }
            k = end;
        }
    }
}
