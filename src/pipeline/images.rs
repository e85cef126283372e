//! Labelled scores for images.

use std::path::Path;

use super::{LabelScore, Machine, Options, labels};
use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::models::efficientnet::EfficientNet;
use crate::models::encoder::Problem;

/// Nanoseconds that the smallest network takes for an image, roughly: always worth the pool.
const IMAGE: u64 = 5_000_000;

/// Classifies images.
///
/// ```no_run
/// # fn main() -> centroid::Result<()> {
/// let classifier = centroid::ImageClassifier::open("lite0.centroid")?;
/// for result in classifier.classify(&["cat.jpg", "dog.png"])? {
///     println!("{}: {:.2}", result.labels[0].label, result.labels[0].score);
/// }
/// # Ok(())
/// # }
/// ```
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
        let size = self.size();
        for (i, image) in images.iter().enumerate() {
            let wrong = |what: String| Err(numbered(i, Error::new(ErrorKind::Input, what)));
            if image.len() != size * size * 3 {
                let len = image.len();
                return wrong(format!("{len} values where {size} x {size} x 3 are needed"));
            }
            if let Some(at) = image.iter().position(|v| !v.is_finite()) {
                return wrong(format!("value {at} is {}", image[at]));
            }
        }
        let logits: Vec<Vec<f32>> = self
            .machine
            .in_pool(images.len() as u64 * IMAGE, |context| {
                let forward = |image: &&[f32]| self.network.forward(context, image);
                images.iter().map(forward).collect()
            });
        (logits.iter().enumerate())
            .map(|(i, logits)| self.result(logits).map_err(|e| numbered(i, e)))
            .collect()
    }

    /// Classifies pictures in files: JPEG, PNG or WebP, resized and cut as the network was trained.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if one cannot be read, [`ErrorKind::Input`] if it is no picture, is damaged, or has more
    /// than 32,768 pixels in a row or column or 67,108,864 in all; the error names the file.
    pub fn classify(&self, images: &[impl AsRef<Path>]) -> Result<Vec<ImageClassification>> {
        (images.iter().map(AsRef::as_ref))
            .map(|path| {
                let bytes = image::read(path)?;
                self.picture(&bytes).map_err(|e| e.in_file(path))
            })
            .collect()
    }

    /// Classifies pictures in memory: the bytes of a JPEG, PNG or WebP file each.
    ///
    /// # Errors
    /// As for [`ImageClassifier::classify`]; the message names the picture by its number from 0.
    pub fn classify_bytes(&self, images: &[&[u8]]) -> Result<Vec<ImageClassification>> {
        (images.iter().enumerate())
            .map(|(i, bytes)| self.picture(bytes).map_err(|e| numbered(i, e)))
            .collect()
    }

    /// Classifies a picture that is decoded already, such as what a canvas holds: `[height][width]` pixels of
    /// red, green, blue and alpha, the last of which is dropped. It is resized and cut as a file is.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if `pixels` has another length, or if the picture is too large or empty, as for
    /// [`ImageClassifier::classify`].
    pub fn classify_rgba(
        &self,
        [width, height]: [u32; 2],
        pixels: &[u8],
    ) -> Result<ImageClassification> {
        let input = image::input_of_pixels([width, height], pixels, &self.network.config.input)?;
        self.of_input(&input)
    }

    fn picture(&self, bytes: &[u8]) -> Result<ImageClassification> {
        self.of_input(&image::input(bytes, &self.network.config.input)?)
    }

    /// Of what [`image::input`] makes.
    fn of_input(&self, input: &[f32]) -> Result<ImageClassification> {
        let forward = |context| self.network.forward(context, input);
        let logits = self.machine.in_pool(IMAGE, forward);
        self.result(&logits)
    }

    fn result(&self, logits: &[f32]) -> Result<ImageClassification> {
        if logits.iter().any(|v| !v.is_finite()) {
            return Err(Error::new(
                ErrorKind::Input,
                "the model's output is not finite: its weights overflow",
            ));
        }
        Ok(ImageClassification {
            labels: labels::best_first(self.labels(), Problem::SingleLabel, logits),
        })
    }
}

/// Names an image by its number.
fn numbered(i: usize, error: Error) -> Error {
    Error::new(error.kind(), format!("image {i}: {}", error.message()))
}
