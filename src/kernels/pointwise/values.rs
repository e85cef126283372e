//! What units are made of: `f32`, or four `int8`.

use super::units::{Units, UnitsOp};
use crate::kernels::entry::Entry;
use crate::kernels::simd::{Op, Simd};
use crate::kernels::{Codebook, Codes, Weights, Zero};
use crate::layout::{INT8_GROUP, TILE, Tile};

/// `f32` by any instruction set.
#[derive(Clone, Copy)]
pub(super) struct Floats<S>(pub(super) S);

impl<S: Simd> Units for Floats<S> {
    type Simd = S;
    type X = S::F;
    type W = S::F;
    type Acc = S::F;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline]
    fn run<O: UnitsOp<Self>>(self, op: O) {
        struct Inner<U, O>(U, O);

        impl<U, O: UnitsOp<U>> Op for Inner<U, O> {
            type Output = ();

            #[inline(always)]
            fn eval<S: Simd>(self, _: S) {
                self.1.eval(self.0);
            }
        }

        self.0.run(Inner(self, op));
    }

    fn decode(weights: &Weights, tile: Tile, cells: &mut [[u32; TILE]]) {
        if tile.width < TILE {
            cells.fill([0; TILE]);
        }
        if let Codes::Pq { codes, book } = weights.codes
            && matches!(weights.zero, Zero::Tensor(0))
        {
            let codes = &codes[tile.range(weights.in_features.div_ceil(book.block))];
            if book.block == 4
                && let Ok(table) =
                    <&[[f32; 4]; Codebook::ROWS]>::try_from(book.f32.as_chunks::<4>().0)
            {
                // Four cells at a time, of a code that is in the table.
                let parts = cells.chunks_mut(4).zip(codes.chunks(tile.width));
                for (cells, codes) in parts {
                    for (o, &code) in codes.iter().enumerate() {
                        let values = table[usize::from(code)];
                        for (cells, value) in cells.iter_mut().zip(values) {
                            cells[o] = value.to_bits();
                        }
                    }
                }
                return;
            }
            let parts = cells.chunks_mut(book.block).zip(codes.chunks(tile.width));
            for (cells, codes) in parts {
                for (i, cells) in cells.iter_mut().enumerate() {
                    for (cell, &code) in cells.iter_mut().zip(codes) {
                        *cell = book.f32[usize::from(code) * book.block + i].to_bits();
                    }
                }
            }
            return;
        }
        let steps = 0..weights.in_features.div_ceil(INT8_GROUP);
        f32::decode(weights, tile, 0..tile.width, steps, |o, step, values| {
            let cells = cells[step * INT8_GROUP..].iter_mut();
            for (cells, value) in cells.zip(values) {
                cells[o] = value.to_bits();
            }
        });
    }

    #[inline(always)]
    fn start(self, _: Option<S::F>) -> S::F {
        self.0.splat(0.0)
    }

    #[inline(always)]
    unsafe fn input(self, unit: *const u8) -> S::F {
        // SAFETY: the caller's contract.
        self.0.splat(unsafe { unit.cast::<f32>().read_unaligned() })
    }

    #[inline(always)]
    fn weights(self, cells: &[u32]) -> S::F {
        self.0.load(bytemuck::cast_slice(cells))
    }

    #[inline(always)]
    fn dot(self, acc: S::F, x: S::F, w: S::F) -> S::F {
        self.0.mul_add(x, w, acc)
    }

    #[inline(always)]
    fn to_float(self, acc: S::F) -> S::F {
        acc
    }
}

/// Four `int8` weights a cell, as [`Units::decode`] fills them in.
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) fn decode_int8(weights: &Weights, tile: Tile, cells: &mut [[u32; TILE]]) {
    if tile.width < TILE {
        cells.fill([0; TILE]);
    }
    let unit = |values: &[i8; 4]| u32::from_le_bytes(values.map(i8::cast_unsigned));
    match weights.codes {
        Codes::Pq { codes, book } if book.block.is_multiple_of(4) => {
            let units = book.block / 4;
            let (table, _) = book.int8.as_chunks::<4>();
            let codes = &codes[tile.range(weights.in_features.div_ceil(book.block))];
            if units == 1
                && let Ok(table) = <&[[i8; 4]; Codebook::ROWS]>::try_from(table)
            {
                // No code is outside such a table, and nothing has to check it.
                for (cells, codes) in cells.iter_mut().zip(codes.chunks(tile.width)) {
                    for (cell, &code) in cells.iter_mut().zip(codes) {
                        *cell = unit(&table[usize::from(code)]);
                    }
                }
                return;
            }
            for (cells, codes) in cells.chunks_mut(units).zip(codes.chunks(tile.width)) {
                for (i, cells) in cells.iter_mut().enumerate() {
                    for (cell, &code) in cells.iter_mut().zip(codes) {
                        *cell = unit(&table[usize::from(code) * units + i]);
                    }
                }
            }
        }
        _ => {
            let steps = 0..weights.in_features.div_ceil(INT8_GROUP);
            i8::decode(weights, tile, 0..tile.width, steps, |o, step, values| {
                let (values, _) = values.as_chunks::<4>();
                for (cells, values) in cells[2 * step..].iter_mut().zip(values) {
                    cells[o] = unit(values);
                }
            });
        }
    }
}
