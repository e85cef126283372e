//! EfficientNets under the names of `efficientnet-pytorch` (and the Lite packages) and of `timm`.
//!
//! Strides are in no tensor, so the network has to be known: by name, or by the shapes of its tensors. Batch norms
//! are folded in: their factors into the weights, whose rows get scales of their own where they are codes, and
//! what they add into the bias.

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::encode::{NewTensor, Origin};
use super::{Conversion, ConvertOptions, Model, Source};
use crate::artifact::{Group, Layout};
use crate::error::{Error, ErrorKind, Result};
use crate::models::efficientnet::{Act, Block, Config, Crop, Fill, Filter, Preprocessing};

/// Kernel, repeats, stride, expansion and channels of a stage (EfficientNet-B0).
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
];
const STEM: usize = 32;
const FEATURES: usize = 1280;
/// Channels between squeeze and excitation, as a part of those that come into a block.
const SQUEEZE: usize = 4;
/// Pixels that are cut off the resized picture, and scales of colours (ImageNet's) from 0 to 255.
const CROPPED: usize = 32;
const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const DEVIATION: [f32; 3] = [58.395, 57.12, 57.375];

/// The classes of ILSVRC 2012 in their usual order, by the first word of their WordNet synset.
const IMAGENET: &str = include_str!("imagenet.txt");

/// Widths, depths and sizes of the family, as tenths.
const NETWORKS: [(&str, usize, usize, usize); 13] = [
    ("b0", 10, 10, 224),
    ("b1", 10, 11, 240),
    ("b2", 11, 12, 260),
    ("b3", 12, 14, 300),
    ("b4", 14, 18, 380),
    ("b5", 16, 22, 456),
    ("b6", 18, 26, 528),
    ("b7", 20, 31, 600),
    ("lite0", 10, 10, 224),
    ("lite1", 10, 11, 240),
    ("lite2", 11, 12, 260),
    ("lite3", 12, 14, 280),
    ("lite4", 14, 18, 300),
];

/// A network of the family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Network {
    variant: &'static str,
    width: usize,
    depth: usize,
    size: usize,
}

impl Network {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        NETWORKS
            .into_iter()
            .map(|(variant, width, depth, size)| Self {
                variant,
                width,
                depth,
                size,
            })
    }

    fn lite(self) -> bool {
        self.variant.starts_with("lite")
    }

    /// `tenths / 10` of the channels, to a multiple of 8 that is at least nine tenths of it.
    fn channels(self, of: usize) -> usize {
        let exact = of * self.width;
        let rounded = ((exact + 40) / 80 * 8).max(8);
        if 100 * rounded < 9 * exact {
            rounded + 8
        } else {
            rounded
        }
    }

    /// Blocks of each stage. The Lite variants leave the first and the last stage as they are.
    fn repeats(self) -> impl Iterator<Item = usize> {
        let last = STAGES.len() - 1;
        STAGES
            .into_iter()
            .enumerate()
            .map(move |(at, (_, repeats, ..))| {
                if self.lite() && (at == 0 || at == last) {
                    repeats
                } else {
                    (repeats * self.depth).div_ceil(10)
                }
            })
    }

    /// The network's shape, with so many labels.
    pub(super) fn config(self, fill: Fill, labels: usize) -> Config {
        let scaled = |channels| match self.lite() {
            // The Lite variants leave stem and features as they are.
            true => channels,
            false => self.channels(channels),
        };
        let mut blocks = Vec::new();
        let mut inputs = scaled(STEM);
        for ((kernel, _, stride, expansion, channels), repeats) in
            STAGES.into_iter().zip(self.repeats())
        {
            for repeat in 0..repeats {
                blocks.push(Block {
                    kernel,
                    stride: if repeat == 0 { stride } else { 1 },
                    expanded: inputs * expansion,
                    squeezed: if self.lite() {
                        0
                    } else {
                        (inputs / SQUEEZE).max(1)
                    },
                    channels: self.channels(channels),
                });
                inputs = self.channels(channels);
            }
        }
        let (mean, deviation) = match self.lite() {
            true => ([127.0; 3], [128.0; 3]),
            false => (MEAN, DEVIATION),
        };
        Config {
            activation: if self.lite() { Act::Relu6 } else { Act::Silu },
            fill,
            stem: scaled(STEM),
            blocks,
            features: scaled(FEATURES),
            labels,
            input: Preprocessing {
                size: self.size,
                resize: self.size + CROPPED,
                crop: match fill {
                    Fill::Same => Crop::BeforeResize,
                    Fill::Symmetric => Crop::AfterResize,
                },
                filter: Filter::Bicubic,
                mean,
                deviation,
            },
        }
    }
}

