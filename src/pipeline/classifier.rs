//! Labelled scores for texts.

use std::path::Path;

use super::texts::{TextModel, Texts};
use super::{LabelScore, Options, labels};
use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::{Problem, Task};
use crate::text::Encoded;

/// Classifies texts, and pairs of texts.
///
/// It is `Send + Sync`; any number of threads may call it at a time. A text's result is
/// bit-identical alone and in any batch, and with any number of threads.
pub struct TextClassifier {
    model: TextModel,
    problem: Problem,
}

/// The result for a text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Classification {
    /// Every label, the best score first.
    pub labels: Vec<LabelScore>,
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Number of tokens, special tokens included.
    pub tokens: usize,
    /// Whether the text was cut to the limit.
    pub truncated: bool,
}

impl TextClassifier {
    /// Maps the file at `path`, with default [`Options`].
    ///
    /// # Errors
    /// As for [`Artifact::open`] and [`TextClassifier::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Artifact::open(path)?, Options::default())
    }

    /// A classifier on an open artifact.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the artifact holds something other than a classifier,
    /// [`ErrorKind::Format`] if its tensors do not fit its config, [`ErrorKind::Config`] or
    /// [`ErrorKind::Isa`] if an option cannot be met.
    pub fn new(artifact: Artifact, options: Options) -> Result<Self> {
        let model = TextModel::new(artifact, options)?;
        match model.encoder.config.task {
            Task::Classification { problem, .. } => Ok(Self { model, problem }),
            Task::Embedding { .. } => Err(model.artifact.locate(Error::new(
                ErrorKind::Unsupported,
                "the file holds an embedding model and not a classifier",
            ))),
        }
    }

    /// The labels in the order of the model's logits.
    pub fn labels(&self) -> &[String] {
        self.model.artifact.labels().unwrap_or_default()
    }

    /// The most tokens of a text, special tokens included.
    pub fn max_length(&self) -> usize {
        self.model.limit
    }

    /// The instruction set in use, as `bench` prints it.
    pub fn isa(&self) -> &'static str {
        self.model.machine.context.isa.name()
    }

    /// Classifies each text. Results are in the order of `texts`.
    ///
    /// # Errors
    /// [`ErrorKind::TooLong`], naming the text by its number from 0, if one has too many tokens
    /// and is not to be cut.
    pub fn classify(&self, texts: &[&str]) -> Result<Vec<Classification>> {
        self.run(&Texts::Single(texts))
    }

    /// Classifies each pair of texts, as for entailment or similarity.
    ///
    /// # Errors
    /// As for [`TextClassifier::classify`].
    pub fn classify_pairs(&self, pairs: &[(&str, &str)]) -> Result<Vec<Classification>> {
        self.run(&Texts::Pairs(pairs))
    }

    /// Classifies texts that are token ids already, special tokens included: for an app with a
    /// tokenizer of its own. Every token has type 0.
    ///
    /// # Errors
    /// [`ErrorKind::TooLong`] if a text has more than [`max_length`](Self::max_length) tokens
    /// (ids are never cut), [`ErrorKind::Input`] if it has none or one that is not in the
    /// vocabulary; [`Error::text`] is its number from 0.
    pub fn classify_ids(&self, texts: &[&[u32]]) -> Result<Vec<Classification>> {
        self.run(&Texts::Ids(texts))
    }

    /// The same, with the type of each token.
    #[cfg(feature = "train")]
    pub(crate) fn classify_typed(&self, texts: &[(&[u32], &[u32])]) -> Result<Vec<Classification>> {
        self.run(&Texts::Typed(texts))
    }

    fn run(&self, texts: &Texts) -> Result<Vec<Classification>> {
        let mut logits = vec![Vec::new(); texts.len()];
        let encoded = (self.model).run(texts, |text, values| logits[text] = values.to_vec())?;
        Ok((encoded.into_iter().zip(&logits))
            .map(|(encoded, logits)| self.classification(encoded, logits))
            .collect())
    }

    fn classification(&self, encoded: Encoded, logits: &[f32]) -> Classification {
        let labels = labels::best_first(self.labels(), self.problem, logits);
        Classification {
            labels,
            tokens: encoded.tokens,
            truncated: encoded.truncated,
            ids: encoded.ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<TextClassifier>();
        shared::<super::super::SentenceEmbedder>();
    }
}
