//! Pointwise convolutions: the product with all pixels of an image, which are many, while inputs and outputs
//! are often few.
//!
//! A tile of 64 outputs is decoded once, and multiplied with a few rows at a time whose sums stay in registers
//! until they are outputs. Here a lane is an output: a unit of the input, four bytes, meets a vector of
//! weights in all lanes, so that nothing is left to be added up across lanes. That takes instructions that
//! multiply four `int8` at a time; without them, `int8` products are [`panels`]' matter.

mod panels;
mod units;
mod values;

use std::cell::RefCell;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(super) use units::{Units, UnitsOp};
#[cfg(target_arch = "x86_64")]
pub(super) use values::decode_int8;

use super::buffer::Buffer;
use super::elementwise::{Activation, apply};
use super::finish::Int8;
use super::shared::Shared;
use super::simd::Simd;
use super::{Codes, Isa, QuantizedRows, Threads, Weights};
use crate::layout::Tile;
use panels::{Activations, ByPanels};
use units::WithFloats;

/// What becomes of an output.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    Nothing,
    Activation(Activation),
    /// It is added to what was there.
    Sum,
}

/// Inputs, `[pixels][in_features]`.
#[derive(Clone, Copy)]
pub(crate) enum Pixels<'a> {
    Exact(&'a [f32]),
    Int8(&'a QuantizedRows),
}

impl Pixels<'_> {
    fn count(&self, weights: &Weights) -> usize {
        match self {
            Pixels::Exact(x) => x.len() / weights.in_features,
            Pixels::Int8(x) => x.rows(),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<[Buffer; 2]> = RefCell::default();
    /// Of the thread that calls; taken while it waits for others.
    static PADDED: RefCell<Buffer> = RefCell::default();
}

/// `y[pixels, out_features] = x W^T + bias`, and then `then`.
pub(crate) fn linear(
    (isa, threads): (Isa, Threads),
    weights: &Weights,
    x: Pixels,
    y: &mut [f32],
    then: Then,
) {
    let rows = x.count(weights);
    assert_eq!(y.len(), rows * weights.out_features);
    let y = Shared::new(y);
    with_product(isa, weights, x, &mut |product| {
        let tiles = Tile::count(weights.out_features);
        let parts = match threads.0 {
            1 => 1,
            n => (4 * n).div_ceil(tiles).min(rows.div_ceil(64)),
        };
        threads.each_for(tiles * parts, product.nanoseconds(), |item| {
            let (part, tile) = (item % parts, Tile::nth(item / parts, weights.out_features));
            let rows = part * rows / parts..(part + 1) * rows / parts;
            let start = rows.start * weights.out_features + tile.first;
            let place = (start, weights.out_features, tile.width);
            // SAFETY: a tile and a part of the rows are handed to one thread.
            let target = unsafe { Target::new(&y, place, then) };
            SCRATCH.with_borrow_mut(|scratch| {
                product.tile(tile, scratch, &mut |tile| {
                    tile.multiply(rows.clone(), &target)
                });
            });
        });
    });
}

/// Where outputs of a tile go.
pub(super) struct Target<'a> {
    values: &'a Shared<'a, f32>,
    start: usize,
    stride: usize,
    count: usize,
    then: Then,
}

impl<'a> Target<'a> {
    /// The outputs of the first row go to `start` and on, those of others `stride` apart; `count` of them: as
    /// many as the tile has, or filled up to a multiple of 16.
    ///
    /// # Safety
    /// - As long as the target is in use, one thread uses it, and nothing else is at work on these values.
    pub(super) unsafe fn new(
        values: &'a Shared<'a, f32>,
        (start, stride, count): (usize, usize, usize),
        then: Then,
    ) -> Self {
        Self {
            values,
            start,
            stride,
            count,
            then,
        }
    }

    /// Puts vectors of the outputs from `first` on of row `row`.
    #[inline(always)]
    fn put<S: Simd, const V: usize>(
        &self,
        simd: S,
        row: usize,
        first: usize,
        mut values: [S::F; V],
    ) {
        if let Then::Activation(activation) = self.then {
            values = apply(simd, activation, values);
        }
        for (v, value) in values.into_iter().enumerate() {
            let first = first + v * S::LANES;
            if first >= self.count {
                break;
            }
            let start = self.start + row * self.stride + first;
            // SAFETY: the contract of `new`; the part is dropped before the next one is made.
            let out = unsafe {
                self.values
                    .part(start..start + S::LANES.min(self.count - first))
            };
            let value = match self.then {
                Then::Sum => simd.add(simd.load_part(out, 0.0), value),
                _ => value,
            };
            simd.store_part(value, out);
        }
    }
}

/// A product with pixels, by whichever instructions there are.
pub(super) trait Product: Sync {
    /// About what it takes.
    fn nanoseconds(&self) -> u64;

    /// Decodes a tile and hands it on.
    fn tile(&self, tile: Tile, buffers: &mut [Buffer; 2], f: &mut dyn FnMut(&dyn TileProduct));
}

/// A decoded tile.
pub(super) trait TileProduct {
    /// The outputs of `rows`; those of the first one go to the target's start.
    fn multiply(&self, rows: Range<usize>, target: &Target);
}

/// Calls `f` with the product of `weights` and `x`.
pub(super) fn with_product(
    isa: Isa,
    weights: &Weights,
    x: Pixels,
    f: &mut dyn FnMut(&dyn Product),
) {
    let mut buffer = PADDED.take();
    match x {
        Pixels::Exact(x) => isa.run(WithFloats::new(isa, weights, x, f)),
        Pixels::Int8(x) => {
            assert_eq!(x.columns(), weights.in_features);
            #[cfg(target_arch = "x86_64")]
            if let Some(token) = isa.vnni()
                && matches!(weights.zero, super::Zero::Tensor(0))
            {
                let units = super::x86::vnni::VnniUnits(token);
                f(&units::by_int8(units, isa, weights, x, &mut buffer));
                return PADDED.set(buffer);
            }
            let finish = Int8::new(x, 0);
            let room = match weights.codes {
                Codes::Pq { book, .. } if book.looks_up() => book.room.min(2),
                _ => 0,
            };
            dispatch_int8!(isa, room, dot => {
                let x = Activations::new(weights, x.values(), x.rows(), &mut buffer);
                f(&ByPanels { isa, dot, weights, x, finish });
            });
        }
    }
    PADDED.set(buffer);
}
