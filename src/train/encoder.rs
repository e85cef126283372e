//! The encoder's forward pass in torch: BERT and RoBERTa with a classification head or pooling, as the
//! runtime has them (`models/encoder`), over batches that are padded and masked.

use tch::{Device, Kind, Tensor};

use super::learner::Outputs;
use super::pass::Pass;
use crate::error::Result;
use crate::models::encoder::{Config, HiddenAct, Pooling, Positions, Task};

/// Texts of about one length, as token ids with padding.
pub(super) struct Batch {
    /// `[texts, tokens]`, as are the next two; 0 in padding.
    pub(super) ids: Tensor,
    types: Tensor,
    pub(super) positions: Tensor,
    /// `[texts, 1, 1, tokens]`: 0, and -infinity in padding; `None` if there is no padding.
    mask: Option<Tensor>,
    /// `[texts, 1]`
    lengths: Tensor,
    /// Numbers of the real tokens in `[texts * tokens]`.
    pub(super) real: Tensor,
}

/// A text's token ids and types, and its label's number.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) ids: Vec<u32>,
    pub(super) types: Vec<u32>,
    pub(super) label: i64,
}

impl Text {
    /// The first `share` of its tokens, and all but the first `share` of the `other`'s: no longer than the
    /// longer of both.
    pub(super) fn spliced(&self, other: &Self, share: f64) -> Self {
        let cut = |text: &Self| (share * text.ids.len() as f64) as usize;
        let (own, others) = (cut(self), cut(other));
        let splice = |own_values: &[u32], other_values: &[u32]| {
            [&own_values[..own], &other_values[others..]].concat()
        };
        Self {
            ids: splice(&self.ids, &other.ids),
            types: splice(&self.types, &other.types),
            label: self.label,
        }
    }
}

impl Batch {
    pub(super) fn new(config: &Config, texts: &[&Text], device: Device) -> Self {
        let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let size = [texts.len() as i64, longest as i64];
        let cells = texts.len() * longest;
        let (mut ids, mut types, mut positions) =
            (vec![0i64; cells], vec![0i64; cells], vec![0i64; cells]);
        let mut mask = vec![f32::NEG_INFINITY; cells];
        let mut real = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            let mut position = Positions::new(config);
            for (column, (&id, &of_type)) in text.ids.iter().zip(&text.types).enumerate() {
                let at = row * longest + column;
                ids[at] = i64::from(id);
                types[at] = i64::from(of_type);
                positions[at] = i64::from(position.next(id));
                mask[at] = 0.0;
                real.push(at as i64);
            }
        }
        let lengths: Vec<f32> = texts.iter().map(|text| text.ids.len() as f32).collect();
        let table = |values: &[i64]| Tensor::from_slice(values).view(size).to_device(device);
        let padded = real.len() < cells;
        Self {
            ids: table(&ids),
            types: table(&types),
            positions: table(&positions),
            mask: padded.then(|| {
                let mask = Tensor::from_slice(&mask).to_device(device);
                mask.view([size[0], 1, 1, size[1]])
            }),
            lengths: Tensor::from_slice(&lengths).view([-1, 1]).to_device(device),
            real: Tensor::from_slice(&real).to_device(device),
        }
    }
}

/// One vector for each text, of its tokens without padding.
fn pooled(x: &Tensor, pooling: Pooling, batch: &Batch) -> Tensor {
    // As `x` has it: `[texts, tokens, 1]`.
    let padding = batch
        .mask
        .as_ref()
        .map(|mask| mask.view([x.size()[0], -1, 1]));
    match (pooling, padding) {
        (Pooling::Cls, _) => x.select(1, 0),
        (Pooling::Mean, None) => x.mean_dim([1i64].as_slice(), false, Kind::Float),
        (Pooling::Mean, Some(padding)) => {
            let real = padding.exp();
            (x * real).sum_dim_intlist([1i64].as_slice(), false, Kind::Float) / &batch.lengths
        }
        (Pooling::Max, None) => x.amax([1], false),
        (Pooling::Max, Some(padding)) => (x + padding).amax([1], false),
    }
}

/// The encoder in one pass.
pub(super) struct Forward<'a> {
    pub(super) config: &'a Config,
    /// For each layer the one whose weights it uses.
    pub(super) layer_of: &'a [usize],
    pub(super) pass: &'a Pass<'a>,
}

