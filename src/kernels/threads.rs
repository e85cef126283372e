//! How many threads a product may use, and how its tiles are shared out.

use rayon::prelude::*;

/// The number of threads that a forward pass may use. Above 1, the caller runs inside a rayon
/// pool of that many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threads(pub(crate) usize);

/// Nanoseconds of work that are worth a thread more.
///
/// Sharing work out in a rayon pool cost the caller, on a 2-core Zen 3 whose other core was too busy to
/// help: 0.2 us if the last time was at most 0.1 ms ago, as between the products of a forward pass;
/// 1 to 4 us after 1 ms and 3 to 12 us after 10 ms, when the other thread has to be woken. So a job of
/// this size loses little if no help comes, and one product of a single token (20 us for 768 x 768)
/// is not shared out. The tests share out whatever takes a nanosecond.
const WORTH_A_THREAD: u64 = if cfg!(test) { 1 } else { 30_000 };

/// A product of sizes, which may be beyond 32 bits where each of them is an address.
pub(crate) fn work<const N: usize>(sizes: [usize; N]) -> u64 {
    sizes.into_iter().map(|size| size as u64).product()
}

impl Threads {
    /// Calls `f` for each of `0..items`, each one once, in any order. `nanoseconds` is about what
    /// one thread takes for all items together.
    pub(crate) fn each_for(self, items: usize, nanoseconds: u64, f: impl Fn(usize) + Sync + Send) {
        let worth = usize::try_from(nanoseconds / WORTH_A_THREAD + 1);
        let threads = self.0.min(items).min(worth.unwrap_or(usize::MAX));
        if threads <= 1 {
            (0..items).for_each(f);
            return;
        }
        // Several pieces a thread, so that a busy core does not hold up the rest.
        let piece = items.div_ceil(4 * threads);
        (0..items).into_par_iter().with_min_len(piece).for_each(f);
    }
}
