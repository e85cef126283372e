//! Text to token ids.
//!
//! A [`Tokenizer`] adds the model's special tokens, never pads, and cuts a text only when it is
//! told to: batches are ragged, so a pad would be work for nothing.

mod compile;
#[cfg(feature = "tokenizers")]
mod foreign;
mod json;
#[cfg(all(test, feature = "convert"))]
mod parity;
mod tables;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use rayon::prelude::*;

#[cfg(feature = "tokenizers")]
use self::foreign::Foreign;
use self::tables::{TEXTS, Tables};
use crate::artifact::{Bytes, StoredTokenizer};
use crate::error::{Error, ErrorKind, Result};

/// What to do with a text that has more tokens than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Truncation {
    /// Refuse the text with an error of kind [`ErrorKind::TooLong`] that gives both counts.
    #[default]
    Error,
    /// Drop tokens from the end of the text and keep the special tokens.
    ///
    /// Of a pair, the longer text is cut first; where both must be cut, each gets half the room.
    /// The ids equal those of `transformers` with `truncation=True, max_length=limit`.
    Truncate,
}

/// A tokenized text, or pair of texts, with its special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// Token ids, `[tokens]`.
    pub(crate) ids: Vec<u32>,
    /// Token types, `[tokens]`: in BERT 1 for the second text of a pair, otherwise 0.
    pub(crate) type_ids: Vec<u32>,
    /// How many tokens there are, after truncation.
    pub(crate) tokens: usize,
    /// How many tokens there were before truncation, special tokens included.
    pub(crate) original_tokens: usize,
    /// Whether tokens were dropped.
    pub(crate) truncated: bool,
}

/// A tokenizer, `Send + Sync`: any number of threads may encode with `&self`.
///
/// Special tokens spelled out in a text (`[SEP]`, `</s>`) become the special token itself, as they
/// do by default in `transformers`.
pub(crate) struct Tokenizer {
    kind: Kind,
    max_id: u32,
}

enum Kind {
    Tables(Box<Tables>),
    #[cfg(feature = "tokenizers")]
    Foreign(Box<Foreign>),
}

thread_local! {
    /// Tokens of the first and the second text: memory that is used again for the next ones.
    static PARTS: Cell<[Vec<u32>; 2]> = Cell::default();
}

/// Tokens of a text that memory is kept for.
const KEPT_TOKENS: usize = 1 << 16;

impl Tokenizer {
    /// The tokenizer of an artifact.
    ///
    /// # Errors
    ///
    /// Those of [`from_tables`](Self::from_tables) and [`from_json`](Self::from_json).
    pub(crate) fn from_stored(stored: &StoredTokenizer) -> Result<Self> {
        match stored {
            StoredTokenizer::Tables(bytes) => Self::from_tables(bytes.clone()),
            StoredTokenizer::Json(bytes) => Self::from_json(bytes),
        }
    }

    /// Takes tokenizer tables as they lie in an artifact.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Format`] where they break a rule of the format.
    pub(crate) fn from_tables(bytes: Bytes) -> Result<Self> {
        let tables = Tables::new(bytes)?;
        Ok(Self {
            max_id: tables.max_id(),
            kind: Kind::Tables(Box::new(tables)),
        })
    }

