//! The little dense algebra that quantizing with a Hessian needs: a blocked Cholesky
//! factorization in f64 and a matrix product in f32, both in a fixed order of operations (for the
//! product, on one ISA).

use rayon::prelude::*;

use crate::error::Result;
use crate::kernels::{self, Codes, Isa, Threads, Weights, Zero};
use crate::layout::TILE;

/// Columns factorized together.
const PANEL: usize = 48;
/// Rows of a product computed by one task.
pub(super) const ROWS: usize = 96;

/// The upper triangular `R` with `H = R R^T`, row-major `[n][n]`; `None` if `h` is not positive
/// definite. It is the Cholesky factor of `H` with rows and columns in reverse order, reversed.
pub(super) fn upper_factor(h: &[f64], n: usize) -> Option<Vec<f64>> {
    // Reversing both orders of a row-major square matrix reverses its storage.
    let mut a: Vec<f64> = h.iter().rev().copied().collect();
    cholesky(&mut a, n)?;
    a.reverse();
    Some(a)
}

/// Replaces the symmetric `a` by the lower triangular `L` with `A = L L^T`, zeros above.
///
/// A panel of columns at a time: subtract what earlier columns contribute (most of the work: dot
/// products of rows), factorize the square on the diagonal, solve for the rows below it.
pub(crate) fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    for p in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - p);
        let panel: Vec<f64> = a[p * n..(p + width) * n].to_vec();
        a[p * n..].par_chunks_exact_mut(n).for_each(|row| {
            let (earlier, row) = row.split_at_mut(p);
            for (x, other) in row.iter_mut().zip(panel.chunks_exact(n)) {
                *x -= dot(earlier, &other[..p]);
            }
        });
        for i in p..p + width {
            for j in p..=i {
                let sum = a[i * n + j] - dot(&a[i * n + p..i * n + j], &a[j * n + p..j * n + j]);
                a[i * n + j] = if i > j {
                    sum / a[j * n + j]
                } else if sum > 0.0 && sum.is_finite() {
                    sum.sqrt()
                } else {
                    return None;
                };
            }
            a[i * n + i + 1..(i + 1) * n].fill(0.0);
        }
        let (above, below) = a.split_at_mut((p + width) * n);
        let square = &above[p * n..];
        below.par_chunks_exact_mut(n).for_each(|row| {
            let row = &mut row[p..p + width];
            for (j, other) in square.chunks_exact(n).enumerate() {
                let other = &other[p..];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
        });
    }
    Some(())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    rest + sums.iter().sum::<f64>()
}

/// The right side of products, `[n][n]`, as the runtime's kernels take it.
pub(super) struct Right {
    isa: Isa,
    n: usize,
    /// Strips of [`TILE`] columns.
    tiles: Vec<f32>,
    zeros: Vec<f32>,
}

impl Right {
    /// # Errors
    /// If `CENTROID_ISA` names kernels that are not there.
    pub(super) fn new(right: &[f32], n: usize) -> Result<Self> {
        let mut tiles = Vec::with_capacity(right.len());
        for first in (0..n).step_by(TILE) {
            for row in right.chunks_exact(n) {
                tiles.extend_from_slice(&row[first..n.min(first + TILE)]);
            }
        }
        Ok(Self {
            isa: Isa::detect()?,
            n,
            tiles,
            zeros: vec![0.0; n],
        })
    }

    /// `out = left * right` for `left` and `out` `[rows][n]`. On this thread.
    pub(super) fn multiply(&self, left: &[f32], out: &mut [f32]) {
        let weights = Weights {
            out_features: self.n,
            in_features: self.n,
            codes: Codes::F32(&self.tiles),
            scale: 1.0,
            row_scale: None,
            zero: Zero::Tensor(0),
            bias: Some(&self.zeros),
            offsets: None,
        };
        kernels::linear_f32(self.isa, Threads(1), &weights, left, out);
    }
}

/// `to += factor * from`
#[inline]
pub(super) fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::rng::Rng;

    /// `A A^T + I / 10` for a random square `A`.
    fn positive(n: usize) -> Vec<f64> {
        let mut rng = Rng::new(n as u64);
        let a: Vec<f64> = (0..n * n).map(|_| f64::from(rng.normal())).collect();
        let mut h = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] = dot(&a[i * n..][..n], &a[j * n..][..n]);
            }
            h[i * n + i] += 0.1;
        }
        h
    }

    #[test]
    fn the_factor_is_upper_and_gives_the_matrix_back() {
        for n in [1, 2, 7, 47, 48, 49, 130] {
            let h = positive(n);
            let r = upper_factor(&h, n).unwrap();
            for i in 0..n {
                assert!(r[i * n..i * n + i].iter().all(|&x| x == 0.0));
                for j in 0..n {
                    let product: f64 = (0..n).map(|m| r[i * n + m] * r[j * n + m]).sum();
                    assert!((product - h[i * n + j]).abs() < 1e-9 * n as f64);
                }
            }
        }
    }

    #[test]
    fn indefinite_matrices_have_no_factor() {
        assert!(upper_factor(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(upper_factor(&[0.0], 1).is_none());
        assert!(upper_factor(&[f64::NAN], 1).is_none());
    }

    #[test]
    fn the_product_equals_its_definition() {
        for (rows, n) in [(1, 1), (3, 5), (4, 513), (6, 40)] {
            let mut rng = Rng::new(5);
            let mut draw = |len: usize| -> Vec<f32> {
                (0..len).map(|_| (rng.normal() * 4.0).round()).collect()
            };
            let (left, right) = (draw(rows * n), draw(n * n));
            let mut out = vec![f32::NAN; rows * n];
            Right::new(&right, n).unwrap().multiply(&left, &mut out);
            for r in 0..rows {
                for c in 0..n {
                    let sum: f32 = (0..n).map(|i| left[r * n + i] * right[i * n + c]).sum();
                    assert_eq!(out[r * n + c], sum);
                }
            }
        }
    }
}
