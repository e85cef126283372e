//! Product quantization of a weight matrix.
//!
//! `W[r, j*b..(j+1)*b] = factor[r] * codebook[codes[r, j]]`, where the factors are optional. With
//! factors, a row is divided by its own size before the search, so that one codebook serves rows
//! of very different magnitude; its error then counts in proportion to the square of the factor.
//!
//! K-means runs in f32; then the codebook is rounded to what is stored, and the last assignment
//! is made against the rounded values, so that codes are best for what a reader will see.

use half::f16;

use super::Progress;
use super::blocks::{Blocks, Mass, Stats, assign};
use super::codebook::{CentroidType, Codebook, Width};
use super::half::to_f16;
use super::kmeans::{KmeansOptions, cluster};
use super::matrix::{Importance, Matrix, relative_error};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Isa;

pub use super::feedback::quantize_with_hessian;

/// The largest block size.
pub const MAX_BLOCK: usize = 64;

/// Rounds of refitting row factors and assigning again; more gain less than 0.3 % of the error.
const ROW_ROUNDS: usize = 1;

/// How to quantize one matrix.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PqOptions {
    /// Columns in a block, 1..=[`MAX_BLOCK`].
    pub block: usize,
    /// Centroids in the codebook, 2..=256; fewer are used where the matrix has fewer vectors.
    pub centroids: usize,
    /// Largest number of K-means iterations; they stop early when nothing improves any more.
    pub iterations: usize,
    /// Run every iteration on all vectors, not on a sample of about 1,024 a centroid.
    pub full: bool,
    /// Seed of every random choice.
    pub seed: u64,
    /// Storage of the codebook.
    pub centroid_type: CentroidType,
    /// Give each row a factor of its own.
    pub row_scale: bool,
    /// Codebooks of a matrix: each is that of as many neighbouring blocks of every row, whose number this has
    /// to divide. One codebook for each block of a row is product quantization as in Jégou et al. 2011.
    pub codebooks: usize,
    /// Rounds of improvement after the first pass with a Hessian; each costs about as much as the
    /// pass itself. Unused without one.
    pub refinements: usize,
}

impl PqOptions {
    /// The defaults for blocks of `block` columns: 256 int8 centroids, 20 iterations, no row scale.
    pub fn new(block: usize) -> Self {
        Self {
            block,
            centroids: 256,
            iterations: 20,
            full: false,
            seed: 0,
            centroid_type: CentroidType::Int8,
            row_scale: false,
            codebooks: 1,
            refinements: 3,
        }
    }

    /// Number of vectors that a `[rows, cols]` matrix is cut into.
    pub fn vectors(&self, rows: usize, cols: usize) -> usize {
        rows * cols.div_ceil(self.block.max(1))
    }

    /// Whether a `[rows, cols]` matrix has fewer than four vectors a centroid: too few for a
    /// codebook to pay, and for its centroids to be more than copies.
    pub fn is_too_small(&self, rows: usize, cols: usize) -> bool {
        self.vectors(rows, cols) < 4 * self.centroids.saturating_mul(self.codebooks)
    }

    pub(super) fn check(&self, cols: usize) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        if !(1..=MAX_BLOCK).contains(&self.block) {
            return wrong(format!(
                "block size {} is not in 1..={MAX_BLOCK}",
                self.block
            ));
        }
        if !(2..=256).contains(&self.centroids) {
            return wrong(format!("{} centroids are not in 2..=256", self.centroids));
        }
        let per_row = cols.div_ceil(self.block);
        if self.codebooks == 0 || !per_row.is_multiple_of(self.codebooks) {
            return wrong(format!(
                "{} codebooks do not divide the {per_row} blocks of a row",
                self.codebooks
            ));
        }
        Ok(())
    }

    fn kmeans(&self) -> KmeansOptions {
        KmeansOptions {
            k: self.centroids,
            iterations: self.iterations,
            full: self.full,
            seed: self.seed,
        }
    }

    /// Steps of progress that [`Fit::new`] takes.
    pub(super) fn steps(&self) -> usize {
        self.iterations + 2 + if self.row_scale { ROW_ROUNDS } else { 0 }
    }
}

/// A quantized matrix `[rows, cols]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pq {
    /// out_features, or the vocabulary.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
    /// Columns in a block.
    pub block: usize,
    /// Codebooks, each for as many neighbouring blocks of a row.
    pub codebooks: usize,
    /// Centroids in a codebook, 2..=256.
    pub k: usize,
    /// `[rows][ceil(cols / block)]`, each below `k`.
    pub codes: Vec<u8>,
    /// `[codebooks][k][block]`.
    pub codebook: Codebook,
    /// One factor a row, or none.
    pub row_scale: Option<RowScale>,
}

