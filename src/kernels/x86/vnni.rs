//! AVX-512 VNNI: sums of four `int8` products in one instruction (Cascade Lake and Zen 4, and
//! later).

use std::arch::x86_64::*;

use super::avx2_dot::two_outputs;
use super::avx512::Avx512;
use super::avx512_dot::add_to;
use crate::kernels::Weights;
use crate::kernels::dot::{Dot, DotOp};
use crate::kernels::pointwise::{Units, UnitsOp, decode_int8};
use crate::layout::{TILE, Tile};

/// A processor with AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512Vnni(Avx512);

impl Avx512Vnni {
    /// The token, if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let avx512 = Avx512::new()?;
        is_x86_feature_detected!("avx512vnni").then_some(Self(avx512))
    }

    /// What it has besides.
    pub(crate) fn avx512(self) -> Avx512 {
        self.0
    }
}

/// Calls instructions.
macro_rules! vnni {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX-512 F, BW, DQ, VL and VNNI;
        // what touches memory is given enough of it by the caller's contract.
        unsafe { $instructions }
    }};
}

/// `int8` values as they are. `vpdpbusd` takes one factor unsigned: 128 is added to activations, and
/// what this adds to a sum is found by multiplying a row of zeros. The largest sum still fits:
/// 65,536 products of 255 and -128 are above -2^31.
#[derive(Clone, Copy)]
pub(crate) struct VnniInt8(pub(crate) Avx512Vnni);

impl Dot for VnniInt8 {
    type Entry = i8;
    type Cell = i8;
    type Act = u8;
    type Source = i8;
    type Sum = i32;
    /// Eight outputs.
    type W = __m512i;
    /// The row's step in every eighth.
    type X = __m512i;
    /// Two partial sums of each of eight outputs.
    type Acc = __m512i;
    const OUTPUTS: usize = 8;
    const ROWS: usize = 8;
    const FEW: usize = 4;
    const VECTORS: usize = 2;
    const STEPS: usize = 96;
    const PANEL: usize = 32;
    const OFFSET: bool = true;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        fn inner<O: DotOp<VnniInt8>>(dot: VnniInt8, op: O) {
            op.eval(dot)
        }
        vnni!(inner(self, op))
    }

    #[inline(always)]
    fn act(value: i8) -> u8 {
        value.cast_unsigned() ^ 0x80
    }

    #[inline(always)]
    fn cell(entry: i8) -> i8 {
        entry
    }

    #[inline(always)]
    fn zero(self) -> __m512i {
        vnni!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        vnni!(_mm512_dpbusd_epi32(acc, x, w))
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [__m512i; V], _: usize, out: &mut [i32]) {
        for v in (0..V).step_by(2) {
            let out = &mut out[v * 8..][..16];
            vnni!({
                let even =
                    _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
                let sums = _mm512_add_epi32(
                    _mm512_permutex2var_epi32(acc[v], even, acc[v + 1]),
                    _mm512_permutex2var_epi32(acc[v], odd, acc[v + 1]),
                );
                add_to(out, sums);
            })
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i8) -> __m512i {
        vnni!(_mm512_loadu_si512(cells.cast()))
    }

    #[inline(always)]
    unsafe fn store(self, w: __m512i, cells: *mut i8) {
        vnni!(_mm512_storeu_si512(cells.cast(), w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const u8, _: *const u8) -> __m512i {
        vnni!(_mm512_set1_epi64(first.cast::<i64>().read_unaligned()))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> __m512i {
        vnni!(_mm512_loadu_si512(entries.cast()))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> __m512i {
        vnni!({
            let two = |first: usize| two_outputs::<P>(|o, p| at(first + o, p));
            let low = _mm256_setr_m128i(two(0), two(2));
            let high = _mm256_setr_m128i(two(4), two(6));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        })
    }
}

/// Four `int8` of the input and of sixteen outputs at a time, for pixels of images; 128 is added as for
/// [`VnniInt8`], and what it adds is what sums start from.
#[derive(Clone, Copy)]
pub(crate) struct VnniUnits(pub(crate) Avx512Vnni);

impl Units for VnniUnits {
    type Simd = Avx512;
    type X = __m512i;
    type W = __m512i;
    type Acc = __m512i;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0.avx512()
    }

    #[inline]
    fn run<O: UnitsOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        fn inner<O: UnitsOp<VnniUnits>>(units: VnniUnits, op: O) {
            op.eval(units)
        }
        vnni!(inner(self, op))
    }

    fn decode(weights: &Weights, tile: Tile, cells: &mut [[u32; TILE]]) {
        decode_int8(weights, tile, cells);
    }

    #[inline(always)]
    fn start(self, zeros: Option<__m512i>) -> __m512i {
        vnni!({
            let zero = _mm512_setzero_si512();
            zeros.map_or(zero, |zeros| _mm512_sub_epi32(zero, zeros))
        })
    }

    #[inline(always)]
    unsafe fn input(self, unit: *const u8) -> __m512i {
        vnni!(_mm512_xor_si512(
            _mm512_set1_epi32(unit.cast::<i32>().read_unaligned()),
            _mm512_set1_epi8(i8::MIN)
        ))
    }

    #[inline(always)]
    fn weights(self, cells: &[u32]) -> __m512i {
        let cells = &cells[..16];
        vnni!(_mm512_loadu_si512(cells.as_ptr().cast()))
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
        vnni!(_mm512_dpbusd_epi32(acc, x, w))
    }

    #[inline(always)]
    fn to_float(self, acc: __m512i) -> __m512 {
        vnni!(_mm512_cvtepi32_ps(acc))
    }
}
