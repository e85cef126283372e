//! From a `tokenizer.json` to tokenizer tables, where these can say what it says.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::json::{Added, Checked, Model, Vocab};
use super::tables::{
    self, AddedToken, CLEAN_TEXT, FUSE_UNKNOWN, LEFT_SPACE, LOWERCASE, NONE, PREFIX_SPACE,
    RIGHT_SPACE, SINGLE_WORD, SPLIT_HAN, SPLIT_WORDS, STRIP_ACCENTS, Spec, TEXTS,
};

type Template = Vec<[u32; 2]>;

/// The bytes of a tables section.
///
/// # Errors
/// What the tables cannot express, in a few words.
pub(super) fn compile(file: &Checked) -> Result<Vec<u8>, String> {
    let (single, pair) = templates(file.post_processor.as_ref())?;
    let vocab = file.model.vocab();
    let mut seen = HashSet::with_capacity(vocab.len());
    if !vocab.values().all(|id| seen.insert(id)) {
        return Err("two tokens of the vocabulary have the same id".to_owned());
    }
    let of_templates = single.iter().chain(&pair).map(|piece| piece[0]);
    let largest = of_templates.filter(|id| !TEXTS.contains(id)).max();
    let (flags, unknown, model) = match &file.model {
        Model::WordPiece { unknown, .. } => {
            let flags = bert_flags(file)?;
            (flags, Some(vocab[unknown]), wordpiece(&file.model)?)
        }
        Model::Bpe {
            unknown,
            fuse_unknown,
            ..
        } => {
            let unknown = unknown.as_ref().map(|unknown| vocab[unknown]);
            let fuse = match *fuse_unknown && unknown.is_some() {
                true => FUSE_UNKNOWN,
                false => 0,
            };
            (
                byte_level_flags(file)? | fuse,
                unknown,
                byte_level(&file.model)?,
            )
        }
    };
    let spec = Spec {
        flags,
        id_limit: file.max_id.max(largest.unwrap_or(0)).saturating_add(1),
        unknown,
        single,
        pair,
        added: added(&file.added)?,
        model,
    };
    tables::build(spec).map_err(|e| e.message().to_owned())
}

fn added(tokens: &[Added]) -> Result<Vec<AddedToken>, String> {
    // The later of two tokens of one id, or of one content, would take the place of the other.
    let mut ids = HashSet::new();
    if let Some(token) = tokens.iter().find(|token| !ids.insert(token.id)) {
        return Err(format!(
            "the added token {:?} is there twice",
            token.content
        ));
    }
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    Ok(tokens
        .iter()
        .map(|token| AddedToken {
            content: token.content.clone(),
            id: token.id,
            flags: flag(token.single_word, SINGLE_WORD)
                | flag(token.lstrip, LEFT_SPACE)
                | flag(token.rstrip, RIGHT_SPACE),
            normalized: token.normalized(),
        })
        .collect())
}

fn kind(step: Option<&Value>) -> Option<&str> {
    step?.get("type")?.as_str()
}

fn flag(step: &Value, field: &str) -> Option<bool> {
    step.get(field)?.as_bool()
}

fn bert_flags(file: &Checked) -> Result<u32, String> {
    if kind(file.pre_tokenizer.as_ref()) != Some("BertPreTokenizer") {
        return Err("WordPiece without BERT's pre-tokenizer".to_owned());
    }
    let Some(step) = &file.normalizer else {
        return Ok(0);
    };
    let flags = (kind(Some(step)) == Some("BertNormalizer")).then(|| {
        let lowercase = flag(step, "lowercase")?;
        let accents = match step.get("strip_accents") {
            None | Some(Value::Null) => lowercase,
            Some(value) => value.as_bool()?,
        };
        let set = [
            (flag(step, "clean_text")?, CLEAN_TEXT),
            (flag(step, "handle_chinese_chars")?, SPLIT_HAN),
            (accents, STRIP_ACCENTS),
            (lowercase, LOWERCASE),
        ];
        Some(
            set.iter()
                .filter(|(set, _)| *set)
                .map(|(_, flag)| flag)
                .sum(),
        )
    });
    flags
        .flatten()
        .ok_or_else(|| "WordPiece with a normalizer that is not BERT's".to_owned())
}

fn byte_level_flags(file: &Checked) -> Result<u32, String> {
    if file.normalizer.is_some() {
        return Err("BPE with a normalizer".to_owned());
    }
    let step = file.pre_tokenizer.as_ref();
    let flags = step
        .filter(|_| kind(step) == Some("ByteLevel"))
        .and_then(|step| {
            let words = match step.get("use_regex") {
                None => true,
                Some(value) => value.as_bool()?,
            };
            // Has no effect on ids; without it the file is not one that the crate reads.
            flag(step, "trim_offsets")?;
            let prefix = flag(step, "add_prefix_space")?;
            let words = if words { SPLIT_WORDS } else { 0 };
            Some(words | if prefix { PREFIX_SPACE } else { 0 })
        });
    flags.ok_or_else(|| "BPE without the byte-level pre-tokenizer".to_owned())
}

