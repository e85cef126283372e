//! Batch norms, for as long as they are trained: until the layers before them get codes, or the run ends.
//!
//! What they add in the end is the layer's bias, which has its place among the weights.

use tch::Tensor;

use super::weights::{Parameter, Role, Weights, leaf, to_vec};

/// As in torch and in EfficientNet's own code.
const EPSILON: f64 = 1e-3;
/// How much of a batch's mean goes into the mean that is kept.
const MOMENTUM: f64 = 0.1;

/// Of the outputs `[channels]` of a layer.
pub(super) struct Norm {
    gain: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl Norm {
    pub(super) fn new(channels: usize, device: tch::Device) -> Self {
        let shape = [channels as i64];
        let buffer = |value: f32| {
            let values = vec![value; channels];
            leaf(&values, &shape, device).set_requires_grad(false)
        };
        Self {
            gain: leaf(&vec![1.0; channels], &shape, device),
            mean: buffer(0.0),
            variance: buffer(1.0),
        }
    }

    /// Of `x`, `[.., channels]`; in `training` by the mean and variance of `x` itself, unless that is a single
    /// row, which has no variance.
    pub(super) fn apply(&self, x: &Tensor, bias: &Tensor, training: bool) -> Tensor {
        let size = x.size();
        let rows = x.reshape([-1, size[size.len() - 1]]);
        let training = training && rows.size()[0] > 1;
        let normed = rows.batch_norm(
            Some(&self.gain),
            Some(bias),
            Some(&self.mean),
            Some(&self.variance),
            training,
            MOMENTUM,
            EPSILON,
            false,
        );
        normed.view(&size[..])
    }

    /// Everything that changes in training: means and variances have no gradients.
    pub(super) fn parameters<'a>(
        &'a self,
        layer: &str,
    ) -> impl Iterator<Item = Parameter> + use<'a> {
        let parts = [
            ("gain", &self.gain),
            ("mean", &self.mean),
            ("variance", &self.variance),
        ];
        let layer = layer.to_owned();
        parts.into_iter().map(move |(part, tensor)| Parameter {
            name: format!("{layer}.norm:{part}"),
            tensor: tensor.shallow_clone(),
            role: Role::Vector,
        })
    }
}

impl Weights {
    /// Gives the layers' outputs batch norms.
    pub(super) fn normalize(&mut self, layers: impl IntoIterator<Item = String>) {
        for layer in layers {
            if let Some(bias) = self.plain(&format!("{layer}.bias")) {
                let norm = Norm::new(bias.numel(), self.device);
                self.norms.insert(layer, norm);
            }
        }
    }

    /// A layer's batch norm, while it has one.
    pub(super) fn norm(&self, layer: &str) -> Option<&Norm> {
        self.norms.get(layer)
    }

    /// Puts all batch norms into the weights and biases before them.
    pub(super) fn fold(&mut self) {
        for (layer, norm) in std::mem::take(&mut self.norms) {
            let weight = format!("{layer}.weight");
            let bias = format!("{layer}.bias");
            let (Some(w), Some(b)) = (self.plain(&weight), self.plain(&bias)) else {
                continue;
            };
            let (w, b) = tch::no_grad(|| {
                let factor = &norm.gain / (&norm.variance + EPSILON).sqrt();
                (w * factor.unsqueeze(1), b - &norm.mean * &factor)
            });
            let (w, b) = (to_vec(&w), to_vec(&b));
            self.set_plain(&weight, &w);
            self.set_plain(&bias, &b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row has no variance: what is kept stays, and stays finite.
    #[test]
    fn a_single_row_is_normed_by_what_is_kept() {
        let norm = Norm::new(3, tch::Device::Cpu);
        let x = Tensor::from_slice(&[1f32, -2.0, 3.0]).view([1, 1, 1, 3]);
        let bias = Tensor::from_slice(&[0f32; 3]);
        let y = to_vec(&norm.apply(&x, &bias, true));
        assert!((y[2] - 3.0).abs() < 1e-2, "{y:?}");
        assert_eq!(to_vec(&norm.variance), [1.0; 3]);
        assert_eq!(to_vec(&norm.mean), [0.0; 3]);
    }
}
