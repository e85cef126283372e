//! Products in units of four bytes: a lane is an output.

use std::ops::Range;

use super::values::Floats;
use super::{Product, Target, TileProduct};
use crate::kernels::buffer::Buffer;
use crate::kernels::finish::Constants;
use crate::kernels::simd::{Op, Simd};
use crate::kernels::{Isa, QuantizedRows, Weights, work};
use crate::layout::{TILE, Tile};

/// Rows of inputs as bytes.
#[derive(Clone, Copy)]
struct Source<'a> {
    bytes: &'a [u8],
    /// Bytes of a row: a multiple of four.
    stride: usize,
    /// Of rows in `int8`.
    scales: Option<&'a QuantizedRows>,
}

impl<'a> Source<'a> {
    /// Rows of whole units, in place if they are.
    #[cfg(target_arch = "x86_64")]
    fn padded(x: &'a QuantizedRows, buffer: &'a mut Buffer) -> Self {
        let (rows, columns) = (x.rows(), x.columns());
        let stride = columns.next_multiple_of(4);
        let values = &x.values()[..rows * columns];
        let bytes = if stride == columns {
            bytemuck::cast_slice(values)
        } else {
            let padded = buffer.of::<u8>(rows * stride);
            padded.fill(0);
            for (to, from) in padded
                .chunks_exact_mut(stride)
                .zip(values.chunks_exact(columns))
            {
                to[..columns].copy_from_slice(bytemuck::cast_slice(from));
            }
            padded
        };
        Self {
            bytes,
            stride,
            scales: Some(x),
        }
    }
}

/// Calls `f` with the product in `f32`.
pub(super) struct WithFloats<'a> {
    isa: Isa,
    weights: &'a Weights<'a>,
    source: Source<'a>,
    f: &'a mut dyn FnMut(&dyn Product),
}

impl<'a> WithFloats<'a> {
    pub(super) fn new(
        isa: Isa,
        weights: &'a Weights<'a>,
        x: &'a [f32],
        f: &'a mut dyn FnMut(&dyn Product),
    ) -> Self {
        assert_eq!(x.len() % weights.in_features, 0);
        let source = Source {
            bytes: bytemuck::cast_slice(x),
            stride: weights.in_features * 4,
            scales: None,
        };
        Self {
            isa,
            weights,
            source,
            f,
        }
    }
}

impl Op for WithFloats<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        (self.f)(&ByUnits {
            units: Floats(simd),
            rate: self.isa.f32_rate(),
            weights: self.weights,
            source: self.source,
        });
    }
}

/// The product in `int8`.
#[cfg(target_arch = "x86_64")]
pub(super) fn by_int8<'a, U: Units>(
    units: U,
    isa: Isa,
    weights: &'a Weights<'a>,
    x: &'a QuantizedRows,
    buffer: &'a mut Buffer,
) -> ByUnits<'a, U> {
    ByUnits {
        units,
        rate: isa.int8_rate(),
        weights,
        source: Source::padded(x, buffer),
    }
}

/// A product in units.
pub(super) struct ByUnits<'a, U> {
    units: U,
    /// Products and sums in a nanosecond.
    rate: usize,
    weights: &'a Weights<'a>,
    source: Source<'a>,
}

impl<U: Units> Product for ByUnits<'_, U> {
    fn nanoseconds(&self) -> u64 {
        let rows = self.source.bytes.len() / self.source.stride;
        work([rows, self.weights.in_features, self.weights.out_features]) / self.rate as u64
    }

    fn tile(&self, tile: Tile, [cells, _]: &mut [Buffer; 2], f: &mut dyn FnMut(&dyn TileProduct)) {
        let cells = cells.of::<[u32; TILE]>(self.source.stride / 4);
        U::decode(self.weights, tile, cells);
        let mut starts = [self.units.start(None); STARTS];
        self.units.run(Starts {
            cells,
            starts: &mut starts,
        });
        f(&UnitsTile {
            units: self.units,
            source: self.source,
            cells,
            starts,
            constants: Constants::new(self.weights, tile),
            width: tile.width,
        });
    }
}

/// Vectors of a tile where they are the shortest.
const STARTS: usize = TILE / 4;

/// What a tile's sums start from: less what an input of zeros yields.
struct Starts<'a, A> {
    cells: &'a [[u32; TILE]],
    starts: &'a mut [A; STARTS],
}

impl<U: Units> UnitsOp<U> for Starts<'_, U::Acc> {
    #[inline(always)]
    fn eval(self, units: U) {
        let lanes = U::Simd::LANES;
        // SAFETY: four bytes.
        let zero = unsafe { units.input([0u8; 4].as_ptr()) };
        for (v, start) in self.starts.iter_mut().take(TILE / lanes).enumerate() {
            let mut sum = units.start(None);
            for cells in self.cells {
                sum = units.dot(sum, zero, units.weights(&cells[v * lanes..]));
            }
            *start = units.start(Some(sum));
        }
    }
}

/// A tile, decoded in units.
struct UnitsTile<'a, U: Units> {
    units: U,
    source: Source<'a>,
    cells: &'a [[u32; TILE]],
    starts: [U::Acc; STARTS],
    constants: Constants,
    width: usize,
}

/// The most rows whose sums are in registers.
const ROWS: usize = 6;

