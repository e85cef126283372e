//! Activations quantized to `int8`, each row with a scale of its own.

use super::elementwise::largest_in;
use super::portable::Portable;
use super::shared::Shared;
use super::simd::Simd;

/// `[rows][columns]` activations as `q * scale[row]`, q in -127..=127.
///
/// The scale comes from the row's own largest magnitude, so a row is quantized the same way in
/// every batch. A row that holds a NaN or an infinity gets a NaN scale: its results are all NaN
/// and cannot pass for an answer.
#[derive(Default)]
pub(crate) struct QuantizedRows {
    rows: usize,
    columns: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl QuantizedRows {
    /// Quantizes `x` (`[rows][columns]`).
    pub(crate) fn quantize(x: &[f32], columns: usize) -> Self {
        let mut rows = Self::default();
        rows.reset(x.len() / columns, columns);
        let places = rows.places();
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let simd = Portable::new();
            // SAFETY: each row is handed out once.
            unsafe { places.put(simd, row, x, largest_in(simd, x)) };
        }
        rows
    }

    /// Makes room for rows that are about to be [put](Places::put), in the memory of earlier ones
    /// if that suffices.
    pub(crate) fn reset(&mut self, rows: usize, columns: usize) {
        self.rows = rows;
        self.columns = columns;
        // What is there already stays: every row is put.
        if self.values.len() < rows * columns {
            self.values.clear();
            self.values.reserve_exact(rows * columns);
            self.values.resize(rows * columns, 0);
        }
        if self.scales.len() < rows {
            self.scales.resize(rows, 0.0);
            self.sums.resize(rows, 0);
        }
    }

    /// Gives back memory beyond `rows` rows of `columns` values, and forgets the rows.
    pub(crate) fn shrink(&mut self, rows: usize, columns: usize) {
        self.rows = 0;
        self.values.truncate(rows * columns);
        self.values.shrink_to(rows * columns);
        self.scales.truncate(rows);
        self.scales.shrink_to(rows);
        self.sums.truncate(rows);
        self.sums.shrink_to(rows);
    }

    /// The places of the rows, for several threads to fill.
    pub(super) fn places(&mut self) -> Places<'_> {
        Places {
            columns: self.columns,
            values: Shared::new(&mut self.values),
            scales: Shared::new(&mut self.scales),
            sums: Shared::new(&mut self.sums),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
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

/// Where quantized rows go.
pub(super) struct Places<'a> {
    columns: usize,
    values: Shared<'a, i8>,
    scales: Shared<'a, f32>,
    sums: Shared<'a, i32>,
}

impl Places<'_> {
    /// Quantizes `x`, whose largest magnitude is known, as row `row`.
    ///
    /// # Safety
    /// - No two calls may be at work on the same row at the same time.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd>(&self, simd: S, row: usize, x: &[f32], largest: f32) {
        let start = row * self.columns;
        // SAFETY: the caller's duty, for all three.
        let (values, scale, sum) = unsafe {
            (
                self.values.part(start..start + self.columns),
                self.scales.part(row..row + 1),
                self.sums.part(row..row + 1),
            )
        };
        (scale[0], sum[0]) = quantize_row(simd, x, largest, values);
    }
}

/// Rounds a row to `q * scale`, q in -127..=127 with halves to even; returns the scale and the sum of
/// the integers. `largest` is the largest magnitude of `x`, not finite if one value is not.
#[inline(always)]
pub(super) fn quantize_row<S: Simd>(simd: S, x: &[f32], largest: f32, q: &mut [i8]) -> (f32, i32) {
    assert_eq!(x.len(), q.len());
    if !largest.is_finite() {
        q.fill(0);
        return (f32::NAN, 0);
    }
    let inverse = 127.0 / largest;
    if !inverse.is_finite() {
        // All zeros, or so close to it that the row vanishes in f32.
        q.fill(0);
        return (0.0, 0);
    }
    let inverse = simd.splat(inverse);
    let mut sums = [simd.zero_int(); 4];
    let (mut xs, mut qs) = (
        x.chunks_exact(4 * S::LANES),
        q.chunks_exact_mut(4 * S::LANES),
    );
    for (x, q) in (&mut xs).zip(&mut qs) {
        let mut rounded = [simd.zero_int(); 4];
        for i in 0..4 {
            // 127 * (1 + 2^-24) still rounds to 127.
            let scaled = simd.mul(simd.load(&x[i * S::LANES..]), inverse);
            rounded[i] = simd.round(scaled);
            sums[i] = simd.add_int(sums[i], rounded[i]);
        }
        simd.store_i8_four(rounded, q);
    }
    let (xs, qs) = (xs.remainder(), qs.into_remainder());
    for (x, q) in xs.chunks(S::LANES).zip(qs.chunks_mut(S::LANES)) {
        let rounded = simd.round(simd.mul(simd.load_part(x, 0.0), inverse));
        sums[0] = simd.add_int(sums[0], rounded);
        if q.len() >= S::LANES {
            simd.store_i8(rounded, q);
            continue;
        }
        let mut bytes = [0; 16];
        simd.store_i8(rounded, &mut bytes);
        match <&mut [i8; 8]>::try_from(&mut *q) {
            // Half a vector is common, and copied without a call.
            Ok(q) => q.copy_from_slice(&bytes[..8]),
            Err(_) => q.copy_from_slice(&bytes[..q.len()]),
        }
    }
    let [a, b, c, d] = sums;
    let sum = simd.sum_int(simd.add_int(simd.add_int(a, b), simd.add_int(c, d)));
    (largest / 127.0, sum)
}