fn wordpiece(model: &Model) -> Result<tables::Model, String> {
    let Model::WordPiece {
        vocab,
        prefix,
        max_chars,
        ..
    } = model
    else {
        return Err("not WordPiece".to_owned());
    };
    Ok(tables::Model::WordPiece {
        prefix: prefix.clone(),
        max_chars: u32::try_from(*max_chars).unwrap_or(u32::MAX),
        // No part of a word is empty.
        tokens: (vocab.iter())
            .filter(|(token, _)| !token.is_empty())
            .map(|(token, &id)| (token.clone(), id))
            .collect(),
    })
}

fn byte_level(model: &Model) -> Result<tables::Model, String> {
    let Model::Bpe {
        vocab,
        merges,
        prefix,
        suffix,
        byte_fallback: false,
        ignore_merges: false,
        ..
    } = model
    else {
        return Err("BPE with byte_fallback or ignore_merges".to_owned());
    };
    if [prefix, suffix]
        .into_iter()
        .flatten()
        .any(|affix| !affix.is_empty())
    {
        return Err("BPE with a subword prefix or suffix".to_owned());
    }
    let mut buffer = [0; 4];
    let bytes = byte_symbols_by_byte().map(|symbol| {
        let token: &str = symbol.encode_utf8(&mut buffer);
        vocab.get(token).copied().unwrap_or(NONE)
    });
    Ok(tables::Model::ByteLevel {
        bytes: Box::new(bytes),
        merges: ranked(vocab, merges)?,
    })
}

/// Merges in the order of their ranks. The last of those that join the same pair counts.
fn ranked(vocab: &Vocab, merges: &[(String, String)]) -> Result<Vec<[u32; 3]>, String> {
    let mut pairs: HashMap<[u32; 2], (usize, u32)> = HashMap::with_capacity(merges.len());
    let mut joined = String::new();
    for (rank, (a, b)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(a);
        joined.push_str(b);
        let [a, b, result] = [a, b, &joined].map(|token| vocab.get(token).copied());
        let (Some(a), Some(b), Some(result)) = (a, b, result) else {
            return Err("a merge outside the vocabulary".to_owned());
        };
        pairs.insert([a, b], (rank, result));
    }
    let mut ranked: Vec<_> = pairs.into_iter().collect();
    ranked.sort_unstable_by_key(|(_, (rank, _))| *rank);
    Ok(ranked
        .into_iter()
        .map(|([a, b], (_, result))| [a, b, result])
        .collect())
}

/// The character that stands for each byte in a byte-level vocabulary: printable bytes are
/// themselves, the others count up from U+0100.
fn byte_symbols_by_byte() -> [char; 256] {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => others.next().unwrap_or_default(),
    })
}

/// What one text, and what a pair of texts becomes.
fn templates(step: Option<&Value>) -> Result<(Template, Template), String> {
    let [a, b] = TEXTS;
    let plain = || (vec![[a, 0]], vec![[a, 0], [b, 1]]);
    let Some(step) = step else {
        return Ok(plain());
    };
    let id = |field: &str| u32::try_from(step.get(field)?.get(1)?.as_u64()?).ok();
    let specials = || Some((id("cls")?, id("sep")?));
    let templates = match kind(Some(step)) {
        Some("ByteLevel") => Some(plain()),
        Some("BertProcessing") => specials().map(|(cls, sep)| {
            let single = vec![[cls, 0], [a, 0], [sep, 0]];
            let pair = [&single[..], &[[b, 1], [sep, 1]]].concat();
            (single, pair)
        }),
        Some("RobertaProcessing") => specials().map(|(cls, sep)| {
            let single = vec![[cls, 0], [a, 0], [sep, 0]];
            let pair = [&single[..], &[[sep, 0], [b, 0], [sep, 0]]].concat();
            (single, pair)
        }),
        Some("TemplateProcessing") => {
            let template = |name| pieces(step.get(name)?, step.get("special_tokens")?);
            template("single").zip(template("pair"))
        }
        Some("Sequence") => {
            // The byte-level step moves offsets, which nobody asks for.
            let steps = step.get("processors").and_then(Value::as_array);
            let mut steps = steps.into_iter().flatten();
            let mut acting = steps
                .by_ref()
                .filter(|step| kind(Some(step)) != Some("ByteLevel"));
            return match (acting.next(), acting.next()) {
                (None, _) => Ok(plain()),
                (Some(step), None) => templates(Some(step)),
                _ => Err("a sequence of post-processors".to_owned()),
            };
        }
        _ => None,
    };
    templates.ok_or_else(|| "a post-processor of an unknown form".to_owned())
}

/// The pieces of one template of `TemplateProcessing`.
fn pieces(template: &Value, specials: &Value) -> Option<Template> {
    let mut pieces = Vec::new();
    for piece in template.as_array()? {
        let (name, fields) = piece.as_object()?.iter().next()?;
        let (id, kind) = (
            fields.get("id")?.as_str()?,
            fields.get("type_id")?.as_u64()?,
        );
        let kind = u32::try_from(kind).ok()?;
        match (name.as_str(), id) {
            ("Sequence", "A") => pieces.push([TEXTS[0], kind]),
            ("Sequence", "B") => pieces.push([TEXTS[1], kind]),
            ("SpecialToken", _) => {
                for id in specials.get(id)?.get("ids")?.as_array()? {
                    let id = u32::try_from(id.as_u64()?).ok()?;
                    // Those that mean a text here are no ids.
                    pieces.push([Some(id).filter(|id| !TEXTS.contains(id))?, kind]);
                }
            }
            _ => return None,
        }
    }
    Some(pieces)
}
