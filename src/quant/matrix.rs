//! The borrowed weight matrix that every quantizer reads.

use crate::error::{Error, ErrorKind, Result};

/// A row-major f32 matrix: `rows` is out_features (or the vocabulary), `cols` the input width.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// Views `data`, which holds `rows * cols` values.
    ///
    /// # Errors
    /// [`ErrorKind::Checkpoint`] if the length is another one, if a dimension is 0, or if a value
    /// is NaN or infinite.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Result<Self> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Checkpoint, message));
        if rows == 0 || cols == 0 {
            return wrong(format!("a {rows} x {cols} matrix has no weights"));
        }
        if rows.checked_mul(cols) != Some(data.len()) {
            return wrong(format!(
                "{} values do not fill a {rows} x {cols} matrix",
                data.len()
            ));
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            return wrong(format!(
                "weight [{}, {}] is {}",
                at / cols,
                at % cols,
                data[at]
            ));
        }
        Ok(Self { data, rows, cols })
    }

    /// A view of values that come from a checked matrix.
    pub(super) fn trusted(data: &'a [f32], rows: usize, cols: usize) -> Self {
        debug_assert_eq!(data.len(), rows * cols);
        Self { data, rows, cols }
    }

    /// Number of rows (out_features, or the vocabulary).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (the input width).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row after row.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Row `row`, `cols` values.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.cols..][..self.cols]
    }
}

/// Checks a vector of per-column weights: one finite, non-negative value a column.
pub(super) fn check_importance(importance: &[f32], cols: usize) -> Result<()> {
    if importance.len() != cols {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{} importances for {cols} columns", importance.len()),
        ));
    }
    match importance.iter().position(|h| !h.is_finite() || *h < 0.0) {
        Some(at) => Err(Error::new(
            ErrorKind::Config,
            format!("the importance of column {at} is {}", importance[at]),
        )),
        None => Ok(()),
    }
}

/// `||W - W'|| / ||W||` in the Frobenius norm, `decode` writing row `r` of `W'`. 0 if both are 0.
pub(super) fn relative_error(w: Matrix<'_>, decode: impl Fn(usize, &mut [f32])) -> f64 {
    let mut out = vec![0.0; w.cols];
    let (mut error, mut norm) = (0.0f64, 0.0f64);
    for r in 0..w.rows {
        decode(r, &mut out);
        for (&a, &b) in w.row(r).iter().zip(&out) {
            error += (f64::from(a) - f64::from(b)).powi(2);
            norm += f64::from(a).powi(2);
        }
    }
    if error == 0.0 {
        0.0
    } else {
        (error / norm).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_wrong_shapes_and_non_finite_values() {
        for (data, rows, cols) in [
            (vec![], 0, 3),
            (vec![1.0; 5], 2, 3),
            (vec![1.0], usize::MAX, 2),
            (vec![1.0, f32::NAN], 1, 2),
            (vec![f32::INFINITY, 0.0], 2, 1),
        ] {
            let error = Matrix::new(&data, rows, cols).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Checkpoint);
        }
        let error = Matrix::new(&[0.0, 0.0, 0.0, f32::NAN], 2, 2).unwrap_err();
        assert!(error.to_string().contains("[1, 1] is NaN"), "{error}");
    }

    #[test]
    fn importance_is_one_non_negative_number_a_column() {
        assert!(check_importance(&[0.0, 2.0], 2).is_ok());
        for bad in [&[1.0][..], &[1.0, -0.5], &[f32::NAN, 1.0]] {
            assert_eq!(
                check_importance(bad, 2).unwrap_err().kind(),
                ErrorKind::Config
            );
        }
    }
}
