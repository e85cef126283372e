//! Scalar quantization: every weight rounded to a grid of 8 or 4 bits.
//!
//! `W[r, c] = scale * factor[r] * (values[r, c] - zero_point)`: one f32 scale a tensor, and where
//! each row has a step of its own, f16 factors of it, at most 1. Factors are rounded up, so that
//! the grid of a row always reaches its largest weight: no weight is off by more than half a step,
//! unless a search for the best clipping decided to cut off large ones.
//!
//! | | symmetric | with zero point |
//! |---|---|---|
//! | int8 | -127..=127 | -127..=127, zero point in the same range |
//! | int4 | -7..=7 | 0..=15, zero point in the same range |

use half::f16;

use super::half::to_f16_up;
use super::matrix::{Matrix, check_importance, relative_error};
use crate::error::Result;

/// Largest error of an int8 weight that was not clipped, in the step of a row's largest magnitude
/// (`max |w| / 127`; with a zero point `(max - min) / 254`, both taken with 0): half a step, made
/// larger by the rounding of the row's factor to f16.
pub const INT8_ERROR: f32 = 0.5 * (1.0 + FACTOR_ROUNDING);

/// The same for int4, steps of `max |w| / 7`, or `(max - min) / 15`.
pub const INT4_ERROR: f32 = 0.5 * (1.0 + FACTOR_ROUNDING);

/// Largest relative rounding of a row's factor (a normal f16), with room for f32 arithmetic.
/// Factors below 2^-14 of the largest are coarser, and their errors that much smaller.
const FACTOR_ROUNDING: f32 = 1.01 / 1024.0;

/// Shares of the full range that the clipping search tries.
const CLIPS: [f32; 11] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5];

/// Bits of a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bits {
    /// int8
    Eight,
    /// int4
    Four,
}

/// How to quantize one matrix.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScalarOptions {
    /// Bits of a stored value.
    pub bits: Bits,
    /// Give each row a step of its own, not only the tensor.
    pub per_row: bool,
    /// Shift the grid, so that it covers the range from the least to the largest weight.
    pub zero_point: bool,
    /// Try smaller ranges, and take the one with the least squared error.
    pub clip: bool,
}

impl ScalarOptions {
    /// The defaults: symmetric, a step for each row, clipping for int4 only.
    pub fn new(bits: Bits) -> Self {
        Self {
            bits,
            per_row: true,
            zero_point: false,
            clip: bits == Bits::Four,
        }
    }

    /// Least and largest stored value.
    pub(crate) fn range(&self) -> (i8, i8) {
        match (self.bits, self.zero_point) {
            (Bits::Eight, _) => (-127, 127),
            (Bits::Four, false) => (-7, 7),
            (Bits::Four, true) => (0, 15),
        }
    }
}

/// Zero points: the stored value that means 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZeroPoint {
    /// One for all weights.
    Tensor(i8),
    /// One a row, `[rows]`.
    Row(Vec<i8>),
}

/// A quantized matrix `[rows, cols]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Scalar {
    /// out_features, or the vocabulary.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
    /// Bits of a stored value.
    pub bits: Bits,
    /// `[rows][cols]`, one value each also for int4.
    pub values: Vec<i8>,
    /// Step of the grid, finite and above 0.
    pub scale: f32,
    /// `[rows]`: factors of the step, in 0..=1; 0 only for a row of zeros.
    pub row_scale: Option<Vec<f16>>,
    /// Zero points, or none for symmetric grids.
    pub zero_point: Option<ZeroPoint>,
}

/// A grid of one row or tensor: `w = step * (q - zero)`.
#[derive(Debug, Clone, Copy)]
struct Grid {
    step: f32,
    zero: i8,
}

