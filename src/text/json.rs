//! A Hugging Face `tokenizer.json`: what it says, checked.
//!
//! The file comes from strangers. The `tokenizers` crate reads it with `serde` and then trusts it:
//! merges that spell no token, or templates that name an undefined special token, panic. It also
//! builds a tree of JSON values first, which takes longer than all the rest of opening a model.
//! So the bulk (vocabulary and merges) is read and checked here, and the small steps around it
//! are checked as JSON before anything is made of them.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::tables::MAX_IDS;
use crate::error::{Error, ErrorKind, Result};

/// How many times longer the replacements of a normalizer may make a text. Real ones replace a space
/// by a character of three bytes, once.
const GROWTH_LIMIT: usize = 4096;

const NORMALIZERS: &[&str] = &[
    "BertNormalizer",
    "Strip",
    "StripAccents",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Sequence",
    "Lowercase",
    "Nmt",
    "Replace",
    "Prepend",
    "ByteLevel",
];
const PRE_TOKENIZERS: &[&str] = &[
    "BertPreTokenizer",
    "ByteLevel",
    "CharDelimiterSplit",
    "Metaspace",
    "Whitespace",
    "Sequence",
    "Split",
    "Punctuation",
    "WhitespaceSplit",
    "Digits",
    "UnicodeScripts",
];
const POST_PROCESSORS: &[&str] = &[
    "RobertaProcessing",
    "BertProcessing",
    "ByteLevel",
    "TemplateProcessing",
    "Sequence",
];

/// A file whose parts fit together.
pub(super) struct Checked {
    pub(super) normalizer: Option<Value>,
    pub(super) pre_tokenizer: Option<Value>,
    pub(super) post_processor: Option<Value>,
    pub(super) added: Vec<Added>,
    pub(super) model: Model,
    /// The largest id of the vocabulary and the added tokens.
    pub(super) max_id: u32,
}

pub(super) type Vocab = HashMap<String, u32>;

pub(super) enum Model {
    WordPiece {
        vocab: Vocab,
        unknown: String,
        prefix: String,
        max_chars: usize,
    },
    Bpe {
        vocab: Vocab,
        merges: Vec<(String, String)>,
        unknown: Option<String>,
        prefix: Option<String>,
        suffix: Option<String>,
        fuse_unknown: bool,
        byte_fallback: bool,
        ignore_merges: bool,
    },
}

#[derive(serde::Deserialize)]
struct File {
    version: Option<String>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: RawModel,
}

#[derive(serde::Deserialize)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    pub(super) normalized: Option<bool>,
    #[serde(default)]
    pub(super) special: bool,
}

impl Added {
    pub(super) fn normalized(&self) -> bool {
        self.normalized.unwrap_or(!self.special)
    }
}

