//! The config of a network of images, for apps that list it.

use super::Config;
use crate::artifact::Artifact;
use crate::error::Result;

/// Shape of a network of images.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// `relu6` or `silu`.
    pub activation: &'static str,
    /// `same` or `symmetric`.
    pub padding: &'static str,
    /// Inverted bottlenecks.
    pub blocks: usize,
    /// Channels of the first convolution.
    pub stem: usize,
    /// Channels of the last convolution.
    pub features: usize,
    /// Number of labels.
    pub labels: usize,
    /// Height and width of the input.
    pub size: usize,
    /// The side from which the input is cut, in pixels.
    pub resize: usize,
    /// `after resize`, `before resize` or `whole`.
    pub crop: &'static str,
    /// `bilinear` or `bicubic`.
    pub filter: &'static str,
    /// Subtracted from red, green and blue, which are 0 to 1; rounded to six digits, as is `std`.
    pub mean: [f64; 3],
    /// What they are divided by then.
    pub std: [f64; 3],
}

impl Artifact {
    /// The config of a network of images.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the model is of another kind,
    /// [`ErrorKind::Format`](crate::ErrorKind::Format) if the config makes no sense.
    pub fn network(&self) -> Result<NetworkInfo> {
        let config = Config::from_artifact(self)?;
        let [mean, std] = config.input.colors();
        Ok(NetworkInfo {
            activation: config.activation.name(),
            padding: config.fill.name(),
            blocks: config.blocks.len(),
            stem: config.stem,
            features: config.features,
            labels: config.labels,
            size: config.input.size,
            resize: config.input.resize,
            crop: config.input.crop.name(),
            filter: config.input.filter.name(),
            mean,
            std,
        })
    }
}
