//! Hugging Face's names to ours: which tensors a checkpoint must have, and where they are.

use std::collections::BTreeSet;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::config::{self, HeadKind, Json};
use super::encode::{NewTensor, Origin};
use super::{Conversion, ConvertOptions, Model, Source, TextModel, fairseq, tokenizer};
use crate::artifact::{Group, Layout};
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::{Config, Family, Problem, Task};
use crate::text::Tokenizer;

pub(super) fn read(directory: &Path, options: &ConvertOptions) -> Result<Conversion> {
    let mut conversion = read_as(directory, options, None)?;
    conversion.keep_codes();
    Ok(conversion)
}

/// Reads a checkpoint as a classifier of `classes`, if there are any, whatever its head: what it lacks of
/// one is new. Where it has codes, their matrices are planned as all others.
pub(super) fn read_as(
    directory: &Path,
    options: &ConvertOptions,
    classes: Option<&[String]>,
) -> Result<Conversion> {
    options.refuse_of_images()?;
    if !directory.is_dir() {
        return Err(Error::new(ErrorKind::Checkpoint, "not a directory").in_file(directory));
    }
    let mut notes = Vec::new();
    let (json, mut opened) = match Json::read(directory.join("config.json"))? {
        Some(json) => (json, None),
        None => match fairseq::file(directory) {
            Some(file) => {
                let found = fairseq::open(&file)?;
                notes.extend(found.notes);
                (found.config, Some(found.checkpoint))
            }
            None => {
                let message = "config.json is missing";
                return Err(Error::new(ErrorKind::Checkpoint, message).in_file(directory));
            }
        },
    };
    let architecture = config::architecture(&json)?;
    let mut encoder = config::encoder(&json, architecture.family)?;
    let labels = match classes {
        None => settle_task(
            directory,
            &json,
            architecture.head,
            options,
            &mut encoder,
            &mut notes,
        )?,
        Some(classes) => {
            let labels = classifier_labels(&json, architecture.head, options, classes)?;
            encoder.task = Task::Classification {
                labels: classes.len(),
                problem: Problem::SingleLabel,
            };
            Some(labels.unwrap_or_else(|| classes.to_vec()))
        }
    };

    #[cfg(feature = "train")]
    let new_labels = match classes {
        Some(classes) => classifier_labels(&json, architecture.head, options, classes)?.is_none(),
        None => false,
    };

    let bundle = tokenizer::collect(directory, architecture.family)?;
    notes.extend(bundle.notes);
    if let Some(limit) = bundle.max_length {
        encoder.max_tokens = encoder.max_tokens.min(limit);
    }
    let tokenizer = tokenizer::stored(bundle.json, &mut notes)?;
    let largest = Tokenizer::from_stored(&tokenizer)?.max_id() as usize;
    if largest >= encoder.vocab_size {
        return Err(json.fail(
            "vocab_size",
            format!(
                "{} is too small for the tokenizer's ids up to {largest}",
                encoder.vocab_size
            ),
        ));
    }

    // Limits first: what follows allocates by these counts.
    encoder
        .to_body()
        .map_err(|e| e.in_file(directory.join("config.json")))?;

    let checkpoint = match opened.take() {
        Some(checkpoint) => checkpoint,
        None => {
            let checkpoint = Checkpoint::open(directory)?;
            fairseq::refuse_codes(&checkpoint).map_err(|e| e.in_file(directory))?;
            notes.extend_from_slice(checkpoint.notes());
            checkpoint
        }
    };
    let names = Names::detect(&checkpoint, architecture.family);
    let original_layers = encoder.layers;
    let layers = super::plan::kept_layers(options, original_layers)?;
    let layer_of = super::plan::layer_of(layers.len(), options.share)?;
    encoder.layers = layers.len();
    if layers.len() != original_layers {
        notes.push(format!(
            "{} of {original_layers} layers are kept",
            layers.len()
        ));
    }

    let mut used = BTreeSet::new();
    let mut tensors = Vec::new();
    for tensor in tensor_table(&encoder) {
        if tensor.layer.is_some_and(|layer| layer_of[layer] != layer) {
            continue;
        }
        let original = names.original(&tensor, architecture.family, &layers);
        #[cfg(feature = "train")]
        if classes.is_some() && tensor.name.starts_with("head.") {
            let of_labels = tensor.name.starts_with("head.labels.");
            if of_labels && new_labels || names.find(&checkpoint, &original).is_err() {
                notes.push(format!("{} is new", tensor.name));
                tensors.push(NewTensor {
                    origin: Origin::New(original),
                    ..tensor
                });
                continue;
            }
        }
        let found = names.find(&checkpoint, &original)?;
        let shape = checkpoint.shape(&found).unwrap_or_default();
        if shape != tensor.shape {
            return Err(Error::new(
                ErrorKind::Checkpoint,
                format!(
                    "shape {shape:?} where config.json asks for {:?}",
                    tensor.shape
                ),
            )
            .in_tensor(&found)
            .in_file(checkpoint.file_of(&found).unwrap_or(directory)));
        }
        used.insert(found.clone());
        tensors.push(NewTensor {
            origin: Origin::Checkpoint(found),
            ..tensor
        });
    }
    names.report_unused(
        &checkpoint,
        &used,
        &encoder,
        layers.len() < original_layers || options.share > 1,
        &mut notes,
    );

    let planned = options.planned(&tensors)?;
    let provenance = vec![
        ("source".into(), source_name(directory)),
        ("source_sha256".into(), checkpoint.digest()),
    ];
    Ok(Conversion {
        model: Model::Text(TextModel {
            config: encoder,
            tokenizer,
            layer_of,
            #[cfg(feature = "train")]
            config_json: json.object(),
        }),
        labels,
        source: Source::Checkpoint(checkpoint),
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: options.calibration.clone(),
        pictures: Vec::new(),
        notes,
        provenance,
    })
}

