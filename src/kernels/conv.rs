//! What convolutions need besides products: depthwise filters straight from codes, the rows of inputs of a
//! dense one, and means over an image.
//!
//! An image is `[height][width][channels]`: a pixel is a row, and a pointwise convolution a product with
//! all rows. A depthwise filter works on vectors of channels, which stand side by side. Its weights are
//! decoded for one vector at a time, into registers' reach; there is never a table of all of them.
//!
//! Each value is computed alone and its terms are added in one order, so a result depends on neither the
//! strip nor the thread that computes it.

use super::shared::Shared;
use super::simd::{Op, Simd};
use super::tables::TableRow;
use super::{Isa, Threads};

/// The widest filter: 7 x 7.
pub(crate) const MAX_KERNEL: usize = 7;
const TAPS: usize = MAX_KERNEL * MAX_KERNEL;
/// The most lanes of a vector.
const LANES: usize = 16;

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

/// `y[pixel][c] = bias[c] + sum over taps of x[pixel + tap][c] * w[c][tap]`, `x` and `y` of `bias.len()` channels; `row`
/// gives the stored filter of a channel, `[kernel][kernel]`.
pub(crate) fn depthwise<'a>(
    (isa, threads): (Isa, Threads),
    windows: &Windows,
    row: impl Fn(usize) -> TableRow<'a> + Sync,
    bias: &[f32],
    x: &[f32],
    y: &mut [f32],
) {
    let channels = bias.len();
    assert!(windows.kernel <= MAX_KERNEL);
    assert_eq!(x.len(), windows.input[0] * windows.input[1] * channels);
    assert_eq!(y.len(), windows.pixels() * channels);
    let lanes = isa.run(Lanes);
    let groups = channels.div_ceil(lanes);
    // Strips of rows, so that their input can stay in a cache from one group of channels to the next.
    let strips = windows.output[0].div_ceil(STRIP);
    // An estimate: 4 products and sums a nanosecond.
    let work = y.len() * windows.kernel * windows.kernel / 4;
    let y = Shared::new(y);
    threads.each_for(strips * groups, work, |item| {
        let (strip, group) = (item / groups, item % groups);
        let channel = group * lanes;
        isa.run(Filter {
            windows,
            row: &row,
            bias,
            x,
            y: &y,
            rows: (strip * STRIP, ((strip + 1) * STRIP).min(windows.output[0])),
            channel,
            count: lanes.min(channels - channel),
        });
    });
}

/// Rows of output that are computed together.
const STRIP: usize = 8;

/// How many lanes an instruction set has.
struct Lanes;

impl Op for Lanes {
    type Output = usize;

    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

/// A vector of channels of a strip.
struct Filter<'a, 'b, R> {
    windows: &'a Windows,
    row: &'a R,
    bias: &'a [f32],
    x: &'a [f32],
    y: &'a Shared<'b, f32>,
    rows: (usize, usize),
    channel: usize,
    /// Channels: as many as lanes, or fewer.
    count: usize,
}

impl<'w, R: Fn(usize) -> TableRow<'w>> Op for Filter<'_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let (windows, channels) = (self.windows, self.bias.len());
        let kernel = windows.kernel;
        let mut weights = [[0.0; LANES]; TAPS];
        for lane in 0..self.count {
            let mut filter = [0.0; TAPS];
            (self.row)(self.channel + lane).add(&mut filter[..kernel * kernel]);
            for (weights, value) in weights.iter_mut().zip(&filter[..kernel * kernel]) {
                weights[lane] = *value;
            }
        }
        let mut bias = [0.0; LANES];
        bias[..self.count].copy_from_slice(&self.bias[self.channel..][..self.count]);
        let bias = simd.load(&bias);
        let [_, width] = windows.output;
        let load = |row: usize, column: usize| {
            let start = (row * windows.input[1] + column) * channels + self.channel;
            if self.count == S::LANES {
                simd.load(&self.x[start..start + S::LANES])
            } else {
                simd.load_part(&self.x[start..start + self.count], 0.0)
            }
        };
        for oy in self.rows.0..self.rows.1 {
            let (first, end, top) = windows.taps(0, oy);
            let start = oy * width * channels + self.channel;
            // SAFETY: a strip and a vector of channels are handed to one thread.
            let put = |ox: usize, sum: S::F| unsafe {
                let at = start + ox * channels;
                simd.store_part(sum, self.y.part(at..at + self.count));
            };
            let mut ox = 0;
            while ox < width {
                let (left, right, column) = windows.taps(1, ox);
                let last = windows.taps(1, (ox + PIXELS - 1).min(width - 1));
                let inside = left == 0 && right == kernel && (last.0, last.1) == (0, kernel);
                if inside && ox + PIXELS <= width {
                    let mut sums = [bias; PIXELS];
                    for ky in first..end {
                        for kx in 0..kernel {
                            let weight = simd.load(&weights[ky * kernel + kx]);
                            for (pixel, sum) in sums.iter_mut().enumerate() {
                                let at = column + pixel * windows.stride + kx;
                                *sum = simd.mul_add(load(top + ky - first, at), weight, *sum);
                            }
                        }
                    }
                    for (pixel, sum) in sums.into_iter().enumerate() {
                        put(ox + pixel, sum);
                    }
                    ox += PIXELS;
                    continue;
                }
                let mut sum = bias;
                for ky in first..end {
                    for kx in left..right {
                        let weight = simd.load(&weights[ky * kernel + kx]);
                        let x = load(top + ky - first, column + kx - left);
                        sum = simd.mul_add(x, weight, sum);
                    }
                }
                put(ox, sum);
                ox += 1;
            }
        }
    }
}

