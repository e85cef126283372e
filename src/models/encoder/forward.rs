//! The forward pass.

use super::arena::{Lent, Widths};
use super::{Encoder, Layer, Pooling, Task};
use crate::kernels::attention::{Heads, Queries, attention};
use crate::kernels::elementwise::{Activation, normalize};
use crate::kernels::fused;
use crate::nn::{Context, Input, Mode};

impl Encoder {
    /// Memory for a call, without texts yet.
    pub(crate) fn arena(&self) -> Lent<'_> {
        self.arenas.take(Widths::new(&self.config))
    }

    /// What the model gives for the texts in the arena: `[texts][labels]` logits of a classifier,
    /// `[texts][hidden]` vectors of an embedding model. They may be not finite.
    pub(crate) fn forward<'a>(&self, context: Context, arena: &'a mut Lent) -> &'a [f32] {
        arena.most_tokens = arena.most_tokens.max(arena.batch.tokens.len());
        arena.fit(Widths::new(&self.config));
        match self.config.task {
            Task::Classification { .. } => self.classify(context, arena),
            Task::Embedding { pooling, normalize } => {
                self.embed(context, arena, pooling, normalize)
            }
        }
        &arena.results
    }

    fn classify(&self, context: Context, arena: &mut Lent) {
        let Some(head) = &self.head else {
            unreachable!("a classifier is loaded with its head")
        };
        self.hidden_states(context, arena, true);
        let (texts, hidden) = (arena.batch.texts.len(), self.config.hidden);
        let arena = &mut **arena;
        let (x, dense) = (
            &mut arena.x[..texts * hidden],
            &mut arena.work[..texts * hidden],
        );
        let quantized = &mut arena.quantized;
        if head.dense.int8(context.mode) {
            fused::quantize(context.machine(), x, hidden, quantized);
        }
        head.dense
            .forward(context, Input { rows: x, quantized }, dense);
        let wanted = head.labels.int8(context.mode);
        fused::activate(
            context.machine(),
            Activation::Tanh,
            dense,
            hidden,
            wanted.then_some(quantized),
        );
        arena.results.clear();
        arena
            .results
            .resize(texts * head.labels.out_features(), 0.0);
        let input = Input {
            rows: dense,
            quantized: &arena.quantized,
        };
        head.labels.forward(context, input, &mut arena.results);
    }

    fn embed(&self, context: Context, arena: &mut Lent, pooling: Pooling, normalized: bool) {
        let first_only = pooling == Pooling::Cls;
        self.hidden_states(context, arena, first_only);
        let hidden = self.config.hidden;
        let arena = &mut **arena;
        arena.results.clear();
        for (i, text) in arena.batch.texts.iter().enumerate() {
            let rows = if first_only { i..i + 1 } else { text.clone() };
            let rows = &arena.x[rows.start * hidden..rows.end * hidden];
            let start = arena.results.len();
            arena.results.extend_from_slice(&rows[..hidden]);
            let result = &mut arena.results[start..];
            let rest = rows.chunks_exact(hidden).skip(1);
            match pooling {
                Pooling::Mean => {
                    rest.for_each(|row| result.iter_mut().zip(row).for_each(|(s, v)| *s += v));
                    let n = text.len() as f32;
                    result.iter_mut().for_each(|s| *s /= n);
                }
                Pooling::Cls => {}
                Pooling::Max => rest.for_each(|row| {
                    for (s, &v) in result.iter_mut().zip(row) {
                        // `f32::max` would lose a NaN.
                        if v > *s || v.is_nan() {
                            *s = v;
                        }
                    }
                }),
            }
            if normalized {
                normalize(context.isa, result);
            }
        }
    }

    /// Leaves the last layer's output in `arena.x`: `[tokens][hidden]`, or `[texts][hidden]` if only
    /// first tokens are wanted.
    fn hidden_states(&self, context: Context, arena: &mut Lent, first_only: bool) {
        self.embeddings(context, arena);
        let (last, others) = self.layers.split_last().expect("a config has layers");
        let mut next = self.layers.iter().skip(1);
        for layer in others {
            self.layer(context, arena, layer, next.next(), false);
        }
        self.layer(context, arena, last, None, first_only);
    }

    /// `norm(token + position + type)`, `[tokens][hidden]`.
    fn embeddings(&self, context: Context, arena: &mut Lent) {
        let arena = &mut **arena;
        let tokens = &arena.batch.tokens;
        let wanted = self.layers[0].projects_int8(context);
        fused::embed(
            context.machine(),
            |t| {
                let [id, type_id, position] = tokens[t].map(|index| index as usize);
                [
                    self.token.row(id),
                    self.token_type.row(type_id),
                    self.position.row(position),
                ]
            },
            &mut arena.x[..tokens.len() * self.config.hidden],
            self.norm.affine(),
            wanted.then_some(&mut arena.quantized),
        );
    }

    /// From `x`, quantized where the layer wants it, to the input of `next`. If `first_only`, keys and
    /// values are computed for all rows and everything else for the first row of each text; a row's
    /// result does not depend on the others, so these are the same as when all are computed.
    fn layer(
        &self,
        context: Context,
        arena: &mut Lent,
        layer: &Layer,
        next: Option<&Layer>,
        first_only: bool,
    ) {
        let machine = context.machine();
        let (hidden, ffn) = (self.config.hidden, self.config.intermediate);
        let arena = &mut **arena;
        let (texts, tokens) = (&arena.batch.texts, arena.batch.tokens.len());
        let quantized = &mut arena.quantized;

        let x = &mut arena.x[..tokens * hidden];
        let (query, rest) = arena.work.split_at_mut(tokens * hidden);
        let (key, rest) = rest.split_at_mut(tokens * hidden);
        let value = &mut rest[..tokens * hidden];
        let input = Input { rows: x, quantized };
        layer.key.forward(context, input, key);
        layer.value.forward(context, input, value);
        let (rows, queries) = if first_only {
            for (i, text) in texts.iter().enumerate() {
                x.copy_within(text.start * hidden..(text.start + 1) * hidden, i * hidden);
            }
            let x = &mut x[..texts.len() * hidden];
            if layer.query.int8(context.mode) {
                fused::quantize(machine, x, hidden, quantized);
            }
            (texts.len(), Queries::First)
        } else {
            (tokens, Queries::All)
        };
        let x = &mut x[..rows * hidden];
        let query = &mut query[..rows * hidden];
        layer
            .query
            .forward(context, Input { rows: x, quantized }, query);

        let heads = Heads {
            key,
            value,
            hidden,
            heads: self.config.heads,
        };
        let rounded = context.mode == Mode::Int8;
        attention(machine, &heads, texts, queries, rounded, query);
        let attended = query;
        if layer.output.int8(context.mode) {
            fused::quantize(machine, attended, hidden, quantized);
        }
        let input = Input {
            rows: attended,
            quantized,
        };
        let added = &mut key[..rows * hidden];
        layer.output.forward(context, input, added);
        let norm = layer.attention_norm.affine();
        let wanted = layer.up.int8(context.mode).then_some(&mut *quantized);
        fused::norm(machine, x, Some(added), norm, wanted);

        let (wide, rest) = arena.work.split_at_mut(rows * ffn);
        let added = &mut rest[..rows * hidden];
        layer
            .up
            .forward(context, Input { rows: x, quantized }, wide);
        let activation = self.config.activation.function();
        let wanted = layer.down.int8(context.mode).then_some(&mut *quantized);
        fused::activate(machine, activation, wide, ffn, wanted);
        let input = Input {
            rows: wide,
            quantized,
        };
        layer.down.forward(context, input, added);
        let wanted = next.is_some_and(|next| next.projects_int8(context));
        let wanted = wanted.then_some(&mut *quantized);
        fused::norm(machine, x, Some(added), layer.ffn_norm.affine(), wanted);
    }
}

impl Layer {
    /// Whether a projection multiplies in `int8`.
    fn projects_int8(&self, context: Context) -> bool {
        let mut projections = [&self.query, &self.key, &self.value].into_iter();
        projections.any(|projection| projection.int8(context.mode))
    }
}
