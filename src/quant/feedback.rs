//! Product quantization that knows how inputs move together.
//!
//! With `H = X^T X` over calibration inputs `X`, the squared error of a layer's output is
//! `trace(E H E^T)`, `E = W - W'`. Write `H = R R^T` with `R` upper triangular: the error of a row
//! is `|e R|^2`, and column block `j` of `e R` is `e_j R_jj + sum over i < j of e_i R_ij`. So, left
//! to right, each block's code is the one whose centroid leaves the smallest block of `e R`, given
//! the errors already made. This is GPTQ's error feedback for blocks (GPTVQ) without the inverse.
//!
//! Then, in turn: the codebook that is best for the codes (conjugate gradients on the normal
//! equations, which are never formed), the row factors in closed form, and a sweep that changes
//! one code at a time where that lowers the exact error.

use rayon::prelude::*;

use super::Progress;
use super::blocks::inverse_power_of_two;
use super::codebook::Codebook;
use super::linalg::{ROWS, Right, add_scaled, cholesky, upper_factor};
use super::matrix::{Importance, Matrix};
use super::pq::{Fit, Pq, PqOptions, decode_row};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Isa;
use crate::kernels::nearest::{Centroids, GROUP, bias_len};

/// Added to the diagonal of H, in its mean: what few calibration inputs cannot tell.
const DAMPING: f64 = 0.01;
/// Steps of conjugate gradients for each codebook.
const CODEBOOK_STEPS: usize = 8;
/// Sweeps after each new codebook; a sweep costs less than a codebook, so two pay.
const SWEEPS: usize = 2;

/// Quantizes `w` `[rows, cols]` so that `trace((W - W') H (W - W')^T)` is small, for a symmetric
/// `hessian` `[cols][cols]`: the sum (or mean) of `x^T x` over calibration inputs `x`. Its scale
/// does not matter. Columns that no input uses may be 0. With `counts`, `[rows]`, finite and not negative,
/// the error of a row counts so many times: that decides which centroids there are. `progress` is told how
/// many more weights are done.
///
/// Work is `rows * cols^2` for each pass, and `cols^3 / 6` for the factor.
///
/// # Errors
/// [`ErrorKind::Config`] for options out of range, bad `counts`, a Hessian of the wrong size, with values
/// that are not finite, or not positive semidefinite, and for a `CENTROID_ISA` that is not there;
/// [`ErrorKind::Checkpoint`] if a centroid does not fit f16.
pub fn quantize_with_hessian(
    w: Matrix<'_>,
    hessian: &[f32],
    counts: Option<&[f32]>,
    options: &PqOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Pq> {
    options.check(w.cols())?;
    if options.codebooks > 1 {
        return super::split::quantize_with_hessian(w, hessian, counts, options, progress);
    }
    let steps = options.steps() + 2 + options.refinements;
    let mut progress = Progress::new(w.data().len(), steps, progress);
    let geometry = Geometry::new(hessian, w.cols(), options.block)?;
    progress.step();

    let importance = Importance {
        columns: Some(&geometry.importance),
        rows: counts,
    };
    let mut fit = Fit::new(w, importance, options, &mut progress)?;
    let mut codebook = fit.codebook.decode();
    geometry.feedback(fit.rows.data(), &codebook, &mut fit.codes);
    progress.step();
    for _ in 0..options.refinements {
        let weight = geometry.fit_codebook(&fit, &mut codebook);
        fit.codebook = Codebook::round(
            &codebook,
            options.block,
            &weight,
            options.centroid_type,
            fit.width,
        )?;
        codebook = fit.codebook.decode();
        geometry.fit_rows(&mut fit, &codebook)?;
        for _ in 0..SWEEPS {
            geometry.sweep(fit.rows.data(), &codebook, &mut fit.codes);
        }
        progress.step();
    }
    geometry.fit_rows(&mut fit, &codebook)?;
    Ok(fit.finish())
}

/// The damped Hessian, over its mean diagonal, and what the passes need of it.
struct Geometry {
    isa: Isa,
    n: usize,
    b: usize,
    /// `[n][n]`
    h: Vec<f32>,
    /// Products with it.
    product: Right,
    /// `[n][n]`, upper triangular, `H = R R^T`.
    r: Vec<f32>,
    /// `[n]`: how much a column's error matters when K-means makes the first codebook.
    importance: Vec<f32>,
}

/// A codebook as block position `j` sees it: centroids times a matrix `M_j`, in which plain
/// distances are those that count.
struct Position {
    centroids: Centroids,
    bias: Vec<f32>,
}

/// A Hessian of `n` columns, checked, made symmetric, over its mean diagonal and damped.
pub(super) fn damped(hessian: &[f32], n: usize) -> Result<Vec<f64>> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    if Some(hessian.len()) != n.checked_mul(n) {
        return wrong(format!(
            "{} values are not a Hessian of {n} columns",
            hessian.len()
        ));
    }
    if hessian.iter().any(|h| !h.is_finite()) {
        return wrong("the Hessian has values that are not finite".into());
    }
    if (0..n).any(|i| hessian[i * n + i] < 0.0) {
        return wrong("the Hessian is not positive semidefinite".into());
    }
    let mean = (0..n).map(|i| f64::from(hessian[i * n + i])).sum::<f64>() / n as f64;
    let unit = if mean > 0.0 { 1.0 / mean } else { 0.0 };
    let mut h = vec![0.0; n * n];
    h.par_chunks_exact_mut(n).enumerate().for_each(|(i, row)| {
        for (j, x) in row.iter_mut().enumerate() {
            let both = f64::from(hessian[i * n + j]) + f64::from(hessian[j * n + i]);
            *x = 0.5 * unit * both;
        }
        row[i] += if mean > 0.0 { DAMPING } else { 1.0 };
    });
    Ok(h)
}

