//! Rows of embedding tables, decoded as they are added up.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// A row as it is stored.
#[derive(Clone, Copy)]
pub(crate) enum TableRow<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Pq {
        codes: &'a [u8],
        /// `[codebooks][centroids][block]`
        centroids: &'a [f32],
        block: usize,
        /// Each for as many neighbouring codes of the row.
        codebooks: usize,
        /// Values in a codebook.
        size: usize,
        scale: f32,
    },
    Int8 {
        values: &'a [i8],
        zero: f32,
        scale: f32,
    },
    /// Two values a byte, the first one in the low half.
    Int4 {
        values: &'a [u8],
        zero: f32,
        scale: f32,
    },
}

impl TableRow<'_> {
    /// Adds the row to `sum`. Inlined, it is compiled for the instruction set of the caller.
    #[inline(always)]
    pub(super) fn add(self, sum: &mut [f32]) {
        match self {
            TableRow::F32(values) => {
                for (s, v) in sum.iter_mut().zip(values) {
                    *s += v;
                }
            }
            TableRow::F16(values) => {
                let mut buffer = [0.0; 64];
                for (sum, values) in sum.chunks_mut(64).zip(values.chunks(64)) {
                    let floats = &mut buffer[..values.len()];
                    values.convert_to_f32_slice(floats);
                    for (s, v) in sum.iter_mut().zip(floats) {
                        *s += *v;
                    }
                }
            }
            TableRow::Pq {
                codes,
                centroids,
                block,
                codebooks,
                size,
                scale,
            } => {
                let blocks = codes.len() / codebooks;
                let parts = sum.chunks_mut(blocks * block).zip(codes.chunks(blocks));
                for ((sum, codes), centroids) in parts.zip(centroids.chunks(size)) {
                    match block {
                        4 => add_pq::<4>(codes, centroids, scale, sum),
                        8 => add_pq::<8>(codes, centroids, scale, sum),
                        16 => add_pq::<16>(codes, centroids, scale, sum),
                        // `chunks_mut` leaves a short last block; `zip` then drops the centroid's rest.
                        _ => {
                            for (sum, &code) in sum.chunks_mut(block).zip(codes) {
                                let centroid = &centroids[usize::from(code) * block..][..block];
                                for (s, v) in sum.iter_mut().zip(centroid) {
                                    *s += v * scale;
                                }
                            }
                        }
                    }
                }
            }
            TableRow::Int8 {
                values,
                zero,
                scale,
            } => {
                for (s, &q) in sum.iter_mut().zip(values) {
                    *s += (f32::from(q) - zero) * scale;
                }
            }
            TableRow::Int4 {
                values,
                zero,
                scale,
            } => {
                for (pair, &byte) in sum.chunks_mut(2).zip(values) {
                    for (s, q) in pair.iter_mut().zip([byte & 15, byte >> 4]) {
                        *s += (f32::from(q) - zero) * scale;
                    }
                }
            }
        }
    }
}

/// For a known size of block; a short last one drops the rest of its centroid.
#[inline(always)]
fn add_pq<const N: usize>(codes: &[u8], centroids: &[f32], scale: f32, sum: &mut [f32]) {
    let centroids = centroids.as_chunks::<N>().0;
    let (blocks, rest) = sum.as_chunks_mut::<N>();
    for (sum, &code) in blocks.iter_mut().zip(codes) {
        let centroid = &centroids[usize::from(code)];
        for i in 0..N {
            sum[i] += centroid[i] * scale;
        }
    }
    if let Some(&code) = codes.get(blocks.len()) {
        for (s, v) in rest.iter_mut().zip(&centroids[usize::from(code)]) {
            *s += v * scale;
        }
    }
}
