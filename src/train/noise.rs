//! Quantization noise: a forward pass of training sees some of a matrix's blocks quantized.
//!
//! After section 4 of "Training with Quantization Noise for Extreme Model Compression" (Fan et al.
//! 2020, arXiv 2004.07320), with two differences from the authors' code: weights are never written to,
//! so that noise cannot wear them away under plain f32 training or gradient accumulation, and clean
//! blocks stay exactly as they are. The noise is a function of the weights, and its gradient is the
//! straight-through estimator: that of the identity, for quantized blocks as for clean ones.
//!
//! A block is `block` neighbouring inputs of an output (of a token, in an embedding table): the
//! sub-vectors of product quantization. `int8` and `int4` noise is drawn value by value.

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::setup::names;
use crate::artifact::Scheme;
use crate::convert::{GroupPlan, PlannedTensor};
use crate::error::{Error, ErrorKind, Result};
use crate::quant::codes;
use crate::quant::pq;
use crate::quant::scalar::{self, Bits, ZeroPoint};
use crate::quant::{Importance, Matrix};

/// What becomes of the blocks or values that are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Form {
    /// They become 0: the paper's cheap stand-in for `exact`.
    Proxy,
    /// They become the mean of all blocks of the matrix.
    Mean,
    /// They become their nearest centroids, in the codebook that the plan asks for, made by K-means every
    /// `refresh` steps.
    Exact,
    /// They are rounded to 255 or 256 values.
    Int8,
    /// They are rounded to 15 or 16 values.
    Int4,
}

/// What `int8` and `int4` values span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Range {
    /// What the plan's row scales and zero points say, and in int4 cut off where that makes a row's squared
    /// error smaller: the grid of the file that is written.
    #[default]
    Plan,
    /// From the smallest to the largest value of the matrix, with a zero point.
    Tensor,
    /// For each row, the same on both sides of 0, up to its largest magnitude.
    Channel,
    /// As for `tensor`, cut off on both sides where that makes the squared error smaller, as a
    /// histogram of 2,048 bins tells.
    Histogram,
}

/// A rate that stays, or that goes from one value to another in the course of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "noise.rate is a number, or two in brackets: the first and the last"
)]
pub enum Rate {
    /// Always this one.
    Constant(f64),
    /// From the first one to the second, in equal steps.
    Linear([f64; 2]),
}

impl Rate {
    /// The rate after a part of the stage, 0 to 1.
    pub fn at(self, part: f64) -> f64 {
        match self {
            Self::Constant(rate) => rate,
            Self::Linear([from, to]) => from + (to - from) * part,
        }
    }

    fn ends(self) -> [f64; 2] {
        match self {
            Self::Constant(rate) => [rate, rate],
            Self::Linear(ends) => ends,
        }
    }
}

/// How weights are disturbed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Noise {
    /// What becomes of what is drawn.
    pub form: Form,
    /// The probability that a block (`int8`, `int4`: a value) is drawn. 1 is quantization-aware training;
    /// `proxy` and `mean` would leave nothing then, and take rates below 1.
    pub rate: Rate,
    /// The groups whose tensors are disturbed, as far as they are not quantized yet. If `None`, all that the plan
    /// quantizes so: to codes for `proxy`, `mean` and `exact`, to int8 or int4 for the others.
    pub groups: Option<Vec<String>>,
    /// `int8`, `int4`: what values span.
    #[serde(default)]
    pub range: Range,
    /// Steps between two looks at the weights for codebooks, means and ranges.
    #[serde(default = "refresh")]
    pub refresh: usize,
    /// `proxy`: divide what is left by 1 - rate, as the authors' code does: the mean over draws is
    /// then the weight, but no block stays as it is.
    #[serde(default)]
    pub rescale: bool,
    /// `exact`: K-means iterations.
    #[serde(default = "iterations")]
    pub iterations: usize,
}

fn refresh() -> usize {
    100
}

fn iterations() -> usize {
    5
}

