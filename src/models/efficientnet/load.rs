//! From an artifact to a network, and from a config to its stored form.

use std::sync::Mutex;

use super::{Act, Block, Config, Crop, EfficientNet, Fill, Filter, Layers, Preprocessing};
use crate::artifact::v1::{self, EfficientNetBody};
use crate::artifact::{Artifact, MAX_LABELS, MAX_LAYERS, ModelKind};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::conv::MAX_KERNEL;
use crate::nn::{Depthwise, Linear, Loader};

/// The longest side of an input.
const MAX_SIZE: u32 = 4096;
/// The most channels of a layer.
const MAX_CHANNELS: u32 = 1 << 14;
/// The most values of what a layer gives: 512 MiB.
const MAX_VALUES: u64 = 1 << 27;

impl Config {
    /// Reads and checks the config of an artifact.
    pub(crate) fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let read = || {
            if artifact.kind()? != ModelKind::EfficientNet {
                return Err(Error::new(ErrorKind::Unsupported, "not a model of images"));
            }
            let body: EfficientNetBody = v1::decode(artifact.model_body(), "the network's config")?;
            let config = Self::from_body(&body)?;
            match artifact.labels() {
                Some(stored) if stored.len() == config.labels => Ok(config),
                Some(stored) => Err(Error::format(format!(
                    "{} labels are stored for {} logits",
                    stored.len(),
                    config.labels
                ))),
                None => Err(Error::format("the labels of the classifier are missing")),
            }
        };
        read().map_err(|e| artifact.locate(e))
    }

    fn from_body(body: &EfficientNetBody) -> Result<Self> {
        let within = |name: &str, value: u32, most: u32| match value {
            v if (1..=most).contains(&v) => Ok(v as usize),
            v => Err(Error::format(format!(
                "the network's {name} is {v}; the limits are 1 and {most}"
            ))),
        };
        if body.blocks.is_empty() || body.blocks.len() > MAX_LAYERS as usize {
            return Err(Error::format(format!(
                "{} blocks; the limits are 1 and {MAX_LAYERS}",
                body.blocks.len()
            )));
        }
        let mut blocks = Vec::with_capacity(body.blocks.len());
        for (i, block) in body.blocks.iter().enumerate() {
            let within =
                |name: &str, value, most| within(&format!("block {i}: {name}"), value, most);
            let kernel = within("kernel", block.kernel, MAX_KERNEL as u32)?;
            if kernel % 2 == 0 {
                return Err(Error::format(format!(
                    "the network's block {i}: kernel {kernel} is even"
                )));
            }
            blocks.push(Block {
                kernel,
                stride: within("stride", block.stride, 2)?,
                expanded: within("expanded", block.expanded, MAX_CHANNELS)?,
                squeezed: match block.squeezed {
                    0 => 0,
                    squeezed => within("squeezed", squeezed, MAX_CHANNELS)?,
                },
                channels: within("channels", block.channels, MAX_CHANNELS)?,
            });
        }
        let size = within("size", body.size, MAX_SIZE)?;
        let resize = within("resize", body.resize, 2 * MAX_SIZE)?;
        if resize < size {
            return Err(Error::format(format!(
                "resize {resize} is less than the size {size}"
            )));
        }
        let crop = enumerated(Crop::from_id(body.crop), "crop", body.crop)?;
        if crop == Crop::Whole && resize != size {
            return Err(Error::format(format!(
                "resize {resize} is not the size {size}, though nothing is cut off"
            )));
        }
        let finite = body.mean.iter().all(|v| v.is_finite())
            && body.deviation.iter().all(|v| v.is_normal() && *v > 0.0);
        if !finite {
            return Err(Error::format(
                "a mean is not finite, or a deviation not above 0",
            ));
        }
        let config = Self {
            activation: enumerated(Act::from_id(body.activation), "activation", body.activation)?,
            fill: enumerated(Fill::from_id(body.padding), "padding", body.padding)?,
            stem: within("stem", body.stem, MAX_CHANNELS)?,
            blocks,
            features: within("features", body.features, MAX_CHANNELS)?,
            labels: within("labels", body.labels, MAX_LABELS)?,
            input: Preprocessing {
                size,
                resize,
                crop,
                filter: enumerated(Filter::from_id(body.filter), "filter", body.filter)?,
                mean: body.mean,
                deviation: body.deviation,
            },
        };
        match config.largest() {
            values if values <= MAX_VALUES => Ok(config),
            values => Err(Error::format(format!(
                "a layer gives {values} values; the limit is {MAX_VALUES}"
            ))),
        }
    }

    /// The most values that are needed of a layer at once.
    fn largest(&self) -> u64 {
        let (stem, windows) = self.windows();
        let pixels = |[height, width]: [usize; 2]| height as u64 * width as u64;
        let stem_values = pixels(stem.output) * self.stem_inputs().max(self.stem) as u64;
        let of_blocks = (self.blocks.iter().zip(&windows)).map(|(block, windows)| {
            pixels(windows.input) * block.expanded.max(block.channels) as u64
        });
        let last = windows
            .last()
            .map_or(0, |last| pixels(last.output) * self.features as u64);
        of_blocks.chain([stem_values, last]).max().unwrap_or(0)
    }

    /// The stored form.
    #[cfg(feature = "convert")]
    pub(crate) fn to_body(&self) -> Result<Vec<u8>> {
        let block = |block: &Block| v1::BlockBody {
            kernel: block.kernel as u32,
            stride: block.stride as u32,
            expanded: block.expanded as u32,
            squeezed: block.squeezed as u32,
            channels: block.channels as u32,
        };
        let body = EfficientNetBody {
            activation: self.activation.id(),
            padding: self.fill.id(),
            stem: self.stem as u32,
            blocks: self.blocks.iter().map(block).collect(),
            features: self.features as u32,
            labels: self.labels as u32,
            size: self.input.size as u32,
            resize: self.input.resize as u32,
            crop: self.input.crop.id(),
            filter: self.input.filter.id(),
            mean: self.input.mean,
            deviation: self.input.deviation,
        };
        // What cannot be opened must not be written.
        Self::from_body(&body)?;
        v1::encode(&body)
    }
}

