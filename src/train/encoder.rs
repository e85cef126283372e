//! The encoder's forward pass in torch: BERT and RoBERTa with a classification head, as the runtime has
//! them (`models/encoder`), over batches that are padded and masked.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::noise::Noise;
use super::weights::Weights;
use crate::error::Result;
use crate::models::encoder::{Config, HiddenAct, Positions};

/// Texts of about one length, as token ids with padding.
pub(super) struct Batch {
    /// `[texts, tokens]`, as are the next two; 0 in padding.
    ids: Tensor,
    types: Tensor,
    positions: Tensor,
    /// `[texts, 1, 1, tokens]`: 0, and -infinity in padding; `None` if there is no padding.
    mask: Option<Tensor>,
    /// Numbers of the real tokens in `[texts * tokens]`.
    real: Tensor,
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
    /// Matrices with noise: layers that share weights see the same.
    pub(super) disturbed: RefCell<HashMap<String, Tensor>>,
}

/// What comes out.
pub(super) struct Outputs {
    /// `[texts, labels]`
    pub(super) logits: Tensor,
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
        let sum = self.rows("embeddings.token", &batch.ids)
            + self.rows("embeddings.position", &batch.positions)
            + self.rows("embeddings.type", &batch.types);
        let mut x = self.drop(self.norm(&sum, "embeddings.norm"));
        keep(&x);
        for (layer, &of) in self.layer_of.iter().enumerate() {
            if !self.skipped[layer] {
                x = self.layer(x, &format!("layers.{of}"), batch.mask.as_ref());
            }
            keep(&x);
        }
        let first = x.select(1, 0);
        let dense = self.linear(&self.drop(first), "head.dense").tanh();
        let logits = self.linear(&self.drop(dense), "head.labels");
        Ok(Outputs { logits, hidden })
    }

    fn layer(&self, x: Tensor, name: &str, mask: Option<&Tensor>) -> Tensor {
        let name = |part: &str| format!("{name}.{part}");
        let (texts, tokens) = (x.size()[0], x.size()[1]);
        let heads = self.config.heads as i64;
        let part = |of: &str| {
            let all = self.linear(&x, &name(of));
            all.view([texts, tokens, heads, -1]).transpose(1, 2)
        };
        let (query, key, value) = (
            part("attention.query"),
            part("attention.key"),
            part("attention.value"),
        );
        let width = query.size()[3] as f64;
        let mut scores = query.matmul(&key.transpose(-2, -1)) / width.sqrt();
        if let Some(mask) = mask {
            scores += mask;
        }
        let shares = self.drop(scores.softmax(-1, Kind::Float));
        let mixed = shares.matmul(&value).transpose(1, 2).contiguous();
        let mixed = mixed.view([texts, tokens, -1]);
        let attended = self.drop(self.linear(&mixed, &name("attention.output")));
        let x = self.norm(&(x + attended), &name("attention.norm"));
        let up = self.activation(self.linear(&x, &name("ffn.up")));
        let down = self.drop(self.linear(&up, &name("ffn.down")));
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

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        let bias = self.weights.rows(&format!("{name}.bias"), None);
        x.linear(&self.matrix(&format!("{name}.weight")), Some(&bias))
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let [weight, bias] =
            ["weight", "bias"].map(|part| self.weights.rows(&format!("{name}.{part}"), None));
        let size = [self.config.hidden as i64];
        x.layer_norm(
            size,
            Some(&weight),
            Some(&bias),
            self.config.layer_norm_eps,
            false,
        )
    }

    fn drop(&self, x: Tensor) -> Tensor {
        if self.dropout > 0.0 {
            x.dropout(self.dropout, true)
        } else {
            x
        }
    }

    fn matrix(&self, name: &str) -> Tensor {
        if let Some(matrix) = self.disturbed.borrow().get(name) {
            return matrix.shallow_clone();
        }
        let matrix = self.with_noise(name, self.weights.rows(name, None), None);
        let copy = matrix.shallow_clone();
        self.disturbed.borrow_mut().insert(name.to_owned(), copy);
        matrix
    }

    /// Rows of a table: `[texts, tokens, columns]`. A row that occurs more than once has one noise.
    fn rows(&self, name: &str, ids: &Tensor) -> Tensor {
        let size = ids.size();
        let (unique, places, _) = ids.view([-1]).internal_unique2(true, true, false);
        let rows = self.with_noise(name, self.weights.rows(name, Some(&unique)), Some(&unique));
        rows.index_select(0, &places.view([-1]))
            .view([size[0], size[1], -1])
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
