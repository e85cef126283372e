//! Pictures on their way through two networks.
//!
//! Dense layers (pointwise convolutions, those of squeeze-and-excitation, the classifier, and the first
//! convolution, whose windows are rows) are treated as linear ones. A channel of a depthwise convolution counts
//! by the power of its input.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Calibration, Inputs, ORIGINAL, QUANTIZED, Stored, Sums, Tensors, corrected, product};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::conv::bottleneck::{self, Filter, Wide};
use crate::kernels::conv::{self, Windows};
use crate::kernels::elementwise::activate;
use crate::kernels::fused;
use crate::kernels::tables::TableRow;
use crate::kernels::{Isa, Threads};
use crate::models::efficientnet::{Block, Config};
use crate::quant::pq::{self, Pq, PqOptions};
use crate::quant::{Importance, Matrix};

/// Rows that are added up at a time, roughly.
const CHUNK: usize = 1024;
/// Rows that a layer's moments are measured on, roughly; of larger images every so manieth pixel.
const ROWS: usize = 1 << 16;
/// Memory for what a part of the network takes, of all pictures in both networks.
const MEMORY: u64 = 2 << 30;

/// Calibration pictures, and how far they are.
pub(in crate::convert) struct Pictures<'a> {
    config: &'a Config,
    windows: (Windows, Vec<Windows>),
    machine: (Isa, Threads),
    tensors: Tensors,
    /// What `part` takes of each picture, in both networks.
    taken: Vec<[Vec<f32>; 2]>,
    part: Part,
    /// The layer that was measured last.
    current: Option<(String, Measured)>,
}

/// A part of a network that takes what the one before it gives, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Stem,
    Block(usize),
    /// The last convolution, and the mean over all pixels.
    Features,
    Classifier,
}

/// What is known of a layer's inputs.
enum Measured {
    Dense(Inputs),
    Depthwise {
        /// Under each tap of the filter its mean in both networks, `[taps][channels]`.
        taps: [Vec<f32>; 2],
        /// The mean square of each channel in the quantized network.
        power: Vec<f32>,
    },
}

/// How many pictures fit into memory.
pub(in crate::convert) fn most(config: &Config) -> usize {
    let (stem, windows) = config.windows();
    let mut channels = config.stem;
    let colors = config.stem_inputs() / (stem.kernel * stem.kernel);
    let mut largest = stem.input[0] * stem.input[1] * colors;
    for (block, windows) in config.blocks.iter().zip(&windows) {
        largest = largest.max(windows.input[0] * windows.input[1] * channels);
        channels = block.channels;
    }
    let bytes = 2 * size_of::<f32>() * largest.max(config.features);
    ((MEMORY / bytes as u64) as usize).max(1)
}

impl<'a> Pictures<'a> {
    /// # Errors
    /// If one of the files cannot be read or is no picture.
    pub(in crate::convert) fn read(config: &'a Config, files: &[PathBuf]) -> Result<Self> {
        let taken = files.iter().map(|file| {
            let input = input(file, config)?;
            Ok([input.clone(), input])
        });
        let taken = taken.collect::<Result<_>>()?;
        Self::new(config, taken)
    }

    fn new(config: &'a Config, taken: Vec<[Vec<f32>; 2]>) -> Result<Self> {
        Ok(Self {
            config,
            windows: config.windows(),
            machine: (Isa::detect()?, Threads(rayon::current_num_threads())),
            tensors: Tensors::new(),
            taken,
            part: Part::Stem,
            current: None,
        })
    }

