//! Codes for networks of images that are made layer by layer, on images.
//!
//! As `convert --calibrate` does it for texts: the images run through the network as it is and through the one
//! with the codes made so far, so that the inputs of a layer in both are known when its turn comes. Pointwise
//! layers and the classifier then get codes whose outputs on what they will really see are close to the
//! original ones; depthwise filters count by the power of their channel's input. What is left of a constant
//! error goes into the bias.

use std::collections::{HashMap, HashSet};

use tch::{Kind, Tensor};

use super::images::{Images, Picture};
use super::network::{Forward, Part};
use super::pass::{Pass, Watched};
use super::stage::Model;
use super::weights::to_vec;
use crate::convert::recode::{Moments, Recoded};
use crate::error::Result;
use crate::quant::pq::{self, Pq, PqOptions};
use crate::quant::{Importance, Matrix};

/// Images that run at a time.
const CHUNK: usize = 16;

/// The network as it is, and with codes.
const ORIGINAL: usize = 0;
const QUANTIZED: usize = 1;

struct Calibration<'a> {
    model: &'a Model<Images>,
    /// Of each chunk of images what the present part of the network takes, in both networks.
    inputs: Vec<[Tensor; 2]>,
    /// What codes stand for, and biases, by name.
    quantized: HashMap<String, Tensor>,
}

/// Codes for the matrices `names`.
///
/// # Errors
/// If a picture cannot be read, or for values that are not finite.
pub(super) fn recode(
    model: &Model<Images>,
    names: &HashSet<String>,
    pictures: &[&Picture],
    seed: u64,
) -> Result<Recoded> {
    let mut inputs = Vec::new();
    for pictures in pictures.chunks(CHUNK) {
        let batch = model.batch(pictures)?;
        inputs.push([batch.shallow_clone(), batch]);
    }
    let mut calibration = Calibration {
        model,
        inputs,
        quantized: HashMap::new(),
    };
    let mut recoded = Recoded {
        codes: Vec::new(),
        biases: Vec::new(),
    };
    for part in Part::all(model.learner.config()) {
        for layer in part.layers() {
            let weight = format!("{layer}.weight");
            if !names.contains(&weight) {
                continue;
            }
            let context = |e: crate::Error| e.in_tensor(&weight);
            let (pq, error) = calibration.layer(part, &layer, seed).map_err(context)?;
            recoded.codes.push((weight, pq, error));
            let bias = format!("{layer}.bias");
            let values = to_vec(&calibration.quantized[&bias]);
            recoded.biases.push((bias, values));
        }
        calibration.advance(part)?;
    }
    Ok(recoded)
}

