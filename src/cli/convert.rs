//! `centroid convert`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use centroid::Scheme;
use centroid::convert::{
    Architecture, Conversion, ConvertOptions, Crop, Plan, Pooling, Report, check_output,
};
use centroid::quant::CentroidType;
use clap::Args;
use serde::Serialize;

use super::input::Lines;
use super::output::{Out, one_line, size};
use super::progress::Progress;
use super::values::{self, Blocks, Labels, Layers};
use super::{Failure, note, pictures};

/// Make a `.centroid` file of a checkpoint
///
/// Reads a Hugging Face, sentence-transformers or fairseq directory (configuration, weights, tokenizer)
/// or the weights of an EfficientNet (a file, or a directory of timm's), or generates weights for a
/// well-known architecture, prints what each tensor becomes, quantizes, and reports sizes and errors. The
/// plan and the progress go to standard error, the report to standard output.
///
/// A flag goes over the plan file, and that over the defaults. `--scheme` stands in for the plan
/// file's `scheme`; groups and tensors to which the file gives a scheme of their own keep it, and a
/// rule for a single tensor goes over every flag. A flag that has no effect on any group is an
/// error.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid convert all-MiniLM-L6-v2 -o minilm.centroid\n  \
    centroid convert roberta-large-mnli -o nli.centroid --block ffn=8,attention=8 --row-scale\n  \
    centroid convert model -o model.centroid --plan plan.toml --calibrate sample.txt\n  \
    centroid convert efficientnet-lite0.pth -o lite0.centroid --calibrate photographs/\n  \
    centroid convert --random roberta-base -o size.centroid --share 2")]
pub struct Convert {
    /// The checkpoint: a directory, or the weights of an EfficientNet in a file
    #[arg(
        value_name = "CHECKPOINT",
        required_unless_present = "random",
        conflicts_with = "random"
    )]
    checkpoint: Option<PathBuf>,
    /// The checkpoint is this network of images: efficientnet-b0 to b7, efficientnet-lite0 to lite4; of
    /// timm tf_efficientnet_b0, efficientnet_b0 and so on [default: known by its tensors]
    #[arg(long, value_name = "NAME", value_parser = values::network, conflicts_with = "random")]
    network: Option<String>,
    /// Height and width of the images that the network takes [default: its usual ones]
    #[arg(long, value_name = "N", value_parser = values::positive, conflicts_with = "random")]
    image_size: Option<usize>,
    /// How a picture becomes a square: after-resize and before-resize cut out the middle, whole cuts nothing
    /// off [default: the network's usual way]
    #[arg(long, value_name = "HOW", value_parser = values::crop(), conflicts_with = "random")]
    crop: Option<Crop>,
    /// What is subtracted from red, green and blue, which are 0 to 1 [default: the network's usual values]
    #[arg(long, value_name = "R,G,B", value_parser = values::colors, allow_hyphen_values = true,
        conflicts_with = "random")]
    mean: Option<[f64; 3]>,
    /// What they are divided by then [default: the network's usual values]
    #[arg(long, value_name = "R,G,B", value_parser = values::deviations, conflicts_with = "random")]
    std: Option<[f64; 3]>,
    /// Generate weights for this architecture: size and speed are real, answers are not
    #[arg(long, value_name = "ARCH", value_parser = values::architecture())]
    random: Option<Architecture>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quantization: Quantization,
    /// One scale for a tensor and none a row (int8, int4)
    #[arg(long, conflicts_with = "row_scale")]
    per_tensor: bool,
    /// Give each row a scale of its own [default: pq no, int8 and int4 yes]
    #[arg(long)]
    row_scale: bool,
    /// Shift the grid to the range of the weights (int8, int4)
    #[arg(long)]
    zero_point: bool,
    /// Centroids in a codebook, 2 to 256 [default: 256] (pq)
    #[arg(long, value_name = "N", value_parser = values::centroids)]
    centroids: Option<usize>,
    /// How centroids are stored [default: int8] (pq)
    #[arg(long, value_name = "TYPE", value_parser = values::centroid_type())]
    centroid_type: Option<CentroidType>,
    /// Run every K-means iteration on all vectors and not on a sample (pq)
    #[arg(long)]
    kmeans_full: bool,
    /// A plan: TOML with scheme, seed, kmeans-full, [groups.NAME], [[tensors]]
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Minimise the error of layer outputs on these texts, one a line; for a network of images on the pictures
    /// that the file lists, one a line, from its directory, or on all that are in a directory
    #[arg(long, value_name = "FILE", conflicts_with = "random")]
    calibrate: Option<PathBuf>,
    /// Layers to keep, ascending, from 0: 0,2,4 [default: all]
    #[arg(long, value_name = "LIST", value_parser = values::layers)]
    layers: Option<Layers>,
    /// Seed of every random choice [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Pooling of an embedding model [default: what the checkpoint says, else mean]
    #[arg(long, value_name = "HOW", value_parser = values::pooling())]
    pooling: Option<Pooling>,
    /// Divide embeddings by their L2 norm [default: what the checkpoint says]
    #[arg(long)]
    normalize: bool,
    /// Labels of a classifier: a,b,c [default: what the checkpoint says]
    #[arg(long, value_name = "LIST", value_parser = values::labels)]
    labels: Option<Labels>,
    /// The same from a file, one a line: names may have commas then
    #[arg(long, value_name = "FILE", conflicts_with = "labels")]
    labels_file: Option<PathBuf>,
}

