//! The `int8` product of a tile with pixels by the microkernel of [`gemm`]: for instruction sets without
//! [units](super::units).
//!
//! All of the tile is decoded first, and the microkernel multiplies a few rows with it at a time, whose
//! outputs are made of their sums at once.

use std::any::TypeId;
use std::ops::Range;

use bytemuck::Zeroable;

use super::{Product, Target, TileProduct};
use crate::kernels::buffer::Buffer;
use crate::kernels::dot::{Dot, DotOp, STEP, Sum};
use crate::kernels::entry::Entry;
use crate::kernels::finish::{Constants, Finish, Int8};
use crate::kernels::gemm::{self, by_rows, multiply_panel};
use crate::kernels::micro::{Block, Rows};
use crate::kernels::simd::{Op, Simd};
use crate::kernels::source::{Lookup, Panel, Source, Stored};
use crate::kernels::{Codes, Isa, Weights, work};
use crate::layout::{INT8_GROUP, TILE, Tile};

/// Rows of inputs, ready to multiply.
pub(super) struct Activations<'a, D: Dot> {
    /// `[rows][stride]`
    values: &'a [D::Act],
    stride: usize,
    /// A row of zeros.
    zeros: &'a [D::Act],
}

impl<'a, D: Dot> Activations<'a, D> {
    /// From `x`, `[rows][in_features]`.
    pub(super) fn new(
        weights: &Weights,
        x: &'a [D::Source],
        rows: usize,
        buffer: &'a mut Buffer,
    ) -> Self {
        let (stride, columns) = (gemm::steps(weights) * STEP, weights.in_features);
        let x = &x[..rows * columns];
        let zero = D::act(D::Source::zeroed());
        if TypeId::of::<D::Act>() == TypeId::of::<D::Source>() && stride == columns {
            let zeros = buffer.of::<D::Act>(stride);
            zeros.fill(zero);
            return Self {
                values: bytemuck::cast_slice(x),
                stride,
                zeros,
            };
        }
        let all = buffer.of::<D::Act>((rows + 1) * stride);
        let (zeros, values) = all.split_at_mut(stride);
        zeros.fill(zero);
        for (to, from) in values.chunks_exact_mut(stride).zip(x.chunks_exact(columns)) {
            let (used, fill) = to.split_at_mut(columns);
            for (act, &value) in used.iter_mut().zip(from) {
                *act = D::act(value);
            }
            fill.fill(zero);
        }
        Self {
            values,
            stride,
            zeros,
        }
    }
}

/// A product in `int8` by panels.
pub(super) struct ByPanels<'a, D: Dot> {
    pub(super) isa: Isa,
    pub(super) dot: D,
    pub(super) weights: &'a Weights<'a>,
    pub(super) x: Activations<'a, D>,
    pub(super) finish: Int8<'a>,
}

impl<D: Dot<Sum = i32>> Product for ByPanels<'_, D> {
    fn nanoseconds(&self) -> u64 {
        let rows = self.x.values.len() / self.x.stride;
        work([rows, self.x.stride, self.weights.out_features]) / self.isa.int8_rate() as u64
    }

    fn tile(
        &self,
        tile: Tile,
        [panel, filled]: &mut [Buffer; 2],
        f: &mut dyn FnMut(&dyn TileProduct),
    ) {
        let product = gemm::Product::<D> {
            weights: self.weights,
            tile,
            next: None,
            count: 1,
            acts: self.x.zeros,
            stride: self.x.stride,
        };
        let mut offsets = [0; TILE];
        let outputs = product.outputs();
        let cells = panel.of::<D::Cell>(outputs * self.x.stride);
        product.decode(self.dot, cells, filled, &mut offsets);
        f(&Panels {
            product: self,
            cells,
            outputs,
            width: tile.width,
            offsets,
            constants: Constants::new(self.weights, tile),
        });
    }
}

