//! How many threads a product may use, and how its tiles are shared out.

use rayon::prelude::*;

/// The number of threads that a forward pass may use. Above 1, the caller runs inside a rayon
/// pool of that many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threads(pub(crate) usize);

/// Multiply-accumulates below which one thread does it alone. The portable kernels take about 40 us
/// for as many (`benches/matmul.rs`); that waking a thread costs less than that is an estimate.
const WORTH_A_THREAD: usize = 1 << 20;

impl Threads {
    /// Calls `f` for each of `0..items`, each one once, in any order. `work` is the number of
    /// multiply-accumulates of all items together.
    pub(crate) fn each(self, items: usize, work: usize, f: impl Fn(usize) + Sync + Send) {
        let threads = self.0.min(items).min(work / WORTH_A_THREAD + 1);
        if threads <= 1 {
            (0..items).for_each(f);
            return;
        }
        // Several pieces a thread, so that a busy core does not hold up the rest.
        let piece = items.div_ceil(4 * threads);
        (0..items).into_par_iter().with_min_len(piece).for_each(f);
    }
}