/// The directory's own name: a full path would tell about the machine and not about the model.
fn source_name(directory: &Path) -> String {
    let full = directory.canonicalize().unwrap_or(directory.to_owned());
    let name = full.file_name().map(|name| name.to_string_lossy());
    name.unwrap_or_default().into_owned()
}

/// Decides what the model is for; returns the labels of a classifier.
fn settle_task(
    directory: &Path,
    json: &Json,
    head: HeadKind,
    options: &ConvertOptions,
    encoder: &mut Config,
    notes: &mut Vec<String>,
) -> Result<Option<Vec<String>>> {
    let wrong = |message: &str| Err(Error::new(ErrorKind::Config, message).in_file(directory));
    if head == HeadKind::Classification {
        if options.pooling.is_some() || options.normalize {
            return wrong(
                "--pooling and --normalize are for embedding models; this is a classifier",
            );
        }
        let (task, labels) = config::classification(json, options)?;
        encoder.task = task;
        return Ok(Some(labels));
    }
    if options.labels.is_some() {
        return wrong("--labels is for classifiers; this checkpoint has no classification head");
    }
    if head == HeadKind::LanguageModel {
        notes.push("the language-model head was skipped: the encoder is converted".into());
    }
    let found = config::sentence_transformers(directory, notes)?;
    if found.is_none() && options.pooling.is_none() {
        notes.push(
            "a bare encoder: its embeddings are the mean of all tokens (--pooling changes that)"
                .into(),
        );
    }
    if let Some(found) = found {
        encoder.task = found;
    }
    if let Task::Embedding { pooling, normalize } = &mut encoder.task {
        if let Some(given) = options.pooling {
            *pooling = given.into();
        }
        *normalize |= options.normalize;
    }
    Ok(None)
}

/// The labels of a checkpoint's classification head, if they are these, in the head's own order.
fn classifier_labels(
    json: &Json,
    head: HeadKind,
    options: &ConvertOptions,
    classes: &[String],
) -> Result<Option<Vec<String>>> {
    if head != HeadKind::Classification {
        return Ok(None);
    }
    let (_, labels) = config::classification(json, options)?;
    let sorted = |labels: &[String]| {
        let mut labels = labels.to_vec();
        labels.sort();
        labels
    };
    Ok((sorted(&labels) == sorted(classes)).then_some(labels))
}

/// Every tensor of an encoder of this shape, in our names.
pub(super) fn tensor_table(config: &Config) -> Vec<NewTensor> {
    let (h, f) = (config.hidden, config.intermediate);
    let mut table = Vec::new();
    let mut add = |layer: Option<usize>, name: String, group, layout, shape: &[usize]| {
        table.push(NewTensor {
            name,
            layer,
            group,
            layout,
            shape: shape.to_vec(),
            origin: Origin::Random,
        });
    };
    use Group::{Attention, Embedding, Ffn, Head, Other, Position};
    use Layout::{Rows, Tiles, Vector};
    add(
        None,
        "embeddings.token".into(),
        Embedding,
        Rows,
        &[config.vocab_size, h],
    );
    add(
        None,
        "embeddings.position".into(),
        Position,
        Rows,
        &[config.positions, h],
    );
    add(
        None,
        "embeddings.type".into(),
        Other,
        Rows,
        &[config.type_vocab, h],
    );
    add(None, "embeddings.norm.weight".into(), Other, Vector, &[h]);
    add(None, "embeddings.norm.bias".into(), Other, Vector, &[h]);
    for i in 0..config.layers {
        let mut add = |part: &str, group, layout, shape: &[usize]| {
            add(Some(i), format!("layers.{i}.{part}"), group, layout, shape);
        };
        for part in ["query", "key", "value", "output"] {
            add(
                &format!("attention.{part}.weight"),
                Attention,
                Tiles,
                &[h, h],
            );
            add(&format!("attention.{part}.bias"), Other, Vector, &[h]);
        }
        add("attention.norm.weight", Other, Vector, &[h]);
        add("attention.norm.bias", Other, Vector, &[h]);
        add("ffn.up.weight", Ffn, Tiles, &[f, h]);
        add("ffn.up.bias", Other, Vector, &[f]);
        add("ffn.down.weight", Ffn, Tiles, &[h, f]);
        add("ffn.down.bias", Other, Vector, &[h]);
        add("ffn.norm.weight", Other, Vector, &[h]);
        add("ffn.norm.bias", Other, Vector, &[h]);
    }
    if let Task::Classification { labels, .. } = config.task {
        add(None, "head.dense.weight".into(), Head, Tiles, &[h, h]);
        add(None, "head.dense.bias".into(), Other, Vector, &[h]);
        add(
            None,
            "head.labels.weight".into(),
            Other,
            Tiles,
            &[labels, h],
        );
        add(None, "head.labels.bias".into(), Other, Vector, &[labels]);
    }
    table
}

