//! Tables of dot products with AVX2: sixteen or eight rows in the 16-bit lanes of a vector.

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};

use super::avx2::Avx2;
use crate::kernels::lanes::{BLOCK, Lanes, LanesOp};
use crate::layout::TILE;

/// Calls instructions.
macro_rules! avx2 {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX2, FMA and BMI2; what touches
        // memory takes a reference to as many bytes, aligned where the instruction asks for it.
        unsafe { $instructions }
    }};
}

/// Codes become offsets in bytes as they are used: a rotation and a mask each.
#[inline(always)]
pub(super) fn entry<T>(table: &[T; 256], codes: u64, index: usize) -> &T {
    let mask = 255 * size_of::<T>();
    let offset = codes.rotate_right(8 * index as u32) as usize & mask;
    // SAFETY: the mask leaves the start of one of 256 entries, as their size is a power of two.
    unsafe { &*table.as_ptr().byte_add(offset) }
}

/// Eight codes, times the size of an entry.
#[inline(always)]
pub(super) fn codes<T>(codes: [u8; 8]) -> u64 {
    const { assert!(size_of::<T>().is_power_of_two() && size_of::<T>() <= 256) };
    u64::from_le_bytes(codes).rotate_left(size_of::<T>().trailing_zeros())
}

/// A block of `ROWS` rows: pairs of inputs of each, plus 128.
fn pairs<const ROWS: usize>(rows: &[[i8; BLOCK]]) -> [[u16; ROWS]; BLOCK / 2] {
    let mut block = [[0x8080; ROWS]; BLOCK / 2];
    for (r, row) in rows.iter().take(ROWS).enumerate() {
        let word = u64::from_le_bytes(bytemuck::cast(*row)) ^ 0x8080_8080_8080_8080;
        for (p, pairs) in block.iter_mut().enumerate() {
            pairs[r] = (word >> (16 * p)) as u16;
        }
    }
    block
}

/// -128 times a centroid's sum: what makes up for the 128 that is added to inputs. Sums wrap at 16
/// bits on the way, so that the last one is right if it fits.
fn start(centroid: &[i8]) -> i16 {
    let sum: i32 = centroid.iter().map(|&v| i32::from(v)).sum();
    (-128 * sum) as i16
}

/// Sixteen rows.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Sixteen(pub(in crate::kernels) Avx2);

/// A centroid: each pair of its values twice, and where its sums start, twice.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::kernels) struct Centroid {
    pairs: [[i8; 4]; BLOCK / 2],
    start: [i16; 2],
}

/// The sums of the rows of even numbers, and of the odd ones.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct EvenOdd([[i32; 8]; 2]);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub(in crate::kernels) struct Entry16([i16; 16]);

impl Lanes for Sixteen {
    const ROWS: usize = 16;
    /// They fill a first-level cache of 32 KiB.
    const TABLES: usize = 4;
    const EACH: usize = 1;
    type Centroids = Centroid;
    type Inputs = [[u16; 16]; BLOCK / 2];
    type Entry = Entry16;
    type Sums = EvenOdd;
    type Vector = __m256i;
    type Acc = [__m256i; 2];

    #[inline]
    fn run<O: LanesOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx2,fma,bmi2")]
        fn inner<O: LanesOp<Sixteen>>(lanes: Sixteen, op: O) {
            op.eval(lanes)
        }
        avx2!(inner(self, op))
    }

    fn centroids(book: &[i8], out: &mut [Centroid]) {
        for (values, out) in book.as_chunks::<BLOCK>().0.iter().zip(out) {
            *out = Centroid {
                pairs: std::array::from_fn(|p| {
                    let [a, b] = [values[2 * p], values[2 * p + 1]];
                    [a, b, a, b]
                }),
                start: [start(values); 2],
            };
        }
    }

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs {
        pairs(rows)
    }

    fn table(self, centroids: &[Centroid], inputs: &Self::Inputs, table: &mut [Entry16; 256]) {
        #[target_feature(enable = "avx2,fma")]
        fn inner(centroids: &[Centroid], inputs: &[[u16; 16]; 4], table: &mut [Entry16; 256]) {
            let inputs = inputs
                .each_ref()
                .map(|x| avx2!(_mm256_loadu_si256(x.as_ptr().cast())));
            for (centroid, entry) in centroids.iter().zip(table) {
                let mut sum = _mm256_set1_epi32(bytemuck::cast(centroid.start));
                for (x, pair) in inputs.iter().zip(&centroid.pairs) {
                    let pair = _mm256_set1_epi32(bytemuck::cast(*pair));
                    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(*x, pair));
                }
                avx2!(_mm256_store_si256(entry.0.as_mut_ptr().cast(), sum));
            }
        }
        avx2!(inner(centroids, inputs, table))
    }

    #[inline(always)]
    fn codes(values: [u8; 8]) -> u64 {
        codes::<Entry16>(values)
    }

    #[inline(always)]
    fn entry(self, table: &[Entry16; 256], codes: u64, index: usize) -> __m256i {
        let entry = entry(table, codes, index);
        avx2!(_mm256_load_si256(entry.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn two(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_add_epi16(a, b))
    }

    #[inline(always)]
    fn load(self, EvenOdd(sums): &EvenOdd) -> [__m256i; 2] {
        sums.each_ref()
            .map(|sums| avx2!(_mm256_load_si256(sums.as_ptr().cast())))
    }

    #[inline(always)]
    fn add(self, [even, odd]: [__m256i; 2], entries: __m256i) -> [__m256i; 2] {
        avx2!([
            _mm256_add_epi32(even, _mm256_madd_epi16(entries, _mm256_set1_epi32(1))),
            _mm256_add_epi32(odd, _mm256_srai_epi32::<16>(entries)),
        ])
    }

    #[inline(always)]
    fn store(self, acc: [__m256i; 2], EvenOdd(sums): &mut EvenOdd) {
        for (acc, sums) in acc.into_iter().zip(sums) {
            avx2!(_mm256_store_si256(sums.as_mut_ptr().cast(), acc));
        }
    }

    #[inline(always)]
    fn turn(self, sums: &[EvenOdd; TILE], rows: &mut [[i32; TILE]]) {
        for (r, row) in rows.iter_mut().enumerate() {
            for (out, EvenOdd(sums)) in row.iter_mut().zip(sums) {
                *out = sums[r % 2][r / 2];
            }
        }
    }
}

/// Eight rows.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Eight(pub(in crate::kernels) Avx2);

/// Two centroids, and where the sums of each start, for eight rows.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels) struct TwoCentroids {
    values: [[i8; BLOCK]; 2],
    start: [[i16; 8]; 2],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels) struct Entry8([i16; 8]);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub(in crate::kernels) struct Sums8([i32; 8]);