/// The fields of both models; those of the other one are absent.
#[derive(serde::Deserialize)]
struct RawModel {
    r#type: Option<String>,
    vocab: Pairs,
    merges: Option<Vec<Merge>>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    dropout: Option<f32>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Checked> {
    let file: File =
        serde_json::from_slice(bytes).map_err(|e| bad(format!("not a tokenizer.json: {e}")))?;
    if let Some(version) = file.version.filter(|v| v != "1.0") {
        return Err(unsupported(format!("version {version:?} (1.0 is known)")));
    }
    let (model, mut max_id) = file.model.check()?;
    if let Some(step) = &file.normalizer {
        check_step(step, "normalizer", "normalizers", NORMALIZERS)?;
    }
    if let Some(step) = &file.pre_tokenizer {
        check_step(step, "pre_tokenizer", "pretokenizers", PRE_TOKENIZERS)?;
    }
    if let Some(step) = &file.post_processor {
        check_step(step, "post_processor", "processors", POST_PROCESSORS)?;
        // A second template would be given what the first one has made, which the crate cannot do.
        if templates(step) > 1 {
            return Err(unsupported(
                "post_processor: more than one TemplateProcessing".into(),
            ));
        }
    }

    // Added tokens outside the vocabulary are numbered by position; the stated id is not used.
    let mut new: HashMap<&str, u32> = HashMap::new();
    let mut next = model.vocab().len() as u32;
    for (i, added) in file.added_tokens.iter().enumerate() {
        if added.content.is_empty() {
            return Err(bad(format!(
                "tokenizer.json: added_tokens[{i}]: empty content"
            )));
        }
        let id = match model.vocab().get(&added.content) {
            Some(&id) => id,
            None => *new.entry(&added.content).or_insert_with(|| {
                next += 1;
                next - 1
            }),
        };
        if id != added.id {
            return Err(bad(format!(
                "tokenizer.json: added token {:?} states id {} but gets {id}",
                added.content, added.id
            )));
        }
        max_id = max_id.max(id);
    }
    Ok(Checked {
        normalizer: file.normalizer,
        pre_tokenizer: file.pre_tokenizer,
        post_processor: file.post_processor,
        added: file.added_tokens,
        model,
        max_id,
    })
}

impl Model {
    pub(super) fn vocab(&self) -> &Vocab {
        match self {
            Self::WordPiece { vocab, .. } | Self::Bpe { vocab, .. } => vocab,
        }
    }
}

impl RawModel {
    fn check(self) -> Result<(Model, u32)> {
        let kind = match &self.r#type {
            Some(kind) => kind.as_str(),
            // Files of 2019 and 2020 name no type.
            None if self.merges.is_some() => "BPE",
            None => "WordPiece",
        };
        if !matches!(kind, "BPE" | "WordPiece") {
            return Err(unsupported(format!(
                "model type {kind:?} (BPE and WordPiece are known)"
            )));
        }
        let Some(pairs) = self.vocab.0 else {
            return Err(bad(
                "tokenizer.json: model.vocab: expected an object of token to id",
            ));
        };
        let Some(max_id) = pairs.iter().map(|(_, id)| *id).max() else {
            return Err(bad("tokenizer.json: model.vocab: no tokens"));
        };
        // Added tokens count up from the largest one.
        if max_id >= MAX_IDS {
            return Err(bad(format!(
                "tokenizer.json: model.vocab: id {max_id} is too large"
            )));
        }
        let vocab: Vocab = pairs.into_iter().collect();
        let prefix = self.continuing_subword_prefix;
        if kind == "WordPiece" {
            let unknown = self.unk_token.unwrap_or_else(|| "[UNK]".to_owned());
            if !vocab.contains_key(&unknown) {
                return Err(bad(format!(
                    "tokenizer.json: model.unk_token: {unknown:?} is not in model.vocab"
                )));
            }
            let model = Model::WordPiece {
                vocab,
                unknown,
                prefix: prefix.unwrap_or_else(|| "##".to_owned()),
                max_chars: self.max_input_chars_per_word.unwrap_or(100),
            };
            return Ok((model, max_id));
        }

        if self.dropout.is_some_and(|p| p != 0.0) {
            return Err(bad(
                "tokenizer.json: model.dropout: makes ids random, must be null",
            ));
        }
        if let Some(unk) = self.unk_token.as_ref().filter(|u| !vocab.contains_key(*u)) {
            return Err(bad(format!(
                "tokenizer.json: model.unk_token: {unk:?} is not in model.vocab"
            )));
        }
        let Some(merges) = self.merges else {
            return Err(bad("tokenizer.json: model.merges: missing"));
        };
        let merges: Vec<_> = merges.into_iter().map(|m| m.0).collect();
        check_merges(&vocab, &merges, prefix.as_deref().unwrap_or(""))?;
        let model = Model::Bpe {
            vocab,
            merges,
            unknown: self.unk_token,
            prefix,
            suffix: self.end_of_word_suffix,
            fuse_unknown: self.fuse_unk.unwrap_or(false),
            byte_fallback: self.byte_fallback.unwrap_or(false),
            ignore_merges: self.ignore_merges.unwrap_or(false),
        };
        Ok((model, max_id))
    }
}

/// Every merge must join two tokens into a third: what reads them later relies on it.
fn check_merges(vocab: &Vocab, merges: &[(String, String)], prefix: &str) -> Result<()> {
    let mut joined = String::new();
    for (i, (a, b)) in merges.iter().enumerate() {
        let fail = |what: &str| {
            Err(bad(format!(
                "tokenizer.json: model.merges[{i}]: {a:?} + {b:?}: {what}"
            )))
        };
        let Some(tail) = b.strip_prefix(prefix) else {
            return fail("the second part lacks the subword prefix");
        };
        joined.clear();
        joined.push_str(a);
        joined.push_str(tail);
        if ![a, b, &joined].into_iter().all(|t| vocab.contains_key(t)) {
            return fail("a part or the result is not in model.vocab");
        }
    }
    Ok(())
}

