//! What a product multiplies with: borrowed codes, and the small tables made from a codebook.

use half::f16;

use crate::layout::INT8_GROUP;

/// A linear weight in tiles (see [`crate::layout`]), wherever its bytes live.
pub(crate) struct Weights<'a> {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    pub(crate) codes: Codes<'a>,
    /// Factor of every output.
    pub(crate) scale: f32,
    /// Further factor of each output.
    pub(crate) row_scale: Option<&'a [f16]>,
    pub(crate) zero: Zero<'a>,
    /// Added to each output.
    pub(crate) bias: Option<&'a [f32]>,
}

/// The stored values, in tiles.
#[derive(Clone, Copy)]
pub(crate) enum Codes<'a> {
    /// `[ceil(in / block)]` codes an output.
    Pq {
        codes: &'a [u8],
        book: &'a Codebook,
    },
    /// `[ceil(in / 8)]` groups of 8 values an output.
    Int8(&'a [i8]),
    F16(&'a [f16]),
    F32(&'a [f32]),
}

/// What is subtracted from stored integers.
#[derive(Clone, Copy)]
pub(crate) enum Zero<'a> {
    Tensor(i8),
    Row(&'a [i8]),
}

impl Zero<'_> {
    pub(crate) fn of(&self, output: usize) -> i32 {
        i32::from(match self {
            Zero::Tensor(zero) => *zero,
            Zero::Row(zeros) => zeros[output],
        })
    }
}

impl Weights<'_> {
    /// The factor of output `o`.
    pub(crate) fn factor(&self, o: usize) -> f32 {
        match self.row_scale {
            Some(rows) => self.scale * rows[o].to_f32(),
            None => self.scale,
        }
    }

    pub(crate) fn bias(&self, o: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[o])
    }

    /// How `int8` activations are laid out for these weights: blocks of this many values, each
    /// padded to an even number.
    pub(crate) fn activation_block(&self) -> usize {
        match self.codes {
            Codes::Pq { book, .. } => book.block,
            Codes::Int8(_) | Codes::F16(_) | Codes::F32(_) => INT8_GROUP,
        }
    }
}

/// Tables made from a codebook once, when a model is opened. Together they take at most some 16
/// times the codebook's bytes.
pub(crate) struct Codebook {
    /// Values of a centroid.
    pub(crate) block: usize,
    /// Factor of the `int8` tables.
    pub(crate) int8_scale: f32,
    /// Factor of the `f32` table.
    pub(crate) f32_scale: f32,
    /// `[centroids][ceil(block / 2)]`: pairs of centroid values as two `i16` in an `i32`, the first one
    /// in the low half; an odd block ends in a zero.
    pub(crate) pairs: Vec<i32>,
    /// The same as `[ceil(block / 2)][256]`, filled up with zeros; empty for codebooks of less than
    /// 64 centroids, which are too small for lookup tables to pay.
    pub(crate) by_pair: Vec<i32>,
    /// `[centroids][block]`
    pub(crate) f32: Vec<f32>,
}

impl Codebook {
    /// Entries of a lookup table: as many as there are codes.
    pub(crate) const ROWS: usize = 256;
    /// The fewest centroids for which lookup tables are used.
    const TABLE_CENTROIDS: usize = 64;

    /// From `int8` centroids `[centroids][block]` with one scale.
    pub(crate) fn from_int8(values: &[i8], block: usize, scale: f32) -> Self {
        let exact = values.iter().map(|&v| f32::from(v)).collect();
        Self::new(values, exact, block, scale, scale)
    }

    /// From `f16` centroids, which the `int8` tables hold rounded to 8 bits.
    pub(crate) fn from_f16(values: &[f16], block: usize) -> Self {
        let exact: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
        let largest = exact.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let rounded: Vec<i8> = exact
            .iter()
            .map(|v| (v / scale).round().clamp(-127.0, 127.0) as i8)
            .collect();
        Self::new(&rounded, exact, block, scale, 1.0)
    }

    /// The 256 pairs of two 4-bit values, less a zero point: `int4` weights are codes into this
    /// codebook of block size 2.
    pub(crate) fn int4(zero: i8) -> Self {
        let values: Vec<i8> = (0..=255u8)
            .flat_map(|code| [(code & 15) as i8 - zero, (code >> 4) as i8 - zero])
            .collect();
        Self::from_int8(&values, 2, 1.0)
    }

    fn new(int8: &[i8], f32: Vec<f32>, block: usize, int8_scale: f32, f32_scale: f32) -> Self {
        let per_row = block.div_ceil(2);
        let centroids = int8.len() / block;
        let mut pairs = vec![0; centroids * per_row];
        let mut by_pair = match centroids {
            Self::TABLE_CENTROIDS.. => vec![0; Self::ROWS * per_row],
            _ => Vec::new(),
        };
        for (c, centroid) in int8.chunks_exact(block).enumerate() {
            for (p, pair) in centroid.chunks(2).enumerate() {
                let packed = pack(pair[0], pair.get(1).copied().unwrap_or(0));
                pairs[c * per_row + p] = packed;
                if let Some(entry) = by_pair.get_mut(p * Self::ROWS + c) {
                    *entry = packed;
                }
            }
        }
        Self {
            block,
            int8_scale,
            f32_scale,
            pairs,
            by_pair,
            f32,
        }
    }
}

/// Two values as the `i16` halves of an `i32`, the first in the low half.
pub(crate) fn pack(low: i8, high: i8) -> i32 {
    i32::from(low) & 0xffff | i32::from(high) << 16
}
