//! Way 1: decode a panel, multiply it with every row, go on.
//!
//! A panel holds a few groups of [`LANES`] outputs over the whole input, `[group][input][LANES]`,
//! so that a microkernel reads it front to back while it keeps the sums of up to [`MAX_ROWS`] rows
//! in registers. The input is never split: in `f32` that would change the order of additions.
//!
//! - `int8`: an `i32` of the panel is two inputs of one output, as `i16`. A panel of 32 outputs and
//!   3,072 inputs has 196 kB.
//! - `f32`: a panel of 16 outputs and 3,072 inputs has 196 kB.

use std::cell::RefCell;

use super::decode::Blocks;
use super::output::Output;
use super::weights::pack;
use super::{Codes, LANES, MAX_ROWS, Micro, QuantizedRows, Threads, Weights, Zero};
use crate::layout::{INT8_GROUP, Tile};

/// Groups of a panel.
const INT8_GROUPS: usize = 4;
const F32_GROUPS: usize = 2;

thread_local! {
    static INT8_PANEL: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
    static F32_PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A run of outputs inside a tile.
struct Panel {
    tile: Tile,
    /// The first output, counted from the tile's first.
    start: usize,
    outputs: usize,
}

impl Panel {
    /// How many panels of `groups` groups cover `out_features`.
    fn count(groups: usize, out_features: usize) -> usize {
        out_features.div_ceil(groups * LANES)
    }

    /// Panels do not cross tiles: a tile is a whole number of panels.
    fn nth(index: usize, groups: usize, out_features: usize) -> Self {
        let first = index * groups * LANES;
        let tile = Tile::nth(first / crate::layout::TILE, out_features);
        let start = first - tile.first;
        Self {
            tile,
            start,
            outputs: (tile.width - start).min(groups * LANES),
        }
    }

    /// The panel's part of each unit row of the tile.
    fn units<'a, T>(
        &self,
        values: &'a [T],
        units: usize,
        each: usize,
    ) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        let range = self.tile.range(units * each);
        let (start, len) = (self.start * each, self.outputs * each);
        values[range]
            .chunks_exact(self.tile.width * each)
            .map(move |row| &row[start..start + len])
    }
}

pub(crate) fn linear_int8<M: Micro>(
    micro: M,
    threads: Threads,
    weights: &Weights,
    x: &QuantizedRows,
    y: &mut [f32],
) {
    let mut pairs = Vec::new();
    x.pairs(weights.activation_block(), &mut pairs);
    let per_row = pairs.len() / x.rows().max(1);
    let output = Output::new(y, weights.out_features);
    let panels = Panel::count(INT8_GROUPS, weights.out_features);
    let work = x.rows() * weights.out_features * weights.in_features;
    threads.each(panels, work, |index| {
        let panel = Panel::nth(index, INT8_GROUPS, weights.out_features);
        INT8_PANEL.with_borrow_mut(|buffer| {
            buffer.resize(per_row * INT8_GROUPS * LANES, 0);
            decode_int8(weights, &panel, per_row, buffer);
            for first in (0..x.rows()).step_by(MAX_ROWS) {
                let row = |r: usize| &pairs[(first + r) * per_row..][..per_row];
                let block = Block {
                    panel: &panel,
                    first,
                };
                match x.rows() - first {
                    1 => int8_rows(micro, weights, x, buffer, &output, block, [row(0)]),
                    2 => int8_rows(micro, weights, x, buffer, &output, block, [0, 1].map(row)),
                    3 => int8_rows(
                        micro,
                        weights,
                        x,
                        buffer,
                        &output,
                        block,
                        [0, 1, 2].map(row),
                    ),
                    _ => {
                        let rows = [0, 1, 2, 3].map(row);
                        int8_rows(micro, weights, x, buffer, &output, block, rows)
                    }
                }
            }
        });
    });
}

