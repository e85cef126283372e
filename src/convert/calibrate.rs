//! What the inputs of each linear layer look like on the user's texts.
//!
//! The texts run through two encoders side by side: the original one and the one quantized so far.
//! When a layer's turn comes, its inputs in both are known: `X` and `X'`. The layer is then
//! quantized so that its output on what it will really see, `X' W'^T`, is close to `X W^T`:
//!
//! - The weights to approximate are those that make up best for the error of earlier layers,
//!   `W (X^T X' + cI) (X'^T X' + cI)^-1` (the asymmetric calibration of GPTAQ, Li et al. 2025,
//!   arXiv 2504.02692).
//! - The quantizer minimises the error of the output, `trace(E X'^T X' E^T)` (see
//!   [`crate::quant::pq::quantize_with_hessian`]).
//! - What is left of a constant error goes into the bias.
//!
//! Inputs are taken about their means, because the bias deals with those.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::Conversion;
use super::sensitivity::Sensitivity;
use super::tables::Tables;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::attention::{Heads, Queries, attention};
use crate::kernels::elementwise::{Affine, activate, layer_norm};
use crate::kernels::{self, Codes, Isa, Threads, Weights, Zero};
use crate::layout::to_tiles;
use crate::models::encoder::Config;
use crate::quant::Matrix;
use crate::quant::linalg::cholesky;
use crate::quant::pq::{self, Pq, PqOptions};
use crate::text::{Tokenizer, Truncation};

/// Tokens that run at a time.
const CHUNK: usize = 1024;
/// Share of the mean of the diagonal that is added to it, as in `quantize_with_hessian`.
const DAMPING: f64 = 0.01;

/// The original weights and those of the artifact, in the layout that they are used in.
const ORIGINAL: usize = 0;
const QUANTIZED: usize = 1;

/// Calibration texts on their way through both encoders.
pub(super) struct Calibration<'a> {
    config: &'a Config,
    layer_of: &'a [usize],
    isa: Isa,
    threads: Threads,
    texts: Vec<Tokens>,
    tables: Tables,
    gradients: Option<&'a Sensitivity>,
    tensors: HashMap<String, [Stored; 2]>,
    /// Inputs of layer `layer` in both encoders, `[tokens][hidden]`; empty before the embeddings.
    rows: [Vec<f32>; 2],
    layer: usize,
    current: Option<(Part, Inputs)>,
}

/// A text, as the encoder reads it.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// As many.
    pub(crate) types: Vec<u32>,
}

/// A tensor's values: tiles of a matrix, or a vector.
struct Stored {
    values: Vec<f32>,
    tiled: bool,
}

/// Which linear layers of a transformer layer share an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Projections,
    Output,
    Up,
    Down,
    /// The dense layer of a classifier, on each text's first token.
    Head,
}

/// What inputs were measured for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    layer: usize,
    stage: Stage,
    /// The weight's name, if errors of each layer's outputs count differently; else layers with one input
    /// share its moments.
    weight: Option<String>,
}

/// The layer that a head comes after: any.
const LAST: usize = usize::MAX;

/// Moments of a linear layer's inputs: `x` in the original encoder, `x'` in the quantized one.
pub(super) struct Inputs {
    columns: usize,
    mean: [Vec<f32>; 2],
    /// Covariance of `x'` with itself, `[columns][columns]`.
    pub(super) hessian: Vec<f32>,
    /// Covariance of `x` with `x'`.
    cross: Vec<f32>,
}

impl<'a> Calibration<'a> {
    /// With the conversion's own texts, and the `original` tensors by their names in the artifact.
    pub(super) fn new(
        conversion: &'a Conversion,
        original: &dyn Fn(&str) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_stored(&conversion.text().tokenizer)?;
        let limit = conversion.text().config.max_tokens;
        let encoded =
            tokenizer.encode_batch(&conversion.calibration, limit, Truncation::Truncate)?;
        let tokens = encoded.into_iter().map(|text| Tokens {
            types: vec![0; text.ids.len()],
            ids: text.ids,
        });
        Self::on(conversion, tokens.collect(), None, original)
    }

