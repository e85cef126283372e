//! `config.json` and the files of sentence-transformers around it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ConvertOptions;
use crate::artifact::MAX_LABELS;
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::{Config, Family, HiddenAct, Pooling, Problem, Task};

/// Far beyond any real one.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// A JSON object and the file that it is from, for messages.
pub(super) struct Json {
    path: PathBuf,
    object: Map<String, Value>,
}

impl Json {
    /// Reads a file; `None` if there is none.
    pub(super) fn read(path: PathBuf) -> Result<Option<Self>> {
        match read_value(&path)? {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self { path, object })),
            Some(_) => Err(bad(&path, "not a JSON object")),
        }
    }

    /// What a file of another kind says, in the words of `config.json`.
    pub(super) fn made(path: PathBuf, object: Map<String, Value>) -> Self {
        Self { path, object }
    }

    #[cfg(feature = "train")]
    pub(super) fn object(&self) -> Map<String, Value> {
        self.object.clone()
    }

    pub(super) fn fail(&self, field: &str, message: impl std::fmt::Display) -> Error {
        bad(&self.path, format!("{field}: {message}"))
    }

    /// The value of a field; `null` counts as absent.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn string(&self, field: &str) -> Result<Option<&str>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.fail(field, format!("{other} is not a string"))),
        }
    }

    pub(super) fn bool(&self, field: &str) -> Result<Option<bool>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.fail(field, format!("{other} is not true or false"))),
        }
    }

    /// A count that must be there.
    pub(super) fn size(&self, field: &str) -> Result<usize> {
        let value = self.get(field).ok_or_else(|| self.fail(field, "missing"))?;
        match value.as_u64() {
            Some(n) if n <= 1 << 24 => Ok(n as usize),
            _ => Err(self.fail(field, format!("{value} is not a count"))),
        }
    }

    fn size_or(&self, field: &str, default: usize) -> Result<usize> {
        match self.get(field) {
            Some(_) => self.size(field),
            None => Ok(default),
        }
    }
}

fn bad(path: &Path, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Checkpoint, message).in_file(path)
}

fn read_value(path: &Path) -> Result<Option<Value>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    if !metadata.is_file() || metadata.len() > MAX_JSON_BYTES {
        return Err(bad(path, "not a JSON file of at most 16 MiB"));
    }
    let text = fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| bad(path, format!("not valid JSON: {e}")))
}

/// What a checkpoint's `architectures` entry asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Architecture {
    pub(super) family: Family,
    pub(super) head: HeadKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadKind {
    None,
    Classification,
    /// Dropped: what is left is the encoder.
    LanguageModel,
}

const ARCHITECTURES: [(&str, Family, HeadKind); 6] = [
    ("BertModel", Family::Bert, HeadKind::None),
    (
        "BertForSequenceClassification",
        Family::Bert,
        HeadKind::Classification,
    ),
    ("BertForMaskedLM", Family::Bert, HeadKind::LanguageModel),
    ("RobertaModel", Family::Roberta, HeadKind::None),
    (
        "RobertaForSequenceClassification",
        Family::Roberta,
        HeadKind::Classification,
    ),
    (
        "RobertaForMaskedLM",
        Family::Roberta,
        HeadKind::LanguageModel,
    ),
];

pub(super) fn architecture(json: &Json) -> Result<Architecture> {
    let known = || ARCHITECTURES.map(|(name, ..)| name).join(", ");
    let name = match json.get("architectures") {
        Some(Value::Array(names)) => match names.first() {
            Some(Value::String(name)) => Some(name.as_str()),
            _ => return Err(json.fail("architectures", "not a list of names")),
        },
        Some(_) => return Err(json.fail("architectures", "not a list of names")),
        None => None,
    };
    let name = match (name, json.string("model_type")?) {
        (Some(name), _) => name,
        (None, Some("bert")) => "BertModel",
        (None, Some("roberta")) => "RobertaModel",
        (None, other) => {
            return Err(json.fail(
                "architectures",
                format!(
                    "missing, and model_type is {other:?}; supported: {}",
                    known()
                ),
            ));
        }
    };
    (ARCHITECTURES.iter())
        .find(|(known, ..)| *known == name)
        .map(|&(_, family, head)| Architecture { family, head })
        .ok_or_else(|| {
            json.fail(
                "architectures",
                format!("{name:?} is not supported; supported: {}", known()),
            )
        })
}

