//! Dot products with AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::*;

use super::avx2_dot::two_outputs;
use super::avx512::Avx512;
use crate::kernels::dot::{Dot, DotOp};

/// Calls instructions.
macro_rules! avx512 {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX-512 F, BW, DQ and VL; what
        // touches memory is given enough of it by the caller's contract.
        unsafe { $instructions }
    }};
}

/// `int8` values widened to `i16`: `vpmaddwd` adds two products exactly.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Int8(pub(crate) Avx512);

impl Dot for Avx512Int8 {
    type Entry = i8;
    type Cell = i16;
    type Act = i16;
    type Source = i8;
    type Sum = i32;
    /// Four outputs, one in each quarter.
    type W = __m512i;
    /// The row's step in every quarter.
    type X = __m512i;
    /// Four partial sums of each of four outputs.
    type Acc = __m512i;
    const OUTPUTS: usize = 4;
    const ROWS: usize = 6;
    const VECTORS: usize = 4;
    const STEPS: usize = 96;
    const PANEL: usize = 16;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn inner<O: DotOp<Avx512Int8>>(dot: Avx512Int8, op: O) {
            op.eval(dot)
        }
        avx512!(inner(self, op))
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
    fn zero(self) -> __m512i {
        avx512!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        avx512!(_mm512_add_epi32(acc, _mm512_madd_epi16(w, x)))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [__m512i; V], _: usize, out: &mut [i32]) {
        for v in (0..V).step_by(4) {
            let out = &mut out[v * 4..][..16];
            let [a, b, c, d] = [acc[v], acc[v + 1], acc[v + 2], acc[v + 3]];
            avx512!({
                // In quarter `o`, for output `o` of the vectors: a02 b02 a13 b13
                let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                let sums =
                    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
                // a b c d in quarter `o` are outputs o, 4 + o, 8 + o, 12 + o.
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                add_to(out, _mm512_permutexvar_epi32(order, sums));
            })
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i16) -> __m512i {
        avx512!(_mm512_loadu_si512(cells.cast()))
    }

    #[inline(always)]
    unsafe fn store(self, w: __m512i, cells: *mut i16) {
        avx512!(_mm512_storeu_si512(cells.cast(), w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const i16, _: *const i16) -> __m512i {
        avx512!(_mm512_broadcast_i32x4(_mm_loadu_si128(first.cast())))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> __m512i {
        avx512!(_mm512_cvtepi8_epi16(_mm256_loadu_si256(entries.cast())))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> __m512i {
        avx512!(_mm512_cvtepi8_epi16(_mm256_setr_m128i(
            two_outputs::<P>(&at),
            two_outputs::<P>(|o, p| at(2 + o, p)),
        )))
    }
}

/// Adds 16 sums to the first 16 values of `out`.
///
/// # Safety
/// - The processor has AVX-512 F.
#[inline(always)]
pub(super) unsafe fn add_to(out: &mut [i32], sums: __m512i) {
    let out: *mut __m512i = out[..16].as_mut_ptr().cast();
    avx512!(_mm512_storeu_si512(
        out,
        _mm512_add_epi32(_mm512_loadu_si512(out), sums)
    ))
}

/// `f32` with fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Avx512F32(pub(crate) Avx512);

impl Dot for Avx512F32 {
    type Entry = f32;
    type Cell = f32;
    type Act = f32;
    type Source = f32;
    type Sum = f32;
    /// Two outputs, one in each half.
    type W = __m512;
    /// The row's step in both halves.
    type X = __m512;
    /// Eight partial sums of each of two outputs.
    type Acc = __m512;
    const OUTPUTS: usize = 2;
    const ROWS: usize = 6;
    const VECTORS: usize = 4;
    const STEPS: usize = 96;
    const PANEL: usize = 8;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn inner<O: DotOp<Avx512F32>>(dot: Avx512F32, op: O) {
            op.eval(dot)
        }
        avx512!(inner(self, op))
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
    fn zero(self) -> __m512 {
        avx512!(_mm512_setzero_ps())
    }

    #[inline(always)]
    fn dot(self, acc: __m512, w: __m512, x: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(w, x, acc))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [__m512; V], _: usize, out: &mut [f32]) {
        for v in (0..V).step_by(4) {
            let out = &mut out[v * 2..][..8];
            let [a, b, c, d] = [acc[v], acc[v + 1], acc[v + 2], acc[v + 3]];
            avx512!({
                // Four partial sums of an output in each quarter: outputs 0 to 3, and 4 to 7.
                let ab = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
                );
                let cd = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d),
                );
                // In quarter `o`, for outputs `o` and `4 + o`: ab02 cd02 ab13 cd13
                let two = _mm512_add_ps(_mm512_unpacklo_ps(ab, cd), _mm512_unpackhi_ps(ab, cd));
                let sums = _mm512_add_ps(two, _mm512_permute_ps::<0b01_00_11_10>(two));
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
                let sums = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums));
                let out = out.as_mut_ptr();
                _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), sums));
            })
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const f32) -> __m512 {
        avx512!(_mm512_loadu_ps(cells))
    }

    #[inline(always)]
    unsafe fn store(self, w: __m512, cells: *mut f32) {
        avx512!(_mm512_storeu_ps(cells, w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const f32, _: *const f32) -> __m512 {
        avx512!(_mm512_broadcast_f32x8(_mm256_loadu_ps(first)))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const f32) -> __m512 {
        avx512!(_mm512_loadu_ps(entries))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const f32) -> __m512 {
        let output = |o| {
            avx512!(match P {
                1 => _mm256_loadu_ps(at(o, 0)),
                2 => _mm256_loadu2_m128(at(o, 1), at(o, 0)),
                _ => {
                    let two = |p| at(o, p).cast::<f64>().read_unaligned();
                    _mm256_castpd_ps(_mm256_setr_pd(two(0), two(1), two(2), two(3)))
                }
            })
        };
        avx512!(_mm512_insertf32x8::<1>(
            _mm512_castps256_ps512(output(0)),
            output(1)
        ))
    }
}
