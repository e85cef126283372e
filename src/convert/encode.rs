//! Quantizing the tensors of a plan and putting the artifact together.

use std::collections::HashMap;

use half::f16;

use super::calibrate::Calibration;
use super::calibrate::images::Pictures;
use super::calibrate::texts::Texts;
use super::{Conversion, GroupPlan, Model, PlannedTensor, Source, random};
use crate::artifact::{
    self, Group, Layout, ModelKind, NewCodebook, NewValues, NewZero, Scheme, Writer,
};
use crate::error::{Error, ErrorKind, Result};
use crate::quant::pq::{self, Pq, PqOptions};
use crate::quant::scalar::{self, Scalar, ScalarOptions, ZeroPoint};
use crate::quant::{Codebook, Importance, Matrix};

/// A tensor of the artifact to be.
#[derive(Debug, Clone)]
pub(super) struct NewTensor {
    pub(super) name: String,
    /// The layer of the result that it belongs to.
    pub(super) layer: Option<usize>,
    pub(super) group: Group,
    pub(super) layout: Layout,
    pub(super) shape: Vec<usize>,
    pub(super) origin: Origin,
}

/// Where its values come from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// The tensor of this name.
    Checkpoint(String),
    /// In the checkpoint to be it has this name.
    #[cfg(feature = "train")]
    New(String),
    Random,
}

impl NewTensor {
    /// Rows and columns; a vector is one row.
    pub(super) fn matrix(&self) -> (usize, usize) {
        match self.shape[..] {
            [rows, columns] => (rows, columns),
            _ => (1, self.shape[0]),
        }
    }
}

/// What training left of a tensor.
#[cfg(feature = "train")]
pub(crate) enum Trained {
    /// Weights, to be quantized as planned.
    Values(Vec<f32>),
    /// Codes and trained centroids.
    Pq(Pq),
}

/// What a conversion did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Each tensor, in the order of the file.
    pub tensors: Vec<TensorReport>,
    /// Size of the file.
    pub file_bytes: u64,
    /// Everything that the forward pass needs.
    pub weight_bytes: u64,
    /// The tokenizer.
    pub tokenizer_bytes: u64,
    /// Parameters of the layers run, shared ones each time.
    pub parameters: u64,
}

impl Report {
    /// Times smaller than `f32` weights.
    pub fn compression_ratio(&self) -> f64 {
        4.0 * self.parameters as f64 / self.weight_bytes as f64
    }
}

/// What became of a tensor.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TensorReport {
    /// Its name in the artifact.
    pub name: String,
    /// How it is stored.
    pub scheme: Scheme,
    /// `|W - W'| / |W|` in the Frobenius norm; `None` for generated weights.
    pub relative_error: Option<f64>,
}

