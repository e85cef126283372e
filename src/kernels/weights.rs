//! What a product multiplies with: borrowed codes, and the small tables made from a codebook.

use std::sync::OnceLock;

use half::f16;

/// What a row of zeros yields in each output where kernels move activations to positive numbers: to be
/// subtracted, and found out by the first product that needs it.
pub(crate) type Offsets = OnceLock<Box<[i32]>>;

/// A linear weight in tiles (see [`crate::layout`]), wherever its bytes live.
#[derive(Clone, Copy)]
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
    /// Of these weights; without it, every product finds them out again.
    pub(crate) offsets: Option<&'a Offsets>,
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
    #[cfg(test)]
    pub(crate) fn factor(&self, o: usize) -> f32 {
        match self.row_scale {
            Some(rows) => self.scale * rows[o].to_f32(),
            None => self.scale,
        }
    }

    #[cfg(test)]
    pub(crate) fn bias(&self, o: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[o])
    }
}

/// The most that the magnitudes of two neighbouring `int8` values may add up to for one sum of their
/// products with activations up to 255 to fit an `i16`; half of it for two such sums, and so on.
pub(crate) const PAIR: u32 = 128;

/// Tables made from a codebook once, when a model is opened.
pub(crate) struct Codebook {
    /// Values of a centroid.
    pub(crate) block: usize,
    /// Factor of the `int8` table.
    pub(crate) int8_scale: f32,
    /// Factor of the `f32` table.
    pub(crate) f32_scale: f32,
    /// [`PAIR`] over the largest sum of magnitudes of two neighbours, counted from each centroid's start:
    /// 0 for codebooks that are not narrow, or of an odd block size.
    pub(crate) room: u32,
    /// How many dot products of a centroid and activations up to 127 in magnitude can be added up in an
    /// `i16`.
    pub(crate) sums: u32,
    /// `[rows][block]`, with as many rows as centroids, or filled up to 256 where the kernels look
    /// codes up without a check.
    pub(crate) int8: Vec<i8>,
    /// The same.
    pub(crate) f32: Vec<f32>,
}

impl Codebook {
    /// Rows of a table that has one for every code.
    pub(crate) const ROWS: usize = 256;
    /// The fewest centroids for which the tables are filled up: a file must not be able to ask for
    /// many times its size.
    const FEWEST: usize = 64;

    /// From `int8` centroids `[centroids][block]` with one scale.
    pub(crate) fn from_int8(values: &[i8], block: usize, scale: f32) -> Self {
        let exact = values.iter().map(|&v| f32::from(v)).collect();
        Self::new(values.to_vec(), exact, block, scale, scale)
    }

    /// From `f16` centroids, which the `int8` table holds rounded to 8 bits, within [`PAIR`], as
    /// the kernels for narrow codebooks need it.
    pub(crate) fn from_f16(values: &[f16], block: usize) -> Self {
        let exact: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
        let largest = exact.iter().fold(0f32, |m, v| m.max(v.abs() / 127.0));
        let pairs = exact.chunks_exact(if block.is_multiple_of(2) { 2 } else { 1 });
        let pairs = pairs.map(|pair| pair.iter().map(|v| v.abs()).sum::<f32>());
        // Less one, as both may be rounded up.
        let most = pairs.fold(0f32, |m, sum| m.max(sum / (PAIR - 1) as f32));
        let scale = largest.max(most);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let rounded = exact
            .iter()
            .map(|v| (v / scale).round().clamp(-127.0, 127.0) as i8)
            .collect();
        Self::new(rounded, exact, block, scale, 1.0)
    }

    /// The 256 pairs of two 4-bit values, less a zero point: `int4` weights are codes into this
    /// codebook of block size 2.
    pub(crate) fn int4(zero: i8) -> Self {
        let values: Vec<i8> = (0..=255u8)
            .flat_map(|code| [(code & 15) as i8 - zero, (code >> 4) as i8 - zero])
            .collect();
        Self::from_int8(&values, 2, 1.0)
    }

    /// Whether the tables have a row for every code, of a size that the kernels look up.
    pub(super) fn looks_up(&self) -> bool {
        matches!(self.block, 2 | 4 | 8 | 16) && self.int8.len() == Self::ROWS * self.block
    }

    fn new(
        mut int8: Vec<i8>,
        mut f32: Vec<f32>,
        block: usize,
        int8_scale: f32,
        f32_scale: f32,
    ) -> Self {
        // More are those of several codebooks, of a table.
        if (Self::FEWEST..Self::ROWS).contains(&(int8.len() / block)) {
            int8.resize(Self::ROWS * block, 0);
            f32.resize(Self::ROWS * block, 0.0);
        }
        let sum = |pair: &[i8]| {
            pair.iter()
                .map(|v| u32::from(v.unsigned_abs()))
                .sum::<u32>()
        };
        let largest = int8.chunks_exact(2).map(sum).max().unwrap_or(0).max(1);
        let room = if block.is_multiple_of(2) {
            PAIR / largest
        } else {
            0
        };
        let largest = int8.chunks(block).map(sum).max().unwrap_or(0).max(1);
        let sums = i16::MAX as u32 / 127 / largest;
        Self {
            block,
            room,
            sums,
            int8_scale,
            f32_scale,
            int8,
            f32,
        }
    }
}
