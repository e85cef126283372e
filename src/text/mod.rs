//! Text to token ids.
//!
//! A [`Tokenizer`] adds the model's special tokens, never pads, and cuts a text only when it is
//! told to: batches are ragged, so a pad would be work for nothing.

mod load;
#[cfg(test)]
mod tests;

use rayon::prelude::*;
use tokenizers::utils::truncation::{TruncationParams, truncate_encodings};
use tokenizers::{Encoding, PostProcessor};

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
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    max_id: u32,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`; its `truncation` and `padding` have no effect.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Tokenizer`] where the JSON is malformed or its parts contradict each other,
    /// [`ErrorKind::Unsupported`] where it uses a model or step that is not implemented.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self> {
        let load::Loaded { inner, max_id } = load::from_json(bytes)?;
        let vocab_size = inner.get_vocab_size(true);
        let mut tokenizer = Self {
            inner,
            vocab_size,
            max_id,
        };
        // The post-processor holds special ids of its own, which the vocabulary need not confirm.
        for pair in [None, Some(Encoding::default())] {
            let specials = tokenizer.finish(Encoding::default(), pair)?;
            let largest = specials.get_ids().iter().copied().max().unwrap_or(0);
            tokenizer.max_id = tokenizer.max_id.max(largest);
        }
        Ok(tokenizer)
    }

    /// The number of tokens, added tokens included.
    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The largest id that [`encode`](Self::encode) can yield.
    ///
    /// A model needs more rows of embeddings than this, which is more than
    /// [`vocab_size`](Self::vocab_size) where the ids have gaps.
    pub(crate) fn max_id(&self) -> u32 {
        self.max_id
    }

    /// How many special tokens are added to a text, or to a pair of texts.
    pub(crate) fn special_tokens(&self, pair: bool) -> usize {
        self.inner
            .get_post_processor()
            .map_or(0, |p| p.added_tokens(pair))
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
        let mut first = self.part(text)?;
        let mut second = pair.map(|text| self.part(text)).transpose()?;
        let length = first.len() + second.as_ref().map_or(0, Encoding::len);
        let original_tokens = length + specials;
        let truncated = original_tokens > limit;
        if truncated {
            if policy == Truncation::Error {
                return Err(Error::new(
                    ErrorKind::TooLong,
                    format!("the text has {original_tokens} tokens, the limit is {limit}"),
                ));
            }
            let params = TruncationParams {
                max_length: room,
                ..TruncationParams::default()
            };
            (first, second) = truncate_encodings(first, second, &params).map_err(internal)?;
            // The cut pieces are kept as "overflow", and a pair's would be combined with each
            // other: quadratic in the text's length.
            first.take_overflowing();
            if let Some(second) = &mut second {
                second.take_overflowing();
            }
        }
        if let Some(second) = &mut second {
            // Post-processors with types of their own overwrite these.
            second.set_type_ids(vec![1; second.len()]);
        }
        let done = self.finish(first, second)?;
        let tokens = done.len();
        if tokens != original_tokens.min(limit) {
            return Err(Error::new(
                ErrorKind::Tokenizer,
                "the tokenizer's post-processor drops or repeats a part of the text",
            ));
        }
        Ok(Encoded {
            ids: done.get_ids().to_vec(),
            type_ids: done.get_type_ids().to_vec(),
            tokens,
            original_tokens,
            truncated,
        })
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

    /// Tokens of one text, without special tokens.
    fn part(&self, text: &str) -> Result<Encoding> {
        self.inner.encode_fast(text, false).map_err(internal)
    }

    /// Adds the special tokens.
    fn finish(&self, first: Encoding, second: Option<Encoding>) -> Result<Encoding> {
        self.inner
            .post_process(first, second, true)
            .map_err(internal)
    }
}

/// The indices of `lengths` from the shortest to the longest; equal lengths keep their order.
pub(crate) fn by_length(lengths: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    order
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

fn internal(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::new(ErrorKind::Tokenizer, format!("tokenizing failed: {error}")).caused_by(error)
}
