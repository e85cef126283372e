//! Depthwise convolutions.

use super::{Context, Embedding, Loader, Vector, join};
use crate::error::Result;
use crate::kernels::conv::{self, Windows};

/// A filter for each channel, `[channels, kernel * kernel]`, and a bias. It is computed in `f32` in both modes.
pub(crate) struct Depthwise {
    filters: Embedding,
    bias: Vector,
    kernel: usize,
}

impl Depthwise {
    /// Takes `{prefix}.weight` and `{prefix}.bias`.
    pub(crate) fn load(
        loader: &mut Loader,
        prefix: &str,
        channels: usize,
        kernel: usize,
    ) -> Result<Self> {
        Ok(Self {
            filters: Embedding::load(loader, &join(prefix, "weight"), channels, kernel * kernel)?,
            bias: loader.vector(&join(prefix, "bias"), channels)?,
            kernel,
        })
    }

    pub(crate) fn channels(&self) -> usize {
        self.bias.len()
    }

    /// From `[input pixels][channels]` to `[output pixels][channels]`.
    pub(crate) fn forward(&self, context: Context, windows: &Windows, x: &[f32], y: &mut [f32]) {
        debug_assert_eq!(windows.kernel, self.kernel);
        let row = |channel| self.filters.row(channel);
        conv::depthwise(context.machine(), windows, row, &self.bias, x, y);
    }
}
