//! The block vectors of a matrix, with their weights, and one pass over all of them: assign each
//! to its nearest centroid and add up what the mean step needs.
//!
//! A row of `cols` values is `ceil(cols / b)` blocks, of which the last may be short. Its missing
//! coordinates have weight 0: they count in no distance and in no mean.
//!
//! A pass runs over chunks of rows whose size depends only on the shape, and the chunks' sums are
//! added in order. So the number of threads cannot change a result.

use rayon::prelude::*;

use super::matrix::Matrix;
use crate::kernels::Isa;
use crate::kernels::nearest::{Centroids, GROUP, bias_len};

/// How much a block's error counts, beside the importance of its coordinates.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mass<'a> {
    /// All alike.
    One,
    /// One factor a row.
    Row(&'a [f32]),
}

impl Mass<'_> {
    pub(super) fn of(self, row: usize) -> f32 {
        match self {
            Self::One => 1.0,
            Self::Row(mass) => mass[row],
        }
    }
}

/// A matrix cut into blocks of `b` columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) w: Matrix<'a>,
    pub(super) b: usize,
    /// Weight of each column's squared error (`[cols]`); `None`: 1.
    pub(super) importance: Option<&'a [f32]>,
    pub(super) mass: Mass<'a>,
    /// Whose instructions search the centroids.
    pub(super) isa: Isa,
}

impl Blocks<'_> {
    /// Blocks in a row.
    pub(super) fn per_row(&self) -> usize {
        self.w.cols().div_ceil(self.b)
    }

    /// Blocks in the matrix.
    pub(super) fn len(&self) -> usize {
        self.w.rows() * self.per_row()
    }

    /// Block `j` of row `r`: `b` values, or fewer in the last block.
    pub(super) fn get(&self, r: usize, j: usize) -> &[f32] {
        let row = self.w.row(r);
        &row[j * self.b..row.len().min((j + 1) * self.b)]
    }

    /// The weight of coordinate `i` of block `j`.
    pub(super) fn weight(&self, j: usize, i: usize) -> f32 {
        let col = j * self.b + i;
        match self.importance {
            _ if col >= self.w.cols() => 0.0,
            Some(importance) => importance[col],
            None => 1.0,
        }
    }

    pub(super) fn mass_of(&self, r: usize) -> f32 {
        self.mass.of(r)
    }

    /// Rows in a chunk: a function of the shape alone. At most 256 chunks, none tiny.
    fn chunk_rows(&self) -> usize {
        let least = 4096usize.div_ceil(self.per_row());
        self.w
            .rows()
            .div_ceil(256)
            .max(least)
            .next_multiple_of(GROUP)
    }
}

/// A codebook made ready for searching the blocks of one matrix.
struct Search<'a, 'b> {
    blocks: &'b Blocks<'a>,
    centroids: Centroids,
    /// Medians of the centroids' coordinates: differences to them keep their precision when all
    /// weights share an offset, and one far centroid does not blur the others.
    shift: Vec<f32>,
    /// For each class of block positions, `[b]` factors from `x - shift` to `y` of [`Centroids`].
    gain: Vec<f32>,
    /// For each class, the bias table.
    bias: Vec<f32>,
}

