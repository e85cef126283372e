//! Products of 16-bit integers, two to a lane of 32 bits: where a processor has these, they are twice as
//! many as `f32` products, and their sums are exact.

use super::simd::Simd;

/// A computation over whichever instruction set runs it.
pub(crate) trait PairsOp {
    /// The computation; `#[inline(always)]`.
    fn eval<P: Pairs>(self, pairs: P);
}

/// Lanes of two `i16` each. As with [`Simd`], whatever runs inside [`Pairs::run`] must be
/// `#[inline(always)]`.
pub(crate) trait Pairs: Copy {
    /// The vectors of the same instruction set.
    type S: Simd;

    /// Runs `op`, compiled for this instruction set.
    fn run<O: PairsOp>(self, op: O);

    fn simd(self) -> Self::S;
    /// The same pair in every lane.
    fn splat(self, pair: i32) -> <Self::S as Simd>::I;
    /// The first `LANES` of `pairs`.
    ///
    /// # Panics
    /// If there are fewer.
    fn load(self, pairs: &[i32]) -> <Self::S as Simd>::I;
    /// Fills the first `LANES` of `out`.
    ///
    /// # Panics
    /// If there are fewer.
    fn store(self, pairs: <Self::S as Simd>::I, out: &mut [i32]);
    /// Of two integers that fit an `i16` each.
    fn pair(self, low: <Self::S as Simd>::I, high: <Self::S as Simd>::I) -> <Self::S as Simd>::I;
    /// `sum` and both products of each lane.
    fn dot(
        self,
        sum: <Self::S as Simd>::I,
        a: <Self::S as Simd>::I,
        b: <Self::S as Simd>::I,
    ) -> <Self::S as Simd>::I;
}
