//! Dot products with simd128.

use std::arch::wasm32::*;

use crate::kernels::dot::{Dot, DotOp};

/// A function of its own for each computation: nothing else keeps them apart where all have the same
/// instructions, and all of them in one are more than browsers' compilers make good code of.
#[inline(never)]
fn call<D: Dot, O: DotOp<D>>(dot: D, op: O) {
    op.eval(dot);
}

/// `int8` values widened to `i16`, whose products are added in pairs: an instruction of every processor
/// that browsers run on. Only weights and activations are widened, once for all that they meet.
#[derive(Clone, Copy)]
pub(crate) struct Simd128Int8;

impl Dot for Simd128Int8 {
    type Entry = i8;
    type Cell = i16;
    type Source = i8;
    type Act = i16;
    type Sum = i32;
    type W = v128;
    type X = v128;
    /// Four partial sums.
    type Acc = v128;
    const OUTPUTS: usize = 1;
    // V8 has 15 registers on x86-64: ten sums, two weights, a row and a product.
    const ROWS: usize = 5;
    const VECTORS: usize = 2;
    const STEPS: usize = 96;
    const PANEL: usize = 16;

    fn run<O: DotOp<Self>>(self, op: O) {
        call(self, op);
    }

    #[inline(always)]
    fn act(value: i8) -> i16 {
        i16::from(value)
    }

    #[inline(always)]
    fn cell(entry: i8) -> i16 {
        i16::from(entry)
    }

    #[inline(always)]
    fn zero(self) -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    fn dot(self, acc: v128, w: v128, x: v128) -> v128 {
        i32x4_add(acc, i32x4_dot_i16x8(w, x))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [v128; V], _: usize, out: &mut [i32]) {
        for (acc, out) in acc.chunks(4).zip(out[..V].chunks_mut(4)) {
            let [a, b, c, d] = std::array::from_fn(|i| acc.get(i).copied().unwrap_or(self.zero()));
            // Sums of halves of two vectors side by side, and of quarters of four.
            let two = |a: v128, b: v128| {
                i32x4_add(
                    i32x4_shuffle::<0, 4, 1, 5>(a, b),
                    i32x4_shuffle::<2, 6, 3, 7>(a, b),
                )
            };
            let (ab, cd) = (two(a, b), two(c, d));
            let sums = i32x4_add(i64x2_shuffle::<0, 2>(ab, cd), i64x2_shuffle::<1, 3>(ab, cd));
            let sums = [
                i32x4_extract_lane::<0>(sums),
                i32x4_extract_lane::<1>(sums),
                i32x4_extract_lane::<2>(sums),
                i32x4_extract_lane::<3>(sums),
            ];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out += sum;
            }
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i16) -> v128 {
        // SAFETY: the caller's contract.
        unsafe { v128_load(cells.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, w: v128, cells: *mut i16) {
        // SAFETY: the caller's contract.
        unsafe { v128_store(cells.cast(), w) }
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const i16, _: *const i16) -> v128 {
        // SAFETY: the caller's contract.
        unsafe { v128_load(first.cast()) }
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> v128 {
        // SAFETY: the caller's contract.
        unsafe { i16x8_load_extend_i8x8(entries) }
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> v128 {
        // SAFETY: each piece has so many bytes by the caller's contract.
        unsafe {
            match P {
                1 => i16x8_load_extend_i8x8(at(0, 0)),
                2 => {
                    let low = v128_load32_zero(at(0, 0).cast());
                    i16x8_extend_low_i8x16(v128_load32_lane::<1>(low, at(0, 1).cast()))
                }
                _ => {
                    let mut all = i16x8_splat(0);
                    all = v128_load16_lane::<0>(all, at(0, 0).cast());
                    all = v128_load16_lane::<1>(all, at(0, 1).cast());
                    all = v128_load16_lane::<2>(all, at(0, 2).cast());
                    all = v128_load16_lane::<3>(all, at(0, 3).cast());
                    i16x8_extend_low_i8x16(all)
                }
            }
        }
    }
}

/// `f32`, multiplied and added in two roundings.
#[derive(Clone, Copy)]
pub(crate) struct Simd128F32;

impl Dot for Simd128F32 {
    type Entry = f32;
    type Cell = f32;
    type Source = f32;
    type Act = f32;
    type Sum = f32;
    type W = [v128; 2];
    type X = [v128; 2];
    /// Four partial sums: the halves of a step are added one after the other.
    type Acc = v128;
    const OUTPUTS: usize = 1;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
    const FEW: usize = 1;
    const STEPS: usize = 48;
    const PANEL: usize = 16;

    fn run<O: DotOp<Self>>(self, op: O) {
        call(self, op);
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
    fn zero(self) -> v128 {
        f32x4_splat(0.0)
    }

    #[inline(always)]
    fn dot(self, acc: v128, w: [v128; 2], x: [v128; 2]) -> v128 {
        let acc = f32x4_add(acc, f32x4_mul(w[0], x[0]));
        f32x4_add(acc, f32x4_mul(w[1], x[1]))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [v128; V], _: usize, out: &mut [f32]) {
        for (acc, out) in acc.iter().zip(&mut out[..V]) {
            let [a, b, c, d] = [
                f32x4_extract_lane::<0>(*acc),
                f32x4_extract_lane::<1>(*acc),
                f32x4_extract_lane::<2>(*acc),
                f32x4_extract_lane::<3>(*acc),
            ];
            *out += (a + c) + (b + d);
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const f32) -> [v128; 2] {
        // SAFETY: the caller's contract.
        unsafe { [v128_load(cells.cast()), v128_load(cells.add(4).cast())] }
    }

    #[inline(always)]
    unsafe fn store(self, w: [v128; 2], cells: *mut f32) {
        // SAFETY: the caller's contract.
        unsafe {
            v128_store(cells.cast(), w[0]);
            v128_store(cells.add(4).cast(), w[1]);
        }
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const f32, _: *const f32) -> [v128; 2] {
        // SAFETY: the caller's contract.
        unsafe { self.load(first) }
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const f32) -> [v128; 2] {
        // SAFETY: the caller's contract.
        unsafe { self.load(entries) }
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const f32) -> [v128; 2] {
        // SAFETY: each piece has so many values by the caller's contract.
        unsafe {
            match P {
                1 => self.load(at(0, 0)),
                2 => [v128_load(at(0, 0).cast()), v128_load(at(0, 1).cast())],
                _ => {
                    let half = |p: usize| {
                        let low = v128_load64_zero(at(0, p).cast());
                        v128_load64_lane::<1>(low, at(0, p + 1).cast())
                    };
                    [half(0), half(2)]
                }
            }
        }
    }
}
