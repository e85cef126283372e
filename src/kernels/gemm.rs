//! The product with all rows, tile by tile.
//!
//! A tile of 64 outputs is multiplied with a block of rows in one go, [`Dot::STEPS`] steps of the
//! input at a time:
//!
//! 1. The first few rows are multiplied with weights that the microkernel looks up as it goes. If
//!    there are more rows, it leaves what it looked up in a panel of [`Dot::PANEL`] outputs, which
//!    stays in the first-level cache. Looking up runs in the shadow of the multiplications.
//! 2. The other rows are multiplied with that panel.
//!
//! For a few rows there is therefore no panel at all. The rows are shared out evenly, so that none
//! of the microkernel's calls is left with a single row.
//!
//! Where a block of the input ends depends on nothing but the instruction set, and the rows of a
//! call have sums of their own: in `f32`, too, a row's result is the same among any others.

use std::any::TypeId;
use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

use super::buffer::Buffer;
use super::dot::{Dot, DotOp, STEP, Sum};
use super::entry::Entry;
use super::finish::{Constants, Finish};
use super::micro::{Block, Micro, Rows};
use super::shared::Shared;
use super::source::{Lookup, Panel, Source, Stored};
use super::{Codes, Threads, Weights, prefetch, work};
use crate::layout::{INT8_GROUP, TILE, Tile};

/// Rows whose activations are used together: those of a block of 768 inputs take 74 kB as bytes and
/// 147 kB as `i16`, a part of a second-level cache.
const ROW_BLOCK: usize = 96;

#[derive(Default)]
struct Scratch {
    panel: Buffer,
    sums: Buffer,
    /// Codes or integers of a tile, filled up.
    filled: Buffer,
}

thread_local! {
    /// Of the thread that calls; taken while it waits for others, as it may then be handed work
    /// of another call.
    static ACTIVATIONS: RefCell<Buffer> = RefCell::default();
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// How many steps the weights have, fill included.
pub(super) fn steps(weights: &Weights) -> usize {
    let unit = match weights.codes {
        Codes::Pq { book, .. } if book.block == 2 * STEP => 2 * STEP,
        _ => STEP,
    };
    weights.in_features.next_multiple_of(unit) / STEP
}

/// `x` is `[rows][stride]`; the first `columns` of a row are multiplied.
pub(super) struct Input<'a, T> {
    pub(super) values: &'a [T],
    pub(super) rows: usize,
    pub(super) stride: usize,
}

