//! The shape of a network of images, as a recipe says it.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::models::efficientnet::{self, Act, Config, Crop, Fill, Filter, Preprocessing};

/// Which network of images is trained.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Network {
    /// A well-known one, as `convert --network` takes it; of weights whose names and shapes say which it is,
    /// it may be left out.
    pub name: Option<String>,
    /// Height and width of its input, if not the usual ones.
    pub image_size: Option<usize>,
    /// One's own, with new weights.
    pub shape: Option<Shape>,
}

/// An EfficientNet of one's own. The stem is a convolution of 3 x 3 at stride 2.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Shape {
    /// `relu6` or `silu`.
    #[serde(default = "relu6")]
    pub activation: String,
    /// Where zeros go: `same`, as TensorFlow has it, or `symmetric`.
    #[serde(default = "same")]
    pub padding: String,
    /// Channels of the stem.
    pub stem: usize,
    /// From the first to the last.
    pub blocks: Vec<Block>,
    /// Channels of the last convolution.
    pub features: usize,
    /// Height and width of the input.
    pub size: usize,
    /// The shorter side of a picture is resized to this, and the middle of `size` cut out; `size` if `None`.
    pub resize: Option<usize>,
    /// Of each colour, from 0 to 255: what is subtracted from pixels.
    #[serde(default = "middle")]
    pub mean: [f32; 3],
    /// What they are divided by then.
    #[serde(default = "middle")]
    pub deviation: [f32; 3],
}

/// An inverted bottleneck.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Block {
    /// Side of the depthwise filters: 1, 3, 5 or 7.
    #[serde(default = "three")]
    pub kernel: usize,
    /// 1 or 2.
    #[serde(default = "one")]
    pub stride: usize,
    /// Channels of the depthwise convolution.
    pub expanded: usize,
    /// Channels between squeeze and excitation; 0 for none.
    #[serde(default)]
    pub squeezed: usize,
    /// Channels that come out.
    pub channels: usize,
}

fn relu6() -> String {
    "relu6".into()
}
fn same() -> String {
    "same".into()
}
fn three() -> usize {
    3
}
fn one() -> usize {
    1
}
fn middle() -> [f32; 3] {
    [127.5; 3]
}

impl Network {
    /// # Errors
    /// If it says nothing, or two things.
    pub(super) fn check(&self, has_weights: bool) -> Result<()> {
        let wrong =
            |message: &str| Err(Error::new(ErrorKind::Config, format!("network: {message}")));
        match (&self.name, &self.shape) {
            (_, Some(_)) if has_weights => wrong("shape is for new weights: leave it or model out"),
            (Some(_), Some(_)) => wrong("name or shape, not both"),
            (None, Some(_)) if self.image_size.is_some() => wrong("a shape has its own size"),
            (None, None) if !has_weights => wrong("a name or a shape is needed for new weights"),
            _ => Ok(()),
        }
    }
}

impl Shape {
    /// # Errors
    /// For unknown words. Sizes are checked with those of artifacts.
    pub(super) fn config(&self, labels: usize) -> Result<Config> {
        let word = |key: &str, word: &str, known: &[&str]| {
            let message = format!(
                "network.shape.{key}: {word:?} is unknown; known: {}",
                known.join(", ")
            );
            Error::new(ErrorKind::Config, message)
        };
        let activation = match &*self.activation {
            "relu6" => Act::Relu6,
            "silu" => Act::Silu,
            other => return Err(word("activation", other, &["relu6", "silu"])),
        };
        let fill = match &*self.padding {
            "same" => Fill::Same,
            "symmetric" => Fill::Symmetric,
            other => return Err(word("padding", other, &["same", "symmetric"])),
        };
        let blocks = self.blocks.iter().map(|block| efficientnet::Block {
            kernel: block.kernel,
            stride: block.stride,
            expanded: block.expanded,
            squeezed: block.squeezed,
            channels: block.channels,
        });
        Ok(Config {
            activation,
            fill,
            stem: self.stem,
            blocks: blocks.collect(),
            features: self.features,
            labels,
            input: Preprocessing {
                size: self.size,
                resize: self.resize.unwrap_or(self.size),
                crop: Crop::AfterResize,
                filter: Filter::Bicubic,
                mean: self.mean,
                deviation: self.deviation,
            },
        })
    }
}
