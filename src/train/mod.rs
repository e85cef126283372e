//! Training with quantization noise, iterative product quantization and distillation, in torch.
//!
//! After "Training with Quantization Noise for Extreme Model Compression" (Fan et al. 2020, arXiv
//! 2004.07320). A [`Recipe`] (a TOML file) says which checkpoint is trained on which texts, and in which
//! stages: with noise on the weights ([`Noise`]), with codes and centroids in place of the
//! weights of some groups, learning from labels or from a teacher. Texts with labels make a classifier;
//! an embedding model learns from its teacher's vectors of any texts. [`run`](run()) does that and writes
//! a `.centroid` file, which it measures with this crate's runtime.
//!
//! Needs libtorch 2.11: `tools/setup-train` fetches one. Nothing else in this crate does.

mod calibrated;
mod caught;
mod check;
mod coded;
mod codes;
mod cuda;
mod encoder;
mod examples;
mod finish;
mod gradients;
mod images;
mod learner;
mod log;
mod neighbours;
mod network;
mod noise;
mod norms;
mod optimizer;
mod pass;
mod plot;
mod recipe;
mod run;
mod runtime;
mod setup;
mod shape;
mod stage;
mod state;
mod texts;
mod weights;
mod work;

pub use finish::Tested;
pub use noise::{Form, Noise, Range, Rate};
pub use plot::plot;
pub use recipe::{Augment, Data, Distill, Part, Recipe, Stage};
pub use run::{Event, Finished, Metric, Outcome, Start, run};
pub use shape::{Block, Network, Shape};

use sha2::{Digest, Sha256};

/// A seed of several numbers.
fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |seed, &number| {
        crate::quant::rng::Rng::new(seed ^ number.rotate_left(32)).next_u64()
    })
}

/// SHA-256 in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
