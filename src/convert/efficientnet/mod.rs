//! EfficientNets under the names of `efficientnet-pytorch` (and the Lite packages) and of `timm`.
//!
//! Strides are in no tensor, so the network has to be known: by name, or by the shapes of its tensors. Batch norms
//! are folded in: their factors into the weights, whose rows get scales of their own where they are codes, and
//! what they add into the bias.

mod family;
mod fold;
mod names;
pub(super) mod timm;
#[cfg(feature = "train")]
pub(super) mod training;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use self::family::Network;
use self::fold::{fits, fold, is_coded};
use self::names::{Layer, Part, Style};
use self::timm::Timm;

use super::checkpoint::Checkpoint;
use super::encode::{NewTensor, Origin};
use super::{Conversion, ConvertOptions, Model, Source, calibrate, refuse};
use crate::artifact::{Group, Layout};
use crate::error::{Error, ErrorKind, Result};
use crate::models::efficientnet::{Config, Fill};

/// The classes of ILSVRC 2012 in their usual order, by the first word of their WordNet synset.
const IMAGENET: &str = include_str!("imagenet.txt");

/// Every layer: its part, and the shape of its weight as torch has it.
fn layers(config: &Config) -> Vec<(Part, Vec<usize>)> {
    let mut layers = vec![(Part::Stem, vec![config.stem, 3, 3, 3])];
    let mut inputs = config.stem;
    for (i, block) in config.blocks.iter().enumerate() {
        let wide = block.expanded;
        let mut add = |layer, shape: [usize; 4]| layers.push((Part::Of(i, layer), shape.to_vec()));
        if wide != inputs {
            add(Layer::Expand, [wide, inputs, 1, 1]);
        }
        add(Layer::Depthwise, [wide, 1, block.kernel, block.kernel]);
        if block.squeezed > 0 {
            add(Layer::Squeeze, [block.squeezed, wide, 1, 1]);
            add(Layer::Excite, [wide, block.squeezed, 1, 1]);
        }
        add(Layer::Project, [block.channels, wide, 1, 1]);
        inputs = block.channels;
    }
    layers.push((Part::Features, vec![config.features, inputs, 1, 1]));
    layers.push((Part::Classifier, vec![config.labels, config.features]));
    layers
}

/// Every tensor of a network of this shape, in our names.
pub(super) fn tensor_table(config: &Config) -> Vec<NewTensor> {
    let mut table = Vec::new();
    for (part, shape) in layers(config) {
        let (rows, columns) = (shape[0], shape[1..].iter().product());
        let mut add = |ending: &str, group, layout, shape| {
            table.push(NewTensor {
                name: format!("{}.{ending}", part.name()),
                layer: None,
                group,
                layout,
                shape,
                origin: Origin::Random,
            });
        };
        add("weight", part.group(), part.layout(), vec![rows, columns]);
        add("bias", Group::Other, Layout::Vector, vec![rows]);
    }
    table
}

/// Which network a name means, and how it is filled up and normalized.
fn known(name: &str) -> Result<(Network, Option<Variant>)> {
    if name.contains('.') {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "network {name:?}: what is behind the point is about the weights, and how pictures are prepared for \
                 them is said by the config.json of timm's directory, or without that by --image-size, --crop, \
                 --mean and --std"
            ),
        ));
    }
    let (variant, of) = match name.strip_prefix("tf_efficientnet_") {
        Some(variant) => (variant, Some(Variant::TENSORFLOW)),
        None => match name.strip_prefix("efficientnet_") {
            Some(variant) => (variant, Some(Variant::TIMM)),
            None => (name.strip_prefix("efficientnet-").unwrap_or(name), None),
        },
    };
    match Network::all().find(|network| network.variant == variant) {
        Some(network) => Ok((network, of)),
        None => {
            let known: Vec<_> = Network::all().map(|network| network.variant).collect();
            Err(Error::new(
                ErrorKind::Config,
                format!(
                    "network {name:?} is unknown; known: efficientnet-X, and of timm tf_efficientnet_X and \
                     efficientnet_X, where X is one of {}",
                    known.join(", ")
                ),
            ))
        }
    }
}

/// Whether a name is one of a network's.
///
/// # Errors
/// If it is not; the message has those that are.
pub(super) fn check_name(name: &str) -> Result<()> {
    known(name).map(|_| ())
}

