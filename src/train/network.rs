//! EfficientNet's forward pass in torch, as the runtime has it (`models/efficientnet`).
//!
//! Images are `[images, height, width, channels]`: pointwise convolutions are linear layers then, and torch's
//! convolutions take the same memory as `channels_last`.

use tch::{Kind, Tensor};

use super::learner::Outputs;
use super::pass::Pass;
use crate::error::Result;
use crate::kernels::conv::Windows;
use crate::models::efficientnet::{Act, Block, Config};

/// Height and width of an image.
const PIXELS: [i64; 2] = [1, 2];

/// A part of a network that takes what the one before it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Stem,
    Block(usize),
    /// The last convolution and the classifier.
    Tail,
}

impl Part {
    /// From the first to the last.
    pub(super) fn all(config: &Config) -> impl Iterator<Item = Self> + use<> {
        let blocks = (0..config.blocks.len()).map(Self::Block);
        std::iter::once(Self::Stem)
            .chain(blocks)
            .chain([Self::Tail])
    }

    /// The names of its layers, in their order.
    pub(super) fn layers(self) -> Vec<String> {
        match self {
            Self::Stem => vec!["stem".into()],
            Self::Tail => vec!["features".into(), "classifier".into()],
            Self::Block(at) => {
                let layers = ["expand", "depthwise", "squeeze", "excite", "project"];
                // One that is not there is in nobody's list of names.
                layers
                    .into_iter()
                    .map(|layer| format!("blocks.{at}.{layer}"))
                    .collect()
            }
        }
    }
}

/// The network in one pass.
pub(super) struct Forward<'a> {
    pub(super) config: &'a Config,
    pub(super) pass: &'a Pass<'a>,
}

impl Forward<'_> {
    /// Of `x`, `[images, size, size, 3]`.
    pub(super) fn run(&self, x: &Tensor, with_hidden: bool) -> Result<Outputs> {
        let mut hidden = Vec::new();
        let mut x = x.shallow_clone();
        for part in Part::all(self.config) {
            let left_out = matches!(part, Part::Block(at) if self.leaves_out(at));
            x = self.part(part, &x)?;
            if with_hidden && part != Part::Tail {
                hidden.push((!left_out).then(|| x.shallow_clone()));
            }
        }
        Ok(Outputs { answers: x, hidden })
    }

    /// A part's output, `[images, height, width, channels]`, or logits.
    pub(super) fn part(&self, part: Part, x: &Tensor) -> Result<Tensor> {
        match part {
            Part::Stem => {
                let (stem, _) = self.config.windows();
                Ok(self.activation(self.stem(x, &stem)?))
            }
            Part::Block(at) => {
                let (_, windows) = self.config.windows();
                self.block(x, at, &self.config.blocks[at], &windows[at])
            }
            Part::Tail => {
                let features = self.activation(self.pass.linear(x, "features")?);
                let pooled = features.mean_dim(PIXELS.as_slice(), false, Kind::Float);
                self.pass.linear(&self.pass.drop(pooled), "classifier")
            }
        }
    }

    fn stem(&self, x: &Tensor, windows: &Windows) -> Result<Tensor> {
        let weight = self.pass.matrix("stem.weight", false)?;
        let side = windows.kernel as i64;
        // The runtime's rows are windows of pixels.
        let weight = weight.view([-1, side, side, x.size()[3]]);
        self.convolve(x, &weight.permute([0, 3, 1, 2]), "stem", windows, 1)
    }

    /// Whether a block is skipped: only one that adds to its input may be.
    fn leaves_out(&self, at: usize) -> bool {
        let blocks = &self.config.blocks;
        let inputs = match at {
            0 => self.config.stem,
            _ => blocks[at - 1].channels,
        };
        blocks[at].stride == 1 && blocks[at].channels == inputs && self.pass.skips(at)
    }

    fn block(&self, x: &Tensor, at: usize, block: &Block, windows: &Windows) -> Result<Tensor> {
        let name = |layer: &str| format!("blocks.{at}.{layer}");
        let inputs = x.size()[3];
        let adds = block.stride == 1 && inputs == block.channels as i64;
        if self.leaves_out(at) {
            return Ok(x.shallow_clone());
        }
        let wide = match block.expanded as i64 {
            expanded if expanded == inputs => x.shallow_clone(),
            _ => self.activation(self.pass.linear(x, &name("expand"))?),
        };
        let depthwise = name("depthwise");
        let weight = self.pass.matrix(&format!("{depthwise}.weight"), false)?;
        let (side, channels) = (block.kernel as i64, block.expanded as i64);
        let weight = weight.view([channels, 1, side, side]);
        let filtered = self.convolve(&wide, &weight, &depthwise, windows, channels)?;
        let filtered = self.activation(filtered);
        let filtered = match block.squeezed {
            0 => filtered,
            _ => {
                let pooled = filtered.mean_dim(PIXELS.as_slice(), false, Kind::Float);
                let squeezed = self.pass.exact_linear(&pooled, &name("squeeze"))?;
                let squeezed = self.activation(squeezed);
                let factors = self.pass.exact_linear(&squeezed, &name("excite"))?;
                filtered * factors.sigmoid().view([-1, 1, 1, channels])
            }
        };
        let projected = self.pass.linear(&filtered, &name("project"))?;
        Ok(if adds { x + projected } else { projected })
    }

    /// `weight` is `[out, in of a group, kernel, kernel]`.
    fn convolve(
        &self,
        x: &Tensor,
        weight: &Tensor,
        layer: &str,
        windows: &Windows,
        groups: i64,
    ) -> Result<Tensor> {
        // Zeros before and after, in a dimension.
        let zeros = |dimension: usize| {
            let before = windows.before[dimension];
            let reach = (windows.output[dimension] - 1) * windows.stride + windows.kernel;
            let after = reach.saturating_sub(windows.input[dimension] + before);
            [before as i64, after as i64]
        };
        let [vertical, horizontal] = [zeros(0), zeros(1)];
        let (padded, padding) = match vertical[0] == vertical[1] && horizontal[0] == horizontal[1] {
            true => (x.shallow_clone(), [vertical[0], horizontal[0]]),
            false => {
                let [[above, below], [left, right]] = [vertical, horizontal];
                (x.constant_pad_nd([0, 0, left, right, above, below]), [0, 0])
            }
        };
        let stride = [windows.stride as i64; 2];
        let y = padded.permute([0, 3, 1, 2]).conv2d(
            weight,
            None::<Tensor>,
            stride,
            padding,
            [1, 1],
            groups,
        );
        self.pass.shifted(x, y.permute([0, 2, 3, 1]), layer)
    }

    fn activation(&self, x: Tensor) -> Tensor {
        match self.config.activation {
            Act::Relu6 => x.relu6(),
            Act::Silu => x.silu(),
        }
    }
}
