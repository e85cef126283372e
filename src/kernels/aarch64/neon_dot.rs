//! Dot products with NEON.

use std::arch::aarch64::*;

use super::neon::Neon;
use crate::kernels::dot::{Dot, DotOp};

/// Calls instructions.
macro_rules! neon {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has NEON; what touches memory is given
        // enough of it by the caller's contract.
        unsafe { $instructions }
    }};
}

/// `int8` values as they are: `smull` makes exact `i16` products, `sadalp` adds neighbours to `i32`.
#[derive(Clone, Copy)]
pub(crate) struct NeonInt8(pub(crate) Neon);

impl Dot for NeonInt8 {
    type Entry = i8;
    type Cell = i8;
    type Act = i8;
    type Source = i8;
    type Sum = i32;
    /// Two outputs, one in each half.
    type W = int8x16_t;
    /// The row's step in both halves.
    type X = int8x16_t;
    /// Four partial sums of each of two outputs.
    type Acc = [int32x4_t; 2];
    const OUTPUTS: usize = 2;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const STEPS: usize = 96;
    const PANEL: usize = 32;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "neon")]
        fn inner<O: DotOp<NeonInt8>>(dot: NeonInt8, op: O) {
            op.eval(dot)
        }
        neon!(inner(self, op))
    }

    #[inline(always)]
    fn act(value: i8) -> i8 {
        value
    }

    #[inline(always)]
    fn cell(entry: i8) -> i8 {
        entry
    }

    #[inline(always)]
    fn zero(self) -> [int32x4_t; 2] {
        neon!([vdupq_n_s32(0); 2])
    }

    #[inline(always)]
    fn dot(self, [a, b]: [int32x4_t; 2], w: int8x16_t, x: int8x16_t) -> [int32x4_t; 2] {
        neon!([
            vpadalq_s16(a, vmull_s8(vget_low_s8(w), vget_low_s8(x))),
            vpadalq_s16(b, vmull_high_s8(w, x)),
        ])
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [[int32x4_t; 2]; V], _: usize, out: &mut [i32]) {
        for v in (0..V).step_by(2) {
            let ([a, b], [c, d]) = (acc[v], acc[v + 1]);
            let sums = neon!(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)));
            add_to(&mut out[v * 2..], sums);
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i8) -> int8x16_t {
        neon!(vld1q_s8(cells))
    }

    #[inline(always)]
    unsafe fn store(self, w: int8x16_t, cells: *mut i8) {
        neon!(vst1q_s8(cells, w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const i8, _: *const i8) -> int8x16_t {
        neon!(twice(first))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> int8x16_t {
        neon!(vld1q_s8(entries))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> int8x16_t {
        neon!(two_outputs::<P>(at))
    }
}

/// Adds four sums to the first four values of `out`.
#[inline(always)]
pub(super) fn add_to(out: &mut [i32], sums: int32x4_t) {
    let out = out[..4].as_mut_ptr();
    neon!(vst1q_s32(out, vaddq_s32(vld1q_s32(out), sums)))
}

/// Eight bytes, twice.
///
/// # Safety
/// - Eight bytes can be read at `values`.
#[inline(always)]
pub(super) unsafe fn twice(values: *const i8) -> int8x16_t {
    neon!({
        let values = vld1_s8(values);
        vcombine_s8(values, values)
    })
}

/// `P` pieces of `8 / P` bytes of two outputs, one output after the other.
///
/// # Safety
/// - `P` is 1, 2 or 4, and `8 / P` bytes can be read at each place.
#[inline(always)]
pub(super) unsafe fn two_outputs<const P: usize>(
    at: impl Fn(usize, usize) -> *const i8,
) -> int8x16_t {
    neon!(match P {
        1 => vcombine_s8(vld1_s8(at(0, 0)), vld1_s8(at(1, 0))),
        2 => {
            let four = |o, p| at(o, p).cast::<i32>().read_unaligned();
            let all = [four(0, 0), four(0, 1), four(1, 0), four(1, 1)];
            vreinterpretq_s8_s32(vld1q_s32(all.as_ptr()))
        }
        _ => {
            let two = |o, p| at(o, p).cast::<i16>().read_unaligned();
            let all = [
                two(0, 0),
                two(0, 1),
                two(0, 2),
                two(0, 3),
                two(1, 0),
                two(1, 1),
                two(1, 2),
                two(1, 3),
            ];
            vreinterpretq_s8_s16(vld1q_s16(all.as_ptr()))
        }
    })
}

/// `f32` with fused multiply-add: a weight vector is one output.
#[derive(Clone, Copy)]
pub(crate) struct NeonF32(pub(crate) Neon);

impl Dot for NeonF32 {
    type Entry = f32;
    type Cell = f32;
    type Act = f32;
    type Source = f32;
    type Sum = f32;
    type W = [float32x4_t; 2];
    type X = [float32x4_t; 2];
    /// Four partial sums, to which both halves are added: two registers would leave room for half
    /// as many rows.
    type Acc = float32x4_t;
    const OUTPUTS: usize = 1;
    const ROWS: usize = 5;
    const VECTORS: usize = 4;
    const STEPS: usize = 96;
    const PANEL: usize = 8;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "neon")]
        fn inner<O: DotOp<NeonF32>>(dot: NeonF32, op: O) {
            op.eval(dot)
        }
        neon!(inner(self, op))
    }

    #[inline(always)]
    fn act(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn cell(entry: f32) -> f32 {
        entry
    }

    #[inline(always)]
    fn zero(self) -> float32x4_t {
        neon!(vdupq_n_f32(0.0))
    }

    #[inline(always)]
    fn dot(self, acc: float32x4_t, w: [float32x4_t; 2], x: [float32x4_t; 2]) -> float32x4_t {
        neon!(vfmaq_f32(vfmaq_f32(acc, w[0], x[0]), w[1], x[1]))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [float32x4_t; V], _: usize, out: &mut [f32]) {
        for v in (0..V).step_by(4) {
            let out = out[v..][..4].as_mut_ptr();
            let [a, b, c, d] = [acc[v], acc[v + 1], acc[v + 2], acc[v + 3]];
            neon!({
                let sums = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
                vst1q_f32(out, vaddq_f32(vld1q_f32(out), sums));
            })
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const f32) -> [float32x4_t; 2] {
        neon!([vld1q_f32(cells), vld1q_f32(cells.add(4))])
    }

    #[inline(always)]
    unsafe fn store(self, w: [float32x4_t; 2], cells: *mut f32) {
        neon!({
            vst1q_f32(cells, w[0]);
            vst1q_f32(cells.add(4), w[1]);
        })
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const f32, _: *const f32) -> [float32x4_t; 2] {
        neon!([vld1q_f32(first), vld1q_f32(first.add(4))])
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const f32) -> [float32x4_t; 2] {
        neon!([vld1q_f32(entries), vld1q_f32(entries.add(4))])
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(
        self,
        at: impl Fn(usize, usize) -> *const f32,
    ) -> [float32x4_t; 2] {
        neon!(match P {
            1 => [vld1q_f32(at(0, 0)), vld1q_f32(at(0, 0).add(4))],
            2 => [vld1q_f32(at(0, 0)), vld1q_f32(at(0, 1))],
            _ => {
                let half = |p| vcombine_f32(vld1_f32(at(0, p)), vld1_f32(at(0, p + 1)));
                [half(0), half(2)]
            }
        })
    }
}
