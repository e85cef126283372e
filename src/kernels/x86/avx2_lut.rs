//! Tables of dot products with AVX2: sixteen rows in the 16-bit lanes of a vector.

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};

use super::avx2::Avx2;
use crate::layout::TILE;

/// Rows of a table's entries.
pub(in crate::kernels) const ROWS: usize = 16;
/// Inputs of a block.
pub(in crate::kernels) const BLOCK: usize = 8;
/// Tables that are used together: they are as large as a first-level cache.
pub(in crate::kernels) const TABLES: usize = 4;

/// The dot products of a block of 16 rows with 256 centroids.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Table([[i16; ROWS]; 256]);

/// An output's sums: of the rows of even numbers, and of the odd ones.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Sums(pub(in crate::kernels) [[i32; ROWS / 2]; 2]);

/// A block of 16 rows: pairs of inputs of each, plus 128.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Rows([[u16; ROWS]; BLOCK / 2]);

impl Rows {
    /// From up to 16 rows.
    pub(in crate::kernels) fn new(rows: impl Iterator<Item = [i8; BLOCK]>) -> Self {
        let mut block = [[0x8080; ROWS]; BLOCK / 2];
        for (r, row) in rows.take(ROWS).enumerate() {
            let word = u64::from_le_bytes(bytemuck::cast(row)) ^ 0x8080_8080_8080_8080;
            for (p, pairs) in block.iter_mut().enumerate() {
                pairs[r] = (word >> (16 * p)) as u16;
            }
        }
        Self(block)
    }
}

/// A centroid of eight values: each pair of them twice, and -128 times their sum, twice.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::kernels) struct Centroid {
    pairs: [[i8; 4]; BLOCK / 2],
    start: [i16; 2],
}

impl Centroid {
    pub(in crate::kernels) fn new(values: &[i8]) -> Self {
        let values: &[i8; BLOCK] = values.try_into().expect("a centroid of eight values");
        let sum: i32 = values.iter().map(|&v| i32::from(v)).sum();
        Self {
            pairs: std::array::from_fn(|p| {
                let [a, b] = [values[2 * p], values[2 * p + 1]];
                [a, b, a, b]
            }),
            start: [(-128 * sum) as i16; 2],
        }
    }
}

impl Avx2 {
    /// Fills a table. Sums wrap at 16 bits on the way, so that the last one is right if it fits.
    pub(in crate::kernels) fn table(self, centroids: &[Centroid; 256], x: &Rows, out: &mut Table) {
        #[target_feature(enable = "avx2,fma")]
        fn inner(centroids: &[Centroid; 256], x: &Rows, out: &mut Table) {
            let x: &[[u8; 32]; 4] = bytemuck::cast_ref(&x.0);
            // SAFETY: each has 32 bytes.
            let x = x.map(|x| unsafe { _mm256_loadu_si256(x.as_ptr().cast()) });
            for (centroid, out) in centroids.iter().zip(&mut out.0) {
                let mut sum = _mm256_set1_epi32(bytemuck::cast(centroid.start));
                for (x, pair) in x.iter().zip(&centroid.pairs) {
                    let pair = _mm256_set1_epi32(bytemuck::cast(*pair));
                    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(*x, pair));
                }
                // SAFETY: there is room for 16 values.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
            }
        }
        // SAFETY: a token's methods run where the processor has AVX2 and FMA.
        unsafe { inner(centroids, x, out) }
    }

    /// Adds the dot products that a tile's codes (`[G][64]`) stand for to its sums, two at a
    /// time in 16 bits.
    pub(in crate::kernels) fn look_up<const G: usize>(
        self,
        codes: &[[u8; TILE]; G],
        tables: &[Table; TABLES],
        sums: &mut [Sums; TILE],
    ) {
        #[target_feature(enable = "avx2,fma,bmi2")]
        fn inner<const G: usize>(
            codes: &[[u8; TILE]; G],
            tables: &[Table; TABLES],
            sums: &mut [Sums; TILE],
        ) {
            let even = _mm256_set1_epi32(1);
            for first in (0..TILE).step_by(8) {
                // Codes are used as offsets in bytes, 32 times as large: a rotation and a mask each.
                let words: [u64; G] = std::array::from_fn(|g| {
                    let bytes: [u8; 8] = codes[g][first..first + 8].try_into().expect("eight");
                    u64::from_le_bytes(bytes).rotate_left(5)
                });
                for o in 0..8usize {
                    let entry = |g: usize| {
                        let offset = words[g].rotate_right(8 * o as u32) as usize & 0x1fe0;
                        // SAFETY: one of 256 entries of 32 bytes.
                        unsafe {
                            let table = tables[g].0.as_ptr().byte_add(offset);
                            _mm256_load_si256(table.cast())
                        }
                    };
                    let sums = sums[first + o].0.as_mut_ptr().cast::<__m256i>();
                    // SAFETY: an output has two vectors of sums.
                    let (mut a, mut b) =
                        unsafe { (_mm256_loadu_si256(sums), _mm256_loadu_si256(sums.add(1))) };
                    for from in (0..G).step_by(2) {
                        let mut entries = entry(from);
                        if from + 1 < G {
                            entries = _mm256_add_epi16(entries, entry(from + 1));
                        }
                        a = _mm256_add_epi32(a, _mm256_madd_epi16(entries, even));
                        b = _mm256_add_epi32(b, _mm256_srai_epi32::<16>(entries));
                    }
                    // SAFETY: as above.
                    unsafe {
                        _mm256_storeu_si256(sums, a);
                        _mm256_storeu_si256(sums.add(1), b);
                    }
                }
            }
        }
        const { assert!(G <= TABLES) };
        // SAFETY: a token's methods run where the processor has AVX2, FMA and BMI2.
        unsafe { inner::<G>(codes, tables, sums) }
    }
}
