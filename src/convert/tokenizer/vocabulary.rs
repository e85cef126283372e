//! Tokenizers from bare vocabulary files.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{Config, bad, content, entry, missing, read_object, read_text, wrong};
use crate::error::Result;

/// BERT's tokenizer from `vocab.txt`: one token a line, the line number is the id.
pub(super) fn wordpiece(
    dir: &Path,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<Map<String, Value>> {
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

/// fairseq's vocabulary: `dict.txt` has a token and its count in each line, in the order of their ids, which begin
/// behind four special tokens; tokens are the ids of GPT-2's `encoder.json`. `<mask>` comes last, as the
/// tasks for RoBERTa add it.
fn fairseq(dir: &Path) -> Result<Option<Map<String, Value>>> {
    let path = dir.join("dict.txt");
    let Some(text) = read_text(&path)? else {
        return Ok(None);
    };
    let encoder = read_object(dir, "encoder.json")?.ok_or_else(|| missing(dir, "encoder.json"))?;
    let tokens: HashMap<u64, &String> = (encoder.iter())
        .filter_map(|(token, id)| Some((id.as_u64()?, token)))
        .collect();
    let mut vocab = Map::new();
    let mut add = |token: String| {
        let id = vocab.len();
        vocab.insert(token, json!(id)).is_none()
    };
    for special in ["<s>", "<pad>", "</s>", "<unk>"] {
        add(special.to_owned());
    }
    for (number, line) in text.lines().enumerate() {
        let fail = |what: String| Err(bad(format!("line {}: {what}", number + 1)).in_file(&path));
        let (symbol, count) = line.rsplit_once(' ').unwrap_or_default();
        if symbol.is_empty() || count.parse::<u64>().is_err() {
            return fail("not a token and its count".to_owned());
        }
        let token = match symbol.parse() {
            Ok(id) => match tokens.get(&id) {
                Some(token) => (*token).clone(),
                None => return fail(format!("{id} is not an id of encoder.json")),
            },
            // `madeupword0000` and the like make the size a multiple of 8.
            Err(_) => symbol.to_owned(),
        };
        if !add(token) {
            return fail(format!("{symbol} is there twice"));
        }
    }
    add("<mask>".to_owned());
    Ok(Some(vocab))
}

/// RoBERTa's tokenizer from `vocab.json` and `merges.txt`, or from fairseq's `dict.txt` with GPT-2's
/// `encoder.json` and `vocab.bpe`.
pub(super) fn byte_level(dir: &Path, config: &Config) -> Result<Map<String, Value>> {
    let (names, vocab) = match read_object(dir, "vocab.json")? {
        Some(vocab) => (["vocab.json", "merges.txt"], vocab),
        None => match fairseq(dir)? {
            Some(vocab) => (["dict.txt", "vocab.bpe"], vocab),
            None => return Err(missing(dir, "vocab.json")),
        },
    };
    let [path, merges_path] = names.map(|name| dir.join(name));
    let text = read_text(&merges_path)?.ok_or_else(|| missing(dir, names[1]))?;
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
