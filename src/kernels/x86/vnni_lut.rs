//! Tables of dot products with AVX-512 VNNI: thirty-two or sixteen rows in the 16-bit lanes of a vector.
//! (Eight rows took longer so than by looking up weights.)

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};

use super::avx2_lut::{codes, entry};
use super::vnni::Avx512Vnni;
use crate::kernels::lanes::{BLOCK, Lanes, LanesOp};
use crate::layout::TILE;

/// Calls instructions.
macro_rules! vnni {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX-512 F, BW, DQ, VL and VNNI, AVX2,
        // FMA and BMI2; what touches memory takes a reference to as many bytes, aligned where the
        // instruction asks for it.
        unsafe { $instructions }
    }};
}

/// Thirty-two rows.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct ThirtyTwo(pub(in crate::kernels) Avx512Vnni);

/// A centroid in two halves, and -128 times its sum: what makes up for the 128 that is added to inputs.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::kernels) struct Centroid {
    halves: [i32; 2],
    start: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Entry32([i16; 32]);

/// In the order of [`Entry32`], of even lanes and of odd ones.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Sums32([[i32; 16]; 2]);

impl Lanes for ThirtyTwo {
    const ROWS: usize = 32;
    /// A quarter of a second-level cache of 1 MiB, whose speed is what bounds this. With fewer, sums are
    /// read and written more often.
    const TABLES: usize = 16;
    const EACH: usize = 1;
    type Centroids = Centroid;
    type Inputs = [[i8; BLOCK]; 32];
    type Entry = Entry32;
    type Sums = Sums32;
    type Vector = __m512i;
    type Acc = [__m512i; 2];

