//! Labelled scores for texts.

use std::path::Path;

use super::{Options, TextModel, Texts};
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

/// One label of a text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its number, from 0, in the order of the model's logits.
    pub index: usize,
    /// The softmax of the logits; the sigmoid of the logit where several labels may apply; the
    /// logit itself where there is only one label.
    pub score: f32,
    /// The model's raw output.
    pub logit: f32,
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

    fn run(&self, texts: &Texts) -> Result<Vec<Classification>> {
        let results = self.model.run(texts)?;
        Ok(results
            .into_iter()
            .map(|(encoded, logits)| self.classification(encoded, &logits))
            .collect())
    }

    fn classification(&self, encoded: Encoded, logits: &[f32]) -> Classification {
        let scores = scores(self.problem, logits);
        let mut labels: Vec<LabelScore> = (self.labels().iter().zip(logits).zip(scores))
            .enumerate()
            .map(|(index, ((label, &logit), score))| LabelScore {
                label: label.clone(),
                index,
                score,
                logit,
            })
            .collect();
        // The sort is stable: equal scores stay in the order of the logits.
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        Classification {
            labels,
            tokens: encoded.tokens,
            truncated: encoded.truncated,
            ids: encoded.ids,
        }
    }
}

/// In `f64`, rounded once at the end.
pub(super) fn scores(problem: Problem, logits: &[f32]) -> Vec<f32> {
    let logits = || logits.iter().map(|&l| f64::from(l));
    let problem = if logits().len() == 1 {
        Problem::Regression
    } else {
        problem
    };
    match problem {
        Problem::SingleLabel => {
            let largest = logits().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits().map(|l| (l - largest).exp()).sum();
            logits()
                .map(|l| ((l - largest).exp() / total) as f32)
                .collect()
        }
        Problem::MultiLabel => logits()
            .map(|l| (1.0 / (1.0 + (-l).exp())) as f32)
            .collect(),
        Problem::Regression => logits().map(|l| l as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_problem() {
        let logits = [1.0, -2.0, 0.5];
        let softmax = scores(Problem::SingleLabel, &logits);
        let total: f32 = logits.iter().map(|l: &f32| l.exp()).sum();
        for (s, l) in softmax.iter().zip(logits) {
            assert!((s - l.exp() / total).abs() < 1e-6);
        }
        for (s, l) in scores(Problem::MultiLabel, &logits).iter().zip(logits) {
            assert!((s - 1.0 / (1.0 + (-l).exp())).abs() < 1e-6);
        }
        assert_eq!(scores(Problem::Regression, &logits), logits);
        assert_eq!(scores(Problem::SingleLabel, &[3.5]), [3.5]);
        assert_eq!(scores(Problem::SingleLabel, &[300.0, -300.0]), [1.0, 0.0]);
    }

    #[test]
    fn pipelines_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<TextClassifier>();
        shared::<super::super::SentenceEmbedder>();
    }
}
