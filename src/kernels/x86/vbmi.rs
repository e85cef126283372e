//! AVX-512 VBMI: lookups of 64 bytes at a time in a table of 128 (Ice Lake and Zen 4, and later).

use std::arch::x86_64::*;

use super::vnni::Avx512Vnni;
use crate::layout::TILE;

/// A processor with AVX-512 F, BW, DQ, VL, VNNI and VBMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512Vbmi(Avx512Vnni);

/// Calls instructions.
macro_rules! vbmi {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has AVX-512 F, BW, DQ, VL, VNNI and
        // VBMI; memory is touched inside of slices whose lengths are checked.
        unsafe { $instructions }
    }};
}

/// Centroids of eight values, plus 128, as `vpdpbusd` takes them: the first four of each, and the other
/// four. Of 64 centroids, vector v has those at 16 q + 4 v + i, so that packing leaves them in order.
pub(in crate::kernels) struct Centroids([[__m512i; 2]; 16]);

/// The dot products of a block of the input with 256 centroids, plus [`bias`], in planes of their
/// bytes, the lowest first.
pub(in crate::kernels) type Table<const PLANES: usize> = [[u8; 256]; PLANES];

/// What is added to an entry of a table, so that none is negative. Dot products that fit an `i16` have
/// two planes; those of eight products of -128 and 127 three.
const fn bias(planes: usize) -> i32 {
    1 << (8 * planes - if planes == 2 { 1 } else { 7 })
}