impl<'a, 'b> Search<'a, 'b> {
    fn new(blocks: &'b Blocks<'a>, centroids: &[f32]) -> Self {
        let b = blocks.b;
        let k = centroids.len() / b;
        let shift: Vec<f32> = (0..b)
            .map(|i| {
                let mut values: Vec<f32> = centroids.iter().skip(i).step_by(b).copied().collect();
                values.sort_by(f32::total_cmp);
                values[k / 2]
            })
            .collect();
        let mut centered: Vec<f32> = centroids
            .iter()
            .enumerate()
            .map(|(at, &c)| c - shift[at % b])
            .collect();
        // Scaling by powers of two loses nothing, and keeps squares away from overflow and underflow.
        let unit = inverse_power_of_two(centered.iter().fold(0.0, |m, c| f32::max(m, c.abs())));
        centered.iter_mut().for_each(|c| *c *= unit);
        let importance_unit = match blocks.importance {
            Some(h) => inverse_power_of_two(h.iter().fold(0.0, |m, &h| f32::max(m, h))),
            None => 1.0,
        };

        let classes = match blocks.importance {
            Some(_) => blocks.per_row(),
            None => 2,
        };
        let mut gain = Vec::with_capacity(classes * b);
        let mut bias = vec![f32::INFINITY; classes * bias_len(k)];
        for (class, bias) in bias.chunks_exact_mut(bias_len(k)).enumerate() {
            // Without importances, class 0 is any full block and class 1 the short one.
            let j = match blocks.importance {
                None if class == 1 => blocks.per_row() - 1,
                _ => class,
            };
            let full = blocks.importance.is_none() && class == 0;
            let h: Vec<f32> = (0..b)
                .map(|i| match full {
                    true => 1.0,
                    false => blocks.weight(j, i) * importance_unit,
                })
                .collect();
            for (c, bias) in centered.chunks_exact(b).zip(bias) {
                *bias = c.iter().zip(&h).map(|(c, h)| h * c * c).sum();
            }
            gain.extend(h.iter().map(|h| -2.0 * h * unit));
        }
        Self {
            blocks,
            centroids: Centroids::new(blocks.isa, &centered, b),
            shift,
            gain,
            bias,
        }
    }

    fn class(&self, j: usize) -> usize {
        match self.blocks.importance {
            Some(_) => j,
            None => usize::from((j + 1) * self.blocks.b > self.blocks.w.cols()),
        }
    }

    /// Writes the codes of rows `first..`, as many as `codes` holds: `[rows][blocks in a row]`.
    fn rows(&self, first: usize, codes: &mut [u8]) {
        let (b, per_row) = (self.blocks.b, self.blocks.per_row());
        let rows = codes.len() / per_row;
        let classes = self.gain.len() / b;
        let bias_len = self.bias.len() / classes;
        let mut y = vec![[0.0f32; GROUP]; b];
        for j in 0..per_row {
            let class = self.class(j);
            let gain = &self.gain[class * b..][..b];
            let bias = &self.bias[class * bias_len..][..bias_len];
            for group in (0..rows).step_by(GROUP) {
                let valid = GROUP.min(rows - group);
                for v in 0..GROUP {
                    // A last incomplete group repeats its last row, and drops the answers.
                    let x = self.blocks.get(first + group + v.min(valid - 1), j);
                    let factors = self.shift.iter().zip(gain);
                    for ((y, &x), (shift, gain)) in y.iter_mut().zip(x).zip(factors) {
                        y[v] = (x - shift) * gain;
                    }
                }
                // What a short block leaves from its predecessor must not count.
                let present = self.blocks.get(first + group, j).len();
                y[present..].fill([0.0; GROUP]);
                let found = self.centroids.nearest(bias, &y);
                for v in 0..valid {
                    codes[(group + v) * per_row + j] = found[v];
                }
            }
        }
    }
}

/// The power of two that brings `max` into `[1, 2)`; 1 for 0.
pub(crate) fn inverse_power_of_two(max: f32) -> f32 {
    if max == 0.0 {
        return 1.0;
    }
    // Kept away from the ends so that the reciprocal is finite and normal.
    let exponent = (((max.to_bits() >> 23) & 0xff) as i32 - 127).clamp(-120, 120);
    f32::from_bits(((127 - exponent) as u32) << 23)
}

/// What one pass over all blocks adds up.
#[derive(Debug, Clone)]
pub(super) struct Stats {
    /// `[k][b]`: sum of weight times value.
    sum: Vec<f64>,
    /// `[k][b]`: sum of weights.
    pub(super) weight: Vec<f64>,
    /// `[k]`: blocks assigned.
    pub(super) count: Vec<u64>,
    /// `[k]`: weighted squared error.
    pub(super) error: Vec<f64>,
}

impl Stats {
    fn new(k: usize, b: usize) -> Self {
        Self {
            sum: vec![0.0; k * b],
            weight: vec![0.0; k * b],
            count: vec![0; k],
            error: vec![0.0; k],
        }
    }

    fn add(&mut self, other: &Self) {
        fn each<T: Copy + std::ops::AddAssign>(to: &mut [T], from: &[T]) {
            to.iter_mut().zip(from).for_each(|(a, &b)| *a += b);
        }
        each(&mut self.sum, &other.sum);
        each(&mut self.weight, &other.weight);
        each(&mut self.count, &other.count);
        each(&mut self.error, &other.error);
    }

