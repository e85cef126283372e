//! Moments of layers' inputs, and what follows from them.

use rayon::prelude::*;

use super::{ORIGINAL, QUANTIZED, Stored, product};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{Isa, Threads};
use crate::quant::linalg::cholesky;

/// Share of the mean of the diagonal that is added to it, as in `quantize_with_hessian`.
const DAMPING: f64 = 0.01;

/// Moments of a linear layer's inputs: `x` in the original model, `x'` in the quantized one.
pub(in crate::convert) struct Inputs {
    columns: usize,
    pub(super) mean: [Vec<f32>; 2],
    /// Covariance of `x'` with itself, `[columns][columns]`.
    pub(in crate::convert) hessian: Vec<f32>,
    /// Covariance of `x` with `x'`.
    cross: Vec<f32>,
}

/// What [`Inputs`] are made of.
pub(super) struct Sums {
    machine: (Isa, Threads),
    columns: usize,
    /// How much all rows count.
    count: f64,
    sums: [Vec<f64>; 2],
    hessian: Vec<f64>,
    cross: Vec<f64>,
}

impl Sums {
    pub(super) fn new(machine: (Isa, Threads), columns: usize) -> Self {
        let zeros = |n: usize| vec![0f64; n];
        Self {
            machine,
            columns,
            count: 0.0,
            sums: [zeros(columns), zeros(columns)],
            hessian: zeros(columns * columns),
            cross: zeros(columns * columns),
        }
    }

    /// Adds rows `[rows][columns]` of both models, each of which counts once or as often as it says.
    pub(super) fn add(&mut self, mut both: [Vec<f32>; 2], counts: Option<&[f32]>) {
        let columns = self.columns;
        for (sum, x) in self.sums.iter_mut().zip(&mut both) {
            for (r, row) in x.chunks_exact_mut(columns).enumerate() {
                let count = counts.map_or(1.0, |counts| counts[r]);
                let add = |(s, v): (&mut f64, &f32)| *s += f64::from(count * v);
                sum.iter_mut().zip(&*row).for_each(add);
                if counts.is_some() {
                    let root = count.sqrt();
                    row.iter_mut().for_each(|v| *v *= root);
                }
            }
        }
        let rows = both[0].len() / columns;
        if rows == 0 {
            return;
        }
        self.count += counts.map_or(rows as f64, |c| c.iter().copied().map(f64::from).sum());
        let [x, y] = &both;
        add_products(self.machine, y, y, columns, &mut self.hessian);
        add_products(self.machine, x, y, columns, &mut self.cross);
    }

    pub(super) fn finish(self) -> Inputs {
        let (n, columns) = (self.count, self.columns);
        let mean = self
            .sums
            .map(|sum| sum.iter().map(|s| (s / n) as f32).collect::<Vec<_>>());
        let center = |products: Vec<f64>, left: &[f32]| -> Vec<f32> {
            let mut covariance = Vec::with_capacity(products.len());
            for (row, &l) in products.chunks_exact(columns).zip(left) {
                let about = |(p, r): (&f64, &f32)| (p / n - f64::from(l) * f64::from(*r)) as f32;
                covariance.extend(row.iter().zip(&mean[QUANTIZED]).map(about));
            }
            covariance
        };
        let mut hessian = center(self.hessian, &mean[QUANTIZED]);
        // Rounding must not make a constant column's variance negative.
        for i in 0..columns {
            let diagonal = &mut hessian[i * columns + i];
            *diagonal = diagonal.max(0.0);
        }
        Inputs {
            columns,
            hessian,
            cross: center(self.cross, &mean[ORIGINAL]),
            mean,
        }
    }
}

/// `sum += x^T y` for `x` and `y` `[rows][columns]`, by the runtime's own product: `x^T` is the
/// input and `y^T` the weight, whose tiles are `y` in strips of 64 columns.
fn add_products(machine: (Isa, Threads), x: &[f32], y: &[f32], columns: usize, sum: &mut [f64]) {
    let rows = x.len() / columns;
    let mut transposed = vec![0.0; x.len()];
    for (r, row) in x.chunks_exact(columns).enumerate() {
        for (c, &v) in row.iter().enumerate() {
            transposed[c * rows + r] = v;
        }
    }
    let mut tiles = Vec::with_capacity(y.len());
    for first in (0..columns).step_by(crate::layout::TILE) {
        let last = columns.min(first + crate::layout::TILE);
        for row in y.chunks_exact(columns) {
            tiles.extend_from_slice(&row[first..last]);
        }
    }
    let weight = Stored {
        values: tiles,
        tiled: true,
    };
    let mut products = vec![0.0; columns * columns];
    let zeros = vec![0.0; columns];
    product(machine, &weight, Some(&zeros), &transposed, &mut products);
    sum.iter_mut()
        .zip(products)
        .for_each(|(s, p)| *s += f64::from(p));
}

impl Inputs {
    /// Of inputs whose means are dealt with elsewhere.
    #[cfg(feature = "train")]
    pub(in crate::convert) fn new(columns: usize, hessian: Vec<f32>, cross: Vec<f32>) -> Self {
        Self {
            columns,
            mean: Default::default(),
            hessian,
            cross,
        }
    }

    /// Variance of each input: how much an error of its weights matters.
    pub(in crate::convert) fn importance(&self) -> Vec<f32> {
        let n = self.columns;
        (0..n).map(|i| self.hessian[i * n + i]).collect()
    }

    /// The weights that best reproduce the original output from the inputs of the quantized
    /// model: `W (C + cI) (H + cI)^-1` for `weights` `[rows][columns]`.
    pub(in crate::convert) fn target(&self, weights: &[f32], rows: usize) -> Result<Vec<f32>> {
        let n = self.columns;
        let mean = self.importance().iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        if mean == 0.0 {
            return Ok(weights.to_vec());
        }
        let damping = DAMPING * mean;
        let damped = |values: &[f32]| -> Vec<f64> {
            let mut values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            (0..n).for_each(|i| values[i * n + i] += damping);
            values
        };
        let mut factor = damped(&self.hessian);
        cholesky(&mut factor, n).ok_or_else(|| {
            Error::new(
                ErrorKind::Checkpoint,
                "the calibration data give inputs that cannot be told apart",
            )
        })?;
        let cross = damped(&self.cross);
        let mut target = vec![0f32; rows * n];
        (target.par_chunks_exact_mut(n))
            .zip(weights.par_chunks_exact(n))
            .for_each(|(target, weights)| {
                let mut x = vec![0f64; n];
                for (&w, row) in weights.iter().zip(cross.chunks_exact(n)) {
                    x.iter_mut()
                        .zip(row)
                        .for_each(|(x, c)| *x += f64::from(w) * c);
                }
                solve(&factor, &mut x);
                target.iter_mut().zip(x).for_each(|(t, x)| *t = x as f32);
            });
        Ok(target)
    }
}

/// Solves `L L^T y = x` in place for a lower triangular `factor`.
fn solve(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in 0..n {
        let row = &factor[i * n..][..i];
        let sum: f64 = row.iter().zip(&x[..i]).map(|(l, x)| l * x).sum();
        x[i] = (x[i] - sum) / factor[i * n + i];
    }
    for i in (0..n).rev() {
        x[i] /= factor[i * n + i];
        let value = x[i];
        let row = &factor[i * n..][..i];
        x[..i]
            .iter_mut()
            .zip(row)
            .for_each(|(x, l)| *x -= l * value);
    }
}
