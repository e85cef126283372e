//! K-means over the block vectors of a matrix.
//!
//! Iterations run on a sample of the blocks when there are many: a codebook of 256 centroids is
//! as good after a thousand vectors a centroid as after twenty thousand. The sample takes, for
//! each block position, one row out of each of m ranges of rows that count the same; so it is itself
//! a matrix with m rows that all count alike, and every pass is the same code. The first half of the
//! iterations runs on a quarter of the sample. One mean step over everything follows.

use super::Progress;
use super::blocks::{Blocks, Mass, Stats, assign, inverse_power_of_two};
use super::matrix::Matrix;
use super::rng::Rng;

/// Vectors a centroid in the sample that iterations run on.
const SAMPLE_PER_CENTROID: usize = 1024;
/// The same for the first half of the iterations, which need not be exact.
const FIRST_SAMPLE_PER_CENTROID: usize = 256;
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
    let mut draw = |of: &Blocks<'_>, vectors: usize| match options.full {
        true => None,
        false => Sample::draw(of, k * vectors, &mut rng),
    };
    let sample = draw(blocks, SAMPLE_PER_CENTROID);
    let view = sample.as_ref().map(|sample| sample.blocks(blocks));
    let view = view.as_ref().unwrap_or(blocks);
    let first_sample = draw(view, FIRST_SAMPLE_PER_CENTROID);
    let first_view = first_sample.as_ref().map(|sample| sample.blocks(view));
    let first_view = first_view.as_ref().unwrap_or(view);

    let mut centroids = seed(first_view, k, &mut rng);
    let mut codes = vec![0; blocks.len()];
    let mut errors = Vec::new();
    let half = options.iterations / 2;
    for (view, iterations) in [(first_view, half), (view, options.iterations - half)] {
        let mut last = None;
        for iteration in 0..iterations {
            let stats = assign(view, &centroids, &mut codes[..view.len()]);
            stats.move_to_means(&mut centroids);
            let split = split_for_empty(&stats, &mut centroids, view.b, &mut rng);
            progress.step();
            let error = stats.total_error();
            errors.push(error);
            let stalled = last.is_some_and(|last| last - error <= TOLERANCE * last);
            if (stalled || error == 0.0) && !split {
                progress.steps(iterations - iteration - 1);
                break;
            }
            last = Some(error);
        }
    }

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

/// A copied part of a matrix's blocks, drawn as often as they count.
struct Sample {
    data: Vec<f32>,
    rows: usize,
}

impl Sample {
    /// About `wanted` blocks; `None` if there are hardly more.
    fn draw(blocks: &Blocks<'_>, wanted: usize, rng: &mut Rng) -> Option<Self> {
        let (per_row, cols) = (blocks.per_row(), blocks.w.cols());
        let (rows, all) = (wanted.div_ceil(per_row), blocks.w.rows());
        if rows >= all {
            return None;
        }
        let mass: Vec<f64> = (0..all)
            .scan(0.0, |sum, r| {
                *sum += f64::from(blocks.mass_of(r));
                Some(*sum)
            })
            .collect();
        // Where no row counts, none counts more.
        let total = mass[all - 1];
        let even = matches!(blocks.mass, Mass::One) || !(total > 0.0 && total.is_finite());
        let mut data = Vec::with_capacity(rows * cols);
        for i in 0..rows {
            let (low, high) = (i * all / rows, (i + 1) * all / rows);
            for j in 0..per_row {
                let r = if even {
                    low + rng.below(high - low)
                } else {
                    let at = (i as f64 + rng.uniform_f64()) / rows as f64 * total;
                    mass.partition_point(|&sum| sum <= at).min(all - 1)
                };
                data.extend_from_slice(blocks.get(r, j));
            }
        }
        Some(Self { data, rows })
    }