impl<U: Units> TileProduct for UnitsTile<'_, U> {
    fn multiply(&self, rows: Range<usize>, target: &Target) {
        let lanes = U::Simd::LANES;
        let count = rows.len().div_ceil(ROWS);
        let start = |index: usize| index * rows.len() / count;
        for index in 0..count {
            let (from, to) = (start(index), start(index + 1));
            let mut first = 0;
            while first < self.width {
                let place = Place {
                    row: rows.start + from,
                    out: from,
                    first,
                };
                first += lanes
                    * match (self.width - first).div_ceil(lanes) {
                        4.. if const { U::Simd::REGISTERS >= 32 } => {
                            self.rows::<4>(to - from, place, target)
                        }
                        2.. => self.rows::<2>(to - from, place, target),
                        _ => self.rows::<1>(to - from, place, target),
                    };
            }
        }
    }
}

impl<U: Units> UnitsTile<'_, U> {
    /// Multiplies `rows` rows; returns `V`.
    fn rows<const V: usize>(&self, rows: usize, place: Place, target: &Target) -> usize {
        macro_rules! run {
            ($rows:literal) => {
                self.units.run(Micro::<U, $rows, V> {
                    tile: self,
                    place,
                    target,
                })
            };
        }
        match rows {
            1 => run!(1),
            2 => run!(2),
            3 => run!(3),
            4 => run!(4),
            5 => run!(5),
            6 => run!(6),
            _ => unreachable!("1 to 6 rows"),
        }
        V
    }
}

/// Where a few rows and outputs are.
#[derive(Clone, Copy)]
struct Place {
    /// The first row of the input.
    row: usize,
    /// Its number in the target.
    out: usize,
    /// The first output.
    first: usize,
}

/// `R` rows and `V` vectors of outputs, all sums in registers.
struct Micro<'a, U: Units, const R: usize, const V: usize> {
    tile: &'a UnitsTile<'a, U>,
    place: Place,
    target: &'a Target<'a>,
}

impl<U: Units, const R: usize, const V: usize> UnitsOp<U> for Micro<'_, U, R, V> {
    #[inline(always)]
    fn eval(self, units: U) {
        let Self {
            tile,
            place,
            target,
        } = self;
        let (simd, lanes) = (units.simd(), U::Simd::LANES);
        let stride = tile.source.stride;
        let first = place.first;
        assert!((place.row + R) * stride <= tile.source.bytes.len());
        assert!(tile.cells.len() * 4 <= stride && first + V * lanes <= TILE);
        // SAFETY: all rows are there, as asserted above.
        let x = unsafe { tile.source.bytes.as_ptr().add(place.row * stride) };
        let mut acc = [[units.start(None); V]; R];
        for acc in &mut acc {
            acc.copy_from_slice(&tile.starts[first / lanes..][..V]);
        }
        for (unit, cells) in tile.cells.iter().enumerate() {
            let mut w = [units.weights(&cells[first..]); V];
            for v in 1..V {
                w[v] = units.weights(&cells[first + v * lanes..]);
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a row has as many units as there are cells, or more.
                let x = unsafe { units.input(x.add(r * stride + unit * 4)) };
                for v in 0..V {
                    acc[v] = units.dot(acc[v], x, w[v]);
                }
            }
        }
        let constants = &tile.constants;
        for (r, acc) in acc.into_iter().enumerate() {
            let scale = match tile.source.scales {
                Some(rows) => simd.splat(rows.scale(place.row + r)),
                None => simd.splat(1.0),
            };
            let mut values = [scale; V];
            for v in 0..V {
                let at = first + v * lanes;
                // As in `finish`, operation by operation.
                let factor = simd.mul(scale, simd.load(&constants.factor[at..]));
                let product = simd.mul(units.to_float(acc[v]), factor);
                values[v] = simd.add(product, simd.load(&constants.bias[at..]));
            }
            target.put(simd, place.out + r, first, values);
        }
    }
}

/// A computation with units.
pub(in crate::kernels) trait UnitsOp<U> {
    /// The computation; `#[inline(always)]`.
    fn eval(self, units: U);
}

/// What multiplies units of four bytes: four `int8`, or one `f32`.
pub(in crate::kernels) trait Units: Copy + Send + Sync + 'static {
    type Simd: Simd;
    /// A unit of the input, in all lanes.
    type X: Copy;
    /// A unit of weights in each lane.
    type W: Copy;
    /// A sum in each lane.
    type Acc: Copy;

    fn simd(self) -> Self::Simd;

    /// Runs `op`, compiled for this instruction set.
    fn run<O: UnitsOp<Self>>(self, op: O);

    /// Fills `cells`, `[units][TILE]`, with a tile's weights, and finite values where there are none.
    fn decode(weights: &Weights, tile: Tile, cells: &mut [[u32; TILE]]);

    /// What sums start from, given what a row of zeros yields, or 0.
    fn start(self, zeros: Option<Self::Acc>) -> Self::Acc;

    /// # Safety
    /// - Four bytes can be read at `unit`.
    unsafe fn input(self, unit: *const u8) -> Self::X;

    /// The first `LANES` cells.
    ///
    /// # Panics
    /// If there are fewer.
    fn weights(self, cells: &[u32]) -> Self::W;

    fn dot(self, acc: Self::Acc, x: Self::X, w: Self::W) -> Self::Acc;

    fn to_float(self, acc: Self::Acc) -> <Self::Simd as Simd>::F;
}
