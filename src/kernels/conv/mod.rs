//! What convolutions need besides products of whole images: a product with a depthwise filter behind it
//! ([`bottleneck`]), the rows of inputs of a dense one, and means over an image.
//!
//! An image is `[height][width][channels]`: a pixel is a row, and a pointwise convolution a product with
//! all rows. Each value is computed alone and its terms are added in one order, so a result depends on
//! neither the part nor the thread that computes it.

pub(crate) mod bottleneck;
mod depthwise;
#[cfg(test)]
mod tests;

use super::elementwise::{add_row, exp};
use super::shared::Shared;
use super::simd::{Op, Simd};
use super::{Isa, Threads};

/// The widest filter: 7 x 7.
pub(crate) const MAX_KERNEL: usize = 7;

/// Where the windows of a convolution stand in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    /// Height and width of the input.
    pub(crate) input: [usize; 2],
    /// Height and width of the output.
    pub(crate) output: [usize; 2],
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Rows of zeros above, and columns to the left.
    pub(crate) before: [usize; 2],
}

/// How an image is filled up with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// TensorFlow's "SAME": as many outputs as strides fit in, the odd zero at the end.
    Same,
    /// `kernel / 2` on every side.
    Symmetric,
}

impl Windows {
    pub(crate) fn new(input: [usize; 2], kernel: usize, stride: usize, padding: Padding) -> Self {
        let side = |size: usize| match padding {
            Padding::Same => {
                let output = size.div_ceil(stride);
                let zeros = ((output - 1) * stride + kernel).saturating_sub(size);
                (output, zeros / 2)
            }
            Padding::Symmetric => ((size + 2 * (kernel / 2) - kernel) / stride + 1, kernel / 2),
        };
        let [(height, above), (width, left)] = input.map(side);
        Self {
            input,
            output: [height, width],
            kernel,
            stride,
            before: [above, left],
        }
    }

    /// Of one dimension: where window `at` begins in the input, and which of its taps are inside.
    #[inline(always)]
    fn taps(&self, dimension: usize, at: usize) -> (usize, usize, usize) {
        let (start, before) = (at * self.stride, self.before[dimension]);
        let first = before.saturating_sub(start);
        let end = (self.input[dimension] + before)
            .saturating_sub(start)
            .min(self.kernel);
        // The input's row or column under tap `first`.
        (
            first,
            end.max(first),
            (start + first).saturating_sub(before),
        )
    }

    pub(crate) fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }
}

/// The inputs of every window, one row each: `[kernel][kernel][channels]`, with zeros beyond the image.
pub(crate) fn gather(
    threads: Threads,
    windows: &Windows,
    channels: usize,
    x: &[f32],
    rows: &mut [f32],
) {
    let kernel = windows.kernel;
    let columns = kernel * kernel * channels;
    let [height, width] = windows.output;
    assert_eq!(x.len(), windows.input[0] * windows.input[1] * channels);
    assert_eq!(rows.len(), windows.pixels() * columns);
    // An estimate: 8 values a nanosecond.
    let nanoseconds = rows.len() as u64 / 8;
    let rows = Shared::new(rows);
    threads.each_for(height, nanoseconds, |oy| {
        // SAFETY: every row of the output is handed out once.
        let rows = unsafe { rows.part(oy * width * columns..(oy + 1) * width * columns) };
        let (first, end, top) = windows.taps(0, oy);
        for (ox, row) in rows.chunks_exact_mut(columns).enumerate() {
            let (left, right, column) = windows.taps(1, ox);
            row.fill(0.0);
            for ky in first..end {
                let from = ((top + ky - first) * windows.input[1] + column) * channels;
                let count = (right - left) * channels;
                row[(ky * kernel + left) * channels..][..count]
                    .copy_from_slice(&x[from..from + count]);
            }
        }
    });
}

/// Adds to `sum`, `[channels]`, every pixel of an image `[height][width][channels]` that a window has under `tap`.
#[cfg(feature = "convert")]
pub(crate) fn add_under_tap(windows: &Windows, tap: usize, x: &[f32], sum: &mut [f64]) {
    let at = [tap / windows.kernel, tap % windows.kernel];
    // The input's row or column, if there is one.
    let under = |dimension: usize, window: usize| {
        let (first, end, start) = windows.taps(dimension, window);
        let inside = (first..end).contains(&at[dimension]);
        inside.then(|| start + at[dimension] - first)
    };
    for row in (0..windows.output[0]).filter_map(|window| under(0, window)) {
        for column in (0..windows.output[1]).filter_map(|window| under(1, window)) {
            let pixel = &x[(row * windows.input[1] + column) * sum.len()..][..sum.len()];
            let pairs = sum.iter_mut().zip(pixel);
            pairs.for_each(|(s, &v)| *s += f64::from(v));
        }
    }
}

/// The mean of every channel of an image `[height][width][mean.len()]`: rows first, so that sums of many
/// pixels lose little.
pub(crate) fn pool(isa: Isa, width: usize, x: &[f32], mean: &mut [f32]) {
    struct Pool<'a>(usize, &'a [f32], &'a mut [f32]);

    impl Op for Pool<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            let Self(width, x, mean) = self;
            let channels = mean.len();
            let pixels = (x.len() / channels) as f32;
            for (group, mean) in mean.chunks_mut(S::LANES).enumerate() {
                let first = group * S::LANES;
                let mut total = simd.splat(0.0);
                for row in x.chunks(width * channels) {
                    let mut sum = simd.splat(0.0);
                    for pixel in row.chunks_exact(channels) {
                        let values = &pixel[first..first + mean.len()];
                        sum = simd.add(sum, simd.load_part(values, 0.0));
                    }
                    total = simd.add(total, sum);
                }
                simd.store_part(simd.div(total, simd.splat(pixels)), mean);
            }
        }
    }

    isa.run(Pool(width, x, mean));
}

/// The mean of every channel, from its sums over the rows of an image of so many pixels,
/// `[rows][mean.len()]`.
pub(crate) fn mean(isa: Isa, pixels: usize, sums: &[f32], mean: &mut [f32]) {
    struct Mean<'a>(usize, &'a [f32], &'a mut [f32]);

    impl Op for Mean<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            let Self(pixels, sums, mean) = self;
            mean.fill(0.0);
            for row in sums.chunks_exact(mean.len()) {
                add_row(simd, mean, row);
            }
            for mean in mean {
                *mean /= pixels as f32;
            }
        }
    }

    isa.run(Mean(pixels, sums, mean));
}

/// `1 / (1 + e^-x)` of every value, relative error at most 4e-7.
pub(crate) fn sigmoid(isa: Isa, values: &mut [f32]) {
    struct Sigmoid<'a>(&'a mut [f32]);

    impl Op for Sigmoid<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            for values in self.0.chunks_mut(S::LANES) {
                let x = simd.load_part(values, 0.0);
                let e = exp(simd, simd.sub(simd.splat(0.0), x));
                let y = simd.div(simd.splat(1.0), simd.add(simd.splat(1.0), e));
                simd.store_part(y, values);
            }
        }
    }

    isa.run(Sigmoid(values));
}