impl Noise {
    /// Noise of a form and a rate, with the defaults for the rest.
    pub fn new(form: Form, rate: f64) -> Self {
        Self {
            form,
            rate: Rate::Constant(rate),
            groups: None,
            range: Range::default(),
            refresh: refresh(),
            rescale: false,
            iterations: iterations(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        for rate in self.rate.ends() {
            let most = match self.form {
                Form::Proxy | Form::Mean => rate < 1.0,
                _ => rate <= 1.0,
            };
            if !(rate >= 0.0 && most) {
                let below = match self.form {
                    Form::Proxy | Form::Mean => "below 1: nothing would be left of the weights",
                    _ => "1",
                };
                return wrong(format!("noise.rate: {rate} is not from 0 to {below}"));
            }
        }
        if self.refresh == 0 || self.iterations == 0 {
            return wrong("noise.refresh and noise.iterations are at least 1".into());
        }
        let of_integers = matches!(self.form, Form::Int8 | Form::Int4);
        for (key, given, right, whose) in [
            (
                "rescale",
                self.rescale,
                self.form == Form::Proxy,
                "form proxy",
            ),
            (
                "range",
                self.range != Range::default(),
                of_integers,
                "forms int8 and int4",
            ),
            (
                "iterations",
                self.iterations != iterations(),
                self.form == Form::Exact,
                "form exact",
            ),
            (
                "refresh",
                self.refresh != refresh(),
                self.form != Form::Proxy,
                "forms that look at the weights, which proxy does not",
            ),
        ] {
            if given && !right {
                return wrong(format!("noise.{key} is for the {whose}"));
            }
        }
        Ok(())
    }

    /// Whether a tensor that the plan quantizes is disturbed: blocks are of codes, single values of int8 and int4.
    /// Groups that are named may have either, but for `exact`, which needs a codebook.
    pub(super) fn reaches(&self, tensor: &PlannedTensor) -> bool {
        let of_integers = matches!(self.form, Form::Int8 | Form::Int4);
        let own = (tensor.plan.scheme != Scheme::Pq) == of_integers;
        match &self.groups {
            None => own,
            Some(parts) => {
                (own || self.form != Form::Exact) && parts.iter().any(|part| names(part, tensor))
            }
        }
    }

    /// Whether centroids always stand in for weights.
    pub(super) fn always_exact(&self) -> bool {
        self.form == Form::Exact && self.rate.ends() == [1.0; 2]
    }

    /// What is wrong where it [reaches](Self::reaches) nothing that the plan quantizes.
    pub(super) fn unfit(&self) -> String {
        let form = format!("{:?}", self.form).to_lowercase();
        match (self.form, &self.groups) {
            (Form::Exact, Some(_)) => {
                "noise: form exact needs codebooks, and the plan has none for its groups".into()
            }
            (Form::Int8 | Form::Int4, _) => format!(
                "noise: form {form} is for what the plan has in int8 or int4, which is nothing; noise.groups \
                 names others"
            ),
            (_, _) => format!(
                "noise: form {form} is for what the plan gives codes, which is nothing; noise.groups names others"
            ),
        }
    }

    /// What is needed of all of a matrix `[rows, cols]` to disturb any of its rows.
    ///
    /// # Errors
    /// If the plan's codebook cannot be made.
    pub(super) fn look(&self, w: &Tensor, plan: &GroupPlan, seed: u64) -> Result<Look> {
        tch::no_grad(|| {
            let of_all = match self.form {
                Form::Proxy => None,
                Form::Mean => {
                    let sums = blocks(w, plan.block);
                    let sums = sums.sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Float);
                    // Where a row's last block is shorter, its end is no value.
                    let counts = blocks(&w.ones_like(), plan.block);
                    let counts = counts.sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Float);
                    Some(sums / counts.clamp_min(1.0))
                }
                Form::Exact => return codebook(w, plan, self.iterations, seed),
                Form::Int8 => Some(grid(w, plan, Bits::Eight, self.range)?),
                Form::Int4 => Some(grid(w, plan, Bits::Four, self.range)?),
            };
            Ok(Look {
                of_all,
                factors: None,
            })
        })
    }

