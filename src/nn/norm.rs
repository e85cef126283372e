//! Layer normalisation.

use super::{Loader, Vector, join};
use crate::error::Result;
use crate::kernels::elementwise::Affine;

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

    /// What it multiplies with and adds.
    pub(crate) fn affine(&self) -> Affine<'_> {
        Affine {
            weight: &self.weight,
            bias: &self.bias,
            eps: self.eps,
        }
    }
}
