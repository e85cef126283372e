//! From an artifact to an encoder, and from a config to its stored form.

use super::arena::Arenas;
use super::{Config, Encoder, Family, Head, HiddenAct, Layer, Pooling, Problem, Task};
use crate::artifact::v1::{self, EncoderBody};
use crate::artifact::{Artifact, MAX_LABELS, MAX_LAYERS, ModelKind};
use crate::error::{Error, ErrorKind, Result};
use crate::nn::{Embedding, Linear, Loader, Norm};

const EMBEDDING: u32 = 1;
const CLASSIFICATION: u32 = 2;

impl Config {
    /// Reads and checks the config of an artifact.
    pub(crate) fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let kind = artifact.kind()?;
        if kind != ModelKind::Encoder {
            let message = format!("a model of kind {}, where a model of texts is", kind.name());
            return Err(artifact.locate(Error::new(ErrorKind::Unsupported, message)));
        }
        v1::decode::<EncoderBody>(artifact.model_body(), "the encoder's config")
            .and_then(|body| Self::from_body(&body))
            .and_then(|config| {
                config.check_labels(artifact.labels())?;
                Ok(config)
            })
            .map_err(|e| artifact.locate(e))
    }

    fn from_body(body: &EncoderBody) -> Result<Self> {
        for (name, value) in [
            ("vocab_size", body.vocab_size),
            ("hidden", body.hidden),
            ("layers", body.layers),
            ("heads", body.heads),
            ("intermediate", body.intermediate),
            ("positions", body.positions),
            ("type_vocab", body.type_vocab),
            ("max_tokens", body.max_tokens),
        ] {
            if value == 0 {
                return Err(Error::format(format!("the encoder's {name} is 0")));
            }
        }
        if body.layers > MAX_LAYERS {
            return Err(Error::format(format!(
                "{} layers; the limit is {MAX_LAYERS}",
                body.layers
            )));
        }
        if !body.hidden.is_multiple_of(body.heads) {
            return Err(Error::format(format!(
                "hidden {} is not a multiple of heads {}",
                body.hidden, body.heads
            )));
        }
        let eps = body.layer_norm_eps;
        if !(eps > 0.0 && eps <= 1.0) {
            return Err(Error::format(format!(
                "layer_norm_eps {eps} is not above 0 and at most 1"
            )));
        }
        let family = enumerated(Family::from_id(body.family), "family", body.family)?;
        if family == Family::Roberta && body.position_offset == 0 {
            return Err(Error::format("position_offset 0 in a RoBERTa encoder"));
        }
        let needed = u64::from(body.max_tokens) + u64::from(body.position_offset);
        if needed > u64::from(body.positions) {
            return Err(Error::format(format!(
                "max_tokens {} from position {} need {needed} positions; there are {}",
                body.max_tokens, body.position_offset, body.positions
            )));
        }
        let flag = match body.normalize {
            0 => false,
            1 => true,
            other => return enumerated(None, "normalize", other),
        };
        let task = match body.task {
            EMBEDDING => {
                zero(&[("labels", body.labels), ("problem", body.problem)])?;
                Task::Embedding {
                    pooling: enumerated(Pooling::from_id(body.pooling), "pooling", body.pooling)?,
                    normalize: flag,
                }
            }
            CLASSIFICATION => {
                zero(&[("pooling", body.pooling), ("normalize", body.normalize)])?;
                if body.labels == 0 || body.labels > MAX_LABELS {
                    return Err(Error::format(format!(
                        "{} labels; the limits are 1 and {MAX_LABELS}",
                        body.labels
                    )));
                }
                Task::Classification {
                    labels: body.labels as usize,
                    problem: enumerated(Problem::from_id(body.problem), "problem", body.problem)?,
                }
            }
            other => return enumerated(None, "task", other),
        };
        Ok(Self {
            family,
            vocab_size: body.vocab_size as usize,
            hidden: body.hidden as usize,
            layers: body.layers as usize,
            heads: body.heads as usize,
            intermediate: body.intermediate as usize,
            positions: body.positions as usize,
            position_offset: body.position_offset as usize,
            type_vocab: body.type_vocab as usize,
            activation: enumerated(
                HiddenAct::from_id(body.activation),
                "activation",
                body.activation,
            )?,
            layer_norm_eps: eps,
            max_tokens: body.max_tokens as usize,
            task,
        })
    }

    fn check_labels(&self, stored: Option<&[String]>) -> Result<()> {
        match (&self.task, stored) {
            (Task::Classification { labels, .. }, Some(stored)) if stored.len() == *labels => {
                Ok(())
            }
            (Task::Classification { labels, .. }, Some(stored)) => Err(Error::format(format!(
                "{} labels are stored for {labels} logits",
                stored.len()
            ))),
            (Task::Classification { .. }, None) => {
                Err(Error::format("the labels of the classifier are missing"))
            }
            (Task::Embedding { .. }, Some(_)) => {
                Err(Error::format("labels in a model that embeds"))
            }
            (Task::Embedding { .. }, None) => Ok(()),
        }
    }

    /// The stored form.
    #[cfg(feature = "convert")]
    pub(crate) fn to_body(&self) -> Result<Vec<u8>> {
        let (task, pooling, normalize, labels, problem) = match &self.task {
            Task::Embedding { pooling, normalize } => {
                (EMBEDDING, pooling.id(), u32::from(*normalize), 0, 0)
            }
            Task::Classification { labels, problem } => {
                (CLASSIFICATION, 0, 0, *labels as u32, problem.id())
            }
        };
        let body = EncoderBody {
            family: self.family.id(),
            vocab_size: self.vocab_size as u32,
            hidden: self.hidden as u32,
            layers: self.layers as u32,
            heads: self.heads as u32,
            intermediate: self.intermediate as u32,
            positions: self.positions as u32,
            position_offset: self.position_offset as u32,
            type_vocab: self.type_vocab as u32,
            activation: self.activation.id(),
            layer_norm_eps: self.layer_norm_eps,
            max_tokens: self.max_tokens as u32,
            task,
            pooling,
            normalize,
            labels,
            problem,
        };
        // What cannot be opened must not be written.
        Self::from_body(&body)?;
        v1::encode(&body)
    }
}