/// Rounds `w` to a grid. `importance` (`[cols]`, not negative) weights the errors that the clipping
/// search compares.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for a bad `importance`.
pub fn quantize(
    w: Matrix<'_>,
    importance: Option<&[f32]>,
    options: &ScalarOptions,
) -> Result<Scalar> {
    if let Some(importance) = importance {
        check_importance(importance, w.cols(), "column")?;
    }
    let (rows, cols) = (w.rows(), w.cols());
    // The unit in which grids are chosen: rows, or everything.
    let unit = if options.per_row { cols } else { rows * cols };
    let steps: Vec<f32> = w
        .data()
        .chunks_exact(unit)
        .map(|weights| best_step(weights, cols, importance, options))
        .collect();
    let largest = steps.iter().copied().fold(0.0, f32::max);
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let row_scale: Option<Vec<f16>> = options
        .per_row
        .then(|| steps.iter().map(|step| to_f16_up(step / scale)).collect());

    let mut values = Vec::with_capacity(rows * cols);
    let mut zeros = Vec::with_capacity(steps.len());
    for (at, weights) in w.data().chunks_exact(unit).enumerate() {
        let factor = row_scale
            .as_ref()
            .map_or(1.0, |factors| factors[at].to_f32());
        let grid = Grid::with_step(scale * factor, weights, options);
        values.extend(weights.iter().map(|&x| grid.round(x, options)));
        zeros.push(grid.zero);
    }
    let zero_point = options.zero_point.then(|| match options.per_row {
        true => ZeroPoint::Row(zeros),
        false => ZeroPoint::Tensor(zeros[0]),
    });
    Ok(Scalar {
        rows,
        cols,
        bits: options.bits,
        values,
        scale,
        row_scale,
        zero_point,
    })
}

/// The range of `weights` that a grid has to cover: it always includes 0.
fn extent(weights: &[f32], options: &ScalarOptions) -> (f32, f32) {
    let (low, high) = weights.iter().fold((0.0f32, 0.0f32), |(low, high), &x| {
        (low.min(x), high.max(x))
    });
    match options.zero_point {
        true => (low, high),
        false => (-high.max(-low), high.max(-low)),
    }
}

/// The step that covers `weights`, or a share of it if that lowers the squared error.
fn best_step(
    weights: &[f32],
    cols: usize,
    importance: Option<&[f32]>,
    options: &ScalarOptions,
) -> f32 {
    let (low, high) = extent(weights, options);
    let (least, most) = options.range();
    let levels = f32::from(most) - f32::from(least);
    // Divided before subtracting: the difference may be above f32::MAX.
    let full = high / levels - low / levels;
    if full == 0.0 || !options.clip {
        return full;
    }
    let mut best = (f64::INFINITY, full);
    for clip in CLIPS {
        let grid = Grid::with_step(full * clip, weights, options);
        let mut error = 0.0;
        for row in weights.chunks_exact(cols) {
            for (c, &x) in row.iter().enumerate() {
                let h = importance.map_or(1.0, |h| f64::from(h[c]));
                let rounded = grid.value(grid.round(x, options));
                error += h * (f64::from(x) - f64::from(rounded)).powi(2);
            }
        }
        if error < best.0 {
            best = (error, full * clip);
        }
    }
    best.1
}

impl Grid {
    /// The grid of `step`. Its zero point splits what the step does not cover of `weights` evenly.
    fn with_step(step: f32, weights: &[f32], options: &ScalarOptions) -> Self {
        let (least, most) = options.range();
        let mut zero = 0;
        if options.zero_point && step > 0.0 {
            let (low, high) = extent(weights, options);
            let middle = (f32::from(least) + f32::from(most)) / 2.0;
            let shift = middle - (low / step + high / step) / 2.0;
            zero = shift.round().clamp(f32::from(least), f32::from(most)) as i8;
        }
        Self { step, zero }
    }

    fn round(self, x: f32, options: &ScalarOptions) -> i8 {
        if self.step == 0.0 {
            return self.zero;
        }
        let (least, most) = options.range();
        (x / self.step + f32::from(self.zero))
            .round()
            .clamp(f32::from(least), f32::from(most)) as i8
    }

    fn value(self, q: i8) -> f32 {
        self.step * (f32::from(q) - f32::from(self.zero))
    }
}