    /// Rows `w` of a matrix with noise. `seen` is what [`look`](Self::look) found; `ids` says which rows
    /// these are, if they are not all.
    ///
    /// Gradients reach `w` as if there were no noise.
    ///
    /// # Errors
    /// If what was found does not fit.
    pub(super) fn disturb(
        &self,
        w: &Tensor,
        plan: &GroupPlan,
        rate: f64,
        seen: &Look,
        ids: Option<&Tensor>,
    ) -> Result<Tensor> {
        if rate == 0.0 {
            return Ok(w.shallow_clone());
        }
        let value = tch::no_grad(|| -> Result<Tensor> {
            let of_rows = |seen: &Tensor| match ids {
                Some(ids) if seen.size()[0] > 1 => seen.index_select(0, ids),
                _ => seen.shallow_clone(),
            };
            let on_grid =
                |grid: &Tensor, bits| rounded(w, &of_rows(grid), ends(plan, bits, self.range));
            let each = match self.form {
                Form::Int8 | Form::Int4 => 1,
                _ => plan.block,
            };
            let drawn = (rate < 1.0).then(|| drawn(w, each, rate));
            let quantized = match (self.form, &seen.of_all) {
                (Form::Mean, Some(mean)) => repeated(mean, w),
                (Form::Exact, Some(centroids)) => {
                    let factors = seen.factors.as_ref().map(of_rows);
                    nearest(w, plan, (centroids, factors.as_ref()), drawn.as_ref())?
                }
                (Form::Int8, Some(grid)) => on_grid(grid, Bits::Eight),
                (Form::Int4, Some(grid)) => on_grid(grid, Bits::Four),
                _ => w.zeros_like(),
            };
            let value = match drawn {
                Some(drawn) => quantized.where_self(&of_values(&drawn, w, each), w),
                None => quantized,
            };
            Ok(match self.rescale {
                true => value / (1.0 - rate),
                false => value,
            })
        });
        // The difference is exactly 0, and carries the gradient.
        Ok(value? + (w - w.detach()))
    }
}

/// What [`Noise::look`] found.
#[derive(Default)]
pub(super) struct Look {
    /// The centroids `[codebooks * k, block]`, the mean block `[block]`, or steps and zero points
    /// `[rows or 1, 2]`; nothing for `proxy`.
    pub(super) of_all: Option<Tensor>,
    /// What centroids are multiplied by, `[rows, 1]`.
    pub(super) factors: Option<Tensor>,
}

fn size(w: &Tensor) -> (i64, i64) {
    let size = w.size();
    (size[0], size[1])
}

/// `[rows, blocks of a row, block]`, with zeros after a row's end.
fn blocks(w: &Tensor, block: usize) -> Tensor {
    let (rows, columns) = size(w);
    let block = block as i64;
    let each = (columns + block - 1) / block;
    w.constant_pad_nd([0, each * block - columns])
        .view([rows, each, block])
}

/// Which blocks of `block` columns are drawn: `[rows, blocks of a row]`.
fn drawn(w: &Tensor, block: usize, rate: f64) -> Tensor {
    let (rows, columns) = size(w);
    let shape = [rows, (columns as usize).div_ceil(block) as i64];
    Tensor::rand(shape, (Kind::Float, w.device())).lt(rate)
}

/// The same for each of the values of a matrix like `w`.
fn of_values(drawn: &Tensor, w: &Tensor, block: usize) -> Tensor {
    let (rows, columns) = size(w);
    if block == 1 {
        return drawn.shallow_clone();
    }
    let (block, each) = (block as i64, drawn.size()[1]);
    let all = drawn.unsqueeze(2).expand([rows, each, block], false);
    all.reshape([rows, each * block]).narrow(1, 0, columns)
}

/// A block in all places of a matrix like `w`.
fn repeated(block: &Tensor, w: &Tensor) -> Tensor {
    let (rows, columns) = size(w);
    let len = block.size()[0];
    let row = block
        .repeat([(columns + len - 1) / len])
        .narrow(0, 0, columns);
    row.unsqueeze(0).expand([rows, columns], false)
}

