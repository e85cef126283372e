//! The forward pass.

use std::sync::PoisonError;

use super::{EfficientNet, Layers};
use crate::kernels::conv::{self, Windows};
use crate::kernels::{QuantizedRows, fused};
use crate::nn::{Context, Input, Linear, Mode};

/// Everything that a forward pass computes in between.
#[derive(Default)]
pub(super) struct Arena {
    /// What goes from block to block, `[pixels][channels]`.
    x: Vec<f32>,
    wide: Vec<f32>,
    filtered: Vec<f32>,
    /// Means of channels, and what becomes of them.
    pooled: Vec<f32>,
    squeezed: Vec<f32>,
    quantized: QuantizedRows,
}

/// The first `len` values of a vector that is at least as long.
fn of(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        // Nothing in there is worth copying.
        values.clear();
        values.reserve_exact(len);
        values.resize(len, 0.0);
    }
    &mut values[..len]
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
        let (stem, windows) = self.config.windows();
        let inputs = self.config.stem_inputs();
        let rows = of(&mut arena.filtered, stem.pixels() * inputs);
        conv::gather(context.threads, &stem, super::config::COLORS, image, rows);
        let x = of(&mut arena.x, stem.pixels() * self.config.stem);
        apply(context, &self.stem, rows, &mut arena.quantized, x);
        fused::activate(machine, act, x, self.config.stem, None);
        let mut channels = self.config.stem;
        for (layers, windows) in self.blocks.iter().zip(&windows) {
            self.block(context, arena, layers, windows, channels);
            channels = layers.project.out_features();
        }

        let last = windows.last().expect("a config has blocks");
        let features = self.config.features;
        let x = &mut arena.x[..last.pixels() * channels];
        let wide = of(&mut arena.wide, last.pixels() * features);
        apply(context, &self.features, x, &mut arena.quantized, wide);
        fused::activate(machine, act, wide, features, None);
        let pooled = of(&mut arena.pooled, features);
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
        let x = &mut arena.x[..before * inputs];
        let channels = layers.depthwise.channels();
        let filtered = of(&mut arena.filtered, after * channels);
        match &layers.expand {
            Some(expand) => {
                let wide = of(&mut arena.wide, before * channels);
                apply(context, expand, x, quantized, wide);
                fused::activate(machine, act, wide, channels, None);
                layers.depthwise.forward(context, windows, wide, filtered);
            }
            None => layers.depthwise.forward(context, windows, x, filtered),
        }
        let int8 = layers.project.int8(context.mode);
        match &layers.squeeze {
            None => {
                let wanted = int8.then_some(&mut *quantized);
                fused::activate(machine, act, filtered, channels, wanted);
            }
            Some([squeeze, excite]) => {
                fused::activate(machine, act, filtered, channels, None);
                let factors = of(&mut arena.pooled, channels);
                conv::pool(context.isa, windows.output[1], filtered, factors);
                let squeezed = of(&mut arena.squeezed, squeeze.out_features());
                // One row decides over all pixels: it stays in f32.
                let exact = Context {
                    mode: Mode::Exact,
                    ..context
                };
                apply(exact, squeeze, factors, quantized, squeezed);
                fused::activate(machine, act, squeezed, squeeze.out_features(), None);
                apply(exact, excite, squeezed, quantized, factors);
                conv::sigmoid(context.isa, factors);
                let wanted = int8.then_some(&mut *quantized);
                fused::scale(machine, filtered, factors, wanted);
            }
        }
        let outputs = layers.project.out_features();
        let input = Input {
            rows: filtered,
            quantized,
        };
        if windows.stride == 1 && inputs == outputs {
            let added = of(&mut arena.wide, after * outputs);
            layers.project.forward(context, input, added);
            fused::add(machine, x, added);
        } else {
            let x = of(&mut arena.x, after * outputs);
            layers.project.forward(context, input, x);
        }
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
