//! AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101), with a learning rate for centroids, clipping of
//! the gradients' norm, and state that can be saved.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::{Device, Tensor};

use super::weights::{Parameter, Role, to_vec};
use crate::error::{Error, ErrorKind, Result};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Far below the square of `EPSILON`.
const TINY: f64 = 1e-30;
/// Values that are updated together on a CPU: their state stays in the second-level cache in between.
const CHUNK: i64 = 1 << 15;

pub(super) struct AdamW {
    slots: Vec<Slot>,
    /// Of as many threads as torch uses; none if that is one, or if torch is not on the CPU.
    pool: Option<ThreadPool>,
    /// Steps taken.
    pub(super) steps: u64,
}

struct Slot {
    parameter: Parameter,
    mean: Tensor,
    square: Tensor,
}

/// Neighbouring values of a slot, and their gradients.
struct Chunk {
    weights: Tensor,
    mean: Tensor,
    square: Tensor,
    gradient: Tensor,
    rate: f64,
    decay: f64,
}

impl Chunk {
    /// `scale` is that of gradients, `first` and `second` correct the two means for where they started.
    fn step(mut self, scale: f64, [first, second]: [f64; 2]) {
        if scale != 1.0 {
            // Nobody reads it after this.
            self.gradient *= scale;
        }
        let _ = self.mean.lerp_(&self.gradient, 1.0 - BETA1);
        let _ = (self.square).lerp_(&self.gradient.square(), 1.0 - BETA2);
        // Roots of 0, as of all rows of a table that no text has touched yet, would be slow.
        let mut root = (&self.square + TINY).sqrt_();
        root += EPSILON * second.sqrt();
        let mut step = &self.mean / root;
        step *= self.rate * second.sqrt() / first;
        if self.decay > 0.0 {
            self.weights *= 1.0 - self.rate * self.decay;
        }
        self.weights -= step;
    }
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
        let on_cpu = |p: &Parameter| p.tensor.device() == Device::Cpu;
        let threads = match parameters.iter().all(on_cpu) {
            true => tch::get_num_threads().max(1) as usize,
            false => 1,
        };
        Self {
            slots: parameters.into_iter().map(slot).collect(),
            // Without one it goes on alone.
            pool: (threads > 1)
                .then(|| ThreadPoolBuilder::new().num_threads(threads).build().ok())
                .flatten(),
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
            let correction = [BETA1, BETA2].map(correct);
            let mut chunks = Vec::new();
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
                // A GPU's time is lost between calls.
                let most = match gradient.device() {
                    Device::Cpu => CHUNK,
                    _ => len.max(1),
                };
                for start in (0..len).step_by(most as usize) {
                    let chunk = |tensor: &Tensor| tensor.narrow(0, start, most.min(len - start));
                    let [weights, mean, square, gradient] = flat.each_ref().map(chunk);
                    chunks.push(Chunk {
                        weights,
                        mean,
                        square,
                        gradient,
                        rate,
                        decay,
                    });
                }
            }
            // Torch would share out a chunk's values only if there were more of them.
            match &self.pool {
                None => chunks.into_iter().for_each(|c| c.step(scale, correction)),
                Some(pool) => pool.install(|| {
                    let step = |c: Chunk| tch::no_grad(|| c.step(scale, correction));
                    chunks.into_par_iter().for_each(step);
                }),
            }
            Ok(norm)
        })
    }

    /// The gradients, and the norm of all together. There is none of what the step did not reach, like a layer
    /// that was skipped: it is not to decay, nor to go on as it went before.
    fn gradients(&self) -> Result<(Vec<Option<Tensor>>, f64)> {
        let mut gradients = Vec::with_capacity(self.slots.len());
        let (mut slots, mut norms) = (Vec::new(), Vec::new());
        for (number, slot) in self.slots.iter().enumerate() {
            let gradient = slot.parameter.tensor.grad();
            if !gradient.defined() {
                gradients.push(None);
                continue;
            }
            let gradient = match &slot.parameter.role {
                Role::Centroids(counts) => gradient / counts,
                _ => gradient,
            };
            slots.push(number);
            norms.push(gradient.norm());
            gradients.push(Some(gradient));
        }
        let mut square = 0.0;
        if !norms.is_empty() {
            // At once: a GPU's are waited for.
            for (number, norm) in slots.into_iter().zip(to_vec(&Tensor::stack(&norms, 0))) {
                if !norm.is_finite() {
                    let message = "the gradient is not finite";
                    let name = &self.slots[number].parameter.name;
                    return Err(Error::new(ErrorKind::Input, message).in_tensor(name));
                }
                if norm == 0.0 {
                    // Zeros are what `forget` leaves, and before the first gradient there is none: a run
                    // that goes on must not differ.
                    gradients[number] = None;
                }
                square += f64::from(norm) * f64::from(norm);
            }
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

    /// Whether all weights are numbers.
    pub(super) fn finite(&self) -> bool {
        let mut tensors = self.slots.iter().map(|slot| &slot.parameter.tensor);
        tensors.all(|tensor| tensor.isfinite().all().int64_value(&[]) != 0)
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