/// Factors of rows: row `r` of the matrix is `factors[r]` times what its codes decode to.
#[derive(Debug, Clone, PartialEq)]
pub struct RowScale {
    /// `[rows]`, finite and not negative; 0 for a row of zeros, about 1 for the largest rows.
    pub factors: Vec<f16>,
}

/// Quantizes `w` so that the squared error, weighted by `importance`, is small. `progress` is told how
/// many more weights are done.
///
/// # Errors
/// [`ErrorKind::Config`] for options out of range and a bad `importance`;
/// [`ErrorKind::Checkpoint`] if a centroid does not fit f16.
pub fn quantize(
    w: Matrix<'_>,
    importance: Importance<'_>,
    options: &PqOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Pq> {
    options.check(w.cols())?;
    if options.codebooks > 1 {
        return super::split::quantize(w, importance, options, progress);
    }
    let mut progress = Progress::new(w.data().len(), options.steps(), progress);
    Ok(Fit::new(w, importance, options, &mut progress)?.finish())
}

/// A quantization in the making.
pub(super) struct Fit<'a> {
    pub(super) w: Matrix<'a>,
    pub(super) block: usize,
    pub(super) codes: Vec<u8>,
    pub(super) codebook: Codebook,
    /// Of the codebook.
    pub(super) width: Width,
    pub(super) rows: Rows<'a>,
}

impl<'a> Fit<'a> {
    pub(super) fn new(
        w: Matrix<'a>,
        importance: Importance<'a>,
        options: &PqOptions,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let Importance {
            columns: importance,
            rows: counts,
        } = importance.checked(w)?;
        let mut rows = Rows::new(Isa::detect()?, w, options.row_scale, counts);
        let blocks = rows.blocks(w, options.block, importance);
        let clusters = cluster(&blocks, &options.kmeans(), progress);
        let (centroids, weight) = (&clusters.centroids, &clusters.stats.weight);
        let error = clusters.stats.total_error();
        let width = Width::narrowest(centroids, options.block, weight, error);
        let to = options.centroid_type;
        let codebook = Codebook::round(centroids, options.block, weight, to, width)?;
        let decoded = codebook.decode();
        let mut codes = vec![0; blocks.len()];
        let mut stats = assign(&blocks, &decoded, &mut codes);
        progress.step();
        if options.row_scale {
            for _ in 0..ROW_ROUNDS {
                rows.refit(w, options.block, importance, &decoded, &codes)?;
                let blocks = rows.blocks(w, options.block, importance);
                stats = assign(&blocks, &decoded, &mut codes);
                progress.step();
            }
            rows.refit(w, options.block, importance, &decoded, &codes)?;
        }
        let mut fit = Self {
            w,
            block: options.block,
            codes,
            codebook,
            width,
            rows,
        };
        fit.drop_unused(&stats);
        Ok(fit)
    }

    /// Renumbers the codes so that every centroid is used.
    fn drop_unused(&mut self, stats: &Stats) {
        let used: Vec<bool> = stats.count.iter().map(|&n| n > 0).collect();
        let mut next = 0u8;
        let new: Vec<u8> = used
            .iter()
            .map(|&used| {
                let number = next;
                next = next.wrapping_add(u8::from(used));
                number
            })
            .collect();
        for code in &mut self.codes {
            *code = new[usize::from(*code)];
        }
        self.codebook.keep(&used, self.block);
    }

    pub(super) fn finish(self) -> Pq {
        Pq {
            rows: self.w.rows(),
            cols: self.w.cols(),
            block: self.block,
            codebooks: 1,
            k: self.codebook.len() / self.block,
            codes: self.codes,
            codebook: self.codebook,
            row_scale: self.rows.scaled.map(|scaled| RowScale {
                factors: scaled.factors,
            }),
        }
    }
}

/// The rows of a matrix divided by their factors, if they have any.
pub(super) struct Rows<'a> {
    isa: Isa,
    plain: &'a [f32],
    /// How much errors of the rows as they were count; 1 if there is none.
    counts: Option<&'a [f32]>,
    pub(super) scaled: Option<Scaled>,
}

pub(super) struct Scaled {
    pub(super) factors: Vec<f16>,
    /// `W[r] / factors[r]`; zeros where the factor is 0.
    pub(super) data: Vec<f32>,
    /// How much errors of the divided rows count: squares of the factors, times `counts`.
    pub(super) mass: Vec<f32>,
}