/// Centroids and factors as the plan says.
fn codebook(w: &Tensor, plan: &GroupPlan, iterations: usize, seed: u64) -> Result<Look> {
    let (rows, columns) = size(w);
    let values = super::weights::to_vec(w);
    let matrix = Matrix::new(&values, rows as usize, columns as usize)?;
    let mut options = plan.pq_options(seed);
    options.iterations = iterations;
    let pq = pq::quantize(matrix, Importance::default(), &options, &|_| ())?;
    let on_device = |values: &[f32], columns: usize| {
        let tensor = Tensor::from_slice(values).view([-1, columns as i64]);
        tensor.to_device(w.device())
    };
    let factors = pq.row_scale.map(|scale| {
        let factors: Vec<f32> = scale.factors.iter().map(|f| f.to_f32()).collect();
        on_device(&factors, 1)
    });
    Ok(Look {
        of_all: Some(on_device(&pq.codebook.decode(), pq.block)),
        factors,
    })
}

/// For each block of some rows its nearest centroid, times the row's factor; all but blocks that are `drawn`
/// (`[rows, blocks of a row]`) stay as they are.
fn nearest(
    w: &Tensor,
    plan: &GroupPlan,
    look: (&Tensor, Option<&Tensor>),
    drawn: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, columns) = size(w);
    let (block, columns) = (plan.block, columns as usize);
    let per_row = columns.div_ceil(block);
    let centroids = super::weights::to_vec(look.0);
    let factors = look.1.map(super::weights::to_vec);
    let factor = |row: usize| factors.as_ref().map_or(1.0, |factors| factors[row]);
    let drawn = drawn.map(|drawn| super::weights::to_vec(&drawn.to_kind(Kind::Float)));
    let is_drawn = |row: usize, at: usize| {
        let drawn = drawn.as_ref();
        drawn.is_none_or(|drawn| drawn[row * per_row + at] != 0.0)
    };
    let mut values = super::weights::to_vec(w);
    let of_book = centroids.len() / plan.codebooks;
    let blocks = per_row / plan.codebooks;
    for (book, centroids) in centroids.chunks_exact(of_book).enumerate() {
        let (first, end) = (book * blocks, (book + 1) * blocks);
        // The last block of a row may be shorter.
        let cut = end.min(columns / block);
        for places in [first..cut, cut..end] {
            if places.is_empty() {
                continue;
            }
            let len = block.min(columns - places.start * block);
            let range = |row: usize, at: usize| {
                let start = row * columns + at * block;
                start..start + len
            };
            let chosen = || {
                let places = &places;
                let of_row = move |row| places.clone().map(move |at| (row, at));
                let all = (0..rows as usize).flat_map(of_row);
                all.filter(|&(row, at)| is_drawn(row, at))
            };
            let mut present = Vec::new();
            for (row, at) in chosen() {
                let factor = factor(row);
                let divisor = if factor == 0.0 { 1.0 } else { factor };
                present.extend(values[range(row, at)].iter().map(|value| value / divisor));
            }
            if present.is_empty() {
                continue;
            }
            let shape = (present.len() / len, len);
            let codes = codes::nearest_codes(shape, block, &present, centroids)?;
            for ((row, at), code) in chosen().zip(codes) {
                let centroid = &centroids[usize::from(code) * block..][..len];
                let factor = factor(row);
                let values = values[range(row, at)].iter_mut();
                values
                    .zip(centroid)
                    .for_each(|(value, c)| *value = factor * c);
            }
        }
    }
    Ok(Tensor::from_slice(&values)
        .view([rows, columns as i64])
        .to_device(w.device()))
}

/// Values of so many bits, less one.
fn steps(bits: Bits) -> f64 {
    match bits {
        Bits::Four => 15.0,
        Bits::Eight => 255.0,
    }
}

/// Steps and zero points, `[rows or 1, 2]`.
fn grid(w: &Tensor, plan: &GroupPlan, bits: Bits, range: Range) -> Result<Tensor> {
    let steps = steps(bits);
    Ok(match range {
        Range::Plan => of_file(w, plan, bits)?,
        Range::Channel => of_rows(w, (steps - 1.0) / 2.0),
        Range::Tensor => of_all(w, steps, true),
        Range::Histogram => of_all(w, steps, false),
    })
}

