//! Depthwise convolutions.

use super::{Context, Embedding, Input, Linear, Loader, Vector, join, watch};
use crate::error::Result;
use crate::kernels::conv::Windows;
use crate::kernels::conv::bottleneck::{self, Expand, Filter, Wide};
use crate::kernels::elementwise::Activation;

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

    /// Filters `x` (`[input pixels][channels]`), or the activation of the product of `expand` with it, into
    /// `y` (`[output pixels][channels]`), with an activation; `sums` gets the sums of each row of pixels,
    /// `[output rows][channels]`.
    pub(crate) fn forward(
        &self,
        context: Context,
        (windows, activation): (&Windows, Activation),
        expand: Option<&Linear>,
        x: Input,
        y: &mut [f32],
        sums: &mut [f32],
    ) {
        debug_assert_eq!(windows.kernel, self.kernel);
        let filter = Filter {
            windows,
            row: |channel| self.filters.row(channel),
            bias: &self.bias,
            activation,
        };
        let machine = context.machine();
        let Some(linear) = expand else {
            return bottleneck::filter(machine, Wide::Image(x.rows), &filter, y, sums);
        };
        let int8 = linear.int8(context.mode);
        let weights = linear.weights(int8);
        let clock = watch::clock();
        let wide = Wide::Product(Expand {
            weights: &weights,
            x: x.pixels(int8),
            clock: clock.as_ref(),
        });
        bottleneck::filter(machine, wide, &filter, y, sums);
        if let Some(clock) = clock {
            let pixels = windows.input[0] * windows.input[1];
            let products = pixels * weights.in_features * weights.out_features;
            watch::add(products, clock.into_inner() / context.threads.0 as u64);
        }
    }
}
