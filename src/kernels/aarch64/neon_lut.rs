//! Tables of dot products with NEON: eight rows in the 16-bit lanes of a vector.

use std::arch::aarch64::*;
use std::arch::asm;

use bytemuck::{Pod, Zeroable};

use super::dotprod::NeonDotprod;
use super::neon::Neon;
use crate::kernels::lanes::{BLOCK, Lanes, LanesOp};
use crate::layout::TILE;

/// Calls instructions.
macro_rules! neon {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has the instructions; what touches
        // memory takes a reference to at least as many bytes.
        unsafe { $instructions }
    }};
}

/// How an instruction set fills tables; all else is the same.
pub(in crate::kernels) trait Fill: Copy + Send + Sync + 'static {
    type Inputs;

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs;
    fn table(self, centroids: &[[i8; BLOCK]], inputs: &Self::Inputs, table: &mut [Entry; 256]);
}

impl Fill for Neon {
    /// Input by input, of eight rows.
    type Inputs = [[i16; 8]; BLOCK];

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs {
        let mut inputs = [[0; 8]; BLOCK];
        for (r, row) in rows.iter().take(8).enumerate() {
            for (input, &value) in inputs.iter_mut().zip(row) {
                input[r] = i16::from(value);
            }
        }
        inputs
    }

    fn table(self, centroids: &[[i8; BLOCK]], inputs: &Self::Inputs, table: &mut [Entry; 256]) {
        #[target_feature(enable = "neon")]
        fn inner(centroids: &[[i8; 8]], inputs: &[[i16; 8]; 8], table: &mut [Entry; 256]) {
            let x = inputs.each_ref().map(|x| neon!(vld1q_s16(x.as_ptr())));
            for (centroid, entry) in centroids.iter().zip(table) {
                let c = vmovl_s8(neon!(vld1_s8(centroid.as_ptr())));
                // Two chains, as one would wait for itself.
                let a = vmlaq_laneq_s16::<1>(vmulq_laneq_s16::<0>(x[0], c), x[1], c);
                let a = vmlaq_laneq_s16::<3>(vmlaq_laneq_s16::<2>(a, x[2], c), x[3], c);
                let b = vmlaq_laneq_s16::<5>(vmulq_laneq_s16::<4>(x[4], c), x[5], c);
                let b = vmlaq_laneq_s16::<7>(vmlaq_laneq_s16::<6>(b, x[6], c), x[7], c);
                neon!(vst1q_s16(entry.0.as_mut_ptr(), vaddq_s16(a, b)));
            }
        }
        neon!(inner(centroids, inputs, table))
    }
}

impl Fill for NeonDotprod {
    /// Four inputs each of four rows: the first half of a block of rows 0 to 3 and 4 to 7, and the
    /// second half.
    type Inputs = [[[i8; 4]; 4]; 4];

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs {
        let mut inputs = [[[0; 4]; 4]; 4];
        for (r, row) in rows.iter().take(8).enumerate() {
            let [first, second]: [[i8; 4]; 2] = bytemuck::cast(*row);
            inputs[r / 4][r % 4] = first;
            inputs[2 + r / 4][r % 4] = second;
        }
        inputs
    }

    fn table(self, centroids: &[[i8; BLOCK]], inputs: &Self::Inputs, table: &mut [Entry; 256]) {
        #[target_feature(enable = "neon,dotprod")]
        fn inner(centroids: &[[i8; 8]], inputs: &[[[i8; 4]; 4]; 4], table: &mut [Entry; 256]) {
            let x = inputs
                .each_ref()
                .map(|x| neon!(vld1q_s8(x.as_ptr().cast())));
            for (centroid, entry) in centroids.iter().zip(table) {
                let c = neon!(vld1_s8(centroid.as_ptr()));
                let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
                // In assembly, as the compiler has no stable functions for it.
                neon!(asm!(
                    "sdot {low:v}.4s, {x0:v}.16b, {c:v}.4b[0]",
                    "sdot {high:v}.4s, {x1:v}.16b, {c:v}.4b[0]",
                    "sdot {low:v}.4s, {x2:v}.16b, {c:v}.4b[1]",
                    "sdot {high:v}.4s, {x3:v}.16b, {c:v}.4b[1]",
                    low = inout(vreg) low,
                    high = inout(vreg) high,
                    x0 = in(vreg) x[0],
                    x1 = in(vreg) x[1],
                    x2 = in(vreg) x[2],
                    x3 = in(vreg) x[3],
                    c = in(vreg) c,
                    options(pure, nomem, nostack, preserves_flags),
                ));
                let sums = vuzp1q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
                neon!(vst1q_s16(entry.0.as_mut_ptr(), sums));
            }
        }
        neon!(inner(centroids, inputs, table))
    }
}

/// Eight rows.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Eight<F>(pub(in crate::kernels) F);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels) struct Entry([i16; 8]);

impl<F: Fill> Lanes for Eight<F> {
    const ROWS: usize = 8;
    const TABLES: usize = 4;
    const EACH: usize = 1;
    type Centroids = [i8; BLOCK];
    type Inputs = F::Inputs;
    type Entry = Entry;
    type Sums = [[i32; 4]; 2];
    type Vector = int16x8_t;
    type Acc = [int32x4_t; 2];

    #[inline]
    fn run<O: LanesOp<Self>>(self, op: O) {
        #[target_feature(enable = "neon")]
        fn inner<F: Fill, O: LanesOp<Eight<F>>>(lanes: Eight<F>, op: O) {
            op.eval(lanes)
        }
        neon!(inner(self, op))
    }

    fn centroids(book: &[i8], out: &mut [[i8; BLOCK]]) {
        out.as_flattened_mut().copy_from_slice(book);
    }

    fn inputs(rows: &[[i8; BLOCK]]) -> F::Inputs {
        F::inputs(rows)
    }

    fn table(self, centroids: &[[i8; BLOCK]], inputs: &F::Inputs, table: &mut [Entry; 256]) {
        self.0.table(centroids, inputs, table)
    }

    #[inline(always)]
    fn codes(codes: [u8; 8]) -> u64 {
        u64::from_le_bytes(codes)
    }

    #[inline(always)]
    fn entry(self, table: &[Entry; 256], codes: u64, index: usize) -> int16x8_t {
        let Entry(entry) = &table[usize::from((codes >> (8 * index)) as u8)];
        neon!(vld1q_s16(entry.as_ptr()))
    }

    #[inline(always)]
    fn two(self, a: int16x8_t, b: int16x8_t) -> int16x8_t {
        neon!(vaddq_s16(a, b))
    }

    #[inline(always)]
    fn load(self, sums: &[[i32; 4]; 2]) -> [int32x4_t; 2] {
        sums.each_ref().map(|sums| neon!(vld1q_s32(sums.as_ptr())))
    }

    #[inline(always)]
    fn add(self, [low, high]: [int32x4_t; 2], entries: int16x8_t) -> [int32x4_t; 2] {
        neon!([
            vaddw_s16(low, vget_low_s16(entries)),
            vaddw_high_s16(high, entries),
        ])
    }

    #[inline(always)]
    fn store(self, acc: [int32x4_t; 2], sums: &mut [[i32; 4]; 2]) {
        for (acc, sums) in acc.into_iter().zip(sums) {
            neon!(vst1q_s32(sums.as_mut_ptr(), acc));
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