    fn advance_to(&mut self, part: Part) -> Result<()> {
        while self.part < part {
            for picture in 0..self.taken.len() {
                for which in [ORIGINAL, QUANTIZED] {
                    let y = self.run(which, &self.taken[picture][which], None);
                    if which == ORIGINAL && y.iter().any(|v| !v.is_finite()) {
                        let message = format!(
                            "what the network computes of calibration picture {picture} is not finite"
                        );
                        return Err(Error::new(ErrorKind::Checkpoint, message));
                    }
                    self.taken[picture][which] = y;
                }
            }
            self.part = match self.part {
                Part::Stem => Part::Block(0),
                Part::Block(at) if at + 1 < self.config.blocks.len() => Part::Block(at + 1),
                Part::Block(_) => Part::Features,
                Part::Features | Part::Classifier => Part::Classifier,
            };
        }
        Ok(())
    }

    /// The output of the present part for what it takes, or what one of its layers takes: rows, or for a
    /// depthwise convolution the image.
    fn run(&self, which: usize, x: &[f32], until: Option<&str>) -> Vec<f32> {
        match self.part {
            Part::Stem => {
                let windows = &self.windows.0;
                let inputs = self.config.stem_inputs();
                let mut rows = vec![0.0; windows.pixels() * inputs];
                let colors = inputs / (windows.kernel * windows.kernel);
                conv::gather(self.machine.1, windows, colors, x, &mut rows);
                match until {
                    Some(_) => rows,
                    None => self.activated(self.linear(which, "stem", &rows)),
                }
            }
            Part::Block(at) => {
                let (block, windows) = (&self.config.blocks[at], &self.windows.1[at]);
                self.block(which, (at, block, windows), x, until)
            }
            Part::Features | Part::Classifier if until.is_some() => x.to_vec(),
            Part::Features => {
                let y = self.activated(self.linear(which, "features", x));
                let last = self.windows.1.last().map_or(1, |last| last.output[1]);
                let mut pooled = vec![0.0; self.config.features];
                conv::pool(self.machine.0, last, &y, &mut pooled);
                pooled
            }
            Part::Classifier => self.linear(which, "classifier", x),
        }
    }

    fn block(
        &self,
        which: usize,
        (at, block, windows): (usize, &Block, &Windows),
        x: &[f32],
        until: Option<&str>,
    ) -> Vec<f32> {
        let name = |layer: &str| format!("blocks.{at}.{layer}");
        let inputs = x.len() / (windows.input[0] * windows.input[1]);
        if until == Some("expand") {
            return x.to_vec();
        }
        let wide = match block.expanded == inputs {
            true => x.to_vec(),
            false => self.activated(self.linear(which, &name("expand"), x)),
        };
        if until == Some("depthwise") {
            return wide;
        }
        let (channels, taps) = (block.expanded, windows.kernel * windows.kernel);
        let filters = self.tensor(which, &name("depthwise.weight"));
        let filter = Filter {
            windows,
            row: |channel: usize| TableRow::F32(&filters[channel * taps..][..taps]),
            bias: self.tensor(which, &name("depthwise.bias")),
            activation: self.config.activation.function(),
        };
        let mut filtered = vec![0.0; windows.pixels() * channels];
        let mut sums = vec![0.0; windows.output[0] * channels];
        bottleneck::filter(
            self.machine,
            Wide::Image(&wide),
            &filter,
            &mut filtered,
            &mut sums,
        );
        if block.squeezed > 0 {
            let mut mean = vec![0.0; channels];
            conv::mean(self.machine.0, windows.pixels(), &sums, &mut mean);
            if until == Some("squeeze") {
                return mean;
            }
            let squeezed = self.activated(self.linear(which, &name("squeeze"), &mean));
            if until == Some("excite") {
                return squeezed;
            }
            let mut factors = self.linear(which, &name("excite"), &squeezed);
            conv::sigmoid(self.machine.0, &mut factors);
            fused::scale(self.machine, &mut filtered, &factors);
        }
        if until.is_some() {
            return filtered;
        }
        let mut y = self.linear(which, &name("project"), &filtered);
        if windows.stride == 1 && inputs == block.channels {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        }
        y
    }

    fn tensor(&self, which: usize, name: &str) -> &[f32] {
        &self.tensors[name][which].values
    }