impl Forward<'_> {
    pub(super) fn run(&self, batch: &Batch, with_hidden: bool) -> Result<Outputs> {
        let config = self.config;
        let mut hidden = Vec::new();
        let mut keep = |x: Option<&Tensor>| {
            if with_hidden {
                let rows = x.map(|x| x.view([-1, config.hidden as i64]));
                hidden.push(rows.map(|rows| rows.index_select(0, &batch.real)));
            }
        };
        let mut sum = self.rows("embeddings.token", &batch.ids)?
            + self.rows("embeddings.position", &batch.positions)?
            + self.rows("embeddings.type", &batch.types)?;
        if let Some(embedded) = &self.pass.embedded {
            sum = sum.detach().set_requires_grad(true);
            embedded.replace(Some(sum.shallow_clone()));
        }
        let mut x = self.pass.drop(self.norm(&sum, "embeddings.norm")?);
        keep(Some(&x));
        for (layer, &of) in self.layer_of.iter().enumerate() {
            if self.pass.skips(layer) {
                keep(None);
                continue;
            }
            x = self.layer(x, &format!("layers.{of}"), batch.mask.as_ref())?;
            keep(Some(&x));
        }
        let answers = match self.config.task {
            Task::Classification { .. } => {
                let first = x.select(1, 0);
                let dense = self
                    .pass
                    .linear(&self.pass.drop(first), "head.dense")?
                    .tanh();
                self.pass.linear(&self.pass.drop(dense), "head.labels")?
            }
            Task::Embedding { pooling, normalize } => {
                let pooled = pooled(&x, pooling, batch);
                match normalize {
                    true => {
                        let norm = pooled.norm_scalaropt_dim(2, [-1], true);
                        pooled / norm.clamp_min(f64::from(f32::MIN_POSITIVE))
                    }
                    false => pooled,
                }
            }
        };
        Ok(Outputs { answers, hidden })
    }

    fn layer(&self, x: Tensor, name: &str, mask: Option<&Tensor>) -> Result<Tensor> {
        let name = |part: &str| format!("{name}.{part}");
        let (texts, tokens) = (x.size()[0], x.size()[1]);
        let heads = self.config.heads as i64;
        let part = |of: &str| -> Result<Tensor> {
            let all = self.pass.linear(&x, &name(of))?;
            Ok(all.view([texts, tokens, heads, -1]).transpose(1, 2))
        };
        let (query, key, value) = (
            part("attention.query")?,
            part("attention.key")?,
            part("attention.value")?,
        );
        let width = query.size()[3] as f64;
        let mut scores = query.matmul(&key.transpose(-2, -1)) / width.sqrt();
        if let Some(mask) = mask {
            scores += mask;
        }
        let shares = self.pass.drop(scores.softmax(-1, Kind::Float));
        let mixed = shares.matmul(&value).transpose(1, 2).contiguous();
        let mixed = mixed.view([texts, tokens, -1]);
        let attended = self
            .pass
            .drop(self.pass.linear(&mixed, &name("attention.output"))?);
        let x = self.norm(&(x + attended), &name("attention.norm"))?;
        let up = self.activation(self.pass.linear(&x, &name("ffn.up"))?);
        let down = self.pass.drop(self.pass.linear(&up, &name("ffn.down"))?);
        self.norm(&(x + down), &name("ffn.norm"))
    }

    fn activation(&self, x: Tensor) -> Tensor {
        match self.config.activation {
            HiddenAct::Gelu => x.gelu("none"),
            HiddenAct::GeluNew | HiddenAct::GeluPytorchTanh => x.gelu("tanh"),
            HiddenAct::Relu => x.relu(),
            HiddenAct::Silu => x.silu(),
        }
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let vector = |part: &str| self.pass.vector(&format!("{name}.{part}"));
        let (weight, bias) = (vector("weight")?, vector("bias")?);
        let size = [self.config.hidden as i64];
        let epsilon = self.config.layer_norm_eps;
        Ok(x.layer_norm(size, Some(&weight), Some(&bias), epsilon, false))
    }

    /// Rows of a table: `[texts, tokens, columns]`. A row that occurs more than once has one noise.
    fn rows(&self, name: &str, ids: &Tensor) -> Result<Tensor> {
        let size = ids.size();
        let (unique, places, _) = ids.view([-1]).internal_unique2(true, true, false);
        let pass = self.pass;
        let rows = if pass.weights.is_rounded(name) {
            // The grid depends on the whole table, which is rounded once a pass.
            pass.matrix(name, pass.int8)?.index_select(0, &unique)
        } else {
            let rows = pass.weights.rows(name, Some(&unique), pass.int8)?;
            pass.with_noise(name, rows, Some(&unique))?
        };
        let rows = rows.index_select(0, &places.view([-1]));
        Ok(rows.view([size[0], size[1], -1]))
    }
}