/// The encoder's shape, with `task` and `max_tokens` yet to be settled by the caller.
pub(super) fn encoder(json: &Json, family: Family) -> Result<Config> {
    for field in ["is_decoder", "add_cross_attention"] {
        if json.bool(field)? == Some(true) {
            return Err(json.fail(field, "decoders are not supported"));
        }
    }
    if let Some(kind) = json.string("position_embedding_type")?
        && kind != "absolute"
    {
        return Err(json.fail(
            "position_embedding_type",
            format!("{kind:?} is not supported; absolute is"),
        ));
    }
    let name = json.string("hidden_act")?.unwrap_or("gelu");
    let activation = (HiddenAct::ALL.iter().copied())
        .find(|act| act.name() == name)
        .ok_or_else(|| {
            let known: Vec<_> = HiddenAct::ALL.iter().map(|act| act.name()).collect();
            json.fail(
                "hidden_act",
                format!("{name:?} is not supported; supported: {}", known.join(", ")),
            )
        })?;
    let layer_norm_eps = match json.get("layer_norm_eps") {
        None => 1e-12,
        Some(value) => value
            .as_f64()
            .filter(|eps| *eps > 0.0 && *eps <= 1.0)
            .ok_or_else(|| {
                json.fail(
                    "layer_norm_eps",
                    format!("{value} is not a number above 0 and at most 1"),
                )
            })?,
    };
    let positions = json.size("max_position_embeddings")?;
    let position_offset = match family {
        Family::Bert => 0,
        Family::Roberta => json.size_or("pad_token_id", 1)? + 1,
    };
    if positions <= position_offset {
        return Err(json.fail(
            "max_position_embeddings",
            format!("{positions} leaves no usable position after {position_offset}"),
        ));
    }
    Ok(Config {
        family,
        vocab_size: json.size("vocab_size")?,
        hidden: json.size("hidden_size")?,
        layers: json.size("num_hidden_layers")?,
        heads: json.size("num_attention_heads")?,
        intermediate: json.size("intermediate_size")?,
        positions,
        position_offset,
        type_vocab: json.size_or("type_vocab_size", 2)?,
        activation,
        layer_norm_eps,
        max_tokens: positions - position_offset,
        task: Task::Embedding {
            pooling: Pooling::Mean,
            normalize: false,
        },
    })
}

/// Labels and what their logits mean.
pub(super) fn classification(json: &Json, options: &ConvertOptions) -> Result<(Task, Vec<String>)> {
    let mut labels = match json.get("id2label") {
        None => match json.size_or("num_labels", 2)? {
            labels if labels > MAX_LABELS as usize => {
                return Err(json.fail("num_labels", format!("{labels}; the limit is {MAX_LABELS}")));
            }
            labels => (0..labels).map(|i| format!("LABEL_{i}")).collect(),
        },
        Some(Value::Object(map)) => {
            let mut labels = vec![None; map.len()];
            for (id, label) in map {
                let slot = id.parse::<usize>().ok().and_then(|id| labels.get_mut(id));
                match (slot, label) {
                    (Some(slot), Value::String(label)) => *slot = Some(label.clone()),
                    _ => {
                        return Err(json.fail(
                            "id2label",
                            format!(
                                "{id:?}: the ids are not 0 to {}, or a label is not a string",
                                map.len() - 1
                            ),
                        ));
                    }
                }
            }
            let found: Option<Vec<String>> = labels.into_iter().collect();
            found.ok_or_else(|| json.fail("id2label", "an id is there twice"))?
        }
        Some(_) => return Err(json.fail("id2label", "not an object")),
    };
    if let Some(given) = &options.labels {
        if given.len() != labels.len() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} labels are given for {} logits of the checkpoint",
                    given.len(),
                    labels.len()
                ),
            ));
        }
        labels.clone_from(given);
    }
    let problem = match json.string("problem_type")? {
        Some(name) => (Problem::ALL.iter().copied())
            .find(|problem| problem.name() == name)
            .ok_or_else(|| json.fail("problem_type", format!("{name:?} is unknown")))?,
        None if labels.len() == 1 => Problem::Regression,
        None => Problem::SingleLabel,
    };
    let task = Task::Classification {
        labels: labels.len(),
        problem,
    };
    Ok((task, labels))
}

