//! Self-attention over a ragged batch: text by text, so that there is no mask and no padding.

use std::ops::Range;

use super::Context;
use crate::kernels::{self, attention::Heads};

/// `out[row] = softmax(q k^T / sqrt(head width)) v`, head by head within each text.
///
/// `query`, `key`, `value` and `out` are `[rows][hidden]`; `texts` are the row ranges of the texts.
pub(crate) fn self_attention(
    context: Context,
    heads: usize,
    texts: &[Range<usize>],
    hidden: usize,
    [query, key, value]: [&[f32]; 3],
    out: &mut [f32],
) {
    let heads = Heads {
        query,
        key,
        value,
        hidden,
        heads,
    };
    kernels::attention::attention(context.isa, context.threads, &heads, texts, out);
}
