//! What the inputs of each layer look like on the user's texts or pictures.
//!
//! They run through two models side by side: the original one and the one quantized so far. When a
//! layer's turn comes, its inputs in both are known: `X` and `X'`. The layer is then quantized so that its
//! output on what it will really see, `X' W'^T`, is close to `X W^T`:
//!
//! - The weights to approximate are those that make up best for the error of earlier layers,
//!   `W (X^T X' + cI) (X'^T X' + cI)^-1` (the asymmetric calibration of GPTAQ, Li et al. 2025,
//!   arXiv 2504.02692).
//! - The quantizer minimises the error of the output, `trace(E X'^T X' E^T)` (see
//!   [`crate::quant::pq::quantize_with_hessian`]).
//! - What is left of a constant error goes into the bias.
//!
//! Inputs are taken about their means, because the bias deals with those.

pub(super) mod images;
mod inputs;
pub(super) mod texts;

use std::collections::HashMap;

pub(super) use inputs::Inputs;
use inputs::Sums;

use crate::error::Result;
use crate::kernels::{self, Codes, Isa, Threads, Weights, Zero};
use crate::layout::to_tiles;
use crate::quant::Matrix;
use crate::quant::pq::{Pq, PqOptions};

/// The original weights and those of the artifact, in the layout that they are used in.
const ORIGINAL: usize = 0;
const QUANTIZED: usize = 1;

/// Calibration data on their way through both models. It is asked about tensors in the order of the artifact, in
/// which a layer's bias follows its weight.
pub(super) trait Calibration {
    /// The inputs of the linear layer with the weight `name`; `None` for other tensors.
    fn inputs(&mut self, name: &str) -> Result<Option<&Inputs>>;

    /// Codes for a tensor without such inputs.
    fn quantize(
        &self,
        name: &str,
        matrix: Matrix<'_>,
        options: &PqOptions,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pq>;

    /// The bias `name` with the mean error of its layer's output taken out; unchanged if it is not
    /// the bias of a layer whose inputs are known.
    fn bias(&self, name: &str, bias: &[f32]) -> Vec<f32>;

    /// Takes note of a tensor's values before and after quantization, `[rows][columns]`.
    fn quantized(&mut self, name: &str, original: &[f32], decoded: Vec<f32>);
}

/// Tensors of both models by name.
type Tensors = HashMap<String, [Stored; 2]>;

/// A tensor's values: tiles of a matrix, or as they are.
struct Stored {
    values: Vec<f32>,
    tiled: bool,
}

impl Stored {
    fn plain(values: Vec<f32>) -> Self {
        Self {
            values,
            tiled: false,
        }
    }

    /// A matrix of so many columns.
    fn tiled(values: &[f32], columns: usize) -> Self {
        let rows = values.len() / columns;
        Self {
            values: to_tiles(values.as_chunks::<1>().0, rows, columns).concat(),
            tiled: true,
        }
    }
}

/// `y = x W^T + bias` with plain `f32` tiles.
fn product(
    (isa, threads): (Isa, Threads),
    weight: &Stored,
    bias: Option<&[f32]>,
    x: &[f32],
    y: &mut [f32],
) {
    debug_assert!(weight.tiled);
    let rows = bias.map_or(y.len(), <[f32]>::len);
    let weights = Weights {
        out_features: rows,
        in_features: weight.values.len() / rows,
        codes: Codes::F32(&weight.values),
        scale: 1.0,
        row_scale: None,
        zero: Zero::Tensor(0),
        bias,
        offsets: None,
    };
    kernels::linear_f32(isa, threads, &weights, x, y);
}

/// A bias that takes up the difference of what a weight and what its codes give for the mean inputs of both.
fn corrected(
    machine: (Isa, Threads),
    weights: &[Stored; 2],
    mean: &[Vec<f32>; 2],
    bias: &[f32],
) -> Vec<f32> {
    let [original, quantized] = [ORIGINAL, QUANTIZED].map(|which| {
        let mut y = vec![0.0; bias.len()];
        product(machine, &weights[which], None, &mean[which], &mut y);
        y
    });
    let differences = original.iter().zip(quantized).map(|(o, q)| o - q);
    bias.iter().zip(differences).map(|(b, d)| b + d).collect()
}
