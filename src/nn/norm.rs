//! Layer normalisation.

use super::{Loader, Vector, join};
use crate::error::Result;
use crate::kernels::elementwise;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension.
pub(crate) struct Norm {
    weight: Vector,
    bias: Vector,
    eps: f32,
}

impl Norm {
    /// Takes `{prefix}.weight` and `{prefix}.bias`.
    pub(crate) fn load(loader: &mut Loader, prefix: &str, n: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: loader.vector(&join(prefix, "weight"), n)?,
            bias: loader.vector(&join(prefix, "bias"), n)?,
            eps: eps as f32,
        })
    }

    /// Normalises every row of `x` (`[m][n]`) in place.
    pub(crate) fn forward(&self, x: &mut [f32]) {
        for row in x.chunks_exact_mut(self.weight.len()) {
            elementwise::layer_norm(row, &self.weight, &self.bias, self.eps);
        }
    }

    /// `x = norm(x + residual)`
    pub(crate) fn add_forward(&self, x: &mut [f32], residual: &[f32]) {
        x.iter_mut().zip(residual).for_each(|(x, r)| *x += r);
        self.forward(x);
    }
}
