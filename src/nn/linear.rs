//! `y = x W^T + bias`, in the way that the tensor's scheme and the mode ask for.

use std::sync::Arc;

use super::{Context, Loader, Mode, Vector, join, row_scale, watch};
use crate::artifact::{Bits, Layout, StoredZero, Tensor, Values};
use crate::error::Result;
use crate::kernels::pointwise::{self, Pixels, Then};
use crate::kernels::{self, Codebook, Codes, Offsets, QuantizedRows, Weights, Zero};

/// The input of linear layers.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// `[m][in_features]`
    pub(crate) rows: &'a [f32],
    /// The same quantized: for layers that [multiply](Linear::int8) in `int8`.
    pub(crate) quantized: &'a QuantizedRows,
}

impl<'a> Input<'a> {
    /// Those that a layer multiplies with.
    pub(super) fn pixels(self, int8: bool) -> Pixels<'a> {
        match int8 {
            true => Pixels::Int8(self.quantized),
            false => Pixels::Exact(self.rows),
        }
    }
}

/// A linear layer `[out_features, in_features]` with its bias.
pub(crate) struct Linear {
    tensor: Tensor,
    /// Tables of a `pq` codebook, or the grid of `int4`.
    book: Option<Arc<Codebook>>,
    bias: Vector,
    offsets: Offsets,
}

impl Linear {
    /// Takes `{prefix}.weight` and `{prefix}.bias`.
    pub(crate) fn load(
        loader: &mut Loader,
        prefix: &str,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self> {
        let shape = [out_features, in_features];
        let tensor = loader.tensor(&join(prefix, "weight"), Layout::Tiles, &shape)?;
        let book = match &tensor.values {
            Values::Pq {
                codebook, block, ..
            } => Some(loader.codebook(codebook, *block)),
            Values::Scalar {
                bits: Bits::Four,
                zero,
                ..
            } => Some(loader.int4_grid(match zero {
                StoredZero::Tensor(zero) => *zero,
                StoredZero::Row(_) => 0,
            })),
            _ => None,
        };
        Ok(Self {
            tensor: tensor.clone(),
            book,
            bias: loader.vector(&join(prefix, "bias"), out_features)?,
            offsets: Offsets::new(),
        })
    }

    pub(crate) fn out_features(&self) -> usize {
        self.tensor.shape[0]
    }

    pub(crate) fn in_features(&self) -> usize {
        self.tensor.shape[1]
    }

    /// Whether this layer multiplies in `int8` under `mode`.
    pub(crate) fn int8(&self, mode: Mode) -> bool {
        mode == Mode::Int8 && !matches!(self.tensor.values, Values::F32(_) | Values::F16(_))
    }

    /// `y` is `[m][out_features]`.
    pub(crate) fn forward(&self, context: Context, x: Input, y: &mut [f32]) {
        let int8 = self.int8(context.mode);
        let weights = self.weights(int8);
        watch::count(y.len() * weights.in_features, || {
            if int8 {
                kernels::linear_int8(context.isa, context.threads, &weights, x.quantized, y);
            } else {
                kernels::linear_f32(context.isa, context.threads, &weights, x.rows, y);
            }
        });
    }

    /// The same for the pixels of an image, and what becomes of the outputs. In `f32`, sums are added up in
    /// another order than those of [`forward`](Self::forward).
    pub(crate) fn pointwise(&self, context: Context, x: Input, y: &mut [f32], then: Then) {
        let int8 = self.int8(context.mode);
        let weights = self.weights(int8);
        watch::count(y.len() * weights.in_features, || {
            pointwise::linear(context.machine(), &weights, x.pixels(int8), y, then);
        });
    }

    pub(super) fn weights(&self, int8: bool) -> Weights<'_> {
        let book = self.book.as_deref();
        let (codes, scale, rows, zero) = match (&self.tensor.values, book) {
            (
                Values::Pq {
                    codes,
                    row_scale,
                    codebook,
                    ..
                },
                Some(book),
            ) => {
                let scale = codebook.scale()
                    * if int8 {
                        book.int8_scale
                    } else {
                        book.f32_scale
                    };
                (Codes::Pq { codes, book }, scale, row_scale, Zero::Tensor(0))
            }
            (
                Values::Scalar {
                    bits: Bits::Four,
                    values: codes,
                    scale,
                    row_scale,
                    zero,
                },
                Some(book),
            ) => {
                // The grid has a tensor's zero point in it already.
                let zero = match zero {
                    StoredZero::Tensor(_) => Zero::Tensor(0),
                    StoredZero::Row(zeros) => Zero::Row(zeros.typed()),
                };
                (Codes::Pq { codes, book }, *scale, row_scale, zero)
            }
            (
                Values::Scalar {
                    values,
                    scale,
                    row_scale,
                    zero,
                    ..
                },
                _,
            ) => {
                let zero = match zero {
                    StoredZero::Tensor(zero) => Zero::Tensor(*zero),
                    StoredZero::Row(zeros) => Zero::Row(zeros.typed()),
                };
                (Codes::Int8(values.typed()), *scale, row_scale, zero)
            }
            (Values::F16(values), _) => (Codes::F16(values.typed()), 1.0, &None, Zero::Tensor(0)),
            (Values::F32(values), _) => (Codes::F32(values.typed()), 1.0, &None, Zero::Tensor(0)),
            (Values::Pq { .. }, None) => unreachable!("load makes a table for every pq tensor"),
        };
        Weights {
            out_features: self.tensor.shape[0],
            in_features: self.tensor.shape[1],
            codes,
            scale,
            row_scale: row_scale(rows),
            zero,
            bias: Some(&self.bias),
            offsets: Some(&self.offsets),
        }
    }
}
