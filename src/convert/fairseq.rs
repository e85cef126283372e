//! RoBERTa as fairseq leaves it: a directory with `model.pt` (or `checkpoint_best.pt`), `dict.txt` and GPT-2's
//! `encoder.json` and `vocab.bpe`. Tensors get Hugging Face's names, and what `config.json` would say
//! comes from the weights' shapes and the training program's arguments; all else is as for a directory of
//! Hugging Face.
//!
//! A model quantized with fairseq's own iPQ has `centroids` and `assignments` in place of weights: its codes are
//! taken as they are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoint;
use super::config::Json;
use crate::error::{Error, ErrorKind, Result};

const FILES: [&str; 3] = ["model.pt", "checkpoint_best.pt", "checkpoint_last.pt"];
/// Before the encoder's own names: of `RobertaModel` before and after version 0.9, and of newer encoders.
const PREFIXES: [&str; 4] = [
    "decoder.sentence_encoder.",
    "encoder.sentence_encoder.",
    "encoder.",
    "decoder.",
];
/// What the names get in place of it.
const ROBERTA: &str = "roberta.";
const TOKENS: &str = "roberta.embeddings.word_embeddings.weight";
const POSITIONS: &str = "roberta.embeddings.position_embeddings.weight";
const TYPES: &str = "roberta.embeddings.token_type_embeddings.weight";
const NORM: &str = "roberta.embeddings.LayerNorm.weight";
/// The layer that quantization noise puts behind the embeddings.
const NOISE: &str = "roberta.embeddings.quant_noise.weight";

/// A checkpoint under Hugging Face's names.
pub(super) struct Found {
    pub(super) checkpoint: Checkpoint,
    pub(super) config: Json,
    pub(super) notes: Vec<String>,
}

/// The file of a directory without `config.json` that may be fairseq's.
pub(super) fn file(directory: &Path) -> Option<PathBuf> {
    let files = FILES.map(|name| directory.join(name));
    files.into_iter().find(|file| file.exists())
}

/// Reads a file of fairseq.
///
/// # Errors
/// If it is none, or something that the encoder needs is missing.
pub(super) fn open(file: &Path) -> Result<Found> {
    let fail = |message: String| Error::new(ErrorKind::Checkpoint, message).in_file(file);
    let mut checkpoint = Checkpoint::open(file)?;
    let mut notes = checkpoint.notes().to_vec();
    let prefix = (PREFIXES.into_iter())
        .find(|prefix| {
            let tokens = format!("{prefix}embed_tokens.");
            checkpoint.names().any(|name| name.starts_with(&tokens))
        })
        .ok_or_else(|| {
            fail(
                "not a RoBERTa of fairseq, whose token table is decoder.sentence_encoder.embed_tokens or \
                 encoder.sentence_encoder.embed_tokens; for any other model, config.json is missing"
                    .into(),
            )
        })?;
    // Newer encoders have a norm behind the last layer where each layer's norms come first, and put the
    // product of quantization noise behind the embeddings' norm, where no table can take it up.
    let has = |part: &str| checkpoint.shape(&format!("{prefix}{part}")).is_some();
    if has("layer_norm.weight") {
        return Err(fail(
            "layers with their norms first (encoder_normalize_before) are not supported".into(),
        ));
    }
    let noise = has("quant_noise.weight") || has("quant_noise.assignments");
    if noise && has("layernorm_embedding.weight") {
        return Err(fail(
            "quant_noise.weight stands behind layernorm_embedding, which is not supported; fairseq before 0.10.1 \
             put it before emb_layer_norm"
                .into(),
        ));
    }
    let head = head(&checkpoint).map_err(|e| e.in_file(file))?;
    drop_copies(&mut checkpoint, prefix);
    checkpoint.rename(|name| renamed(name, prefix, head.as_deref()))?;
    split_products(&mut checkpoint)?;
    let hidden = match checkpoint.shape(NORM) {
        Some(&[hidden]) => hidden,
        _ => {
            return Err(fail(
                "the embeddings' layer norm (emb_layer_norm) is missing".into(),
            ));
        }
    };
    join_codes(&mut checkpoint, hidden)?;
    fold_noise(&mut checkpoint, hidden, &mut notes)?;
    if checkpoint.shape(TYPES).is_none() {
        checkpoint.put(TYPES, None, &[1, hidden], &vec![0.0; hidden])?;
    }
    let config = config(&checkpoint, file, hidden, head.is_some())?;
    Ok(Found {
        checkpoint,
        config,
        notes,
    })
}

