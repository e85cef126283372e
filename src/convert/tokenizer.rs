//! The tokenizer of a Hugging Face directory, as one compact `tokenizer.json`.
//!
//! Taken from `tokenizer.json`; else from `vocab.txt` (BERT) or `vocab.json` and `merges.txt`
//! (RoBERTa), built into what the fast tokenizer class of `transformers` makes of them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::text::Tokenizer;

/// Larger tokenizer files are refused unread.
const MAX_BYTES: u64 = 256 << 20;
/// `model_max_length` of this and more means "no limit": `transformers` writes 1e30.
const UNLIMITED: f64 = 1e6;

/// Which rules turn vocabulary files into a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// WordPiece, `vocab.txt`.
    Bert,
    /// Byte-level BPE, `vocab.json` and `merges.txt`.
    Roberta,
}

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
/// [`ErrorKind::Io`] for a file that cannot be read; [`ErrorKind::Tokenizer`], with the file and
/// the field, for one that is missing, malformed or over 256 MiB; [`ErrorKind::Unsupported`] for
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
        max_length: max_length(dir, &config)?,
        notes,
    })
}

/// `tokenizer_config.json` and the older files beside it.
struct Config {
    file: std::path::PathBuf,
    fields: Map<String, Value>,
    special: Map<String, Value>,
    /// Further tokens with their ids, in the order of the ids.
    added: Vec<(u32, Value)>,
}

impl Config {
    fn read(dir: &Path) -> Result<Self> {
        let file = dir.join("tokenizer_config.json");
        let fields = read_object(dir, "tokenizer_config.json")?.unwrap_or_default();
        let mut special = Map::new();
        let mut added = Vec::new();
        // Where the newer list is given, `transformers` does not look at the older files.
        match fields.get("added_tokens_decoder") {
            Some(Value::Object(tokens)) => {
                for (id, token) in tokens {
                    let field = format!("added_tokens_decoder.{id}");
                    let id: u32 = id
                        .parse()
                        .map_err(|_| wrong(&file, &field, "its key is not a token id"))?;
                    content(token).ok_or_else(|| wrong(&file, &field, "expected a token"))?;
                    added.push((id, token.clone()));
                }
            }
            Some(Value::Null) | None => {
                special = read_object(dir, "special_tokens_map.json")?.unwrap_or_default();
                let old = read_object(dir, "added_tokens.json")?.unwrap_or_default();
                for (token, id) in old {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    let id = id.ok_or_else(|| {
                        wrong(
                            &dir.join("added_tokens.json"),
                            &token,
                            "expected a token id",
                        )
                    })?;
                    added.push((id, Value::String(token)));
                }
            }
            Some(_) => return Err(wrong(&file, "added_tokens_decoder", "expected an object")),
        }
        added.sort_by_key(|(id, _)| *id);
        Ok(Self {
            file,
            fields,
            special,
            added,
        })
    }

    /// A boolean, `None` where absent or null.
    fn flag(&self, field: &str) -> Result<Option<bool>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong(&self.file, field, "expected true, false or null")),
        }
    }

    fn string(&self, field: &str) -> Result<Option<&str>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(_) => Err(wrong(&self.file, field, "expected a string or null")),
        }
    }

    /// The special token in the role `role` as an entry of `added_tokens`, without its id.
    fn token(&self, role: &str, default: &str) -> Result<Value> {
        let value = self.special.get(role).or_else(|| self.fields.get(role));
        let Some(value) = value.filter(|v| !v.is_null()) else {
            return Ok(entry(&json!(default), true));
        };
        match content(value) {
            Some(text) if !text.is_empty() => Ok(entry(value, true)),
            _ => Err(wrong(&self.file, role, "expected a token")),
        }
    }
}

/// An entry of `added_tokens` from `"[CLS]"` or from `{"content": "[CLS]", "lstrip": ...}`.
fn entry(token: &Value, special: bool) -> Value {
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    let special = special || flag("special").unwrap_or(false);
    json!({
        "content": content(token).unwrap_or_default(),
        "single_word": flag("single_word").unwrap_or(false),
        "lstrip": flag("lstrip").unwrap_or(false),
        "rstrip": flag("rstrip").unwrap_or(false),
        "normalized": flag("normalized").unwrap_or(!special),
        "special": special,
    })
}

fn content(token: &Value) -> Option<&str> {
    match token {
        Value::String(text) => Some(text),
        _ => token.get("content")?.as_str(),
    }
}