fn enumerated<T>(value: Option<T>, field: &str, id: u32) -> Result<T> {
    value.ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the encoder's {field} {id} is unknown"),
        )
    })
}

fn zero(fields: &[(&str, u32)]) -> Result<()> {
    match fields.iter().find(|(_, value)| *value != 0) {
        Some((name, value)) => Err(Error::format(format!(
            "the encoder's {name} is {value}, which its task does not have"
        ))),
        None => Ok(()),
    }
}

impl Encoder {
    /// Points an encoder at the tensors of `artifact`.
    ///
    /// # Errors
    /// If the config is invalid, a tensor is missing or has another shape, or one is too many.
    pub(crate) fn load(artifact: &Artifact) -> Result<Self> {
        let config = Config::from_artifact(artifact)?;
        let (hidden, ffn, eps) = (config.hidden, config.intermediate, config.layer_norm_eps);
        let mut loader = Loader::new(artifact);
        let l = &mut loader;
        let token = Embedding::load(l, "embeddings.token", config.vocab_size, hidden)?;
        let position = Embedding::load(l, "embeddings.position", config.positions, hidden)?;
        let token_type = Embedding::load(l, "embeddings.type", config.type_vocab, hidden)?;
        let norm = Norm::load(l, "embeddings.norm", hidden, eps)?;
        let mut layers = Vec::new();
        for i in 0..config.layers {
            let name = |part: &str| format!("layers.{i}.{part}");
            layers.push(Layer {
                query: Linear::load(l, &name("attention.query"), hidden, hidden)?,
                key: Linear::load(l, &name("attention.key"), hidden, hidden)?,
                value: Linear::load(l, &name("attention.value"), hidden, hidden)?,
                output: Linear::load(l, &name("attention.output"), hidden, hidden)?,
                attention_norm: Norm::load(l, &name("attention.norm"), hidden, eps)?,
                up: Linear::load(l, &name("ffn.up"), ffn, hidden)?,
                down: Linear::load(l, &name("ffn.down"), hidden, ffn)?,
                ffn_norm: Norm::load(l, &name("ffn.norm"), hidden, eps)?,
            });
        }
        let head = match config.task {
            Task::Embedding { .. } => None,
            Task::Classification { labels, .. } => Some(Head {
                dense: Linear::load(l, "head.dense", hidden, hidden)?,
                labels: Linear::load(l, "head.labels", labels, hidden)?,
            }),
        };
        loader.finish()?;
        Ok(Self {
            config,
            token,
            position,
            token_type,
            norm,
            layers,
            head,
            arenas: Arenas::default(),
        })
    }
}
