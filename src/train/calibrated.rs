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
use crate::quant::pq::{self, Pq};
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

/// Codes for the matrices `names`. Calls `made` with the name and the relative error of each.
///
/// # Errors
/// If a picture cannot be read, if `made` has one, or for values that are not finite.
pub(super) fn recode(
    model: &Model<Images>,
    names: &HashSet<String>,
    pictures: &[&Picture],
    seed: u64,
    made: &mut dyn FnMut(&str, f64) -> Result<()>,
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
            made(&weight, error)?;
            recoded.codes.push((weight, pq));
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

    /// The mean of each channel, over all images and pixels, of something of what a layer takes and gives
    /// (without its bias).
    fn mean(
        &self,
        which: usize,
        (part, layer): (Part, &str),
        of: impl Fn([Tensor; 2]) -> Tensor,
    ) -> Result<Tensor> {
        let (mut sum, mut count) = (Tensor::from(0f64), 0);
        for x in &self.inputs {
            if let Some(seen) = self.run(which, part, &x[which], Some(layer))?.1 {
                let rows = rows(&of(seen));
                count += rows.size()[0];
                sum = rows.sum_dim_intlist([0i64].as_slice(), false, Kind::Double) + sum;
            }
        }
        Ok((sum / count.max(1) as f64).to_kind(Kind::Float))
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
        let pq = match layer.rsplit('.').next() {
            Some("depthwise") => {
                let power = self.mean(QUANTIZED, (part, layer), |[x, _]| x.square())?;
                let power = to_vec(&power);
                pq::quantize(
                    original,
                    Importance {
                        columns: None,
                        rows: Some(&power),
                    },
                    &options,
                    &|_| (),
                )?
            }
            Some("stem") => pq::quantize(original, Importance::default(), &options, &|_| ())?,
            _ => {
                let moments = self.moments(part, layer, columns)?;
                moments.codes(original, &options)?
            }
        };
        let decoded = Tensor::from_slice(&pq.dequantize()).view([rows as i64, columns as i64]);
        self.quantized
            .insert(weight, decoded.to_device(weights.device));
        // What both give on average, of which the bias takes up the difference.
        let given = |which| self.mean(which, (part, layer), |[_, y]| y);
        let (before, after) = (given(ORIGINAL)?, given(QUANTIZED)?);
        let corrected = weights.rows(&bias, None, false)?.detach() + (before - after);
        self.quantized.insert(bias, corrected);
        let error = pq.relative_error(original);
        Ok((pq, error))
    }

    /// Of the inputs of a pointwise layer.
    fn moments(&self, part: Part, layer: &str, columns: usize) -> Result<Moments> {
        let device = self.model.weights.device;
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, device));
        let n = columns as i64;
        let (mut sums, mut products) =
            ([zeros(&[n]), zeros(&[n])], [zeros(&[n, n]), zeros(&[n, n])]);
        let mut count = 0;
        let mut about: Option<[Tensor; 2]> = None;
        for x in &self.inputs {
            let [original, quantized] = [ORIGINAL, QUANTIZED].map(|which| -> Result<Tensor> {
                let seen = self.run(which, part, &x[which], Some(layer))?.1;
                Ok(seen.map_or_else(|| zeros(&[0, n]).to_kind(Kind::Float), |[x, _]| rows(&x)))
            });
            let taken = [original?, quantized?];
            // About the means of the first images: what large means leave of f32 is too little else.
            let about = about.get_or_insert_with(|| {
                let mean = |of: &Tensor| of.mean_dim([0i64].as_slice(), false, Kind::Float);
                [ORIGINAL, QUANTIZED].map(|which| mean(&taken[which]))
            });
            let apart = [ORIGINAL, QUANTIZED].map(|which| &taken[which] - &about[which]);
            count += apart[QUANTIZED].size()[0];
            for (sum, of) in sums.iter_mut().zip(&apart) {
                *sum += of.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
            }
            for (product, of) in products.iter_mut().zip(&apart) {
                *product += of
                    .transpose(0, 1)
                    .matmul(&apart[QUANTIZED])
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

/// `[.., channels]` as rows.
fn rows(x: &Tensor) -> Tensor {
    x.reshape([-1, x.size()[x.dim() - 1]])
}