/// Fills `y` (`[rows][out_features]`). `rate` is about how many products are multiplied and added in a
/// nanosecond.
pub(super) fn linear<D: Dot, F: Finish<D::Sum>>(
    dot: D,
    (threads, rate): (Threads, usize),
    weights: &Weights,
    x: &Input<D::Source>,
    finish: &F,
    y: &mut [f32],
) {
    let (steps, columns) = (steps(weights), weights.in_features);
    let stride = steps * STEP;
    let known = weights.offsets.filter(|_| D::OFFSET).and_then(|o| o.get());
    let known: Option<&[D::Sum]> = known.map(|offsets| bytemuck::cast_slice(offsets));
    let offset = usize::from(D::OFFSET && known.is_none());
    let blocks = x.rows.div_ceil(ROW_BLOCK);
    // As long as offsets are not known, every block of rows starts with a row of zeros.
    let block = |index: usize| {
        let from = index * x.rows / blocks;
        (from, (index + 1) * x.rows / blocks - from)
    };
    let mut buffer = ACTIVATIONS.take();
    let as_they_are = TypeId::of::<D::Act>() == TypeId::of::<D::Source>();
    let acts = if as_they_are && offset == 0 && stride == columns && x.stride == columns {
        bytemuck::cast_slice(&x.values[..x.rows * columns])
    } else {
        let acts = buffer.of::<D::Act>((x.rows + blocks * offset) * stride);
        let zero = D::act(D::Source::zeroed());
        for index in 0..blocks {
            let (from, count) = block(index);
            let acts = &mut acts[(from + index * offset) * stride..];
            acts[..offset * stride].fill(zero);
            let rows = acts[offset * stride..].chunks_exact_mut(stride);
            for (row, acts) in rows.take(count).enumerate() {
                let (used, fill) = acts.split_at_mut(columns);
                let values = &x.values[(from + row) * x.stride..][..columns];
                for (act, &value) in used.iter_mut().zip(values) {
                    *act = D::act(value);
                }
                fill.fill(zero);
            }
        }
        &*acts
    };

    let mut found = vec![0; if offset == 1 { weights.out_features } else { 0 }];
    let offsets = Shared::new(&mut found);
    let output = Shared::new(y);
    let tiles = Tile::count(weights.out_features);
    let work = work([x.rows, weights.out_features, columns]);
    threads.each_for(tiles * blocks, work / rate as u64, |item| {
        let (index, tile) = (item % blocks, item / blocks);
        let (row, count) = block(index);
        let first = row + index * offset;
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch {
                panel,
                sums,
                filled,
            } = scratch;
            let product = Product::<D> {
                weights,
                tile: Tile::nth(tile, weights.out_features),
                // Once: the other blocks of rows find it in a cache.
                next: (index == 0 && tile + 1 < tiles)
                    .then(|| Tile::nth(tile + 1, weights.out_features)),
                count: count + offset,
                acts: &acts[first * stride..][..(count + offset) * stride],
                stride,
            };
            let sums = sums.of::<D::Sum>(product.count * TILE);
            sums.fill(D::Sum::zeroed());
            product.multiply(dot, panel, filled, sums);
            dot.run(Outputs {
                constants: Constants::new(weights, product.tile),
                finish,
                output: &output,
                first: row * weights.out_features + product.tile.first,
                width: product.tile.width,
                row,
                sums,
                out_features: weights.out_features,
                known: known.map(|known| &known[product.tile.first..][..product.tile.width]),
                found: (offset == 1 && index == 0).then_some((&offsets, product.tile.first)),
            });
        });
    });
    ACTIVATIONS.set(buffer);
    if let Some(offsets) = weights.offsets
        && offset == 1
    {
        // Another call may have been faster, with the same numbers.
        let _ = offsets.set(found.into());
    }
}

/// The outputs of a tile and a block of rows, from their sums.
struct Outputs<'a, D: Dot, F> {
    constants: Constants,
    finish: &'a F,
    /// `[rows][out_features]`
    output: &'a Shared<'a, f32>,
    /// Where the first one stands.
    first: usize,
    /// Outputs of a row.
    width: usize,
    row: usize,
    /// `[rows][64]`, after a row of what is to be subtracted if there is an offset that is not known.
    sums: &'a mut [D::Sum],
    out_features: usize,
    /// What is to be subtracted from each output, where it is known.
    known: Option<&'a [D::Sum]>,
    /// Where it goes to be known: all outputs, and the first of these.
    found: Option<(&'a Shared<'a, i32>, usize)>,
}

impl<D: Dot, F: Finish<D::Sum>> DotOp<D> for Outputs<'_, D, F> {
    #[inline(always)]
    fn eval(self, _: D) {
        let unknown = D::OFFSET && self.known.is_none();
        let (first, sums) = self.sums.split_at_mut(usize::from(unknown) * TILE);
        if let Some((found, at)) = self.found {
            // SAFETY: of all blocks of rows only the first hands the offsets of its tile on.
            let found = unsafe { found.part(at..at + self.width) };
            found.copy_from_slice(bytemuck::cast_slice(&first[..self.width]));
        }
        let offsets = self.known.unwrap_or(first);
        for (r, sums) in sums.chunks_exact_mut(TILE).enumerate() {
            if D::OFFSET {
                for (sum, offset) in sums.iter_mut().zip(offsets) {
                    *sum = sum.minus(*offset);
                }
            }
            let start = self.first + r * self.out_features;
            // SAFETY: a tile and a block of rows are handed to one thread.
            let out = unsafe { self.output.part(start..start + self.width) };
            self.finish.row(&self.constants, self.row + r, sums, out);
        }
    }
}

/// The sums of a tile and a block of rows.
pub(super) struct Product<'a, D: Dot> {
    pub(super) weights: &'a Weights<'a>,
    pub(super) tile: Tile,
    /// The tile that most likely comes next.
    pub(super) next: Option<Tile>,
    pub(super) count: usize,
    pub(super) acts: &'a [D::Act],
    pub(super) stride: usize,
}