    fn linear(&self, which: usize, layer: &str, x: &[f32]) -> Vec<f32> {
        let weight = &self.tensors[&format!("{layer}.weight")][which];
        let bias = self.tensor(which, &format!("{layer}.bias"));
        let columns = weight.values.len() / bias.len();
        let mut y = vec![0.0; x.len() / columns * bias.len()];
        product(self.machine, weight, Some(bias), x, &mut y);
        y
    }

    fn activated(&self, mut x: Vec<f32>) -> Vec<f32> {
        let function = self.config.activation.function();
        x.par_chunks_mut(1 << 14)
            .for_each(|part| activate(self.machine.0, function, part));
        x
    }

    fn measure(&self, layer: &str) -> Measured {
        match layer {
            "depthwise" => self.depthwise(),
            _ => Measured::Dense(self.dense(layer)),
        }
    }

    fn dense(&self, layer: &str) -> Inputs {
        let columns = self.columns(self.part, layer);
        let mut sums = Sums::new(self.machine, columns);
        let mut waiting = [Vec::new(), Vec::new()];
        for (number, taken) in self.taken.iter().enumerate() {
            for which in [ORIGINAL, QUANTIZED] {
                let rows = self.run(which, &taken[which], Some(layer));
                let step = (rows.len() / columns * self.taken.len())
                    .div_ceil(ROWS)
                    .max(1);
                let rows = rows.chunks_exact(columns).skip(number % step).step_by(step);
                waiting[which].extend(rows.flatten());
            }
            if waiting[0].len() >= CHUNK * columns {
                sums.add(std::mem::take(&mut waiting), None);
            }
        }
        sums.add(waiting, None);
        sums.finish()
    }

    /// Inputs of a dense layer.
    fn columns(&self, part: Part, layer: &str) -> usize {
        let before = |at: usize| match at {
            0 => self.config.stem,
            at => self.config.blocks[at - 1].channels,
        };
        match (part, layer) {
            (Part::Stem, _) => self.config.stem_inputs(),
            (Part::Block(at), "expand") => before(at),
            (Part::Block(at), "excite") => self.config.blocks[at].squeezed,
            (Part::Block(at), _) => self.config.blocks[at].expanded,
            (Part::Features, _) => before(self.config.blocks.len()),
            (Part::Classifier, _) => self.config.features,
        }
    }

    fn depthwise(&self) -> Measured {
        let Part::Block(at) = self.part else {
            unreachable!("only blocks have depthwise convolutions");
        };
        let (windows, channels) = (&self.windows.1[at], self.config.blocks[at].expanded);
        let taps = windows.kernel * windows.kernel;
        let mut sums = [vec![0f64; taps * channels], vec![0f64; taps * channels]];
        let mut squares = vec![0f64; channels];
        for taken in &self.taken {
            for which in [ORIGINAL, QUANTIZED] {
                let image = self.run(which, &taken[which], Some("depthwise"));
                for (tap, sum) in sums[which].chunks_exact_mut(channels).enumerate() {
                    conv::add_under_tap(windows, tap, &image, sum);
                }
                if which == QUANTIZED {
                    for pixel in image.chunks_exact(channels) {
                        let pairs = squares.iter_mut().zip(pixel);
                        pairs.for_each(|(s, &v)| *s += f64::from(v) * f64::from(v));
                    }
                }
            }
        }
        let pictures = self.taken.len();
        let mean = |sums: &[f64], of: usize| -> Vec<f32> {
            sums.iter().map(|sum| (sum / of as f64) as f32).collect()
        };
        Measured::Depthwise {
            taps: sums.map(|sums| mean(&sums, pictures * windows.pixels())),
            power: mean(&squares, pictures * windows.input[0] * windows.input[1]),
        }
    }
}