/// Some rows against a panel.
#[derive(Clone, Copy)]
struct Block<'a> {
    panel: &'a Panel,
    first: usize,
}

impl Block<'_> {
    /// The outputs of group `group`: the first one and how many.
    fn group(&self, group: usize) -> (usize, usize) {
        let first = self.panel.tile.first + self.panel.start + group * LANES;
        (first, (self.panel.outputs - group * LANES).min(LANES))
    }
}

fn int8_rows<M: Micro, const R: usize>(
    micro: M,
    weights: &Weights,
    x: &QuantizedRows,
    panel: &[i32],
    output: &Output,
    block: Block,
    rows: [&[i32]; R],
) {
    let groups = panel.chunks_exact(rows[0].len() * LANES);
    for (group, values) in groups.enumerate().take(block.panel.outputs.div_ceil(LANES)) {
        let sums = micro.int8(values, rows);
        let (o, width) = block.group(group);
        for (r, sums) in sums.iter().enumerate() {
            let row = block.first + r;
            // SAFETY: a panel is handed to one thread, and its groups and rows are disjoint.
            let out = unsafe { output.block(row, o, width) };
            for (i, out) in out.iter_mut().enumerate() {
                *out = finish_int8(weights, x, row, o + i, sums[i]);
            }
        }
    }
}

/// From an exact sum to the output, in the same words for both ways.
#[inline]
pub(super) fn finish_int8(
    weights: &Weights,
    x: &QuantizedRows,
    row: usize,
    o: usize,
    sum: i32,
) -> f32 {
    let sum = sum - weights.zero.of(o) * x.sum(row);
    sum as f32 * (x.scale(row) * weights.factor(o)) + weights.bias(o)
}

/// Fills `[group][pair][LANES]`; lanes beyond the panel's outputs are zero.
fn decode_int8(weights: &Weights, panel: &Panel, pairs: usize, buffer: &mut [i32]) {
    if !panel.outputs.is_multiple_of(LANES) {
        buffer[panel.outputs / LANES * pairs * LANES..].fill(0);
    }
    let mut put = |output: usize, pair: usize, value: i32| {
        buffer[((output / LANES) * pairs + pair) * LANES + output % LANES] = value;
    };
    match weights.codes {
        Codes::Pq { codes, book } => {
            let units = weights.in_features.div_ceil(book.block);
            let per_block = book.block.div_ceil(2);
            let blocks = Blocks {
                codes: panel.units(codes, units, 1),
                table: &book.pairs,
                each: per_block,
                length: pairs,
            };
            blocks.decode(buffer);
        }
        Codes::Int8(values) => {
            let units = weights.in_features.div_ceil(INT8_GROUP);
            for (j, values) in panel.units(values, units, INT8_GROUP).enumerate() {
                for (output, group) in values.chunks_exact(INT8_GROUP).enumerate() {
                    for (p, pair) in group.chunks_exact(2).enumerate() {
                        put(output, j * INT8_GROUP / 2 + p, pack(pair[0], pair[1]));
                    }
                }
            }
        }
        Codes::F16(_) | Codes::F32(_) => {
            unreachable!("f16 and f32 weights are always multiplied in f32")
        }
    }
}

pub(super) fn linear_f32<M: Micro>(
    micro: M,
    threads: Threads,
    weights: &Weights,
    x: &[f32],
    y: &mut [f32],
) {
    let columns = weights.in_features;
    let m = x.len() / columns;
    let output = Output::new(y, weights.out_features);
    let panels = Panel::count(F32_GROUPS, weights.out_features);
    threads.each(panels, x.len() * weights.out_features, |index| {
        let panel = Panel::nth(index, F32_GROUPS, weights.out_features);
        F32_PANEL.with_borrow_mut(|buffer| {
            buffer.resize(columns * F32_GROUPS * LANES, 0.0);
            decode_f32(weights, &panel, buffer);
            for first in (0..m).step_by(MAX_ROWS) {
                let row = |r: usize| &x[(first + r) * columns..][..columns];
                let block = Block {
                    panel: &panel,
                    first,
                };
                match m - first {
                    1 => f32_rows(micro, weights, buffer, &output, block, [row(0)]),
                    2 => f32_rows(micro, weights, buffer, &output, block, [0, 1].map(row)),
                    3 => f32_rows(micro, weights, buffer, &output, block, [0, 1, 2].map(row)),
                    _ => {
                        let rows = [0, 1, 2, 3].map(row);
                        f32_rows(micro, weights, buffer, &output, block, rows)
                    }
                }
            }
        });
    });
}

