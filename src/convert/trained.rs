//! What training needs of a conversion: the checkpoint's weights, and ways back to an artifact and to
//! a checkpoint.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::efficientnet::training;
pub(crate) use super::encode::Trained;
use super::encode::{NewTensor, Origin};
use super::{Conversion, ConvertOptions, Model, PlannedTensor, Source, TextModel, hf, tokenizer};
use crate::artifact::{StoredTokenizer, write_file};
use crate::error::{Error, ErrorKind, Result};
use crate::models::efficientnet;
use crate::models::encoder::{Config, Family, Task};
use crate::text::Tokenizer;

/// What is copied beside the weights of a new checkpoint, as far as it is there.
const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];

const WEIGHTS: &str = "model.safetensors";

/// What [`Base::save`] writes, the weights last.
fn files() -> impl DoubleEndedIterator<Item = &'static str> {
    (TOKENIZER_FILES.into_iter()).chain([LIMIT, "config.json", WEIGHTS])
}

/// Says how many tokens a text has at most.
const LIMIT: &str = "sentence_bert_config.json";

/// One of these is a tokenizer.
const VOCABULARIES: [&str; 3] = ["tokenizer.json", "vocab.txt", "vocab.json"];

/// A checkpoint to start from.
pub(crate) struct Base {
    conversion: Conversion,
    directory: PathBuf,
}

impl Base {
    /// Reads a checkpoint as a classifier of `classes`: what it lacks of such a head is new.
    pub(crate) fn classifier(
        directory: &Path,
        options: &ConvertOptions,
        classes: &[String],
    ) -> Result<Self> {
        Ok(Self {
            conversion: hf::read_as(directory, options, Some(classes))?,
            directory: directory.to_owned(),
        })
    }

    /// Reads a checkpoint as what it is: an embedding model.
    pub(crate) fn embedder(directory: &Path, options: &ConvertOptions) -> Result<Self> {
        let conversion = hf::read_as(directory, options, None)?;
        match conversion.text().config.task {
            Task::Embedding { .. } => Ok(Self {
                conversion,
                directory: directory.to_owned(),
            }),
            Task::Classification { .. } => {
                let message = "a classifier, for which data.label has to name the labels' column";
                Err(Error::new(ErrorKind::Config, message).in_file(directory))
            }
        }
    }

    /// A network of images with the weights of a checkpoint or an artifact; for other labels than `classes`,
    /// if these are given, its classifier is new.
    pub(crate) fn network(
        path: &Path,
        name: Option<&str>,
        options: &ConvertOptions,
        classes: Option<&[String]>,
    ) -> Result<Self> {
        Ok(Self {
            conversion: training::load(path, name, options, classes)?,
            directory: PathBuf::new(),
        })
    }

    /// A well-known network of images with new weights.
    pub(crate) fn named_network(
        name: &str,
        options: &ConvertOptions,
        labels: &[String],
    ) -> Result<Self> {
        Ok(Self {
            conversion: training::named(name, options, labels)?,
            directory: PathBuf::new(),
        })
    }

    /// A network of images with new weights.
    pub(crate) fn new_network(
        config: efficientnet::Config,
        options: &ConvertOptions,
        labels: &[String],
    ) -> Result<Self> {
        Ok(Self {
            conversion: training::new(config, options, labels)?,
            directory: PathBuf::new(),
        })
    }

    pub(crate) fn image_config(&self) -> Option<&efficientnet::Config> {
        match &self.conversion.model {
            Model::Image(config) => Some(config),
            Model::Text(_) => None,
        }
    }

    pub(crate) fn conversion(&self) -> &Conversion {
        &self.conversion
    }

    pub(crate) fn conversion_mut(&mut self) -> &mut Conversion {
        &mut self.conversion
    }

    pub(crate) fn config(&self) -> &Config {
        &self.conversion.text().config
    }

    /// Lets texts have at most so many tokens.
    pub(crate) fn limit(&mut self, tokens: usize) {
        if let Model::Text(text) = &mut self.conversion.model {
            text.config.max_tokens = tokens;
        }
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.conversion.notes
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_stored(&self.conversion.text().tokenizer)
    }

    /// In the order of the logits; none of an embedding model.
    pub(crate) fn labels(&self) -> &[String] {
        self.conversion.labels.as_deref().unwrap_or_default()
    }

    /// For each layer the one whose weights it uses.
    pub(crate) fn layer_of(&self) -> &[usize] {
        &self.conversion.text().layer_of
    }

