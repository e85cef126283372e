//! What is measured: a pipeline of either kind of model, and a batch for it.

use centroid::{
    Artifact, EncoderInfo, ImageClassifier, ModelKind, Options, SentenceEmbedder, TextClassifier,
};

use super::inputs::{self, Ids};

/// What a model takes.
pub enum Kind {
    Texts(EncoderInfo),
    Images,
}

impl Kind {
    pub fn of(artifact: &Artifact) -> centroid::Result<Self> {
        Ok(match artifact.kind()? {
            ModelKind::EfficientNet => Self::Images,
            _ => Self::Texts(artifact.encoder()?),
        })
    }
}

pub enum Pipeline {
    Classifier(TextClassifier, usize),
    Embedder(SentenceEmbedder, usize),
    Images(ImageClassifier),
}

/// A batch.
pub enum Inputs {
    Texts(Vec<Vec<u32>>),
    Images(Vec<Vec<f32>>),
}

impl Pipeline {
    pub fn new(artifact: Artifact, options: Options, kind: &Kind) -> centroid::Result<Self> {
        match kind {
            Kind::Images => ImageClassifier::new(artifact, options).map(Self::Images),
            Kind::Texts(encoder) => {
                let size = encoder.vocab_size;
                match encoder.task {
                    "embedding" => SentenceEmbedder::new(artifact, options)
                        .map(|model| Self::Embedder(model, size)),
                    _ => TextClassifier::new(artifact, options)
                        .map(|model| Self::Classifier(model, size)),
                }
            }
        }
    }

    pub fn isa(&self) -> &'static str {
        match self {
            Self::Classifier(model, _) => model.isa(),
            Self::Embedder(model, _) => model.isa(),
            Self::Images(model) => model.isa(),
        }
    }

    /// Ids of the special tokens around a text; none for images.
    pub fn special_ids(&self) -> centroid::Result<Vec<u32>> {
        let ids = match self {
            Self::Classifier(model, _) => model.classify(&[""])?.pop().map(|result| result.ids),
            Self::Embedder(model, _) => model.embed(&[""])?.pop().map(|result| result.ids),
            Self::Images(_) => None,
        };
        Ok(ids.unwrap_or_default())
    }

    pub fn run(&self, inputs: &Inputs) -> centroid::Result<()> {
        match (self, inputs) {
            (Self::Classifier(model, _), Inputs::Texts(texts)) => {
                model.classify_ids(&slices(texts)).map(drop)
            }
            (Self::Embedder(model, _), Inputs::Texts(texts)) => {
                model.embed_ids(&slices(texts)).map(drop)
            }
            (Self::Images(model), Inputs::Images(images)) => {
                model.classify_inputs(&slices(images)).map(drop)
            }
            _ => unreachable!("the inputs were made for another pipeline"),
        }
    }
}

impl Inputs {
    /// A batch of texts of so many tokens, or of images.
    pub fn new(
        pipeline: &Pipeline,
        seed: u64,
        specials: &[u32],
        (batch, seq): (usize, Option<usize>),
    ) -> Self {
        match pipeline {
            Pipeline::Classifier(_, size) | Pipeline::Embedder(_, size) => {
                let ids = Ids::new(seed, *size, specials);
                Self::Texts(ids.texts(batch, seq.unwrap_or(1)))
            }
            Pipeline::Images(model) => {
                Self::Images(inputs::images(seed, batch, model.size() * model.size() * 3))
            }
        }
    }
}

fn slices<T>(values: &[Vec<T>]) -> Vec<&[T]> {
    values.iter().map(|values| &values[..]).collect()
}