pub(super) fn encode(
    conversion: &Conversion,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<u8>, Report)> {
    let mut writer = match &conversion.model {
        Model::Text(text) => Writer::new(ModelKind::Encoder, text.config.to_body()?),
        Model::Image(config) => Writer::new(ModelKind::EfficientNet, config.to_body()?),
    };
    let mut report = Report::default();
    let mut calibration: Option<Box<dyn Calibration + '_>> = match &conversion.model {
        Model::Text(_) if !conversion.calibration.is_empty() => {
            let original = |name: &str| {
                let mut tensors = conversion.tensors.iter();
                let tensor = tensors.find(|t| t.name == name);
                match (&conversion.source, tensor.map(|t| &t.origin)) {
                    (Source::Checkpoint(checkpoint), Some(Origin::Checkpoint(name))) => {
                        checkpoint.values(name)
                    }
                    _ => Err(Error::new(ErrorKind::Checkpoint, "is missing").in_tensor(name)),
                }
            };
            Some(Box::new(Texts::new(conversion, &original)?))
        }
        Model::Image(config) if !conversion.pictures.is_empty() => {
            Some(Box::new(Pictures::read(config, &conversion.pictures)?))
        }
        _ => None,
    };
    let mut random = random::Weights::new(conversion.plan.seed);
    // Names of a layer's tensors, to be shared by the layers that use them.
    let mut by_layer: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, (tensor, planned)) in
        (conversion.tensors.iter().zip(&conversion.planned)).enumerate()
    {
        let (values, relative_error) = match (&conversion.source, &tensor.origin) {
            (Source::Checkpoint(checkpoint), Origin::Checkpoint(name)) => {
                let weights = checkpoint.values(name)?;
                let context = |e: Error| checkpoint.locate(name, e);
                let kept = planned.kept.then(|| {
                    let codes = checkpoint.codes(name, planned.plan.centroid_type)?;
                    Some(codes.map(|pq| keep(&tensor.name, pq, &weights, &mut calibration)))
                });
                let quantized = match kept.flatten() {
                    Some(kept) => {
                        progress(planned.parameters());
                        kept
                    }
                    None => quantize(
                        conversion,
                        tensor,
                        planned,
                        &weights,
                        &mut calibration,
                        progress,
                    ),
                };
                let quantized = quantized.map(|(values, error)| (values, Some(error)));
                quantized.map_err(context)?
            }
            #[cfg(feature = "train")]
            (Source::Trained(trained), _) => {
                let trained = trained.get(&tensor.name);
                let missing = || Error::new(ErrorKind::Checkpoint, "was not trained");
                let context = |e: Error| e.in_tensor(&tensor.name);
                match trained.ok_or_else(|| context(missing()))? {
                    Trained::Values(weights) => quantize(
                        conversion,
                        tensor,
                        planned,
                        weights,
                        &mut calibration,
                        progress,
                    )
                    .map(|(values, error)| (values, Some(error)))
                    .map_err(context)?,
                    Trained::Pq(pq) => {
                        progress(planned.parameters());
                        (from_pq(pq.clone()), None)
                    }
                }
            }
            _ => {
                let values = random.draw(tensor, planned);
                progress(planned.parameters());
                (values, None)
            }
        };
        writer.tensor(
            &tensor.name,
            tensor.group,
            tensor.layout,
            &tensor.shape,
            values,
        )?;
        report.tensors.push(TensorReport {
            name: tensor.name.clone(),
            scheme: planned.plan.scheme,
            relative_error,
        });
        if let Some(layer) = tensor.layer {
            by_layer.entry(layer).or_default().push(index);
        }
    }
    if let Model::Text(text) = &conversion.model {
        for (layer, &original) in text.layer_of.iter().enumerate() {
            if layer == original {
                continue;
            }
            for &index in by_layer.get(&original).into_iter().flatten() {
                let of = &conversion.tensors[index].name;
                let part = of.splitn(3, '.').nth(2).unwrap_or_default();
                writer.shared(&format!("layers.{layer}.{part}"), of)?;
            }
        }
        writer.tokenizer(&text.tokenizer);
    }
    report.parameters = parameters(conversion);
    if let Some(labels) = &conversion.labels {
        writer.labels(labels)?;
    }
    writer.provenance("tool", concat!("centroid ", env!("CARGO_PKG_VERSION")));
    for (key, value) in &conversion.provenance {
        writer.provenance(key, value);
    }
    writer.provenance("recipe", recipe(conversion));
    writer.provenance("seed", conversion.plan.seed.to_string());
    Ok((writer.into_bytes()?, report))
}

/// Parameters of the layers run: a shared layer counts each time it runs.
fn parameters(conversion: &Conversion) -> u64 {
    let runs = |layer: Option<usize>| match (layer, &conversion.model) {
        (Some(layer), Model::Text(text)) => {
            text.layer_of.iter().filter(|&&l| l == layer).count() as u64
        }
        _ => 1,
    };
    (conversion.tensors.iter().zip(&conversion.planned))
        .map(|(tensor, planned)| runs(tensor.layer) * planned.parameters())
        .sum()
}

