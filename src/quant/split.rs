//! Several codebooks for a matrix, each for a part of its columns: product quantization as in Jégou, Douze
//! and Schmid 2011, where every block of a row has its own. For embedding tables, whose codes take so much
//! more room than codebooks that these cost next to nothing.
//!
//! With a Hessian, parts follow each other from left to right. As in [`super::feedback`], `H = R R^T`, and
//! part `g` of `e R` is `e_g R_gg` plus what the errors `e_i` of earlier parts contribute, `e_i R_ig`. So
//! each part is a matrix of its own with the Hessian `R_gg R_gg^T`, and its weights to approximate
//! make up for earlier errors: `w_g + (sum of e_i R_ig) R_gg^-1`.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use super::codebook::{CentroidType, Codebook, Width};
use super::feedback::{self, damped, factor};
use super::half::to_f16;
use super::matrix::{Importance, Matrix};
use super::pq::{self, Pq, PqOptions, RowScale, uses};
use crate::error::Result;

/// Columns of a matrix that codebook `book` of `books` is for.
pub(super) fn columns(cols: usize, (block, books): (usize, usize), book: usize) -> Range<usize> {
    let width = cols.div_ceil(block) / books * block;
    book * width..cols.min((book + 1) * width)
}

/// These columns of `values` `[rows][cols]`.
pub(super) fn part(values: &[f32], cols: usize, range: &Range<usize>) -> Vec<f32> {
    let rows = values.chunks_exact(cols);
    rows.flat_map(|row| &row[range.clone()]).copied().collect()
}

