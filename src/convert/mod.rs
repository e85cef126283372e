//! From a trained checkpoint to an artifact.
//!
//! ```no_run
//! use centroid::convert::{Conversion, ConvertOptions};
//!
//! # fn main() -> centroid::Result<()> {
//! let conversion = Conversion::from_directory("all-MiniLM-L6-v2", &ConvertOptions::default())?;
//! for tensor in conversion.plan() {
//!     println!("{tensor}");
//! }
//! let report = conversion.write("minilm.centroid", false, &|_| ())?;
//! println!("{} bytes", report.file_bytes);
//! # Ok(())
//! # }
//! ```

mod calibrate;
mod checkpoint;
mod coded;
mod config;
mod efficientnet;
mod encode;
mod entry;
mod fairseq;
mod hf;
mod pickle;
mod plan;
mod random;
pub(crate) mod random_tokenizer;
#[cfg(feature = "train")]
pub(crate) mod recode;
mod sensitivity;
mod tables;
pub(crate) mod tokenizer;
#[cfg(feature = "train")]
pub(crate) mod trained;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use checkpoint::Checkpoint;
pub use encode::{Report, TensorReport};
pub use plan::{GroupPlan, Plan, PlannedTensor};
pub use random::Architecture;

use self::encode::Origin;
use crate::artifact::{
    Artifact, StoredTokenizer, check_target, refuse_existing, with_tokenizer, write_file,
};
use crate::error::{Error, ErrorKind, Result};
use crate::models;
use crate::models::encoder::{self, Config};

/// How token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token.
    Cls,
    /// The largest value of each column.
    Max,
}

impl From<Pooling> for encoder::Pooling {
    fn from(pooling: Pooling) -> Self {
        match pooling {
            Pooling::Mean => Self::Mean,
            Pooling::Cls => Self::Cls,
            Pooling::Max => Self::Max,
        }
    }
}

/// How a picture becomes the square that a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Crop {
    /// The shorter side is resized to somewhat more than the network takes (32 pixels, unless the checkpoint
    /// says otherwise), then the middle is cut out.
    AfterResize,
    /// The middle, as large a share, is cut out and then resized.
    BeforeResize,
    /// All of it is resized, whatever its shape.
    Whole,
}

impl From<Crop> for models::efficientnet::Crop {
    fn from(crop: Crop) -> Self {
        match crop {
            Crop::AfterResize => Self::AfterResize,
            Crop::BeforeResize => Self::BeforeResize,
            Crop::Whole => Self::Whole,
        }
    }
}

/// What to make of a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// How each group of tensors is quantized.
    pub plan: Plan,
    /// Which layers to keep, by their original numbers; all of them if `None`.
    pub layers: Option<Vec<usize>>,
    /// Chunks of this many of the layers kept share the weights of the chunk's first one, layer
    /// norms and biases included; 0 and 1 share nothing.
    pub share: usize,
    /// Pooling of an embedder, over what the checkpoint says.
    pub pooling: Option<Pooling>,
    /// Divide embeddings by their L2 norm, over what the checkpoint says.
    pub normalize: bool,
    /// Labels of a classifier, over what the checkpoint says.
    pub labels: Option<Vec<String>>,
    /// Texts on which activations are measured, so that what is minimised is the error of each
    /// layer's output and not that of its weights.
    pub calibration: Vec<String>,
    /// The same for networks of images: files of pictures (JPEG, PNG, WebP), a few hundred, which needs the
    /// feature `image`. As many are taken as need 2 GiB of memory, evenly spread; a note says so.
    pub pictures: Vec<PathBuf>,
    /// Height and width of the images that a network of images takes, over its usual ones.
    pub image_size: Option<usize>,
    /// How pictures become squares, over the network's usual way.
    pub crop: Option<Crop>,
    /// What a network of images subtracts from red, green and blue (0 to 1), over its usual values.
    pub mean: Option<[f64; 3]>,
    /// What it divides them by then, above 0.
    pub std: Option<[f64; 3]>,
}