impl<D: Dot> Product<'_, D> {
    fn multiply(&self, dot: D, panel: &mut Buffer, filled: &mut Buffer, sums: &mut [D::Sum]) {
        let weights = self.weights;
        let width = self.outputs();
        if let Codes::Pq { codes, book } = weights.codes
            && let Some(table) = D::Entry::table(book, &weights.zero)
        {
            let codes = self.fill(codes, book.block, 1, filled);
            return match book.block {
                2 => self.looked_up(dot, Lookup::<_, 2>::new(codes, width, table), panel, sums),
                4 => self.looked_up(dot, Lookup::<_, 4>::new(codes, width, table), panel, sums),
                8 => self.looked_up(dot, Lookup::<_, 8>::new(codes, width, table), panel, sums),
                _ => self.looked_up(dot, Lookup::<_, 16>::new(codes, width, table), panel, sums),
            };
        }
        if let Codes::Int8(values) = weights.codes
            && let Some(values) = D::Entry::stored(values)
        {
            let values = self.fill(values, INT8_GROUP, INT8_GROUP, filled);
            return self.looked_up(dot, Stored::new(values, width), panel, sums);
        }
        self.decoded(dot, panel, sums);
    }

    /// Outputs that are looked up: the tile's, filled up to whole groups.
    pub(super) fn outputs(&self) -> usize {
        self.tile.width.next_multiple_of(4 * D::OUTPUTS)
    }

    /// The tile's units of `each` values for `block` inputs, as `[units][outputs()]`: in place, or
    /// copied with zeros where outputs or inputs are missing. Zero activations meet the fill of the
    /// input, and nobody reads the sums of the fill of the outputs.
    pub(super) fn fill<'a, T: Pod>(
        &self,
        values: &'a [T],
        block: usize,
        each: usize,
        filled: &'a mut Buffer,
    ) -> &'a [T] {
        let units = self.weights.in_features.div_ceil(block);
        let needed = self.stride / block;
        let (tile, outputs) = (self.tile, self.outputs());
        let range = tile.range(units);
        let values = &values[range.start * each..range.end * each];
        if outputs == tile.width && units >= needed {
            return values;
        }
        let filled = filled.of::<T>(needed.max(units) * outputs * each);
        filled.fill(T::zeroed());
        let rows = values.chunks_exact(tile.width * each);
        for (to, from) in filled.chunks_exact_mut(outputs * each).zip(rows) {
            to[..from.len()].copy_from_slice(from);
        }
        filled
    }

    /// Codes of the next tile.
    fn next_codes(&self) -> &[u8] {
        match (self.next, self.weights.codes) {
            (Some(next), Codes::Pq { codes, book }) => {
                &codes[next.range(self.weights.in_features.div_ceil(book.block))]
            }
            _ => &[],
        }
    }

    /// All rows, the first ones with weights as they are looked up.
    fn looked_up<S: Source<D>>(&self, dot: D, source: S, panel: &mut Buffer, sums: &mut [D::Sum]) {
        let chunks = Chunks::new::<D>(self.count);
        let (next, inputs) = (self.next_codes(), self.blocks().count());
        for (input, (from, to)) in self.blocks().enumerate() {
            // While outputs `first..` are looked up.
            let prefetch = |first: usize, width: usize| {
                let groups = self.outputs() / width;
                prefetch::part(next, input * groups + first / width, inputs * groups);
            };
            if chunks.count == 1 {
                let rows = self.count;
                let vectors = if rows <= D::FEW { 4 } else { D::VECTORS };
                for first in (0..self.outputs()).step_by(vectors * D::OUTPUTS) {
                    prefetch(first, vectors * D::OUTPUTS);
                    let block = self.block(source, (0, rows), (from, to), (from, first));
                    let sums = &mut sums[first..];
                    match vectors {
                        2 => by_rows::<D, S, 2, false>(dot, rows, &block, &mut [], sums),
                        _ => by_rows::<D, S, 4, false>(dot, rows, &block, &mut [], sums),
                    }
                }
                continue;
            }
            let steps = to - from;
            let (_, rows) = chunks.nth(0);
            for start in (0..self.outputs()).step_by(D::PANEL) {
                let outputs = D::PANEL.min(self.outputs() - start);
                let cells = panel.of::<D::Cell>(outputs * steps * STEP);
                let group = D::VECTORS * D::OUTPUTS;
                let groups = cells.chunks_exact_mut(group * steps * STEP);
                for (g, keep) in groups.enumerate() {
                    let first = start + g * group;
                    prefetch(first, group);
                    let block = self.block(source, (0, rows), (from, to), (from, first));
                    let sums = &mut sums[first..];
                    match D::VECTORS {
                        2 => by_rows::<D, S, 2, true>(dot, rows, &block, keep, sums),
                        _ => by_rows::<D, S, 4, true>(dot, rows, &block, keep, sums),
                    }
                }
                self.with_panel(dot, cells, (from, to), (start, outputs), &chunks, 1, sums);
            }
        }
    }

    /// Whatever has no lookup of its own: decoded one output's step at a time.
    fn decoded(&self, dot: D, panel: &mut Buffer, sums: &mut [D::Sum]) {
        let chunks = Chunks::new::<D>(self.count);
        for (from, to) in self.blocks() {
            let steps = to - from;
            for start in (0..self.outputs()).step_by(D::PANEL) {
                let outputs = D::PANEL.min(self.outputs() - start);
                let cells = panel.of::<D::Cell>(outputs * steps * STEP);
                self.decode_each(cells, (from, to), (start, outputs));
                self.with_panel(dot, cells, (from, to), (start, outputs), &chunks, 0, sums);
            }
        }
    }

    /// A panel of `outputs` outputs from `start` on.
    pub(super) fn decode_each(
        &self,
        cells: &mut [D::Cell],
        (from, to): (usize, usize),
        (start, outputs): (usize, usize),
    ) {
        let steps = to - from;
        cells.fill(D::cell(D::Entry::zeroed()));
        let group = D::VECTORS * D::OUTPUTS;
        let tile = self.tile;
        let real = outputs.min(tile.width.saturating_sub(start));
        let filled = self.weights.in_features.div_ceil(STEP);
        D::Entry::decode(
            self.weights,
            tile,
            start..start + real,
            from..to.min(filled),
            |o, step, values| {
                let (o, step) = (o - start, step - from);
                let place = (o / group * steps + step) * group + o % group;
                cells[place * STEP..][..STEP].copy_from_slice(&values.map(D::cell));
            },
        );
    }

    /// The rows from chunk `chunk` on, with a decoded panel.
    #[allow(clippy::too_many_arguments)]
    fn with_panel(
        &self,
        dot: D,
        cells: &[D::Cell],
        (from, to): (usize, usize),
        (start, outputs): (usize, usize),
        chunks: &Chunks,
        chunk: usize,
        sums: &mut [D::Sum],
    ) {
        let source = Panel::new(cells, to - from, outputs);
        for (row, rows) in (chunk..chunks.count).map(|c| chunks.nth(c)) {
            for first in (0..outputs).step_by(D::VECTORS * D::OUTPUTS) {
                let block = self.block(source, (row, rows), (from, to), (0, first));
                multiply_panel(dot, rows, &block, &mut sums[row * TILE + start + first..]);
            }
        }
    }

    /// The blocks of the input, as ranges of steps.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<D> {
        let steps = self.stride / STEP;
        (0..steps.div_ceil(D::STEPS))
            .map(move |block| (block * D::STEPS, ((block + 1) * D::STEPS).min(steps)))
    }

    /// Rows and steps `from..to` of the input, with a source whose steps start at `step`.
    pub(super) fn block<S>(
        &self,
        source: S,
        rows: (usize, usize),
        (from, to): (usize, usize),
        (step, first): (usize, usize),
    ) -> Block<'_, D, S> {
        Block {
            source,
            rows: Rows::new(self.acts, self.stride, rows, (from, to - from)),
            from: step,
            to: step + to - from,
            first,
        }
    }
}