    /// With texts of at least a token each, and perhaps with what gradients of answers to them say.
    pub(super) fn on(
        conversion: &'a Conversion,
        texts: Vec<Tokens>,
        gradients: Option<&'a Sensitivity>,
        original: &dyn Fn(&str) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let mut tables = Tables::new(&conversion.text().config, &texts, original)?;
        if let Some(gradients) = gradients {
            tables = tables.with(gradients)?;
        }
        Ok(Self {
            tables,
            gradients,
            config: &conversion.text().config,
            layer_of: &conversion.text().layer_of,
            isa: Isa::detect()?,
            threads: Threads(rayon::current_num_threads()),
            texts,
            tensors: HashMap::new(),
            rows: Default::default(),
            layer: 0,
            current: None,
        })
    }

    /// Takes note of a tensor's values before and after quantization, `[rows][columns]`.
    pub(super) fn quantized(&mut self, name: &str, original: &[f32], decoded: Vec<f32>) {
        let tiled = stage_of(name).is_some() && name.ends_with(".weight");
        let stored = |values: Vec<f32>| {
            let columns = self.columns(name);
            let values = if tiled {
                let rows = values.len() / columns;
                to_tiles(values.as_chunks::<1>().0, rows, columns).concat()
            } else {
                values
            };
            Stored { values, tiled }
        };
        let both = [stored(original.to_vec()), stored(decoded)];
        self.tensors.insert(name.to_owned(), both);
    }

    fn columns(&self, name: &str) -> usize {
        match stage_of(name) {
            Some((_, Stage::Down)) => self.config.intermediate,
            _ => self.config.hidden,
        }
    }

    /// The inputs of the linear layer with the weight `name`; `None` for other tensors.
    pub(super) fn inputs(&mut self, name: &str) -> Result<Option<&Inputs>> {
        if !name.ends_with(".weight") {
            return Ok(None);
        }
        let Some(part) = self.part(name) else {
            return Ok(None);
        };
        if self.current.as_ref().is_none_or(|(at, _)| *at != part) {
            self.current = None;
            self.advance_to(part.layer)?;
            let inputs = self.measure(&part);
            self.current = Some((part, inputs));
        }
        Ok(self.current.as_ref().map(|(_, inputs)| inputs))
    }

    /// What the linear layer with a weight or bias of this name belongs to.
    fn part(&self, name: &str) -> Option<Part> {
        let (layer, stage) = stage_of(name)?;
        let (stem, _) = name.rsplit_once('.')?;
        let weight = self.gradients.map(|_| format!("{stem}.weight"));
        Some(Part {
            layer,
            stage,
            weight,
        })
    }