/// How a checkpoint spells its names.
struct Names {
    /// `bert.`, `roberta.` or nothing: what stands before the encoder's own names.
    prefix: &'static str,
}

impl Names {
    fn detect(checkpoint: &Checkpoint, family: Family) -> Self {
        let prefix = match family {
            Family::Bert => "bert.",
            Family::Roberta => "roberta.",
        };
        let prefixed = checkpoint.names().any(|name| name.starts_with(prefix));
        Self {
            prefix: if prefixed { prefix } else { "" },
        }
    }

    /// Hugging Face's name of one of our tensors.
    fn original(&self, tensor: &NewTensor, family: Family, layers: &[usize]) -> String {
        let (stem, ending) = tensor.name.rsplit_once('.').unwrap_or((&tensor.name, ""));
        let prefix = self.prefix;
        let inner = match tensor.layer {
            Some(layer) => {
                let part = match stem.splitn(3, '.').nth(2).unwrap_or_default() {
                    "attention.query" => "attention.self.query",
                    "attention.key" => "attention.self.key",
                    "attention.value" => "attention.self.value",
                    "attention.output" => "attention.output.dense",
                    "attention.norm" => "attention.output.LayerNorm",
                    "ffn.up" => "intermediate.dense",
                    "ffn.down" => "output.dense",
                    _ => "output.LayerNorm",
                };
                format!("encoder.layer.{}.{part}.{ending}", layers[layer])
            }
            None => match (tensor.name.as_str(), family) {
                ("embeddings.token", _) => "embeddings.word_embeddings.weight".into(),
                ("embeddings.position", _) => "embeddings.position_embeddings.weight".into(),
                ("embeddings.type", _) => "embeddings.token_type_embeddings.weight".into(),
                ("embeddings.norm.weight" | "embeddings.norm.bias", _) => {
                    format!("embeddings.LayerNorm.{ending}")
                }
                // Heads stand outside the encoder, but BERT's dense layer is its pooler.
                ("head.dense.weight" | "head.dense.bias", Family::Bert) => {
                    format!("pooler.dense.{ending}")
                }
                ("head.dense.weight" | "head.dense.bias", Family::Roberta) => {
                    return format!("classifier.dense.{ending}");
                }
                (_, Family::Bert) => return format!("classifier.{ending}"),
                (_, Family::Roberta) => return format!("classifier.out_proj.{ending}"),
            },
        };
        format!("{prefix}{inner}")
    }

    /// The name as the checkpoint has it: old ones say `gamma` and `beta`.
    fn find(&self, checkpoint: &Checkpoint, name: &str) -> Result<String> {
        let old = name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        for candidate in [name, &old] {
            if checkpoint.shape(candidate).is_some() {
                return Ok(candidate.to_owned());
            }
        }
        let first = checkpoint.first_file();
        let error = Error::new(ErrorKind::Checkpoint, "missing").in_tensor(name);
        Err(match first {
            Some(file) => error.in_file(file),
            None => error,
        })
    }

    /// Notes what a checkpoint has beyond the tensors used.
    fn report_unused(
        &self,
        checkpoint: &Checkpoint,
        used: &BTreeSet<String>,
        config: &Config,
        pruned: bool,
        notes: &mut Vec<String>,
    ) {
        let embeds = matches!(config.task, Task::Embedding { .. });
        let (mut pooler, mut unused) = (false, Vec::new());
        for name in checkpoint.names().filter(|name| !used.contains(*name)) {
            let inner = name.strip_prefix(self.prefix).unwrap_or(name);
            if inner == "embeddings.position_ids" || inner == "embeddings.token_type_ids" {
                // Constants 0, 1, 2, ... of older versions.
            } else if embeds && inner.starts_with("pooler.") {
                pooler = true;
            } else if name.starts_with("cls.") || name.starts_with("lm_head.") {
                // Noted as the language-model head.
            } else if !(pruned && inner.starts_with("encoder.layer.")) {
                unused.push(name);
            }
        }
        if pooler {
            notes.push("the pooler was dropped: embeddings do not use it".into());
        }
        if !unused.is_empty() {
            let shown = unused
                .iter()
                .take(20)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let more = match unused.len() {
                n if n > 20 => format!(" and {} more", n - 20),
                _ => String::new(),
            };
            notes.push(format!("unused tensors: {shown}{more}"));
        }
    }
}