impl Scalar {
    /// Writes row `row` of the decoded matrix to `out`, which holds `cols` values.
    ///
    /// # Panics
    /// If `row` or the length of `out` does not fit the matrix.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols);
        let factor = self.row_scale.as_ref().map_or(1.0, |f| f[row].to_f32());
        let grid = Grid {
            step: self.scale * factor,
            zero: match &self.zero_point {
                None => 0,
                Some(ZeroPoint::Tensor(zero)) => *zero,
                Some(ZeroPoint::Row(zeros)) => zeros[row],
            },
        };
        let values = &self.values[row * self.cols..][..self.cols];
        for (out, &q) in out.iter_mut().zip(values) {
            *out = grid.value(q);
        }
    }

    /// Decodes the matrix, `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        for (row, out) in values.chunks_exact_mut(self.cols).enumerate() {
            self.dequantize_row(row, out);
        }
        values
    }

    /// `||W - W'|| / ||W||` in the Frobenius norm, `W'` being the decoded matrix.
    ///
    /// # Panics
    /// If `w` has another shape.
    pub fn relative_error(&self, w: Matrix<'_>) -> f64 {
        assert_eq!((w.rows(), w.cols()), (self.rows, self.cols));
        relative_error(w, |row, out| self.dequantize_row(row, out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::rng::Rng;
    use proptest::prelude::*;

    fn all_options() -> impl Iterator<Item = ScalarOptions> {
        (0..16).map(|bits| ScalarOptions {
            bits: if bits & 1 == 0 {
                Bits::Eight
            } else {
                Bits::Four
            },
            per_row: bits & 2 != 0,
            zero_point: bits & 4 != 0,
            clip: bits & 8 != 0,
        })
    }

    fn normal(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        (0..n).map(|_| rng.normal()).collect()
    }

    /// What every result must satisfy, whatever the weights.
    fn check(w: Matrix<'_>, options: &ScalarOptions) {
        let q = quantize(w, None, options).unwrap();
        let (least, most) = options.range();
        assert!(q.values.iter().all(|v| (least..=most).contains(v)));
        assert!(q.scale.is_finite() && q.scale > 0.0);
        assert_eq!(q.row_scale.is_some(), options.per_row);
        for factor in q.row_scale.iter().flatten() {
            assert!((0.0..=1.0).contains(&factor.to_f32()));
        }
        match &q.zero_point {
            None => assert!(!options.zero_point),
            Some(ZeroPoint::Tensor(zero)) => {
                assert!(!options.per_row && (least..=most).contains(zero));
            }
            Some(ZeroPoint::Row(zeros)) => {
                assert!(options.per_row && zeros.len() == w.rows());
                assert!(zeros.iter().all(|zero| (least..=most).contains(zero)));
            }
        }
        if options.clip {
            return;
        }
        let budget = match options.bits {
            Bits::Eight => INT8_ERROR,
            Bits::Four => INT4_ERROR,
        };
        let mut out = vec![0.0; w.cols()];
        for r in 0..w.rows() {
            q.dequantize_row(r, &mut out);
            let unit = if options.per_row { w.row(r) } else { w.data() };
            let (low, high) = extent(unit, options);
            let step = (high - low) / (f32::from(most) - f32::from(least));
            // A row far below the largest has a coarse factor: half a step of the least f16.
            let coarse = if options.per_row {
                q.scale * 3.1e-8
            } else {
                0.0
            };
            for (x, y) in w.row(r).iter().zip(&out) {
                let bound = budget * step + coarse + f32::MIN_POSITIVE;
                assert!(
                    (x - y).abs() <= bound,
                    "{x} became {y}, step {step}, {options:?}"
                );
            }
        }
    }

    #[test]
    fn errors_stay_in_their_budgets() {
        for options in all_options() {
            for (rows, cols, seed) in [(1, 1, 1), (3, 17, 2), (40, 65, 3)] {
                let mut data = normal(rows * cols, seed);
                check(Matrix::new(&data, rows, cols).unwrap(), &options);
                // Rows of very different magnitude, one of zeros, one of one sign.
                for (r, row) in data.chunks_exact_mut(cols).enumerate() {
                    row.iter_mut()
                        .for_each(|x| *x *= 10f32.powi(r as i32 % 9 - 7));
                    match r {
                        1 => row.fill(0.0),
                        2 => row.iter_mut().for_each(|x| *x = x.abs() + 1.0),
                        _ => (),
                    }
                }
                check(Matrix::new(&data, rows, cols).unwrap(), &options);
            }
        }
    }

    #[test]
    fn zeros_decode_to_zeros_and_the_scale_is_one() {
        for options in all_options() {
            let zeros = [0.0; 12];
            let w = Matrix::new(&zeros, 3, 4).unwrap();
            let q = quantize(w, None, &options).unwrap();
            assert_eq!(q.scale, 1.0);
            assert_eq!(q.relative_error(w), 0.0);
        }
    }

    #[test]
    fn zero_is_exact_on_every_grid() {
        for options in all_options() {
            let data = [0.0, 0.3, 1.0, 0.9, -0.1, 0.0];
            let q = quantize(Matrix::new(&data, 2, 3).unwrap(), None, &options).unwrap();
            let mut out = [9.0; 3];
            q.dequantize_row(0, &mut out);
            assert_eq!(out[0], 0.0);
            q.dequantize_row(1, &mut out);
            assert_eq!(out[2], 0.0);
        }
    }

    #[test]
    fn each_refinement_pays_on_bell_shaped_weights() {
        let (rows, cols) = (64, 256);
        let mut data = normal(rows * cols, 5);
        for (r, row) in data.chunks_exact_mut(cols).enumerate() {
            row.iter_mut().for_each(|x| *x *= 1.0 + r as f32 / 16.0);
        }
        let w = Matrix::new(&data, rows, cols).unwrap();
        let error = |per_row, clip| {
            let mut options = ScalarOptions::new(Bits::Four);
            (options.per_row, options.clip) = (per_row, clip);
            quantize(w, None, &options).unwrap().relative_error(w)
        };
        let plain = error(false, false);
        assert!(error(true, false) < 0.8 * plain);
        assert!(error(true, true) < 0.95 * error(true, false));
        let int8 = quantize(w, None, &ScalarOptions::new(Bits::Eight)).unwrap();
        assert!(int8.relative_error(w) < 0.01);
    }

    #[test]
    fn a_zero_point_pays_on_one_sided_weights() {
        let data: Vec<f32> = normal(1024, 6).iter().map(|x| x.abs()).collect();
        let w = Matrix::new(&data, 8, 128).unwrap();
        let error = |zero_point| {
            let mut options = ScalarOptions::new(Bits::Eight);
            options.zero_point = zero_point;
            quantize(w, None, &options).unwrap().relative_error(w)
        };
        assert!(error(true) < 0.6 * error(false));
    }

    #[test]
    fn importance_steers_the_clipping() {
        // Column 0 is large; whether the grid reaches it depends on whether it matters.
        let mut data = normal(4 * 64, 7);
        data.iter_mut().step_by(64).for_each(|x| *x = 7.0);
        let w = Matrix::new(&data, 4, 64).unwrap();
        let reached = |h: f32| {
            let mut importance = vec![1.0; 64];
            importance[0] = h;
            let options = ScalarOptions::new(Bits::Four);
            let q = quantize(w, Some(&importance), &options).unwrap();
            let mut out = [0.0; 64];
            q.dequantize_row(0, &mut out);
            out[0]
        };
        assert!(reached(0.0) < 5.0);
        assert!(reached(100.0) > 6.9);
        assert!(quantize(w, Some(&[1.0]), &ScalarOptions::new(Bits::Four)).is_err());
    }

    proptest! {
        #[test]
        fn any_finite_weights_keep_the_invariants(
            data in proptest::collection::vec(-1e30f32..1e30, 24),
            exponent in -60i32..1,
            which in 0usize..16,
        ) {
            let data: Vec<f32> = data.iter().map(|x| x * 2f32.powi(exponent)).collect();
            check(
                Matrix::new(&data, 4, 6).unwrap(),
                &all_options().nth(which).unwrap(),
            );
        }
    }
}
