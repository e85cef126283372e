//! Texts on their way through both encoders.

use std::ops::Range;

use rayon::prelude::*;

use super::{Calibration, Inputs, ORIGINAL, QUANTIZED, Stored, Sums, Tensors, corrected, product};
use crate::convert::Conversion;
use crate::convert::sensitivity::Sensitivity;
use crate::convert::tables::Tables;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::attention::{Heads, Queries, attention};
use crate::kernels::elementwise::{Affine, activate, layer_norm};
use crate::kernels::{Isa, Threads};
use crate::models::encoder::Config;
use crate::quant::Matrix;
use crate::quant::pq::{self, Pq, PqOptions};
use crate::text::{Tokenizer, Truncation};

/// Tokens that run at a time.
const CHUNK: usize = 1024;

/// Calibration texts, and how far they are.
pub(in crate::convert) struct Texts<'a> {
    config: &'a Config,
    layer_of: &'a [usize],
    machine: (Isa, Threads),
    texts: Vec<Tokens>,
    tables: Tables,
    gradients: Option<&'a Sensitivity>,
    tensors: Tensors,
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

impl<'a> Texts<'a> {
    /// With the conversion's own texts, and the `original` tensors by their names in the artifact.
    pub(in crate::convert) fn new(
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
    pub(in crate::convert) fn on(
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
            machine: (Isa::detect()?, Threads(rayon::current_num_threads())),
            texts,
            tensors: Tensors::new(),
            rows: Default::default(),
            layer: 0,
            current: None,
        })
    }

    fn columns(&self, name: &str) -> usize {
        match stage_of(name) {
            Some((_, Stage::Down)) => self.config.intermediate,
            _ => self.config.hidden,
        }
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

    fn tensor(&self, which: usize, name: &str) -> &[f32] {
        // The table of tensors puts every tensor before those that are calibrated with it.
        &self.tensors[name][which].values
    }

    fn linear(&self, which: usize, prefix: &str, x: &[f32], columns: usize) -> Vec<f32> {
        let weight = &self.tensors[&format!("{prefix}.weight")][which];
        let bias = self.tensor(which, &format!("{prefix}.bias"));
        let mut y = vec![0.0; x.len() / columns * bias.len()];
        product(self.machine, weight, Some(bias), x, &mut y);
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
            .for_each(|row| layer_norm(self.machine.0, row, affine));
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
        attention(
            self.machine,
            &heads,
            &texts,
            Queries::All,
            false,
            &mut attended,
        );
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
            .for_each(|part| activate(self.machine.0, function, part));
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
        let (mut sums, mut first) = (Sums::new(self.machine, columns), 0);
        for chunk in self.chunks() {
            let both =
                [ORIGINAL, QUANTIZED].map(|which| self.run(which, layer, stage, &chunk).input);
            let rows = both[0].len() / columns;
            let counts = counts.as_ref().map(|counts| &counts[first..first + rows]);
            first += rows;
            sums.add(both, counts);
        }
        sums.finish()
    }
}

impl Calibration for Texts<'_> {
    fn inputs(&mut self, name: &str) -> Result<Option<&Inputs>> {
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

    fn quantize(
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

    fn bias(&self, name: &str, bias: &[f32]) -> Vec<f32> {
        let weight = name
            .strip_suffix(".bias")
            .map(|stem| format!("{stem}.weight"));
        let tensors = weight.and_then(|weight| self.tensors.get(&weight));
        match (&self.current, tensors, self.part(name)) {
            (Some((at, inputs)), Some(tensors), Some(part)) if part == *at => {
                corrected(self.machine, tensors, &inputs.mean, bias)
            }
            _ => bias.to_vec(),
        }
    }

    fn quantized(&mut self, name: &str, original: &[f32], decoded: Vec<f32>) {
        let tiled = stage_of(name).is_some() && name.ends_with(".weight");
        let stored = |values: Vec<f32>| match tiled {
            true => Stored::tiled(&values, self.columns(name)),
            false => Stored::plain(values),
        };
        let both = [stored(original.to_vec()), stored(decoded)];
        self.tensors.insert(name.to_owned(), both);
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
