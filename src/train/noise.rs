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

use crate::error::{Error, ErrorKind, Result};
use crate::quant::pq::{self, PqOptions};
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
    /// They become their centroids, in a codebook made by K-means every `refresh` steps.
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
    /// From the smallest to the largest value of the matrix, with a zero point.
    Tensor,
    /// For each row, the same on both sides of 0, up to its largest magnitude.
    #[default]
    Channel,
    /// As for `tensor`, cut off on both sides where that makes the squared error smaller, as a
    /// histogram of 2,048 bins tells.
    Histogram,
}

/// A rate that stays, or that goes from one value to another in the course of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
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
    /// The groups whose tensors are disturbed, as far as they are not quantized yet; all that the plan
    /// quantizes if `None`.
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
        if self.rescale && self.form != Form::Proxy {
            return wrong("noise.rescale is for the form proxy".into());
        }
        Ok(())
    }

    /// What is needed of all of a matrix `[rows, cols]` to disturb any of its rows: a codebook's decoded
    /// matrix, the mean block `[block]`, or scale and zero point `[rows or 1, 2]`. Nothing for `proxy`.
    pub(super) fn look(&self, w: &Tensor, block: usize, seed: u64) -> Result<Option<Tensor>> {
        tch::no_grad(|| {
            Ok(match self.form {
                Form::Proxy => None,
                Form::Mean => {
                    Some(blocks(w, block).mean_dim([0i64, 1].as_slice(), false, Kind::Float))
                }
                Form::Exact => Some(decoded(w, block, self.iterations, seed)?),
                Form::Int8 => Some(grid(w, 8, self.range)),
                Form::Int4 => Some(grid(w, 4, self.range)),
            })
        })
    }

    /// Rows `w` of a matrix with noise. `seen` is what [`look`](Self::look) found; `ids` says which rows
    /// these are, if they are not all.
    ///
    /// Gradients reach `w` as if there were no noise.
    pub(super) fn disturb(
        &self,
        w: &Tensor,
        block: usize,
        rate: f64,
        seen: Option<&Tensor>,
        ids: Option<&Tensor>,
    ) -> Tensor {
        if rate == 0.0 {
            return w.shallow_clone();
        }
        let value = tch::no_grad(|| {
            let of_rows = |seen: &Tensor| match ids {
                Some(ids) if seen.size()[0] > 1 => seen.index_select(0, ids),
                _ => seen.shallow_clone(),
            };
            let (quantized, each) = match (self.form, seen) {
                (Form::Mean, Some(mean)) => (repeated(mean, w), block),
                (Form::Exact, Some(decoded)) => (of_rows(decoded), block),
                (Form::Int8, Some(grid)) => (rounded(w, &of_rows(grid), 8, self.range), 1),
                (Form::Int4, Some(grid)) => (rounded(w, &of_rows(grid), 4, self.range), 1),
                _ => (w.zeros_like(), block),
            };
            let value = if rate < 1.0 {
                w.where_self(&clean(w, each, rate), &quantized)
            } else {
                quantized
            };
            match self.rescale {
                true => value / (1.0 - rate),
                false => value,
            }
        });
        // The difference is exactly 0, and carries the gradient.
        value + (w - w.detach())
    }
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

/// Where nothing was drawn: `[rows, cols]`, one draw for each `block` columns.
fn clean(w: &Tensor, block: usize, rate: f64) -> Tensor {
    let (rows, columns) = size(w);
    let block = block as i64;
    let each = (columns + block - 1) / block;
    let clean = Tensor::rand([rows, each], (Kind::Float, w.device())).ge(rate);
    if block == 1 {
        return clean;
    }
    let all = clean.unsqueeze(2).expand([rows, each, block], false);
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

/// The matrix as codes would have it: K-means with 256 centroids.
fn decoded(w: &Tensor, block: usize, iterations: usize, seed: u64) -> Result<Tensor> {
    let (rows, columns) = size(w);
    let values = super::weights::to_vec(w);
    let matrix = Matrix::new(&values, rows as usize, columns as usize)?;
    let mut options = PqOptions::new(block);
    options.iterations = iterations;
    options.seed = seed;
    let quantized = pq::quantize(matrix, Importance::default(), &options, &|_| ())?;
    let decoded = Tensor::from_slice(&quantized.dequantize());
    Ok(decoded.view([rows, columns]).to_device(w.device()))
}

/// Scale and zero point, `[rows or 1, 2]`.
fn grid(w: &Tensor, bits: u32, range: Range) -> Tensor {
    let steps = f64::from((1u32 << bits) - 1);
    let pair = |low: f64, high: f64| {
        // 0 stays 0: padding and pruned weights must.
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = if high > low {
            (high - low) / steps
        } else {
            1.0
        };
        Tensor::from_slice(&[scale as f32, (-low / scale).round() as f32])
            .view([1, 2])
            .to_device(w.device())
    };
    match range {
        Range::Channel => {
            let most = w.abs().amax([1i64].as_slice(), true);
            let half = (steps - 1.0) / 2.0;
            let scale = (most / half).clamp_min(f64::from(f32::MIN_POSITIVE));
            Tensor::cat(&[&scale, &scale.zeros_like()], 1)
        }
        Range::Tensor => {
            let (low, high) = (w.min().double_value(&[]), w.max().double_value(&[]));
            pair(low, high)
        }
        Range::Histogram => {
            let (low, high) = (w.min().double_value(&[]), w.max().double_value(&[]));
            let counts = super::weights::to_vec(&w.histc(2048));
            let (low, high) = cut(&counts, low, high, steps);
            pair(low, high)
        }
    }
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

/// The values of the grid that are nearest.
fn rounded(w: &Tensor, grid: &Tensor, bits: u32, range: Range) -> Tensor {
    let (scale, zero) = (grid.narrow(1, 0, 1), grid.narrow(1, 1, 1));
    let steps = f64::from((1u32 << bits) - 1);
    let (low, high) = match range {
        // As many on both sides of 0.
        Range::Channel => (-(steps - 1.0) / 2.0, (steps - 1.0) / 2.0),
        _ => (0.0, steps),
    };
    ((w / &scale + &zero).round().clamp(low, high) - &zero) * &scale
}

#[cfg(test)]
#[path = "tests/noise.rs"]
mod tests;
