//! The depthwise filter of up to 64 channels, which stand side by side in padded lines.

use super::{MAX_KERNEL, Windows};
use crate::kernels::elementwise::{Activation, apply};
use crate::kernels::shared::Shared;
use crate::kernels::simd::{Op, Simd};
use crate::kernels::tables::TableRow;
use crate::layout::TILE;

/// Taps of the largest filter.
const TAPS: usize = MAX_KERNEL * MAX_KERNEL;

/// The filters of a tile, decoded: taps as `[kernel * kernel][TILE]`, then the bias; zeros beyond its
/// channels.
pub(super) struct Filters {
    values: [[f32; TILE]; TAPS + 1],
    kernel: usize,
}

impl Filters {
    /// `row` gives the stored filter of a channel, `[kernel][kernel]`, for each of `bias`.
    pub(super) fn new<'a>(
        kernel: usize,
        row: impl Fn(usize) -> TableRow<'a>,
        bias: &[f32],
    ) -> Self {
        let mut values = [[0.0; TILE]; TAPS + 1];
        let taps = kernel * kernel;
        for channel in 0..bias.len() {
            let mut filter = [0.0; TAPS];
            row(channel).add(&mut filter[..taps]);
            for (values, value) in values.iter_mut().zip(&filter[..taps]) {
                values[channel] = *value;
            }
        }
        values[TAPS][..bias.len()].copy_from_slice(bias);
        Self { values, kernel }
    }
}

/// A row of pixels of the output.
pub(super) struct Line<'a, 'b> {
    pub(super) windows: &'a Windows,
    pub(super) filters: &'a Filters,
    pub(super) activation: Activation,
    /// Lines of the input `[columns][lanes]` for the taps `first..end` that are inside the image, with
    /// zeros on both sides, so that a window begins at its first tap.
    pub(super) input: [&'a [f32]; MAX_KERNEL],
    pub(super) taps: (usize, usize),
    /// Channels of the tile, filled up to whole vectors of any instruction set.
    pub(super) lanes: usize,
    /// `[pixels][channels]`
    pub(super) y: &'a Shared<'b, f32>,
    pub(super) channels: usize,
    /// Where the tile's part of the row's first pixel stands in `y`.
    pub(super) start: usize,
    /// The sums of each of the tile's channels over the row.
    pub(super) sums: &'a mut [f32],
}

impl Op for Line<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        match (self.filters.kernel, self.windows.stride) {
            (3, 1) => self.with::<S, 3, 1>(simd),
            (3, 2) => self.with::<S, 3, 2>(simd),
            (5, 1) => self.with::<S, 5, 1>(simd),
            (5, 2) => self.with::<S, 5, 2>(simd),
            _ => self.with::<S, 0, 0>(simd),
        }
    }
}