/// How a checkpoint names its tensors, and what goes with that.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Style {
    /// `efficientnet-pytorch`: `_blocks.0._depthwise_conv.weight`.
    Underscored,
    /// `timm`: `blocks.0.0.conv_dw.weight`.
    Timm,
}

impl Style {
    fn of(checkpoint: &Checkpoint) -> Result<Self> {
        if checkpoint.shape("_conv_stem.weight").is_some() {
            Ok(Self::Underscored)
        } else if checkpoint.shape("conv_stem.weight").is_some() {
            Ok(Self::Timm)
        } else {
            Err(Error::new(
                ErrorKind::Checkpoint,
                "not an EfficientNet: neither conv_stem.weight (timm) nor _conv_stem.weight \
                 (efficientnet-pytorch) is there",
            ))
        }
    }

    /// The convolution and the batch norm (or, for those that have none, the layer) of one of our tensors.
    fn names(self, network: Network, part: Part) -> (String, Option<String>) {
        let named = |conv: &str, norm: &str| (conv.to_owned(), Some(norm.to_owned()));
        match (self, part) {
            (Self::Underscored, Part::Stem) => named("_conv_stem", "_bn0"),
            (Self::Underscored, Part::Features) => named("_conv_head", "_bn1"),
            (Self::Underscored, Part::Classifier) => ("_fc".into(), None),
            (Self::Underscored, Part::Of(block, layer)) => {
                let (conv, norm) = match layer {
                    Layer::Expand => ("_expand_conv", Some("_bn0")),
                    Layer::Depthwise => ("_depthwise_conv", Some("_bn1")),
                    Layer::Squeeze => ("_se_reduce", None),
                    Layer::Excite => ("_se_expand", None),
                    Layer::Project => ("_project_conv", Some("_bn2")),
                };
                let within = |name: &str| format!("_blocks.{block}.{name}");
                (within(conv), norm.map(within))
            }
            (Self::Timm, Part::Stem) => named("conv_stem", "bn1"),
            (Self::Timm, Part::Features) => named("conv_head", "bn2"),
            (Self::Timm, Part::Classifier) => ("classifier".into(), None),
            (Self::Timm, Part::Of(block, layer)) => {
                let (mut stage, mut at) = (0, block);
                for repeats in network.repeats() {
                    if at < repeats {
                        break;
                    }
                    at -= repeats;
                    stage += 1;
                }
                // The first stage expands nothing, and its blocks count their layers from the next one.
                let plain = stage == 0;
                let (conv, norm) = match layer {
                    Layer::Expand => ("conv_pw", Some("bn1")),
                    Layer::Depthwise if plain => ("conv_dw", Some("bn1")),
                    Layer::Depthwise => ("conv_dw", Some("bn2")),
                    Layer::Squeeze => ("se.conv_reduce", None),
                    Layer::Excite => ("se.conv_expand", None),
                    Layer::Project if plain => ("conv_pw", Some("bn2")),
                    Layer::Project => ("conv_pwl", Some("bn3")),
                };
                let within = |name: &str| format!("blocks.{stage}.{at}.{name}");
                (within(conv), norm.map(within))
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Stem,
    Of(usize, Layer),
    Features,
    Classifier,
}

#[derive(Debug, Clone, Copy)]
enum Layer {
    Expand,
    Depthwise,
    Squeeze,
    Excite,
    Project,
}

impl Part {
    /// Our name.
    fn name(self) -> String {
        match self {
            Part::Stem => "stem".into(),
            Part::Features => "features".into(),
            Part::Classifier => "classifier".into(),
            Part::Of(block, layer) => {
                let layer = match layer {
                    Layer::Expand => "expand",
                    Layer::Depthwise => "depthwise",
                    Layer::Squeeze => "squeeze",
                    Layer::Excite => "excite",
                    Layer::Project => "project",
                };
                format!("blocks.{block}.{layer}")
            }
        }
    }

    fn group(self) -> Group {
        match self {
            Part::Stem => Group::Stem,
            Part::Features => Group::Pointwise,
            Part::Classifier => Group::Classifier,
            Part::Of(_, Layer::Depthwise) => Group::Depthwise,
            Part::Of(_, Layer::Squeeze | Layer::Excite) => Group::Squeeze,
            Part::Of(..) => Group::Pointwise,
        }
    }

    fn layout(self) -> Layout {
        match self {
            Part::Of(_, Layer::Depthwise) => Layout::Rows,
            _ => Layout::Tiles,
        }
    }
}

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
    let short = name.split('.').next().unwrap_or(name);
    let (variant, of) = match short.strip_prefix("tf_efficientnet_") {
        Some(variant) => (variant, Some(Variant::TENSORFLOW)),
        None => match short.strip_prefix("efficientnet_") {
            Some(variant) => (variant, Some(Variant::TIMM)),
            None => (short.strip_prefix("efficientnet-").unwrap_or(short), None),
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
    check(options)?;
    let mut checkpoint = Checkpoint::open(path)?;
    let style = Style::of(&checkpoint).map_err(|e| e.in_file(path))?;
    let (network, variant) = match network {
        Some(name) => known(name)?,
        None => (find(&checkpoint, style).map_err(|e| e.in_file(path))?, None),
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
    let labels = match checkpoint.shape(&format!("{classifier}.weight")) {
        Some(&[labels, _]) => labels,
        _ => return Err(missing(&format!("{classifier}.weight")).in_file(path)),
    };
    let mut config = network.config(variant.fill, labels);
    if let Some(size) = options.image_size {
        config.input.size = size;
        config.input.resize = size + CROPPED;
    }
    // Limits first: what follows allocates by these counts.
    config.to_body()?;
    let mut notes = checkpoint.notes().to_vec();
    let names = match &options.labels {
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
    for (part, shape) in layers(&config) {
        fold(
            &mut checkpoint,
            style.names(network, part),
            (part, &shape),
            variant.eps,
        )
        .map_err(|e| e.in_file(path))?;
    }
    let mut tensors = tensor_table(&config);
    for tensor in &mut tensors {
        tensor.origin = Origin::Checkpoint(tensor.name.clone());
    }
    let planned = options.plan.resolve(&tensors)?;
    let file = path.file_name().map(|name| name.to_string_lossy());
    let provenance = vec![
        ("source".into(), file.unwrap_or_default().into_owned()),
        ("source_sha256".into(), checkpoint.digest()),
    ];
    let mut notes = checkpoint.notes().to_vec();
    notes.push(format!(
        "an EfficientNet-{}",
        network.variant.to_uppercase()
    ));
    Ok(Conversion {
        model: Model::Image(config),
        labels: Some(names),
        source: Source::Checkpoint(checkpoint),
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: Vec::new(),
        notes,
        provenance,
    })
}

/// A network with generated weights and 1,000 labels.
pub(super) fn random(name: &str, options: &ConvertOptions) -> Result<Conversion> {
    const LABELS: usize = 1000;
    check(options)?;
    let (network, _) = known(name)?;
    let labels = options.labels.clone();
    let labels = labels.unwrap_or((0..LABELS).map(|i| format!("LABEL_{i}")).collect());
    let config = network.config(Fill::Same, labels.len());
    config.to_body()?;
    let tensors = tensor_table(&config);
    let planned = options.plan.resolve(&tensors)?;
    Ok(Conversion {
        model: Model::Image(config),
        labels: Some(labels),
        source: Source::Random,
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: Vec::new(),
        notes: vec!["the weights are generated: size and speed are real, answers are not".into()],
        provenance: vec![("source".into(), format!("random {name}"))],
    })
}

/// Options that mean nothing for networks of images.
fn check(options: &ConvertOptions) -> Result<()> {
    let given = [
        ("layers", options.layers.is_some()),
        ("share", options.share > 1),
        ("pooling", options.pooling.is_some()),
        ("normalize", options.normalize),
        ("calibration", !options.calibration.is_empty()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::new(
            ErrorKind::Config,
            format!("{name} is for models of texts"),
        )),
        None => Ok(()),
    }
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
            let name = format!("{}.weight", style.names(*network, part).0);
            let found = checkpoint.shape(&name);
            matches!(part, Part::Classifier) || found == Some(&shape[..])
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

/// Puts a layer under our names: its weight as a matrix, times what its batch norm multiplies with, and what is
/// added in the end.
fn fold(
    checkpoint: &mut Checkpoint,
    (conv, norm): (String, Option<String>),
    (part, shape): (Part, &[usize]),
    eps: f64,
) -> Result<()> {
    let weight = format!("{conv}.weight");
    match checkpoint.shape(&weight) {
        None => return Err(missing(&weight)),
        Some(found) if found == shape => {}
        Some(found) => {
            let message = format!("shape {found:?} where the network has {shape:?}");
            return Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(&weight));
        }
    }
    let rows = shape[0];
    let vector = |name: String| match checkpoint.shape(&name) {
        Some(&[n]) if n == rows => checkpoint.values(&name),
        Some(found) => {
            let message = format!("shape {found:?} where the network has [{rows}]");
            Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(&name))
        }
        None => Err(missing(&name)),
    };
    let mut values = checkpoint.values(&weight)?;
    let columns = values.len() / rows;
    let bias = match norm {
        None => vector(format!("{conv}.bias"))?,
        Some(norm) => {
            let of = |ending: &str| vector(format!("{norm}.{ending}"));
            let (gain, shift) = (of("weight")?, of("bias")?);
            let (mean, variance) = (of("running_mean")?, of("running_var")?);
            let mut bias = Vec::with_capacity(rows);
            for row in 0..rows {
                let variance = f64::from(variance[row]) + eps;
                let factor = f64::from(gain[row]) / variance.sqrt();
                if !factor.is_finite() {
                    let message = format!("the variance of channel {row} is not above 0");
                    return Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(&norm));
                }
                for value in &mut values[row * columns..][..columns] {
                    *value = (f64::from(*value) * factor) as f32;
                }
                bias.push((f64::from(shift[row]) - f64::from(mean[row]) * factor) as f32);
            }
            bias
        }
    };
    if let Part::Stem = part {
        values = colors_last(&values, shape);
    }
    let name = part.name();
    checkpoint.put(&format!("{name}.weight"), &[rows, columns], &values)?;
    checkpoint.put(&format!("{name}.bias"), &[rows], &bias)
}

/// From `[out][in][height][width]` to `[out][height][width][in]`, the order of a window's pixels.
fn colors_last(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (inputs, taps) = (shape[1], shape[2] * shape[3]);
    let row = |row: &[f32]| -> Vec<f32> {
        let places = (0..taps).flat_map(|tap| (0..inputs).map(move |input| input * taps + tap));
        places.map(|at| row[at]).collect()
    };
    values.chunks_exact(inputs * taps).flat_map(row).collect()
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

    /// Channels, blocks and squeezes of the family, as the authors' own code makes them.
    #[test]
    fn networks_have_the_shapes_of_the_family() {
        let config = |variant| {
            let network = Network::all()
                .find(|network| network.variant == variant)
                .unwrap();
            network.config(Fill::Same, 1000)
        };
        for (variant, stem, blocks, features, last) in [
            ("b0", 32, 16, 1280, 320),
            ("b1", 32, 23, 1280, 320),
            ("b3", 40, 26, 1536, 384),
            ("b7", 64, 55, 2560, 640),
            ("lite0", 32, 16, 1280, 320),
            ("lite2", 32, 21, 1280, 352),
            ("lite4", 32, 30, 1280, 448),
        ] {
            let config = config(variant);
            let block = config.blocks.last().unwrap();
            let found = (
                config.stem,
                config.blocks.len(),
                config.features,
                block.channels,
            );
            assert_eq!(found, (stem, blocks, features, last), "{variant}");
        }
        assert_eq!(config("b0").blocks[1].squeezed, 4);
        assert_eq!(config("lite0").blocks[1].squeezed, 0);
    }
}