/// Pooling and normalisation of a sentence-transformers directory; `None` if it is none.
pub(super) fn sentence_transformers(
    directory: &Path,
    notes: &mut Vec<String>,
) -> Result<Option<Task>> {
    let path = directory.join("modules.json");
    let modules = match read_value(&path)? {
        None => return Ok(None),
        Some(Value::Array(modules)) => modules,
        Some(_) => return Err(bad(&path, "not a JSON list")),
    };
    let (mut pooling, mut normalize) = (None, false);
    for module in &modules {
        let field = |name: &str| module.get(name).and_then(Value::as_str);
        let kind = field("type").ok_or_else(|| bad(&path, "a module without a type"))?;
        match kind.rsplit('.').next().unwrap_or(kind) {
            "Transformer" => {
                if field("path").is_some_and(|path| !path.is_empty() && path != ".") {
                    return Err(bad(
                        &path,
                        "the transformer is in a directory of its own; convert that one",
                    ));
                }
            }
            "Pooling" => {
                let folder = field("path").unwrap_or("1_Pooling");
                let file = directory.join(folder).join("config.json");
                let json = Json::read(file.clone())?
                    .ok_or_else(|| bad(&file, "missing, though modules.json names it"))?;
                pooling = Some(pooling_mode(&json)?);
            }
            "Normalize" => normalize = true,
            "Dropout" => {}
            other => {
                return Err(bad(
                    &path,
                    format!(
                        "module {other:?} is not supported; Transformer, Pooling and Normalize are"
                    ),
                ));
            }
        }
    }
    let pooling = pooling.unwrap_or_else(|| {
        notes.push("modules.json has no pooling: the mean of all tokens is used".into());
        Pooling::Mean
    });
    Ok(Some(Task::Embedding { pooling, normalize }))
}

fn pooling_mode(json: &Json) -> Result<Pooling> {
    const MODES: [(&str, Option<Pooling>); 6] = [
        ("pooling_mode_cls_token", Some(Pooling::Cls)),
        ("pooling_mode_mean_tokens", Some(Pooling::Mean)),
        ("pooling_mode_max_tokens", Some(Pooling::Max)),
        ("pooling_mode_mean_sqrt_len_tokens", None),
        ("pooling_mode_weightedmean_tokens", None),
        ("pooling_mode_lasttoken", None),
    ];
    let mut found = Vec::new();
    for (name, pooling) in MODES {
        if json.bool(name)? == Some(true) {
            found.push((name, pooling));
        }
    }
    match found[..] {
        [(_, Some(pooling))] => Ok(pooling),
        [(name, None)] => {
            Err(json.fail(name, "this pooling is not supported; cls, mean and max are"))
        }
        [] => match json.string("pooling_mode")? {
            Some("mean") => Ok(Pooling::Mean),
            Some("cls") => Ok(Pooling::Cls),
            Some("max") => Ok(Pooling::Max),
            other => Err(json.fail("pooling_mode", format!("{other:?} is not cls, mean or max"))),
        },
        _ => Err(json.fail(
            "pooling_mode",
            "several poolings at a time are not supported",
        )),
    }
}
