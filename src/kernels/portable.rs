//! The baseline of every target, by the `wide` crate, which picks SSE2, NEON or simd128 when the
//! crate is compiled.

use bytemuck::cast;
use wide::{f32x8, i32x8};

use super::simd::{Op, Simd};

/// The portable instruction set: there is always one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portable(());

impl Portable {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

impl Simd for Portable {
    type F = f32x8;
    type I = i32x8;
    type M = f32x8;
    const LANES: usize = 8;
    // Of 128-bit registers a vector takes two, and x86-64 has 16.
    const REGISTERS: usize = 8;

    #[inline]
    fn run<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> f32x8 {
        f32x8::splat(value)
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> f32x8 {
        f32x8::from(*values.first_chunk().expect("a whole vector"))
    }

    #[inline(always)]
    fn store(self, vector: f32x8, out: &mut [f32]) {
        out[..8].copy_from_slice(&vector.to_array());
    }

    #[inline(always)]
    fn add(self, a: f32x8, b: f32x8) -> f32x8 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32x8, b: f32x8) -> f32x8 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32x8, b: f32x8) -> f32x8 {
        a * b
    }

    #[inline(always)]
    fn div(self, a: f32x8, b: f32x8) -> f32x8 {
        a / b
    }

    #[inline(always)]
    fn mul_add(self, a: f32x8, b: f32x8, c: f32x8) -> f32x8 {
        a * b + c
    }

    #[inline(always)]
    fn min(self, a: f32x8, b: f32x8) -> f32x8 {
        a.fast_min(b)
    }

    #[inline(always)]
    fn max(self, a: f32x8, b: f32x8) -> f32x8 {
        a.fast_max(b)
    }

    #[inline(always)]
    fn abs(self, a: f32x8) -> f32x8 {
        a.abs()
    }

    #[inline(always)]
    fn less(self, a: f32x8, b: f32x8) -> f32x8 {
        a.simd_lt(b)
    }

    #[inline(always)]
    fn is_nan(self, a: f32x8) -> f32x8 {
        a.is_nan()
    }

    #[inline(always)]
    fn select(self, mask: f32x8, yes: f32x8, no: f32x8) -> f32x8 {
        mask.select(yes, no)
    }

    #[inline(always)]
    fn round(self, a: f32x8) -> i32x8 {
        a.fast_round_int()
    }

    #[inline(always)]
    fn to_float(self, a: i32x8) -> f32x8 {
        a.round_float()
    }

    #[inline(always)]
    fn power_of_two(self, n: i32x8) -> f32x8 {
        cast((n + i32x8::splat(127)) << 23)
    }

    #[inline(always)]
    fn sum_int(self, a: i32x8) -> i32 {
        a.to_array().iter().fold(0, |sum, &v| sum.wrapping_add(v))
    }

    #[inline(always)]
    fn add_int(self, a: i32x8, b: i32x8) -> i32x8 {
        a + b
    }

    #[inline(always)]
    fn zero_int(self) -> i32x8 {
        i32x8::ZERO
    }

    #[inline(always)]
    fn max_int(self, a: i32x8, b: i32x8) -> i32x8 {
        a.max(b)
    }

    #[inline(always)]
    fn largest_int(self, a: i32x8) -> i32 {
        a.to_array().iter().fold(i32::MIN, |m, &v| m.max(v))
    }

    #[inline(always)]
    fn magnitude_bits(self, a: f32x8) -> i32x8 {
        cast(a.abs())
    }

    #[inline(always)]
    fn store_i8(self, a: i32x8, out: &mut [i8]) {
        out[..8].copy_from_slice(&a.to_array().map(|v| v as i8));
    }
}
