//! The tokenizer of a Hugging Face directory, as one compact `tokenizer.json`.
//!
//! Taken from `tokenizer.json`; else from `vocab.txt` (BERT) or `vocab.json` and `merges.txt`
//! (RoBERTa), built into what the fast tokenizer class of `transformers` makes of them.

mod config;
mod tables;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::path::Path;

use serde_json::{Map, Value, json};

use self::config::{Config, bad, read_object, wrong};
pub(super) use self::tables::stored;
use self::vocabulary::{byte_level, wordpiece};
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::Family;
use crate::text::Tokenizer;

/// `model_max_length` of this and more means "no limit": `transformers` writes 1e30.
const UNLIMITED: f64 = 1e6;
/// Tokens of the shortest text: one, and those that begin and end it.
const SHORTEST: f64 = 3.0;

/// What a directory says about its tokenizer.
#[derive(Debug, Clone)]
pub(crate) struct TokenizerBundle {
    /// A `tokenizer.json` without truncation or padding and without white space, which
    /// [`Tokenizer::from_json`] has read once.
    pub(crate) json: Vec<u8>,
    /// The most tokens a text may have by `tokenizer_config.json` and `sentence_bert_config.json`,
    /// special tokens included, if either gives a number.
    pub(crate) max_length: Option<usize>,
    /// What was changed or may surprise, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// Reads the tokenizer of the model directory `dir`.
///
/// Where `tokenizer_config.json` contradicts `tokenizer.json` (`do_lower_case`, `strip_accents`,
/// `tokenize_chinese_chars`, `add_prefix_space`) the former wins, as in `transformers`, and a note
/// says so.
///
/// # Errors
///
/// `ErrorKind::Io` for a file that cannot be read; `ErrorKind::Tokenizer`, with the file and
/// the field, for one that is missing, malformed or over 256 MiB; `ErrorKind::Unsupported` for
/// other kinds of tokenizers.
pub(crate) fn collect(dir: &Path, family: Family) -> Result<TokenizerBundle> {
    let mut notes = Vec::new();
    let config = Config::read(dir)?;
    let (source, mut json) = match read_object(dir, "tokenizer.json")? {
        Some(json) => ("tokenizer.json", json),
        None => match family {
            Family::Bert => ("vocab.txt", wordpiece(dir, &config, &mut notes)?),
            Family::Roberta => ("vocab.json", byte_level(dir, &config)?),
        },
    };
    let path = dir.join(source);
    if source == "tokenizer.json" {
        remove_limits(&mut json, &mut notes);
        apply_config(&mut json, &config, &mut notes)?;
    }
    let sentence = read_object(dir, "sentence_bert_config.json")?.unwrap_or_default();
    let lower_cases = json.get("normalizer").is_some_and(lower_cases);
    if sentence.get("do_lower_case") == Some(&json!(true)) && !lower_cases {
        let message = "do_lower_case: texts are made lower-case before a tokenizer that keeps capitals, which is \
                       not supported";
        return Err(Error::new(ErrorKind::Unsupported, message)
            .in_file(dir.join("sentence_bert_config.json")));
    }
    if let Some(prompts) = read_object(dir, "config_sentence_transformers.json")?
        && let Some(name) = prompts.get("default_prompt_name").and_then(Value::as_str)
    {
        let prompt = prompts.get("prompts").and_then(|all| all.get(name));
        notes.push(format!(
            "config_sentence_transformers.json: sentence-transformers puts the prompt {:?} before every text; \
             this runtime does not",
            prompt.and_then(Value::as_str).unwrap_or(name)
        ));
    }
    if config.string("truncation_side")? == Some("left") {
        notes.push("tokenizer_config.json cuts long texts on the left: not kept".to_owned());
    }
    compact(&mut json);
    note_missing_bytes(&json, &mut notes);
    let json = serde_json::to_vec(&json)
        .map_err(|e| bad(format!("cannot be written: {e}")).in_file(&path))?;
    Tokenizer::from_json(&json).map_err(|e| e.in_file(&path))?;
    Ok(TokenizerBundle {
        json,
        max_length: max_length(dir, &config, &sentence)?,
        notes,
    })
}

/// Whether a normalizer makes texts lower-case.
fn lower_cases(step: &Value) -> bool {
    match step.get("type").and_then(Value::as_str) {
        Some("Lowercase") => true,
        Some("BertNormalizer") => step.get("lowercase") != Some(&json!(false)),
        Some("Sequence") => (step.get("normalizers").and_then(Value::as_array))
            .is_some_and(|steps| steps.iter().any(lower_cases)),
        _ => false,
    }
}

/// Takes out truncation and padding, and says so.
fn remove_limits(json: &mut Map<String, Value>, notes: &mut Vec<String>) {
    let mut found = Vec::new();
    if let Some(cut) = json.get("truncation").filter(|v| !v.is_null()) {
        found.push(match cut.get("max_length") {
            Some(n) => format!("cut texts at {n} tokens"),
            None => "cut texts".to_owned(),
        });
    }
    if let Some(pad) = json.get("padding").filter(|v| !v.is_null()) {
        found.push(match pad.get("strategy").and_then(|s| s.get("Fixed")) {
            Some(n) => format!("padded to {n}"),
            None => "padded".to_owned(),
        });
    }
    json.insert("truncation".to_owned(), Value::Null);
    json.insert("padding".to_owned(), Value::Null);
    if !found.is_empty() {
        let what = found.join(" and ");
        let removed = if found.len() == 2 {
            "both removed"
        } else {
            "removed"
        };
        notes.push(format!("tokenizer.json {what}: {removed}"));
    }
}

/// Lets the explicit settings of `tokenizer_config.json` win, and says so.
fn apply_config(
    json: &mut Map<String, Value>,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<()> {
    // These classes take `tokenizer.json` as it is.
    let class = config.string("tokenizer_class")?;
    if matches!(class, Some("PreTrainedTokenizerFast" | "TokenizersBackend")) {
        return Ok(());
    }
    let settings = [
        ("normalizer", "BertNormalizer", "lowercase", "do_lower_case"),
        (
            "normalizer",
            "BertNormalizer",
            "strip_accents",
            "strip_accents",
        ),
        (
            "normalizer",
            "BertNormalizer",
            "handle_chinese_chars",
            "tokenize_chinese_chars",
        ),
        (
            "pre_tokenizer",
            "ByteLevel",
            "add_prefix_space",
            "add_prefix_space",
        ),
    ];
    for (step, kind, field, setting) in settings {
        let Some(value) = config.flag(setting)? else {
            continue;
        };
        let Some(step) = json.get_mut(step).and_then(Value::as_object_mut) else {
            continue;
        };
        if step.get("type").and_then(Value::as_str) != Some(kind) {
            continue;
        }
        if step.get(field) != Some(&json!(value)) {
            step.insert(field.to_owned(), json!(value));
            notes.push(format!(
                "tokenizer_config.json sets {setting} to {value} against tokenizer.json: {value} is kept"
            ));
        }
    }
    let dropout = json.get_mut("model").and_then(|m| m.get_mut("dropout"));
    if let Some(dropout) = dropout.filter(|d| !d.is_null()) {
        *dropout = Value::Null;
        notes.push("tokenizer.json drops merges at random (dropout): removed".to_owned());
    }
    Ok(())
}

/// Writes merges as `"a b"` where they are lists: shorter, and read by every version.
fn compact(json: &mut Map<String, Value>) {
    let merges = json.get_mut("model").and_then(|m| m.get_mut("merges"));
    let Some(Value::Array(merges)) = merges else {
        return;
    };
    let joined: Option<Vec<Value>> = merges
        .iter()
        .map(|merge| match merge.as_array().map(Vec::as_slice) {
            Some([Value::String(a), Value::String(b)]) if !a.contains(' ') && !b.contains(' ') => {
                Some(Value::String(format!("{a} {b}")))
            }
            _ => None,
        })
        .collect();
    // All or none: the `tokenizers` crate reads no mixture.
    if let Some(joined) = joined {
        *merges = joined;
    }
}

/// A byte-level vocabulary without all 256 bytes loses characters, with no unknown token in place.
fn note_missing_bytes(json: &Map<String, Value>, notes: &mut Vec<String>) {
    let byte_level = json
        .get("pre_tokenizer")
        .and_then(|p| p.get("type"))
        .is_some_and(|t| t == "ByteLevel");
    let model = json.get("model");
    let vocab = model
        .and_then(|m| m.get("vocab"))
        .and_then(Value::as_object);
    let unk = model
        .and_then(|m| m.get("unk_token"))
        .is_some_and(Value::is_string);
    let (true, false, Some(vocab)) = (byte_level, unk, vocab) else {
        return;
    };
    let symbols = super::random_tokenizer::byte_symbols();
    let missing = symbols
        .iter()
        .filter(|c| !vocab.contains_key(&c.to_string()))
        .count();
    if missing > 0 {
        notes.push(format!(
            "the vocabulary lacks {missing} of 256 bytes: text with those loses them"
        ));
    }
}

/// The smaller of the two stated limits.
fn max_length(dir: &Path, config: &Config, sentence: &Map<String, Value>) -> Result<Option<usize>> {
    let limits = [
        length(&config.file, &config.fields, "model_max_length")?,
        length(
            &dir.join("sentence_bert_config.json"),
            sentence,
            "max_seq_length",
        )?,
    ];
    Ok(limits.into_iter().flatten().min())
}

fn length(file: &Path, fields: &Map<String, Value>, field: &str) -> Result<Option<usize>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(n) if n >= UNLIMITED => Ok(None),
            Some(n) if n >= SHORTEST && n.fract() == 0.0 => Ok(Some(n as usize)),
            _ => Err(wrong(
                file,
                field,
                "expected a whole number of at least 3, as two tokens are put around a text",
            )),
        },
    }
}
