//! The shapes of EfficientNets: B0, and what its authors' compound scaling makes of it (arXiv 1905.11946, and
//! the Lite variants of TensorFlow).

use super::super::ConvertOptions;
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
    pub(super) variant: &'static str,
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

    pub(super) fn lite(self) -> bool {
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
    pub(super) fn repeats(self) -> impl Iterator<Item = usize> {
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
        // timm's own Lite networks were trained as all of its networks.
        let (mean, deviation) = match (self.lite(), fill) {
            (true, Fill::Same) => ([127.0; 3], [128.0; 3]),
            _ => (MEAN, DEVIATION),
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

impl Config {
    /// Gives the input another height and width.
    pub(super) fn resize_input(&mut self, size: usize) {
        self.input.size = size;
        self.input.resize = match self.input.crop {
            Crop::Whole => size,
            _ => size + CROPPED,
        };
    }

    /// What options say about pictures; their size may be settled.
    pub(super) fn adjust(&mut self, options: &ConvertOptions, sized: bool) {
        if let Some(size) = options.image_size.filter(|_| !sized) {
            self.resize_input(size);
        }
        if let Some(crop) = options.crop {
            self.crop_input(crop.into());
        }
        let scaled = |colors: [f64; 3]| colors.map(|v| (255.0 * v) as f32);
        if let Some(mean) = options.mean {
            self.input.mean = scaled(mean);
        }
        if let Some(deviation) = options.std {
            self.input.deviation = scaled(deviation);
        }
    }

    /// Makes pictures squares in another way, with the margin that there is, or else the usual one.
    pub(super) fn crop_input(&mut self, crop: Crop) {
        let before = std::mem::replace(&mut self.input.crop, crop);
        if before == Crop::Whole || crop == Crop::Whole {
            self.resize_input(self.input.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // TensorFlow's Lite networks get other colours than timm's.
        assert_eq!(config("lite0").input.mean, [127.0; 3]);
        let lite0 = Network::all().find(|network| network.variant == "lite0");
        let of_timm = lite0.unwrap().config(Fill::Symmetric, 1000).input;
        assert_eq!((of_timm.mean, of_timm.deviation), (MEAN, DEVIATION));
    }
}
