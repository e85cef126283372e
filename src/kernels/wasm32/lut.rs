//! Tables of dot products with simd128: eight rows in the 16-bit lanes of a vector.

use std::arch::wasm32::*;

use bytemuck::{Pod, Zeroable};

use crate::kernels::lanes::{BLOCK, Lanes, LanesOp};
use crate::layout::TILE;

/// Eight rows.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Eight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels) struct Entry([i16; 8]);

/// Calls instructions.
macro_rules! simd128 {
    ($instructions:expr) => {{
        // SAFETY: what touches memory takes a reference to at least as many bytes.
        unsafe { $instructions }
    }};
}

impl Lanes for Eight {
    const ROWS: usize = 8;
    const TABLES: usize = 4;
    const EACH: usize = 1;
    /// Widened, as each is multiplied with all rows.
    type Centroids = [i16; BLOCK];
    /// Input by input, of eight rows.
    type Inputs = [[i16; 8]; BLOCK];
    type Entry = Entry;
    type Sums = [[i32; 4]; 2];
    type Vector = v128;
    type Acc = [v128; 2];

    #[inline(never)]
    fn run<O: LanesOp<Self>>(self, op: O) {
        op.eval(self)
    }

    fn centroids(book: &[i8], out: &mut [[i16; BLOCK]]) {
        for (out, &value) in out.as_flattened_mut().iter_mut().zip(book) {
            *out = i16::from(value);
        }
    }

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs {
        let mut inputs = [[0; 8]; BLOCK];
        for (r, row) in rows.iter().take(8).enumerate() {
            for (input, &value) in inputs.iter_mut().zip(row) {
                input[r] = i16::from(value);
            }
        }
        inputs
    }

    fn table(self, centroids: &[[i16; 8]], inputs: &Self::Inputs, table: &mut [Entry; 256]) {
        let x = inputs
            .each_ref()
            .map(|x| simd128!(v128_load(x.as_ptr().cast())));
        for (centroid, entry) in centroids.iter().zip(table) {
            let product = |i: usize| {
                i16x8_mul(
                    x[i],
                    simd128!(v128_load16_splat(&raw const centroid[i] as _)),
                )
            };
            let two = |i: usize| i16x8_add(product(i), product(i + 1));
            let sums = i16x8_add(i16x8_add(two(0), two(2)), i16x8_add(two(4), two(6)));
            simd128!(v128_store(entry.0.as_mut_ptr().cast(), sums));
        }
    }

    #[inline(always)]
    fn codes(codes: [u8; 8]) -> u64 {
        u64::from_le_bytes(codes)
    }

    #[inline(always)]
    fn entry(self, table: &[Entry; 256], codes: u64, index: usize) -> v128 {
        let Entry(entry) = &table[usize::from((codes >> (8 * index)) as u8)];
        simd128!(v128_load(entry.as_ptr().cast()))
    }

    #[inline(always)]
    fn two(self, a: v128, b: v128) -> v128 {
        i16x8_add(a, b)
    }

    #[inline(always)]
    fn load(self, sums: &[[i32; 4]; 2]) -> [v128; 2] {
        sums.each_ref()
            .map(|sums| simd128!(v128_load(sums.as_ptr().cast())))
    }

    #[inline(always)]
    fn add(self, [low, high]: [v128; 2], entries: v128) -> [v128; 2] {
        [
            i32x4_add(low, i32x4_extend_low_i16x8(entries)),
            i32x4_add(high, i32x4_extend_high_i16x8(entries)),
        ]
    }

    #[inline(always)]
    fn store(self, acc: [v128; 2], sums: &mut [[i32; 4]; 2]) {
        for (acc, sums) in acc.into_iter().zip(sums) {
            simd128!(v128_store(sums.as_mut_ptr().cast(), acc));
        }
    }

    #[inline(always)]
    fn turn(self, sums: &[[[i32; 4]; 2]; TILE], rows: &mut [[i32; TILE]]) {
        for (r, row) in rows.iter_mut().enumerate() {
            for (out, sums) in row.iter_mut().zip(sums) {
                *out = sums[r / 4][r % 4];
            }
        }
    }
}