    /// Reads a Hugging Face `tokenizer.json`; its `truncation` and `padding` have no effect.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Tokenizer`] where the JSON is malformed or its parts contradict each other,
    /// [`ErrorKind::Unsupported`] where it uses a model or step that is not implemented.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self> {
        let file = json::read(bytes)?;
        match compile::compile(&file) {
            Ok(section) => Self::from_tables(Bytes::copy(&section)?),
            #[cfg(feature = "tokenizers")]
            Err(_) => Self::foreign(file),
            #[cfg(not(feature = "tokenizers"))]
            Err(reason) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("tokenizer.json: {reason}, which takes the crate's feature \"tokenizers\""),
            )),
        }
    }

    /// The tables that say what a `tokenizer.json` says, or what they cannot express.
    ///
    /// # Errors
    ///
    /// Those of [`from_json`](Self::from_json).
    #[cfg(feature = "convert")]
    pub(crate) fn tables(json: &[u8]) -> Result<Result<Vec<u8>, String>> {
        Ok(compile::compile(&json::read(json)?))
    }

    /// [`from_json`](Self::from_json) by the `tokenizers` crate alone, to compare with.
    ///
    /// # Errors
    ///
    /// Those of `from_json`.
    #[cfg(feature = "convert")]
    pub(crate) fn reference(json: &[u8]) -> Result<Self> {
        Self::foreign(json::read(json)?)
    }

    /// What added tokens match, where the `tokenizers` crate is at work.
    #[cfg(feature = "convert")]
    pub(crate) fn added_tokens(&self) -> Vec<String> {
        match &self.kind {
            Kind::Tables(_) => Vec::new(),
            Kind::Foreign(foreign) => foreign.added_tokens(),
        }
    }

    /// Has the `tokenizers` crate do the work.
    #[cfg(feature = "tokenizers")]
    fn foreign(file: json::Checked) -> Result<Self> {
        let max_id = file.max_id;
        let foreign = Foreign::new(file)?;
        Ok(Self {
            max_id: max_id.max(foreign.max_special()?),
            kind: Kind::Foreign(Box::new(foreign)),
        })
    }

    /// The largest id that [`encode`](Self::encode) can yield.
    ///
    /// A model needs more rows of embeddings than this, which can be more than the number of tokens:
    /// ids may have gaps.
    pub(crate) fn max_id(&self) -> u32 {
        self.max_id
    }

    /// How many special tokens are added to a text, or to a pair of texts.
    pub(crate) fn special_tokens(&self, pair: bool) -> usize {
        match &self.kind {
            Kind::Tables(tables) => tables.template(pair).len() - 1 - usize::from(pair),
            #[cfg(feature = "tokenizers")]
            Kind::Foreign(foreign) => foreign.special_tokens(pair),
        }
    }

    /// Tokenizes `text`, or `text` and `pair`, to at most `limit` tokens, special tokens included.
    ///
    /// An empty text yields the special tokens alone, and an empty `pair` is still a pair.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLong`] for a longer text under [`Truncation::Error`], and
    /// [`ErrorKind::Config`] if `limit` does not even hold the special tokens.
    pub(crate) fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        limit: usize,
        policy: Truncation,
    ) -> Result<Encoded> {
        let specials = self.special_tokens(pair.is_some());
        let Some(room) = limit.checked_sub(specials) else {
            return Err(Error::new(
                ErrorKind::Config,
                format!("a limit of {limit} tokens does not hold the {specials} special tokens"),
            ));
        };
        match &self.kind {
            Kind::Tables(tables) => {
                let mut parts = PARTS.take();
                parts.iter_mut().for_each(Vec::clear);
                tables.encode(text, &mut parts[0]);
                if let Some(pair) = pair {
                    tables.encode(pair, &mut parts[1]);
                }
                let encoded = lengths(parts.each_ref().map(Vec::len), room, limit, policy)
                    .map(|lengths| framed(tables.template(pair.is_some()), &parts, lengths));
                if parts.iter().all(|part| part.capacity() <= KEPT_TOKENS) {
                    PARTS.set(parts);
                }
                encoded
            }
            #[cfg(feature = "tokenizers")]
            Kind::Foreign(foreign) => {
                let mut first = foreign.part(text)?;
                let mut second = pair.map(|text| foreign.part(text)).transpose()?;
                let counts = [
                    first.len(),
                    second.as_ref().map_or(0, |second| second.len()),
                ];
                let lengths = lengths(counts, room, limit, policy)?;
                if lengths.truncated {
                    (first, second) = Foreign::cut(first, second, room)?;
                }
                let done = foreign.finish(first, second)?;
                if done.len() != lengths.original.min(limit) {
                    return Err(Error::new(
                        ErrorKind::Tokenizer,
                        "the tokenizer's post-processor drops or repeats a part of the text",
                    ));
                }
                Ok(Encoded {
                    tokens: done.len(),
                    ids: done.get_ids().to_vec(),
                    type_ids: done.get_type_ids().to_vec(),
                    original_tokens: lengths.original,
                    truncated: lengths.truncated,
                })
            }
        }
    }

    /// [`encode`](Self::encode)s every text, in the order given.
    ///
    /// Inside a rayon pool the work is shared among its threads; elsewhere it stays on the calling
    /// thread, so that nobody's global pool is started.
    ///
    /// # Errors
    ///
    /// Those of `encode` for the first text that fails, with its index (from 0).
    pub(crate) fn encode_batch<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        limit: usize,
        policy: Truncation,
    ) -> Result<Vec<Encoded>> {
        in_order(texts, |text| {
            self.encode(text.as_ref(), None, limit, policy)
        })
    }

    /// [`encode_batch`](Self::encode_batch) for pairs of texts.
    ///
    /// # Errors
    ///
    /// Those of `encode_batch`.
    pub(crate) fn encode_pairs<S: AsRef<str> + Sync>(
        &self,
        pairs: &[(S, S)],
        limit: usize,
        policy: Truncation,
    ) -> Result<Vec<Encoded>> {
        in_order(pairs, |(a, b)| {
            self.encode(a.as_ref(), Some(b.as_ref()), limit, policy)
        })
    }
}

