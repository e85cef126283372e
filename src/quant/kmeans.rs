//! K-means over the block vectors of a matrix.
//!
//! Iterations run on a sample of the blocks when there are many: a codebook of 256 centroids is
//! as good after a thousand vectors a centroid as after twenty thousand. The sample takes, for
//! each block position, one row out of each of m equal ranges of rows; so it is itself a matrix
//! with m rows, and every pass is the same code. One mean step over everything follows.

use super::Progress;
use super::blocks::{Blocks, Mass, Stats, assign};
use super::matrix::Matrix;
use super::rng::Rng;

/// Vectors a centroid in the sample that iterations run on.
const SAMPLE_PER_CENTROID: usize = 1024;
/// Vectors a centroid in the sample that seeding runs on.
const SEEDING_PER_CENTROID: usize = 32;
/// Candidates in each step of greedy k-means++.
const CANDIDATES: usize = 3;
/// Iterations stop when one improves the error by less than this share.
const TOLERANCE: f64 = 1e-4;
/// Distance of the halves of a split cluster from its centroid, in the cluster's RMS radius.
const SPLIT: f32 = 0.25;

/// How to run K-means.
#[derive(Debug, Clone, Copy)]
pub(super) struct KmeansOptions {
    /// Centroids wanted, 1..=256.
    pub(super) k: usize,
    /// Largest number of iterations.
    pub(super) iterations: usize,
    /// Run all iterations on all blocks.
    pub(super) full: bool,
    pub(super) seed: u64,
}

/// The result: `k` centroids of `b` values, after a mean step over all blocks.
#[derive(Debug, Clone)]
pub(super) struct Clusters {
    /// `[k][b]`
    pub(super) centroids: Vec<f32>,
    /// Weighted squared error before each mean step: of the sample, and last of all blocks.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(super) errors: Vec<f64>,
    /// The sums of the last pass over all blocks.
    pub(super) stats: Stats,
}

/// Finds at most `options.k` centroids: fewer where there are fewer distinct vectors, never none.
/// Takes `options.iterations + 1` steps of `progress`.
pub(super) fn cluster(
    blocks: &Blocks<'_>,
    options: &KmeansOptions,
    progress: &mut Progress<'_>,
) -> Clusters {
    let mut rng = Rng::new(options.seed);
    let k = options.k.clamp(1, 256).min(blocks.len());
    let sample = Sample::draw(blocks, k * SAMPLE_PER_CENTROID, &mut rng);
    let sample = sample.as_ref().filter(|_| !options.full);
    let view = sample.map(|sample| sample.blocks(blocks));
    let view = view.as_ref().unwrap_or(blocks);

    let mut centroids = seed(view, k, &mut rng);
    let mut codes = vec![0; view.len()];
    let mut errors: Vec<f64> = Vec::new();
    for iteration in 0..options.iterations {
        let stats = assign(view, &centroids, &mut codes);
        stats.move_to_means(&mut centroids);
        let split = split_for_empty(&stats, &mut centroids, view.b, &mut rng);
        progress.step();
        let error = stats.total_error();
        let stalled = errors
            .last()
            .is_some_and(|last| last - error <= TOLERANCE * last);
        errors.push(error);
        if (stalled || error == 0.0) && !split {
            progress.steps(options.iterations - iteration - 1);
            break;
        }
    }

    codes.resize(blocks.len(), 0);
    let mut stats = assign(blocks, &centroids, &mut codes);
    progress.step();
    errors.push(stats.total_error());
    stats.move_to_means(&mut centroids);
    // Splitting had its chances during the iterations.
    stats.drop_empty(&mut centroids, blocks.b);
    Clusters {
        centroids,
        errors,
        stats,
    }
}

/// Where a centroid has no block, puts it next to the one whose cluster has the most error, which
/// moves the other way: the next assignment shares that cluster between them. Returns whether it
/// did. Clusters without error (duplicates of one vector) cannot be split.
fn split_for_empty(stats: &Stats, centroids: &mut [f32], b: usize, rng: &mut Rng) -> bool {
    let mut error = stats.error.clone();
    let mut any = false;
    for empty in (0..error.len()).filter(|&k| stats.count[k] == 0) {
        let (mut largest, mut most) = (empty, 0.0);
        for (k, &e) in error.iter().enumerate() {
            if e > most && stats.count[k] > 1 {
                (largest, most) = (k, e);
            }
        }
        if largest == empty {
            break;
        }
        let weight: f64 = stats.weight[largest * b..][..b].iter().sum();
        let radius = (stats.error[largest] / weight).sqrt() as f32;
        for i in 0..b {
            let offset = SPLIT * radius * rng.normal();
            let mean = centroids[largest * b + i];
            centroids[largest * b + i] = mean + offset;
            centroids[empty * b + i] = mean - offset;
        }
        error[largest] = most / 2.0;
        error[empty] = most / 2.0;
        any = true;
    }
    any
}

