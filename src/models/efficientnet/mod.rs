//! EfficientNet (Tan and Le 2019, arXiv 1905.11946) and its Lite variants, which have ReLU6 for swish and no
//! squeeze-and-excitation.
//!
//! An image is `[height][width][channels]`, so that a pointwise convolution is a product with one row a pixel.
//! Batch norms have no place of their own: their factors are in the weights or their row scales, and what they add
//! is the bias. Each image is computed alone.

mod config;
mod forward;
mod info;
mod load;

pub(crate) use config::{Act, Block, Config, Crop, Fill, Filter, Preprocessing};

pub use info::NetworkInfo;

use std::sync::Mutex;

use forward::Arena;

use crate::kernels::conv::Windows;
use crate::nn::{Depthwise, Linear};

/// A network that points into an open artifact.
pub(crate) struct EfficientNet {
    pub(crate) config: Config,
    /// Of the first convolution, and of each block.
    windows: (Windows, Vec<Windows>),
    stem: Linear,
    blocks: Vec<Layers>,
    features: Linear,
    classifier: Linear,
    /// Memory that no call is using.
    arenas: Mutex<Vec<Arena>>,
}

/// An inverted bottleneck: wide, filtered channel by channel, and narrow again.
struct Layers {
    expand: Option<Linear>,
    depthwise: Depthwise,
    squeeze: Option<[Linear; 2]>,
    project: Linear,
}
