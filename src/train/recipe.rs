//! What a run does: one TOML file.

use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::noise::Noise;
use super::shape::Network;
use crate::convert::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// A run, as its TOML file says. Paths are relative to that file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Recipe {
    /// The checkpoint to start from: a directory as `convert` reads it, for images also a file of weights or
    /// a `.centroid` file. A classification head is new if the checkpoint has none, or one for other labels.
    /// Without one a network of images starts with new weights.
    pub model: Option<PathBuf>,
    /// The directory for everything that is written: `model.centroid`, `log.jsonl` and `log.svg`,
    /// `answers.jsonl` (line and label of each test text, and the runtime's answers), `state.safetensors`
    /// until the run is done, and `checkpoint` for a classifier of texts without codes: its weights in f32, before
    /// they are rounded to what the plan has.
    pub output: PathBuf,
    /// The fine-tuned checkpoint that stages with `distill` learn from.
    pub teacher: Option<PathBuf>,
    /// Seed of every random choice.
    #[serde(default)]
    pub seed: u64,
    /// `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "cpu")]
    pub device: String,
    /// Threads; as many as there are if `None`. Results are bit-identical from run to run with one.
    pub threads: Option<usize>,
    /// Texts of a step.
    #[serde(default = "batch")]
    pub batch: usize,
    /// What is taken from the right label's share and given to all labels (Szegedy et al. 2015, arXiv
    /// 1512.00567).
    #[serde(default)]
    pub label_smoothing: f64,
    /// Parts that a step's texts are divided into, so that less memory is needed.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Probability of dropping a value of a token vector or a share of attention.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Multiply in bf16 in linear layers, forwards and backwards, the teacher's too; everything else, the
    /// weights and what stages with `int8` do stay in f32. Faster on processors with such products only.
    #[serde(default)]
    pub bf16: bool,
    /// Steps between two times that the state is saved; it is, too, after each epoch.
    #[serde(default = "save")]
    pub save: usize,
    /// Which network of images `model` is, or what is to be made new.
    pub network: Option<Network>,
    /// Layers to keep, by their numbers in the checkpoint.
    pub layers: Option<Vec<usize>>,
    /// Chunks of this many layers share weights.
    #[serde(default)]
    pub share: usize,
    /// The labelled texts.
    pub data: Data,
    /// How tensors are to be quantized: what a plan file of `convert` says.
    #[serde(default)]
    pub plan: toml::Table,
    /// What is done, one after another.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
    /// Of the file: runs that go on must have the same.
    #[serde(skip)]
    pub(super) digest: String,
}

/// Labelled texts and how they are divided.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Data {
    /// A file as [`data::read`](crate::data::read) takes it: for training and, where these have no file,
    /// validation and test.
    pub train: PathBuf,
    /// The column of the text, of a model of texts.
    pub text: Option<String>,
    /// The column of the picture's path, relative to the file, of a network of images: JPEG, PNG or WebP.
    pub image: Option<String>,
    /// The column of the second text of pairs.
    pub text_b: Option<String>,
    /// The column of the label. Without one the model learns from its teacher alone: a model of texts is an
    /// embedding model then, as its checkpoint says.
    pub label: Option<String>,
    /// A file of more texts, with the same columns except for labels, for stages that learn from the teacher
    /// alone. Texts that are in the other files, too, are left out.
    pub unlabelled: Option<PathBuf>,
    /// A file, or the share of the texts not in `test`.
    #[serde(default = "tenth_part")]
    pub validation: Part,
    /// A file, a share of the texts, or a fold of a cross-validation.
    #[serde(default = "tenth_part")]
    pub test: Part,
    /// Seed of the division.
    #[serde(default)]
    pub seed: u64,
    /// The most tokens of a text; the model's own limit if `None`. Longer ones are cut, and counted.
    pub max_tokens: Option<usize>,
    /// How training images vary from epoch to epoch; not at all if `None`.
    pub augment: Option<Augment>,
}

/// Changes of training images, each drawn anew whenever an image is seen.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Augment {
    /// Every other time left and right are exchanged.
    #[serde(default)]
    pub flip: bool,
    /// The smallest share of a picture's area that is cut out, with a ratio of sides from 3/4 to 4/3, and
    /// resized (Szegedy et al. 2014, arXiv 1409.4842); 1, the default, takes the middle, as the runtime does.
    #[serde(default = "whole")]
    pub area: f64,
}

/// Where texts for validation or test come from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// A share of all texts, drawn by the seed; 0 for none.
    Share(f64),
    /// One of as many equal parts: `{ fold = 0, of = 5 }`.
    Fold {
        /// From 0.
        fold: usize,
        /// How many there are.
        of: usize,
    },
    /// A file with the columns of `train`.
    File(PathBuf),
}

