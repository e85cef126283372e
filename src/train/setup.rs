//! What a run starts from: files, models and texts, read and checked before anything is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tch::Device;

use super::cuda;
use super::encoder::Text;
use super::examples::{Division, tokenize};
use super::neighbours::Neighbours;
use super::noise::Noise;
use super::recipe::{Recipe, Stage};
use super::run::{Event, SCORED, Start};
use super::stage::{Model, taught_by};
use super::weights::Weights;
use crate::artifact::Scheme;
use crate::convert::ConvertOptions;
use crate::convert::trained::Base;
use crate::data::Example;
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::Task;
use crate::text::Truncation;

pub(super) fn device(name: &str) -> Result<Device> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    let number = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        _ => name
            .strip_prefix("cuda:")
            .and_then(|number| number.parse().ok()),
    };
    match number {
        None => wrong(format!(
            "device {name:?} is unknown; known: cpu, cuda, cuda:N"
        )),
        Some(number) => {
            let loaded = cuda::load();
            if (number as i64) < tch::Cuda::device_count() {
                return Ok(Device::Cuda(number));
            }
            let why = match loaded {
                Ok(()) => String::new(),
                Err(why) => format!(" ({why})"),
            };
            wrong(format!(
                "device {name:?}: this libtorch sees no such device{why}"
            ))
        }
    }
}

/// Where a run writes.
pub(super) struct Paths {
    pub(super) answers: PathBuf,
    pub(super) artifact: PathBuf,
    pub(super) checkpoint: PathBuf,
    pub(super) log: PathBuf,
    pub(super) state: PathBuf,
}

impl Paths {
    pub(super) fn new(output: &Path) -> Self {
        Self {
            answers: output.join("answers.jsonl"),
            artifact: output.join("model.centroid"),
            checkpoint: output.join("checkpoint"),
            log: output.join("log.jsonl"),
            state: output.join("state.safetensors"),
        }
    }

    /// Whether there is a state to go on from.
    pub(super) fn earlier(&self, start: Start) -> Result<bool> {
        let wrong =
            |message: &str, path: &Path| Err(Error::new(ErrorKind::Io, message).in_file(path));
        let [artifact, state] = [&self.artifact, &self.state].map(|path| path.exists());
        match start {
            Start::Resume if state => Ok(true),
            Start::Resume if artifact => wrong(
                "there is a finished run and no saved state: nothing to resume",
                &self.artifact,
            ),
            Start::New if artifact => {
                wrong("is there already; --force starts anew", &self.artifact)
            }
            Start::New if state => wrong(
                "an unfinished run is there; --resume goes on with it, --force starts anew",
                &self.state,
            ),
            _ => Ok(false),
        }
    }
}

/// Logits or vectors of a teacher.
pub(super) struct Taught {
    pub(super) validation: Vec<Vec<f32>>,
    /// None of a classifier, which is tested with labels.
    pub(super) test: Vec<Vec<f32>>,
}