impl<D: Dot> gemm::Product<'_, D> {
    /// All of the tile's weights as panels of [`outputs`](Self::outputs) outputs, one for each block of the
    /// input, into `cells`; the sums of its one row are added to `sums`.
    fn decode(&self, dot: D, cells: &mut [D::Cell], filled: &mut Buffer, sums: &mut [D::Sum]) {
        let weights = self.weights;
        let width = self.outputs();
        if let Codes::Pq { codes, book } = weights.codes
            && let Some(table) = D::Entry::table(book, &weights.zero)
        {
            let codes = self.fill(codes, book.block, 1, filled);
            return match book.block {
                2 => self.keep(dot, Lookup::<_, 2>::new(codes, width, table), cells, sums),
                4 => self.keep(dot, Lookup::<_, 4>::new(codes, width, table), cells, sums),
                8 => self.keep(dot, Lookup::<_, 8>::new(codes, width, table), cells, sums),
                _ => self.keep(dot, Lookup::<_, 16>::new(codes, width, table), cells, sums),
            };
        }
        if let Codes::Int8(values) = weights.codes
            && let Some(values) = D::Entry::stored(values)
        {
            let values = self.fill(values, INT8_GROUP, INT8_GROUP, filled);
            return self.keep(dot, Stored::new(values, width), cells, sums);
        }
        for (from, to) in self.blocks() {
            let cells = &mut cells[from * STEP * width..to * STEP * width];
            self.decode_each(cells, (from, to), (0, width));
            let source = Panel::new(&*cells, to - from, width);
            for first in (0..width).step_by(D::VECTORS * D::OUTPUTS) {
                let block = self.block(source, (0, 1), (from, to), (0, first));
                multiply_panel(dot, 1, &block, &mut sums[first..]);
            }
        }
    }

    /// [`decode`](Self::decode), as the microkernel looks weights up.
    fn keep<S: Source<D>>(&self, dot: D, source: S, cells: &mut [D::Cell], sums: &mut [D::Sum]) {
        let (width, group) = (self.outputs(), D::VECTORS * D::OUTPUTS);
        for (from, to) in self.blocks() {
            let cells = &mut cells[from * STEP * width..to * STEP * width];
            let groups = cells.chunks_exact_mut(group * (to - from) * STEP);
            for (keep, first) in groups.zip((0..).step_by(group)) {
                let block = self.block(source, (0, 1), (from, to), (from, first));
                let sums = &mut sums[first..];
                match D::VECTORS {
                    2 => by_rows::<D, S, 2, true>(dot, 1, &block, keep, sums),
                    _ => by_rows::<D, S, 4, true>(dot, 1, &block, keep, sums),
                }
            }
        }
    }
}

/// A tile, decoded.
struct Panels<'a, D: Dot> {
    product: &'a ByPanels<'a, D>,
    /// A panel of all outputs for each block of the input.
    cells: &'a [D::Cell],
    /// Outputs of a panel.
    outputs: usize,
    width: usize,
    /// What a row of zeros yields.
    offsets: [i32; TILE],
    constants: Constants,
}

/// The most rows of a call of the microkernel.
const ROWS: usize = 8;

impl<D: Dot<Sum = i32>> TileProduct for Panels<'_, D> {
    fn multiply(&self, rows: Range<usize>, target: &Target) {
        let count = rows.len().div_ceil(D::ROWS.min(ROWS));
        let start = |index: usize| index * rows.len() / count;
        let (mut sums, mut values) = ([0; ROWS * TILE], [0.0; ROWS * TILE]);
        for index in 0..count {
            let (from, to) = (start(index), start(index + 1));
            let sums = &mut sums[..(to - from) * TILE];
            sums.fill(0);
            self.sums(rows.start + from..rows.start + to, sums);
            self.product.dot.run(Outputs {
                panels: self,
                row: rows.start + from,
                sums,
                values: &mut values,
            });
            self.product.isa.run(Put {
                target,
                row: from,
                values: &values[..(to - from) * TILE],
            });
        }
    }
}

impl<D: Dot<Sum = i32>> Panels<'_, D> {
    /// Adds the sums of a few rows.
    fn sums(&self, rows: Range<usize>, sums: &mut [i32]) {
        let x = &self.product.x;
        let steps = x.stride / STEP;
        for from in (0..steps).step_by(D::STEPS) {
            let count = D::STEPS.min(steps - from);
            let cells = &self.cells[from * STEP * self.outputs..];
            for first in (0..self.width).step_by(D::VECTORS * D::OUTPUTS) {
                let block = Block {
                    source: Panel::new(cells, count, self.outputs),
                    rows: Rows::new(x.values, x.stride, (rows.start, rows.len()), (from, count)),
                    from: 0,
                    to: count,
                    first,
                };
                multiply_panel(self.product.dot, rows.len(), &block, &mut sums[first..]);
            }
        }
    }
}

/// The values of a few rows, from their sums.
struct Outputs<'a, D: Dot> {
    panels: &'a Panels<'a, D>,
    row: usize,
    sums: &'a mut [i32],
    values: &'a mut [f32],
}

impl<D: Dot<Sum = i32>> DotOp<D> for Outputs<'_, D> {
    #[inline(always)]
    fn eval(self, _: D) {
        let rows = self.sums.chunks_exact_mut(TILE);
        for (r, (sums, values)) in rows.zip(self.values.chunks_exact_mut(TILE)).enumerate() {
            if D::OFFSET {
                for (sum, offset) in sums.iter_mut().zip(&self.panels.offsets) {
                    *sum = sum.minus(*offset);
                }
            }
            let finish = &self.panels.product.finish;
            finish.row(&self.panels.constants, self.row + r, sums, values);
        }
    }
}

/// Values of a few rows, to be put where they belong.
struct Put<'a> {
    target: &'a Target<'a>,
    row: usize,
    /// `[rows][TILE]`
    values: &'a [f32],
}

impl Op for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for (r, values) in self.values.chunks_exact(TILE).enumerate() {
            for first in (0..self.target.count).step_by(2 * S::LANES) {
                let values = [
                    simd.load(&values[first..]),
                    simd.load(&values[first + S::LANES..]),
                ];
                self.target.put(simd, self.row + r, first, values);
            }
        }
    }
}