/// Version 0.12 has each layer's weights twice: the copies, in names without full stops, are for PyTorch's fused
/// encoder layers. They are not trained (after iPQ they are what weights were before it), and nor is the
/// number of the names' version.
fn drop_copies(checkpoint: &mut Checkpoint, prefix: &str) {
    let copy = |name: &&str| {
        let Some(inner) = name.strip_prefix(prefix) else {
            return false;
        };
        let layer = inner.strip_prefix("layers.");
        let part = layer.and_then(|layer| layer.split_once('.'));
        let stem = part.and_then(|(_, part)| part.rsplit_once('_'));
        inner == "version"
            || stem.is_some_and(|(stem, kind)| {
                ["in_proj", "out_proj", "fc1", "fc2"].contains(&stem)
                    && ["weight", "bias"].contains(&kind)
            })
    };
    let copies: Vec<String> = (checkpoint.names().filter(copy).map(str::to_owned)).collect();
    for name in copies {
        checkpoint.remove(&name);
    }
}

/// The name of the classification head, if there is one.
fn head(checkpoint: &Checkpoint) -> Result<Option<String>> {
    let heads: BTreeSet<&str> = (checkpoint.names())
        .filter_map(|name| {
            name.strip_prefix("classification_heads.")?
                .split('.')
                .next()
        })
        .collect();
    let mut names = heads.iter();
    match (names.next(), names.next()) {
        (None, _) => Ok(None),
        (Some(head), None) => Ok(Some((*head).to_owned())),
        _ => {
            let heads: Vec<_> = heads.into_iter().collect();
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("several classification heads: {}", heads.join(", ")),
            ))
        }
    }
}

/// Hugging Face's name of a tensor of fairseq.
fn renamed(name: &str, prefix: &str, head: Option<&str>) -> Option<String> {
    if let Some(head) = head
        && let Some(part) = name.strip_prefix(&format!("classification_heads.{head}."))
    {
        return Some(format!("classifier.{part}"));
    }
    if let Some((_, part)) = name.split_once("coder.lm_head.") {
        return Some(format!("lm_head.{part}"));
    }
    let inner = name.strip_prefix(prefix)?;
    let (stem, ending) = inner.rsplit_once('.')?;
    let stem = match stem {
        "embed_tokens" => "embeddings.word_embeddings".to_owned(),
        "embed_positions" => "embeddings.position_embeddings".to_owned(),
        "segment_embeddings" => "embeddings.token_type_embeddings".to_owned(),
        "emb_layer_norm" | "layernorm_embedding" => "embeddings.LayerNorm".to_owned(),
        "quant_noise" => "embeddings.quant_noise".to_owned(),
        _ => {
            let (layer, part) = stem.strip_prefix("layers.")?.split_once('.')?;
            let part = match part {
                // `in_proj_weight` and `in_proj_bias` stand where other names have a dot.
                "self_attn" => match ending {
                    "in_proj_weight" | "in_proj_bias" => "attention.self",
                    _ => return None,
                },
                "self_attn.q_proj" => "attention.self.query",
                "self_attn.k_proj" => "attention.self.key",
                "self_attn.v_proj" => "attention.self.value",
                "self_attn.out_proj" => "attention.output.dense",
                "self_attn_layer_norm" => "attention.output.LayerNorm",
                "fc1" => "intermediate.dense",
                "fc2" => "output.dense",
                "final_layer_norm" => "output.LayerNorm",
                _ => return None,
            };
            format!("encoder.layer.{layer}.{part}")
        }
    };
    Some(format!("{ROBERTA}{stem}.{ending}"))
}

