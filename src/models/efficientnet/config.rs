//! What an EfficientNet looks like, and what it takes for an image.

use crate::artifact::v1::ids;
use crate::kernels::conv::{Padding, Windows};
use crate::kernels::elementwise::Activation;

ids! {
    /// The activation behind every convolution but the last of a block.
    Act {
        /// Between 0 and 6.
        Relu6 = 1, "relu6";
        /// x times its sigmoid.
        Silu = 2, "silu";
    }
}

impl Act {
    pub(crate) fn function(self) -> Activation {
        match self {
            Act::Relu6 => Activation::Relu6,
            Act::Silu => Activation::Silu,
        }
    }
}

ids! {
    /// How convolutions fill an image up.
    Fill {
        /// TensorFlow's "SAME": the odd zero comes last.
        Same = 1, "same";
        /// The same on every side.
        Symmetric = 2, "symmetric";
    }
}

ids! {
    /// How an image becomes a square.
    Crop {
        /// The shorter side is resized to `resize`, then the middle is cut out.
        AfterResize = 1, "after resize";
        /// The middle, `size / resize` of the shorter side, is cut out and then resized.
        BeforeResize = 2, "before resize";
        /// All of it is resized to `size`, whatever its shape; `resize` is `size`.
        Whole = 3, "whole";
    }
}

ids! {
    /// How pixels are resized.
    Filter {
        /// A triangle.
        Bilinear = 1, "bilinear";
        /// The cubic with a = -0.5.
        Bicubic = 2, "bicubic";
    }
}

/// From a picture to the network's input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preprocessing {
    /// Height and width of the input.
    pub(crate) size: usize,
    pub(crate) resize: usize,
    pub(crate) crop: Crop,
    pub(crate) filter: Filter,
    /// `(v - mean) / deviation` of each channel, `v` from 0 to 255.
    pub(crate) mean: [f32; 3],
    pub(crate) deviation: [f32; 3],
}

impl Preprocessing {
    /// Mean and deviation of values from 0 to 1, to six digits.
    pub(crate) fn colors(&self) -> [[f64; 3]; 2] {
        let rounded = |v: f32| (f64::from(v) / 255.0 * 1e6).round() / 1e6;
        [self.mean, self.deviation].map(|colors| colors.map(rounded))
    }
}

/// For people, colours as `convert --mean` and `--std` take them.
impl std::fmt::Display for Preprocessing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (size, resize) = (self.size, self.resize);
        let (crop, filter) = (self.crop.name(), self.filter.name());
        let [mean, std] = (self.colors()).map(|[red, green, blue]| format!("{red},{green},{blue}"));
        write!(
            f,
            "{size} x {size} pixels, cut out of {resize} {crop} ({filter}), mean {mean}, std {std}"
        )
    }
}

/// Shape of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Side of the depthwise filter.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Channels of the depthwise convolution; as many as come in if nothing is expanded.
    pub(crate) expanded: usize,
    /// Channels between squeeze and excitation, or 0 without them.
    pub(crate) squeezed: usize,
    /// Channels that come out.
    pub(crate) channels: usize,
}

/// The shape of a network. `format-spec.md` ("EfficientNet") describes the fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) activation: Act,
    pub(crate) fill: Fill,
    /// Channels of the first convolution, 3 x 3 at stride 2.
    pub(crate) stem: usize,
    pub(crate) blocks: Vec<Block>,
    /// Channels of the last convolution.
    pub(crate) features: usize,
    pub(crate) labels: usize,
    pub(crate) input: Preprocessing,
}

/// Channels of a picture.
pub(crate) const COLORS: usize = 3;
/// Side and stride of the first convolution.
const STEM: (usize, usize) = (3, 2);

impl Config {
    /// The windows of the first convolution, and of each block's depthwise one.
    pub(crate) fn windows(&self) -> (Windows, Vec<Windows>) {
        let padding = match self.fill {
            Fill::Same => Padding::Same,
            Fill::Symmetric => Padding::Symmetric,
        };
        let stem = Windows::new([self.input.size; 2], STEM.0, STEM.1, padding);
        let mut size = stem.output;
        let mut windows = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let of_block = Windows::new(size, block.kernel, block.stride, padding);
            size = of_block.output;
            windows.push(of_block);
        }
        (stem, windows)
    }

    /// Inputs of a window of the first convolution.
    pub(crate) fn stem_inputs(&self) -> usize {
        STEM.0 * STEM.0 * COLORS
    }
}
