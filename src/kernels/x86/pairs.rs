//! `vpmaddwd`, and `vpdpwssd` where there is VNNI.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::avx512::Avx512;
use super::vnni::Avx512Vnni;
use crate::kernels::pairs::{Pairs, PairsOp};

/// With AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Pairs(pub(crate) Avx2);

/// With AVX-512 BW.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Pairs(pub(crate) Avx512);

/// With AVX-512 VNNI.
#[derive(Clone, Copy)]
pub(crate) struct VnniPairs(pub(crate) Avx512Vnni);

/// Calls instructions.
macro_rules! x86 {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has its instructions; what touches
        // memory takes a reference to at least as many bytes.
        unsafe { $instructions }
    }};
}

macro_rules! pairs {
    (
        $name:ident, $simd:ty, $vector:ty, $lanes:literal, $features:literal,
        simd: |$token:ident| $of:expr,
        $splat:ident, $load:ident, $store:ident, $and:ident, $or:ident, $shift:ident,
        dot: |$sum:ident, $a:ident, $b:ident| $dot:expr,
    ) => {
        impl Pairs for $name {
            type S = $simd;

            #[inline]
            fn run<O: PairsOp>(self, op: O) {
                #[target_feature(enable = $features)]
                fn inner<O: PairsOp>(pairs: $name, op: O) {
                    op.eval(pairs)
                }
                x86!(inner(self, op))
            }

            #[inline(always)]
            fn simd(self) -> $simd {
                let $token = self.0;
                $of
            }

            #[inline(always)]
            fn splat(self, pair: i32) -> $vector {
                x86!($splat(pair))
            }

            #[inline(always)]
            fn load(self, pairs: &[i32]) -> $vector {
                let pairs = &pairs[..$lanes];
                x86!($load(pairs.as_ptr().cast()))
            }

            #[inline(always)]
            fn store(self, pairs: $vector, out: &mut [i32]) {
                let out = &mut out[..$lanes];
                x86!($store(out.as_mut_ptr().cast(), pairs))
            }

            #[inline(always)]
            fn pair(self, low: $vector, high: $vector) -> $vector {
                x86!($or($and(low, $splat(0xffff)), $shift::<16>(high)))
            }

            #[inline(always)]
            fn dot(self, $sum: $vector, $a: $vector, $b: $vector) -> $vector {
                x86!($dot)
            }
        }
    };
}

pairs!(
    Avx2Pairs, Avx2, __m256i, 8, "avx2,fma",
    simd: |token| token,
    _mm256_set1_epi32, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_and_si256,
    _mm256_or_si256, _mm256_slli_epi32,
    dot: |sum, a, b| _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)),
);
pairs!(
    Avx512Pairs, Avx512, __m512i, 16, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    simd: |token| token,
    _mm512_set1_epi32, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_and_si512,
    _mm512_or_si512, _mm512_slli_epi32,
    dot: |sum, a, b| _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)),
);
pairs!(
    VnniPairs, Avx512, __m512i, 16, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma",
    simd: |token| token.avx512(),
    _mm512_set1_epi32, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_and_si512,
    _mm512_or_si512, _mm512_slli_epi32,
    dot: |sum, a, b| _mm512_dpwssd_epi32(sum, a, b),
);