/// Query, key and value of older versions are one tensor.
fn split_products(checkpoint: &mut Checkpoint) -> Result<()> {
    let fused: Vec<String> = (checkpoint.names())
        .filter(|name| name.contains(".attention.self.in_proj_"))
        .map(str::to_owned)
        .collect();
    for name in fused {
        let Some((layer, kind)) = name.split_once("in_proj_") else {
            continue;
        };
        let parts = ["query", "key", "value"].map(|part| format!("{layer}{part}.{kind}"));
        checkpoint.split(&name, &parts)?;
    }
    Ok(())
}

/// Codes in a checkpoint of another kind: their matrices would only be missing.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if there are any.
pub(super) fn refuse_codes(checkpoint: &Checkpoint) -> Result<()> {
    let coded = |name: &&str| {
        let stem = name.strip_suffix(".assignments");
        stem.is_some_and(|stem| checkpoint.shape(&format!("{stem}.centroids")).is_some())
    };
    match checkpoint.names().find(coded) {
        None => Ok(()),
        Some(name) => {
            let message = "codes of fairseq's iPQ, which are read for fairseq's RoBERTa and for EfficientNets only";
            Err(Error::new(ErrorKind::Unsupported, message).in_tensor(name))
        }
    }
}

/// Matrices that are centroids and assignments.
fn join_codes(checkpoint: &mut Checkpoint, hidden: usize) -> Result<()> {
    let stems: Vec<String> = (checkpoint.names())
        .filter_map(|name| name.strip_suffix(".assignments").map(str::to_owned))
        .collect();
    for stem in stems {
        let (centroids, codes) = (format!("{stem}.centroids"), format!("{stem}.assignments"));
        let rows = match checkpoint.shape(&format!("{stem}.bias")) {
            Some(&[rows]) => Some(rows),
            // Tables, and the layer behind them: the width is known, and so is that of a block.
            _ => {
                let block = checkpoint
                    .shape(&centroids)
                    .and_then(|shape| shape.get(1).copied());
                let blocks = checkpoint
                    .shape(&codes)
                    .and_then(|shape| shape.first().copied());
                let per_row = block
                    .filter(|&b| b > 0 && hidden.is_multiple_of(b))
                    .map(|b| hidden / b);
                per_row
                    .zip(blocks)
                    .map(|(per_row, blocks)| blocks / per_row)
            }
        };
        checkpoint.join((&centroids, &codes), format!("{stem}.weight"), rows)?;
        // How many blocks have each centroid: for training.
        checkpoint.remove(&format!("{stem}.counts"));
    }
    Ok(())
}