/// The least and the largest of the values that are stored.
fn ends(plan: &GroupPlan, bits: Bits, range: Range) -> (f64, f64) {
    let half = (steps(bits) - 1.0) / 2.0;
    match range {
        Range::Plan => {
            let (low, high) = plan.scalar_options(bits).range();
            (f64::from(low), f64::from(high))
        }
        // As many on both sides of 0.
        Range::Channel => (-half, half),
        Range::Tensor | Range::Histogram => (0.0, steps(bits)),
    }
}

/// As the file will have them.
fn of_file(w: &Tensor, plan: &GroupPlan, bits: Bits) -> Result<Tensor> {
    let (rows, columns) = size(w);
    let values = super::weights::to_vec(w);
    let matrix = Matrix::new(&values, rows as usize, columns as usize)?;
    let stored = scalar::quantize(matrix, None, &plan.scalar_options(bits))?;
    // A row of zeros has no step.
    let step = |row: usize| {
        let factor = (stored.row_scale.as_ref()).map_or(1.0, |f| f[row].to_f32());
        (stored.scale * factor).max(f32::MIN_POSITIVE)
    };
    let zero = |row: usize| match &stored.zero_point {
        None => 0.0,
        Some(ZeroPoint::Tensor(zero)) => f32::from(*zero),
        Some(ZeroPoint::Row(zeros)) => f32::from(zeros[row]),
    };
    let pairs = (0..rows as usize).flat_map(|row| [step(row), zero(row)]);
    let pairs: Vec<f32> = pairs.collect();
    Ok(Tensor::from_slice(&pairs)
        .view([rows, 2])
        .to_device(w.device()))
}

/// Steps of rows, with the zero point 0: the largest magnitude is `half` of them.
fn of_rows(w: &Tensor, half: f64) -> Tensor {
    let most = w.abs().amax([1i64].as_slice(), true);
    let step = (most / half).clamp_min(f64::from(f32::MIN_POSITIVE));
    Tensor::cat(&[&step, &step.zeros_like()], 1)
}

/// The step and the zero point of a matrix whose values, or most of them, are `steps` apart at the most.
fn of_all(w: &Tensor, steps: f64, all: bool) -> Tensor {
    let (mut low, mut high) = (w.min().double_value(&[]), w.max().double_value(&[]));
    if !all {
        let counts = super::weights::to_vec(&w.histc(2048));
        (low, high) = cut(&counts, low, high, steps);
    }
    // 0 stays 0: padding and pruned weights must.
    let (low, high) = (low.min(0.0), high.max(0.0));
    let step = if high > low {
        (high - low) / steps
    } else {
        1.0
    };
    Tensor::from_slice(&[step as f32, (-low / step).round() as f32])
        .view([1, 2])
        .to_device(w.device())
}

/// The part of `low` to `high` whose grid has the least squared error, of 64 that shrink towards 0.
fn cut(counts: &[f32], low: f64, high: f64, steps: f64) -> (f64, f64) {
    let width = (high - low) / counts.len() as f64;
    let error = |part: f64| {
        let (low_cut, high_cut) = (low.min(0.0) * part, high.max(0.0) * part);
        let scale = (high_cut - low_cut) / steps;
        let zero = (-low_cut / scale).round();
        let of = |(bin, &count): (usize, &f32)| {
            let value = low + (bin as f64 + 0.5) * width;
            let rounded = ((value / scale + zero).round().clamp(0.0, steps) - zero) * scale;
            f64::from(count) * (value - rounded).powi(2)
        };
        counts.iter().enumerate().map(of).sum::<f64>()
    };
    let mut best = (f64::INFINITY, 1.0);
    for part in (1..=64).rev().map(|part| f64::from(part) / 64.0) {
        let error = error(part);
        if error < best.0 {
            best = (error, part);
        }
    }
    (low * best.1, high * best.1)
}

/// The values of a grid that are nearest to those of rows, which `grid` is of.
fn rounded(w: &Tensor, grid: &Tensor, (low, high): (f64, f64)) -> Tensor {
    let (step, zero) = (grid.narrow(1, 0, 1), grid.narrow(1, 1, 1));
    ((w / &step + &zero).round().clamp(low, high) - &zero) * &step
}

#[cfg(test)]
#[path = "tests/noise.rs"]
mod tests;
