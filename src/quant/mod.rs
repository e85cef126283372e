//! Quantizers: from f32 weights to what an artifact stores.
//!
//! **Product quantization** ([`pq`]) cuts each row of a weight matrix `[rows, cols]` into blocks of
//! `b` columns and replaces each block by the nearest of at most 256 *centroids*: one byte a
//! block, and a small codebook a matrix. [`pq::quantize`] finds the codebook by K-means, if need
//! be weighted by how strongly each input is used; [`pq::quantize_with_hessian`] also knows how
//! inputs move together, and lets later blocks of a row make up for the errors of earlier ones.
//!
//! **Scalar quantization** ([`scalar`]) rounds every weight to a grid of 8 or 4 bits.
//!
//! Everything is deterministic: equal weights, options and seed give equal bytes, on any number
//! of threads. Work runs on the current rayon pool.

pub(crate) mod blocks;
mod codebook;
#[cfg(feature = "train")]
pub(crate) mod codes;
mod feedback;
mod half;
mod kmeans;
pub(crate) mod linalg;
mod matrix;
pub mod pq;
pub(crate) mod rng;
pub mod scalar;
mod split;

pub use codebook::{CentroidType, Codebook};
pub use matrix::{Importance, Matrix};

/// Tells a caller's sink how many weights are done, step by step; over a whole call the numbers
/// add up to the number of weights.
struct Progress<'a> {
    sink: &'a (dyn Fn(u64) + Sync),
    weights: u64,
    steps: u64,
    done: u64,
}

impl<'a> Progress<'a> {
    fn new(weights: usize, steps: usize, sink: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self {
            sink,
            weights: weights as u64,
            steps: steps.max(1) as u64,
            done: 0,
        }
    }

    fn step(&mut self) {
        self.steps(1);
    }

    fn steps(&mut self, n: usize) {
        let at = |step: u64| {
            (u128::from(self.weights) * u128::from(step) / u128::from(self.steps)) as u64
        };
        let next = (self.done + n as u64).min(self.steps);
        let news = at(next) - at(self.done);
        self.done = next;
        if news > 0 {
            (self.sink)(news);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.steps((self.steps - self.done) as usize);
    }
}