/// The plan in a line, for the provenance.
fn recipe(conversion: &Conversion) -> String {
    let mut parts: Vec<String> = Vec::new();
    for group in super::plan::GROUPS {
        let of_group = conversion.planned.iter().find(|t| t.group == group);
        if let Some(PlannedTensor { plan, .. }) = of_group {
            let mut part = format!("{}={}", group.name(), plan.scheme.name());
            if plan.scheme == Scheme::Pq {
                part += &format!("/{}", plan.block);
                if plan.codebooks > 1 {
                    part += &format!("/{}-codebooks", plan.codebooks);
                }
            }
            if plan.row_scale {
                part += "/row-scale";
            }
            parts.push(part);
        }
    }
    let (texts, pictures) = (conversion.calibration.len(), conversion.pictures.len());
    let method = match &conversion.source {
        Source::Random => "generated weights".to_owned(),
        #[cfg(feature = "train")]
        Source::Trained(_) => "trained".to_owned(),
        _ if texts > 0 => format!("post-training, calibrated on {texts} texts"),
        _ if pictures > 0 => format!("post-training, calibrated on {pictures} pictures"),
        _ => "post-training".to_owned(),
    };
    format!("{method}; {}", parts.join(" "))
}

/// The stored form of codes that the checkpoint has, and how far rounding took their centroids.
fn keep(
    name: &str,
    pq: Pq,
    original: &[f32],
    calibration: &mut Option<Box<dyn Calibration + '_>>,
) -> (NewValues, f64) {
    let decoded = pq.dequantize();
    let error = relative_error(original, &decoded);
    if let Some(calibration) = calibration {
        calibration.quantized(name, original, decoded);
    }
    (from_pq(pq), error)
}

/// Quantizes one tensor; returns its stored form and relative error.
fn quantize(
    conversion: &Conversion,
    tensor: &NewTensor,
    planned: &PlannedTensor,
    weights: &[f32],
    calibration: &mut Option<Box<dyn Calibration + '_>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(NewValues, f64)> {
    let (rows, columns) = tensor.matrix();
    let plan = &planned.plan;
    let original = weights;
    let adjusted;
    let weights = match calibration {
        Some(calibration) => {
            adjusted = calibration.bias(&tensor.name, weights);
            &adjusted[..]
        }
        None => weights,
    };
    let matrix = Matrix::new(weights, rows, columns)?;
    let mut target = None;
    let inputs = match calibration {
        Some(calibration) => calibration.inputs(&tensor.name)?,
        None => None,
    };
    let (values, decoded) = match plan.scheme {
        Scheme::F32 => {
            progress(planned.parameters());
            (NewValues::F32(weights.to_vec()), weights.to_vec())
        }
        Scheme::F16 => {
            progress(planned.parameters());
            let values = to_f16(weights)?;
            let decoded = values.iter().map(|v| v.to_f32()).collect();
            (NewValues::F16(values), decoded)
        }
        Scheme::Pq => {
            let mut options = plan.pq_options(conversion.plan.seed);
            options.full = conversion.plan.kmeans_full;
            let quantized = match inputs {
                Some(inputs) => {
                    let target = target.insert(inputs.target(weights, rows)?);
                    let matrix = Matrix::new(target, rows, columns)?;
                    pq::quantize_with_hessian(matrix, &inputs.hessian, None, &options, progress)?
                }
                None => match calibration {
                    Some(calibration) => {
                        calibration.quantize(&tensor.name, matrix, &options, progress)?
                    }
                    None => pq::quantize(matrix, Importance::default(), &options, progress)?,
                },
            };
            let decoded = quantized.dequantize();
            (from_pq(quantized), decoded)
        }
        Scheme::Int8 | Scheme::Int4 => {
            let importance = inputs.map(|inputs| inputs.importance());
            let quantized = scalar::quantize(
                matrix,
                importance.as_deref(),
                &plan.scalar_options(plan.bits()),
            )?;
            progress(planned.parameters());
            let decoded = quantized.dequantize();
            (from_scalar(quantized), decoded)
        }
    };
    let error = relative_error(original, &decoded);
    if let Some(calibration) = calibration {
        calibration.quantized(&tensor.name, original, decoded);
    }
    Ok((values, error))
}