// Not `untagged`: that says nothing of what is wrong, and takes keys that it does not know.
impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fold {
            fold: usize,
            of: usize,
        }
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Float(share) => Ok(Self::Share(share)),
            toml::Value::Integer(share) => Ok(Self::Share(share as f64)),
            toml::Value::String(file) => Ok(Self::File(file.into())),
            table @ toml::Value::Table(_) => match Fold::deserialize(table) {
                Ok(Fold { fold, of }) => Ok(Self::Fold { fold, of }),
                Err(e) => Err(D::Error::custom(e.message())),
            },
            _ => Err(D::Error::custom(
                "a share, a file or { fold = 0, of = 5 } is expected",
            )),
        }
    }
}

/// A part of the run with a learning rate that rises and falls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Stage {
    /// Its name in the log.
    pub name: String,
    /// Groups that get codes and centroids before the stage's first step: `ffn`, `attention`, `embedding`,
    /// `position`, `head`; of images `pointwise`, `depthwise`, `squeeze`, `classifier`. What tensors' names
    /// begin with stands for these, as far as the plan has codes for them: `blocks.3`, `blocks.0-3` for several.
    /// What the plan has in int8 or int4 is used as it will be stored from then on, and trained on below that
    /// rounding (a straight-through estimator).
    #[serde(default)]
    pub quantize: Vec<String>,
    /// Times that all texts are seen; 0 to quantize only.
    pub epochs: usize,
    /// The highest learning rate. In networks of images, whose rows differ much in size, that of matrices and
    /// centroids is relative to the size (root mean square) that each row had.
    #[serde(default = "learning_rate")]
    pub learning_rate: f64,
    /// The highest learning rate of centroids.
    #[serde(default = "centroid_learning_rate")]
    pub centroid_learning_rate: f64,
    /// The part of the steps in which learning rates rise; then they fall to 0.
    #[serde(default = "tenth")]
    pub warmup: f64,
    /// Weight decay of matrices.
    #[serde(default = "hundredth")]
    pub weight_decay: f64,
    /// The largest norm of the gradients.
    #[serde(default = "clip")]
    pub clip: f64,
    /// Probability of skipping a layer (LayerDrop, Fan et al. 2019, arXiv 1909.11556); layers that share weights
    /// are skipped together.
    #[serde(default)]
    pub layer_drop: f64,
    /// Noise on weights that are not quantized yet.
    pub noise: Option<Noise>,
    /// Weigh errors in K-means by the mean square of each input of the layer, on 256 of the training texts:
    /// what counts is the error of its output (Stock et al. 2020, arXiv 1907.05686).
    #[serde(default)]
    pub weigh_inputs: bool,
    /// Make codes as `convert --calibrate` does, with so many of the training texts or images: layer by layer,
    /// each so that its output on the inputs that it will really get is as it was, and biases take up what is
    /// left of a constant error.
    pub calibrate: Option<usize>,
    /// With `calibrate`: errors count by what they do to the model's answers to these texts, as gradients say,
    /// those of a linear layer's output token by token, those of the embedding tables also by direction (the
    /// Fisher information of a classifier's answers, the Gauss-Newton matrix of an embedding model's
    /// vectors; compare GuidedQuant, Kim et al. 2025, arXiv 2505.07004). So it is unless this is `false`: then
    /// all tokens' errors count the same, as with `convert --calibrate`.
    pub weigh_answers: Option<bool>,
    /// Every so many steps a block gets the code of another centroid, if that is much nearer to its weights
    /// (half the squared distance), which go on being trained beside the centroids (a straight-through
    /// estimator, as in van den Oord et al. 2017, arXiv 1711.00937). With `calibrate`, weights start from what
    /// the codes stand for, so that a block changes once its gradients have moved it far enough. Without
    /// `reassign` codes stay as they are.
    pub reassign: Option<usize>,
    /// Train with what the runtime's mode `int8` computes: the input of linear layers is rounded to 8
    /// bits, each token with its own scale, and f16 centroids to what multiplies there. Gradients are those
    /// without rounding. (Centroids are rounded as they will be stored in every stage.)
    #[serde(default)]
    pub int8: bool,
    /// Learning from the teacher.
    pub distill: Option<Distill>,
    /// Stop after this many epochs without a better validation score.
    pub patience: Option<usize>,
}

impl Stage {
    /// Whether texts need no labels in it.
    pub(super) fn learns_from_teacher(&self) -> bool {
        (self.distill.as_ref()).is_some_and(|distill| distill.labels == 0.0)
    }
}

