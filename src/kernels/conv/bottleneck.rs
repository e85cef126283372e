//! The first half of an inverted bottleneck: a product widens every pixel, an activation, a depthwise filter
//! and another activation.
//!
//! The wide image is the largest there is, so it is never stored. A tile of 64 channels goes through all
//! of it alone: its pixels are computed line by line into a window of a few lines, which stay in the
//! second-level cache, and filtered from there as soon as a filter has all lines that it reaches. Weights
//! and filters are decoded once for a tile and a part of the image.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::depthwise::{Filters, Line};
use super::{MAX_KERNEL, Windows};
use crate::kernels::buffer::Buffer;
use crate::kernels::elementwise::Activation;
use crate::kernels::pointwise::{Pixels, Product, Target, Then, with_product};
use crate::kernels::shared::Shared;
use crate::kernels::tables::TableRow;
use crate::kernels::{Isa, Threads, Weights, work};
use crate::layout::Tile;

/// Where the image to be filtered comes from.
pub(crate) enum Wide<'a> {
    /// `[pixels][channels]`
    Image(&'a [f32]),
    /// The activation of a product.
    Product(Expand<'a>),
}

/// A product with `[pixels][in_features]`.
pub(crate) struct Expand<'a> {
    pub(crate) weights: &'a Weights<'a>,
    pub(crate) x: Pixels<'a>,
    /// Counts the nanoseconds that the product takes, its activation included, of all threads together.
    pub(crate) clock: Option<&'a AtomicU64>,
}

/// A depthwise filter and the activation behind it, and behind the product before it.
pub(crate) struct Filter<'a, R> {
    pub(crate) windows: &'a Windows,
    /// The stored filter of a channel, `[kernel][kernel]`.
    pub(crate) row: R,
    pub(crate) bias: &'a [f32],
    pub(crate) activation: Activation,
}

#[derive(Default)]
struct Scratch {
    lines: Buffer,
    decoded: [Buffer; 2],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Fills `y` (`[output pixels][channels]`), and `sums` (`[output rows][channels]`) with the sums over each row
/// of `y`.
pub(crate) fn filter<'a, R: Fn(usize) -> TableRow<'a> + Sync>(
    machine: (Isa, Threads),
    wide: Wide,
    filter: &Filter<R>,
    y: &mut [f32],
    sums: &mut [f32],
) {
    let channels = filter.bias.len();
    let [height, width] = filter.windows.output;
    assert!(filter.windows.kernel <= MAX_KERNEL);
    assert_eq!(y.len(), height * width * channels);
    assert_eq!(sums.len(), height * channels);
    let whole = Whole {
        filter,
        channels,
        y: Shared::new(y),
        sums: Shared::new(sums),
    };
    match wide {
        Wide::Image(x) => whole.of_image(machine, x),
        Wide::Product(expand) => {
            let Expand { weights, x, clock } = expand;
            assert_eq!(weights.out_features, channels);
            with_product(machine.0, weights, x, &mut |product| {
                whole.of_product(machine, product, clock);
            });
        }
    }
}

/// What is filled, by tiles and parts of the output's rows.
struct Whole<'a, R> {
    filter: &'a Filter<'a, R>,
    channels: usize,
    y: Shared<'a, f32>,
    sums: Shared<'a, f32>,
}