/// The flags that `bench` has, too.
#[derive(Args, Clone)]
pub struct Quantization {
    /// How matrices are stored [default: pq]
    #[arg(long, value_name = "SCHEME", value_parser = values::scheme())]
    pub scheme: Option<Scheme>,
    /// Columns in a block, 1 to 64, by group [default: ffn=8,attention=4,embedding=8,position=8,
    /// head=4; attention=8,embedding=16 for a generated roberta-base] (pq)
    #[arg(long, value_name = "GROUP=N,...", value_parser = values::blocks)]
    pub block: Option<Blocks>,
    /// Let each N layers in a row share the weights of the first of them
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub share: Option<usize>,
}

impl Quantization {
    /// # Errors
    /// If there is something in it that the kind of model has not.
    pub fn check_kind(&self, of_images: bool) -> Result<(), Failure> {
        let fail = |flag: &str, kind| Err(Failure::Usage(format!("{flag} is for {kind}")));
        let (groups, others) = match of_images {
            true => (values::OF_IMAGES, "models of texts"),
            false => (values::OF_TEXTS, "networks of images"),
        };
        if of_images && self.share.is_some() {
            return fail("--share", others);
        }
        let mut given = self.block.iter().flat_map(|blocks| &blocks.0);
        match given.find(|(group, _)| !groups.contains(group)) {
            Some((group, _)) => fail(&format!("--block {}", group.name()), others),
            None => Ok(()),
        }
    }

    /// The defaults, a plan file and the flags, in this order.
    pub fn plan(
        &self,
        architecture: Option<Architecture>,
        file: Option<&Path>,
    ) -> Result<Plan, Failure> {
        let scheme = self.scheme.unwrap_or(Scheme::Pq);
        let mut plan = match architecture {
            Some(architecture) => architecture.default_plan(scheme),
            None => Plan::new(scheme),
        };
        match (file, self.scheme) {
            (Some(file), Some(scheme)) => plan.apply_file_with_scheme(file, scheme)?,
            (Some(file), None) => plan.apply_file(file)?,
            (None, _) => {}
        }
        for (group, size) in self.block.iter().flat_map(|blocks| &blocks.0) {
            plan.set_block(group.name(), *size).map_err(usage)?;
        }
        Ok(plan)
    }
}

fn usage(error: centroid::Error) -> Failure {
    Failure::Usage(error.to_string())
}

impl Convert {
    pub fn run(self) -> Result<(), Failure> {
        self.check_output()?;
        let of_images = self.of_images()?;
        self.check_kind(of_images)?;
        let options = self.options(of_images)?;
        let conversion = match (&self.random, &self.checkpoint) {
            (Some(architecture), _) => Conversion::random(*architecture, &options)?,
            (None, Some(path)) if of_images => {
                Conversion::efficientnet(path, self.network.as_deref(), &options)?
            }
            (None, Some(directory)) => Conversion::from_directory(directory, &options)?,
            (None, None) => {
                return Err(Failure::Usage("CHECKPOINT or --random is missing".into()));
            }
        };
        // Generated weights are drawn with it, too.
        if self.seed.is_some() && self.random.is_none() {
            let mut planned = conversion.plan().iter();
            if planned.all(|tensor| tensor.plan.scheme != Scheme::Pq) {
                let message = "--seed is for pq, which the plan gives to no tensor";
                return Err(Failure::Usage(message.into()));
            }
        }
        show_plan(&conversion);
        let progress = Progress::new(conversion.work());
        let written = conversion.write(&self.output, self.force, &|work| progress.add(work));
        progress.finish();
        let report = written?;
        let mut out = Out::new();
        if self.json {
            out.json(&self.summary(&conversion, &report))?;
        } else {
            self.print(&mut out, &conversion, &report)?;
        }
        out.flush()
    }

