//! BERT and RoBERTa (Devlin et al. 2018, arXiv 1810.04805; Liu et al. 2019, arXiv 1907.11692).
//!
//! Batches are ragged: the tokens of all texts stand one after another as rows of one tall matrix.
//! Linear layers see that matrix, attention works text by text. There is no padding and no mask,
//! so a text's result cannot depend on its neighbours.

mod config;
mod info;
mod load;

pub(crate) use config::{Config, Family, HiddenAct, Pooling, Problem, Task};
pub use info::EncoderInfo;

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::elementwise::{self, Activation};
use crate::nn::{Context, Embedding, Input, Linear, Norm, self_attention};

/// An encoder with its head, pointing into an open artifact.
pub(crate) struct Encoder {
    pub(crate) config: Config,
    token: Embedding,
    position: Embedding,
    token_type: Embedding,
    norm: Norm,
    layers: Vec<Layer>,
    head: Option<Head>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    ffn_norm: Norm,
}

/// `labels(tanh(dense(first token)))`: BERT's pooler and classifier, RoBERTa's head.
struct Head {
    dense: Linear,
    labels: Linear,
}

/// Token ids of several texts, one after another.
#[derive(Default)]
pub(crate) struct Batch {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    texts: Vec<Range<usize>>,
}

impl Batch {
    /// Adds a text of at least one token.
    pub(crate) fn push(&mut self, ids: &[u32], type_ids: &[u32]) {
        let start = self.ids.len();
        self.ids.extend_from_slice(ids);
        self.type_ids.extend_from_slice(type_ids);
        self.texts.push(start..self.ids.len());
    }

    /// Number of tokens of all texts.
    pub(crate) fn tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Encoder {
    /// Logits `[texts][labels]`.
    ///
    /// # Errors
    /// If an id is out of range or a result is not finite.
    pub(crate) fn classify(&self, context: Context, batch: &Batch) -> Result<Vec<f32>> {
        let head = self.head.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "the file holds an embedding model and not a classifier",
            )
        })?;
        let hidden = self.hidden_states(context, batch)?;
        let width = self.config.hidden;
        let first: Vec<f32> = (batch.texts.iter())
            .flat_map(|text| &hidden[text.start * width..][..width])
            .copied()
            .collect();
        let texts = batch.texts.len();
        let mut dense = vec![0.0; texts * width];
        head.dense
            .forward(context, &Input::new(&first, width), &mut dense);
        elementwise::activate(Activation::Tanh, &mut dense);
        let mut logits = vec![0.0; texts * head.labels.out_features()];
        head.labels
            .forward(context, &Input::new(&dense, width), &mut logits);
        finite(logits)
    }

    /// Sentence embeddings `[texts][hidden]`.
    ///
    /// # Errors
    /// If an id is out of range or a result is not finite.
    pub(crate) fn embed(&self, context: Context, batch: &Batch) -> Result<Vec<f32>> {
        let Task::Embedding { pooling, normalize } = self.config.task else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the file holds a classifier and not an embedding model",
            ));
        };
        let hidden = self.hidden_states(context, batch)?;
        let width = self.config.hidden;
        let mut pooled = Vec::with_capacity(batch.texts.len() * width);
        for text in &batch.texts {
            let rows = &hidden[text.start * width..text.end * width];
            let start = pooled.len();
            pooled.extend_from_slice(&rows[..width]);
            let sum = &mut pooled[start..];
            let rest = rows.chunks_exact(width).skip(1);
            match pooling {
                Pooling::Mean => {
                    rest.for_each(|row| sum.iter_mut().zip(row).for_each(|(s, v)| *s += v));
                    let n = text.len() as f32;
                    sum.iter_mut().for_each(|s| *s /= n);
                }
                Pooling::Cls => {}
                Pooling::Max => rest.for_each(|row| {
                    sum.iter_mut().zip(row).for_each(|(s, &v)| *s = s.max(v));
                }),
            }
            if normalize {
                elementwise::normalize(sum);
            }
        }
        finite(pooled)
    }

    /// The last layer's output, `[tokens][hidden]`.
    fn hidden_states(&self, context: Context, batch: &Batch) -> Result<Vec<f32>> {
        let (hidden, ffn) = (self.config.hidden, self.config.intermediate);
        let tokens = batch.tokens();
        let mut x = self.embeddings(batch)?;
        let buffer = |width: usize| vec![0.0; tokens * width];
        let (mut query, mut key, mut value) = (buffer(hidden), buffer(hidden), buffer(hidden));
        let (mut attended, mut added, mut wide) = (buffer(hidden), buffer(hidden), buffer(ffn));
        for layer in &self.layers {
            let input = Input::new(&x, hidden);
            layer.query.forward(context, &input, &mut query);
            layer.key.forward(context, &input, &mut key);
            layer.value.forward(context, &input, &mut value);
            let projected = [&query[..], &key, &value];
            let heads = self.config.heads;
            self_attention(
                context,
                heads,
                &batch.texts,
                hidden,
                projected,
                &mut attended,
            );
            layer
                .output
                .forward(context, &Input::new(&attended, hidden), &mut added);
            layer.attention_norm.add_forward(&mut x, &added);

            layer
                .up
                .forward(context, &Input::new(&x, hidden), &mut wide);
            elementwise::activate(self.config.activation.function(), &mut wide);
            layer
                .down
                .forward(context, &Input::new(&wide, ffn), &mut added);
            layer.ffn_norm.add_forward(&mut x, &added);
        }
        Ok(x)
    }

    /// `norm(token + position + type)`, `[tokens][hidden]`.
    fn embeddings(&self, batch: &Batch) -> Result<Vec<f32>> {
        let config = &self.config;
        let mut x = vec![0.0; batch.tokens() * config.hidden];
        for text in &batch.texts {
            let mut positions = Positions::new(config);
            for t in text.clone() {
                let (id, type_id) = (batch.ids[t] as usize, batch.type_ids[t] as usize);
                let position = positions.next(batch.ids[t]);
                if id >= config.vocab_size
                    || type_id >= config.type_vocab
                    || position >= config.positions
                {
                    return Err(Error::new(
                        ErrorKind::Input,
                        format!(
                            "token id {id}, type {type_id}, position {position}: the model has {} \
                             tokens, {} types and {} positions",
                            config.vocab_size, config.type_vocab, config.positions
                        ),
                    ));
                }
                let row = &mut x[t * config.hidden..][..config.hidden];
                self.token.add(id, row);
                self.token_type.add(type_id, row);
                self.position.add(position, row);
            }
        }
        self.norm.forward(&mut x);
        Ok(x)
    }
}

/// Rows of the position table, token by token.
///
/// BERT counts from 0. RoBERTa counts from `pad_token_id + 1`, and a pad token within the text has
/// the row `pad_token_id` and is not counted, as in `transformers`.
struct Positions {
    next: usize,
    pad: Option<u32>,
}

impl Positions {
    fn new(config: &Config) -> Self {
        Self {
            next: config.position_offset,
            pad: match config.family {
                Family::Bert => None,
                Family::Roberta => Some(config.position_offset as u32 - 1),
            },
        }
    }

    fn next(&mut self, id: u32) -> usize {
        if self.pad == Some(id) {
            return id as usize;
        }
        self.next += 1;
        self.next - 1
    }
}

fn finite(values: Vec<f32>) -> Result<Vec<f32>> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(values);
    }
    Err(Error::new(
        ErrorKind::Input,
        "the model's output is not finite: its weights overflow on this text",
    ))
}
