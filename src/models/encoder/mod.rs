//! BERT and RoBERTa (Devlin et al. 2018, arXiv 1810.04805; Liu et al. 2019, arXiv 1907.11692).
//!
//! Batches are ragged: the tokens of all texts stand one after another as rows of one tall matrix.
//! Linear layers see that matrix, attention works text by text. There is no padding and no mask,
//! so a text's result cannot depend on its neighbours.

mod arena;
mod config;
mod forward;
mod info;
mod load;

pub(crate) use config::{Config, Family, HiddenAct, Pooling, Problem, Task};
pub use info::EncoderInfo;

use arena::Arenas;

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::work;
use crate::nn::{Context, Embedding, Linear, Mode, Norm};

/// An encoder with its head, pointing into an open artifact.
pub(crate) struct Encoder {
    pub(crate) config: Config,
    token: Embedding,
    position: Embedding,
    token_type: Embedding,
    norm: Norm,
    layers: Vec<Layer>,
    head: Option<Head>,
    arenas: Arenas,
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

impl Encoder {
    /// About how many nanoseconds one thread takes for a forward pass of `tokens` tokens.
    pub(crate) fn nanoseconds(&self, context: Context, tokens: usize) -> u64 {
        let (hidden, ffn) = (self.config.hidden, self.config.intermediate);
        let weights = work([self.config.layers, hidden, 4 * hidden + 2 * ffn]);
        let rate = match context.mode {
            Mode::Int8 => context.isa.int8_rate(),
            Mode::Exact => context.isa.f32_rate(),
        };
        // The weights are decoded however few tokens there are.
        weights / CODED_WEIGHTS_PER_NANOSECOND
            + (tokens as u64).saturating_mul(weights) / rate as u64
    }

    /// Whether the tables have rows for the tokens of a text.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] at the first token for which they do not.
    pub(crate) fn check(&self, ids: &[u32], type_ids: &[u32]) -> Result<()> {
        let config = &self.config;
        let mut positions = Positions::new(config);
        for (&id, &type_id) in ids.iter().zip(type_ids) {
            let position = positions.next(id);
            if id as usize >= config.vocab_size
                || type_id as usize >= config.type_vocab
                || position as usize >= config.positions
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
        }
        Ok(())
    }
}

/// Weights that are decoded in a nanosecond, roughly.
const CODED_WEIGHTS_PER_NANOSECOND: u64 = 30;

/// Rows of the position table, token by token.
///
/// BERT counts from 0. RoBERTa counts from `pad_token_id + 1`, and a pad token within the text has
/// the row `pad_token_id` and is not counted, as in `transformers`.
pub(crate) struct Positions {
    next: u32,
    pad: Option<u32>,
}

impl Positions {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            next: config.position_offset as u32,
            pad: match config.family {
                Family::Bert => None,
                Family::Roberta => Some(config.position_offset as u32 - 1),
            },
        }
    }

    pub(crate) fn next(&mut self, id: u32) -> u32 {
        if self.pad == Some(id) {
            return id;
        }
        self.next += 1;
        self.next - 1
    }
}