    fn blocks<'a>(&'a self, of: &Blocks<'a>) -> Blocks<'a> {
        Blocks {
            w: Matrix::trusted(&self.data, self.rows, of.w.cols()),
            mass: Mass::One,
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

    // Coordinate by coordinate, `[b][n]`, so that distances are computed for many blocks at once.
    // A short block's tail holds the mean, a neutral guess should it become a centroid.
    let max = blocks
        .w
        .data()
        .iter()
        .fold(0.0, |m, x| f32::max(m, x.abs()));
    let unit = inverse_power_of_two(max);
    let sum: f64 = blocks.w.data().iter().map(|&x| f64::from(x)).sum();
    let mean = (sum / blocks.w.data().len() as f64) as f32;
    let mut x = vec![unit * mean; b * n];
    let mut weight = vec![0.0; b * n];
    for at in 0..n {
        let (r, j) = (at / per_row, at % per_row);
        for (i, value) in blocks.get(r, j).iter().enumerate() {
            x[i * n + at] = unit * value;
            weight[i * n + at] = blocks.mass_of(r) * blocks.weight(j, i);
        }
    }
    // Lowers the errors to what they are with one more centroid, block `at`.
    let lower = |errors: &[f32], at: usize| -> (f64, Vec<f32>) {
        let mut distance = vec![0.0; n];
        for (x, weight) in x.chunks_exact(n).zip(weight.chunks_exact(n)) {
            let c = x[at];
            for ((distance, x), weight) in distance.iter_mut().zip(x).zip(weight) {
                *distance += weight * (x - c) * (x - c);
            }
        }
        let pairs = distance.iter_mut().zip(errors);
        pairs.for_each(|(distance, &error)| *distance = distance.min(error));
        (distance.iter().map(|&e| f64::from(e)).sum(), distance)
    };

    let mut chosen = vec![rng.below(n)];
    let (mut total, mut errors) = lower(&vec![f32::INFINITY; n], chosen[0]);
    while chosen.len() < k {
        // Also false for the infinities of absurd inputs.
        if !(total > 0.0 && total.is_finite()) {
            chosen.push(chosen[0]);
            continue;
        }
        let mut best = (f64::INFINITY, Vec::new(), 0);
        for _ in 0..CANDIDATES {
            let mut left = rng.uniform_f64() * total;
            let drawn = errors.iter().position(|&e| {
                left -= f64::from(e);
                left < 0.0
            });
            let candidate = drawn.unwrap_or(n - 1);
            let (sum, lowered) = lower(&errors, candidate);
            if sum < best.0 {
                best = (sum, lowered, candidate);
            }
        }
        (total, errors) = (best.0, best.1);
        chosen.push(best.2);
    }
    let values = chosen.iter().flat_map(|at| (0..b).map(move |i| i * n + at));
    // Dividing by a power of two gives the weight back exactly.
    values.map(|at| x[at] / unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    const OPTIONS: KmeansOptions = KmeansOptions {
        k: 16,
        iterations: 12,
        full: true,
        seed: 1,
    };

    fn normal(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        (0..n).map(|_| rng.normal()).collect()
    }

    fn blocks(data: &[f32], cols: usize, b: usize) -> Blocks<'_> {
        Blocks {
            w: Matrix::new(data, data.len() / cols, cols).unwrap(),
            b,
            importance: None,
            mass: Mass::One,
            isa: Isa::detect().unwrap(),
        }
    }

    fn run(blocks: &Blocks<'_>, options: &KmeansOptions) -> Clusters {
        cluster(blocks, options, &mut Progress::new(1, 1, &|_| ()))
    }

    #[test]
    fn the_error_never_grows() {
        let data = normal(400 * 22, 1);
        let importance: Vec<f32> = normal(22, 2).iter().map(|h| h * h).collect();
        let mass: Vec<f32> = normal(400, 3).iter().map(|h| h * h).collect();
        let plain = blocks(&data, 22, 4);
        let weighted = Blocks {
            importance: Some(&importance),
            mass: Mass::Row(&mass),
            ..plain
        };
        for blocks in [plain, weighted] {
            let errors = run(&blocks, &OPTIONS).errors;
            assert!(errors.len() > 3);
            // Codes are nearest up to the rounding of f32 sums.
            for pair in errors.windows(2) {
                assert!(pair[1] <= pair[0] * (1.0 + 1e-6), "{errors:?}");
            }
            assert!(errors[errors.len() - 1] < 0.95 * errors[0]);
        }
    }

    #[test]
    fn separate_groups_are_found() {
        // 16 far corners with small noise: the error left is the noise.
        let noise = normal(2000 * 4, 4);
        let data: Vec<f32> = (0..2000 * 4)
            .map(|at| 0.01 * noise[at] + (((at / 4 * 7) >> (at % 4)) & 1) as f32)
            .collect();
        let clusters = run(&blocks(&data, 4, 4), &OPTIONS);
        assert_eq!(clusters.centroids.len(), 16 * 4);
        let error = clusters.errors[clusters.errors.len() - 1];
        assert!(error < 1.1 * 0.01 * 0.01 * data.len() as f64, "{error}");
    }

    #[test]
    fn fewer_distinct_vectors_than_centroids_are_met_exactly() {
        for distinct in [1, 2, 5] {
            let data: Vec<f32> = (0..300).map(|at| (at / 2 % distinct) as f32).collect();
            for full in [true, false] {
                let clusters = run(&blocks(&data, 10, 2), &KmeansOptions { full, ..OPTIONS });
                assert_eq!(clusters.centroids.len() / 2, distinct);
                assert_eq!(clusters.errors.last(), Some(&0.0));
            }
        }
    }

    #[test]
    fn more_centroids_than_vectors_are_clamped() {
        let data = normal(12, 5);
        let clusters = run(&blocks(&data, 4, 4), &OPTIONS);
        assert_eq!(clusters.centroids.len(), 3 * 4);
        assert_eq!(clusters.errors.last(), Some(&0.0));
    }

    #[test]
    fn an_empty_cluster_takes_half_of_the_worst() {
        // Two groups of points; all centroids start in reach of the first only.
        let data = [0.0, 0.1, 0.2, 10.0, 20.0, 30.0];
        let blocks = blocks(&data, 1, 1);
        let mut centroids = vec![0.1, 15.0, 1e6];
        let mut codes = vec![0; 6];
        let stats = assign(&blocks, &centroids, &mut codes);
        assert_eq!(stats.count, [3, 3, 0]);
        stats.move_to_means(&mut centroids);
        assert!(split_for_empty(&stats, &mut centroids, 1, &mut Rng::new(1)));
        let after = assign(&blocks, &centroids, &mut codes);
        assert!(after.count.iter().all(|&n| n > 0), "{:?}", after.count);
        assert!(after.total_error() < stats.total_error());
        // Nothing to split among duplicates.
        let same = [1.0; 6];
        let blocks = super::tests::blocks(&same, 1, 1);
        let stats = assign(&blocks, &[1.0, 5.0], &mut codes);
        assert!(!split_for_empty(
            &stats,
            &mut [1.0, 5.0],
            1,
            &mut Rng::new(1)
        ));
    }

    #[test]
    fn a_sample_is_almost_as_good_as_everything() {
        let data = normal(6000 * 8, 6);
        let blocks = blocks(&data, 8, 2);
        let options = |full| KmeansOptions {
            k: 8,
            full,
            ..OPTIONS
        };
        assert!(Sample::draw(&blocks, 8 * SAMPLE_PER_CENTROID, &mut Rng::new(1)).is_some());
        let error = |full| *run(&blocks, &options(full)).errors.last().unwrap();
        assert!(error(false) < 1.02 * error(true));
    }

    #[test]
    fn a_sample_holds_blocks_of_their_own_position_as_often_as_they_count() {
        let data: Vec<f32> = (0..1000 * 7).map(|at| at as f32).collect();
        let mass: Vec<f32> = (0..1000).map(|r| r as f32).collect();
        let mut blocks = blocks(&data, 7, 3);
        for (counted, mean) in [(Mass::One, 499.5), (Mass::Row(&mass), 666.3)] {
            blocks.mass = counted;
            let sample = Sample::draw(&blocks, 50, &mut Rng::new(2)).unwrap();
            assert_eq!(sample.rows, 17);
            let mut sum = 0.0;
            for row in sample.data.chunks_exact(7) {
                let columns: Vec<f32> = row.iter().map(|value| value % 7.0).collect();
                assert_eq!(columns, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
                sum += row.iter().map(|value| (value / 7.0).floor()).sum::<f32>();
            }
            // Drawn from ranges that count the same, so close to the mean.
            assert!((sum / (17.0 * 7.0) - mean).abs() < 10.0, "{sum}");
        }
        // Where no row counts, all do.
        blocks.mass = Mass::Row(&[0.0; 1000]);
        assert!(Sample::draw(&blocks, 50, &mut Rng::new(2)).is_some());
    }
}
