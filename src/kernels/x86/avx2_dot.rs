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

/// Any `int8` weights: `vpmaddubsw` on magnitudes of activations and weights that took over their
/// signs. Two products of at most 127 * 127 stay below its saturation, so sums are exact.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Int8(pub(crate) Avx2);

/// `int8` weights whose neighbours' magnitudes add up to 128 at most: activations are moved to 1 to
/// 255, and `vpmaddubsw` takes both as they are. A sum of two is 255 * 128 at most, below saturation,
/// and exact again.
///
/// Measured on a Zen 3 at 3.2 GHz, all in registers: 100e9 products a second, against 76e9 of
/// [`Avx2Int8`] and 82e9 of `vpmaddwd` on values widened to `i16`.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Narrow(pub(crate) Avx2);

/// The same where they add up to 64 at most: two such sums are added before they are widened.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Narrower(pub(crate) Avx2);

macro_rules! int8 {
    (
        $name:ident, $act:ty, $x:ty, rows: $rows:literal, offset: $offset:literal, deep: $deep:literal,
        act: |$value:ident| $act_of:expr,
        activations: |$broadcast:ident| $load:expr,
        products: |$w:ident, $xs:pat_param| $products:expr,
    ) => {
        impl Dot for $name {
            type Entry = i8;
            type Cell = i8;
            type Source = i8;
            type Act = $act;
            type Sum = i32;
            /// Four outputs.
            type W = __m256i;
            type X = $x;
            /// Two partial sums of each of four outputs.
            type Acc = __m256i;
            const OUTPUTS: usize = 4;
            const ROWS: usize = $rows;
            const VECTORS: usize = 2;
            const STEPS: usize = 96;
            const PANEL: usize = 32;
            const OFFSET: bool = $offset;
            const DEEP: bool = $deep;

            #[inline]
            fn run<O: DotOp<Self>>(self, op: O) {
                #[target_feature(enable = "avx2,fma")]
                fn inner<O: DotOp<$name>>(dot: $name, op: O) {
                    op.eval(dot)
                }
                avx2!(inner(self, op))
            }

            #[inline(always)]
            fn act($value: i8) -> $act {
                $act_of
            }

            #[inline(always)]
            fn cell(entry: i8) -> i8 {
                entry
            }

            #[inline(always)]
            fn zero(self) -> __m256i {
                avx2!(_mm256_setzero_si256())
            }

            #[inline(always)]
            fn dot(self, acc: __m256i, w: __m256i, x: $x) -> __m256i {
                let products = |$w: __m256i, $xs: $x| avx2!($products);
                avx2!({
                    let fours = _mm256_madd_epi16(products(w, x), _mm256_set1_epi16(1));
                    _mm256_add_epi32(acc, fours)
                })
            }

            #[inline(always)]
            fn dot_two(self, acc: __m256i, w: [__m256i; 2], x: [$x; 2]) -> __m256i {
                if !$deep {
                    return self.dot(self.dot(acc, w[0], x[0]), w[1], x[1]);
                }
                let products = |$w: __m256i, $xs: $x| avx2!($products);
                avx2!({
                    let sums = _mm256_add_epi16(products(w[0], x[0]), products(w[1], x[1]));
                    let fours = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
                    _mm256_add_epi32(acc, fours)
                })
            }

            #[inline(always)]
            fn reduce<const V: usize>(self, acc: [__m256i; V], _: usize, out: &mut [i32]) {
                for v in (0..V).step_by(2) {
                    let out = &mut out[v * 4..][..8];
                    avx2!({
                        // 0 1 4 5 | 2 3 6 7
                        let sums = _mm256_hadd_epi32(acc[v], acc[v + 1]);
                        let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
                        let out: *mut __m256i = out.as_mut_ptr().cast();
                        _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_loadu_si256(out), sums));
                    })
                }
            }

            #[inline(always)]
            unsafe fn load(self, cells: *const i8) -> __m256i {
                avx2!(_mm256_loadu_si256(cells.cast()))
            }

            #[inline(always)]
            unsafe fn store(self, w: __m256i, cells: *mut i8) {
                avx2!(_mm256_storeu_si256(cells.cast(), w))
            }

            #[inline(always)]
            unsafe fn activations(self, first: *const $act, _: *const $act) -> $x {
                avx2!({
                    let $broadcast = _mm256_set1_epi64x(first.cast::<i64>().read_unaligned());
                    $load
                })
            }

            #[inline(always)]
            unsafe fn expand(self, entries: *const i8) -> __m256i {
                avx2!(_mm256_loadu_si256(entries.cast()))
            }

            #[inline(always)]
            unsafe fn gather<const P: usize>(
                self,
                at: impl Fn(usize, usize) -> *const i8,
            ) -> __m256i {
                avx2!(_mm256_set_m128i(
                    two_outputs::<P>(|o, p| at(o + 2, p)),
                    two_outputs::<P>(at)
                ))
            }
        }
    };
}

int8!(
    Avx2Int8, i8, (__m256i, __m256i), rows: 4, offset: false, deep: false,
    act: |value| value,
    activations: |x| (_mm256_abs_epi8(x), x),
    products: |w, (magnitude, x)| _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, x)),
);
int8!(
    Avx2Narrow, u8, __m256i, rows: 5, offset: true, deep: false,
    act: |value| value as u8 ^ 0x80,
    activations: |x| x,
    products: |w, x| _mm256_maddubs_epi16(x, w),
);
int8!(
    Avx2Narrower, u8, __m256i, rows: 4, offset: true, deep: true,
    act: |value| value as u8 ^ 0x80,
    activations: |x| x,
    products: |w, x| _mm256_maddubs_epi16(x, w),
);

/// `P` pieces of `8 / P` bytes of two outputs, one output after the other.
///
/// # Safety
/// - The processor has AVX2.
/// - `P` is 1, 2 or 4, and `8 / P` bytes can be read at each place.
#[inline(always)]
pub(super) unsafe fn two_outputs<const P: usize>(
    at: impl Fn(usize, usize) -> *const i8,
) -> __m128i {
    // SAFETY: the caller's contract.
    unsafe {
        match P {
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
        }
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