impl GroupPlan {
    pub(crate) fn pq_options(&self, seed: u64) -> PqOptions {
        let mut options = PqOptions::new(self.block);
        options.centroids = self.centroids;
        options.centroid_type = self.centroid_type;
        options.codebooks = self.codebooks;
        options.row_scale = self.row_scale;
        options.seed = seed;
        options
    }

    /// For a matrix in int8 or int4.
    pub(crate) fn scalar_options(&self, bits: scalar::Bits) -> ScalarOptions {
        let mut options = ScalarOptions::new(bits);
        options.per_row = self.row_scale;
        options.zero_point = self.zero_point;
        options
    }

    /// Those of int8 or int4.
    fn bits(&self) -> scalar::Bits {
        match self.scheme {
            Scheme::Int4 => scalar::Bits::Four,
            _ => scalar::Bits::Eight,
        }
    }

    /// What becomes of a matrix in int8 or int4.
    #[cfg(feature = "train")]
    pub(crate) fn rounded(&self, matrix: Matrix<'_>) -> Result<Vec<f32>> {
        Ok(scalar::quantize(matrix, None, &self.scalar_options(self.bits()))?.dequantize())
    }
}

/// `|w - decoded| / |w|`; 0 if both are zero.
pub(crate) fn relative_error(w: &[f32], decoded: &[f32]) -> f64 {
    let square = |sum: f64, v: f64| sum + v * v;
    let error = (w.iter().zip(decoded))
        .map(|(a, b)| f64::from(*a) - f64::from(*b))
        .fold(0.0, square);
    let total = w.iter().map(|v| f64::from(*v)).fold(0.0, square);
    if error == 0.0 {
        0.0
    } else {
        (error / total).sqrt()
    }
}

pub(super) fn to_f16(values: &[f32]) -> Result<Vec<f16>> {
    let rounded: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    match rounded.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(Error::new(
            ErrorKind::Checkpoint,
            format!("value {at} is {} and does not fit f16", values[at]),
        )),
        None => Ok(rounded),
    }
}

fn from_pq(pq: Pq) -> NewValues {
    NewValues::Pq {
        block: pq.block,
        codebooks: pq.codebooks,
        centroids: pq.k,
        codes: pq.codes,
        codebook: match pq.codebook {
            Codebook::Int8 { values, scale } => NewCodebook::Int8 { values, scale },
            Codebook::F16(values) => NewCodebook::F16(values),
        },
        row_scale: pq.row_scale.map(|scale| scale.factors),
    }
}

fn from_scalar(scalar: Scalar) -> NewValues {
    let int4 = scalar.bits == scalar::Bits::Four;
    let symmetric = scalar.zero_point.is_none();
    let mut values = scalar.values;
    if int4 && symmetric {
        // Stored unsigned: -7..=7 becomes 1..=15 with zero point 8.
        values.iter_mut().for_each(|v| *v += 8);
    }
    NewValues::Scalar {
        bits: if int4 {
            artifact::Bits::Four
        } else {
            artifact::Bits::Eight
        },
        values,
        scale: scalar.scale,
        row_scale: scalar.row_scale,
        zero: match scalar.zero_point {
            None => NewZero::Tensor(if int4 { 8 } else { 0 }),
            Some(ZeroPoint::Tensor(zero)) => NewZero::Tensor(zero),
            Some(ZeroPoint::Row(zeros)) => NewZero::Row(zeros),
        },
    }
}
