//! The config of an encoder, for apps that list it.

use super::{Config, Task};
use crate::artifact::Artifact;
use crate::error::Result;

/// Shape and purpose of an encoder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncoderInfo {
    /// `bert` or `roberta`.
    pub family: &'static str,
    /// `classification` or `embedding`.
    pub task: &'static str,
    /// Layers that a forward pass runs.
    pub layers: usize,
    /// Layers with weights of their own; the others run those of an earlier layer.
    pub distinct_layers: usize,
    /// Width of a token.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width between the two feed-forward matrices.
    pub intermediate: usize,
    /// The activation there, as `config.json` spells it.
    pub activation: &'static str,
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Rows of the position embedding.
    pub positions: usize,
    /// Rows of the token type embedding.
    pub token_types: usize,
    /// The most tokens of a text, special tokens included.
    pub max_tokens: usize,
    /// Added to a variance before its root is taken.
    pub layer_norm_eps: f64,
    /// Embedding: `mean`, `cls` or `max`.
    pub pooling: Option<&'static str>,
    /// Embedding: whether vectors are divided by their L2 norm.
    pub normalize: bool,
    /// Classification: number of labels.
    pub labels: Option<usize>,
    /// Classification: what the logits mean, as `problem_type` of `config.json` spells it.
    pub problem: Option<&'static str>,
}

impl Artifact {
    /// The config of an encoder.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the model is of another kind,
    /// [`ErrorKind::Format`](crate::ErrorKind::Format) if the config makes no sense.
    pub fn encoder(&self) -> Result<EncoderInfo> {
        let config = Config::from_artifact(self)?;
        let mut distinct = vec![false; config.layers];
        for tensor in self.tensors().filter(|t| t.shared_with.is_none()) {
            let layer = tensor.name.strip_prefix("layers.").and_then(|rest| {
                let (number, _) = rest.split_once('.')?;
                number.parse::<usize>().ok()
            });
            if let Some(layer) = layer.and_then(|layer| distinct.get_mut(layer)) {
                *layer = true;
            }
        }
        let (mut pooling, mut normalized, mut labels, mut problem) = (None, false, None, None);
        let task = match config.task {
            Task::Embedding {
                pooling: by,
                normalize,
            } => {
                pooling = Some(by.name());
                normalized = normalize;
                "embedding"
            }
            Task::Classification {
                labels: n,
                problem: of,
            } => {
                labels = Some(n);
                problem = Some(of.name());
                "classification"
            }
        };
        Ok(EncoderInfo {
            family: config.family.name(),
            task,
            layers: config.layers,
            distinct_layers: distinct.iter().filter(|&&own| own).count(),
            hidden: config.hidden,
            heads: config.heads,
            intermediate: config.intermediate,
            activation: config.activation.name(),
            vocab_size: config.vocab_size,
            positions: config.positions,
            token_types: config.type_vocab,
            max_tokens: config.max_tokens,
            layer_norm_eps: config.layer_norm_eps,
            pooling,
            normalize: normalized,
            labels,
            problem,
        })
    }
}
