//! AVX2 with FMA: 256-bit vectors (Haswell and Zen, and later).

use std::arch::x86_64::*;

use crate::kernels::simd::{Op, Simd};

/// A processor with AVX2, FMA and BMI2: all that have the first have the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi2");
        has.then_some(Self(()))
    }
}

/// Calls instructions.
macro_rules! avx2 {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX2 and FMA; what touches memory
        // takes a reference to at least as many bytes.
        unsafe { $instructions }
    }};
}

impl Simd for Avx2 {
    type F = __m256;
    type I = __m256i;
    type M = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline]
    fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma")]
        fn inner<O: Op>(simd: Avx2, op: O) -> O::Output {
            op.eval(simd)
        }
        avx2!(inner(self, op))
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        avx2!(_mm256_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> __m256 {
        let values = &values[..8];
        avx2!(_mm256_loadu_ps(values.as_ptr()))
    }

    #[inline(always)]
    fn store(self, vector: __m256, out: &mut [f32]) {
        let out = &mut out[..8];
        avx2!(_mm256_storeu_ps(out.as_mut_ptr(), vector))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        avx2!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }

    #[inline(always)]
    fn less(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    }

    #[inline(always)]
    fn is_nan(self, a: __m256) -> __m256 {
        avx2!(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
    }

    #[inline(always)]
    fn select(self, mask: __m256, yes: __m256, no: __m256) -> __m256 {
        avx2!(_mm256_blendv_ps(no, yes, mask))
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256i {
        avx2!(_mm256_cvtps_epi32(a))
    }

    #[inline(always)]
    fn to_float(self, a: __m256i) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn power_of_two(self, n: __m256i) -> __m256 {
        avx2!({
            let biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }

    #[inline(always)]
    fn sum_int(self, a: __m256i) -> i32 {
        let lanes: [i32; 8] = bytemuck::cast(a);
        lanes.iter().fold(0, |sum, &v| sum.wrapping_add(v))
    }

    #[inline(always)]
    fn add_int(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn zero_int(self) -> __m256i {
        avx2!(_mm256_setzero_si256())
    }

    #[inline(always)]
    fn max_int(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_max_epi32(a, b))
    }

    #[inline(always)]
    fn largest_int(self, a: __m256i) -> i32 {
        let lanes: [i32; 8] = bytemuck::cast(a);
        lanes.iter().fold(i32::MIN, |m, &v| m.max(v))
    }

    #[inline(always)]
    fn magnitude_bits(self, a: __m256) -> __m256i {
        avx2!(_mm256_castps_si256(self.abs(a)))
    }

    #[inline(always)]
    fn store_i8(self, a: __m256i, out: &mut [i8]) {
        let out = &mut out[..8];
        avx2!({
            let packed = _mm256_packs_epi32(a, a);
            let packed = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed));
            _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_packs_epi16(packed, packed))
        })
    }

    #[inline(always)]
    fn store_i8_four(self, [a, b, c, d]: [__m256i; 4], out: &mut [i8]) {
        let out = &mut out[..32];
        avx2!({
            // Packing works within the 128-bit halves: groups of four bytes come out as
            // a0 b0 c0 d0 a1 b1 c1 d1.
            let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let packed = _mm256_permutevar8x32_epi32(packed, order);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), packed)
        })
    }
}