/// The rows of a block in calls of the microkernel, as even as they come.
struct Chunks {
    rows: usize,
    count: usize,
}

impl Chunks {
    fn new<D: Dot>(rows: usize) -> Self {
        Self {
            rows,
            count: rows.div_ceil(D::ROWS),
        }
    }

    /// The first row and how many.
    fn nth(&self, index: usize) -> (usize, usize) {
        let from = index * self.rows / self.count;
        (from, (index + 1) * self.rows / self.count - from)
    }
}

/// The sums of `rows` rows with the `VECTORS * OUTPUTS` outputs of a panel are added to `sums`, row by row
/// [`TILE`] apart.
pub(super) fn multiply_panel<D: Dot>(
    dot: D,
    rows: usize,
    block: &Block<D, Panel<D::Cell>>,
    sums: &mut [D::Sum],
) {
    match D::VECTORS {
        2 => by_rows::<D, _, 2, false>(dot, rows, block, &mut [], sums),
        _ => by_rows::<D, _, 4, false>(dot, rows, block, &mut [], sums),
    }
}

/// `rows` rows of a block, by the microkernel for so many: `V` vectors at a time, and with `KEEP` into `keep`.
pub(super) fn by_rows<D: Dot, S: Source<D>, const V: usize, const KEEP: bool>(
    dot: D,
    rows: usize,
    block: &Block<D, S>,
    keep: &mut [D::Cell],
    sums: &mut [D::Sum],
) {
    macro_rules! run {
        ($($rows:literal)*) => {
            match rows {
                $($rows if const { occurs::<D>($rows, V, KEEP) } => {
                    dot.run(Micro::<D, S, $rows, V, KEEP> {
                        block,
                        keep,
                        sums,
                        width: TILE,
                    })
                })*
                _ => unreachable!("{rows} rows, {V} vectors"),
            }
        };
    }
    run!(1 2 3 4 5 6 7 8)
}

