//! NEON, which every aarch64 processor has: 128-bit vectors.

use std::arch::aarch64::*;

use crate::kernels::simd::{Op, Simd};

/// A processor with NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neon(());

impl Neon {
    /// The token, if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// Calls instructions.
macro_rules! neon {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has NEON; what touches memory takes a
        // reference to at least as many bytes.
        unsafe { $instructions }
    }};
}

impl Simd for Neon {
    type F = float32x4_t;
    type I = int32x4_t;
    type M = uint32x4_t;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline]
    fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "neon")]
        fn inner<O: Op>(simd: Neon, op: O) -> O::Output {
            op.eval(simd)
        }
        neon!(inner(self, op))
    }

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        neon!(vdupq_n_f32(value))
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> float32x4_t {
        let values = &values[..4];
        neon!(vld1q_f32(values.as_ptr()))
    }

    #[inline(always)]
    fn store(self, vector: float32x4_t, out: &mut [f32]) {
        let out = &mut out[..4];
        neon!(vst1q_f32(out.as_mut_ptr(), vector))
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        neon!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vminq_f32(a, b))
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vmaxq_f32(a, b))
    }

    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        neon!(vabsq_f32(a))
    }

    #[inline(always)]
    fn less(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        neon!(vcltq_f32(a, b))
    }

    #[inline(always)]
    fn is_nan(self, a: float32x4_t) -> uint32x4_t {
        neon!(vmvnq_u32(vceqq_f32(a, a)))
    }

    #[inline(always)]
    fn select(self, mask: uint32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
        neon!(vbslq_f32(mask, yes, no))
    }

    #[inline(always)]
    fn round(self, a: float32x4_t) -> int32x4_t {
        neon!(vcvtnq_s32_f32(a))
    }

    #[inline(always)]
    fn to_float(self, a: int32x4_t) -> float32x4_t {
        neon!(vcvtq_f32_s32(a))
    }

    #[inline(always)]
    fn power_of_two(self, n: int32x4_t) -> float32x4_t {
        neon!(vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(
            n,
            vdupq_n_s32(127)
        ))))
    }

    #[inline(always)]
    fn sum_int(self, a: int32x4_t) -> i32 {
        neon!(vaddvq_s32(a))
    }

    #[inline(always)]
    fn add_int(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!(vaddq_s32(a, b))
    }

    #[inline(always)]
    fn zero_int(self) -> int32x4_t {
        neon!(vdupq_n_s32(0))
    }

    #[inline(always)]
    fn max_int(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!(vmaxq_s32(a, b))
    }

    #[inline(always)]
    fn largest_int(self, a: int32x4_t) -> i32 {
        neon!(vmaxvq_s32(a))
    }

    #[inline(always)]
    fn magnitude_bits(self, a: float32x4_t) -> int32x4_t {
        neon!(vreinterpretq_s32_f32(vabsq_f32(a)))
    }

    #[inline(always)]
    fn store_i8(self, a: int32x4_t, out: &mut [i8]) {
        let mut halves = [0i16; 4];
        neon!(vst1_s16(halves.as_mut_ptr(), vmovn_s32(a)));
        out[..4].copy_from_slice(&halves.map(|v| v as i8));
    }
}
