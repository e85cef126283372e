//! What a product needs from an instruction set: dot products of eight inputs at a time.
//!
//! A weight vector ([`Dot::W`]) holds eight consecutive inputs of a few outputs, an activation
//! vector ([`Dot::X`]) the same eight inputs of a row once for each of them. Multiplying the two
//! lane by lane and adding neighbours leaves a few partial sums an output ([`Dot::Acc`]), which are
//! added up once, at the end of the loop over the input. A centroid of a block of eight is then
//! copied as it stands, from the codebook straight into a register: nothing is transposed, and
//! looking up is cheap enough to be done inside the multiplication.
//!
//! As with [`Simd`](super::simd::Simd), whatever runs inside [`Dot::run`] must be
//! `#[inline(always)]`.

use bytemuck::Pod;

use super::entry::Entry;

/// Inputs of a step: the unit in which products walk along the input.
pub(crate) const STEP: usize = 8;

/// A computation over dot products.
pub(crate) trait DotOp<D> {
    /// The computation; `#[inline(always)]`.
    fn eval(self, dot: D);
}

/// A sum of products: `i32`, exact, or `f32`.
pub(crate) trait Sum: Pod + Sync {
    fn minus(self, other: Self) -> Self;
}

impl Sum for i32 {
    #[inline(always)]
    fn minus(self, other: i32) -> i32 {
        self.wrapping_sub(other)
    }
}

impl Sum for f32 {
    #[inline(always)]
    fn minus(self, other: f32) -> f32 {
        self - other
    }
}

/// Dot products of eight inputs at a time, by one instruction set and for one type of activation.
pub(crate) trait Dot: Copy + Send + Sync + 'static {
    /// A value of a codebook: `i8` or `f32`.
    type Entry: Entry;
    /// A decoded weight, in a form that multiplies.
    type Cell: Pod + Sync;
    /// What activations are made from: `i8` or `f32`.
    type Source: Pod + Sync;
    /// An activation, likewise.
    type Act: Pod + Sync;
    /// A finished sum.
    type Sum: Sum;
    /// [`STEP`] cells of each of [`OUTPUTS`](Self::OUTPUTS) outputs.
    type W: Copy;
    /// [`STEP`] activations of [`PAIR`](Self::PAIR) rows.
    type X: Copy;
    /// Partial sums of [`PAIR`](Self::PAIR) rows with the outputs of a `W`.
    type Acc: Copy;

    /// Outputs of a `W`.
    const OUTPUTS: usize;
    /// Rows of an `X`: 1, or 2 where an instruction multiplies matrices.
    const PAIR: usize = 1;
    /// Rows that fit into the registers together with [`VECTORS`](Self::VECTORS) weight vectors;
    /// at most 8, a multiple of `PAIR`.
    const ROWS: usize;
    /// Weight vectors side by side.
    const VECTORS: usize;
    /// At most so many rows leave registers for four weight vectors.
    const FEW: usize = 2;
    /// Steps of a block of the input; its panel of [`PANEL`](Self::PANEL) outputs fills at most
    /// three quarters of a first-level cache of 32 KiB.
    const STEPS: usize;
    /// Outputs of a panel: a multiple of `VECTORS * OUTPUTS` that divides 64.
    const PANEL: usize;
    /// Whether sums come out too large by what a row of zeros yields.
    const OFFSET: bool = false;
    /// Whether two steps at once are less work than one after the other.
    const DEEP: bool = false;

    /// Runs `op`, compiled for this instruction set.
    fn run<O: DotOp<Self>>(self, op: O);

    /// An activation, ready to multiply: itself, where the types are the same.
    fn act(value: Self::Source) -> Self::Act;
    /// A weight, ready to multiply.
    fn cell(entry: Self::Entry) -> Self::Cell;

    fn zero(self) -> Self::Acc;

    /// `acc + w . x`
    fn dot(self, acc: Self::Acc, w: Self::W, x: Self::X) -> Self::Acc;

    /// `acc + w[0] . x[0] + w[1] . x[1]`
    #[inline(always)]
    fn dot_two(self, acc: Self::Acc, w: [Self::W; 2], x: [Self::X; 2]) -> Self::Acc {
        self.dot(self.dot(acc, w[0], x[0]), w[1], x[1])
    }

    /// The sums of row `row` (below `PAIR`) with `V * OUTPUTS` outputs are added to `out`.
    fn reduce<const V: usize>(self, acc: [Self::Acc; V], row: usize, out: &mut [Self::Sum]);

    /// # Safety
    /// - `STEP * OUTPUTS` cells can be read at `cells`.
    unsafe fn load(self, cells: *const Self::Cell) -> Self::W;

    /// # Safety
    /// - `STEP * OUTPUTS` cells can be written at `cells`.
    unsafe fn store(self, w: Self::W, cells: *mut Self::Cell);

    /// # Safety
    /// - `STEP` activations can be read at `first`, and at `second` if `PAIR` is 2.
    unsafe fn activations(self, first: *const Self::Act, second: *const Self::Act) -> Self::X;

    /// `STEP` entries an output, one output after another.
    ///
    /// # Safety
    /// - `STEP * OUTPUTS` entries can be read at `entries`.
    unsafe fn expand(self, entries: *const Self::Entry) -> Self::W;

    /// `P` pieces of `STEP / P` entries an output, piece `p` of output `o` from `at(o, p)`.
    ///
    /// # Safety
    /// - `P` is 1, 2 or 4, and `STEP / P` entries can be read at each place.
    unsafe fn gather<const P: usize>(
        self,
        at: impl Fn(usize, usize) -> *const Self::Entry,
    ) -> Self::W;
}