impl Line<'_, '_> {
    /// With a known kernel and stride, or 0 and 0 for any.
    #[inline(always)]
    fn with<S: Simd, const K: usize, const STRIDE: usize>(self, simd: S) {
        let (width, lanes) = (self.windows.output[1], self.lanes);
        let (kernel, stride) = match K {
            0 => (self.filters.kernel, self.windows.stride),
            _ => (K, STRIDE),
        };
        let (from, to) = self.taps;
        assert!(from <= to && to <= kernel && kernel <= MAX_KERNEL);
        assert!(lanes.is_multiple_of(S::LANES) && lanes <= TILE);
        let needed = ((width - 1) * stride + kernel) * lanes;
        assert!(self.input[from..to].iter().all(|line| line.len() >= needed));
        let mut sums = [simd.splat(0.0); TILE / 4];
        let count = self.sums.len();
        for first in (0..count).step_by(S::LANES) {
            let columns = Columns {
                lines: &self.input[from..to],
                weights: &self.filters.values[from * kernel..to * kernel],
                bias: simd.load(&self.filters.values[TAPS][first..]),
                kernel,
                stride,
                lanes,
                first,
            };
            let sum = &mut sums[first / S::LANES];
            let mut ox = 0;
            macro_rules! pixels {
                // From pixel `at` on, of which those from `ox` on are not done yet.
                ($count:literal, $at:expr) => {{
                    let at = $at;
                    // SAFETY: the windows of these pixels are inside the lines, as asserted above.
                    let mut acc = unsafe { columns.filter::<S, K, STRIDE, $count>(simd, at) };
                    for values in acc.chunks_mut(AT_ONCE) {
                        if let Some(values) = values.first_chunk_mut::<AT_ONCE>() {
                            *values = apply(simd, self.activation, *values);
                        } else {
                            [values[0]] = apply(simd, self.activation, [values[0]]);
                        }
                    }
                    for pixel in 0..$count {
                        if at + pixel >= ox {
                            *sum = simd.add(*sum, acc[pixel]);
                            let start = self.start + (at + pixel) * self.channels + first;
                            let end = start + S::LANES.min(count - first);
                            // SAFETY: a row's channels of a tile are handed to one thread.
                            simd.store_part(acc[pixel], unsafe { self.y.part(start..end) });
                        }
                    }
                    ox = at + $count;
                }};
            }
            let eight = S::REGISTERS >= 32 && STRIDE == 1;
            while eight && width - ox >= 8 {
                pixels!(8, ox);
            }
            if eight && width - ox > 4 && width >= 8 {
                pixels!(8, width - 8);
            }
            while width - ox >= 4 {
                pixels!(4, ox);
            }
            if ox < width && width >= 4 {
                pixels!(4, width - 4);
            }
            while ox < width {
                pixels!(1, ox);
            }
        }
        for (sum, out) in sums.iter().zip(self.sums.chunks_mut(S::LANES)) {
            simd.store_part(*sum, out);
        }
    }
}

/// Vectors whose activations are computed together; more need more registers than there are.
const AT_ONCE: usize = 4;

/// A vector of channels of the lines that a row of windows reaches.
struct Columns<'a, F> {
    lines: &'a [&'a [f32]],
    /// The taps of these lines, from `first` on those of the vector.
    weights: &'a [[f32; TILE]],
    bias: F,
    kernel: usize,
    stride: usize,
    lanes: usize,
    first: usize,
}

impl<F: Copy> Columns<'_, F> {
    /// The sums of `P` windows from that of pixel `ox` on.
    ///
    /// # Safety
    /// - The lines have all of their columns.
    #[inline(always)]
    unsafe fn filter<S: Simd<F = F>, const K: usize, const STRIDE: usize, const P: usize>(
        &self,
        simd: S,
        ox: usize,
    ) -> [F; P] {
        let mut acc = [self.bias; P];
        let start = ox * self.stride * self.lanes + self.first;
        for (line, weights) in self
            .lines
            .iter()
            .zip(self.weights.chunks_exact(self.kernel))
        {
            let line = line.as_ptr();
            if K == 0 {
                for (kx, weights) in weights.iter().enumerate() {
                    let w = simd.load(&weights[self.first..]);
                    for (p, acc) in acc.iter_mut().enumerate() {
                        let at = start + (p * self.stride + kx) * self.lanes;
                        // SAFETY: the caller's contract.
                        let x = unsafe { load(simd, line.add(at)) };
                        *acc = simd.mul_add(x, w, *acc);
                    }
                }
                continue;
            }
            // Each column once, for all windows that reach it.
            let mut x = [self.bias; REACH];
            let reach = &mut x[..(P - 1) * STRIDE + K];
            for (column, x) in reach.iter_mut().enumerate() {
                // SAFETY: the caller's contract.
                *x = unsafe { load(simd, line.add(start + column * self.lanes)) };
            }
            for kx in 0..K {
                let w = simd.load(&weights[kx][self.first..]);
                for p in 0..P {
                    acc[p] = simd.mul_add(x[p * STRIDE + kx], w, acc[p]);
                }
            }
        }
        acc
    }
}

/// The most columns that windows of known size reach together: eight at stride 1.
const REACH: usize = 7 + 5;

/// # Safety
/// - `LANES` values can be read at `values`.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, values: *const f32) -> S::F {
    // SAFETY: the caller's contract.
    simd.load(unsafe { std::slice::from_raw_parts(values, S::LANES) })
}