/// Parts of a loss.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Distill {
    /// Of the cross-entropy with labels.
    pub labels: f64,
    /// Of the divergence from the teacher's logits (Hinton et al. 2015, arXiv 1503.02531); 1 unless given,
    /// for a model with labels.
    pub logits: Option<f64>,
    /// Of 1 less the cosine of the text's vector and the teacher's; 1 unless given, for an embedding model.
    pub embedding: Option<f64>,
    /// Divides the logits of both.
    pub temperature: f64,
    /// Of the mean squared error of token vectors, after the embeddings and after each layer.
    pub hidden: f64,
    /// The teacher's layers (0 the embeddings) that the student's embeddings and layers learn from;
    /// evenly spread if `None`.
    pub layers: Option<Vec<usize>>,
    /// The chance that a text is replaced by its beginning followed by the end of another one: the teacher
    /// knows an answer for that, too, and few texts teach more (as with the augmented data of TinyBERT, Jiao
    /// et al. 2020, arXiv 1909.10351). Not with `labels`, which do not hold for such texts, nor for pairs.
    pub splice: f64,
    /// The highest share of tokens that are replaced: each text draws its own share from 0 to this, and each
    /// of its tokens but the tokenizer's special ones has that chance of becoming one of the 15 nearest in
    /// the teacher's embedding table. Rare words, too, are so learnt. (TinyBERT as well.) Not with `labels`.
    pub replace: f64,
}

impl Default for Distill {
    fn default() -> Self {
        Self {
            labels: 0.0,
            logits: None,
            embedding: None,
            temperature: 1.0,
            hidden: 1.0,
            layers: None,
            splice: 0.0,
            replace: 0.0,
        }
    }
}

fn whole() -> f64 {
    1.0
}
fn cpu() -> String {
    "cpu".into()
}
fn batch() -> usize {
    32
}
fn one() -> usize {
    1
}
fn save() -> usize {
    200
}
fn tenth() -> f64 {
    0.1
}
fn tenth_part() -> Part {
    Part::Share(0.1)
}
fn hundredth() -> f64 {
    0.01
}
fn clip() -> f64 {
    1.0
}
fn learning_rate() -> f64 {
    5e-5
}
fn centroid_learning_rate() -> f64 {
    1e-3
}

impl Recipe {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read; [`ErrorKind::Config`] for what is not TOML, an unknown key
    /// (with the nearest known one), and a value out of range.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = files::settings(path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(|e| e.in_file(path))
    }

    pub(super) fn parse(text: &str, directory: &Path) -> Result<Self> {
        let mut recipe: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            let message = error.message().replace('\n', " ");
            config(format!("line {line}: {}", with_nearest(&message)))
        })?;
        recipe.digest = super::digest(text.as_bytes());
        let Self {
            model,
            output,
            teacher,
            data,
            ..
        } = &mut recipe;
        let mut paths = vec![output, &mut data.train];
        paths.extend(model);
        paths.extend(teacher);
        paths.extend(&mut data.unlabelled);
        for part in [&mut data.validation, &mut data.test] {
            if let Part::File(file) = part {
                paths.push(file);
            }
        }
        for path in paths {
            *path = directory.join(&*path);
        }
        recipe.check()?;
        Ok(recipe)
    }

    /// Files and directories that are read, by their keys.
    pub(super) fn inputs(&self) -> Vec<(&'static str, &Path)> {
        let mut inputs = vec![("data.train", &*self.data.train)];
        let optional = [
            ("model", &self.model),
            ("teacher", &self.teacher),
            ("data.unlabelled", &self.data.unlabelled),
        ];
        inputs.extend(
            optional
                .into_iter()
                .filter_map(|(key, path)| Some((key, path.as_deref()?))),
        );
        for (key, part) in [
            ("data.validation", &self.data.validation),
            ("data.test", &self.data.test),
        ] {
            if let Part::File(file) = part {
                inputs.push((key, file));
            }
        }
        inputs
    }

    /// How tensors are to be quantized.
    ///
    /// # Errors
    /// As for a plan file.
    pub fn plan(&self) -> Result<Plan> {
        let mut plan = Plan::default();
        plan.apply_table(&self.plan)
            .map_err(|e| config(format!("plan: {}", with_nearest(e.message()))))?;
        Ok(plan)
    }

    /// The part of the teacher's logits in a loss.
    pub(super) fn of_logits(&self, distill: &Distill) -> f64 {
        let labelled = self.data.label.is_some() || self.data.image.is_some();
        distill.logits.unwrap_or(if labelled { 1.0 } else { 0.0 })
    }

    /// The part of the teacher's vectors in a loss.
    pub(super) fn of_embedding(&self, distill: &Distill) -> f64 {
        let labelled = self.data.label.is_some() || self.data.image.is_some();
        distill
            .embedding
            .unwrap_or(if labelled { 0.0 } else { 1.0 })
    }
}

pub(super) fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// serde's message on an unknown key, with the known key that is nearest in place of all of them.
fn with_nearest(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match &names[..] {
        [wrong, known @ ..] if unknown && !known.is_empty() => {
            let nearest = known.iter().min_by_key(|name| distance(wrong, name));
            let (kind, nearest) = (
                &message[..message.find('`').unwrap_or(0)],
                nearest.unwrap_or(wrong),
            );
            format!("{kind}`{wrong}`; the nearest known one is `{nearest}`")
        }
        _ => message.to_owned(),
    }
}

/// Changes of a letter from one word to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "tests/recipe.rs"]
mod tests;
