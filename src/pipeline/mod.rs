//! What an app calls: text in, labels or vectors out.

mod classifier;
mod embedder;
mod options;

pub use classifier::{Classification, LabelScore, TextClassifier};
pub use embedder::{Embedding, SentenceEmbedder};
pub use options::Options;

use std::sync::Arc;

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{Isa, Threads};
use crate::models::encoder::{Batch, Encoder};
use crate::nn::Context;
use crate::text::{Encoded, Tokenizer, Truncation};

/// Tokens of one forward pass, as far as texts can be told apart: this bounds the memory of a
/// large batch (RoBERTa-base needs 37 kB a token) and is far beyond where larger is faster.
const TOKENS_AT_ONCE: usize = 1024;

/// Tokenizer, encoder and threads: what both pipelines share.
pub(crate) struct TextModel {
    artifact: Artifact,
    encoder: Encoder,
    tokenizer: Tokenizer,
    context: Context,
    pool: Option<Arc<rayon::ThreadPool>>,
    limit: usize,
    truncation: Truncation,
}

impl TextModel {
    pub(crate) fn new(artifact: Artifact, options: Options) -> Result<Self> {
        let isa = match &options.isa {
            Some(name) => Isa::by_name(name)?,
            None => Isa::detect()?,
        };
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
        let (pool, threads) = options.pool()?;
        Ok(Self {
            artifact,
            encoder,
            tokenizer,
            context: Context {
                isa,
                threads: Threads(threads),
                mode: options.mode,
            },
            pool,
            limit,
            truncation: options.truncation,
        })
    }

    fn in_pool<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }

    /// Runs `forward` over the texts in batches of bounded size; it returns `width` values a text.
    fn run<'t>(
        &self,
        texts: &'t Texts<'t>,
        forward: impl Fn(&Encoder, Context, &Batch) -> Result<Vec<f32>> + Sync,
    ) -> Result<Vec<(Encoded, Vec<f32>)>> {
        self.in_pool(|| {
            let encoded = match texts {
                Texts::Single(texts) => {
                    self.tokenizer
                        .encode_batch(texts, self.limit, self.truncation)
                }
                Texts::Pairs(pairs) => {
                    self.tokenizer
                        .encode_pairs(pairs, self.limit, self.truncation)
                }
                Texts::Ids(texts) => (texts.iter().enumerate())
                    .map(|(i, ids)| self.checked(ids).map_err(|e| e.in_text(i)))
                    .collect(),
            }?;
            self.forward(encoded, &forward)
        })
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

    fn forward(
        &self,
        encoded: Vec<Encoded>,
        forward: impl Fn(&Encoder, Context, &Batch) -> Result<Vec<f32>>,
    ) -> Result<Vec<(Encoded, Vec<f32>)>> {
        // A tokenizer without special tokens makes nothing of an empty text.
        if let Some(empty) = encoded.iter().position(|text| text.ids.is_empty()) {
            return Err(Error::new(ErrorKind::Input, "the text has no tokens").in_text(empty));
        }
        let mut results = Vec::with_capacity(encoded.len());
        let mut waiting = encoded.into_iter().peekable();
        while waiting.peek().is_some() {
            let (mut batch, mut members) = (Batch::default(), Vec::new());
            while let Some(text) = waiting.next_if(|text| {
                members.is_empty() || batch.tokens() + text.ids.len() <= TOKENS_AT_ONCE
            }) {
                batch.push(&text.ids, &text.type_ids);
                members.push(text);
            }
            let values = forward(&self.encoder, self.context, &batch)
                .map_err(|e| self.artifact.locate(e))?;
            let width = values.len() / members.len();
            let rows = values.chunks_exact(width).map(<[f32]>::to_vec);
            results.extend(members.into_iter().zip(rows));
        }
        Ok(results)
    }
}

/// The texts of a call.
enum Texts<'t> {
    Single(&'t [&'t str]),
    Pairs(&'t [(&'t str, &'t str)]),
    Ids(&'t [&'t [u32]]),
}