    /// What is to become of each tensor.
    pub(crate) fn planned(&self) -> &[PlannedTensor] {
        &self.conversion.planned
    }

    /// Whether a part of the head is not in the checkpoint.
    pub(crate) fn has_new_head(&self) -> bool {
        let mut tensors = self.conversion.tensors.iter();
        tensors.any(|tensor| matches!(tensor.origin, Origin::New(_)))
    }

    /// SHA-256 of all that training starts from: the checkpoint's weights, its configuration as far as it counts,
    /// and its tokenizer.
    ///
    /// # Errors
    /// If the configuration is beyond what a file can hold.
    pub(crate) fn source_digest(&self) -> Result<Vec<u8>> {
        let mut provenance = self.conversion.provenance.iter();
        let weights = provenance.find(|(key, _)| key == "source_sha256");
        let (body, tokenizer) = match &self.conversion.model {
            Model::Text(text) => (text.config.to_body()?, Some(&text.tokenizer)),
            Model::Image(config) => (config.to_body()?, None),
        };
        let tokenizer: &[u8] = match tokenizer {
            Some(StoredTokenizer::Json(bytes) | StoredTokenizer::Tables(bytes)) => bytes,
            None => &[],
        };
        let weights = weights.map_or("", |(_, digest)| digest);
        let parts = [weights.as_bytes(), &body, tokenizer].map(Sha256::digest);
        Ok(Sha256::digest(parts.concat()).to_vec())
    }

    fn tensor(&self, name: &str) -> Option<&NewTensor> {
        self.conversion.tensors.iter().find(|t| t.name == name)
    }

    /// The values of a tensor, row-major; `None` if it is new.
    pub(crate) fn values(&self, name: &str) -> Result<Option<Vec<f32>>> {
        match (&self.conversion.source, self.tensor(name)) {
            (Source::Checkpoint(checkpoint), Some(tensor)) => match &tensor.origin {
                Origin::Checkpoint(name) => checkpoint.values(name).map(Some),
                _ => Ok(None),
            },
            (Source::Trained(values), Some(tensor)) => {
                Ok(match (&tensor.origin, values.get(name)) {
                    (Origin::Checkpoint(_), Some(Trained::Values(values))) => Some(values.clone()),
                    _ => None,
                })
            }
            _ => Ok(None),
        }
    }

    /// Takes the trained weights, with which the conversion is to be written as an artifact.
    /// `provenance` comes after that of the checkpoint.
    pub(crate) fn finish(
        &mut self,
        trained: HashMap<String, Trained>,
        provenance: Vec<(String, String)>,
    ) {
        self.conversion.source = Source::Trained(trained);
        self.conversion.provenance.extend(provenance);
    }

    /// The names in a checkpoint of a tensor that is called `own` in the artifact and was `original` before: in
    /// each of the layers that use it, as they are counted now.
    fn numbered(&self, own: &str, original: String) -> Vec<String> {
        let number = |name: &str, before: &str| {
            let rest = &name[name.find(before)? + before.len()..];
            rest.split('.').next()?.parse::<usize>().ok()
        };
        let (Some(own), Some(was)) = (number(own, "layers."), number(&original, "layer.")) else {
            return vec![original];
        };
        let users = self.layer_of().iter().enumerate();
        let users = users.filter(|&(_, &of)| of == own).map(|(layer, _)| {
            original.replacen(&format!("layer.{was}."), &format!("layer.{layer}."), 1)
        });
        users.collect()
    }

