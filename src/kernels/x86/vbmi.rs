//! AVX-512 VBMI: lookups of 64 bytes at a time in a table of 128 (Ice Lake and Zen 4, and later).

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};

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

/// Centroids of eight values, plus 128, as `vpdpbusd` takes them: `[half][256][4]`.
pub(in crate::kernels) struct Centroids([__m512i; 32]);

/// What is added to an entry of a table, so that none is negative: eight products of -128 and 127
/// are above its opposite.
const BIAS: i32 = 1 << 17;

/// The dot products of a block of the input with 256 centroids, plus [`BIAS`]: below 2^18, in
/// planes of their low, middle and high bytes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Table([[u8; 256]; 3]);

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
            let mut halves = [_mm512_setzero_si512(); 32];
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            let flip = _mm512_set1_epi8(-128);
            for (g, values) in values.as_chunks::<128>().0.iter().enumerate() {
                let values: *const __m512i = values.as_ptr().cast();
                // SAFETY: there are 128 values.
                let (a, b) = unsafe {
                    (
                        _mm512_loadu_si512(values),
                        _mm512_loadu_si512(values.add(1)),
                    )
                };
                halves[g] = _mm512_xor_si512(flip, _mm512_permutex2var_epi32(a, even, b));
                halves[16 + g] = _mm512_xor_si512(flip, _mm512_permutex2var_epi32(a, odd, b));
            }
            Centroids(halves)
        }
        let values = values.try_into().expect("256 centroids of 8 values");
        vbmi!(inner(values))
    }

    /// Fills the tables of a row, of which the last block may be a part.
    ///
    /// # Panics
    /// If there are not as many tables as blocks.
    pub(in crate::kernels) fn tables(self, centroids: &Centroids, row: &[i8], out: &mut [Table]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2")]
        fn inner(centroids: &Centroids, row: &[i8], out: &mut [Table]) {
            for (x, table) in row.chunks(8).zip(out) {
                let mut block = [0; 8];
                block[..x.len()].copy_from_slice(x);
                let sum: i32 = block.iter().map(|&x| i32::from(x)).sum();
                let [first, second]: [i32; 2] = bytemuck::cast(block);
                let (first, second) = (_mm512_set1_epi32(first), _mm512_set1_epi32(second));
                // Less what the 128 of the centroids add.
                let start = _mm512_set1_epi32(BIAS - 128 * sum);
                let [low, middle, high] = &mut table.0;
                for g in 0..16 {
                    let entries = _mm512_dpbusd_epi32(start, centroids.0[g], first);
                    let entries = _mm512_dpbusd_epi32(entries, centroids.0[16 + g], second);
                    let planes = [
                        (&mut *low, entries),
                        (&mut *middle, _mm512_srli_epi32::<8>(entries)),
                        (&mut *high, _mm512_srli_epi32::<16>(entries)),
                    ];
                    for (plane, entries) in planes {
                        let plane = plane[g * 16..][..16].as_mut_ptr();
                        // SAFETY: there is room for 16 bytes.
                        unsafe { _mm_storeu_si128(plane.cast(), _mm512_cvtepi32_epi8(entries)) };
                    }
                }
            }
        }
        assert_eq!(out.len(), row.len().div_ceil(8));
        vbmi!(inner(centroids, row, out))
    }

    /// Adds the dot products that the codes of a tile (`[tables][width]`) stand for to `sums`.
    ///
    /// # Panics
    /// If there are fewer codes, more than 64 outputs, or more than 256 tables.
    pub(in crate::kernels) fn look_up(
        self,
        codes: &[u8],
        width: usize,
        tables: &[Table],
        sums: &mut [i32; TILE],
    ) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2")]
        fn inner(codes: &[u8], width: usize, tables: &[Table], sums: &mut [i32; TILE]) {
            let outputs = u64::MAX >> (TILE - width);
            let bytes = _mm512_set1_epi16(0xff);
            // Sums of each plane: of the even outputs, and of the odd ones.
            let mut planes = [[_mm512_setzero_si512(); 2]; 3];
            for (codes, table) in codes.chunks_exact(width).zip(tables) {
                // SAFETY: `outputs` selects the `width` codes that there are.
                let codes = unsafe { _mm512_maskz_loadu_epi8(outputs, codes.as_ptr().cast()) };
                let upper = _mm512_movepi8_mask(codes);
                let add = |[even, odd]: [__m512i; 2], plane: &[u8; 256]| {
                    let plane: *const __m512i = plane.as_ptr().cast();
                    // SAFETY: a plane has 256 entries, and is aligned as a table is.
                    let (a, b, c, d) = unsafe {
                        (
                            _mm512_load_si512(plane),
                            _mm512_load_si512(plane.add(1)),
                            _mm512_load_si512(plane.add(2)),
                            _mm512_load_si512(plane.add(3)),
                        )
                    };
                    let entries = _mm512_mask_blend_epi8(
                        upper,
                        _mm512_permutex2var_epi8(a, codes, b),
                        _mm512_permutex2var_epi8(c, codes, d),
                    );
                    [
                        _mm512_add_epi16(even, _mm512_and_si512(entries, bytes)),
                        _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(entries)),
                    ]
                };
                planes = [
                    add(planes[0], &table.0[0]),
                    add(planes[1], &table.0[1]),
                    add(planes[2], &table.0[2]),
                ];
            }
            let mut parts = [[[0u16; TILE / 2]; 2]; 3];
            for (part, plane) in parts.iter_mut().flatten().zip(planes.iter().flatten()) {
                // SAFETY: both have 64 bytes.
                unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), *plane) };
            }
            let [low, middle, high] = &parts;
            let bias = tables.len() as i32 * BIAS;
            for i in 0..TILE / 2 {
                for j in 0..2 {
                    let [l, m, h] = [low[j][i], middle[j][i], high[j][i]].map(i32::from);
                    let sum = (l + (m << 8)).wrapping_add(h << 16).wrapping_sub(bias);
                    sums[2 * i + j] = sums[2 * i + j].wrapping_add(sum);
                }
            }
        }
        // So that no sum of bytes exceeds 16 bits.
        assert!(tables.len() <= 256);
        assert!((1..=TILE).contains(&width) && codes.len() >= tables.len() * width);
        vbmi!(inner(codes, width, tables, sums))
    }
}
