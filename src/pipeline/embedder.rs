//! One vector for each text.

use std::path::Path;

use super::Options;
use super::texts::{TextModel, Texts};
use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::Task;

/// Embeds texts, in the way that the artifact says: pooling, and whether vectors have norm 1.
///
/// It is `Send + Sync`; any number of threads may call it at a time. A text's result is
/// bit-identical alone and in any batch, and with any number of threads.
pub struct SentenceEmbedder {
    model: TextModel,
}

/// The vector of a text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Embedding {
    /// `[dimensions]`
    pub vector: Vec<f32>,
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Number of tokens, special tokens included.
    pub tokens: usize,
    /// Whether the text was cut to the limit.
    pub truncated: bool,
}

/// The vectors of texts in one array.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EmbeddingMatrix {
    /// `[texts][dimensions]`
    pub values: Vec<f32>,
    /// Number of tokens of each text, special tokens included.
    pub tokens: Vec<usize>,
    /// Whether each text was cut to the limit.
    pub truncated: Vec<bool>,
}

impl SentenceEmbedder {
    /// Maps the file at `path`, with default [`Options`].
    ///
    /// # Errors
    /// As for [`Artifact::open`] and [`SentenceEmbedder::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Artifact::open(path)?, Options::default())
    }

    /// An embedder on an open artifact.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the artifact holds something other than an embedding model,
    /// [`ErrorKind::Format`] if its tensors do not fit its config, [`ErrorKind::Config`] or
    /// [`ErrorKind::Isa`] if an option cannot be met.
    pub fn new(artifact: Artifact, options: Options) -> Result<Self> {
        let model = TextModel::new(artifact, options)?;
        match model.encoder.config.task {
            Task::Embedding { .. } => Ok(Self { model }),
            Task::Classification { .. } => Err(model.artifact.locate(Error::new(
                ErrorKind::Unsupported,
                "the file holds a classifier and not an embedding model",
            ))),
        }
    }

    /// Number of values of a vector.
    pub fn dimensions(&self) -> usize {
        self.model.encoder.config.hidden
    }

    /// The most tokens of a text, special tokens included.
    pub fn max_length(&self) -> usize {
        self.model.limit
    }

    /// The instruction set in use, as `bench` prints it.
    pub fn isa(&self) -> &'static str {
        self.model.machine.context.isa.name()
    }

    /// Embeds each text. Results are in the order of `texts`.
    ///
    /// # Errors
    /// [`ErrorKind::TooLong`], naming the text by its number from 0, if one has too many tokens
    /// and is not to be cut.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>> {
        self.run(&Texts::Single(texts))
    }

    /// Embeds each pair of texts as one input.
    ///
    /// # Errors
    /// As for [`SentenceEmbedder::embed`].
    pub fn embed_pairs(&self, pairs: &[(&str, &str)]) -> Result<Vec<Embedding>> {
        self.run(&Texts::Pairs(pairs))
    }

    /// Embeds texts that are token ids already, special tokens included: for an app with a
    /// tokenizer of its own. Every token has type 0.
    ///
    /// # Errors
    /// [`ErrorKind::TooLong`] if a text has more than [`max_length`](Self::max_length) tokens
    /// (ids are never cut), [`ErrorKind::Input`] if it has none or one that is not in the
    /// vocabulary; [`Error::text`] is its number from 0.
    pub fn embed_ids(&self, texts: &[&[u32]]) -> Result<Vec<Embedding>> {
        self.run(&Texts::Ids(texts))
    }

    /// The same, with the type of each token.
    #[cfg(feature = "train")]
    pub(crate) fn embed_typed(&self, texts: &[(&[u32], &[u32])]) -> Result<Vec<Embedding>> {
        self.run(&Texts::Typed(texts))
    }

    /// Embeds texts into one array, `[texts][dimensions]`, as those take it who go on with matrices.
    ///
    /// # Errors
    /// As for [`SentenceEmbedder::embed`].
    pub fn embed_matrix(&self, texts: &[&str]) -> Result<EmbeddingMatrix> {
        self.matrix(&Texts::Single(texts))
    }

    /// Embeds each pair of texts as one input, into one array.
    ///
    /// # Errors
    /// As for [`SentenceEmbedder::embed`].
    pub fn embed_pairs_matrix(&self, pairs: &[(&str, &str)]) -> Result<EmbeddingMatrix> {
        self.matrix(&Texts::Pairs(pairs))
    }

    fn matrix(&self, texts: &Texts) -> Result<EmbeddingMatrix> {
        let dimensions = self.dimensions();
        let mut values = vec![0.0; texts.len() * dimensions];
        let encoded = self.model.run(texts, |text, vector| {
            values[text * dimensions..][..dimensions].copy_from_slice(vector);
        })?;
        Ok(EmbeddingMatrix {
            values,
            tokens: encoded.iter().map(|text| text.tokens).collect(),
            truncated: encoded.iter().map(|text| text.truncated).collect(),
        })
    }

    fn run(&self, texts: &Texts) -> Result<Vec<Embedding>> {
        let mut vectors = vec![Vec::new(); texts.len()];
        let encoded = (self.model).run(texts, |text, vector| vectors[text] = vector.to_vec())?;
        Ok((encoded.into_iter().zip(vectors))
            .map(|(encoded, vector)| Embedding {
                vector,
                tokens: encoded.tokens,
                truncated: encoded.truncated,
                ids: encoded.ids,
            })
            .collect())
    }
}
