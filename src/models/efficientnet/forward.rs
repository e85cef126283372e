//! The forward pass.

use std::sync::PoisonError;

use super::{EfficientNet, Layers};
use crate::kernels::conv::{self, Windows};
use crate::kernels::pointwise::Then;
use crate::kernels::{Buffer, QuantizedRows, fused};
use crate::nn::{Context, Input, Linear, Mode};

/// Everything that a forward pass computes in between.
#[derive(Default)]
pub(super) struct Arena {
    /// What goes from block to block, `[pixels][channels]`.
    x: Buffer,
    /// What the last convolution gives.
    wide: Buffer,
    /// `[pixels][channels]`, and the sums of its rows, `[height][channels]`.
    filtered: Buffer,
    sums: Buffer,
    /// Means of channels, and what becomes of them.
    pooled: Buffer,
    squeezed: Buffer,
    quantized: QuantizedRows,
}

impl EfficientNet {
    /// The logits of an image `[size][size][3]`. They may be not finite.
    pub(crate) fn forward(&self, context: Context, image: &[f32]) -> Vec<f32> {
        let idle = |arenas: &std::sync::Mutex<Vec<Arena>>| {
            arenas.lock().unwrap_or_else(PoisonError::into_inner).pop()
        };
        let mut arena = idle(&self.arenas).unwrap_or_default();
        let logits = self.run(context, &mut arena, image);
        let mut arenas = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        arenas.push(arena);
        logits
    }

    fn run(&self, context: Context, arena: &mut Arena, image: &[f32]) -> Vec<f32> {
        let (machine, act) = (context.machine(), self.config.activation.function());
        let (stem, windows) = &self.windows;
        let inputs = self.config.stem_inputs();
        let rows = arena.filtered.of(stem.pixels() * inputs);
        conv::gather(context.threads, stem, super::config::COLORS, image, rows);
        let x = arena.x.of(stem.pixels() * self.config.stem);
        if self.stem.int8(context.mode) {
            fused::quantize(machine, rows, inputs, &mut arena.quantized);
        }
        let quantized = &arena.quantized;
        let input = Input { rows, quantized };
        self.stem
            .pointwise(context, input, x, Then::Activation(act));
        let mut channels = self.config.stem;
        for (layers, windows) in self.blocks.iter().zip(windows) {
            self.block(context, arena, layers, windows, channels);
            channels = layers.project.out_features();
        }

        let last = windows.last().expect("a config has blocks");
        let features = self.config.features;
        let x = arena.x.of(last.pixels() * channels);
        let wide = arena.wide.of(last.pixels() * features);
        if self.features.int8(context.mode) {
            fused::quantize(machine, x, channels, &mut arena.quantized);
        }
        let input = Input {
            rows: x,
            quantized: &arena.quantized,
        };
        (self.features).pointwise(context, input, wide, Then::Activation(act));
        let pooled = arena.pooled.of(features);
        conv::pool(context.isa, last.output[1], wide, pooled);
        let mut logits = vec![0.0; self.config.labels];
        apply(
            context,
            &self.classifier,
            pooled,
            &mut arena.quantized,
            &mut logits,
        );
        logits
    }

    /// From `x` to `x`.
    fn block(
        &self,
        context: Context,
        arena: &mut Arena,
        layers: &Layers,
        windows: &Windows,
        inputs: usize,
    ) {
        let (machine, act) = (context.machine(), self.config.activation.function());
        let quantized = &mut arena.quantized;
        let (before, after) = (windows.input[0] * windows.input[1], windows.pixels());
        let x = arena.x.of(before * inputs);
        let channels = layers.depthwise.channels();
        let filtered = arena.filtered.of(after * channels);
        let sums = arena.sums.of(windows.output[0] * channels);
        let expand = layers.expand.as_ref();
        if expand.is_some_and(|expand| expand.int8(context.mode)) {
            fused::quantize(machine, x, inputs, quantized);
        }
        let input = Input { rows: x, quantized };
        (layers.depthwise).forward(context, (windows, act), expand, input, filtered, sums);
        let int8 = layers.project.int8(context.mode);
        match &layers.squeeze {
            None if int8 => fused::quantize(machine, filtered, channels, quantized),
            None => {}
            Some([squeeze, excite]) => {
                let factors = arena.pooled.of(channels);
                conv::mean(context.isa, after, sums, factors);
                let squeezed = arena.squeezed.of(squeeze.out_features());
                // One row decides over all pixels: it stays in f32.
                let exact = Context {
                    mode: Mode::Exact,
                    ..context
                };
                apply(exact, squeeze, factors, quantized, squeezed);
                fused::activate(machine, act, squeezed, squeeze.out_features(), None);
                apply(exact, excite, squeezed, quantized, factors);
                conv::sigmoid(context.isa, factors);
                match int8 {
                    true => fused::quantize_scaled(machine, filtered, factors, quantized),
                    false => fused::scale(machine, filtered, factors),
                }
            }
        }
        let outputs = layers.project.out_features();
        let input = Input {
            rows: filtered,
            quantized,
        };
        let then = match windows.stride == 1 && inputs == outputs {
            true => Then::Sum,
            false => Then::Nothing,
        };
        let x = arena.x.of(after * outputs);
        layers.project.pointwise(context, input, x, then);
    }
}

/// A product, for which the rows are quantized first if it asks for that.
fn apply(
    context: Context,
    linear: &Linear,
    rows: &mut [f32],
    quantized: &mut QuantizedRows,
    y: &mut [f32],
) {
    if linear.int8(context.mode) {
        fused::quantize(context.machine(), rows, linear.in_features(), quantized);
    }
    linear.forward(context, Input { rows, quantized }, y);
}