impl ConvertOptions {
    /// What becomes of each tensor.
    fn planned(&self, tensors: &[encode::NewTensor]) -> Result<Vec<PlannedTensor>> {
        use crate::artifact::Scheme::{F16, F32};
        let planned = self.plan.resolve(tensors)?;
        let rounds = |tensor: &PlannedTensor| !matches!(tensor.plan.scheme, F32 | F16);
        let calibrated = !self.calibration.is_empty() || !self.pictures.is_empty();
        if calibrated && !planned.iter().any(rounds) {
            let message = "calibration is for codes, int8 and int4, and the plan has none of them";
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(planned)
    }

    /// Options that mean nothing for models of texts.
    fn refuse_of_images(&self) -> Result<()> {
        refuse(
            &[
                ("pictures", !self.pictures.is_empty()),
                ("image_size", self.image_size.is_some()),
                ("crop", self.crop.is_some()),
                ("mean", self.mean.is_some()),
                ("std", self.std.is_some()),
            ],
            "networks of images",
        )
    }

    /// Options that mean nothing for networks of images.
    fn refuse_of_texts(&self) -> Result<()> {
        refuse(
            &[
                ("layers", self.layers.is_some()),
                ("share", self.share > 1),
                ("pooling", self.pooling.is_some()),
                ("normalize", self.normalize),
                ("calibration", !self.calibration.is_empty()),
            ],
            "models of texts",
        )
    }
}

/// Refuses what is given.
fn refuse(given: &[(&str, bool)], belongs_to: &str) -> Result<()> {
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::new(
            ErrorKind::Config,
            format!("{name} is for {belongs_to}"),
        )),
        None => Ok(()),
    }
}

/// A checkpoint that has been read and checked, and a plan for it.
pub struct Conversion {
    model: Model,
    labels: Option<Vec<String>>,
    source: Source,
    tensors: Vec<encode::NewTensor>,
    plan: Plan,
    planned: Vec<PlannedTensor>,
    calibration: Vec<String>,
    pictures: Vec<PathBuf>,
    notes: Vec<String>,
    provenance: Vec<(String, String)>,
}

/// What a conversion makes.
enum Model {
    Text(TextModel),
    Image(models::efficientnet::Config),
}

struct TextModel {
    config: Config,
    tokenizer: StoredTokenizer,
    /// For each layer of the result the layer whose tensors it uses.
    layer_of: Vec<usize>,
    /// What the checkpoint's `config.json` says, or would say.
    #[cfg(feature = "train")]
    config_json: serde_json::Map<String, serde_json::Value>,
}

/// Fails where [`Conversion::write`] would fail to write `path`: before hours of work, not after them. A
/// temporary file is made beside it, and removed.
///
/// # Errors
/// If `path` exists and `force` is not set, if it is no regular file, or if its directory does not exist or
/// cannot be written to.
pub fn check_output(path: impl AsRef<Path>, force: bool) -> Result<()> {
    check_target(path.as_ref(), force)
}

/// Writes `artifact` at `path` with its `tokenizer.json` as tokenizer tables, which open faster;
/// all else stays as it is.
///
/// # Errors
/// If the tables cannot express the tokenizer, if the file exists and `force` is not set, or if it
/// cannot be written; then nothing is left behind.
pub fn with_tokenizer_tables(
    artifact: &Artifact,
    path: impl AsRef<Path>,
    force: bool,
) -> Result<()> {
    let mut reasons = Vec::new();
    let tables = match artifact.tokenizer() {
        Some(StoredTokenizer::Json(json)) => {
            tokenizer::stored(json.to_vec(), &mut reasons).map_err(|e| artifact.locate(e))?
        }
        Some(tables) => tables.clone(),
        None => return Err(artifact.locate(Error::format("the tokenizer is missing"))),
    };
    if let Some(reason) = reasons.pop() {
        return Err(artifact.locate(Error::new(ErrorKind::Unsupported, reason)));
    }
    let bytes = with_tokenizer(artifact, &tables)?;
    // What is written must open.
    Artifact::from_bytes(&bytes)?;
    write_file(path.as_ref(), &bytes, force)
}

/// Where weights come from.
enum Source {
    Checkpoint(checkpoint::Checkpoint),
    Random,
    #[cfg(feature = "train")]
    Trained(std::collections::HashMap<String, encode::Trained>),
}

impl Conversion {
    /// Matrices that have codes keep them, whatever block the plan has for others.
    fn keep_codes(&mut self) {
        let Source::Checkpoint(checkpoint) = &self.source else {
            return;
        };
        let (mut kept, mut blocks) = (0, BTreeSet::new());
        for (tensor, planned) in self.tensors.iter().zip(&mut self.planned) {
            let Origin::Checkpoint(name) = &tensor.origin else {
                continue;
            };
            if let Some(size) = checkpoint.coded(name)
                && planned.keep_codes(tensor, size)
            {
                kept += 1;
                blocks.insert(size.block);
            }
        }
        if kept > 0 {
            let blocks: Vec<_> = blocks.iter().map(usize::to_string).collect();
            self.notes.push(format!(
                "{kept} matrices keep the codes and centroids that the checkpoint has, in blocks of {}",
                blocks.join(" and ")
            ));
        }
    }