/// See [`pq::quantize`]; `options` are checked.
pub(super) fn quantize(
    w: Matrix<'_>,
    importance: Importance<'_>,
    options: &PqOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Pq> {
    let importance = importance.checked(w)?;
    let rows = Rows::new(w, importance.rows, options.row_scale);
    let parts = (0..options.codebooks).map(|book| {
        let range = columns(w.cols(), (options.block, options.codebooks), book);
        let values = part(&rows.data, w.cols(), &range);
        let importance = Importance {
            columns: importance.columns.map(|columns| &columns[range.clone()]),
            rows: rows.counts.as_deref(),
        };
        let values = Matrix::trusted(&values, w.rows(), range.len());
        pq::quantize(values, importance, &of_a_part(options), progress)
    });
    let parts = parts.collect::<Result<Vec<Pq>>>()?;
    let mut pq = merge(w, &parts, options)?;
    rows.scale(&mut pq, w, |row, product| {
        let weighed = |(c, x): (usize, &f32)| importance.columns.map_or(1.0, |of| of[c]) * x;
        product.extend(row.iter().enumerate().map(weighed));
    })?;
    Ok(pq)
}

/// See [`feedback::quantize_with_hessian`]; `options` are checked.
pub(super) fn quantize_with_hessian(
    w: Matrix<'_>,
    hessian: &[f32],
    counts: Option<&[f32]>,
    options: &PqOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Pq> {
    let n = w.cols();
    let h = damped(hessian, n)?;
    let r = factor(&h, n)?;
    let importance = Importance {
        columns: None,
        rows: counts,
    };
    let rows = Rows::new(w, importance.checked(w)?.rows, options.row_scale);
    // What rows are less what their codes stand for, as far as they are quantized.
    let mut errors = vec![0f32; w.data().len()];
    let mut parts = Vec::new();
    for book in 0..options.codebooks {
        let range = columns(n, (options.block, options.codebooks), book);
        let width = range.len();
        let mut target = part(&rows.data, n, &range);
        (target.par_chunks_exact_mut(width))
            .zip(errors.par_chunks_exact(n))
            .for_each(|(target, errors)| {
                let mut carried = vec![0f64; width];
                for (i, &error) in errors[..range.start].iter().enumerate() {
                    let r = &r[i * n..][range.clone()];
                    let pairs = carried.iter_mut().zip(r);
                    pairs.for_each(|(c, r)| *c += f64::from(error) * r);
                }
                for j in 0..width {
                    let r = |i: usize| r[(range.start + i) * n + range.start + j];
                    let known: f64 = (0..j).map(|i| carried[i] * r(i)).sum();
                    carried[j] = (carried[j] - known) / r(j);
                    target[j] += carried[j] as f32;
                }
            });
        let row = |i: usize| &r[(range.start + i) * n..][range.clone()];
        let product =
            |(i, j): (usize, usize)| -> f64 { row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum() };
        let places = (0..width).flat_map(|i| (0..width).map(move |j| (i, j)));
        let hessian: Vec<f32> = places.map(|place| product(place) as f32).collect();
        let found = feedback::quantize_with_hessian(
            Matrix::new(&target, w.rows(), width)?,
            &hessian,
            rows.counts.as_deref(),
            &of_a_part(options),
            progress,
        )?;
        let decoded = found.dequantize();
        let places = errors.chunks_exact_mut(n).zip(rows.data.chunks_exact(n));
        for ((errors, row), decoded) in places.zip(decoded.chunks_exact(width)) {
            for ((e, w), q) in errors[range.clone()]
                .iter_mut()
                .zip(&row[range.clone()])
                .zip(decoded)
            {
                *e = w - q;
            }
        }
        parts.push(found);
    }
    let mut pq = merge(w, &parts, options)?;
    rows.scale(&mut pq, w, |row, product| {
        let of = |h: &[f64]| {
            h.iter()
                .zip(row)
                .map(|(h, x)| h * f64::from(*x))
                .sum::<f64>()
        };
        product.extend(h.chunks_exact(n).map(|h| of(h) as f32));
    })?;
    Ok(pq)
}

fn of_a_part(options: &PqOptions) -> PqOptions {
    PqOptions {
        codebooks: 1,
        row_scale: false,
        // Rounded once, together.
        centroid_type: CentroidType::F16,
        ..options.clone()
    }
}

/// Rows over their factors, if they are to have some.
struct Rows {
    data: Vec<f32>,
    counts: Option<Vec<f32>>,
    factors: Option<Vec<f16>>,
}

impl Rows {
    /// Factors are the root mean squares of the rows, over the largest of them.
    fn new(w: Matrix<'_>, counts: Option<&[f32]>, scale: bool) -> Self {
        let mut data = w.data().to_vec();
        if !scale {
            return Self {
                data,
                counts: counts.map(<[f32]>::to_vec),
                factors: None,
            };
        }
        let norm = |row: &[f32]| {
            row.iter()
                .map(|&x| f64::from(x).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let norms: Vec<f64> = data.chunks_exact(w.cols()).map(norm).collect();
        let most = norms.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let factors: Vec<f16> = norms.iter().map(|n| f16::from_f64(n / most)).collect();
        let mut masses = Vec::with_capacity(w.rows());
        for (r, row) in data.chunks_exact_mut(w.cols()).enumerate() {
            let factor = factors[r].to_f32();
            masses.push(factor * factor * counts.map_or(1.0, |counts| counts[r]));
            let of = |x: f32| if factor > 0.0 { x / factor } else { 0.0 };
            row.iter_mut().for_each(|x| *x = of(*x));
        }
        Self {
            data,
            counts: Some(masses),
            factors: Some(factors),
        }
    }

    /// Gives `pq` the factors with the least error, where `weigh` pushes the product of a row with how much
    /// errors count.
    fn scale(
        self,
        pq: &mut Pq,
        w: Matrix<'_>,
        weigh: impl Fn(&[f32], &mut Vec<f32>) + Sync,
    ) -> Result<()> {
        let Some(mut factors) = self.factors else {
            return Ok(());
        };
        let decoded = pq.dequantize();
        let best = |(q, w): (&[f32], &[f32])| -> f64 {
            let mut product = Vec::with_capacity(q.len());
            weigh(q, &mut product);
            let with = |x: &[f32]| -> f64 {
                let pairs = x.iter().zip(&product);
                pairs.map(|(x, p)| f64::from(*x) * f64::from(*p)).sum()
            };
            with(w) / with(q)
        };
        let rows = decoded.par_chunks_exact(w.cols());
        let rows = rows.zip(w.data().par_chunks_exact(w.cols()));
        let ratios: Vec<f64> = rows.map(best).collect();
        for (factor, ratio) in factors.iter_mut().zip(ratios) {
            if *factor > f16::ZERO && ratio.is_finite() {
                *factor = to_f16(ratio.max(0.0) as f32)?;
            }
        }
        pq.row_scale = Some(RowScale { factors });
        Ok(())
    }
}

/// One matrix of all parts, with codebooks of the same size: centroids that nothing uses are zeros.
fn merge(w: Matrix<'_>, parts: &[Pq], options: &PqOptions) -> Result<Pq> {
    let block = options.block;
    let per_row = w.cols().div_ceil(block);
    let blocks = per_row / parts.len();
    let k = parts.iter().map(|part| part.k).max().unwrap_or(0);
    let mut centroids = Vec::with_capacity(parts.len() * k * block);
    let mut codes = vec![0; w.rows() * per_row];
    for (book, part) in parts.iter().enumerate() {
        centroids.extend(part.codebook.decode());
        centroids.resize((book + 1) * k * block, 0.0);
        let rows = codes
            .chunks_exact_mut(per_row)
            .zip(part.codes.chunks_exact(blocks));
        for (codes, of_part) in rows {
            codes[book * blocks..][..blocks].copy_from_slice(of_part);
        }
    }
    let weight: Vec<f64> = uses(&codes, per_row, parts.len(), k)
        .into_iter()
        .flat_map(|uses| std::iter::repeat_n(uses as f64, block))
        .collect();
    let to = options.centroid_type;
    Ok(Pq {
        rows: w.rows(),
        cols: w.cols(),
        block,
        codebooks: parts.len(),
        k,
        codes,
        codebook: Codebook::round(&centroids, block, &weight, to, Width::WIDE)?,
        row_scale: None,
    })
}

#[cfg(test)]
#[path = "tests/split.rs"]
mod tests;