    /// Whether a network of images is to be converted.
    fn of_images(&self) -> Result<bool, Failure> {
        Ok(match (&self.random, &self.checkpoint) {
            (Some(architecture), _) => architecture.of_images(),
            (None, Some(path)) => self.network.is_some() || Conversion::is_of_images(path)?,
            (None, None) => false,
        })
    }

    /// Flags that are for the other kind of model.
    fn check_kind(&self, of_images: bool) -> Result<(), Failure> {
        let of_texts = [
            ("--layers", self.layers.is_some()),
            ("--pooling", self.pooling.is_some()),
            ("--normalize", self.normalize),
        ];
        let of_networks = [
            ("--image-size", self.image_size.is_some()),
            ("--crop", self.crop.is_some()),
            ("--mean", self.mean.is_some()),
            ("--std", self.std.is_some()),
        ];
        let first = |flags: &[(&'static str, bool)]| {
            let given = flags.iter().find(|(_, given)| *given);
            given.map(|(flag, _)| *flag)
        };
        let message = match of_images {
            true => first(&of_texts).map(|flag| format!("{flag} is for models of texts")),
            false => first(&of_networks).map(|flag| {
                format!(
                    "{flag} is for networks of images, and this is a directory without timm's config.json: \
                     --network says which"
                )
            }),
        };
        match message {
            Some(message) => Err(Failure::Usage(message)),
            None => self.quantization.check_kind(of_images),
        }
    }

    /// Fails before hours of work whose result could not be written, or would be written over what it is made of.
    fn check_output(&self) -> Result<(), Failure> {
        let fail = |message: &str| {
            let file = self.output.display();
            Err(Failure::Failed(format!("{file}: {message}")))
        };
        if self.output.is_dir() {
            return fail("is a directory");
        }
        if let Ok(output) = self.output.canonicalize() {
            let inputs = [
                ("the checkpoint", &self.checkpoint),
                ("the plan", &self.plan),
                ("what --calibrate names", &self.calibrate),
                ("the file of labels", &self.labels_file),
            ];
            for (what, input) in inputs {
                let Some(input) = input.as_ref().and_then(|path| path.canonicalize().ok()) else {
                    continue;
                };
                // Beside the checkpoint there may be an artifact that was made of it.
                let within = output.starts_with(&input) && !is_artifact(&output);
                if output == input || within {
                    return fail(&format!("is {what}, or a part of it"));
                }
            }
        }
        Ok(check_output(&self.output, self.force)?)
    }

    fn options(&self, of_images: bool) -> Result<ConvertOptions, Failure> {
        let mut plan = (self.quantization).plan(self.random, self.plan.as_deref())?;
        self.change_groups(&mut plan, of_images)?;
        plan.seed = self.seed.unwrap_or(plan.seed);
        plan.kmeans_full |= self.kmeans_full;
        let (calibration, pictures) = match &self.calibrate {
            Some(path) if of_images => (Vec::new(), pictures::listed(path)?),
            Some(file) => (read_lines(file)?, Vec::new()),
            None => Default::default(),
        };
        let labels = match (&self.labels, &self.labels_file) {
            (Some(labels), _) => Some(labels.0.clone()),
            (None, Some(file)) => Some(values::labels_of(file)?),
            (None, None) => None,
        };
        Ok(ConvertOptions {
            plan,
            layers: self.layers.clone().map(|layers| layers.0),
            share: self.quantization.share.unwrap_or(0),
            pooling: self.pooling,
            normalize: self.normalize,
            labels,
            calibration,
            pictures,
            image_size: self.image_size,
            crop: self.crop,
            mean: self.mean,
            std: self.std,
        })
    }

    /// Flags for all groups. Each one changes those whose scheme knows it, of which there must be
    /// one.
    fn change_groups(&self, plan: &mut Plan, of_images: bool) -> Result<(), Failure> {
        use Scheme::{Int4, Int8, Pq};
        let scales: &[Scheme] = &[Pq, Int8, Int4];
        // The plan has groups for both.
        let groups = match of_images {
            true => values::OF_IMAGES,
            false => values::OF_TEXTS,
        };
        for (given, flag, schemes) in [
            (self.centroids.is_some(), "--centroids", &[Pq][..]),
            (self.centroid_type.is_some(), "--centroid-type", &[Pq]),
            (self.kmeans_full, "--kmeans-full", &[Pq]),
            (self.row_scale, "--row-scale", scales),
            (self.per_tensor, "--per-tensor", &[Int8, Int4]),
            (self.zero_point, "--zero-point", &[Int8, Int4]),
        ] {
            let known = |group| {
                let group = plan.group_mut(group);
                group.is_some_and(|group| schemes.contains(&group.scheme))
            };
            if given && !groups.into_iter().any(known) {
                let names: Vec<_> = schemes.iter().map(|scheme| scheme.name()).collect();
                return Err(Failure::Usage(format!(
                    "{flag} is for {}, which the plan gives to no group",
                    names.join(" and ")
                )));
            }
        }
        plan.set_all(|group| {
            if group.scheme == Pq {
                group.centroids = self.centroids.unwrap_or(group.centroids);
                group.centroid_type = self.centroid_type.unwrap_or(group.centroid_type);
            }
            if scales.contains(&group.scheme) {
                group.row_scale |= self.row_scale;
            }
            if matches!(group.scheme, Int8 | Int4) {
                group.row_scale &= !self.per_tensor;
                group.zero_point |= self.zero_point;
            }
        })
        .map_err(usage)
    }
}

/// Whether a file begins as artifacts do.
fn is_artifact(path: &Path) -> bool {
    let mut bytes = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.is_ok() && bytes == *b"CENTROID"
}

/// The lines of a file, but for empty ones, of which not all are.
pub fn read_lines(path: &Path) -> Result<Vec<String>, Failure> {
    let fail = |message: String| Failure::Failed(format!("{}: {message}", path.display()));
    let mut lines = Lines::new(File::open(path).map_err(|e| fail(e.to_string()))?);
    let mut texts = Vec::new();
    let mut count = 0;
    while let Some((number, line)) = lines.next() {
        let text = line.map_err(|message| fail(format!("line {number}: {message}")))?;
        count = number;
        if !text.trim().is_empty() {
            texts.push(text);
        }
    }
    match texts.is_empty() {
        true if count == 0 => Err(fail("line 1: the file is empty".into())),
        true => Err(fail(format!(
            "line {count}: the end, and every line is empty"
        ))),
        false => Ok(texts),
    }
}

/// What each tensor becomes, on standard error.
fn show_plan(conversion: &Conversion) {
    let mut groups: BTreeMap<_, u64> = BTreeMap::new();
    for tensor in conversion.plan() {
        note(format_args!("{}", one_line(&tensor.to_string())));
        *groups.entry(tensor.group).or_default() += tensor.bytes;
    }
    for text in conversion.notes() {
        note(format_args!("note: {}", one_line(text)));
    }
    let total: u64 = groups.values().sum();
    let groups: Vec<String> = (groups.iter())
        .map(|(group, bytes)| format!("{} {}", group.name(), size(*bytes)))
        .collect();
    note(format_args!(
        "plan: {} = {}",
        groups.join(" + "),
        size(total)
    ));
}

#[derive(Serialize)]
struct Summary {
    file: String,
    file_bytes: u64,
    weight_bytes: u64,
    tokenizer_bytes: u64,
    parameters: u64,
    compression_ratio: f64,
    tensors: Vec<Tensor>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    group: &'static str,
    shape: Vec<usize>,
    scheme: &'static str,
    bytes: u64,
    relative_error: Option<f64>,
}

impl Convert {
    fn summary(&self, conversion: &Conversion, report: &Report) -> Summary {
        let tensors =
            (conversion.plan().iter().zip(&report.tensors)).map(|(planned, done)| Tensor {
                name: done.name.clone(),
                group: planned.group.name(),
                shape: planned.shape.clone(),
                scheme: done.scheme.name(),
                bytes: planned.bytes,
                relative_error: done.relative_error,
            });
        Summary {
            file: self.output.display().to_string(),
            file_bytes: report.file_bytes,
            weight_bytes: report.weight_bytes,
            tokenizer_bytes: report.tokenizer_bytes,
            parameters: report.parameters,
            compression_ratio: report.compression_ratio(),
            tensors: tensors.collect(),
            notes: conversion.notes().to_vec(),
        }
    }

    fn print(
        &self,
        out: &mut Out,
        conversion: &Conversion,
        report: &Report,
    ) -> Result<(), Failure> {
        let summary = self.summary(conversion, report);
        if summary.tensors.iter().any(|t| t.relative_error.is_some()) {
            out.line(format_args!(
                "{:<40} {:<6} {:>10}  relative error",
                "tensor", "scheme", "bytes"
            ))?;
            for tensor in &summary.tensors {
                out.line(format_args!(
                    "{:<40} {:<6} {:>10}  {}",
                    tensor.name,
                    tensor.scheme,
                    tensor.bytes,
                    tensor
                        .relative_error
                        .map_or("-".into(), |e| format!("{e:.5}"))
                ))?;
            }
        }
        out.line(format_args!(
            "weights {}, tokenizer {}, {:.1} times smaller than f32",
            size(summary.weight_bytes),
            size(summary.tokenizer_bytes),
            summary.compression_ratio
        ))?;
        out.line(format_args!(
            "wrote {} ({} bytes)",
            one_line(&summary.file),
            summary.file_bytes
        ))
    }
}
