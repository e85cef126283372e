//! Codes for some matrices of a model in training, made as the calibrated conversion makes them.

use std::collections::HashSet;

use super::calibrate::texts::Texts;
pub(crate) use super::calibrate::texts::Tokens;
use super::calibrate::{Calibration, Inputs};
pub(crate) use super::encode::relative_error;
pub(crate) use super::sensitivity::Sensitivity;
use super::trained::Base;
use crate::error::{Error, Result};
use crate::quant::Matrix;
use crate::quant::pq::{self, Pq, PqOptions};

/// What became of the tensors of a model.
pub(crate) struct Recoded {
    /// Codes by name.
    pub(crate) codes: Vec<(String, Pq)>,
    /// The biases of their layers, by name.
    pub(crate) biases: Vec<(String, Vec<f32>)>,
}

/// Covariances of a linear layer's inputs: `x` in the model as it was, `x'` in the one with codes so far.
pub(crate) struct Moments {
    pub(crate) columns: usize,
    /// Of `x'` with itself, `[columns][columns]`.
    pub(crate) hessian: Vec<f32>,
    /// Of `x` with `x'`.
    pub(crate) cross: Vec<f32>,
}

impl Moments {
    /// Codes whose outputs on `x'` come as close as they can to those of `weights` on `x`, but for a constant.
    ///
    /// # Errors
    /// As for [`pq::quantize_with_hessian`].
    pub(crate) fn codes(self, weights: Matrix<'_>, options: &PqOptions) -> Result<Pq> {
        let (rows, columns) = (weights.rows(), self.columns);
        let inputs = Inputs::new(columns, self.hessian, self.cross);
        let target = inputs.target(weights.data(), rows)?;
        let target = Matrix::new(&target, rows, columns)?;
        pq::quantize_with_hessian(target, &inputs.hessian, None, options, &|_| ())
    }
}

impl Base {
    /// Gives the matrices `names` codes, one layer after another, so that each comes as close as it can to
    /// what the model with its present `values` computes of `texts`, on the inputs that the layers before it
    /// really give. Layers' biases take up what is left of a constant error. With `gradients`, errors
    /// count as much as these say. Calls `made` with the name and the relative error of each.
    ///
    /// # Errors
    /// If `values` or `made` has one, or for values that are not finite.
    pub(crate) fn recode(
        &self,
        names: &HashSet<String>,
        values: &dyn Fn(&str) -> Result<Vec<f32>>,
        texts: Vec<Tokens>,
        gradients: Option<&Sensitivity>,
        seed: u64,
        made: &mut dyn FnMut(&str, f64) -> Result<()>,
    ) -> Result<Recoded> {
        let conversion = self.conversion();
        let mut calibration = Texts::on(conversion, texts, gradients, values)?;
        let mut recoded = Recoded {
            codes: Vec::new(),
            biases: Vec::new(),
        };
        for (tensor, planned) in conversion.tensors.iter().zip(&conversion.planned) {
            let context = |e: Error| e.in_tensor(&tensor.name);
            let original = values(&tensor.name)?;
            if !names.contains(&tensor.name) {
                let adjusted = calibration.bias(&tensor.name, &original);
                if adjusted != original {
                    recoded.biases.push((tensor.name.clone(), adjusted.clone()));
                }
                calibration.quantized(&tensor.name, &original, adjusted);
                continue;
            }
            let (rows, columns) = tensor.matrix();
            let matrix = Matrix::new(&original, rows, columns).map_err(context)?;
            let options = planned.plan.pq_options(seed);
            let pq = match calibration.inputs(&tensor.name).map_err(context)? {
                Some(inputs) => {
                    let target = inputs.target(&original, rows).map_err(context)?;
                    let target = Matrix::new(&target, rows, columns).map_err(context)?;
                    pq::quantize_with_hessian(target, &inputs.hessian, None, &options, &|_| ())
                }
                None => calibration.quantize(&tensor.name, matrix, &options, &|_| ()),
            };
            let pq = pq.map_err(context)?;
            let decoded = pq.dequantize();
            let error = relative_error(&original, &decoded);
            calibration.quantized(&tensor.name, &original, decoded);
            made(&tensor.name, error)?;
            recoded.codes.push((tensor.name.clone(), pq));
        }
        Ok(recoded)
    }
}