impl Lanes for Eight {
    const ROWS: usize = 8;
    /// More brought nothing.
    const TABLES: usize = 4;
    const EACH: usize = 2;
    type Centroids = TwoCentroids;
    type Inputs = [[u16; 8]; BLOCK / 2];
    type Entry = Entry8;
    type Sums = Sums8;
    type Vector = __m128i;
    type Acc = __m256i;

    #[inline]
    fn run<O: LanesOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx2,fma,bmi2")]
        fn inner<O: LanesOp<Eight>>(lanes: Eight, op: O) {
            op.eval(lanes)
        }
        avx2!(inner(self, op))
    }

    fn centroids(book: &[i8], out: &mut [TwoCentroids]) {
        for (two, out) in book.as_chunks::<{ 2 * BLOCK }>().0.iter().zip(out) {
            let values: [[i8; BLOCK]; 2] = bytemuck::cast(*two);
            *out = TwoCentroids {
                values,
                start: values.map(|centroid| [start(&centroid); 8]),
            };
        }
    }

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs {
        pairs(rows)
    }

    fn table(self, centroids: &[TwoCentroids], inputs: &Self::Inputs, table: &mut [Entry8; 256]) {
        #[target_feature(enable = "avx2,fma")]
        fn inner(centroids: &[TwoCentroids], inputs: &[[u16; 8]; 4], table: &mut [Entry8; 256]) {
            let inputs = inputs.each_ref().map(|x| {
                let x = avx2!(_mm_loadu_si128(x.as_ptr().cast()));
                _mm256_broadcastsi128_si256(x)
            });
            // A pair of the one centroid over the lower half, of the other one over the upper half.
            let pairs: [__m256i; 4] = std::array::from_fn(|p| {
                let of = |centroid: usize| (BLOCK * centroid + 2 * p) as i16 * 0x101 + 0x100;
                _mm256_set_m128i(_mm_set1_epi16(of(1)), _mm_set1_epi16(of(0)))
            });
            // Or else one shuffle becomes three, of a kind that is less work elsewhere.
            let pairs = std::hint::black_box(pairs);
            for (two, entries) in centroids.iter().zip(table.as_chunks_mut::<2>().0) {
                let values = avx2!(_mm_load_si128(two.values.as_ptr().cast()));
                let values = _mm256_broadcastsi128_si256(values);
                let mut sum = avx2!(_mm256_loadu_si256(two.start.as_ptr().cast()));
                for p in 0..4 {
                    let pair = _mm256_shuffle_epi8(values, pairs[p]);
                    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(inputs[p], pair));
                }
                avx2!(_mm256_storeu_si256(entries.as_mut_ptr().cast(), sum));
            }
        }
        avx2!(inner(centroids, inputs, table))
    }

    #[inline(always)]
    fn codes(values: [u8; 8]) -> u64 {
        codes::<Entry8>(values)
    }

    #[inline(always)]
    fn entry(self, table: &[Entry8; 256], codes: u64, index: usize) -> __m128i {
        let entry = entry(table, codes, index);
        avx2!(_mm_load_si128(entry.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn two(self, a: __m128i, b: __m128i) -> __m128i {
        avx2!(_mm_add_epi16(a, b))
    }

    #[inline(always)]
    fn load(self, Sums8(sums): &Sums8) -> __m256i {
        avx2!(_mm256_load_si256(sums.as_ptr().cast()))
    }

    #[inline(always)]
    fn add(self, sums: __m256i, entries: __m128i) -> __m256i {
        avx2!(_mm256_add_epi32(sums, _mm256_cvtepi16_epi32(entries)))
    }

    #[inline(always)]
    fn store(self, acc: __m256i, Sums8(sums): &mut Sums8) {
        avx2!(_mm256_store_si256(sums.as_mut_ptr().cast(), acc))
    }

    #[inline(always)]
    fn turn(self, sums: &[Sums8; TILE], rows: &mut [[i32; TILE]]) {
        for (r, row) in rows.iter_mut().enumerate() {
            for (out, Sums8(sums)) in row.iter_mut().zip(sums) {
                *out = sums[r];
            }
        }
    }
}