/// fairseq does not put noise on the token table but on a product behind the embeddings, which therefore is a part
/// of the model: `norm(N (token + position + type))`. It goes into the tables.
fn fold_noise(checkpoint: &mut Checkpoint, hidden: usize, notes: &mut Vec<String>) -> Result<()> {
    match checkpoint.shape(NOISE) {
        None => return Ok(()),
        Some(shape) if shape == [hidden, hidden] => {}
        Some(shape) => {
            let message = format!("shape {shape:?} where [{hidden}, {hidden}] is");
            return Err(Error::new(ErrorKind::Checkpoint, message).in_tensor("quant_noise.weight"));
        }
    }
    let noise = checkpoint.values(NOISE)?;
    for table in [TOKENS, POSITIONS, TYPES] {
        let Some(&[rows, columns]) = checkpoint.shape(table) else {
            continue;
        };
        if columns != hidden {
            continue;
        }
        if checkpoint.coded(table).is_some() {
            notes.push(format!(
                "the product with quant_noise.weight goes into {table}, which loses the codes that it had"
            ));
        }
        let old = checkpoint.values(table)?;
        let mut new = Vec::with_capacity(old.len());
        for row in old.chunks_exact(hidden) {
            let dot = |weights: &[f32]| -> f64 {
                let pairs = weights.iter().zip(row);
                pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            new.extend(
                noise
                    .chunks_exact(hidden)
                    .map(|weights| dot(weights) as f32),
            );
        }
        checkpoint.put(table, None, &[rows, columns], &new)?;
    }
    checkpoint.remove(NOISE);
    Ok(())
}

/// What `config.json` would say.
fn config(checkpoint: &Checkpoint, file: &Path, hidden: usize, head: bool) -> Result<Json> {
    let fail = |message: String| Error::new(ErrorKind::Checkpoint, message).in_file(file);
    let rows = |name: &str, what: &str| match checkpoint.shape(name) {
        Some(&[rows, _]) => Ok(rows),
        _ => Err(fail(format!("{what} is missing or not a matrix"))),
    };
    let layers = (checkpoint.names())
        .filter_map(|name| {
            name.strip_prefix("roberta.encoder.layer.")?
                .split('.')
                .next()
        })
        .filter_map(|layer| layer.parse::<usize>().ok())
        .max()
        .map_or(0, |last| last.saturating_add(1));
    let up = "roberta.encoder.layer.0.intermediate.dense.weight";
    let shapes = [
        ("vocab_size", rows(TOKENS, "embed_tokens")?),
        (
            "max_position_embeddings",
            rows(POSITIONS, "embed_positions")?,
        ),
        ("type_vocab_size", rows(TYPES, "segment_embeddings")?),
        ("intermediate_size", rows(up, "layers.0.fc1")?),
    ];
    let heads = checkpoint.argument("encoder_attention_heads").ok_or_else(|| {
        fail("its arguments (args or cfg.model) do not say how many encoder_attention_heads there are".into())
    })?;
    let heads: usize =
        (heads.parse()).map_err(|_| fail(format!("encoder_attention_heads is {heads:?}")))?;
    // Of a head; without one nothing has it.
    if let (true, Some(other)) = (head, checkpoint.argument("pooler_activation_fn"))
        && other != "tanh"
    {
        let message =
            format!("pooler_activation_fn is {other:?}, and heads are computed with tanh");
        return Err(Error::new(ErrorKind::Unsupported, message).in_file(file));
    }
    let activation = match checkpoint.argument("activation_fn").unwrap_or("gelu") {
        // fairseq's "gelu_accurate" and "gelu_fast" are the tanh approximation; its "gelu" is exact.
        "gelu_accurate" | "gelu_fast" => "gelu_new",
        other => other,
    };
    let architecture = match (
        head,
        checkpoint.names().any(|name| name.starts_with("lm_head.")),
    ) {
        (true, _) => "RobertaForSequenceClassification",
        (false, true) => "RobertaForMaskedLM",
        (false, false) => "RobertaModel",
    };
    let mut object: Map<String, Value> = (shapes.into_iter())
        .map(|(field, rows)| (field.to_owned(), json!(rows)))
        .collect();
    for (field, value) in [
        ("model_type", json!("roberta")),
        ("architectures", json!([architecture])),
        ("hidden_size", json!(hidden)),
        ("num_hidden_layers", json!(layers)),
        ("num_attention_heads", json!(heads)),
        ("pad_token_id", json!(1)),
        ("layer_norm_eps", json!(1e-5)),
        ("hidden_act", json!(activation)),
    ] {
        object.insert(field.into(), value);
    }
    if head {
        let labels = rows("classifier.out_proj.weight", "the head's out_proj")?;
        object.insert("num_labels".into(), json!(labels));
    }
    Ok(Json::made(file.to_owned(), object))
}