/// Pixels that share the loading of a weight.
const PIXELS: usize = 4;

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
    let nanoseconds = rows.len() / 8;
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

/// `1 / (1 + e^-x)` of every value, relative error at most 4e-7.
pub(crate) fn sigmoid(isa: Isa, values: &mut [f32]) {
    struct Sigmoid<'a>(&'a mut [f32]);

    impl Op for Sigmoid<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            for values in self.0.chunks_mut(S::LANES) {
                let x = simd.load_part(values, 0.0);
                let e = super::elementwise::exp(simd, simd.sub(simd.splat(0.0), x));
                let y = simd.div(simd.splat(1.0), simd.add(simd.splat(1.0), e));
                simd.store_part(y, values);
            }
        }
    }

    isa.run(Sigmoid(values));
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::quant::rng::Rng;

    fn random(rng: &mut Rng, count: usize) -> Vec<f32> {
        (0..count).map(|_| rng.normal()).collect()
    }

    /// The definition, in `f64`.
    fn reference(windows: &Windows, weights: &[f32], bias: &[f32], x: &[f32]) -> Vec<f64> {
        let (channels, kernel) = (bias.len(), windows.kernel);
        let [height, width] = windows.input.map(|size| size as isize);
        let mut y = Vec::new();
        for oy in 0..windows.output[0] {
            for ox in 0..windows.output[1] {
                for c in 0..channels {
                    let mut sum = f64::from(bias[c]);
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let row =
                                (oy * windows.stride + ky) as isize - windows.before[0] as isize;
                            let column =
                                (ox * windows.stride + kx) as isize - windows.before[1] as isize;
                            if (0..height).contains(&row) && (0..width).contains(&column) {
                                let at = (row * width + column) as usize * channels + c;
                                let weight = weights[c * kernel * kernel + ky * kernel + kx];
                                sum += f64::from(x[at]) * f64::from(weight);
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
        y
    }

    fn close(a: &[f32], b: &[f64], budget: f64) {
        assert_eq!(a.len(), b.len());
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!(
                (f64::from(*a) - b).abs() <= budget * b.abs().max(1.0),
                "{i}: {a} {b}"
            );
        }
    }

    #[test]
    fn windows_are_those_of_tensorflow_and_torch() {
        let of = |size, kernel, stride, padding| {
            let windows = Windows::new([size, size + 1], kernel, stride, padding);
            (windows.output, windows.before)
        };
        // From tf.nn.conv2d and torch.nn.Conv2d.
        assert_eq!(of(224, 3, 2, Padding::Same), ([112, 113], [0, 1]));
        assert_eq!(of(7, 5, 2, Padding::Same), ([4, 4], [2, 1]));
        assert_eq!(of(5, 3, 1, Padding::Same), ([5, 6], [1, 1]));
        assert_eq!(of(224, 3, 2, Padding::Symmetric), ([112, 113], [1, 1]));
        assert_eq!(of(7, 5, 2, Padding::Symmetric), ([4, 4], [2, 2]));
        assert_eq!(of(1, 5, 2, Padding::Same), ([1, 1], [2, 1]));
        assert_eq!(of(1, 5, 1, Padding::Symmetric), ([1, 2], [2, 2]));
    }

    #[test]
    fn depthwise_equals_its_definition_on_every_instruction_set() {
        let mut rng = Rng::new(1);
        for (channels, height, width, kernel, stride) in [
            (1, 1, 1, 3, 1),
            (3, 2, 9, 5, 2),
            (16, 9, 10, 3, 1),
            (17, 17, 8, 3, 2),
            (33, 6, 23, 5, 1),
            (40, 11, 5, 7, 2),
            (64, 20, 21, 5, 2),
            (5, 3, 3, 1, 1),
        ] {
            for padding in [Padding::Same, Padding::Symmetric] {
                let windows = Windows::new([height, width], kernel, stride, padding);
                let taps = kernel * kernel;
                let weights = random(&mut rng, channels * taps);
                let bias = random(&mut rng, channels);
                let x = random(&mut rng, height * width * channels);
                let expected = reference(&windows, &weights, &bias, &x);
                for isa in Isa::available() {
                    let run = |threads| {
                        let mut y = vec![f32::NAN; expected.len()];
                        let row = |c: usize| TableRow::F32(&weights[c * taps..][..taps]);
                        depthwise((isa, Threads(threads)), &windows, row, &bias, &x, &mut y);
                        y
                    };
                    let y = run(1);
                    close(&y, &expected, 1e-5);
                    assert_eq!(y, run(2), "{channels} {height} {width} {kernel} {stride}");
                }
            }
        }
    }

    #[test]
    fn gathered_rows_are_the_windows() {
        let windows = Windows::new([5, 6], 3, 2, Padding::Same);
        let x: Vec<f32> = (1..=5 * 6 * 2).map(|v| v as f32).collect();
        for threads in [1, 2] {
            let mut rows = vec![f32::NAN; windows.pixels() * 18];
            gather(Threads(threads), &windows, 2, &x, &mut rows);
            for (pixel, row) in rows.chunks_exact(18).enumerate() {
                let (oy, ox) = (pixel / windows.output[1], pixel % windows.output[1]);
                for (at, &value) in row.iter().enumerate() {
                    let (ky, kx, c) = (at / 6, at / 2 % 3, at % 2);
                    let y = (oy * 2 + ky)
                        .checked_sub(windows.before[0])
                        .filter(|&y| y < 5);
                    let x_at = (ox * 2 + kx)
                        .checked_sub(windows.before[1])
                        .filter(|&x| x < 6);
                    let expected = match (y, x_at) {
                        (Some(y), Some(column)) => x[(y * 6 + column) * 2 + c],
                        _ => 0.0,
                    };
                    assert_eq!(value, expected, "{pixel} {at}");
                }
            }
        }
    }

    #[test]
    fn means_and_sigmoids_are_close() {
        let mut rng = Rng::new(2);
        for isa in Isa::available() {
            for (channels, height, width) in [(1, 1, 1), (17, 3, 5), (40, 7, 7), (16, 100, 90)] {
                let x = random(&mut rng, channels * height * width);
                let mut mean = vec![f32::NAN; channels];
                pool(isa, width, &x, &mut mean);
                let expected: Vec<f64> = (0..channels)
                    .map(|c| {
                        let values = x[c..].iter().step_by(channels);
                        values.map(|v| f64::from(*v)).sum::<f64>() / (height * width) as f64
                    })
                    .collect();
                close(&mean, &expected, 1e-6);
            }
            let x: Vec<f32> = (-400..=400).map(|i| i as f32 / 4.0).collect();
            let mut y = x.clone();
            sigmoid(isa, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let expected = 1.0 / (1.0 + (-f64::from(*x).max(-87.0)).exp());
                let error = (f64::from(*y) - expected).abs() / expected;
                assert!(error < 4e-7 || *x < -87.0, "{x}: {y} {expected}");
            }
            let mut nan = [f32::NAN];
            sigmoid(isa, &mut nan);
            assert!(nan[0].is_nan());
        }
    }
}