    /// Forgets the centroids that no block chose.
    pub(super) fn drop_empty(&mut self, centroids: &mut Vec<f32>, b: usize) {
        let used: Vec<bool> = self.count.iter().map(|&n| n > 0).collect();
        keep(centroids, &used, b);
        keep(&mut self.sum, &used, b);
        keep(&mut self.weight, &used, b);
        keep(&mut self.error, &used, 1);
        keep(&mut self.count, &used, 1);
    }

    /// Weighted squared error of the whole matrix.
    pub(super) fn total_error(&self) -> f64 {
        self.error.iter().sum()
    }

    /// Moves each centroid to the weighted mean of its blocks, coordinate by coordinate; where
    /// there is no weight the centroid stays.
    pub(super) fn move_to_means(&self, centroids: &mut [f32]) {
        for ((c, sum), weight) in centroids.iter_mut().zip(&self.sum).zip(&self.weight) {
            if *weight > 0.0 {
                *c = (sum / weight) as f32;
            }
        }
    }
}

/// Keeps the runs of `b` values for which `used` is true.
pub(super) fn keep<T>(values: &mut Vec<T>, used: &[bool], b: usize) {
    let mut at = 0;
    values.retain(|_| {
        at += 1;
        used[(at - 1) / b]
    });
}

/// Assigns every block to its nearest centroid, and adds nothing up.
#[cfg(feature = "train")]
pub(super) fn search(blocks: &Blocks<'_>, centroids: &[f32], codes: &mut [u8]) {
    let search = Search::new(blocks, centroids);
    let rows = blocks.chunk_rows();
    codes
        .par_chunks_mut(rows * blocks.per_row())
        .enumerate()
        .for_each(|(chunk, codes)| search.rows(chunk * rows, codes));
}

/// Assigns every block to its nearest centroid. `codes` is `[rows][blocks in a row]`; `centroids`
/// is `[k][b]`, `k <= 256`. The sums are those of the new codes.
pub(super) fn assign(blocks: &Blocks<'_>, centroids: &[f32], codes: &mut [u8]) -> Stats {
    let search = Search::new(blocks, centroids);
    let rows = blocks.chunk_rows();
    let chunks: Vec<Stats> = codes
        .par_chunks_mut(rows * blocks.per_row())
        .enumerate()
        .map(|(chunk, codes)| {
            search.rows(chunk * rows, codes);
            measure(blocks, centroids, chunk * rows, codes)
        })
        .collect();
    let mut total = Stats::new(centroids.len() / blocks.b, blocks.b);
    for chunk in &chunks {
        total.add(chunk);
    }
    total
}