impl<'a> Rows<'a> {
    /// Factors start as the root mean squares of the rows, over the largest of them.
    fn new(isa: Isa, w: Matrix<'a>, scale: bool, counts: Option<&'a [f32]>) -> Self {
        let plain = w.data();
        if !scale {
            return Self {
                isa,
                plain,
                counts,
                scaled: None,
            };
        }
        let norms: Vec<f64> = plain
            .chunks_exact(w.cols())
            .map(|row| {
                row.iter()
                    .map(|&x| f64::from(x).powi(2))
                    .sum::<f64>()
                    .sqrt()
            })
            .collect();
        let max = norms.iter().copied().fold(0.0, f64::max);
        let max = if max > 0.0 { max } else { 1.0 };
        let factors: Vec<f16> = norms.iter().map(|n| f16::from_f64(n / max)).collect();
        let mut scaled = Scaled {
            factors,
            data: vec![0.0; plain.len()],
            mass: vec![0.0; w.rows()],
        };
        scaled.divide(w, counts);
        Self {
            isa,
            plain,
            counts,
            scaled: Some(scaled),
        }
    }

    /// The rows that the codebook has to match.
    pub(super) fn data(&self) -> &[f32] {
        self.scaled.as_ref().map_or(self.plain, |s| &s.data)
    }

    pub(super) fn blocks<'s>(
        &'s self,
        w: Matrix<'_>,
        b: usize,
        importance: Option<&'s [f32]>,
    ) -> Blocks<'s> {
        Blocks {
            w: Matrix::trusted(self.data(), w.rows(), w.cols()),
            b,
            importance,
            mass: self.mass(),
            isa: self.isa,
        }
    }

    pub(super) fn mass(&self) -> Mass<'_> {
        match (&self.scaled, self.counts) {
            (Some(scaled), _) => Mass::Row(&scaled.mass),
            (None, Some(counts)) => Mass::Row(counts),
            (None, None) => Mass::One,
        }
    }

    /// Gives each row the factor with the least squared error under its codes.
    fn refit(
        &mut self,
        w: Matrix<'_>,
        b: usize,
        importance: Option<&[f32]>,
        codebook: &[f32],
        codes: &[u8],
    ) -> Result<()> {
        let per_row = w.cols().div_ceil(b);
        let mut decoded = vec![0.0; w.cols()];
        self.set_factors(w, |r| {
            decode_row(codebook, b, &codes[r * per_row..][..per_row], &mut decoded);
            let (mut product, mut square) = (0.0, 0.0);
            for (i, (&x, &q)) in w.row(r).iter().zip(&decoded).enumerate() {
                let h = importance.map_or(1.0, |h| f64::from(h[i]));
                product += h * f64::from(x) * f64::from(q);
                square += h * f64::from(q).powi(2);
            }
            (product, square)
        })
    }

    /// Sets each factor to the quotient that `ratio` gives; where its divisor is 0, or the row has
    /// none, the factor stays.
    pub(super) fn set_factors(
        &mut self,
        w: Matrix<'_>,
        mut ratio: impl FnMut(usize) -> (f64, f64),
    ) -> Result<()> {
        let Some(scaled) = &mut self.scaled else {
            return Ok(());
        };
        for (r, factor) in scaled.factors.iter_mut().enumerate() {
            let (product, square) = ratio(r);
            if *factor > f16::ZERO && square > 0.0 {
                *factor = to_f16((product / square).max(0.0) as f32)?;
            }
        }
        scaled.divide(w, self.counts);
        Ok(())
    }
}

impl Scaled {
    fn divide(&mut self, w: Matrix<'_>, counts: Option<&[f32]>) {
        let rows = self.data.chunks_exact_mut(w.cols()).zip(&mut self.mass);
        for (r, (row, mass)) in rows.enumerate() {
            let factor = self.factors[r].to_f32();
            *mass = factor * factor * counts.map_or(1.0, |counts| counts[r]);
            if factor == 0.0 {
                row.fill(0.0);
            } else {
                for (to, from) in row.iter_mut().zip(w.row(r)) {
                    *to = from / factor;
                }
            }
        }
    }
}

/// Writes the centroids of a row's codes one after another; the last may be cut short.
pub(super) fn decode_row(codebook: &[f32], b: usize, codes: &[u8], out: &mut [f32]) {
    for (out, &code) in out.chunks_mut(b).zip(codes) {
        out.copy_from_slice(&codebook[usize::from(code) * b..][..out.len()]);
    }
}