    #[inline]
    fn run<O: LanesOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi2")]
        fn inner<O: LanesOp<ThirtyTwo>>(lanes: ThirtyTwo, op: O) {
            op.eval(lanes)
        }
        vnni!(inner(self, op))
    }

    fn centroids(book: &[i8], out: &mut [Centroid]) {
        for (values, out) in book.as_chunks::<BLOCK>().0.iter().zip(out) {
            let sum: i32 = values.iter().map(|&v| i32::from(v)).sum();
            *out = Centroid {
                halves: bytemuck::cast(*values),
                start: -128 * sum,
            };
        }
    }

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs {
        let mut all = [[0; BLOCK]; 32];
        all[..rows.len()].copy_from_slice(rows);
        all
    }

    fn table(self, centroids: &[Centroid], inputs: &Self::Inputs, table: &mut [Entry32; 256]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn inner(centroids: &[Centroid], inputs: &[[i8; BLOCK]; 32], table: &mut [Entry32; 256]) {
            let (sixteen, _) = inputs.as_chunks();
            let inputs = vnni!([halves(&sixteen[0]), halves(&sixteen[1])]);
            for (centroid, entry) in centroids.iter().zip(table) {
                let first = _mm512_set1_epi32(centroid.halves[0]);
                let second = _mm512_set1_epi32(centroid.halves[1]);
                let start = _mm512_set1_epi32(centroid.start);
                let a = _mm512_dpbusd_epi32(start, inputs[0][0], first);
                let a = _mm512_dpbusd_epi32(a, inputs[0][1], second);
                let b = _mm512_dpbusd_epi32(start, inputs[1][0], first);
                let b = _mm512_dpbusd_epi32(b, inputs[1][1], second);
                let packed = _mm512_packs_epi32(a, b);
                vnni!(_mm512_store_si512(entry.0.as_mut_ptr().cast(), packed));
            }
        }
        vnni!(inner(centroids, inputs, table))
    }

    #[inline(always)]
    fn codes(values: [u8; 8]) -> u64 {
        codes::<Entry32>(values)
    }

    #[inline(always)]
    fn entry(self, table: &[Entry32; 256], codes: u64, index: usize) -> __m512i {
        let entry = entry(table, codes, index);
        vnni!(_mm512_load_si512(entry.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn two(self, a: __m512i, b: __m512i) -> __m512i {
        vnni!(_mm512_add_epi16(a, b))
    }

    #[inline(always)]
    fn load(self, Sums32(sums): &Sums32) -> [__m512i; 2] {
        sums.each_ref()
            .map(|sums| vnni!(_mm512_load_si512(sums.as_ptr().cast())))
    }

    #[inline(always)]
    fn add(self, [even, odd]: [__m512i; 2], entries: __m512i) -> [__m512i; 2] {
        vnni!([
            _mm512_dpwssd_epi32(even, entries, _mm512_set1_epi32(1)),
            _mm512_dpwssd_epi32(odd, entries, _mm512_set1_epi32(1 << 16)),
        ])
    }

    #[inline(always)]
    fn store(self, acc: [__m512i; 2], Sums32(sums): &mut Sums32) {
        for (acc, sums) in acc.into_iter().zip(sums) {
            vnni!(_mm512_store_si512(sums.as_mut_ptr().cast(), acc));
        }
    }

    #[inline(always)]
    fn turn(self, sums: &[Sums32; TILE], rows: &mut [[i32; TILE]]) {
        for parity in 0..2 {
            for (group, sums) in sums.as_chunks::<16>().0.iter().enumerate() {
                let sums = sums.iter().map(
                    #[inline(always)]
                    |Sums32(sums)| &sums[parity],
                );
                for (vector, sums) in vnni!(turned(sums)).into_iter().enumerate() {
                    // Of four rows at a time, packing put those of the second half behind those of the
                    // first.
                    let lane = 2 * vector + parity;
                    let row = lane / 8 * 4 + lane % 8 / 4 * 16 + lane % 4;
                    let out = &mut rows[row].as_chunks_mut::<16>().0[group];
                    vnni!(_mm512_storeu_si512(out.as_mut_ptr().cast(), sums));
                }
            }
        }
    }
}

/// The first halves of a block of sixteen rows, and the second ones, plus 128.
///
/// # Safety
/// - The processor has AVX-512 F.
#[inline(always)]
unsafe fn halves(rows: &[[i8; BLOCK]; 16]) -> [__m512i; 2] {
    let rows: *const __m512i = rows.as_ptr().cast();
    vnni!({
        let flip = _mm512_set1_epi8(-128);
        let a = _mm512_xor_si512(flip, _mm512_loadu_si512(rows));
        let b = _mm512_xor_si512(flip, _mm512_loadu_si512(rows.add(1)));
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        [
            _mm512_permutex2var_epi32(a, even, b),
            _mm512_permutex2var_epi32(a, odd, b),
        ]
    })
}

/// Columns of a 16 x 16 matrix.
///
/// # Safety
/// - The processor has AVX-512 F.
#[inline(always)]
unsafe fn turned<'a>(rows: impl Iterator<Item = &'a [i32; 16]>) -> [__m512i; 16] {
    let mut vectors = vnni!([_mm512_setzero_si512(); 16]);
    for (vector, row) in vectors.iter_mut().zip(rows) {
        *vector = vnni!(_mm512_loadu_si512(row.as_ptr().cast()));
    }
    // In quarter q, of rows 4a to 4a + 3: columns 4q to 4q + 3, one after another.
    let mut fours = vnni!([[_mm512_setzero_si512(); 4]; 4]);
    for (fours, &[r, s, t, u]) in fours.iter_mut().zip(vectors.as_chunks().0) {
        vnni!({
            let (rs, tu) = (_mm512_unpacklo_epi32(r, s), _mm512_unpacklo_epi32(t, u));
            fours[0] = _mm512_unpacklo_epi64(rs, tu);
            fours[1] = _mm512_unpackhi_epi64(rs, tu);
            let (rs, tu) = (_mm512_unpackhi_epi32(r, s), _mm512_unpackhi_epi32(t, u));
            fours[2] = _mm512_unpacklo_epi64(rs, tu);
            fours[3] = _mm512_unpackhi_epi64(rs, tu);
        })
    }
    let mut columns = vnni!([_mm512_setzero_si512(); 16]);
    for c in 0..4 {
        let [r, s, t, u] = [fours[0][c], fours[1][c], fours[2][c], fours[3][c]];
        vnni!({
            // Quarters 0 and 1, and 2 and 3, of two.
            let (rs, tu) = (
                _mm512_shuffle_i32x4::<0b01_00_01_00>(r, s),
                _mm512_shuffle_i32x4::<0b01_00_01_00>(t, u),
            );
            columns[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(rs, tu);
            columns[4 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(rs, tu);
            let (rs, tu) = (
                _mm512_shuffle_i32x4::<0b11_10_11_10>(r, s),
                _mm512_shuffle_i32x4::<0b11_10_11_10>(t, u),
            );
            columns[8 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(rs, tu);
            columns[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(rs, tu);
        })
    }
    columns
}

/// Sixteen rows.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Sixteen(pub(in crate::kernels) Avx512Vnni);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub(in crate::kernels) struct Entry16([i16; 16]);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Sums16([i32; 16]);

impl Lanes for Sixteen {
    const ROWS: usize = 16;
    /// They fill a first-level cache of 32 KiB.
    const TABLES: usize = 4;
    const EACH: usize = 1;
    type Centroids = Centroid;
    type Inputs = [[i8; BLOCK]; 16];
    type Entry = Entry16;
    type Sums = Sums16;
    type Vector = __m256i;
    type Acc = __m512i;

    #[inline]
    fn run<O: LanesOp<Self>>(self, op: O) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi2")]
        fn inner<O: LanesOp<Sixteen>>(lanes: Sixteen, op: O) {
            op.eval(lanes)
        }
        vnni!(inner(self, op))
    }

    fn centroids(book: &[i8], out: &mut [Centroid]) {
        ThirtyTwo::centroids(book, out);
    }

    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs {
        let mut all = [[0; BLOCK]; 16];
        all[..rows.len()].copy_from_slice(rows);
        all
    }

    fn table(self, centroids: &[Centroid], inputs: &Self::Inputs, table: &mut [Entry16; 256]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn inner(centroids: &[Centroid], inputs: &[[i8; BLOCK]; 16], table: &mut [Entry16; 256]) {
            let inputs = vnni!(halves(inputs));
            for (centroid, entry) in centroids.iter().zip(table) {
                let first = _mm512_set1_epi32(centroid.halves[0]);
                let second = _mm512_set1_epi32(centroid.halves[1]);
                let sums = _mm512_set1_epi32(centroid.start);
                let sums = _mm512_dpbusd_epi32(sums, inputs[0], first);
                let sums = _mm512_dpbusd_epi32(sums, inputs[1], second);
                let entry = entry.0.as_mut_ptr().cast();
                vnni!(_mm256_store_si256(entry, _mm512_cvtepi32_epi16(sums)));
            }
        }
        vnni!(inner(centroids, inputs, table))
    }

    #[inline(always)]
    fn codes(values: [u8; 8]) -> u64 {
        codes::<Entry16>(values)
    }

    #[inline(always)]
    fn entry(self, table: &[Entry16; 256], codes: u64, index: usize) -> __m256i {
        let entry = entry(table, codes, index);
        vnni!(_mm256_load_si256(entry.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn two(self, a: __m256i, b: __m256i) -> __m256i {
        vnni!(_mm256_add_epi16(a, b))
    }

    #[inline(always)]
    fn load(self, Sums16(sums): &Sums16) -> __m512i {
        vnni!(_mm512_load_si512(sums.as_ptr().cast()))
    }

    #[inline(always)]
    fn add(self, sums: __m512i, entries: __m256i) -> __m512i {
        vnni!(_mm512_add_epi32(sums, _mm512_cvtepi16_epi32(entries)))
    }

    #[inline(always)]
    fn store(self, acc: __m512i, Sums16(sums): &mut Sums16) {
        vnni!(_mm512_store_si512(sums.as_mut_ptr().cast(), acc));
    }

    #[inline(always)]
    fn turn(self, sums: &[Sums16; TILE], rows: &mut [[i32; TILE]]) {
        for (group, sums) in sums.as_chunks::<16>().0.iter().enumerate() {
            let sums = sums.iter().map(
                #[inline(always)]
                |Sums16(sums)| sums,
            );
            for (sums, row) in vnni!(turned(sums)).into_iter().zip(&mut *rows) {
                let out = &mut row.as_chunks_mut::<16>().0[group];
                vnni!(_mm512_storeu_si512(out.as_mut_ptr().cast(), sums));
            }
        }
    }
}