impl Calibration for Pictures<'_> {
    fn inputs(&mut self, name: &str) -> Result<Option<&Inputs>> {
        if !name.ends_with(".weight") {
            return Ok(None);
        }
        let Some((part, layer)) = place(name) else {
            return Ok(None);
        };
        self.current = None;
        self.advance_to(part)?;
        let measured = self.measure(layer);
        let (stem, _) = name.rsplit_once('.').unwrap_or_default();
        let (_, measured) = self.current.insert((stem.to_owned(), measured));
        Ok(match measured {
            Measured::Dense(inputs) => Some(inputs),
            Measured::Depthwise { .. } => None,
        })
    }

    fn quantize(
        &self,
        name: &str,
        matrix: Matrix<'_>,
        options: &PqOptions,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pq> {
        let rows = match &self.current {
            Some((layer, Measured::Depthwise { power, .. })) if name.starts_with(&layer[..]) => {
                Some(&power[..])
            }
            _ => None,
        };
        let importance = Importance {
            columns: None,
            rows,
        };
        pq::quantize(matrix, importance, options, progress)
    }

    fn bias(&self, name: &str, bias: &[f32]) -> Vec<f32> {
        let layer = name.strip_suffix(".bias");
        let Some((at, measured)) = self.current.as_ref().filter(|(at, _)| layer == Some(at)) else {
            return bias.to_vec();
        };
        let Some(tensors) = self.tensors.get(&format!("{at}.weight")) else {
            return bias.to_vec();
        };
        match measured {
            Measured::Dense(inputs) => corrected(self.machine, tensors, &inputs.mean, bias),
            Measured::Depthwise { taps, .. } => {
                let channels = bias.len();
                let given = |which: usize, channel: usize| -> f64 {
                    let means = taps[which].iter().skip(channel).step_by(channels);
                    let count = taps[which].len() / channels;
                    let filter = &tensors[which].values[channel * count..][..count];
                    let products = filter.iter().zip(means);
                    products.map(|(f, m)| f64::from(*f) * f64::from(*m)).sum()
                };
                let corrected = bias.iter().enumerate().map(|(channel, bias)| {
                    bias + (given(ORIGINAL, channel) - given(QUANTIZED, channel)) as f32
                });
                corrected.collect()
            }
        }
    }

    fn quantized(&mut self, name: &str, original: &[f32], decoded: Vec<f32>) {
        let dense = name.ends_with(".weight") && !name.ends_with(".depthwise.weight");
        let columns = match place(name) {
            Some((part, layer)) if dense => Some(self.columns(part, layer)),
            _ => None,
        };
        let stored = |values: Vec<f32>| match columns {
            Some(columns) => Stored::tiled(&values, columns),
            None => Stored::plain(values),
        };
        let both = [stored(original.to_vec()), stored(decoded)];
        self.tensors.insert(name.to_owned(), both);
    }
}

/// The part and, of a block, the layer that a tensor belongs to.
fn place(name: &str) -> Option<(Part, &str)> {
    let (layer, _) = name.rsplit_once('.')?;
    Some(match layer {
        "stem" => (Part::Stem, layer),
        "features" => (Part::Features, layer),
        "classifier" => (Part::Classifier, layer),
        _ => {
            let (at, layer) = layer.strip_prefix("blocks.")?.split_once('.')?;
            (Part::Block(at.parse().ok()?), layer)
        }
    })
}

/// What the network takes for a picture.
#[cfg(feature = "image")]
fn input(file: &Path, config: &Config) -> Result<Vec<f32>> {
    let bytes = crate::image::read(file)?;
    crate::image::input(&bytes, &config.input).map_err(|e| e.in_file(file))
}

#[cfg(not(feature = "image"))]
fn input(file: &Path, _: &Config) -> Result<Vec<f32>> {
    let message = "pictures are read by the feature `image`, without which this was built";
    Err(Error::new(ErrorKind::Unsupported, message).in_file(file))
}

#[cfg(test)]
mod tests;
