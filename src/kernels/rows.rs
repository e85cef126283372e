//! Activations quantized to `int8`, each row with a scale of its own.

use wide::f32x8;

use super::elementwise::{LANE, in_lanes};

/// `[rows][columns]` activations as `q * scale[row]`, q in -127..=127.
///
/// The scale comes from the row's own largest magnitude, so a row is quantized the same way in
/// every batch. A row that holds a NaN or an infinity gets a NaN scale: its results are all NaN
/// and cannot pass for an answer.
#[derive(Default)]
pub(crate) struct QuantizedRows {
    columns: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl QuantizedRows {
    /// Quantizes `x` (`[rows][columns]`).
    pub(crate) fn quantize(x: &[f32], columns: usize) -> Self {
        let mut rows = Self {
            columns,
            values: vec![0; x.len()],
            scales: Vec::with_capacity(x.len() / columns),
            sums: Vec::with_capacity(x.len() / columns),
        };
        for (x, q) in x
            .chunks_exact(columns)
            .zip(rows.values.chunks_exact_mut(columns))
        {
            let (scale, sum) = quantize_row(x, q);
            rows.scales.push(scale);
            rows.sums.push(sum);
        }
        rows
    }

    pub(crate) fn rows(&self) -> usize {
        self.scales.len()
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// `[rows][columns]`
    pub(super) fn values(&self) -> &[i8] {
        &self.values
    }

    #[cfg(test)]
    pub(crate) fn row(&self, row: usize) -> &[i8] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub(crate) fn scale(&self, row: usize) -> f32 {
        self.scales[row]
    }

    /// Sum of the row's integers.
    pub(crate) fn sum(&self, row: usize) -> i32 {
        self.sums[row]
    }
}

/// Returns the scale and the sum of the integers.
fn quantize_row(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    let mut largest = f32x8::ZERO;
    let mut finite = true;
    for chunk in x.chunks(LANE) {
        let v = in_lanes(chunk).abs();
        finite &= f32x8::splat(f32::INFINITY).simd_gt(v).all();
        largest = largest.fast_max(v);
    }
    if !finite {
        q.fill(0);
        return (f32::NAN, 0);
    }
    let largest = largest.to_array().into_iter().fold(0f32, f32::max);
    let inverse = 127.0 / largest;
    if !inverse.is_finite() {
        // All zeros, or so close to it that the row vanishes in f32.
        q.fill(0);
        return (0.0, 0);
    }
    let mut sum = 0;
    for (x, q) in x.chunks(LANE).zip(q.chunks_mut(LANE)) {
        let rounded = (in_lanes(x) * f32x8::splat(inverse)).fast_round_int();
        for (q, &r) in q.iter_mut().zip(rounded.as_array()) {
            // 127 * (1 + 2^-24) still rounds to 127.
            *q = r as i8;
            sum += r;
        }
    }
    (largest / 127.0, sum)
}