    /// Codes for a tensor without such inputs.
    pub(super) fn quantize(
        &self,
        name: &str,
        matrix: Matrix<'_>,
        options: &PqOptions,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pq> {
        let importance = self.tables.importance(name);
        match self.tables.hessian(name) {
            Some(hessian) => {
                pq::quantize_with_hessian(matrix, hessian, importance.rows, options, progress)
            }
            None => pq::quantize(matrix, importance, options, progress),
        }
    }

    /// The bias `name` with the mean error of its layer's output taken out; unchanged if it is not
    /// the bias of a layer whose inputs are known.
    pub(super) fn bias(&self, name: &str, bias: &[f32]) -> Vec<f32> {
        let mut bias = bias.to_vec();
        let Some((at, inputs)) = &self.current else {
            return bias;
        };
        let weight = name
            .strip_suffix(".bias")
            .map(|stem| format!("{stem}.weight"));
        let tensors = weight.and_then(|weight| self.tensors.get(&weight));
        if let (Some(tensors), Some(part)) = (tensors, self.part(name))
            && part == *at
        {
            let mut out = [ORIGINAL, QUANTIZED].map(|which| {
                let mut y = vec![0.0; bias.len()];
                self.product(&tensors[which], None, &inputs.mean[which], &mut y);
                y
            });
            let [original, quantized] = &mut out;
            for ((b, original), quantized) in bias.iter_mut().zip(original).zip(quantized) {
                *b += *original - *quantized;
            }
        }
        bias
    }

    fn tensor(&self, which: usize, name: &str) -> &[f32] {
        // The table of tensors puts every tensor before those that are calibrated with it.
        &self.tensors[name][which].values
    }

    /// `y = x W^T + bias` with plain `f32` tiles.
    fn product(&self, weight: &Stored, bias: Option<&[f32]>, x: &[f32], y: &mut [f32]) {
        debug_assert!(weight.tiled);
        let rows = if let Some(bias) = bias {
            bias.len()
        } else {
            y.len()
        };
        let weights = Weights {
            out_features: rows,
            in_features: weight.values.len() / rows,
            codes: Codes::F32(&weight.values),
            scale: 1.0,
            row_scale: None,
            zero: Zero::Tensor(0),
            bias,
            offsets: None,
        };
        kernels::linear_f32(self.isa, self.threads, &weights, x, y);
    }

    fn linear(&self, which: usize, prefix: &str, x: &[f32], columns: usize) -> Vec<f32> {
        let weight = &self.tensors[&format!("{prefix}.weight")][which];
        let bias = self.tensor(which, &format!("{prefix}.bias"));
        let mut y = vec![0.0; x.len() / columns * bias.len()];
        self.product(weight, Some(bias), x, &mut y);
        y
    }

    fn norm(&self, which: usize, prefix: &str, x: &mut [f32]) {
        let weight = self.tensor(which, &format!("{prefix}.weight"));
        let bias = self.tensor(which, &format!("{prefix}.bias"));
        let affine = Affine {
            weight,
            bias,
            eps: self.config.layer_norm_eps as f32,
        };
        x.par_chunks_exact_mut(weight.len())
            .for_each(|row| layer_norm(self.isa, row, affine));
    }

    /// Runs both encoders up to the input of `layer`.
    fn advance_to(&mut self, layer: usize) -> Result<()> {
        if self.rows[ORIGINAL].is_empty() {
            self.rows = [ORIGINAL, QUANTIZED].map(|which| self.embeddings(which));
            if self.rows[ORIGINAL].iter().any(|v| !v.is_finite()) {
                return Err(Error::new(
                    ErrorKind::Checkpoint,
                    "the embeddings of a calibration text are not finite",
                ));
            }
        }
        while self.layer < layer.min(self.layer_of.len()) {
            let from = self.layer_of[self.layer];
            for which in [ORIGINAL, QUANTIZED] {
                let mut next = Vec::with_capacity(self.rows[which].len());
                for chunk in self.chunks() {
                    let x = self.run(which, from, Stage::Down, &chunk);
                    next.extend(self.finish(which, from, x));
                }
                self.rows[which] = next;
            }
            self.layer += 1;
        }
        Ok(())
    }

    fn embeddings(&self, which: usize) -> Vec<f32> {
        let h = self.config.hidden;
        let table = |name: &str| self.tensor(which, name);
        let (token, position) = (table("embeddings.token"), table("embeddings.position"));
        let token_type = table("embeddings.type");
        let mut x = Vec::new();
        for text in &self.texts {
            for (t, (&id, &of_type)) in text.ids.iter().zip(&text.types).enumerate() {
                let p = t + self.config.position_offset;
                let rows = [
                    (token, id as usize),
                    (token_type, of_type as usize),
                    (position, p),
                ];
                let rows = rows.map(|(table, at)| &table[at * h..][..h]);
                x.extend((0..h).map(|k| rows[0][k] + rows[1][k] + rows[2][k]));
            }
        }
        self.norm(which, "embeddings.norm", &mut x);
        x
    }

    /// Row ranges of the texts, in runs of about [`CHUNK`] rows.
    fn chunks(&self) -> Vec<Vec<Range<usize>>> {
        let (mut chunks, mut chunk, mut start) = (Vec::new(), Vec::new(), 0);
        for text in &self.texts {
            chunk.push(start..start + text.ids.len());
            start += text.ids.len();
            if chunk[0].start + CHUNK <= start {
                chunks.push(std::mem::take(&mut chunk));
            }
        }
        chunks.push(chunk);
        chunks.retain(|chunk| !chunk.is_empty());
        chunks
    }

    /// The input of `stage` of `layer` for the texts of a chunk.
    fn run(&self, which: usize, layer: usize, stage: Stage, chunk: &[Range<usize>]) -> Run {
        let h = self.config.hidden;
        let (first, last) = (chunk[0].start, chunk[chunk.len() - 1].end);
        if stage == Stage::Head {
            let row = |text: &Range<usize>| &self.rows[which][text.start * h..][..h];
            return Run {
                input: chunk.iter().flat_map(row).copied().collect(),
                residual: Vec::new(),
            };
        }
        let mut x = self.rows[which][first * h..last * h].to_vec();
        let name = |part: &str| format!("layers.{layer}.{part}");
        if stage == Stage::Projections {
            return Run {
                input: x,
                residual: Vec::new(),
            };
        }
        let linear = |part: &str, x: &[f32]| self.linear(which, &name(part), x, h);
        let [mut attended, key, value] =
            ["attention.query", "attention.key", "attention.value"].map(|part| linear(part, &x));
        let heads = Heads {
            key: &key,
            value: &value,
            hidden: h,
            heads: self.config.heads,
        };
        let texts: Vec<_> = chunk
            .iter()
            .map(|t| t.start - first..t.end - first)
            .collect();
        let machine = (self.isa, self.threads);
        attention(machine, &heads, &texts, Queries::All, false, &mut attended);
        if stage == Stage::Output {
            return Run {
                input: attended,
                residual: Vec::new(),
            };
        }
        let added = linear("attention.output", &attended);
        x.iter_mut().zip(added).for_each(|(x, a)| *x += a);
        self.norm(which, &name("attention.norm"), &mut x);
        if stage == Stage::Up {
            return Run {
                input: x,
                residual: Vec::new(),
            };
        }
        let mut wide = linear("ffn.up", &x);
        let function = self.config.activation.function();
        wide.par_chunks_mut(1 << 14)
            .for_each(|part| activate(self.isa, function, part));
        Run {
            input: wide,
            residual: x,
        }
    }

    /// The output of `layer` from the input of its last stage.
    fn finish(&self, which: usize, layer: usize, run: Run) -> Vec<f32> {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let width = self.config.intermediate;
        let mut x = self.linear(which, &name("ffn.down"), &run.input, width);
        x.iter_mut().zip(run.residual).for_each(|(x, r)| *x += r);
        self.norm(which, &name("ffn.norm"), &mut x);
        x
    }

    fn measure(&self, part: &Part) -> Inputs {
        let (layer, stage) = (part.layer, part.stage);
        let columns = match stage {
            Stage::Down => self.config.intermediate,
            _ => self.config.hidden,
        };
        let weight = part.weight.as_deref();
        let counts = weight.and_then(|weight| self.gradients?.counts(weight));
        let mut sums = [vec![0f64; columns], vec![0f64; columns]];
        let mut hessian = vec![0f64; columns * columns];
        let mut cross = vec![0f64; columns * columns];
        let (mut first, mut n) = (0, 0.0);
        for chunk in self.chunks() {
            let mut both =
                [ORIGINAL, QUANTIZED].map(|which| self.run(which, layer, stage, &chunk).input);
            let rows = both[0].len() / columns;
            let counts = counts.as_ref().map(|counts| &counts[first..first + rows]);
            first += rows;
            for (sum, x) in sums.iter_mut().zip(&mut both) {
                for (r, row) in x.chunks_exact_mut(columns).enumerate() {
                    let count = counts.map_or(1.0, |counts| counts[r]);
                    let add = |(s, v): (&mut f64, &f32)| *s += f64::from(count * v);
                    sum.iter_mut().zip(&*row).for_each(add);
                    if counts.is_some() {
                        let root = count.sqrt();
                        row.iter_mut().for_each(|v| *v *= root);
                    }
                }
            }
            n += counts.map_or(rows as f64, |c| c.iter().copied().map(f64::from).sum());
            let [x, y] = &both;
            self.add_products(y, y, columns, &mut hessian);
            self.add_products(x, y, columns, &mut cross);
        }
        let mean = sums.map(|sum| sum.iter().map(|s| (s / n) as f32).collect::<Vec<_>>());
        let center = |products: Vec<f64>, left: &[f32]| -> Vec<f32> {
            let mut covariance = Vec::with_capacity(products.len());
            for (row, &l) in products.chunks_exact(columns).zip(left) {
                let about = |(p, r): (&f64, &f32)| (p / n - f64::from(l) * f64::from(*r)) as f32;
                covariance.extend(row.iter().zip(&mean[QUANTIZED]).map(about));
            }
            // Rounding must not make a constant column's variance negative.
            for i in 0..columns {
                let diagonal = &mut covariance[i * columns + i];
                if std::ptr::eq(left, &mean[QUANTIZED][..]) {
                    *diagonal = diagonal.max(0.0);
                }
            }
            covariance
        };
        Inputs {
            columns,
            hessian: center(hessian, &mean[QUANTIZED]),
            cross: center(cross, &mean[ORIGINAL]),
            mean,
        }
    }

    /// `sum += x^T y` for `x` and `y` `[rows][columns]`, by the runtime's own product: `x^T` is the
    /// input and `y^T` the weight, whose tiles are `y` in strips of 64 columns.
    fn add_products(&self, x: &[f32], y: &[f32], columns: usize, sum: &mut [f64]) {
        let rows = x.len() / columns;
        let mut transposed = vec![0.0; x.len()];
        for (r, row) in x.chunks_exact(columns).enumerate() {
            for (c, &v) in row.iter().enumerate() {
                transposed[c * rows + r] = v;
            }
        }
        let mut tiles = Vec::with_capacity(y.len());
        for first in (0..columns).step_by(crate::layout::TILE) {
            let last = columns.min(first + crate::layout::TILE);
            for row in y.chunks_exact(columns) {
                tiles.extend_from_slice(&row[first..last]);
            }
        }
        let weight = Stored {
            values: tiles,
            tiled: true,
        };
        let mut product = vec![0.0; columns * columns];
        let zeros = vec![0.0; columns];
        self.product(&weight, Some(&zeros), &transposed, &mut product);
        sum.iter_mut()
            .zip(product)
            .for_each(|(s, p)| *s += f64::from(p));
    }
}

/// The input of a stage, and what is added to its output.
struct Run {
    input: Vec<f32>,
    residual: Vec<f32>,
}

/// Layer and stage of the linear layer that the weight or bias `name` belongs to.
fn stage_of(name: &str) -> Option<(usize, Stage)> {
    if name.starts_with("head.dense.") {
        return Some((LAST, Stage::Head));
    }
    let mut parts = name.strip_prefix("layers.")?.splitn(2, '.');
    let layer = parts.next()?.parse().ok()?;
    let (part, _) = parts.next()?.rsplit_once('.')?;
    let stage = match part {
        "attention.query" | "attention.key" | "attention.value" => Stage::Projections,
        "attention.output" => Stage::Output,
        "ffn.up" => Stage::Up,
        "ffn.down" => Stage::Down,
        _ => return None,
    };
    Some((layer, stage))
}

impl Inputs {
    /// Of inputs whose means are dealt with elsewhere.
    #[cfg(feature = "train")]
    pub(super) fn new(columns: usize, hessian: Vec<f32>, cross: Vec<f32>) -> Self {
        Self {
            columns,
            mean: Default::default(),
            hessian,
            cross,
        }
    }