/// BERT's tokenizer from `vocab.txt`: one token a line, the line number is the id.
fn wordpiece(dir: &Path, config: &Config, notes: &mut Vec<String>) -> Result<Map<String, Value>> {
    let path = dir.join("vocab.txt");
    let text = read_text(&path)?.ok_or_else(|| missing(dir, "vocab.txt"))?;
    let mut vocab = Map::new();
    let mut repeated = 0;
    for (id, line) in text.lines().enumerate() {
        // A repeated token keeps its last line, as in `transformers`.
        repeated += usize::from(
            vocab
                .insert(line.trim_end().to_owned(), json!(id))
                .is_some(),
        );
    }
    if repeated > 0 {
        notes.push(format!(
            "vocab.txt repeats {repeated} tokens: their last lines count"
        ));
    }
    let unk = config.token("unk_token", "[UNK]")?;
    let sep = config.token("sep_token", "[SEP]")?;
    let pad = config.token("pad_token", "[PAD]")?;
    let cls = config.token("cls_token", "[CLS]")?;
    let mask = config.token("mask_token", "[MASK]")?;
    let id = |token: &Value| special_id(&path, &vocab, token);
    id(&unk)?;
    let special = |token: &Value, type_id: u32| json!({"SpecialToken": {"id": text_of(token), "type_id": type_id}});
    let part = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    let defined = |token: &Value| -> Result<Value> {
        Ok(json!({"id": text_of(token), "ids": [id(token)?], "tokens": [text_of(token)]}))
    };
    let mut tokens = Map::new();
    for token in [&cls, &sep] {
        tokens.insert(text_of(token).to_owned(), defined(token)?);
    }
    let post_processor = json!({
        "type": "TemplateProcessing",
        "single": [special(&cls, 0), part("A", 0), special(&sep, 0)],
        "pair": [
            special(&cls, 0), part("A", 0), special(&sep, 0),
            part("B", 1), special(&sep, 1),
        ],
        "special_tokens": tokens,
    });
    let normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": config.flag("tokenize_chinese_chars")?.unwrap_or(true),
        "strip_accents": config.flag("strip_accents")?,
        "lowercase": config.flag("do_lower_case")?.unwrap_or(true),
    });
    let unk_token = text_of(&unk).to_owned();
    let added = added_tokens(&path, &vocab, config, [unk, sep, pad, cls, mask])?;
    Ok(object([
        ("version", json!("1.0")),
        ("truncation", Value::Null),
        ("padding", Value::Null),
        ("added_tokens", added),
        ("normalizer", normalizer),
        ("pre_tokenizer", json!({"type": "BertPreTokenizer"})),
        ("post_processor", post_processor),
        (
            "decoder",
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        ),
        (
            "model",
            json!({
                "type": "WordPiece",
                "unk_token": unk_token,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": vocab,
            }),
        ),
    ]))
}

/// RoBERTa's tokenizer from `vocab.json` and `merges.txt`.
fn byte_level(dir: &Path, config: &Config) -> Result<Map<String, Value>> {
    let path = dir.join("vocab.json");
    let vocab = read_object(dir, "vocab.json")?.ok_or_else(|| missing(dir, "vocab.json"))?;
    let merges_path = dir.join("merges.txt");
    let text = read_text(&merges_path)?.ok_or_else(|| missing(dir, "merges.txt"))?;
    let mut merges = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        if line.split(' ').filter(|part| !part.is_empty()).count() != 2
            || line.split(' ').count() != 2
        {
            return Err(bad(format!("line {}: expected two tokens", i + 1)).in_file(&merges_path));
        }
        merges.push(json!(line));
    }
    let cls = config.token("cls_token", "<s>")?;
    let sep = config.token("sep_token", "</s>")?;
    let mut mask = config.token("mask_token", "<mask>")?;
    // Unless the configuration spells it out, the mask takes the space before it, as in every
    // published RoBERTa.
    let stated = config
        .special
        .get("mask_token")
        .or_else(|| config.fields.get("mask_token"));
    if !stated.is_some_and(Value::is_object) {
        mask["lstrip"] = json!(true);
    }
    let prefix = config.flag("add_prefix_space")?.unwrap_or(false);
    let trim = config.flag("trim_offsets")?.unwrap_or(true);
    let post_processor = json!({
        "type": "RobertaProcessing",
        "sep": [text_of(&sep), special_id(&path, &vocab, &sep)?],
        "cls": [text_of(&cls), special_id(&path, &vocab, &cls)?],
        "trim_offsets": trim,
        "add_prefix_space": prefix,
    });
    let special = [
        config.token("bos_token", "<s>")?,
        config.token("eos_token", "</s>")?,
        config.token("unk_token", "<unk>")?,
        sep,
        config.token("pad_token", "<pad>")?,
        cls,
        mask,
    ];
    let added = added_tokens(&path, &vocab, config, special)?;
    let step = |prefix: bool, trim: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": true,
        })
    };
    Ok(object([
        ("version", json!("1.0")),
        ("truncation", Value::Null),
        ("padding", Value::Null),
        ("added_tokens", added),
        ("normalizer", Value::Null),
        ("pre_tokenizer", step(prefix, true)),
        ("post_processor", post_processor),
        ("decoder", step(true, true)),
        (
            "model",
            json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": false,
                "vocab": vocab,
                "merges": merges,
            }),
        ),
    ]))
}

