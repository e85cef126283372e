//! The `tokenizers` crate, for what the tables cannot express.

use serde::de::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::{BpeBuilder, Vocab};
use tokenizers::models::wordpiece::WordPieceBuilder;
use tokenizers::utils::truncation::{TruncationParams, truncate_encodings};
use tokenizers::{
    AddedToken, Encoding, ModelWrapper, NormalizerWrapper, PostProcessor, PostProcessorWrapper,
    PreTokenizerWrapper,
};

use super::json::{Checked, Model, bad};
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Foreign(tokenizers::Tokenizer);

impl Foreign {
    pub(super) fn new(file: Checked) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::new(model(file.model)?);
        if let Some(step) = &file.normalizer {
            let step: NormalizerWrapper = convert(step, "normalizer")?;
            inner
                .with_normalizer(Some(step))
                .map_err(|e| bad(format!("tokenizer.json: normalizer: {e}")))?;
        }
        if let Some(step) = &file.pre_tokenizer {
            let step: PreTokenizerWrapper = convert(step, "pre_tokenizer")?;
            inner.with_pre_tokenizer(Some(step));
        }
        if let Some(step) = &file.post_processor {
            let step: PostProcessorWrapper = convert(step, "post_processor")?;
            inner.with_post_processor(Some(step));
        }
        let tokens: Vec<_> = (file.added.iter())
            .map(|added| {
                AddedToken::from(added.content.clone(), added.special)
                    .single_word(added.single_word)
                    .lstrip(added.lstrip)
                    .rstrip(added.rstrip)
                    .normalized(added.normalized())
            })
            .collect();
        inner
            .add_tokens(tokens)
            .map_err(|e| bad(format!("tokenizer.json: added_tokens: {e}")))?;
        Ok(Self(inner))
    }

    /// The largest id that post-processing adds; it holds ids of its own, which the vocabulary
    /// need not confirm.
    pub(super) fn max_special(&self) -> Result<u32> {
        let mut largest = 0;
        for pair in [None, Some(Encoding::default())] {
            let specials = self.finish(Encoding::default(), pair)?;
            largest = specials.get_ids().iter().copied().fold(largest, u32::max);
        }
        Ok(largest)
    }

    #[cfg(feature = "convert")]
    pub(super) fn added_tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = (self.0.get_added_tokens_decoder().into_values())
            .map(|token| token.content)
            .collect();
        tokens.sort();
        tokens
    }

    pub(super) fn special_tokens(&self, pair: bool) -> usize {
        self.0
            .get_post_processor()
            .map_or(0, |p| p.added_tokens(pair))
    }

    /// Tokens of one text, without special tokens.
    pub(super) fn part(&self, text: &str) -> Result<Encoding> {
        self.0.encode_fast(text, false).map_err(internal)
    }

    /// Cuts the texts to `room` tokens.
    pub(super) fn cut(
        first: Encoding,
        second: Option<Encoding>,
        room: usize,
    ) -> Result<(Encoding, Option<Encoding>)> {
        let params = TruncationParams {
            max_length: room,
            ..TruncationParams::default()
        };
        let (mut first, mut second) =
            truncate_encodings(first, second, &params).map_err(internal)?;
        // The cut pieces are kept as "overflow", and a pair's would be combined with each other:
        // quadratic in the text's length.
        first.take_overflowing();
        if let Some(second) = &mut second {
            second.take_overflowing();
        }
        Ok((first, second))
    }

    /// Adds the special tokens.
    pub(super) fn finish(&self, first: Encoding, second: Option<Encoding>) -> Result<Encoding> {
        let second = second.map(|mut second| {
            // Post-processors with types of their own overwrite these.
            second.set_type_ids(vec![1; second.len()]);
            second
        });
        self.0.post_process(first, second, true).map_err(internal)
    }
}

fn model(model: Model) -> Result<ModelWrapper> {
    match model {
        Model::WordPiece {
            vocab,
            unknown,
            prefix,
            max_chars,
        } => WordPieceBuilder::new()
            .vocab(vocab.into_iter().collect::<Vocab>())
            .unk_token(unknown)
            .continuing_subword_prefix(prefix)
            .max_input_chars_per_word(max_chars)
            .build()
            .map(Into::into),
        Model::Bpe {
            vocab,
            merges,
            unknown,
            prefix,
            suffix,
            fuse_unknown,
            byte_fallback,
            ignore_merges,
        } => {
            let vocab: Vocab = vocab.into_iter().collect();
            let mut builder = BpeBuilder::new()
                .vocab_and_merges(vocab, merges)
                .fuse_unk(fuse_unknown)
                .byte_fallback(byte_fallback)
                .ignore_merges(ignore_merges);
            if let Some(unknown) = unknown {
                builder = builder.unk_token(unknown);
            }
            if let Some(prefix) = prefix {
                builder = builder.continuing_subword_prefix(prefix);
            }
            if let Some(suffix) = suffix {
                builder = builder.end_of_word_suffix(suffix);
            }
            builder.build().map(Into::into)
        }
    }
    .map_err(|e| bad(format!("tokenizer.json: model: {e}")))
}

fn convert<T: for<'de> Deserialize<'de>>(step: &Value, field: &str) -> Result<T> {
    T::deserialize(step).map_err(|e| bad(format!("tokenizer.json: {field}: {e}")))
}

fn internal(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::new(ErrorKind::Tokenizer, format!("tokenizing failed: {error}")).caused_by(error)
}
