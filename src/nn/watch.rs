//! Work and time of linear layers, for `bench --roofline`: nothing is counted unless that asks for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

static WATCHED: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: AtomicU64 = AtomicU64::new(0);
static PRODUCTS: AtomicU64 = AtomicU64::new(0);

/// Starts counting from 0, or stops.
pub(crate) fn watch(on: bool) {
    NANOSECONDS.store(0, Relaxed);
    PRODUCTS.store(0, Relaxed);
    WATCHED.store(on, Relaxed);
}

/// Multiply-accumulates of all linear layers in this process, and the nanoseconds that they took.
pub(crate) fn watched() -> (u64, u64) {
    (PRODUCTS.load(Relaxed), NANOSECONDS.load(Relaxed))
}

/// A clock for a product that is computed bit by bit, if products are watched.
pub(super) fn clock() -> Option<AtomicU64> {
    WATCHED.load(Relaxed).then(AtomicU64::default)
}

/// Counts a product of so many multiply-accumulates that took `nanoseconds`.
pub(super) fn add(products: usize, nanoseconds: u64) {
    NANOSECONDS.fetch_add(nanoseconds, Relaxed);
    PRODUCTS.fetch_add(products as u64, Relaxed);
}

/// Runs a product of so many multiply-accumulates.
pub(super) fn count(products: usize, run: impl FnOnce()) {
    if !WATCHED.load(Relaxed) {
        return run();
    }
    let start = Instant::now();
    run();
    add(products, start.elapsed().as_nanos() as u64);
}