/// Checks that a step and those nested in it are of the `known` types, and templates complete.
fn check_step(step: &Value, field: &str, nested: &str, known: &[&str]) -> Result<()> {
    let Some(kind) = step.get("type").and_then(Value::as_str) else {
        return Err(bad(format!(
            "tokenizer.json: {field}: expected an object with a type"
        )));
    };
    if !known.contains(&kind) {
        return Err(unsupported(format!("{field} type {kind:?}")));
    }
    if kind == "TemplateProcessing" {
        check_template(step, field)?;
    }
    if kind == "Sequence" {
        let steps = step.get(nested).and_then(Value::as_array);
        let Some(steps) = steps else {
            return Err(bad(format!(
                "tokenizer.json: {field}.{nested}: expected a list"
            )));
        };
        for step in steps {
            check_step(step, field, nested, known)?;
        }
        // Each step may lengthen what the one before it made.
        let growth = steps.iter().map(growth).fold(1, usize::saturating_mul);
        if growth > GROWTH_LIMIT {
            return Err(unsupported(format!(
                "{field}: a sequence of replacements that lengthens a text up to {growth} times"
            )));
        }
    }
    Ok(())
}

/// How many templates a post-processor has, nested ones included.
fn templates(step: &Value) -> usize {
    match step.get("type").and_then(Value::as_str) {
        Some("TemplateProcessing") => 1,
        Some("Sequence") => (step.get("processors").and_then(Value::as_array))
            .map_or(0, |steps| steps.iter().map(templates).sum()),
        _ => 0,
    }
}

/// How many times longer a normalizer may make a text: a replacement stands for each of its
/// characters, and before each of them where the pattern matches nothing.
fn growth(step: &Value) -> usize {
    match step.get("type").and_then(Value::as_str) {
        Some("Replace") => step
            .get("content")
            .and_then(Value::as_str)
            .map_or(1, |content| content.len() + 1),
        Some("Sequence") => (step.get("normalizers").and_then(Value::as_array))
            .map_or(1, |steps| {
                steps.iter().map(growth).fold(1, usize::saturating_mul)
            }),
        _ => 1,
    }
}

/// Every special token that a template names must be defined, and every text stand in it once:
/// one left out would be dropped without a word.
fn check_template(step: &Value, field: &str) -> Result<()> {
    for (template, texts) in [("single", &["A"][..]), ("pair", &["A", "B"][..])] {
        let pieces = step.get(template).and_then(Value::as_array);
        let Some(pieces) = pieces else {
            return Err(bad(format!(
                "tokenizer.json: {field}.{template}: expected a list"
            )));
        };
        let mut found = Vec::new();
        for piece in pieces {
            if let Some(text) = piece.get("Sequence") {
                found.push(text.get("id").and_then(Value::as_str).unwrap_or(""));
            }
            let Some(token) = piece.get("SpecialToken") else {
                continue;
            };
            let id = token.get("id").and_then(Value::as_str).unwrap_or("");
            let defined = step.get("special_tokens").and_then(|t| t.get(id));
            let count = |list| defined.and_then(|d| d.get(list)?.as_array()).map(Vec::len);
            if count("ids").is_none() || count("ids") != count("tokens") {
                return Err(bad(format!(
                    "tokenizer.json: {field}.special_tokens: {id:?} is not well defined"
                )));
            }
        }
        found.sort_unstable();
        if found != texts {
            return Err(bad(format!(
                "tokenizer.json: {field}.{template}: must hold {} once each",
                texts.join(" and ")
            )));
        }
    }
    Ok(())
}

pub(super) fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Tokenizer, message)
}

pub(super) fn unsupported(what: String) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("tokenizer.json: {what} is not supported"),
    )
}

/// `{token: id}`; `None` for a list, which is how a Unigram model writes its vocabulary.
struct Pairs(Option<Vec<(String, u32)>>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token to id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    pairs.push(entry);
                }
                Ok(Pairs(Some(pairs)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pairs, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Pairs(None))
            }
        }
        deserializer.deserialize_any(PairsVisitor)
    }
}

/// `"a b"` or `["a", "b"]`.
struct Merge((String, String));

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two tokens")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                match text.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok(Merge((a.to_owned(), b.to_owned()))),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                match (seq.next_element()?, seq.next_element()?) {
                    (Some(a), Some(b)) if seq.next_element::<IgnoredAny>()?.is_none() => {
                        Ok(Merge((a, b)))
                    }
                    _ => Err(A::Error::custom("a merge must have two tokens")),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}
