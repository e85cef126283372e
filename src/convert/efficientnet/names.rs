//! What `timm` and `efficientnet-pytorch` call the layers, and what we call them.

use super::super::checkpoint::Checkpoint;
use super::family::Network;
use super::fold::is_coded;
use crate::artifact::{Group, Layout};
use crate::error::{Error, ErrorKind, Result};

/// How a checkpoint names its tensors, and what goes with that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Style {
    /// `efficientnet-pytorch`: `_blocks.0._depthwise_conv.weight`.
    Underscored,
    /// `timm`: `blocks.0.0.conv_dw.weight`.
    Timm,
}

impl Style {
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let there = |conv| {
            checkpoint.shape(&format!("{conv}.weight")).is_some() || is_coded(checkpoint, conv)
        };
        if there("_conv_stem") {
            Ok(Self::Underscored)
        } else if there("conv_stem") {
            Ok(Self::Timm)
        } else {
            Err(Error::new(
                ErrorKind::Checkpoint,
                "not an EfficientNet: neither conv_stem.weight (timm) nor _conv_stem.weight \
                 (efficientnet-pytorch) is there",
            ))
        }
    }

    /// The convolution and the batch norm (or, for those that have none, the layer) of one of our tensors.
    pub(super) fn names(self, network: Network, part: Part) -> (String, Option<String>) {
        let named = |conv: &str, norm: &str| (conv.to_owned(), Some(norm.to_owned()));
        match (self, part) {
            (Self::Underscored, Part::Stem) => named("_conv_stem", "_bn0"),
            (Self::Underscored, Part::Features) => named("_conv_head", "_bn1"),
            (Self::Underscored, Part::Classifier) => ("_fc".into(), None),
            (Self::Underscored, Part::Of(block, layer)) => {
                let (conv, norm) = match layer {
                    Layer::Expand => ("_expand_conv", Some("_bn0")),
                    Layer::Depthwise => ("_depthwise_conv", Some("_bn1")),
                    Layer::Squeeze => ("_se_reduce", None),
                    Layer::Excite => ("_se_expand", None),
                    Layer::Project => ("_project_conv", Some("_bn2")),
                };
                let within = |name: &str| format!("_blocks.{block}.{name}");
                (within(conv), norm.map(within))
            }
            (Self::Timm, Part::Stem) => named("conv_stem", "bn1"),
            (Self::Timm, Part::Features) => named("conv_head", "bn2"),
            (Self::Timm, Part::Classifier) => ("classifier".into(), None),
            (Self::Timm, Part::Of(block, layer)) => {
                let (mut stage, mut at) = (0, block);
                for repeats in network.repeats() {
                    if at < repeats {
                        break;
                    }
                    at -= repeats;
                    stage += 1;
                }
                // The first stage expands nothing, and its blocks count their layers from the next one.
                let plain = stage == 0;
                let (conv, norm) = match layer {
                    Layer::Expand => ("conv_pw", Some("bn1")),
                    Layer::Depthwise if plain => ("conv_dw", Some("bn1")),
                    Layer::Depthwise => ("conv_dw", Some("bn2")),
                    Layer::Squeeze => ("se.conv_reduce", None),
                    Layer::Excite => ("se.conv_expand", None),
                    Layer::Project if plain => ("conv_pw", Some("bn2")),
                    Layer::Project => ("conv_pwl", Some("bn3")),
                };
                let within = |name: &str| format!("blocks.{stage}.{at}.{name}");
                (within(conv), norm.map(within))
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Stem,
    Of(usize, Layer),
    Features,
    Classifier,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Layer {
    Expand,
    Depthwise,
    Squeeze,
    Excite,
    Project,
}

impl Part {
    /// Our name.
    pub(super) fn name(self) -> String {
        match self {
            Part::Stem => "stem".into(),
            Part::Features => "features".into(),
            Part::Classifier => "classifier".into(),
            Part::Of(block, layer) => {
                let layer = match layer {
                    Layer::Expand => "expand",
                    Layer::Depthwise => "depthwise",
                    Layer::Squeeze => "squeeze",
                    Layer::Excite => "excite",
                    Layer::Project => "project",
                };
                format!("blocks.{block}.{layer}")
            }
        }
    }

    pub(super) fn group(self) -> Group {
        match self {
            Part::Stem => Group::Stem,
            Part::Features => Group::Pointwise,
            Part::Classifier => Group::Classifier,
            Part::Of(_, Layer::Depthwise) => Group::Depthwise,
            Part::Of(_, Layer::Squeeze | Layer::Excite) => Group::Squeeze,
            Part::Of(..) => Group::Pointwise,
        }
    }

    pub(super) fn layout(self) -> Layout {
        match self {
            Part::Of(_, Layer::Depthwise) => Layout::Rows,
            _ => Layout::Tiles,
        }
    }
}