/// What the same tensors mean in different programs.
#[derive(Debug, Clone, Copy)]
struct Variant {
    fill: Fill,
    /// Added to the variances of batch norms.
    eps: f64,
}

impl Variant {
    const TENSORFLOW: Self = Self {
        fill: Fill::Same,
        eps: 1e-3,
    };
    const TIMM: Self = Self {
        fill: Fill::Symmetric,
        eps: 1e-5,
    };
}

pub(super) fn read(
    path: &Path,
    network: Option<&str>,
    options: &ConvertOptions,
) -> Result<Conversion> {
    options.refuse_of_texts()?;
    let mut checkpoint = Checkpoint::open(path)?;
    let style = Style::of(&checkpoint).map_err(|e| e.in_file(path))?;
    let timm = Timm::read(path)?;
    let (network, variant) = match (network, &timm) {
        (Some(name), None) => known(name)?,
        (None, Some(timm)) => timm.network()?,
        (Some(name), Some(timm)) => timm.network_named(name)?,
        (None, None) => (find(&checkpoint, style).map_err(|e| e.in_file(path))?, None),
    };
    let variant = match (variant, style) {
        (Some(variant), _) => variant,
        (None, Style::Underscored) => Variant::TENSORFLOW,
        (None, Style::Timm) => {
            let v = network.variant;
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "timm has networks of these shapes under two names, which differ in padding: say whether it \
                     is tf_efficientnet_{v} or efficientnet_{v}"
                ),
            )
            .in_file(path));
        }
    };
    let classifier = style.names(network, Part::Classifier).0;
    let ending = match is_coded(&checkpoint, &classifier) {
        true => "bias",
        false => "weight",
    };
    let name = format!("{classifier}.{ending}");
    let labels = match checkpoint.shape(&name) {
        Some(&[labels, ..]) => labels,
        Some([]) => {
            let error = Error::new(ErrorKind::Checkpoint, "its shape is [], a single number");
            return Err(error.in_tensor(&name).in_file(path));
        }
        None => return Err(missing(&name).in_file(path)),
    };
    let mut notes = checkpoint.notes().to_vec();
    let mut config = network.config(variant.fill, labels);
    if let Some(timm) = &timm {
        notes.extend(timm.prepare(&mut config, options.image_size)?);
    }
    config.adjust(options, timm.is_some());
    let source = match timm {
        Some(_) => "its config.json says so",
        None => "assumed",
    };
    notes.push(format!(
        "pictures: {} ({source} where no flag does)",
        config.input
    ));
    // Limits first: what follows allocates by these counts.
    config.to_body().map_err(|e| e.in_file(path))?;
    let given = match (&options.labels, &timm) {
        (None, Some(timm)) => timm.labels(labels)?,
        (given, _) => given.clone(),
    };
    let names = match &given {
        Some(names) if names.len() != labels => {
            let message = format!("{} labels are given for {labels} logits", names.len());
            return Err(Error::new(ErrorKind::Config, message));
        }
        Some(names) => names.clone(),
        None if labels == IMAGENET.lines().count() => {
            notes.push("its 1,000 labels are taken for ImageNet's (--labels gives others)".into());
            IMAGENET.lines().map(str::to_owned).collect()
        }
        None => (0..labels).map(|i| format!("LABEL_{i}")).collect(),
    };
    let pictures = chosen(&config, &options.pictures, &mut notes);
    let unused = unused(&checkpoint, style, network, &config);
    for (part, shape) in layers(&config) {
        fold(
            &mut checkpoint,
            style.names(network, part),
            (part, &shape),
            variant.eps,
        )
        .map_err(|e| e.in_file(path))?;
    }
    if let Some(first) = unused.first() {
        let more = match unused.len() - 1 {
            0 => String::new(),
            more => format!(", nor are {more} others"),
        };
        let message = format!("not of an {}{more}", described(network));
        return Err(Error::new(ErrorKind::Checkpoint, message)
            .in_tensor(first)
            .in_file(path));
    }
    let mut tensors = tensor_table(&config);
    for tensor in &mut tensors {
        tensor.origin = Origin::Checkpoint(tensor.name.clone());
    }
    let planned = options.planned(&tensors)?;
    let file = path.file_name().map(|name| name.to_string_lossy());
    let provenance = vec![
        ("source".into(), file.unwrap_or_default().into_owned()),
        ("source_sha256".into(), checkpoint.digest()),
    ];
    notes.push(format!("an {}", described(network)));
    Ok(Conversion {
        model: Model::Image(config),
        labels: Some(names),
        source: Source::Checkpoint(checkpoint),
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: Vec::new(),
        pictures,
        notes,
        provenance,
    })
}