/// The sums of rows `first..` under their codes. Errors come from the differences themselves, not
/// from the expanded square, which cancels badly.
fn measure(blocks: &Blocks<'_>, centroids: &[f32], first: usize, codes: &[u8]) -> Stats {
    let b = blocks.b;
    let per_row = blocks.per_row();
    let mut stats = Stats::new(centroids.len() / b, b);
    for (r, codes) in codes.chunks_exact(per_row).enumerate() {
        for (j, &code) in codes.iter().enumerate() {
            let k = usize::from(code);
            let x = blocks.get(first + r, j);
            let mass = f64::from(blocks.mass_of(first + r));
            let c = &centroids[k * b..][..b];
            let sum = &mut stats.sum[k * b..][..b];
            let weight = &mut stats.weight[k * b..][..b];
            let mut error = 0.0;
            for i in 0..x.len() {
                let h = match blocks.importance {
                    Some(h) => mass * f64::from(h[j * b + i]),
                    None => mass,
                };
                let value = f64::from(x[i]);
                let difference = value - f64::from(c[i]);
                error += h * difference * difference;
                sum[i] += h * value;
                weight[i] += h;
            }
            stats.error[k] += error;
            stats.count[k] += 1;
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::rng::Rng;

    fn normal(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        (0..n).map(|_| rng.normal()).collect()
    }

    /// The distance of block (r, j) to a centroid, written as its definition.
    fn distance(blocks: &Blocks<'_>, r: usize, j: usize, c: &[f32]) -> f64 {
        let x = blocks.get(r, j);
        (0..x.len())
            .map(|i| f64::from(blocks.weight(j, i)) * (f64::from(x[i]) - f64::from(c[i])).powi(2))
            .sum()
    }

    /// Every code must be as near as the nearest, up to the rounding of f32 sums.
    fn check(blocks: &Blocks<'_>, centroids: &[f32]) {
        let mut codes = vec![255; blocks.len()];
        let stats = assign(blocks, centroids, &mut codes);
        let mut total = 0.0;
        for r in 0..blocks.w.rows() {
            for j in 0..blocks.per_row() {
                let code = usize::from(codes[r * blocks.per_row() + j]);
                let of = |k: usize| distance(blocks, r, j, &centroids[k * blocks.b..][..blocks.b]);
                let least = (0..centroids.len() / blocks.b)
                    .map(of)
                    .fold(f64::INFINITY, f64::min);
                let size: f64 = blocks.get(r, j).iter().map(|x| f64::from(x * x)).sum();
                assert!(
                    of(code) <= least + 1e-5 * (size + 1.0),
                    "row {r}, block {j}"
                );
                total += f64::from(blocks.mass_of(r)) * of(code);
            }
        }
        assert!((stats.total_error() - total).abs() <= 1e-9 * total);
        assert_eq!(stats.count.iter().sum::<u64>() as usize, blocks.len());
    }

    #[test]
    fn codes_are_the_nearest_centroids() {
        for (rows, cols, b, k) in [
            (5, 8, 8, 7),
            (37, 22, 4, 16),
            (130, 19, 8, 256),
            (3, 5, 2, 2),
        ] {
            let data = normal(rows * cols, 1);
            let importance: Vec<f32> = normal(cols, 2).iter().map(|h| h * h).collect();
            let mass: Vec<f32> = normal(rows, 3).iter().map(|h| h * h).collect();
            let centroids = normal(k * b, 4);
            let mut blocks = Blocks {
                w: Matrix::new(&data, rows, cols).unwrap(),
                b,
                importance: None,
                mass: Mass::One,
                isa: Isa::detect().unwrap(),
            };
            check(&blocks, &centroids);
            blocks.importance = Some(&importance);
            check(&blocks, &centroids);
            blocks.mass = Mass::Row(&mass);
            check(&blocks, &centroids);
        }
    }

    #[test]
    fn a_common_offset_or_an_extreme_scale_does_not_blur_distances() {
        // Without the shift, 1000^2 would swallow the differences of 1/1000.
        for (offset, scale) in [(1000.0, 0.25), (0.0, 1e-30), (0.0, 1e30)] {
            let centroids: Vec<f32> = (0..16).map(|c| offset + scale * c as f32).collect();
            let data: Vec<f32> = (0..160).map(|x| offset + scale * (x % 16) as f32).collect();
            let blocks = Blocks {
                w: Matrix::new(&data, 10, 16).unwrap(),
                b: 1,
                importance: None,
                mass: Mass::One,
                isa: Isa::detect().unwrap(),
            };
            let mut codes = vec![0; blocks.len()];
            let stats = assign(&blocks, &centroids, &mut codes);
            assert!(
                codes
                    .iter()
                    .enumerate()
                    .all(|(x, &c)| usize::from(c) == x % 16)
            );
            assert_eq!(stats.total_error(), 0.0);
        }
    }

    #[test]
    fn means_are_weighted_and_masked() {
        // Two rows of 3 columns at b = 2: the second block is short.
        let data = [1.0, 10.0, 200.0, 3.0, 20.0, 500.0];
        let importance = [1.0, 0.0, 2.0];
        let mass = [1.0, 3.0];
        let blocks = Blocks {
            w: Matrix::new(&data, 2, 3).unwrap(),
            b: 2,
            importance: Some(&importance),
            mass: Mass::Row(&mass),
            isa: Isa::detect().unwrap(),
        };
        let mut centroids = vec![0.0, 7.0, 300.0, 9.0];
        let mut codes = vec![0; 4];
        let stats = assign(&blocks, &centroids, &mut codes);
        assert_eq!(codes, [0, 1, 0, 1]);
        stats.move_to_means(&mut centroids);
        // Coordinate 1 has no weight in either centroid, so it stays.
        assert_eq!(centroids, [2.5, 7.0, 425.0, 9.0]);
    }
}
