//! AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101), with a learning rate for centroids, clipping of
//! the gradients' norm, and state that can be saved.

use tch::Tensor;

use super::weights::{Parameter, Role};
use crate::error::{Error, ErrorKind, Result};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Values that are updated together: their state stays in the second-level cache in between.
const CHUNK: i64 = 1 << 15;

pub(super) struct AdamW {
    slots: Vec<Slot>,
    /// Steps taken.
    pub(super) steps: u64,
}

struct Slot {
    parameter: Parameter,
    mean: Tensor,
    square: Tensor,
}

/// How large a step is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) weights: f64,
    pub(super) centroids: f64,
    /// Weight decay of matrices, in parts of the learning rate.
    pub(super) decay: f64,
    /// The largest norm of all gradients together.
    pub(super) clip: f64,
}

impl AdamW {
    pub(super) fn new(parameters: Vec<Parameter>) -> Self {
        let slot = |parameter: Parameter| Slot {
            mean: parameter.tensor.detach().zeros_like(),
            square: parameter.tensor.detach().zeros_like(),
            parameter,
        };
        Self {
            slots: parameters.into_iter().map(slot).collect(),
            steps: 0,
        }
    }

    /// Forgets all gradients.
    pub(super) fn forget(&mut self) {
        for slot in &mut self.slots {
            slot.parameter.tensor.zero_grad();
        }
    }

    /// Takes a step; returns the norm of the gradients before clipping. A centroid's gradient is the mean
    /// over its blocks.
    ///
    /// # Errors
    /// If a gradient is not finite: the tensor is named, and nothing is changed.
    pub(super) fn step(&mut self, rates: Rates) -> Result<f64> {
        tch::no_grad(|| {
            let (gradients, norm) = self.gradients()?;
            let scale = if norm > rates.clip {
                rates.clip / norm
            } else {
                1.0
            };
            self.steps += 1;
            let correct = |beta: f64| 1.0 - beta.powf(self.steps as f64);
            let (first, second) = (correct(BETA1), correct(BETA2));
            for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
                let Some(gradient) = gradient else { continue };
                let (rate, decay) = match slot.parameter.role {
                    Role::Matrix => (rates.weights, rates.decay),
                    Role::Vector => (rates.weights, 0.0),
                    Role::Centroids(_) => (rates.centroids, 0.0),
                };
                let flat = [&slot.parameter.tensor, &slot.mean, &slot.square, &gradient]
                    .map(|tensor| tensor.detach().view([-1]));
                let len = flat[0].size()[0];
                for start in (0..len).step_by(CHUNK as usize) {
                    let chunk = |tensor: &Tensor| tensor.narrow(0, start, CHUNK.min(len - start));
                    let [mut weights, mut mean, mut square, gradient] = flat.each_ref().map(chunk);
                    let gradient = gradient * scale;
                    let _ = mean.lerp_(&gradient, 1.0 - BETA1);
                    square *= BETA2;
                    square += gradient.square() * (1.0 - BETA2);
                    let step = &mean / ((&square / second).sqrt() + EPSILON);
                    if decay > 0.0 {
                        weights *= 1.0 - rate * decay;
                    }
                    weights -= step * (rate / first);
                }
            }
            Ok(norm)
        })
    }

    /// The gradients, and the norm of all together.
    fn gradients(&self) -> Result<(Vec<Option<Tensor>>, f64)> {
        let mut gradients = Vec::with_capacity(self.slots.len());
        let mut square = 0.0;
        for slot in &self.slots {
            let gradient = slot.parameter.tensor.grad();
            if !gradient.defined() {
                gradients.push(None);
                continue;
            }
            let gradient = match &slot.parameter.role {
                Role::Centroids(counts) => gradient / counts,
                _ => gradient,
            };
            let norm = gradient.norm().double_value(&[]);
            if !norm.is_finite() {
                let message = "the gradient is not finite";
                return Err(Error::new(ErrorKind::Input, message).in_tensor(&slot.parameter.name));
            }
            square += norm * norm;
            gradients.push(Some(gradient));
        }
        Ok((gradients, square.sqrt()))
    }

    /// Everything that a later run needs, with the weights: names and tensors.
    pub(super) fn state(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.slots.iter().flat_map(|slot| {
            let name = &slot.parameter.name;
            [
                (format!("weights/{name}"), &slot.parameter.tensor),
                (format!("mean/{name}"), &slot.mean),
                (format!("square/{name}"), &slot.square),
            ]
        })
    }

    /// What steps have changed since, by name.
    pub(super) fn weights(&self) -> Vec<(String, Tensor)> {
        let copy = |slot: &Slot| {
            let parameter = &slot.parameter;
            (parameter.name.clone(), parameter.tensor.detach().copy())
        };
        self.slots.iter().map(copy).collect()
    }

    /// Sets everything that `state` names.
    pub(super) fn set(&mut self, values: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        tch::no_grad(|| {
            for slot in &mut self.slots {
                let name = &slot.parameter.name;
                let targets = [
                    ("weights", &mut slot.parameter.tensor),
                    ("mean", &mut slot.mean),
                    ("square", &mut slot.square),
                ];
                for (part, target) in targets {
                    let name = format!("{part}/{name}");
                    match values(&name) {
                        Some(value) if value.numel() == target.numel() => {
                            target.copy_(&value.view_as(target));
                        }
                        _ => {
                            let message = "missing, or of another shape";
                            return Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(name));
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Sets the weights to earlier ones.
    pub(super) fn set_weights(&mut self, weights: &[(String, Tensor)]) {
        tch::no_grad(|| {
            for (slot, (name, value)) in self.slots.iter_mut().zip(weights) {
                debug_assert_eq!(&slot.parameter.name, name);
                slot.parameter.tensor.copy_(value);
            }
        });
    }
}
