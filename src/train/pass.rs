//! A forward pass's view of the weights: with noise, as codes, rounded as the runtime rounds.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::noise::{Look, Noise};
use super::weights::Weights;
use crate::artifact::Scheme;
use crate::error::Result;

/// Noise on some tensors, and what it knows of them.
pub(super) struct Disturbance<'a> {
    pub(super) noise: &'a Noise,
    pub(super) rate: f64,
    /// What [`Noise::look`] found, by tensor: what is not here is not disturbed.
    pub(super) seen: &'a HashMap<String, Look>,
}

/// Rows rounded to 8 bits, each with a scale from its own maximum; the gradient is that of `x`.
fn rounded(x: &Tensor) -> Tensor {
    let rounded = tch::no_grad(|| {
        let scale = x.abs().amax([-1], true) / 127.0;
        let scale = scale.clamp_min(f64::from(f32::MIN_POSITIVE));
        (x / &scale).round() * scale
    });
    x + (rounded - x).detach()
}

/// What a layer takes and what it gives without its bias, `[.., channels]`.
pub(super) struct Watched {
    layer: String,
    seen: RefCell<Option<[Tensor; 2]>>,
}

impl Watched {
    pub(super) fn new(layer: &str) -> Self {
        Self {
            layer: layer.to_owned(),
            seen: RefCell::default(),
        }
    }

    pub(super) fn seen(self) -> Option<[Tensor; 2]> {
        self.seen.into_inner()
    }
}

/// By the names of linear layers: `[columns]`, and a number of tokens.
pub(super) type Inputs = HashMap<String, (Tensor, i64)>;

/// A model in one forward pass.
pub(super) struct Pass<'a> {
    pub(super) weights: &'a Weights,
    pub(super) noise: Option<Disturbance<'a>>,
    /// Whether it is a step's: batch norms take the batch's own means then, and remember them.
    pub(super) training: bool,
    /// Probability of dropping a value; 0 outside of training.
    pub(super) dropout: f64,
    /// Layers that are skipped; none if it is empty.
    pub(super) skipped: Vec<bool>,
    /// Whether inputs of linear layers and centroids are rounded as the runtime's mode `int8` does it.
    pub(super) int8: bool,
    /// Whether linear layers multiply in bf16.
    pub(super) bf16: bool,
    /// For each linear layer the sum of the squares of each of its inputs, and over how many tokens; kept
    /// where it is asked for.
    pub(super) inputs: Option<RefCell<Inputs>>,
    /// The sums of the embedding tables' rows, `[texts, tokens, hidden]`, as a leaf that gradients can be
    /// asked for; kept where it is asked for.
    pub(super) embedded: Option<RefCell<Option<Tensor>>>,
    /// Outputs of linear layers by their weights' names, that gradients can be asked for; kept where they are
    /// asked for.
    pub(super) outputs: Option<RefCell<Vec<(String, Tensor)>>>,
    /// A layer whose inputs and outputs are kept, if there is one.
    pub(super) watched: Option<Watched>,
    /// Matrices as they are used, with noise: layers that share weights see the same.
    pub(super) disturbed: RefCell<HashMap<String, Tensor>>,
}

impl<'a> Pass<'a> {
    /// Of weights as they are, without noise or dropout.
    pub(super) fn plain(weights: &'a Weights) -> Self {
        Self {
            weights,
            noise: None,
            training: false,
            dropout: 0.0,
            skipped: Vec::new(),
            int8: false,
            bf16: false,
            inputs: None,
            embedded: None,
            outputs: None,
            watched: None,
            disturbed: RefCell::default(),
        }
    }

    /// The same pass, for other examples.
    pub(super) fn again(self) -> Self {
        self.disturbed.borrow_mut().clear();
        self
    }

    pub(super) fn skips(&self, layer: usize) -> bool {
        self.skipped.get(layer).is_some_and(|&skipped| skipped)
    }

