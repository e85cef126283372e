//! The encoder's forward pass in torch: BERT and RoBERTa with a classification head or pooling, as the
//! runtime has them (`models/encoder`), over batches that are padded and masked.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::noise::Noise;
use super::weights::Weights;
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
    /// `[texts]`
    pub(super) labels: Tensor,
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
        let labels: Vec<i64> = texts.iter().map(|text| text.label).collect();
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
            labels: Tensor::from_slice(&labels).to_device(device),
        }
    }
}

/// Noise on some tensors, and what it knows of them.
pub(super) struct Disturbance<'a> {
    pub(super) noise: &'a Noise,
    pub(super) rate: f64,
    /// What [`Noise::look`] found, by tensor: what is not here is not disturbed.
    pub(super) seen: &'a HashMap<String, Option<Tensor>>,
}

/// Rows rounded to 8 bits, each with a scale from its own maximum; the gradient is that of `x`.
fn rounded(x: &Tensor) -> Tensor {
    let rounded = tch::no_grad(|| {
        let scale = x.abs().amax([-1], true) / 127.0;
        let scale = scale.clamp_min(f64::from(f32::MIN_POSITIVE));
        (x / &scale).round() * scale
    });
    x + (rounded - x).detach()
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

/// By the names of linear layers: `[columns]`, and a number of tokens.
pub(super) type Inputs = HashMap<String, (Tensor, i64)>;

/// A model in one forward pass.
pub(super) struct Pass<'a> {
    pub(super) config: &'a Config,
    pub(super) layer_of: &'a [usize],
    pub(super) weights: &'a Weights,
    pub(super) noise: Option<Disturbance<'a>>,
    /// Probability of dropping a value; 0 outside of training.
    pub(super) dropout: f64,
    /// Layers that are skipped.
    pub(super) skipped: Vec<bool>,
    /// Whether inputs of linear layers and centroids are rounded as the runtime's mode `int8` does it.
    pub(super) int8: bool,
    /// Whether linear layers multiply in bf16.
    pub(super) bf16: bool,
    /// For each linear layer the sum of the squares of each of its inputs, and over how many tokens; kept
    /// where it is asked for.
    pub(super) inputs: Option<RefCell<Inputs>>,
    /// The sums of the embedding tables' rows, `[texts, tokens, hidden]`, as a leaf that gradients can be
    /// asked for; kept where it is asked for.
    pub(super) embedded: Option<RefCell<Option<Tensor>>>,
    /// Outputs of linear layers by their weights' names, that gradients can be asked for; kept where they are
    /// asked for.
    pub(super) outputs: Option<RefCell<Vec<(String, Tensor)>>>,
    /// Matrices as they are used, with noise: layers that share weights see the same.
    pub(super) disturbed: RefCell<HashMap<String, Tensor>>,
}

/// What comes out.
pub(super) struct Outputs {
    /// Logits `[texts, labels]`, or vectors `[texts, hidden]` of an embedding model.
    pub(super) answers: Tensor,
    /// Token vectors after the embeddings and after each layer, without padding: `[real tokens, hidden]`
    /// each. Empty unless asked for.
    pub(super) hidden: Vec<Tensor>,
}

impl<'a> Pass<'a> {
    /// Of a model as it is, without noise or dropout.
    pub(super) fn plain(config: &'a Config, layer_of: &'a [usize], weights: &'a Weights) -> Self {
        Self {
            config,
            layer_of,
            weights,
            noise: None,
            dropout: 0.0,
            skipped: vec![false; config.layers],
            int8: false,
            bf16: false,
            inputs: None,
            embedded: None,
            outputs: None,
            disturbed: RefCell::default(),
        }
    }

    /// The same pass, for other texts.
    pub(super) fn again(self) -> Self {
        self.disturbed.borrow_mut().clear();
        self
    }