impl Pq {
    /// Writes row `row` of the decoded matrix to `out`, which holds `cols` values.
    ///
    /// # Panics
    /// If `row` or the length of `out` does not fit the matrix.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        self.decode_with(&self.codebook.decode(), row, out);
    }

    /// The decoded matrix, `[rows][cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let codebook = self.codebook.decode();
        let mut out = vec![0.0; self.rows * self.cols];
        for (row, out) in out.chunks_exact_mut(self.cols).enumerate() {
            self.decode_with(&codebook, row, out);
        }
        out
    }

    fn decode_with(&self, codebook: &[f32], row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols);
        let per_row = self.cols.div_ceil(self.block);
        let codes = &self.codes[row * per_row..][..per_row];
        let blocks = per_row / self.codebooks;
        let books = codebook.chunks_exact(self.k * self.block);
        let parts = out
            .chunks_mut(blocks * self.block)
            .zip(codes.chunks_exact(blocks));
        for ((out, codes), book) in parts.zip(books) {
            decode_row(book, self.block, codes, out);
        }
        if let Some(scale) = &self.row_scale {
            let factor = scale.factors[row].to_f32();
            out.iter_mut().for_each(|x| *x *= factor);
        }
    }

    /// `||W - W'|| / ||W||` in the Frobenius norm, `W'` being the decoded matrix.
    ///
    /// # Panics
    /// If `w` has another shape.
    pub fn relative_error(&self, w: Matrix<'_>) -> f64 {
        assert_eq!((w.rows(), w.cols()), (self.rows, self.cols));
        let codebook = self.codebook.decode();
        relative_error(w, |row, out| self.decode_with(&codebook, row, out))
    }
}

impl Pq {
    /// A matrix of given codes (`[rows][ceil(cols / block)]`) and trained `centroids`
    /// (`[codebooks][k][block]`), which are rounded to what is stored. `factors` are those of the rows, if they have any.
    ///
    /// # Errors
    /// [`ErrorKind::Checkpoint`] if a value is not finite or does not fit f16.
    pub(crate) fn trained(
        (rows, cols): (usize, usize),
        (block, codebooks): (usize, usize),
        codes: Vec<u8>,
        centroids: &[f32],
        factors: Option<&[f32]>,
        to: CentroidType,
    ) -> Result<Self> {
        let k = centroids.len() / block / codebooks;
        let uses = uses(&codes, cols.div_ceil(block), codebooks, k);
        let codebook = stored_centroids(centroids, (block, codebooks), &uses, to)?;
        let factors = match factors {
            Some(factors) => Some(factors.iter().map(|&f| to_f16(f)).collect::<Result<_>>()?),
            None => None,
        };
        Ok(Self {
            rows,
            cols,
            block,
            codebooks,
            k,
            codes,
            codebook,
            row_scale: factors.map(|factors| RowScale { factors }),
        })
    }
}

/// How many blocks have each centroid, `[codebooks][k]`, of `per_row` in a row.
pub(super) fn uses(codes: &[u8], per_row: usize, codebooks: usize, k: usize) -> Vec<usize> {
    let mut uses = vec![0usize; codebooks * k];
    for row in codes.chunks_exact(per_row) {
        for (book, codes) in row.chunks_exact(per_row / codebooks).enumerate() {
            for &code in codes {
                uses[book * k + usize::from(code)] += 1;
            }
        }
    }
    uses
}

/// Trained centroids `[codebooks][k][block]` as they are stored, each of which stands for `uses` blocks.
///
/// # Errors
/// [`ErrorKind::Checkpoint`] if a value is not finite or does not fit f16.
pub(crate) fn stored_centroids(
    centroids: &[f32],
    (block, codebooks): (usize, usize),
    uses: &[usize],
    to: CentroidType,
) -> Result<Codebook> {
    if let Some(at) = centroids.iter().position(|c| !c.is_finite()) {
        let message = format!("value {at} of the centroids is {}", centroids[at]);
        return Err(Error::new(ErrorKind::Checkpoint, message));
    }
    let weight: Vec<f64> = (uses.iter())
        .flat_map(|&uses| std::iter::repeat_n(uses as f64, block))
        .collect();
    let square = |(c, weight): (&f32, &f64)| weight * f64::from(*c).powi(2);
    let energy: f64 = centroids.iter().zip(&weight).map(square).sum();
    // What codes of a bit a weight leave is about 0.4 of what centroids hold; what they left here is not
    // known any more.
    let width = match codebooks {
        1 => Width::narrowest(centroids, block, &weight, 0.1 * energy),
        // Of tables, with which nothing is multiplied.
        _ => Width::WIDE,
    };
    Codebook::round(centroids, block, &weight, to, width)
}

#[cfg(test)]
#[path = "tests/pq.rs"]
mod tests;
