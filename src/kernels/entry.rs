//! The two types of codebook values, and how weights of any scheme become values of either.

use std::ops::Range;

use bytemuck::Pod;
use half::f16;

use super::dot::STEP;
use super::{Codebook, Codes, Weights, Zero};
use crate::layout::{INT8_GROUP, Tile};

/// A value of a codebook.
pub(crate) trait Entry: Pod {
    /// The table to look codes up in without a check, if the codebook has one that fits.
    fn table<'a>(book: &'a Codebook, zero: &Zero) -> Option<&'a [Self]>;

    /// Stored integers as they are, where they are values of this type.
    fn stored(values: &[i8]) -> Option<&[Self]>;

    /// Hands `put(o, step, values)` the weights of outputs `outputs` (counted from the tile's first) for
    /// the inputs of each of `steps`; what is beyond the last input is any finite value. Zero points are
    /// subtracted in `f32` only.
    fn decode(
        weights: &Weights,
        tile: Tile,
        outputs: Range<usize>,
        steps: Range<usize>,
        put: impl FnMut(usize, usize, [Self; STEP]),
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
        steps: Range<usize>,
        put: impl FnMut(usize, usize, [i8; STEP]),
    ) {
        let units = Units {
            tile,
            columns: weights.in_features,
            outputs,
            steps,
        };
        match weights.codes {
            Codes::Pq { codes, book } => units.looked_up(codes, &book.int8, book.block, put),
            Codes::Int8(values) => units.groups(values, put),
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
        steps: Range<usize>,
        mut put: impl FnMut(usize, usize, [f32; STEP]),
    ) {
        let units = Units {
            tile,
            columns: weights.in_features,
            outputs,
            steps,
        };
        let zero = |o: usize| weights.zero.of(tile.first + o) as f32;
        match weights.codes {
            Codes::Pq { codes, book } => {
                units.looked_up(codes, &book.f32, book.block, |o, step, values| {
                    let zero = zero(o);
                    put(o, step, values.map(|v| v - zero));
                });
            }
            Codes::Int8(values) => units.groups(values, |o, step, values| {
                let zero = zero(o);
                put(o, step, values.map(|v| f32::from(v) - zero));
            }),
            Codes::F16(values) => units.columns(values, f16::to_f32, put),
            Codes::F32(values) => units.columns(values, |v| v, put),
        }
    }
}

/// Outputs (counted from the tile's first) and steps of the input that are wanted of a tile.
struct Units {
    tile: Tile,
    columns: usize,
    outputs: Range<usize>,
    steps: Range<usize>,
}

impl Units {
    /// Codes, `[units][width]`, of `block` inputs each.
    fn looked_up<E: Pod>(
        self,
        codes: &[u8],
        table: &[E],
        block: usize,
        mut put: impl FnMut(usize, usize, [E; STEP]),
    ) {
        let width = self.tile.width;
        let codes = &codes[self.tile.range(self.columns.div_ceil(block))];
        for step in self.steps {
            let mut places = [(0, 0); STEP];
            let inputs = STEP.min(self.columns - step * STEP);
            for (i, place) in places[..inputs].iter_mut().enumerate() {
                let k = step * STEP + i;
                *place = (k / block * width, k % block);
            }
            for o in self.outputs.clone() {
                let mut values = [E::zeroed(); STEP];
                for (value, &(row, at)) in values.iter_mut().zip(&places[..inputs]) {
                    *value = table[usize::from(codes[row + o]) * block + at];
                }
                put(o, step, values);
            }
        }
    }

    /// Integers, `[steps][width][STEP]`.
    fn groups(self, values: &[i8], mut put: impl FnMut(usize, usize, [i8; STEP])) {
        const { assert!(STEP == INT8_GROUP) };
        let range = self.tile.range(self.columns.div_ceil(STEP));
        let (groups, _) = values[range.start * STEP..range.end * STEP].as_chunks::<STEP>();
        for step in self.steps {
            let row = &groups[step * self.tile.width..][..self.tile.width];
            for o in self.outputs.clone() {
                put(o, step, row[o]);
            }
        }
    }

    /// Values, `[columns][width]`.
    fn columns<T: Pod>(
        self,
        values: &[T],
        decode: impl Fn(T) -> f32,
        mut put: impl FnMut(usize, usize, [f32; STEP]),
    ) {
        let width = self.tile.width;
        let values = &values[self.tile.range(self.columns)];
        for step in self.steps {
            let end = values.len().min((step + 1) * STEP * width);
            let rows = &values[step * STEP * width..end];
            if rows.len() == STEP * width {
                let rows: [&[T]; STEP] = std::array::from_fn(|i| &rows[i * width..][..width]);
                for o in self.outputs.clone() {
                    put(o, step, std::array::from_fn(|i| decode(rows[i][o])));
                }
            } else {
                for o in self.outputs.clone() {
                    let value = |i: usize| rows.get(i * width + o).map_or(0.0, |&v| decode(v));
                    put(o, step, std::array::from_fn(value));
                }
            }
        }
    }
}