    pub(super) fn run(&self, batch: &Batch, with_hidden: bool) -> Result<Outputs> {
        let config = self.config;
        let mut hidden = Vec::new();
        let mut keep = |x: &Tensor| {
            if with_hidden {
                let rows = x.view([-1, config.hidden as i64]);
                hidden.push(rows.index_select(0, &batch.real));
            }
        };
        let mut sum = self.rows("embeddings.token", &batch.ids)?
            + self.rows("embeddings.position", &batch.positions)?
            + self.rows("embeddings.type", &batch.types)?;
        if let Some(embedded) = &self.embedded {
            sum = sum.detach().set_requires_grad(true);
            embedded.replace(Some(sum.shallow_clone()));
        }
        let mut x = self.drop(self.norm(&sum, "embeddings.norm")?);
        keep(&x);
        for (layer, &of) in self.layer_of.iter().enumerate() {
            if !self.skipped[layer] {
                x = self.layer(x, &format!("layers.{of}"), batch.mask.as_ref())?;
            }
            keep(&x);
        }
        let answers = match self.config.task {
            Task::Classification { .. } => {
                let first = x.select(1, 0);
                let dense = self.linear(&self.drop(first), "head.dense")?.tanh();
                self.linear(&self.drop(dense), "head.labels")?
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
            let all = self.linear(&x, &name(of))?;
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
        let shares = self.drop(scores.softmax(-1, Kind::Float));
        let mixed = shares.matmul(&value).transpose(1, 2).contiguous();
        let mixed = mixed.view([texts, tokens, -1]);
        let attended = self.drop(self.linear(&mixed, &name("attention.output"))?);
        let x = self.norm(&(x + attended), &name("attention.norm"))?;
        let up = self.activation(self.linear(&x, &name("ffn.up"))?);
        let down = self.drop(self.linear(&up, &name("ffn.down"))?);
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

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let bias = self.weights.rows(&format!("{name}.bias"), None, false)?;
        let name = format!("{name}.weight");
        let weight = self.matrix(&name)?;
        if let Some(inputs) = &self.inputs {
            let rows = x.view([-1, x.size()[x.dim() - 1]]);
            let squares = rows
                .square()
                .sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
            let mut inputs = inputs.borrow_mut();
            let zeros = || (squares.zeros_like(), 0);
            let (sum, tokens) = inputs.entry(name.clone()).or_insert_with(zeros);
            *sum += squares;
            *tokens += rows.size()[0];
        }
        let output = if self.int8 {
            rounded(x).linear(&weight, Some(&bias))
        } else if self.bf16 {
            let half = |tensor: &Tensor| tensor.to_kind(Kind::BFloat16);
            let product = half(x).linear(&half(&weight), None::<&Tensor>);
            product.to_kind(Kind::Float) + bias
        } else {
            x.linear(&weight, Some(&bias))
        };
        if let Some(outputs) = &self.outputs {
            outputs.borrow_mut().push((name, output.shallow_clone()));
        }
        Ok(output)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let vector = |part: &str| self.weights.rows(&format!("{name}.{part}"), None, false);
        let (weight, bias) = (vector("weight")?, vector("bias")?);
        let size = [self.config.hidden as i64];
        let epsilon = self.config.layer_norm_eps;
        Ok(x.layer_norm(size, Some(&weight), Some(&bias), epsilon, false))
    }

    fn drop(&self, x: Tensor) -> Tensor {
        if self.dropout > 0.0 {
            x.dropout(self.dropout, true)
        } else {
            x
        }
    }

    fn matrix(&self, name: &str) -> Result<Tensor> {
        if let Some(matrix) = self.disturbed.borrow().get(name) {
            return Ok(matrix.shallow_clone());
        }
        let matrix = self.with_noise(name, self.weights.rows(name, None, self.int8)?, None);
        let copy = matrix.shallow_clone();
        self.disturbed.borrow_mut().insert(name.to_owned(), copy);
        Ok(matrix)
    }

    /// Rows of a table: `[texts, tokens, columns]`. A row that occurs more than once has one noise.
    fn rows(&self, name: &str, ids: &Tensor) -> Result<Tensor> {
        let size = ids.size();
        let (unique, places, _) = ids.view([-1]).internal_unique2(true, true, false);
        let rows = self.weights.rows(name, Some(&unique), self.int8)?;
        let rows = self.with_noise(name, rows, Some(&unique));
        let rows = rows.index_select(0, &places.view([-1]));
        Ok(rows.view([size[0], size[1], -1]))
    }

    fn with_noise(&self, name: &str, rows: Tensor, ids: Option<&Tensor>) -> Tensor {
        let Some(disturbance) = &self.noise else {
            return rows;
        };
        match disturbance.seen.get(name) {
            Some(seen) => {
                let block = self.weights.plan(name).block;
                let (noise, rate) = (disturbance.noise, disturbance.rate);
                noise.disturb(&rows, block, rate, seen.as_ref(), ids)
            }
            None => rows,
        }
    }
}