fn described(network: Network) -> String {
    format!("EfficientNet-{}", network.variant.to_uppercase())
}

/// The tensors that the network has no place for: a larger network's, where another one is asked for. Counts of
/// training are no weights.
fn unused(checkpoint: &Checkpoint, style: Style, network: Network, config: &Config) -> Vec<String> {
    let mut used = HashSet::new();
    for (part, _) in layers(config) {
        let (conv, norm) = style.names(network, part);
        let weight = match is_coded(checkpoint, &conv) {
            // How many blocks have each centroid is for training.
            true => &["centroids", "assignments", "counts"][..],
            false => &["weight"],
        };
        used.extend(weight.iter().map(|ending| format!("{conv}.{ending}")));
        let endings = match norm {
            None => &["bias"][..],
            Some(_) => &["weight", "bias", "running_mean", "running_var"],
        };
        let of = norm.unwrap_or(conv);
        used.extend(endings.iter().map(|ending| format!("{of}.{ending}")));
    }
    let count = |name: &str| name.ends_with("num_batches_tracked") || name == "n_averaged";
    (checkpoint.names())
        .filter(|name| !used.contains(*name) && !count(name))
        .map(str::to_owned)
        .collect()
}

/// As many pictures as fit into memory.
fn chosen(config: &Config, pictures: &[PathBuf], notes: &mut Vec<String>) -> Vec<PathBuf> {
    let (count, most) = (pictures.len(), calibrate::images::most(config));
    if count <= most {
        return pictures.to_vec();
    }
    notes.push(format!(
        "{most} of {count} pictures calibrate it, evenly spread: all would not fit into memory"
    ));
    let every = (0..most).map(|i| pictures[i * count / most].clone());
    every.collect()
}

/// A network with generated weights and 1,000 labels.
pub(super) fn random(name: &str, options: &ConvertOptions) -> Result<Conversion> {
    const LABELS: usize = 1000;
    options.refuse_of_texts()?;
    refuse(
        &[("pictures", !options.pictures.is_empty())],
        "checkpoints, and these weights are generated",
    )?;
    let (network, _) = known(name)?;
    let labels = options.labels.clone();
    let labels = labels.unwrap_or((0..LABELS).map(|i| format!("LABEL_{i}")).collect());
    let mut config = network.config(Fill::Same, labels.len());
    config.adjust(options, false);
    config.to_body()?;
    let tensors = tensor_table(&config);
    let planned = options.planned(&tensors)?;
    Ok(Conversion {
        model: Model::Image(config),
        labels: Some(labels),
        source: Source::Random,
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: Vec::new(),
        pictures: Vec::new(),
        notes: vec!["the weights are generated: size and speed are real, answers are not".into()],
        provenance: vec![("source".into(), format!("random {name}"))],
    })
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Checkpoint, "missing").in_tensor(name)
}

/// The network whose convolutions have the shapes of the checkpoint's.
fn find(checkpoint: &Checkpoint, style: Style) -> Result<Network> {
    let squeezes = (checkpoint.names())
        .any(|name| name.contains("se_reduce") || name.contains("se.conv_reduce"));
    let fits = |network: &Network| {
        // What has squeeze-and-excitation is no Lite network, though all of one's tensors are there.
        if network.lite() && squeezes {
            return false;
        }
        let config = network.config(Fill::Same, 1);
        layers(&config).into_iter().all(|(part, shape)| {
            let conv = style.names(*network, part).0;
            matches!(part, Part::Classifier) || fits(checkpoint, &conv, &shape)
        })
    };
    // A deeper network has a shallower one's tensors only if all its stages are longer, with other strides
    // between: names of stages and shapes tell them apart, and the largest that fits is the right one.
    Network::all().filter(fits).last().ok_or_else(|| {
        Error::new(
            ErrorKind::Checkpoint,
            "its tensors have the shapes of no network that is known: say which it is",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_imagenet_are_a_thousand_different_ones() {
        let names: Vec<&str> = IMAGENET.lines().collect();
        assert_eq!(names.len(), 1000);
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), 1000);
        for (index, name) in [
            (0, "tench"),
            (317, "leafhopper"),
            (609, "jeep"),
            (999, "toilet tissue"),
        ] {
            assert_eq!(names[index], name);
        }
    }
}