/// A copied part of a matrix's blocks.
struct Sample {
    data: Vec<f32>,
    rows: usize,
    /// `[rows][blocks in a row]`; empty where all blocks count alike.
    mass: Vec<f32>,
}

impl Sample {
    /// About `wanted` blocks; `None` if there are hardly more.
    fn draw(blocks: &Blocks<'_>, wanted: usize, rng: &mut Rng) -> Option<Self> {
        let (per_row, cols) = (blocks.per_row(), blocks.w.cols());
        let (rows, all) = (wanted.div_ceil(per_row), blocks.w.rows());
        if rows >= all {
            return None;
        }
        let mut data = Vec::with_capacity(rows * cols);
        let weighted = !matches!(blocks.mass, Mass::One);
        let mut mass = Vec::with_capacity(if weighted { rows * per_row } else { 0 });
        for i in 0..rows {
            let (low, high) = (i * all / rows, (i + 1) * all / rows);
            for j in 0..per_row {
                let r = low + rng.below(high - low);
                data.extend_from_slice(blocks.get(r, j));
                if weighted {
                    mass.push(blocks.mass_of(r, j));
                }
            }
        }
        Some(Self { data, rows, mass })
    }

    fn blocks<'a>(&'a self, of: &Blocks<'a>) -> Blocks<'a> {
        Blocks {
            w: Matrix::trusted(&self.data, self.rows, of.w.cols()),
            mass: match self.mass.is_empty() {
                true => Mass::One,
                false => Mass::Block(&self.mass),
            },
            ..*of
        }
    }
}

/// Greedy k-means++ on a small sample: each next centroid is a block drawn with a chance
/// proportional to its error so far, the best of [`CANDIDATES`] draws. Always returns `k`
/// centroids; when the error is 0 the rest are copies, which the iterations then move or drop.
fn seed(blocks: &Blocks<'_>, k: usize, rng: &mut Rng) -> Vec<f32> {
    let sample = Sample::draw(blocks, k * SEEDING_PER_CENTROID, rng);
    let view = sample.as_ref().map(|sample| sample.blocks(blocks));
    let blocks = view.as_ref().unwrap_or(blocks);
    let (n, b, per_row) = (blocks.len(), blocks.b, blocks.per_row());

    // A block's short tail is filled with the mean, a neutral guess for what is missing.
    let mean = blocks.w.data().iter().map(|&x| f64::from(x)).sum::<f64>();
    let mean = (mean / blocks.w.data().len() as f64) as f32;
    let vector = |at: usize| {
        let mut vector = blocks.get(at / per_row, at % per_row).to_vec();
        vector.resize(b, mean);
        vector
    };
    let weights: Vec<f64> = (0..n)
        .map(|at| f64::from(blocks.mass_of(at / per_row, at % per_row)))
        .collect();
    let importance: Vec<f32> = (0..per_row * b)
        .map(|at| blocks.weight(at / b, at % b))
        .collect();
    let distance = |at: usize, c: &[f32]| -> f64 {
        let j = at % per_row;
        let x = blocks.get(at / per_row, j);
        let h = &importance[j * b..][..b];
        let mut sum = 0.0f32;
        for ((x, c), h) in x.iter().zip(c).zip(h) {
            sum += h * (x - c) * (x - c);
        }
        f64::from(sum) * weights[at]
    };

    let mut centroids = vector(rng.below(n));
    let mut error: Vec<f64> = (0..n).map(|at| distance(at, &centroids)).collect();
    while centroids.len() < k * b {
        let total: f64 = error.iter().sum();
        // Also false for the infinities of absurd inputs.
        if !(total > 0.0 && total.is_finite()) {
            centroids.extend_from_within(..b);
            continue;
        }
        let mut best: Option<(f64, Vec<f64>, Vec<f32>)> = None;
        for _ in 0..CANDIDATES {
            let mut left = rng.uniform_f64() * total;
            let drawn = error.iter().position(|e| {
                left -= e;
                left < 0.0
            });
            let candidate = vector(drawn.unwrap_or(n - 1));
            let next: Vec<f64> = error
                .iter()
                .enumerate()
                .map(|(at, &e)| e.min(distance(at, &candidate)))
                .collect();
            let sum = next.iter().sum();
            if best.as_ref().is_none_or(|(least, ..)| sum < *least) {
                best = Some((sum, next, candidate));
            }
        }
        let (_, next, candidate) = best.expect("there is at least one candidate");
        error = next;
        centroids.extend(candidate);
    }
    centroids
}
