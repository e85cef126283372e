//! Labelled scores for images.

use std::path::Path;

use super::classifier::scores;
use super::{LabelScore, Machine, Options};
use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::models::efficientnet::EfficientNet;
use crate::models::encoder::Problem;

/// Nanoseconds that the smallest network takes for an image, roughly: always worth the pool.
const IMAGE: usize = 5_000_000;

/// Classifies images.
///
/// It is `Send + Sync`; any number of threads may call it at a time. An image's result is
/// bit-identical alone and among others, and with any number of threads.
pub struct ImageClassifier {
    artifact: Artifact,
    network: EfficientNet,
    machine: Machine,
}

/// The result for an image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ImageClassification {
    /// Every label, the best score first; scores are the softmax of the logits.
    pub labels: Vec<LabelScore>,
}

impl ImageClassifier {
    /// Maps the file at `path`, with default [`Options`].
    ///
    /// # Errors
    /// As for [`Artifact::open`] and [`ImageClassifier::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Artifact::open(path)?, Options::default())
    }

    /// A classifier on an open artifact. Of the options, those about tokens have no effect.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the artifact holds something other than a classifier of images,
    /// [`ErrorKind::Format`] if its tensors do not fit its config, [`ErrorKind::Config`] or
    /// [`ErrorKind::Isa`] if an option cannot be met.
    pub fn new(artifact: Artifact, options: Options) -> Result<Self> {
        let machine = Machine::new(&options)?;
        let network = EfficientNet::load(&artifact)?;
        Ok(Self {
            artifact,
            network,
            machine,
        })
    }

    /// The labels in the order of the model's logits.
    pub fn labels(&self) -> &[String] {
        self.artifact.labels().unwrap_or_default()
    }

    /// Height and width of the network's input.
    pub fn size(&self) -> usize {
        self.network.config.input.size
    }

    /// The instruction set in use, as `bench` prints it.
    pub fn isa(&self) -> &'static str {
        self.machine.context.isa.name()
    }

    /// Classifies images that are the network's input already: resized, cut and normalized, `[size][size][3]` in
    /// red, green and blue.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if one has another length or a value that is not finite, or if its result is not
    /// finite; the message names it by its number from 0.
    pub fn classify_inputs(&self, images: &[&[f32]]) -> Result<Vec<ImageClassification>> {
        let wrong = |i: usize, what: String| {
            Err(Error::new(ErrorKind::Input, format!("image {i}: {what}")))
        };
        let size = self.size();
        for (i, image) in images.iter().enumerate() {
            if image.len() != size * size * 3 {
                let len = image.len();
                return wrong(
                    i,
                    format!("{len} values where {size} x {size} x 3 are needed"),
                );
            }
            if let Some(at) = image.iter().position(|v| !v.is_finite()) {
                return wrong(i, format!("value {at} is {}", image[at]));
            }
        }
        let logits: Vec<Vec<f32>> = self.machine.in_pool(images.len() * IMAGE, |context| {
            let forward = |image: &&[f32]| self.network.forward(context, image);
            images.iter().map(forward).collect()
        });
        if let Some(i) = (logits.iter()).position(|logits| logits.iter().any(|v| !v.is_finite())) {
            return wrong(
                i,
                "the model's output is not finite: its weights overflow".into(),
            );
        }
        Ok(logits
            .iter()
            .map(|logits| self.classification(logits))
            .collect())
    }

    fn classification(&self, logits: &[f32]) -> ImageClassification {
        let scores = scores(Problem::SingleLabel, logits);
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
        ImageClassification { labels }
    }
}