/// `R` of a damped Hessian.
pub(super) fn factor(h: &[f64], n: usize) -> Result<Vec<f64>> {
    upper_factor(h, n).ok_or_else(|| {
        let message = "the Hessian is not positive semidefinite";
        Error::new(ErrorKind::Config, message)
    })
}

impl Geometry {
    fn new(hessian: &[f32], n: usize, b: usize) -> Result<Self> {
        let h = damped(hessian, n)?;
        let r = factor(&h, n)?;
        let to_f32 = |values: &[f64]| -> Vec<f32> { values.iter().map(|&x| x as f32).collect() };
        let importance = (0..n).map(|i| importance(&h, &r, n, i)).collect();
        let h = to_f32(&h);
        Ok(Self {
            isa: Isa::detect()?,
            n,
            b,
            importance,
            product: Right::new(&h, n)?,
            h,
            r: to_f32(&r),
        })
    }

    fn per_row(&self) -> usize {
        self.n.div_ceil(self.b)
    }

    /// Columns of block `j`.
    fn columns(&self, j: usize) -> std::ops::Range<usize> {
        j * self.b..self.n.min((j + 1) * self.b)
    }

    /// Prepares `codebook` `[k][b]` for searching under `M_j`, `[b][b]` with entries `m(j, i, o)`.
    fn positions(
        &self,
        codebook: &[f32],
        unit: f32,
        m: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Vec<Position> {
        let k = codebook.len() / self.b;
        (0..self.per_row())
            .into_par_iter()
            .map(|j| {
                let len = self.columns(j).len();
                let mut moved = vec![0.0; codebook.len()];
                let mut bias = vec![f32::INFINITY; bias_len(k)];
                let rows = codebook.chunks_exact(self.b);
                for (k, (c, moved)) in rows.zip(moved.chunks_exact_mut(self.b)).enumerate() {
                    for (o, moved) in moved[..len].iter_mut().enumerate() {
                        *moved = unit * (0..len).map(|i| c[i] * m(j, i, o)).sum::<f32>();
                    }
                    bias[k] = moved.iter().map(|x| x * x).sum();
                }
                Position {
                    centroids: Centroids::new(self.isa, &moved, self.b),
                    bias,
                }
            })
            .collect()
    }

    /// Chooses all codes left to right, with error feedback.
    fn feedback(&self, w: &[f32], codebook: &[f32], codes: &mut [u8]) {
        let (n, b) = (self.n, self.b);
        let unit = unit_of(codebook);
        let r = |j: usize, i: usize, o: usize| self.r[(j * b + i) * n + j * b + o];
        let positions = self.positions(codebook, unit, r);
        self.for_rows(w, codes, |w, codes| {
            let rows = w.len() / n;
            // What the errors so far contribute to `e R`.
            let mut carried = vec![0.0f32; w.len()];
            for (j, position) in positions.iter().enumerate() {
                let columns = self.columns(j);
                for group in (0..rows).step_by(GROUP) {
                    let found = position.search(
                        b,
                        unit,
                        |v, o| {
                            let v = (group + v).min(rows - 1);
                            let x = &w[v * n..][columns.clone()];
                            let moved: f32 = (0..x.len()).map(|i| x[i] * r(j, i, o)).sum();
                            moved + carried[v * n + columns.start + o]
                        },
                        columns.len(),
                    );
                    for v in group..rows.min(group + GROUP) {
                        let code = found[v - group];
                        codes[v * self.per_row() + j] = code;
                        let c = &codebook[usize::from(code) * b..][..b];
                        let later = &mut carried[v * n..(v + 1) * n][columns.end..];
                        for (i, column) in columns.clone().enumerate() {
                            let r = &self.r[column * n..(column + 1) * n][columns.end..];
                            add_scaled(later, w[v * n + column] - c[i], r);
                        }
                    }
                }
            }
        });
    }

    /// Goes over all codes once and changes each where that lowers the error of its row.
    ///
    /// With `g = e H`, replacing centroid q by c changes the error by `2 d.g_j + d H_jj d`,
    /// `d = q - c`: least for the c nearest to `q + g_j / H_jj` in the metric of `H_jj = M M^T`.
    fn sweep(&self, w: &[f32], codebook: &[f32], codes: &mut [u8]) {
        let (n, b) = (self.n, self.b);
        let unit = unit_of(codebook);
        let metrics: Vec<Metric> = (0..self.per_row())
            .into_par_iter()
            .map(|j| Metric::new(self, j))
            .collect();
        let positions = self.positions(codebook, unit, |j, i, o| {
            metrics[j].m[i * metrics[j].len + o]
        });
        self.for_rows(w, codes, |w, codes| {
            let rows = w.len() / n;
            let mut gradient = vec![0.0f32; w.len()];
            self.product
                .multiply(&self.errors(w, codebook, codes), &mut gradient);
            let mut step = vec![0.0f32; b];
            for (j, (position, metric)) in positions.iter().zip(&metrics).enumerate() {
                let columns = self.columns(j);
                let len = columns.len();
                for group in (0..rows).step_by(GROUP) {
                    let found = position.search(
                        b,
                        unit,
                        |v, o| {
                            let v = (group + v).min(rows - 1);
                            let q = usize::from(codes[v * self.per_row() + j]) * b;
                            let g = &gradient[v * n + columns.start..];
                            (0..len)
                                .map(|i| {
                                    codebook[q + i] * metric.m[i * len + o]
                                        + g[i] * metric.inverse[o * len + i]
                                })
                                .sum()
                        },
                        len,
                    );
                    for v in group..rows.min(group + GROUP) {
                        let code = &mut codes[v * self.per_row() + j];
                        let new = found[v - group];
                        let gradient = &mut gradient[v * n..(v + 1) * n];
                        for i in 0..len {
                            step[i] = codebook[usize::from(*code) * b + i]
                                - codebook[usize::from(new) * b + i];
                        }
                        if self.change(columns.start, &step[..len], gradient) < 0.0 {
                            *code = new;
                            for (i, column) in columns.clone().enumerate() {
                                add_scaled(gradient, step[i], &self.h[column * n..][..n]);
                            }
                        }
                    }
                }
            }
        });
    }

    /// `2 d.g + d H d` for a step `d` in the columns from `start`.
    fn change(&self, start: usize, step: &[f32], gradient: &[f32]) -> f32 {
        let mut sum = 0.0;
        for (i, d) in step.iter().enumerate() {
            let h = &self.h[(start + i) * self.n + start..];
            let curved: f32 = step.iter().zip(h).map(|(d, h)| d * h).sum();
            sum += d * (2.0 * gradient[start + i] + curved);
        }
        sum
    }

    /// Runs `work` on chunks of rows of `w` and their codes.
    fn for_rows(&self, w: &[f32], codes: &mut [u8], work: impl Fn(&[f32], &mut [u8]) + Sync) {
        codes
            .par_chunks_mut(ROWS * self.per_row())
            .zip(w.par_chunks(ROWS * self.n))
            .for_each(|(codes, w)| work(w, codes));
    }

    /// `w` less what the codes decode to.
    fn errors(&self, w: &[f32], codebook: &[f32], codes: &[u8]) -> Vec<f32> {
        let mut errors = vec![0.0; w.len()];
        let rows = errors
            .chunks_exact_mut(self.n)
            .zip(codes.chunks_exact(self.per_row()));
        for (row, codes) in rows {
            decode_row(codebook, self.b, codes, row);
        }
        errors.iter_mut().zip(w).for_each(|(e, w)| *e = w - *e);
        errors
    }

    /// Moves `codebook` towards the least error under the codes of `fit`. Returns `[k][b]`, how
    /// much each value's own error counts.
    fn fit_codebook(&self, fit: &Fit<'_>, codebook: &mut [f32]) -> Vec<f64> {
        let mass = |row: usize| fit.rows.mass().of(row);
        let weight = self.gather(&fit.codes, codebook.len(), |row, out| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = mass(row) * self.h[i * self.n + i];
            }
        });
        // Sums over all blocks of a codebook-shaped question: `(rows decoded from p) H`.
        let apply = |p: &[f32], w: Option<&[f32]>| -> Vec<f64> {
            let zero;
            let w = match w {
                Some(w) => w,
                None => {
                    zero = vec![0.0; fit.rows.data().len()];
                    &zero
                }
            };
            let mut product = vec![0.0; w.len()];
            product
                .par_chunks_mut(ROWS * self.n)
                .zip(w.par_chunks(ROWS * self.n))
                .zip(fit.codes.par_chunks(ROWS * self.per_row()))
                .for_each(|((out, w), codes)| {
                    self.product.multiply(&self.errors(w, p, codes), out);
                });
            self.gather(&fit.codes, codebook.len(), |row, out| {
                let product = &product[row * self.n..][..self.n];
                for (out, x) in out.iter_mut().zip(product) {
                    *out = mass(row) * x;
                }
            })
        };