fn f32_rows<M: Micro, const R: usize>(
    micro: M,
    weights: &Weights,
    panel: &[f32],
    output: &Output,
    block: Block,
    rows: [&[f32]; R],
) {
    let groups = panel.chunks_exact(rows[0].len() * LANES);
    for (group, values) in groups.enumerate().take(block.panel.outputs.div_ceil(LANES)) {
        let sums = micro.f32(values, rows);
        let (o, width) = block.group(group);
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: a panel is handed to one thread, and its groups and rows are disjoint.
            let out = unsafe { output.block(block.first + r, o, width) };
            for (i, out) in out.iter_mut().enumerate() {
                *out = sums[i] * weights.factor(o + i) + weights.bias(o + i);
            }
        }
    }
}

/// Fills `[group][input][LANES]` without the factors; lanes beyond the panel's outputs are zero.
fn decode_f32(weights: &Weights, panel: &Panel, buffer: &mut [f32]) {
    let columns = weights.in_features;
    if !panel.outputs.is_multiple_of(LANES) {
        buffer[panel.outputs / LANES * columns * LANES..].fill(0.0);
    }
    let mut put = |output: usize, k: usize, value: f32| {
        buffer[((output / LANES) * columns + k) * LANES + output % LANES] = value;
    };
    let first = panel.tile.first + panel.start;
    match weights.codes {
        Codes::Pq { codes, book } => {
            let units = columns.div_ceil(book.block);
            if columns.is_multiple_of(book.block) && matches!(weights.zero, Zero::Tensor(0)) {
                let blocks = Blocks {
                    codes: panel.units(codes, units, 1),
                    table: &book.f32,
                    each: book.block,
                    length: columns,
                };
                blocks.decode(buffer);
                return;
            }
            // A short last block, or zero points of rows.
            for (j, codes) in panel.units(codes, units, 1).enumerate() {
                let k = j * book.block;
                let used = book.block.min(columns - k);
                for (output, &code) in codes.iter().enumerate() {
                    let zero = weights.zero.of(first + output) as f32;
                    let centroid = &book.f32[usize::from(code) * book.block..][..used];
                    for (i, &value) in centroid.iter().enumerate() {
                        put(output, k + i, value - zero);
                    }
                }
            }
        }
        Codes::Int8(values) => {
            let units = columns.div_ceil(INT8_GROUP);
            for (j, values) in panel.units(values, units, INT8_GROUP).enumerate() {
                let k = j * INT8_GROUP;
                let used = INT8_GROUP.min(columns - k);
                for (output, group) in values.chunks_exact(INT8_GROUP).enumerate() {
                    let zero = weights.zero.of(first + output) as f32;
                    for (i, &value) in group[..used].iter().enumerate() {
                        put(output, k + i, f32::from(value) - zero);
                    }
                }
            }
        }
        Codes::F16(values) => {
            for (k, values) in panel.units(values, columns, 1).enumerate() {
                for (output, value) in values.iter().enumerate() {
                    put(output, k, value.to_f32());
                }
            }
        }
        Codes::F32(values) => {
            for (k, values) in panel.units(values, columns, 1).enumerate() {
                for (output, &value) in values.iter().enumerate() {
                    put(output, k, value);
                }
            }
        }
    }
}
