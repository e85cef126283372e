//! Dot products by the `wide` crate.

use wide::{f32x8, i16x8, i32x4};

use super::dot::{Dot, DotOp, STEP};

/// `int8` values widened to `i16`, whose products are added in pairs.
#[derive(Clone, Copy)]
pub(crate) struct PortableInt8;

impl Dot for PortableInt8 {
    type Entry = i8;
    type Cell = i16;
    type Source = i8;
    type Act = i16;
    type Sum = i32;
    type W = i16x8;
    type X = i16x8;
    /// Four partial sums.
    type Acc = i32x4;
    const OUTPUTS: usize = 1;
    const ROWS: usize = 3;
    const VECTORS: usize = 4;
    const STEPS: usize = 96;
    const PANEL: usize = 16;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        op.eval(self);
    }

    #[inline(always)]
    fn act(value: i8) -> i16 {
        i16::from(value)
    }

    #[inline(always)]
    fn cell(entry: i8) -> i16 {
        i16::from(entry)
    }

    #[inline(always)]
    fn zero(self) -> i32x4 {
        i32x4::ZERO
    }

    #[inline(always)]
    fn dot(self, acc: i32x4, w: i16x8, x: i16x8) -> i32x4 {
        acc + w.dot(x)
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [i32x4; V], _: usize, out: &mut [i32]) {
        for (acc, out) in acc.iter().zip(&mut out[..V]) {
            let [a, b, c, d] = acc.to_array();
            *out += (a + b) + (c + d);
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i16) -> i16x8 {
        // SAFETY: the caller's contract.
        unsafe { cells.cast::<i16x8>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, w: i16x8, cells: *mut i16) {
        // SAFETY: the caller's contract.
        unsafe { cells.cast::<i16x8>().write_unaligned(w) }
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const i16, _: *const i16) -> i16x8 {
        // SAFETY: the caller's contract.
        unsafe { first.cast::<i16x8>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> i16x8 {
        // SAFETY: the caller's contract.
        widen(unsafe { entries.cast::<[i8; STEP]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> i16x8 {
        // SAFETY: the caller's contract.
        widen(unsafe { pieces::<i8, P>(|p| at(0, p)) })
    }
}

#[inline(always)]
fn widen(values: [i8; STEP]) -> i16x8 {
    i16x8::new(values.map(i16::from))
}

/// `P` pieces of `STEP / P` values, one after another.
///
/// # Safety
/// - `P` is 1, 2 or 4, and `STEP / P` values can be read at each place.
#[inline(always)]
unsafe fn pieces<T: Copy + Default, const P: usize>(at: impl Fn(usize) -> *const T) -> [T; STEP] {
    let mut values = [T::default(); STEP];
    for (p, piece) in values.chunks_exact_mut(STEP / P).enumerate() {
        // SAFETY: the caller's contract.
        piece.copy_from_slice(unsafe { std::slice::from_raw_parts(at(p), STEP / P) });
    }
    values
}

/// `f32`, multiplied and added in two roundings.
#[derive(Clone, Copy)]
pub(crate) struct PortableF32;

impl Dot for PortableF32 {
    type Entry = f32;
    type Cell = f32;
    type Source = f32;
    type Act = f32;
    type Sum = f32;
    type W = f32x8;
    type X = f32x8;
    /// Eight partial sums.
    type Acc = f32x8;
    const OUTPUTS: usize = 1;
    const ROWS: usize = 3;
    const VECTORS: usize = 2;
    const STEPS: usize = 96;
    const PANEL: usize = 8;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        op.eval(self);
    }

    #[inline(always)]
    fn act(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn cell(entry: f32) -> f32 {
        entry
    }

    #[inline(always)]
    fn zero(self) -> f32x8 {
        f32x8::ZERO
    }

    #[inline(always)]
    fn dot(self, acc: f32x8, w: f32x8, x: f32x8) -> f32x8 {
        acc + w * x
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [f32x8; V], _: usize, out: &mut [f32]) {
        for (acc, out) in acc.iter().zip(&mut out[..V]) {
            let [a, b, c, d, e, f, g, h] = acc.to_array();
            *out += ((a + e) + (c + g)) + ((b + f) + (d + h));
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const f32) -> f32x8 {
        // SAFETY: the caller's contract.
        unsafe { cells.cast::<f32x8>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, w: f32x8, cells: *mut f32) {
        // SAFETY: the caller's contract.
        unsafe { cells.cast::<f32x8>().write_unaligned(w) }
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const f32, _: *const f32) -> f32x8 {
        // SAFETY: the caller's contract.
        unsafe { first.cast::<f32x8>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const f32) -> f32x8 {
        // SAFETY: the caller's contract.
        unsafe { entries.cast::<f32x8>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const f32) -> f32x8 {
        // SAFETY: the caller's contract.
        f32x8::new(unsafe { pieces::<f32, P>(|p| at(0, p)) })
    }
}