        // Conjugate gradients, preconditioned by the diagonal.
        let precondition = |residual: &[f64]| -> Vec<f64> {
            let pairs = residual.iter().zip(&weight);
            pairs
                .map(|(r, w)| if *w > 0.0 { r / w } else { 0.0 })
                .collect()
        };
        let inner = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let mut x: Vec<f64> = codebook.iter().map(|&c| f64::from(c)).collect();
        let mut residual = apply(codebook, Some(fit.rows.data()));
        let mut z = precondition(&residual);
        let mut direction = z.clone();
        let mut size = inner(&residual, &z);
        for _ in 0..CODEBOOK_STEPS {
            let p: Vec<f32> = direction.iter().map(|&d| d as f32).collect();
            // `apply` subtracts what it decodes.
            let curved: Vec<f64> = apply(&p, None).iter().map(|c| -c).collect();
            let curvature = inner(&direction, &curved);
            if !(curvature > 0.0 && size > 0.0) {
                break;
            }
            let rate = size / curvature;
            for i in 0..x.len() {
                x[i] += rate * direction[i];
                residual[i] -= rate * curved[i];
            }
            z = precondition(&residual);
            let next = inner(&residual, &z);
            for (d, z) in direction.iter_mut().zip(&z) {
                *d = z + next / size * *d;
            }
            size = next;
        }
        codebook
            .iter_mut()
            .zip(&x)
            .for_each(|(c, x)| *c = *x as f32);
        weight
    }

    /// Adds up `[cols]` values of each row into the `[k][b]` places of the row's codes.
    fn gather(&self, codes: &[u8], len: usize, values: impl Fn(usize, &mut [f32])) -> Vec<f64> {
        let mut sums = vec![0.0; len];
        let mut row = vec![0.0; self.n];
        for (r, codes) in codes.chunks_exact(self.per_row()).enumerate() {
            values(r, &mut row);
            for (values, &code) in row.chunks(self.b).zip(codes) {
                let sums = &mut sums[usize::from(code) * self.b..];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += f64::from(*value);
                }
            }
        }
        sums
    }

    /// Gives each row the factor with the least error under its codes.
    fn fit_rows(&self, fit: &mut Fit<'_>, codebook: &[f32]) -> Result<()> {
        if fit.rows.scaled.is_none() {
            return Ok(());
        }
        let n = self.n;
        let w = fit.w;
        let mut ratios = vec![(0.0, 0.0); w.rows()];
        ratios
            .par_chunks_mut(ROWS)
            .zip(fit.codes.par_chunks(ROWS * self.per_row()))
            .enumerate()
            .for_each(|(chunk, (ratios, codes))| {
                let mut q = vec![0.0; ratios.len() * n];
                let rows = q
                    .chunks_exact_mut(n)
                    .zip(codes.chunks_exact(self.per_row()));
                rows.for_each(|(row, codes)| decode_row(codebook, self.b, codes, row));
                let mut product = vec![0.0; q.len()];
                self.product.multiply(&q, &mut product);
                for (r, ratio) in ratios.iter_mut().enumerate() {
                    let with = |x: &[f32]| -> f64 {
                        let pairs = x.iter().zip(&product[r * n..]);
                        pairs.map(|(&x, &p)| f64::from(x) * f64::from(p)).sum()
                    };
                    *ratio = (with(w.row(chunk * ROWS + r)), with(&q[r * n..][..n]));
                }
            });
        fit.rows.set_factors(w, |r| ratios[r])
    }
}

