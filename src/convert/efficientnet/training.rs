//! Networks of images to be trained: from a checkpoint, from an artifact, or new ones.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::super::encode::{Origin, Trained};
use super::super::{Conversion, ConvertOptions, Model, Source};
use super::{known, read, tensor_table};
use crate::artifact::{Artifact, Layout, Values};
use crate::error::{Error, ErrorKind, Result};
use crate::layout;
use crate::models::efficientnet::{Config, Fill};

/// The end of an artifact's name.
const ARTIFACT: &str = "centroid";

/// A network with weights. With `classes` its classifier is new where its labels are others.
pub(crate) fn load(
    path: &Path,
    network: Option<&str>,
    options: &ConvertOptions,
    classes: Option<&[String]>,
) -> Result<Conversion> {
    let artifact = path.extension().is_some_and(|end| end == ARTIFACT);
    let mut conversion = match artifact {
        true if network.is_some() || options.image_size.is_some() => {
            let message = "an artifact says itself which network it is: leave [network] out";
            return Err(Error::new(ErrorKind::Config, message).in_file(path));
        }
        true => from_artifact(path, options)?,
        false => read(path, network, options)?,
    };
    if let Some(classes) = classes {
        label(&mut conversion, classes)?;
    }
    Ok(conversion)
}

/// A well-known network with new weights, by its name.
pub(crate) fn named(name: &str, options: &ConvertOptions, labels: &[String]) -> Result<Conversion> {
    let (network, variant) = known(name)?;
    let fill = variant.map_or(Fill::Same, |variant| variant.fill);
    let mut config = network.config(fill, labels.len());
    if let Some(size) = options.image_size {
        config.resize_input(size);
    }
    new(config, options, labels)
}

/// A network with new weights.
pub(crate) fn new(
    config: Config,
    options: &ConvertOptions,
    labels: &[String],
) -> Result<Conversion> {
    config.to_body()?;
    let mut tensors = tensor_table(&config);
    for tensor in &mut tensors {
        tensor.origin = Origin::New(tensor.name.clone());
    }
    let planned = options.plan.resolve(&tensors)?;
    Ok(Conversion {
        model: Model::Image(config),
        labels: Some(labels.to_vec()),
        source: Source::Trained(HashMap::new()),
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: Vec::new(),
        pictures: Vec::new(),
        notes: Vec::new(),
        provenance: vec![("source".into(), "new weights".into())],
    })
}

fn from_artifact(path: &Path, options: &ConvertOptions) -> Result<Conversion> {
    let artifact = Artifact::open(path)?;
    let config = Config::from_artifact(&artifact)?;
    let mut tensors = tensor_table(&config);
    let mut values = HashMap::new();
    for tensor in &mut tensors {
        let stored = artifact.tensor(&tensor.name)?;
        let of_tensor: Vec<f32> = match &stored.values {
            Values::F32(bytes) => bytemuck::pod_collect_to_vec::<u8, f32>(bytes),
            Values::F16(bytes) => {
                let halves = bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes);
                halves.into_iter().map(half::f16::to_f32).collect()
            }
            _ => {
                let message = format!(
                    "is {}: training starts from weights in f32 or f16",
                    stored.scheme().name()
                );
                let error = Error::new(ErrorKind::Unsupported, message);
                return Err(artifact.locate(error.in_tensor(&tensor.name)));
            }
        };
        if stored.shape != tensor.shape {
            let message = format!(
                "has shape {:?} where the network has {:?}",
                stored.shape, tensor.shape
            );
            return Err(artifact.locate(Error::format(message).in_tensor(&tensor.name)));
        }
        let of_tensor = match stored.layout {
            Layout::Tiles => {
                let (rows, columns) = stored.matrix();
                layout::from_tiles(&of_tensor, rows, columns)
            }
            _ => of_tensor,
        };
        values.insert(tensor.name.clone(), Trained::Values(of_tensor));
        tensor.origin = Origin::Checkpoint(tensor.name.clone());
    }
    let planned = options.plan.resolve(&tensors)?;
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let digest = Sha256::digest(&bytes);
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = path.file_name().map(|name| name.to_string_lossy());
    Ok(Conversion {
        labels: artifact.labels().map(<[String]>::to_vec),
        model: Model::Image(config),
        source: Source::Trained(values),
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: Vec::new(),
        pictures: Vec::new(),
        notes: Vec::new(),
        provenance: vec![
            ("source".into(), file.unwrap_or_default().into_owned()),
            ("source_sha256".into(), digest),
        ],
    })
}

/// Makes the network one for `classes`, in whatever order its labels are: with another set the classifier is
/// new.
fn label(conversion: &mut Conversion, classes: &[String]) -> Result<()> {
    let sorted = |labels: &[String]| {
        let mut labels = labels.to_vec();
        labels.sort();
        labels
    };
    let present = conversion.labels.as_deref().unwrap_or_default();
    if sorted(present) == sorted(classes) {
        return Ok(());
    }
    let Model::Image(config) = &mut conversion.model else {
        return Ok(());
    };
    config.labels = classes.len();
    config.to_body()?;
    let new = tensor_table(config);
    for (tensor, new) in conversion.tensors.iter_mut().zip(new) {
        if tensor.shape != new.shape || tensor.name.starts_with("classifier.") {
            tensor.shape = new.shape;
            tensor.origin = Origin::New(tensor.name.clone());
        }
    }
    conversion.planned = conversion.plan.resolve(&conversion.tensors)?;
    let note = format!("the classifier is new: {} labels", classes.len());
    conversion.notes.push(note);
    conversion.labels = Some(classes.to_vec());
    Ok(())
}
