//! The microkernel: a few rows against a few outputs, all sums in registers.

use super::dot::{Dot, DotOp, STEP};
use super::source::Source;

/// Activations of some rows, `[rows][stride]`, from a step of the input on.
pub(super) struct Rows<'a, A> {
    values: &'a [A],
    stride: usize,
    /// The first activation of the first row.
    start: usize,
}

impl<A> Clone for Rows<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Rows<'_, A> {}

impl<'a, A> Rows<'a, A> {
    /// `count` rows from row `row` on and `steps` steps from step `step` on.
    pub(super) fn new(
        values: &'a [A],
        stride: usize,
        (row, count): (usize, usize),
        (step, steps): (usize, usize),
    ) -> Self {
        assert!((step + steps) * STEP <= stride && (row + count) * stride <= values.len());
        Self {
            values,
            stride,
            start: row * stride + step * STEP,
        }
    }
}

/// What a microkernel works on: `R` rows, steps `from..to` of the source, outputs from `first` on.
pub(super) struct Block<'a, D: Dot, S> {
    pub(super) source: S,
    pub(super) rows: Rows<'a, D::Act>,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) first: usize,
}

/// The sums of `R` rows with `V * OUTPUTS` outputs are added to `sums`, row by row `width` apart;
/// with `KEEP`, the weights that were looked up are left in `keep`, `[steps][V * OUTPUTS][8]`.
///
/// Each is a function of its own, compiled for the instruction set: all of them in one would take the
/// compiler minutes.
///
/// # Panics
/// If `keep` or `sums` is too short, or the outputs are not inside the source.
pub(super) struct Micro<'a, D: Dot, S, const R: usize, const V: usize, const KEEP: bool> {
    pub(super) block: &'a Block<'a, D, S>,
    pub(super) keep: &'a mut [D::Cell],
    pub(super) sums: &'a mut [D::Sum],
    pub(super) width: usize,
}

impl<D: Dot, S: Source<D>, const R: usize, const V: usize, const KEEP: bool> DotOp<D>
    for Micro<'_, D, S, R, V, KEEP>
{
    #[inline(always)]
    fn eval(self, dot: D) {
        let Self {
            block,
            keep,
            sums,
            width,
        } = self;
        let group = V * D::OUTPUTS;
        // Copied: after a store to `keep` they would be read again.
        let (source, rows, from, first) = (block.source, block.rows, block.from, block.first);
        let steps = block.to - from;
        assert!(block.to <= source.steps());
        assert!(first + group <= source.outputs());
        assert!(!KEEP || keep.len() >= steps * group * STEP);
        if R > 0 && steps > 0 {
            assert!(rows.start + (R - 1) * rows.stride + steps * STEP <= rows.values.len());
        }
        // SAFETY: for all of the rows, as asserted above.
        let x = unsafe { rows.values.as_ptr().add(rows.start) };
        let keep = keep.as_mut_ptr();
        let weights = |step: usize| {
            // SAFETY: the step and the outputs are inside the source, as asserted above.
            let mut w = [unsafe { source.get::<V>(dot, from + step, first, 0) }; V];
            for (v, w) in w.iter_mut().enumerate().skip(1) {
                // SAFETY: as above.
                *w = unsafe { source.get::<V>(dot, from + step, first, v) };
            }
            if KEEP {
                for (v, &w) in w.iter().enumerate() {
                    // SAFETY: `keep` has room for all steps, as asserted above.
                    unsafe { dot.store(w, keep.add((step * group + v * D::OUTPUTS) * STEP)) };
                }
            }
            w
        };
        let activations = |r: usize, step: usize| {
            let second = (r + D::PAIR - 1).min(R - 1);
            // SAFETY: the rows have all steps, as asserted above.
            unsafe {
                let x = x.add(step * STEP);
                dot.activations(x.add(r * rows.stride), x.add(second * rows.stride))
            }
        };
        let mut acc = [[dot.zero(); V]; R];
        let mut step = 0;
        while D::DEEP && step + 2 <= steps {
            let w = [weights(step), weights(step + 1)];
            let mut r = 0;
            while r < R {
                let x = [activations(r, step), activations(r, step + 1)];
                for v in 0..V {
                    let acc = &mut acc[r / D::PAIR][v];
                    *acc = dot.dot_two(*acc, [w[0][v], w[1][v]], x);
                }
                r += D::PAIR;
            }
            step += 2;
        }
        while step < steps {
            let w = weights(step);
            let mut r = 0;
            while r < R {
                let x = activations(r, step);
                for v in 0..V {
                    acc[r / D::PAIR][v] = dot.dot(acc[r / D::PAIR][v], w[v], x);
                }
                r += D::PAIR;
            }
            step += 1;
        }
        for r in 0..R {
            dot.reduce(
                acc[r / D::PAIR],
                r % D::PAIR,
                &mut sums[r * width..][..group],
            );
        }
    }
}