    /// Reads a Hugging Face or sentence-transformers directory: `config.json`, weights (as
    /// [`Checkpoint::open`] finds them), tokenizer, labels and pooling.
    ///
    /// # Errors
    /// If something is missing, malformed or not supported; the error names the file and the
    /// field or tensor. Nothing is written.
    pub fn from_directory(directory: impl AsRef<Path>, options: &ConvertOptions) -> Result<Self> {
        hf::read(directory.as_ref(), options)
    }

    /// Reads the weights of an EfficientNet (`network`: `efficientnet-lite0` to `efficientnet-b7`, or none to know
    /// it by its tensors' shapes) under the names of `timm` or `efficientnet-pytorch`: a file, or a directory
    /// as [`Checkpoint::open`] knows it. Where timm's `config.json` is in the directory, it says which network
    /// that is, how pictures are prepared, and what the labels are called. What fairseq's iPQ has quantized keeps its
    /// codes, but for the first convolution.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, if the network is not known, or if an option is for
    /// models of texts.
    pub fn efficientnet(
        path: impl AsRef<Path>,
        network: Option<&str>,
        options: &ConvertOptions,
    ) -> Result<Self> {
        let mut conversion = efficientnet::read(path.as_ref(), network, options)?;
        conversion.keep_codes();
        Ok(conversion)
    }

    /// Checks that a name is one that [`efficientnet`](Self::efficientnet) knows.
    ///
    /// # Errors
    /// If it is not; the message says which are.
    pub fn check_network(name: &str) -> Result<()> {
        efficientnet::check_name(name)
    }

    /// Whether a checkpoint is for [`efficientnet`](Self::efficientnet) and not for
    /// [`from_directory`](Self::from_directory): a file, or a directory with timm's `config.json`.
    ///
    /// # Errors
    /// If there is a `config.json` that cannot be read.
    pub fn is_of_images(path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        Ok(path.is_file() || efficientnet::timm::Timm::read(path)?.is_some())
    }

    /// Prepares an artifact of a well-known shape with generated weights: for measuring size and
    /// speed without a checkpoint. Its answers mean nothing.
    ///
    /// # Errors
    /// If an option does not fit the architecture.
    pub fn random(architecture: Architecture, options: &ConvertOptions) -> Result<Self> {
        random::prepare(architecture, options)
    }

    /// The model of texts that calibration and training are for.
    fn text(&self) -> &TextModel {
        match &self.model {
            Model::Text(text) => text,
            Model::Image(_) => unreachable!("only models of texts are calibrated or trained"),
        }
    }

    /// What each tensor becomes, and how many bytes it takes.
    pub fn plan(&self) -> &[PlannedTensor] {
        &self.planned
    }

    /// What was left out, changed or assumed, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How many weights there are to quantize: what the numbers given to `progress` add up to.
    pub fn work(&self) -> u64 {
        self.planned.iter().map(PlannedTensor::parameters).sum()
    }

    /// Adds a line on where the model comes from.
    #[cfg(feature = "train")]
    pub(crate) fn add_provenance(&mut self, key: &str, value: String) {
        self.provenance.push((key.to_owned(), value));
    }

    /// Quantizes and returns the artifact's bytes.
    ///
    /// # Errors
    /// If a weight is not finite or a tensor cannot be quantized as planned.
    pub fn to_bytes(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<(Vec<u8>, Report)> {
        let (bytes, mut report) = encode::encode(self, progress)?;
        // What is written must open: the same checks as any reader's.
        let artifact = Artifact::from_bytes(&bytes)?;
        match &self.model {
            Model::Text(_) => drop(encoder::Encoder::load(&artifact)?),
            Model::Image(_) => drop(models::efficientnet::EfficientNet::load(&artifact)?),
        }
        report.file_bytes = artifact.file_bytes();
        report.weight_bytes = artifact.weight_bytes();
        report.tokenizer_bytes = artifact.tokenizer_bytes();
        Ok((bytes, report))
    }

    /// Quantizes and writes the artifact at `path`, by way of a temporary file beside it.
    ///
    /// # Errors
    /// As for [`Conversion::to_bytes`], and if the file exists and `force` is not set or it cannot
    /// be written; then nothing is left behind.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        force: bool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Report> {
        let path: PathBuf = path.as_ref().to_owned();
        refuse_existing(&path, force)?;
        let (bytes, report) = self.to_bytes(progress)?;
        write_file(&path, &bytes, force)?;
        Ok(report)
    }
}
