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

/// How much squared errors count: an error in row `r` and column `c` counts `rows[r] * columns[c]`, and
/// each count is 1 where there is none. Only their ratios matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Importance<'a> {
    /// `[cols]`, finite and not negative: the mean square of each input of a linear layer, say.
    pub columns: Option<&'a [f32]>,
    /// `[rows]`, finite and not negative: how often a text has each token, in an embedding table.
    pub rows: Option<&'a [f32]>,
}

impl<'a> Importance<'a> {
    /// Checks lengths and values. Importances that are all 0 say nothing and are left out.
    pub(super) fn checked(mut self, w: Matrix<'_>) -> Result<Self> {
        let counts = |values: &&'a [f32]| values.iter().any(|&value| value > 0.0);
        if let Some(columns) = self.columns {
            check_importance(columns, w.cols(), "column")?;
            self.columns = self.columns.filter(counts);
        }
        if let Some(rows) = self.rows {
            check_importance(rows, w.rows(), "row")?;
            self.rows = self.rows.filter(counts);
        }
        Ok(self)
    }
}

/// Checks weights of columns or rows: `n` finite, non-negative values.
pub(super) fn check_importance(importance: &[f32], n: usize, of: &str) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    if importance.len() != n {
        let values = importance.len();
        return wrong(format!("{values} importances for {n} {of}s"));
    }
    match importance.iter().position(|h| !h.is_finite() || *h < 0.0) {
        Some(at) => wrong(format!("the importance of {of} {at} is {}", importance[at])),
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
    fn importance_is_one_non_negative_number_a_column_and_a_row() {
        let w = Matrix::new(&[1.0; 6], 3, 2).unwrap();
        let of = |columns, rows| Importance { columns, rows }.checked(w);
        let good = of(Some(&[0.0, 2.0]), Some(&[0.0; 3])).unwrap();
        assert!(good.columns.is_some() && good.rows.is_none());
        for (columns, rows, said) in [
            (Some(&[1.0][..]), None, "1 importances for 2 columns"),
            (Some(&[1.0, -0.5]), None, "column 1 is -0.5"),
            (None, Some(&[1.0, 1.0][..]), "2 importances for 3 rows"),
            (None, Some(&[f32::NAN, 1.0, 1.0]), "row 0 is NaN"),
        ] {
            let error = of(columns, rows).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