impl Calibration<'_> {
    /// A part's output, and what one of its layers takes and gives, if that is `watched`.
    fn run(
        &self,
        which: usize,
        part: Part,
        x: &Tensor,
        watched: Option<&str>,
    ) -> Result<(Tensor, Option<[Tensor; 2]>)> {
        let mut pass = Pass {
            watched: watched.map(Watched::new),
            ..self.model.pass()
        };
        if which == QUANTIZED {
            let copies = self.quantized.iter();
            let copies = copies.map(|(name, values)| (name.clone(), values.shallow_clone()));
            pass.disturbed = copies.collect::<HashMap<_, _>>().into();
        }
        let forward = Forward {
            config: self.model.learner.config(),
            pass: &pass,
        };
        let y = tch::no_grad(|| forward.part(part, x))?;
        Ok((y, pass.watched.and_then(Watched::seen)))
    }

    fn advance(&mut self, part: Part) -> Result<()> {
        for chunk in 0..self.inputs.len() {
            for which in [ORIGINAL, QUANTIZED] {
                let y = self.run(which, part, &self.inputs[chunk][which], None)?.0;
                self.inputs[chunk][which] = y;
            }
        }
        Ok(())
    }

    /// What a layer takes and gives, without its bias, for each chunk of images.
    fn watch(&self, which: usize, part: Part, layer: &str) -> Result<Vec<[Tensor; 2]>> {
        let chunks = self.inputs.iter();
        let seen = chunks.map(|x| Ok(self.run(which, part, &x[which], Some(layer))?.1));
        let seen: Result<Vec<_>> = seen.collect();
        Ok(seen?.into_iter().flatten().collect())
    }

    /// Codes for a layer, their relative error, and its bias (kept with what the codes stand for).
    fn layer(&mut self, part: Part, layer: &str, seed: u64) -> Result<(Pq, f64)> {
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        let weights = &self.model.weights;
        let values = weights.present(&weight)?;
        let planned = weights.planned(&weight);
        let (rows, columns) = (planned.shape[0], planned.shape[1]);
        let options = planned.plan.pq_options(seed);
        let original = Matrix::new(&values, rows, columns)?;
        let pq = match layer.ends_with(".depthwise") {
            true => self.depthwise(part, layer, original, &options)?,
            false => self
                .moments(part, layer, columns)?
                .codes(original, &options)?,
        };
        let decoded = Tensor::from_slice(&pq.dequantize()).view([rows as i64, columns as i64]);
        self.quantized
            .insert(weight, decoded.to_device(weights.device));
        // What both give on average, of which the bias takes up the difference.
        let [before, after] = [ORIGINAL, QUANTIZED].map(|which| -> Result<Tensor> {
            let outputs = self.watch(which, part, layer)?;
            Ok(mean(outputs.iter().map(|[_, y]| y)))
        });
        let corrected = weights.rows(&bias, None, false)?.detach() + (before? - after?);
        self.quantized.insert(bias, corrected);
        let error = pq.relative_error(original);
        Ok((pq, error))
    }

    fn depthwise(
        &self,
        part: Part,
        layer: &str,
        original: Matrix<'_>,
        options: &PqOptions,
    ) -> Result<Pq> {
        let seen = self.watch(QUANTIZED, part, layer)?;
        let squares: Vec<Tensor> = seen.iter().map(|[x, _]| x.square()).collect();
        let power = to_vec(&mean(squares.iter()));
        let importance = Importance {
            columns: None,
            rows: Some(&power),
        };
        pq::quantize(original, importance, options, &|_| ())
    }

    /// Of the inputs of a pointwise layer.
    fn moments(&self, part: Part, layer: &str, columns: usize) -> Result<Moments> {
        let device = self.model.weights.device;
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, device));
        let n = columns as i64;
        let (mut sums, mut products) =
            ([zeros(&[n]), zeros(&[n])], [zeros(&[n, n]), zeros(&[n, n])]);
        let mut count = 0;
        for x in &self.inputs {
            let rows = [ORIGINAL, QUANTIZED].map(|which| -> Result<Tensor> {
                let seen = self.run(which, part, &x[which], Some(layer))?.1;
                Ok(seen.map_or_else(|| zeros(&[0, n]), |[x, _]| x.reshape([-1, n])))
            });
            let [original, quantized] = rows;
            let (original, quantized) = (original?, quantized?);
            count += quantized.size()[0];
            for (sum, rows) in sums.iter_mut().zip([&original, &quantized]) {
                *sum += rows.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
            }
            for (product, rows) in products.iter_mut().zip([&original, &quantized]) {
                *product += rows
                    .transpose(0, 1)
                    .matmul(&quantized)
                    .to_kind(Kind::Double);
            }
        }
        let mean = sums.map(|sum| sum / count.max(1) as f64);
        // About the means.
        let covariance = |product: &Tensor, of: &Tensor| {
            to_vec(&(product / count.max(1) as f64 - of.outer(&mean[QUANTIZED])))
        };
        let [cross, hessian] =
            [ORIGINAL, QUANTIZED].map(|which| covariance(&products[which], &mean[which]));
        Ok(Moments {
            hessian,
            cross,
            columns,
        })
    }
}

/// Over everything but channels: `[channels]`.
fn mean<'t>(tensors: impl Iterator<Item = &'t Tensor>) -> Tensor {
    let (mut sum, mut count) = (None::<Tensor>, 0);
    for tensor in tensors {
        let rows = tensor.reshape([-1, tensor.size()[tensor.dim() - 1]]);
        count += rows.size()[0];
        let of_tensor = rows.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        sum = Some(match sum {
            Some(sum) => sum + of_tensor,
            None => of_tensor,
        });
    }
    let sum = sum.unwrap_or_else(|| Tensor::zeros([0], (Kind::Double, tch::Device::Cpu)));
    (sum / count.max(1) as f64).to_kind(Kind::Float)
}