impl<'f, R: Fn(usize) -> TableRow<'f> + Sync> Whole<'_, R> {
    fn of_image(&self, (isa, threads): (Isa, Threads), x: &[f32]) {
        let [height, width] = self.filter.windows.input;
        let channels = self.channels;
        assert_eq!(x.len(), height * width * channels);
        self.each_part(threads, 0, |tile, rows| {
            SCRATCH.with_borrow_mut(|scratch| {
                self.part(isa, &mut scratch.lines, tile, rows, |row, line, lanes| {
                    let pixels = x[row * width * channels..].chunks_exact(channels);
                    for (to, from) in line.chunks_exact_mut(lanes).zip(pixels) {
                        to[..tile.width].copy_from_slice(&from[tile.first..][..tile.width]);
                    }
                });
            });
        });
    }

    fn of_product(
        &self,
        (isa, threads): (Isa, Threads),
        product: &dyn Product,
        clock: Option<&AtomicU64>,
    ) {
        let width = self.filter.windows.input[1];
        self.each_part(threads, product.nanoseconds(), |tile, rows| {
            SCRATCH.with_borrow_mut(|scratch| {
                let Scratch { lines, decoded } = scratch;
                product.tile(tile, decoded, &mut |decoded| {
                    self.part(isa, lines, tile, rows.clone(), |row, line, lanes| {
                        let start = clock.map(|_| Instant::now());
                        let line = Shared::new(line);
                        let then = Then::Activation(self.filter.activation);
                        // SAFETY: the line is borrowed here alone.
                        let target = unsafe { Target::new(&line, (0, lanes, lanes), then) };
                        decoded.multiply(row * width..(row + 1) * width, &target);
                        if let (Some(clock), Some(start)) = (clock, start) {
                            clock.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
                        }
                    });
                });
            });
        });
    }

    /// Calls `f` for every tile and, where tiles are few, parts of the output's rows. `product` is about how many
    /// nanoseconds products take.
    fn each_part(
        &self,
        threads: Threads,
        product: u64,
        f: impl Fn(Tile, Range<usize>) + Sync + Send,
    ) {
        let windows = self.filter.windows;
        let tiles = Tile::count(self.channels);
        let height = windows.output[0];
        // Where a part begins, lines that the one before has computed are computed again.
        let most = height.div_ceil(4 * windows.kernel);
        let parts = match threads.0 {
            1 => 1,
            n => (4 * n).div_ceil(tiles).min(most),
        };
        // Estimates: 8 products and sums of the filter a nanosecond, and a nanosecond for two activations.
        let kernel = windows.kernel;
        let filters = work([windows.pixels(), self.channels, kernel, kernel]) / 8;
        let pixels = work([windows.input[0], windows.input[1], self.channels]);
        threads.each_for(tiles * parts, product + filters + pixels / 2, |item| {
            let (part, tile) = (item % parts, item / parts);
            let rows = part * height / parts..(part + 1) * height / parts;
            f(Tile::nth(tile, self.channels), rows);
        });
    }

    /// The rows `rows` of a tile's output. `fill(row, line, lanes)` fills a line of the input,
    /// `[width][lanes]`, of which the lanes beyond the tile's width may be anything.
    fn part(
        &self,
        isa: Isa,
        buffer: &mut Buffer,
        tile: Tile,
        rows: Range<usize>,
        mut fill: impl FnMut(usize, &mut [f32], usize),
    ) {
        let Filter {
            windows,
            row,
            bias,
            activation,
        } = self.filter;
        let channels = tile.first..tile.first + tile.width;
        let filters = Filters::new(windows.kernel, |c| row(tile.first + c), &bias[channels]);
        let lanes = tile.width.next_multiple_of(16);
        let [height, width] = windows.input;
        let before = windows.before[1];
        let reach = (windows.output[1] - 1) * windows.stride + windows.kernel;
        let line = reach.max(before + width) * lanes;
        let inside = before * lanes..(before + width) * lanes;
        // A new line takes the place of one that no window reaches any more.
        let count = windows.kernel.min(height);
        let lines = buffer.of::<f32>(count * line);
        for line in lines.chunks_exact_mut(line) {
            line[..inside.start].fill(0.0);
            line[inside.end..].fill(0.0);
        }
        let mut next = windows.taps(0, rows.start).2;
        for oy in rows {
            let (first, end, top) = windows.taps(0, oy);
            let bottom = top + end - first;
            for row in next.max(top)..bottom {
                let line = &mut lines[row % count * line..][..line];
                fill(row, &mut line[inside.clone()], lanes);
            }
            next = next.max(bottom);
            let mut input: [&[f32]; MAX_KERNEL] = [&[]; MAX_KERNEL];
            for tap in first..end {
                input[tap] = &lines[(top + tap - first) % count * line..][..line];
            }
            let at = oy * self.channels + tile.first;
            isa.run(Line {
                windows,
                filters: &filters,
                activation: *activation,
                input,
                taps: (first, end),
                lanes,
                y: &self.y,
                channels: self.channels,
                start: oy * windows.output[1] * self.channels + tile.first,
                // SAFETY: a tile and a row of the output are handed to one thread.
                sums: unsafe { self.sums.part(at..at + tile.width) },
            });
        }
    }
}