    /// Writes a classifier's weights as a checkpoint that this crate and `transformers` read: a
    /// directory with `model.safetensors`, `config.json` and the tokenizer. Whoever stops the process leaves the
    /// earlier one, no weights at all, or this one. Returns whether it did: of a network of images the artifact
    /// itself is a checkpoint.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn save(
        &self,
        directory: &Path,
        weights: &HashMap<String, Vec<f32>>,
    ) -> Result<bool> {
        let Model::Text(model) = &self.conversion.model else {
            return Ok(false);
        };
        fs::create_dir_all(directory).map_err(|e| Error::io(directory, e))?;
        // On the same disk, also where the directory is a link.
        let partial = directory.join(PARTIAL);
        remove_all(&partial)?;
        fs::create_dir(&partial).map_err(|e| Error::io(&partial, e))?;
        if let Err(e) = self.write(model, &partial, weights) {
            // The error before counts.
            let _ = remove_all(&partial);
            return Err(e);
        }
        remove_files(directory)?;
        for name in files() {
            let (from, to) = (partial.join(name), directory.join(name));
            if from.exists() {
                fs::rename(&from, &to).map_err(|e| Error::io(&to, e))?;
            }
        }
        remove_all(&partial)?;
        Ok(true)
    }

    /// Writes the files of a checkpoint.
    fn write(
        &self,
        model: &TextModel,
        directory: &Path,
        weights: &HashMap<String, Vec<f32>>,
    ) -> Result<()> {
        let config = self.config();
        let (prefix, class) = match config.family {
            Family::Bert => ("bert.", "BertForSequenceClassification"),
            Family::Roberta => ("roberta.", "RobertaForSequenceClassification"),
        };
        let mut views = Vec::new();
        for tensor in &self.conversion.tensors {
            let (Origin::Checkpoint(name) | Origin::New(name)) = &tensor.origin else {
                continue;
            };
            let values = weights.get(&tensor.name).ok_or_else(|| {
                Error::new(ErrorKind::Checkpoint, "missing").in_tensor(&tensor.name)
            })?;
            let bare = name.starts_with(prefix) || name.starts_with("classifier.");
            let name = if bare {
                name.clone()
            } else {
                format!("{prefix}{name}")
            };
            for name in self.numbered(&tensor.name, name) {
                views.push((name, Values::new(values, &tensor.shape)));
            }
        }
        let mut json = model.config_json.clone();
        json.insert("architectures".into(), json!([class]));
        json.insert("num_hidden_layers".into(), json!(config.layers));
        json.insert("problem_type".into(), json!("single_label_classification"));
        let labels = || self.labels().iter().enumerate();
        let of_ids = labels().map(|(id, label)| (id.to_string(), json!(label)));
        json.insert("id2label".into(), Value::Object(of_ids.collect()));
        let of_labels = labels().map(|(id, label)| (label.clone(), json!(id)));
        json.insert("label2id".into(), Value::Object(of_labels.collect()));
        for name in TOKENIZER_FILES {
            let from = self.directory.join(name);
            if from.exists() {
                let bytes = fs::read(&from).map_err(|e| Error::io(&from, e))?;
                write_file(&directory.join(name), &bytes, true)?;
            }
        }
        if !VOCABULARIES
            .iter()
            .any(|name| self.directory.join(name).exists())
        {
            // fairseq's files, in the form that others read.
            let bundle = tokenizer::collect(&self.directory, config.family)?;
            write_file(&directory.join("tokenizer.json"), &bundle.json, true)?;
        }
        let limit = self.directory.join(LIMIT);
        let mut limits = match fs::read(&limit) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => serde_json::Map::new(),
            Err(e) => return Err(Error::io(&limit, e)),
        };
        limits.insert("max_seq_length".into(), json!(config.max_tokens));
        for (name, json) in [(LIMIT, limits), ("config.json", json)] {
            let text = format!("{:#}\n", Value::Object(json));
            write_file(&directory.join(name), text.as_bytes(), true)?;
        }
        write_file(&directory.join(WEIGHTS), &tensors(views, None)?, true)
    }
}

/// Where a checkpoint's files are until all are written.
const PARTIAL: &str = ".partial.tmp";

/// Removes a checkpoint that [`Base::save`] wrote, and its directory if nothing else is there.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        remove_all(&directory.join(PARTIAL))?;
        remove_files(directory)?;
        // Not if there is more in it.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// The weights first: without them it is no checkpoint.
fn remove_files(directory: &Path) -> Result<()> {
    for name in files().rev() {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(&path, e)),
            _ => {}
        }
    }
    Ok(())
}

fn remove_all(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(directory, e)),
        _ => Ok(()),
    }
}

/// Values of a tensor for a safetensors file.
pub(crate) struct Values<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    pub(crate) fn new(values: &'a [f32], shape: &[usize]) -> Self {
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: bytemuck::cast_slice(values),
        }
    }

    pub(crate) fn codes(values: &'a [u8], shape: &[usize]) -> Self {
        Self {
            dtype: Dtype::U8,
            shape: shape.to_vec(),
            bytes: values,
        }
    }
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes.into()
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The bytes of a safetensors file.
pub(crate) fn tensors(
    views: Vec<(String, Values<'_>)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    safetensors::serialize(views, metadata)
        .map_err(|e| Error::new(ErrorKind::Checkpoint, e.to_string()))
}
