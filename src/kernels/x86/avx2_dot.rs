//! Dot products with AVX2 and FMA.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use crate::kernels::dot::{Dot, DotOp, STEP};

/// Calls instructions.
macro_rules! avx2 {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX2 and FMA; what touches memory
        // is given enough of it by the caller's contract.
        unsafe { $instructions }
    }};
}

/// `int8` values widened to `i16`: `vpmaddwd` adds two products exactly. Against `vpmaddubsw` it
/// needs no fixing of signs and cannot saturate, and both run at 32 products a cycle, because a
/// saturating sum of two needs a second multiplication to widen it.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Int8(pub(crate) Avx2);

impl Dot for Avx2Int8 {
    type Entry = i8;
    type Cell = i16;
    type Act = i16;
    type Source = i8;
    type Sum = i32;
    /// Two outputs.
    type W = __m256i;
    /// The row's step in both halves.
    type X = __m256i;
    /// Four partial sums of each of two outputs.
    type Acc = __m256i;
    const OUTPUTS: usize = 2;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const STEPS: usize = 96;
    const PANEL: usize = 16;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx2,fma")]
        fn inner<O: DotOp<Avx2Int8>>(dot: Avx2Int8, op: O) {
            op.eval(dot)
        }
        avx2!(inner(self, op))
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
    fn zero(self) -> __m256i {
        avx2!(_mm256_setzero_si256())
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        avx2!(_mm256_add_epi32(acc, _mm256_madd_epi16(w, x)))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [__m256i; V], _: usize, out: &mut [i32]) {
        for v in (0..V).step_by(2) {
            let out = &mut out[v * 2..][..4];
            avx2!({
                let pairs = _mm256_hadd_epi32(acc[v], acc[v + 1]);
                // 0 2 0 2 | 1 3 1 3
                let sums = _mm256_hadd_epi32(pairs, pairs);
                let (even, odd) = (
                    _mm256_castsi256_si128(sums),
                    _mm256_extracti128_si256::<1>(sums),
                );
                let sums = _mm_unpacklo_epi32(even, odd);
                let out: *mut __m128i = out.as_mut_ptr().cast();
                _mm_storeu_si128(out, _mm_add_epi32(_mm_loadu_si128(out), sums));
            })
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i16) -> __m256i {
        avx2!(_mm256_loadu_si256(cells.cast()))
    }

    #[inline(always)]
    unsafe fn store(self, w: __m256i, cells: *mut i16) {
        avx2!(_mm256_storeu_si256(cells.cast(), w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const i16, _: *const i16) -> __m256i {
        avx2!(_mm256_broadcastsi128_si256(_mm_loadu_si128(first.cast())))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> __m256i {
        avx2!(_mm256_cvtepi8_epi16(_mm_loadu_si128(entries.cast())))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> __m256i {
        avx2!({
            let bytes = match P {
                1 => {
                    let low = _mm_loadl_epi64(at(0, 0).cast());
                    let both = _mm_loadh_pd(_mm_castsi128_pd(low), at(1, 0).cast());
                    _mm_castpd_si128(both)
                }
                2 => {
                    let four = |o, p| at(o, p).cast::<i32>().read_unaligned();
                    _mm_setr_epi32(four(0, 0), four(0, 1), four(1, 0), four(1, 1))
                }
                _ => {
                    let two = |o, p| at(o, p).cast::<i16>().read_unaligned();
                    _mm_setr_epi16(
                        two(0, 0),
                        two(0, 1),
                        two(0, 2),
                        two(0, 3),
                        two(1, 0),
                        two(1, 1),
                        two(1, 2),
                        two(1, 3),
                    )
                }
            };
            _mm256_cvtepi8_epi16(bytes)
        })
    }
}

/// `f32` with fused multiply-add: a weight vector is one output.
#[derive(Clone, Copy)]
pub(crate) struct Avx2F32(pub(crate) Avx2);

impl Dot for Avx2F32 {
    type Entry = f32;
    type Cell = f32;
    type Act = f32;
    type Source = f32;
    type Sum = f32;
    type W = __m256;
    type X = __m256;
    /// Eight partial sums.
    type Acc = __m256;
    const OUTPUTS: usize = 1;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const STEPS: usize = 96;
    const PANEL: usize = 8;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx2,fma")]
        fn inner<O: DotOp<Avx2F32>>(dot: Avx2F32, op: O) {
            op.eval(dot)
        }
        avx2!(inner(self, op))
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
    fn zero(self) -> __m256 {
        avx2!(_mm256_setzero_ps())
    }

    #[inline(always)]
    fn dot(self, acc: __m256, w: __m256, x: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(w, x, acc))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [__m256; V], _: usize, out: &mut [f32]) {
        for (acc, out) in acc.iter().zip(&mut out[..V]) {
            *out += avx2!({
                let four = _mm_add_ps(
                    _mm256_castps256_ps128(*acc),
                    _mm256_extractf128_ps::<1>(*acc),
                );
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            });
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const f32) -> __m256 {
        avx2!(_mm256_loadu_ps(cells))
    }

    #[inline(always)]
    unsafe fn store(self, w: __m256, cells: *mut f32) {
        avx2!(_mm256_storeu_ps(cells, w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const f32, _: *const f32) -> __m256 {
        avx2!(_mm256_loadu_ps(first))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const f32) -> __m256 {
        avx2!(_mm256_loadu_ps(entries))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const f32) -> __m256 {
        avx2!(match P {
            1 => _mm256_loadu_ps(at(0, 0)),
            2 => _mm256_loadu2_m128(at(0, 1), at(0, 0)),
            _ => {
                let two = |p| at(0, p).cast::<f64>().read_unaligned();
                _mm256_castpd_ps(_mm256_setr_pd(two(0), two(1), two(2), two(3)))
            }
        })
    }
}

const _: () = assert!(STEP == 8);