impl Position {
    /// Searches for four targets given by `target(v, o)`, already in this position's metric.
    fn search(
        &self,
        b: usize,
        unit: f32,
        target: impl Fn(usize, usize) -> f32,
        len: usize,
    ) -> [u8; GROUP] {
        let mut y = [[0.0; GROUP]; super::pq::MAX_BLOCK];
        for (o, y) in y[..len].iter_mut().enumerate() {
            *y = std::array::from_fn(|v| -2.0 * unit * target(v, o));
        }
        self.centroids.nearest(&self.bias, &y[..b])
    }
}

/// A square root of one diagonal block of H, `[len][len]`: `H_jj = M M^T`, `M` lower triangular.
struct Metric {
    len: usize,
    m: Vec<f32>,
    inverse: Vec<f32>,
}

impl Metric {
    fn new(geometry: &Geometry, j: usize) -> Self {
        let columns = geometry.columns(j);
        let len = columns.len();
        let mut m = Vec::with_capacity(len * len);
        for i in columns.clone() {
            let row = &geometry.h[i * geometry.n..][columns.clone()];
            m.extend(row.iter().map(|&x| f64::from(x)));
        }
        cholesky(&mut m, len).expect("a diagonal block of a positive definite matrix is one");
        // Forward substitution, column by column.
        let mut inverse = vec![0.0; len * len];
        for c in 0..len {
            for i in c..len {
                let known: f64 = (c..i).map(|t| m[i * len + t] * inverse[t * len + c]).sum();
                let one = f64::from(u8::from(i == c));
                inverse[i * len + c] = (one - known) / m[i * len + i];
            }
        }
        let to_f32 = |values: &[f64]| values.iter().map(|&x| x as f32).collect();
        Self {
            len,
            m: to_f32(&m),
            inverse: to_f32(&inverse),
        }
    }
}

/// How much an error in column `i` matters to K-means. `H_ii` is what it does if nothing makes up
/// for it, `R_ii^2` what is left of it if the columns before it do as well as they can. Their
/// geometric mean is measured to be as good as either for pairs, and better for longer blocks.
fn importance(h: &[f64], r: &[f64], n: usize, i: usize) -> f32 {
    (h[i * n + i].sqrt() * r[i * n + i]) as f32
}

fn unit_of(codebook: &[f32]) -> f32 {
    inverse_power_of_two(codebook.iter().fold(0.0, |m, c| f32::max(m, c.abs())))
}

#[cfg(test)]
#[path = "tests/feedback.rs"]
mod tests;