/// The `added_tokens` list: those the configuration numbers, then the special tokens.
///
/// Tokens outside the vocabulary are numbered from its end in this order.
fn added_tokens<const N: usize>(
    path: &Path,
    vocab: &Map<String, Value>,
    config: &Config,
    special: [Value; N],
) -> Result<Value> {
    let names: HashSet<&str> = special.iter().map(text_of).collect();
    let mut next = vocab.len() as u64;
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    let listed = config.added.iter().map(|(id, token)| {
        let name = content(token).unwrap_or_default();
        (Some(u64::from(*id)), entry(token, names.contains(name)))
    });
    for (stated, mut token) in listed.chain(special.iter().map(|t| (None, t.clone()))) {
        let name = text_of(&token).to_owned();
        if !seen.insert(name.clone()) {
            continue;
        }
        let id = match vocab.get(&name) {
            Some(id) => id
                .as_u64()
                .ok_or_else(|| wrong(path, &name, "expected a token id"))?,
            None => {
                next += 1;
                next - 1
            }
        };
        if let Some(stated) = stated.filter(|&s| s != id) {
            let what = format!("{name:?} is {id} here, and {stated} as an added token");
            return Err(bad(what).in_file(path));
        }
        token["id"] = json!(id);
        list.push(token);
    }
    Ok(Value::Array(list))
}

/// The id of a special token that is put round every text.
fn special_id(path: &Path, vocab: &Map<String, Value>, token: &Value) -> Result<u64> {
    let name = text_of(token);
    vocab
        .get(name)
        .and_then(Value::as_u64)
        .ok_or_else(|| bad(format!("no special token {name:?}")).in_file(path))
}

fn text_of(token: &Value) -> &str {
    content(token).unwrap_or_default()
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
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
fn max_length(dir: &Path, config: &Config) -> Result<Option<usize>> {
    let sentence = read_object(dir, "sentence_bert_config.json")?.unwrap_or_default();
    let limits = [
        length(&config.file, &config.fields, "model_max_length")?,
        length(
            &dir.join("sentence_bert_config.json"),
            &sentence,
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
            Some(n) if n >= 1.0 && n.fract() == 0.0 => Ok(Some(n as usize)),
            _ => Err(wrong(file, field, "expected a positive whole number")),
        },
    }
}

/// The object in a JSON file; `None` if there is no such file.
fn read_object(dir: &Path, name: &str) -> Result<Option<Map<String, Value>>> {
    let path = dir.join(name);
    let Some(bytes) = read(&path)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(bad("expected a JSON object").in_file(path)),
        Err(e) => Err(bad(format!("bad JSON: {e}")).in_file(path)),
    }
}

fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    String::from_utf8(bytes).map(Some).map_err(|e| {
        let at = e.utf8_error().valid_up_to() as u64;
        bad("not valid UTF-8").in_file(path).at(at)
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(bad(format!("over {} MiB", MAX_BYTES >> 20)).in_file(path));
    }
    Ok(Some(bytes))
}

fn missing(dir: &Path, name: &str) -> Error {
    bad(format!(
        "no tokenizer: neither tokenizer.json nor {name} is there"
    ))
    .in_file(dir)
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Tokenizer, message)
}

fn wrong(file: &Path, field: &str, what: &str) -> Error {
    bad(format!("{field}: {what}")).in_file(file)
}