    /// `x` is `[.., in_features]`.
    pub(super) fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        self.product(x, name, self.int8)
    }

    /// One that the runtime computes in `f32` in the mode `int8`, too.
    pub(super) fn exact_linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        self.product(x, name, false)
    }

    fn product(&self, x: &Tensor, layer: &str, int8: bool) -> Result<Tensor> {
        let name = format!("{layer}.weight");
        // The runtime rounds no inputs of matrices in floats.
        let floats = matches!(self.weights.plan(&name).scheme, Scheme::F32 | Scheme::F16);
        let int8 = int8 && !floats;
        let weight = self.matrix(&name, int8)?;
        if let Some(inputs) = &self.inputs {
            let rows = x.reshape([-1, x.size()[x.dim() - 1]]);
            let squares = rows
                .square()
                .sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
            let mut inputs = inputs.borrow_mut();
            let zeros = || (squares.zeros_like(), 0);
            let (sum, tokens) = inputs.entry(name.clone()).or_insert_with(zeros);
            *sum += squares;
            *tokens += rows.size()[0];
        }
        let apart = self.weights.norm(layer).is_some() || self.watches(layer);
        let bias = match apart {
            true => None,
            false => Some(self.vector(&format!("{layer}.bias"))?),
        };
        let output = if int8 {
            rounded(x).linear(&weight, bias)
        } else if self.bf16 {
            let half = |tensor: &Tensor| tensor.to_kind(Kind::BFloat16);
            let product = half(x).linear(&half(&weight), None::<&Tensor>);
            let product = product.to_kind(Kind::Float);
            match bias {
                Some(bias) => product + bias,
                None => product,
            }
        } else {
            x.linear(&weight, bias)
        };
        if let Some(outputs) = &self.outputs {
            outputs.borrow_mut().push((name, output.shallow_clone()));
        }
        match apart {
            true => self.shifted(x, output, layer),
            false => Ok(output),
        }
    }

    fn watches(&self, layer: &str) -> bool {
        (self.watched.as_ref()).is_some_and(|watched| watched.layer == layer)
    }

    /// A layer's outputs `[.., channels]` for `x`, with what it adds, behind its batch norm if it has one.
    pub(super) fn shifted(&self, x: &Tensor, y: Tensor, layer: &str) -> Result<Tensor> {
        if let Some(watched) = &self.watched
            && watched.layer == layer
        {
            let seen = [x, &y].map(Tensor::shallow_clone);
            watched.seen.replace(Some(seen));
        }
        let bias = self.vector(&format!("{layer}.bias"))?;
        Ok(match self.weights.norm(layer) {
            Some(norm) => norm.apply(&y, &bias, self.training),
            None => y + bias,
        })
    }

    pub(super) fn vector(&self, name: &str) -> Result<Tensor> {
        if let Some(vector) = self.disturbed.borrow().get(name) {
            return Ok(vector.shallow_clone());
        }
        self.weights.rows(name, None, false)
    }

    pub(super) fn drop(&self, x: Tensor) -> Tensor {
        if self.dropout > 0.0 {
            x.dropout(self.dropout, true)
        } else {
            x
        }
    }

    /// All of a matrix `[rows, columns]`; `int8`: with centroids as that mode rounds them.
    pub(super) fn matrix(&self, name: &str, int8: bool) -> Result<Tensor> {
        if let Some(matrix) = self.disturbed.borrow().get(name) {
            return Ok(matrix.shallow_clone());
        }
        let matrix = self.with_noise(name, self.weights.rows(name, None, int8)?, None)?;
        let copy = matrix.shallow_clone();
        self.disturbed.borrow_mut().insert(name.to_owned(), copy);
        Ok(matrix)
    }

    pub(super) fn with_noise(
        &self,
        name: &str,
        rows: Tensor,
        ids: Option<&Tensor>,
    ) -> Result<Tensor> {
        let Some(disturbance) = &self.noise else {
            return Ok(rows);
        };
        match disturbance.seen.get(name) {
            Some(seen) => {
                let plan = self.weights.plan(name);
                let (noise, rate) = (disturbance.noise, disturbance.rate);
                noise
                    .disturb(&rows, plan, rate, seen, ids)
                    .map_err(|e| e.in_tensor(name))
            }
            None => Ok(rows),
        }
    }
}