fn enumerated<T>(value: Option<T>, field: &str, id: u32) -> Result<T> {
    value.ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the network's {field} {id} is unknown"),
        )
    })
}

impl EfficientNet {
    /// Points a network at the tensors of `artifact`.
    ///
    /// # Errors
    /// If the config is invalid, a tensor is missing or has another shape, or one is too many.
    pub(crate) fn load(artifact: &Artifact) -> Result<Self> {
        let config = Config::from_artifact(artifact)?;
        let mut loader = Loader::new(artifact);
        let l = &mut loader;
        let stem = Linear::load(l, "stem", config.stem, config.stem_inputs())?;
        let mut blocks = Vec::with_capacity(config.blocks.len());
        let mut last = config.stem;
        for (i, block) in config.blocks.iter().enumerate() {
            let name = |part: &str| format!("blocks.{i}.{part}");
            let (inputs, wide) = (last, block.expanded);
            let expand = match wide == inputs {
                true => None,
                false => Some(Linear::load(l, &name("expand"), wide, inputs)?),
            };
            let depthwise = Depthwise::load(l, &name("depthwise"), wide, block.kernel)?;
            let squeeze = match block.squeezed {
                0 => None,
                narrow => Some([
                    Linear::load(l, &name("squeeze"), narrow, wide)?,
                    Linear::load(l, &name("excite"), wide, narrow)?,
                ]),
            };
            blocks.push(Layers {
                expand,
                depthwise,
                squeeze,
                project: Linear::load(l, &name("project"), block.channels, wide)?,
            });
            last = block.channels;
        }
        let features = Linear::load(l, "features", config.features, last)?;
        let classifier = Linear::load(l, "classifier", config.labels, config.features)?;
        loader.finish()?;
        Ok(Self {
            windows: config.windows(),
            config,
            stem,
            blocks,
            features,
            classifier,
            arenas: Mutex::new(Vec::new()),
        })
    }
}
