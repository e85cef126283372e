//! What tables of dot products need from an instruction set: rows side by side in the 16-bit lanes of
//! a vector.

use bytemuck::Pod;

use crate::layout::TILE;

/// Inputs of a block.
pub(super) const BLOCK: usize = 8;

/// A computation over such vectors.
pub(super) trait LanesOp<L> {
    /// The computation; `#[inline(always)]`.
    fn eval(self, lanes: L);
}

/// Vectors of as many `i16` as there are rows in a group.
pub(super) trait Lanes: Copy + Send + Sync + 'static {
    /// Rows of a group.
    const ROWS: usize;
    /// Tables that are used together: 1, 2, 4, 8 or 16.
    const TABLES: usize;
    /// [`EACH`](Self::EACH) centroids, ready to be multiplied.
    type Centroids: Pod + Sync;
    /// One centroid, or two that are multiplied at the same time.
    const EACH: usize;
    /// A block of the inputs of [`ROWS`](Self::ROWS) rows, ready to be multiplied.
    type Inputs;
    /// A centroid's dot products with a block of the rows: `[i16; ROWS]`.
    type Entry: Pod;
    /// An output's sums: `[i32; ROWS]`, in the order that is the least work.
    type Sums: Pod + Send;
    /// An entry, or two of them added up.
    type Vector: Copy;
    /// An output's sums in registers.
    type Acc: Copy;

    /// Runs `op`, compiled for this instruction set.
    fn run<O: LanesOp<Self>>(self, op: O);

    /// From a codebook `[256][8]`.
    fn centroids(book: &[i8], out: &mut [Self::Centroids]);
    /// From up to [`ROWS`](Self::ROWS) rows.
    fn inputs(rows: &[[i8; BLOCK]]) -> Self::Inputs;
    /// Fills a table with the dot products of all centroids. They fit.
    fn table(
        self,
        centroids: &[Self::Centroids],
        inputs: &Self::Inputs,
        table: &mut [Self::Entry; 256],
    );

    /// Eight codes, ready for [`entry`](Self::entry).
    fn codes(codes: [u8; 8]) -> u64;
    /// What code `index` of eight stands for.
    fn entry(self, table: &[Self::Entry; 256], codes: u64, index: usize) -> Self::Vector;
    /// Two entries added up. Their sums fit.
    fn two(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn load(self, sums: &Self::Sums) -> Self::Acc;
    fn add(self, sums: Self::Acc, entries: Self::Vector) -> Self::Acc;
    fn store(self, acc: Self::Acc, sums: &mut Self::Sums);

    /// The sums of each row, one after another, out of those of each output.
    fn turn(self, sums: &[Self::Sums; TILE], rows: &mut [[i32; TILE]]);
}

/// Adds the dot products that a tile's codes (`[G][64]`) stand for to its sums.
pub(super) struct LookUp<'a, L: Lanes, const G: usize> {
    pub(super) codes: &'a [[u8; TILE]; G],
    pub(super) tables: &'a [[L::Entry; 256]; G],
    pub(super) sums: &'a mut [L::Sums; TILE],
}

impl<L: Lanes, const G: usize> LanesOp<L> for LookUp<'_, L, G> {
    #[inline(always)]
    fn eval(self, lanes: L) {
        let (groups, _) = self.sums.as_chunks_mut::<8>();
        for (group, sums) in groups.iter_mut().enumerate() {
            let words: [u64; G] = std::array::from_fn(|g| {
                let codes = self.codes[g][8 * group..][..8].try_into();
                L::codes(codes.expect("eight codes"))
            });
            for (o, sums) in sums.iter_mut().enumerate() {
                let entry = |g: usize| lanes.entry(&self.tables[g], words[g], o);
                let mut acc = lanes.load(sums);
                for g in (0..G).step_by(2) {
                    let mut entries = entry(g);
                    if g + 1 < G {
                        entries = lanes.two(entries, entry(g + 1));
                    }
                    acc = lanes.add(acc, entries);
                }
                lanes.store(acc, sums);
            }
        }
    }
}
