//! AVX-512 F, BW, DQ and VL: 512-bit vectors (Skylake-X and Zen 4, and later).

use std::arch::x86_64::*;

use super::avx2::Avx2;
use crate::kernels::simd::{Op, Simd};

/// A processor with AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(Avx2);

impl Avx512 {
    /// The token, if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let avx2 = Avx2::new()?;
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Self(avx2))
    }

    /// These processors have AVX2, too.
    pub(crate) fn avx2(self) -> Avx2 {
        self.0
    }
}

/// Calls instructions.
macro_rules! avx512 {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX-512 F, BW, DQ and VL; what
        // touches memory takes a reference to at least as many bytes.
        unsafe { $instructions }
    }};
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline]
    fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn inner<O: Op>(simd: Avx512, op: O) -> O::Output {
            op.eval(simd)
        }
        avx512!(inner(self, op))
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        avx512!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> __m512 {
        let values = &values[..16];
        avx512!(_mm512_loadu_ps(values.as_ptr()))
    }

    #[inline(always)]
    fn store(self, vector: __m512, out: &mut [f32]) {
        let out = &mut out[..16];
        avx512!(_mm512_storeu_ps(out.as_mut_ptr(), vector))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_div_ps(a, b))
    }

    /// An estimate good to 2^-14 and a step of Newton's, in a third of a division's time.
    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        avx512!({
            let estimate = _mm512_rcp14_ps(a);
            let error = _mm512_fnmadd_ps(a, estimate, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(estimate, error, estimate)
        })
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        avx512!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> __mmask16 {
        avx512!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }

    #[inline(always)]
    fn is_nan(self, a: __m512) -> __mmask16 {
        avx512!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a))
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        avx512!(_mm512_mask_blend_ps(mask, no, yes))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512i {
        avx512!(_mm512_cvtps_epi32(a))
    }

    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn power_of_two(self, n: __m512i) -> __m512 {
        avx512!({
            let biased = _mm512_add_epi32(n, _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }

    #[inline(always)]
    fn sum_int(self, a: __m512i) -> i32 {
        avx512!(_mm512_reduce_add_epi32(a))
    }

    #[inline(always)]
    fn add_int(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn zero_int(self) -> __m512i {
        avx512!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn max_int(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_max_epi32(a, b))
    }

    #[inline(always)]
    fn largest_int(self, a: __m512i) -> i32 {
        avx512!(_mm512_reduce_max_epi32(a))
    }

    #[inline(always)]
    fn magnitude_bits(self, a: __m512) -> __m512i {
        avx512!(_mm512_castps_si512(_mm512_abs_ps(a)))
    }

    #[inline(always)]
    fn store_i8(self, a: __m512i, out: &mut [i8]) {
        let out = &mut out[..16];
        avx512!(_mm_storeu_si128(
            out.as_mut_ptr().cast(),
            _mm512_cvtepi32_epi8(a)
        ))
    }

    #[inline(always)]
    fn load_part(self, values: &[f32], fill: f32) -> __m512 {
        // Lanes beyond the values are not read.
        let mask = (1u32 << values.len().min(16)) - 1;
        avx512!(_mm512_mask_loadu_ps(
            _mm512_set1_ps(fill),
            mask as __mmask16,
            values.as_ptr()
        ))
    }
}