/// Whether [`by_rows`] is ever called so: only those microkernels are compiled, half of all.
const fn occurs<D: Dot>(rows: usize, vectors: usize, keep: bool) -> bool {
    // The first of several calls, which share rows out evenly.
    let first = rows >= D::ROWS.div_ceil(2);
    rows <= D::ROWS
        && match vectors == D::VECTORS {
            true => !keep || first || rows == 1,
            false => vectors == 4 && rows <= D::FEW,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever [`Product`] calls is compiled, for instruction sets that this machine lacks, too.
    fn all_that_is_called_occurs<D: Dot>() {
        for count in 1..=2 * ROW_BLOCK {
            let chunks = Chunks::new::<D>(count);
            if chunks.count == 1 {
                let vectors = if count <= D::FEW { 4 } else { D::VECTORS };
                assert!(occurs::<D>(count, vectors, false), "{count}");
            } else {
                let (_, first) = chunks.nth(0);
                assert!(occurs::<D>(first, D::VECTORS, true), "{count}");
            }
            for (_, rows) in (0..chunks.count).map(|index| chunks.nth(index)) {
                assert!(occurs::<D>(rows, D::VECTORS, false), "{count}");
            }
        }
        assert!(occurs::<D>(1, D::VECTORS, true));
        assert!(!occurs::<D>(D::ROWS + 1, D::VECTORS, false));
    }

    #[test]
    fn microkernels_that_are_called_are_compiled() {
        #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
        {
            use crate::kernels::portable_dot::{PortableF32, PortableInt8};
            all_that_is_called_occurs::<PortableInt8>();
            all_that_is_called_occurs::<PortableF32>();
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        {
            use crate::kernels::wasm32::dot::{Simd128F32, Simd128Int8};
            all_that_is_called_occurs::<Simd128Int8>();
            all_that_is_called_occurs::<Simd128F32>();
        }
        #[cfg(target_arch = "x86_64")]
        {
            use crate::kernels::x86::{avx2_dot::*, avx512_dot::*, vnni::VnniInt8};
            all_that_is_called_occurs::<Avx2Int8>();
            all_that_is_called_occurs::<Avx2Narrow>();
            all_that_is_called_occurs::<Avx2Narrower>();
            all_that_is_called_occurs::<Avx2F32>();
            all_that_is_called_occurs::<Avx512Int8>();
            all_that_is_called_occurs::<Avx512F32>();
            all_that_is_called_occurs::<VnniInt8>();
        }
        #[cfg(target_arch = "aarch64")]
        {
            use crate::kernels::aarch64::{dotprod::DotprodInt8, i8mm::I8mmInt8, neon_dot::*};
            all_that_is_called_occurs::<NeonInt8>();
            all_that_is_called_occurs::<NeonF32>();
            all_that_is_called_occurs::<DotprodInt8>();
            all_that_is_called_occurs::<I8mmInt8>();
        }
    }
}
