//! Where the weights of a tile come from: codes that are looked up, or stored integers.

use super::Codebook;
use super::dot::{Dot, STEP};

/// Yields weight vectors of a tile.
///
/// # Safety
/// - `get` must be safe to call for every step below `steps()` and every group of outputs within
///   `outputs()`.
pub(super) unsafe trait Source<D: Dot>: Copy {
    /// Steps of the input that there are.
    fn steps(&self) -> usize;

    /// Outputs that there are, of which the last ones may be fill.
    fn outputs(&self) -> usize;

    /// Step `step` of vector `v` of the group of `V` vectors whose first output is `first`.
    ///
    /// # Safety
    /// - `step < steps()` and `v < V`
    /// - `first + V * OUTPUTS <= outputs()`
    unsafe fn get<const V: usize>(&self, dot: D, step: usize, first: usize, v: usize) -> D::W;
}

/// Codes of a tile, `[blocks][width]`, and the codebook `[256][B]` that they look up.
pub(super) struct Lookup<'a, E, const B: usize> {
    codes: &'a [u8],
    width: usize,
    steps: usize,
    table: &'a [E],
}

impl<E, const B: usize> Clone for Lookup<'_, E, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, const B: usize> Copy for Lookup<'_, E, B> {}

impl<'a, E, const B: usize> Lookup<'a, E, B> {
    pub(super) fn new(codes: &'a [u8], width: usize, table: &'a [E]) -> Self {
        assert!(matches!(B, 2 | 4 | 8 | 16));
        assert_eq!(table.len(), Codebook::ROWS * B);
        Self {
            codes,
            width,
            steps: codes.len() / width * B / STEP,
            table,
        }
    }
}

// SAFETY: `steps` counts whole steps whose codes are all there, and a code cannot leave a table of
// 256 rows.
unsafe impl<D: Dot, const B: usize> Source<D> for Lookup<'_, D::Entry, B> {
    #[inline(always)]
    fn steps(&self) -> usize {
        self.steps
    }

    #[inline(always)]
    fn outputs(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn get<const V: usize>(&self, dot: D, step: usize, first: usize, v: usize) -> D::W {
        let first = first + v * D::OUTPUTS;
        // The codes of all outputs in one load: a load for each would be half of all loads, and
        // those are what bounds a product with one row.
        let codes = |block: usize| {
            // SAFETY: the caller's step and outputs are inside the codes.
            unsafe { word::<D>(self.codes.as_ptr().add(block * self.width + first)) }
        };
        let code = |word: u64, o: usize| (word >> (8 * o)) as usize & 0xff;
        let table = self.table.as_ptr();
        // SAFETY: a code is below 256, so that its centroid is inside the table.
        unsafe {
            match B {
                16 => {
                    let (word, half) = (codes(step / 2), step % 2 * STEP);
                    dot.gather::<1>(|o, _| table.add(code(word, o) * 16 + half))
                }
                8 => {
                    let word = codes(step);
                    dot.gather::<1>(|o, _| table.add(code(word, o) * 8))
                }
                4 => {
                    let words = [codes(2 * step), codes(2 * step + 1)];
                    dot.gather::<2>(|o, p| table.add(code(words[p], o) * 4))
                }
                _ => {
                    let block = 4 * step;
                    let words = [
                        codes(block),
                        codes(block + 1),
                        codes(block + 2),
                        codes(block + 3),
                    ];
                    dot.gather::<4>(|o, p| table.add(code(words[p], o) * 2))
                }
            }
        }
    }
}

/// The next `OUTPUTS` codes, the first one in the lowest byte.
///
/// # Safety
/// - So many bytes can be read at `codes`.
#[inline(always)]
unsafe fn word<D: Dot>(codes: *const u8) -> u64 {
    // SAFETY: the caller's contract.
    unsafe {
        match D::OUTPUTS {
            1 => u64::from(*codes),
            2 => u64::from(u16::from_le(codes.cast::<u16>().read_unaligned())),
            4 => u64::from(u32::from_le(codes.cast::<u32>().read_unaligned())),
            8 => u64::from_le(codes.cast::<u64>().read_unaligned()),
            _ => panic!("1, 2, 4 or 8 outputs"),
        }
    }
}

/// Integers of a tile as they are stored, `[groups][width][8]`.
pub(super) struct Stored<'a, E> {
    values: &'a [E],
    width: usize,
    steps: usize,
}

impl<E> Clone for Stored<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Stored<'_, E> {}

impl<'a, E> Stored<'a, E> {
    pub(super) fn new(values: &'a [E], width: usize) -> Self {
        Self {
            values,
            width,
            steps: values.len() / (width * STEP),
        }
    }
}

// SAFETY: `steps` counts the steps that are all there.
unsafe impl<D: Dot> Source<D> for Stored<'_, D::Entry> {
    #[inline(always)]
    fn steps(&self) -> usize {
        self.steps
    }

    #[inline(always)]
    fn outputs(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn get<const V: usize>(&self, dot: D, step: usize, first: usize, v: usize) -> D::W {
        let start = (step * self.width + first + v * D::OUTPUTS) * STEP;
        // SAFETY: the caller's step and outputs are inside the values.
        unsafe { dot.expand(self.values.as_ptr().add(start)) }
    }
}

/// A decoded panel, `[group][steps][V * OUTPUTS][8]`, of a block of the input.
pub(super) struct Panel<'a, C> {
    cells: &'a [C],
    steps: usize,
    outputs: usize,
}

impl<C> Clone for Panel<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Panel<'_, C> {}

impl<'a, C> Panel<'a, C> {
    pub(super) fn new(cells: &'a [C], steps: usize, outputs: usize) -> Self {
        assert!(cells.len() >= steps * outputs * STEP);
        Self {
            cells,
            steps,
            outputs,
        }
    }
}

// SAFETY: `new` checked that all steps of all outputs are there.
unsafe impl<D: Dot> Source<D> for Panel<'_, D::Cell> {
    #[inline(always)]
    fn steps(&self) -> usize {
        self.steps
    }

    #[inline(always)]
    fn outputs(&self) -> usize {
        self.outputs
    }

    #[inline(always)]
    unsafe fn get<const V: usize>(&self, dot: D, step: usize, first: usize, v: usize) -> D::W {
        let group = V * D::OUTPUTS;
        let start = (first * self.steps + step * group + v * D::OUTPUTS) * STEP;
        // SAFETY: the caller's step and outputs are inside the panel.
        unsafe { dot.load(self.cells.as_ptr().add(start)) }
    }
}