impl Avx512Vbmi {
    /// The token, if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let vnni = Avx512Vnni::new()?;
        is_x86_feature_detected!("avx512vbmi").then_some(Self(vnni))
    }

    /// What it has besides.
    pub(crate) fn vnni(self) -> Avx512Vnni {
        self.0
    }

    /// From a codebook `[256][8]`.
    pub(in crate::kernels) fn centroids(self, values: &[i8]) -> Centroids {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
        fn inner(values: &[i8; 2048]) -> Centroids {
            let mut all = [[_mm512_setzero_si512(); 2]; 16];
            let flip = _mm512_set1_epi8(-128);
            for (g, vectors) in all.iter_mut().enumerate() {
                let first = g / 4 * 64 + g % 4 * 4;
                let mut halves = [[0i32; 16]; 2];
                for lane in 0..16 {
                    let centroid = first + lane / 4 * 16 + lane % 4;
                    for (half, lanes) in halves.iter_mut().enumerate() {
                        let values = values[8 * centroid + 4 * half..][..4].try_into();
                        let values: [i8; 4] = values.expect("four values");
                        lanes[lane] = bytemuck::cast(values);
                    }
                }
                for (vector, lanes) in vectors.iter_mut().zip(&halves) {
                    // SAFETY: there are 16 lanes.
                    let lanes = unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) };
                    *vector = _mm512_xor_si512(flip, lanes);
                }
            }
            Centroids(all)
        }
        let values = values.try_into().expect("256 centroids of 8 values");
        vbmi!(inner(values))
    }

    /// Fills the tables of a row, of which the last block may be a part. With two planes, dot products
    /// fit an `i16`.
    ///
    /// # Panics
    /// If there are not as many tables as blocks.
    pub(in crate::kernels) fn tables<const PLANES: usize>(
        self,
        centroids: &Centroids,
        row: &[i8],
        out: &mut [Table<PLANES>],
    ) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2")]
        fn inner<const PLANES: usize>(
            centroids: &Centroids,
            row: &[i8],
            out: &mut [Table<PLANES>],
        ) {
            let bytes = _mm512_set1_epi32(0xff);
            for (x, table) in row.chunks(8).zip(out) {
                let mut block = [0; 8];
                block[..x.len()].copy_from_slice(x);
                let sum: i32 = block.iter().map(|&x| i32::from(x)).sum();
                let [first, second]: [i32; 2] = bytemuck::cast(block);
                let (first, second) = (_mm512_set1_epi32(first), _mm512_set1_epi32(second));
                // Less what the 128 of the centroids add.
                let start = _mm512_set1_epi32(bias(PLANES) - 128 * sum);
                for (g, vectors) in centroids.0.as_chunks::<4>().0.iter().enumerate() {
                    let mut entries = [start; 4];
                    for (entries, halves) in entries.iter_mut().zip(vectors) {
                        *entries = _mm512_dpbusd_epi32(*entries, halves[0], first);
                        *entries = _mm512_dpbusd_epi32(*entries, halves[1], second);
                    }
                    let [a, b, c, d] = entries;
                    // Two planes are packed as one; the third one apart.
                    let (ab, cd) = if PLANES == 2 {
                        (_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d))
                    } else {
                        let low = _mm512_set1_epi32(0xffff);
                        let upper = |v| _mm512_and_si512(_mm512_srli_epi32::<16>(v), bytes);
                        let high = _mm512_packus_epi16(
                            _mm512_packus_epi32(upper(a), upper(b)),
                            _mm512_packus_epi32(upper(c), upper(d)),
                        );
                        let plane = table[2][64 * g..][..64].as_mut_ptr();
                        // SAFETY: there is room for 64 bytes.
                        unsafe { _mm512_storeu_si512(plane.cast(), high) };
                        let lower = |v| _mm512_and_si512(v, low);
                        (
                            _mm512_packus_epi32(lower(a), lower(b)),
                            _mm512_packus_epi32(lower(c), lower(d)),
                        )
                    };
                    let low = _mm512_set1_epi16(0xff);
                    let planes = [
                        _mm512_packus_epi16(_mm512_and_si512(ab, low), _mm512_and_si512(cd, low)),
                        _mm512_packus_epi16(_mm512_srli_epi16::<8>(ab), _mm512_srli_epi16::<8>(cd)),
                    ];
                    for (plane, bytes) in table.iter_mut().zip(planes) {
                        let plane = plane[64 * g..][..64].as_mut_ptr();
                        // SAFETY: there is room for 64 bytes.
                        unsafe { _mm512_storeu_si512(plane.cast(), bytes) };
                    }
                }
            }
        }
        assert_eq!(out.len(), row.len().div_ceil(8));
        vbmi!(inner(centroids, row, out))
    }

    /// Adds the dot products that the codes of `TILES` tiles (`[tables][width]` each) stand for to
    /// `sums`.
    ///
    /// # Panics
    /// If there are fewer codes, more than 64 outputs in a tile, or more than 256 tables.
    pub(in crate::kernels) fn look_up<const PLANES: usize, const TILES: usize>(
        self,
        codes: [&[u8]; TILES],
        width: usize,
        tables: &[Table<PLANES>],
        sums: &mut [[i32; TILE]; TILES],
    ) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2")]
        fn inner<const PLANES: usize, const TILES: usize>(
            codes: [&[u8]; TILES],
            width: usize,
            tables: &[Table<PLANES>],
            sums: &mut [[i32; TILE]; TILES],
        ) {
            let outputs = u64::MAX >> (TILE - width);
            // Of each plane: sums of 16 bits as they stand, modulo 2^16, and of their upper halves, the
            // odd outputs.
            let mut words = [[_mm512_setzero_si512(); TILES]; PLANES];
            let mut odd = words;
            for (index, table) in tables.iter().enumerate() {
                for p in 0..PLANES {
                    let plane: *const __m512i = table[p].as_ptr().cast();
                    // SAFETY: a plane has 256 entries.
                    let (a, b, c, d) = unsafe {
                        (
                            _mm512_loadu_si512(plane),
                            _mm512_loadu_si512(plane.add(1)),
                            _mm512_loadu_si512(plane.add(2)),
                            _mm512_loadu_si512(plane.add(3)),
                        )
                    };
                    for t in 0..TILES {
                        // SAFETY: there are as many codes as tables; `outputs` selects `width` of them.
                        let codes = unsafe {
                            let codes = codes[t].as_ptr().add(index * width);
                            _mm512_maskz_loadu_epi8(outputs, codes.cast())
                        };
                        let entries = _mm512_mask_blend_epi8(
                            _mm512_movepi8_mask(codes),
                            _mm512_permutex2var_epi8(a, codes, b),
                            _mm512_permutex2var_epi8(c, codes, d),
                        );
                        words[p][t] = _mm512_add_epi16(words[p][t], entries);
                        odd[p][t] = _mm512_add_epi16(odd[p][t], _mm512_srli_epi16::<8>(entries));
                    }
                }
            }
            let (first, second) = (
                _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31),
            );
            let bias = _mm512_set1_epi32((tables.len() as i32).wrapping_mul(bias(PLANES)));
            for t in 0..TILES {
                // Of 32 outputs each: the even ones and the odd ones.
                let mut halves = [[_mm512_setzero_si512(); 2]; 2];
                for p in (0..PLANES).rev() {
                    let even = _mm512_sub_epi16(words[p][t], _mm512_slli_epi16::<8>(odd[p][t]));
                    for (parity, sums) in [even, odd[p][t]].into_iter().enumerate() {
                        let quarters = [
                            _mm512_castsi512_si256(sums),
                            _mm512_extracti64x4_epi64::<1>(sums),
                        ];
                        for (half, sums) in halves.iter_mut().zip(quarters) {
                            let shifted = _mm512_slli_epi32::<8>(half[parity]);
                            half[parity] = _mm512_add_epi32(shifted, _mm512_cvtepu16_epi32(sums));
                        }
                    }
                }
                for (half, out) in halves.iter().zip(sums[t].as_chunks_mut::<32>().0) {
                    let [even, odd] = half.map(|sums| _mm512_sub_epi32(sums, bias));
                    let (low, high) = (
                        _mm512_permutex2var_epi32(even, first, odd),
                        _mm512_permutex2var_epi32(even, second, odd),
                    );
                    let out: *mut __m512i = out.as_mut_ptr().cast();
                    // SAFETY: there are 32 sums.
                    unsafe {
                        let added = _mm512_add_epi32(_mm512_loadu_si512(out), low);
                        _mm512_storeu_si512(out, added);
                        let added = _mm512_add_epi32(_mm512_loadu_si512(out.add(1)), high);
                        _mm512_storeu_si512(out.add(1), added);
                    }
                }
            }
        }
        // So that no sum of bytes exceeds 16 bits.
        assert!(tables.len() <= 256 && (1..=TILE).contains(&width));
        assert!(
            codes
                .iter()
                .all(|codes| codes.len() >= tables.len() * width)
        );
        vbmi!(inner(codes, width, tables, sums))
    }
}