/// Everything that a recipe names, read and checked.
pub(super) struct Run<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) model: Model,
    pub(super) teacher: Option<Model>,
    /// For training, first those with labels.
    pub(super) train: Vec<Text>,
    /// How many texts for training have labels.
    pub(super) labelled: usize,
    /// Of the tokens in these, if a stage replaces some.
    pub(super) neighbours: Option<Neighbours>,
    pub(super) validation: Vec<Text>,
    /// What the teacher answers, if there is one.
    pub(super) taught: Option<Taught>,
    pub(super) test: Vec<Example>,
    pub(super) limit: usize,
    /// Of everything that decides the result.
    pub(super) digest: String,
    pub(super) data_digest: String,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        recipe: &'a Recipe,
        device: Device,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        let division = Division::read(&recipe.data)?;
        let options = ConvertOptions {
            plan: recipe.plan()?,
            layers: recipe.layers.clone(),
            share: recipe.share,
            ..ConvertOptions::default()
        };
        let load = |directory: &Path, options: &ConvertOptions| -> Result<Model> {
            let base = match recipe.data.label {
                Some(_) => Base::classifier(directory, options, &division.labels)?,
                None => Base::embedder(directory, options)?,
            };
            Ok(Model {
                weights: Weights::load(&base, recipe.seed, device)?,
                base,
                device,
            })
        };
        let model = load(&recipe.model, &options)?;
        report(Event::Plan(model.base.planned()));
        for note in division.notes.iter().chain(model.base.notes()) {
            report(Event::Note(note));
        }
        let teacher = match &recipe.teacher {
            Some(directory) => {
                let teacher = load(directory, &ConvertOptions::default())?;
                fits(&teacher, &model).map_err(|e| e.in_file(directory))?;
                Some(teacher)
            }
            None => None,
        };
        for stage in &recipe.stages {
            check(stage, &model, teacher.as_ref()).map_err(|e| {
                Error::new(e.kind(), format!("stage {:?}: {}", stage.name, e.message()))
            })?;
        }
        let config = model.base.config();
        let limit = recipe.data.max_tokens.unwrap_or(config.max_tokens);
        if limit > config.max_tokens {
            let message = format!(
                "data.max-tokens: the model has at most {}",
                config.max_tokens
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let tokenizer = model.base.tokenizer()?;
        let mut texts = |examples: &[Example], what: &str| {
            let (texts, cut) = tokenize(examples, &tokenizer, model.base.labels(), limit)?;
            if cut > 0 {
                report(Event::Note(&format!(
                    "{what}: {cut} texts were cut to {limit} tokens"
                )));
            }
            Ok::<_, Error>(texts)
        };
        let taught = teacher
            .as_ref()
            .map_or("", |teacher| teacher.base.source_digest());
        let parts = [
            &*recipe.digest,
            &*division.digest,
            model.base.source_digest(),
            taught,
        ];
        let mut train = texts(&division.train, "train")?;
        let labelled = train.len();
        train.extend(texts(&division.unlabelled, "unlabelled")?);
        let validation = texts(&division.validation, "validation")?;
        let mut stages = recipe.stages.iter();
        let replaces = stages.any(|s| s.distill.as_ref().is_some_and(|d| d.replace > 0.0));
        let neighbours = match &teacher {
            Some(teacher) if replaces => {
                let special = tokenizer.encode("", Some(""), limit, Truncation::Truncate)?;
                let table = teacher.weights.rows("embeddings.token", None, false)?;
                Some(Neighbours::new(&table.detach(), &train, &special.ids))
            }
            _ => None,
        };
        let taught = match &teacher {
            Some(teacher) => Some(Taught {
                validation: teacher.answers(&validation, SCORED)?,
                test: match &recipe.data.label {
                    Some(_) => Vec::new(),
                    None => teacher.answers(&texts(&division.test, "test")?, SCORED)?,
                },
            }),
            None => None,
        };
        Ok(Self {
            train,
            labelled,
            neighbours,
            validation,
            taught,
            digest: super::digest(parts.concat().as_bytes()),
            data_digest: division.digest,
            test: division.test,
            recipe,
            model,
            teacher,
            limit,
        })
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

fn fits(teacher: &Model, model: &Model) -> Result<()> {
    let wrong = |message: &str| Err(Error::new(ErrorKind::Checkpoint, message));
    if let Task::Embedding { .. } = model.base.config().task {
        let [own, taught] = [model, teacher].map(|model| model.base.config().hidden);
        if own != taught {
            return wrong("the teacher's vectors have another length than the model's");
        }
    } else if teacher.base.has_new_head() {
        return wrong(
            "the teacher has no head for the labels of the data: it has to be fine-tuned first",
        );
    }
    if teacher.base.labels() != model.base.labels() {
        return wrong("the teacher's labels stand in another order than the model's");
    }
    if teacher.base.config().vocab_size != model.base.config().vocab_size {
        return wrong("the teacher has another vocabulary than the model");
    }
    Ok(())
}

/// Whether a stage has something to do.
fn check(stage: &Stage, model: &Model, teacher: Option<&Model>) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    for group in &stage.quantize {
        let planned = model
            .base
            .planned()
            .iter()
            .filter(|tensor| tensor.group.name() == group);
        let schemes: Vec<Scheme> = planned.map(|tensor| tensor.plan.scheme).collect();
        if let Some(other) = schemes.iter().find(|&&scheme| scheme != Scheme::Pq) {
            return wrong(format!(
                "quantize: {group} is to be {} by the plan, and only pq has centroids to train",
                other.name()
            ));
        }
        if schemes.is_empty() {
            return wrong(format!(
                "quantize: the model has no tensor of the group {group}"
            ));
        }
    }
    if let Some(Noise { groups, .. }) = &stage.noise
        && model
            .weights
            .to_quantize(groups.as_deref())
            .next()
            .is_none()
    {
        return wrong("noise: the plan quantizes none of the tensors in its groups".into());
    }
    if let (Some(distill), Some(teacher)) = (&stage.distill, teacher) {
        let [own, taught] = [model, teacher].map(|model| model.base.config());
        taught_by(distill, own.layers + 1, taught.layers + 1)?;
        if distill.hidden > 0.0 && own.hidden != taught.hidden {
            return wrong("distill.hidden: the teacher's token vectors have another length".into());
        }
    }
    Ok(())
}