    /// Variance of each input: how much an error of its weights matters.
    pub(super) fn importance(&self) -> Vec<f32> {
        let n = self.columns;
        (0..n).map(|i| self.hessian[i * n + i]).collect()
    }

    /// The weights that best reproduce the original output from the inputs of the quantized
    /// encoder: `W (C + cI) (H + cI)^-1` for `weights` `[rows][columns]`.
    pub(super) fn target(&self, weights: &[f32], rows: usize) -> Result<Vec<f32>> {
        let n = self.columns;
        let mean = self.importance().iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        if mean == 0.0 {
            return Ok(weights.to_vec());
        }
        let damping = DAMPING * mean;
        let damped = |values: &[f32]| -> Vec<f64> {
            let mut values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            (0..n).for_each(|i| values[i * n + i] += damping);
            values
        };
        let mut factor = damped(&self.hessian);
        cholesky(&mut factor, n).ok_or_else(|| {
            Error::new(
                ErrorKind::Checkpoint,
                "the calibration texts give inputs that cannot be told apart",
            )
        })?;
        let cross = damped(&self.cross);
        let mut target = vec![0f32; rows * n];
        (target.par_chunks_exact_mut(n))
            .zip(weights.par_chunks_exact(n))
            .for_each(|(target, weights)| {
                let mut x = vec![0f64; n];
                for (&w, row) in weights.iter().zip(cross.chunks_exact(n)) {
                    x.iter_mut()
                        .zip(row)
                        .for_each(|(x, c)| *x += f64::from(w) * c);
                }
                solve(&factor, &mut x);
                target.iter_mut().zip(x).for_each(|(t, x)| *t = x as f32);
            });
        Ok(target)
    }
}

/// Solves `L L^T y = x` in place for a lower triangular `factor`.
fn solve(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in 0..n {
        let row = &factor[i * n..][..i];
        let sum: f64 = row.iter().zip(&x[..i]).map(|(l, x)| l * x).sum();
        x[i] = (x[i] - sum) / factor[i * n + i];
    }
    for i in (0..n).rev() {
        x[i] /= factor[i * n + i];
        let value = x[i];
        let row = &factor[i * n..][..i];
        x[..i]
            .iter_mut()
            .zip(row)
            .for_each(|(x, l)| *x -= l * value);
    }
}
