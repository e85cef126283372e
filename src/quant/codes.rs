//! Codes of weights that go on changing while they are trained, for codebooks that are there.

use super::blocks::{Blocks, Mass, search};
use super::matrix::Matrix;
use super::split;
use crate::error::Result;
use crate::kernels::Isa;

/// The code of the nearest centroid, of `[k][block]`, for each block of a matrix: `[rows][blocks of a row]`.
pub(crate) fn nearest_codes(
    (rows, cols): (usize, usize),
    block: usize,
    values: &[f32],
    centroids: &[f32],
) -> Result<Vec<u8>> {
    let blocks = Blocks {
        w: Matrix::new(values, rows, cols)?,
        b: block,
        importance: None,
        mass: Mass::One,
        isa: Isa::detect()?,
    };
    let mut codes = vec![0; blocks.len()];
    search(&blocks, centroids, &mut codes);
    Ok(codes)
}

/// The code of the nearest centroid (of `[codebooks][k][block]`) for each block of a matrix, whose rows are
/// first divided by their `factors`, if they have any: `[rows][blocks of a row]`. A block keeps the code that
/// it has unless its squared distance becomes less than `part` of what it is.
pub(crate) fn nearer_codes(
    (rows, cols): (usize, usize),
    (block, codebooks): (usize, usize),
    mut values: Vec<f32>,
    factors: Option<&[f32]>,
    centroids: &[f32],
    (present, part): (&[u8], f32),
) -> Result<Vec<u8>> {
    for (row, &factor) in values
        .chunks_exact_mut(cols)
        .zip(factors.unwrap_or_default())
    {
        if factor != 0.0 {
            row.iter_mut().for_each(|value| *value /= factor);
        }
    }
    let distance = |values: &[f32], centroids: &[f32], code: u8| -> f32 {
        let centroid = &centroids[usize::from(code) * block..];
        let pairs = values.iter().zip(centroid);
        pairs.map(|(v, c)| (v - c) * (v - c)).sum()
    };
    let per_row = cols.div_ceil(block);
    let blocks = per_row / codebooks;
    let mut codes = present.to_vec();
    for (book, centroids) in centroids
        .chunks_exact(centroids.len() / codebooks)
        .enumerate()
    {
        let range = split::columns(cols, (block, codebooks), book);
        let values = split::part(&values, cols, &range);
        let nearest = nearest_codes((rows, range.len()), block, &values, centroids)?;
        let rows = codes
            .chunks_exact_mut(per_row)
            .map(|row| &mut row[book * blocks..][..blocks]);
        let of_rows = values
            .chunks_exact(range.len())
            .zip(nearest.chunks_exact(blocks));
        for (codes, (values, nearest)) in rows.zip(of_rows) {
            for ((code, values), &nearest) in
                codes.iter_mut().zip(values.chunks(block)).zip(nearest)
            {
                let nearer = distance(values, centroids, nearest)
                    < part * distance(values, centroids, *code);
                if nearer {
                    *code = nearest;
                }
            }
        }
    }
    Ok(codes)
}
