//! What both pipelines of texts share: tokenizer, encoder, and batches of alike lengths.

use std::cmp::Reverse;

use super::{Machine, Options};
use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::Encoder;
use crate::nn::Context;
use crate::text::{Encoded, Tokenizer, Truncation};

/// Tokens of one forward pass, as far as texts can be told apart: this bounds the memory of a
/// large batch (RoBERTa-base needs 21 kB a token) and is beyond where larger is faster.
const TOKENS_AT_ONCE: usize = 512;
/// Nanoseconds that a text of some twenty words takes to tokenize: an estimate.
const TOKENIZING: u64 = 20_000;

/// Tokenizer, encoder and threads.
pub(crate) struct TextModel {
    pub(super) artifact: Artifact,
    pub(super) encoder: Encoder,
    tokenizer: Tokenizer,
    pub(super) machine: Machine,
    pub(super) limit: usize,
    truncation: Truncation,
}

impl TextModel {
    pub(crate) fn new(artifact: Artifact, options: Options) -> Result<Self> {
        let machine = Machine::new(&options)?;
        let encoder = Encoder::load(&artifact)?;
        let stored = artifact
            .tokenizer()
            .ok_or_else(|| artifact.locate(Error::format("the tokenizer is missing")))?;
        let tokenizer = Tokenizer::from_stored(stored).map_err(|e| artifact.locate(e))?;
        if tokenizer.max_id() as usize >= encoder.config.vocab_size {
            return Err(artifact.locate(Error::format(format!(
                "the tokenizer gives ids up to {} for a vocabulary of {}",
                tokenizer.max_id(),
                encoder.config.vocab_size
            ))));
        }
        let most = encoder.config.max_tokens;
        let limit = options.max_length.unwrap_or(most);
        if limit > most {
            return Err(Error::new(
                ErrorKind::Config,
                format!("a maximum of {limit} tokens is more than the {most} of the model"),
            ));
        }
        Ok(Self {
            artifact,
            encoder,
            tokenizer,
            machine,
            limit,
            truncation: options.truncation,
        })
    }

    /// Calls `put` with the number and the values of each text, in any order; returns their tokens, in the
    /// order of the texts.
    ///
    /// # Errors
    /// Names the first text that cannot be tokenized, or else the first that the model has no rows
    /// for, or else the first whose result is not finite.
    pub(super) fn run<'t>(
        &self,
        texts: &'t Texts<'t>,
        put: impl FnMut(usize, &[f32]) + Send,
    ) -> Result<Vec<Encoded>> {
        let encoded = self.machine.in_pool(texts.nanoseconds(), |_| match texts {
            Texts::Single(texts) => self
                .tokenizer
                .encode_batch(texts, self.limit, self.truncation),
            Texts::Pairs(pairs) => self
                .tokenizer
                .encode_pairs(pairs, self.limit, self.truncation),
            Texts::Ids(texts) => (texts.iter().enumerate())
                .map(|(i, ids)| self.checked(ids).map_err(|e| e.in_text(i)))
                .collect(),
            #[cfg(feature = "train")]
            Texts::Typed(texts) => (texts.iter().enumerate())
                .map(|(i, (ids, types))| {
                    let mut encoded = self.checked(ids).map_err(|e| e.in_text(i))?;
                    encoded.type_ids = types.to_vec();
                    Ok(encoded)
                })
                .collect(),
        })?;
        let tokens = encoded.iter().map(|text| text.ids.len()).sum();
        let nanoseconds = self.encoder.nanoseconds(self.machine.context, tokens);
        self.machine
            .in_pool(nanoseconds, |context| self.forward(context, &encoded, put))?;
        Ok(encoded)
    }

    /// A text of token ids, as if the tokenizer had made it.
    fn checked(&self, ids: &[u32]) -> Result<Encoded> {
        let wrong = |kind, message| Err(Error::new(kind, message));
        if ids.len() > self.limit {
            let (tokens, limit) = (ids.len(), self.limit);
            return wrong(
                ErrorKind::TooLong,
                format!("the text has {tokens} tokens, the limit is {limit}"),
            );
        }
        let size = self.encoder.config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= size) {
            return wrong(
                ErrorKind::Input,
                format!("token id {id} is not in the vocabulary of {size}"),
            );
        }
        Ok(Encoded {
            ids: ids.to_vec(),
            type_ids: vec![0; ids.len()],
            tokens: ids.len(),
            original_tokens: ids.len(),
            truncated: false,
        })
    }

    /// Alike texts share a forward pass: they are taken in the order of their lengths. A text's
    /// result does not depend on that.
    fn forward(
        &self,
        context: Context,
        encoded: &[Encoded],
        mut put: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        for (i, text) in encoded.iter().enumerate() {
            if text.ids.is_empty() {
                // A tokenizer without special tokens makes nothing of an empty text.
                return Err(Error::new(ErrorKind::Input, "the text has no tokens").in_text(i));
            }
            (self.encoder.check(&text.ids, &text.type_ids))
                .map_err(|e| self.artifact.locate(e).in_text(i))?;
        }
        let mut order: Vec<usize> = (0..encoded.len()).collect();
        // The longest first, so that the arena need not grow.
        order.sort_unstable_by_key(|&i| (Reverse(encoded[i].ids.len()), i));
        let mut not_finite: Option<usize> = None;
        let mut arena = self.encoder.arena();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let members = rest
                .split_off(..first_batch(encoded, rest))
                .expect("in range");
            arena.clear();
            for &i in members {
                let text = &encoded[i];
                arena.push(&self.encoder.config, &text.ids, &text.type_ids);
            }
            let values = self.encoder.forward(context, &mut arena);
            let width = values.len() / members.len();
            for (&i, values) in members.iter().zip(values.chunks_exact(width)) {
                if values.iter().any(|v| !v.is_finite()) {
                    not_finite = Some(not_finite.map_or(i, |first| first.min(i)));
                }
                put(i, values);
            }
        }
        if let Some(i) = not_finite {
            let error = Error::new(
                ErrorKind::Input,
                "the model's output is not finite: its weights overflow on this text",
            );
            return Err(self.artifact.locate(error).in_text(i));
        }
        Ok(())
    }
}

/// How many of the texts `order` share the first forward pass: at least one.
fn first_batch(encoded: &[Encoded], order: &[usize]) -> usize {
    let mut tokens = 0;
    let fits = order.iter().take_while(|&&i| {
        tokens += encoded[i].ids.len();
        tokens <= TOKENS_AT_ONCE
    });
    fits.count().max(1)
}

/// The texts of a call.
pub(super) enum Texts<'t> {
    Single(&'t [&'t str]),
    Pairs(&'t [(&'t str, &'t str)]),
    Ids(&'t [&'t [u32]]),
    /// Ids and types.
    #[cfg(feature = "train")]
    Typed(&'t [(&'t [u32], &'t [u32])]),
}

impl Texts<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Texts::Single(texts) => texts.len(),
            Texts::Pairs(pairs) => pairs.len(),
            Texts::Ids(texts) => texts.len(),
            #[cfg(feature = "train")]
            Texts::Typed(texts) => texts.len(),
        }
    }

    /// About how long they take to tokenize.
    fn nanoseconds(&self) -> u64 {
        match self {
            Texts::Single(texts) => texts.len() as u64 * TOKENIZING,
            Texts::Pairs(pairs) => 2 * pairs.len() as u64 * TOKENIZING,
            Texts::Ids(_) => 0,
            #[cfg(feature = "train")]
            Texts::Typed(_) => 0,
        }
    }
}