/// What truncation makes of two texts.
struct Lengths {
    kept: [usize; 2],
    /// Tokens before, special ones included.
    original: usize,
    truncated: bool,
}

/// How many tokens of each text stay, in `room` without and `limit` with special tokens.
fn lengths(counts: [usize; 2], room: usize, limit: usize, policy: Truncation) -> Result<Lengths> {
    let original = counts[0] + counts[1] + (limit - room);
    let truncated = original > limit;
    if truncated && policy == Truncation::Error {
        return Err(Error::new(
            ErrorKind::TooLong,
            format!("the text has {original} tokens, the limit is {limit}"),
        ));
    }
    Ok(Lengths {
        kept: if truncated { cut(counts, room) } else { counts },
        original,
        truncated,
    })
}

/// The longer text is cut first; where both must be cut, each gets half the room.
fn cut(counts: [usize; 2], room: usize) -> [usize; 2] {
    let [short, long] = [counts[0].min(counts[1]), counts[0].max(counts[1])];
    let (short, long) = match short <= room / 2 {
        true => (short, long.min(room - short)),
        false => (room / 2, room - room / 2),
    };
    match counts[0] > counts[1] {
        true => [long, short],
        false => [short, long],
    }
}

/// The tokens of the texts, cut, with the special tokens around them.
fn framed(template: &[[u32; 2]], parts: &[Vec<u32>; 2], lengths: Lengths) -> Encoded {
    let tokens = lengths.kept.iter().sum::<usize>() + template.len();
    let (mut ids, mut type_ids) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
    for &[id, kind] in template {
        match TEXTS.iter().position(|&text| text == id) {
            Some(text) => ids.extend_from_slice(&parts[text][..lengths.kept[text]]),
            None => ids.push(id),
        }
        type_ids.resize(ids.len(), kind);
    }
    Encoded {
        tokens: ids.len(),
        ids,
        type_ids,
        original_tokens: lengths.original,
        truncated: lengths.truncated,
    }
}

fn in_order<T: Sync>(
    items: &[T],
    encode: impl Fn(&T) -> Result<Encoded> + Sync + Send,
) -> Result<Vec<Encoded>> {
    // Collecting straight into a `Result` would report whichever failure came first in time.
    let results: Vec<Result<Encoded>> = if rayon::current_thread_index().is_some() {
        items.par_iter().map(encode).collect()
    } else {
        items.iter().map(encode).collect()
    };
    results
        .into_iter()
        .enumerate()
        .map(|(i, result)| named(i, result))
        .collect()
}

/// Says which text of a batch an error is about.
fn named(index: usize, result: Result<Encoded>) -> Result<Encoded> {
    result.map_err(|error| error.in_text(index))
}
