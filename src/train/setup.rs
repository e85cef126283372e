//! What a run starts from, read and checked before anything is written.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tch::Device;

use super::cuda;
use super::examples::Division;
use super::learner::Learner;
use super::recipe::{Recipe, Stage};
use super::run::{Event, SCORED, Start};
use super::stage::{Model, taught_by};
use super::state::Stint;
use crate::artifact::{Group, Scheme};
use crate::convert::PlannedTensor;
use crate::data::Example;
use crate::error::{Error, ErrorKind, Result};

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

    /// Refuses to write over what a run reads.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn spare(&self, inputs: &[(&str, &Path)]) -> Result<()> {
        let real = |path: &Path| path.canonicalize().ok();
        let outputs = [
            &self.answers,
            &self.artifact,
            &self.checkpoint,
            &self.log,
            &self.state,
        ];
        for (key, input) in inputs {
            let Some(input) = real(input) else { continue };
            let mut real_outputs = outputs.iter().filter_map(|output| real(output));
            if real_outputs.any(|output| input.starts_with(&output)) {
                let message = format!("{key} would be overwritten: output is where it lies");
                return Err(Error::new(ErrorKind::Config, message).in_file(input));
            }
        }
        Ok(())
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
            // It is written before the artifact.
            Start::New if self.checkpoint.exists() => {
                wrong("is there already; --force starts anew", &self.checkpoint)
            }
            _ => Ok(false),
        }
    }
}

/// Logits or vectors of a teacher.
pub(super) struct Taught {
    pub(super) validation: Vec<Vec<f32>>,
    /// None of examples with labels, which are tested with those.
    pub(super) test: Vec<Vec<f32>>,
}

/// Everything that a recipe names, read and checked.
pub(super) struct Run<'a, L: Learner> {
    pub(super) recipe: &'a Recipe,
    pub(super) model: Model<L>,
    pub(super) teacher: Option<Model<L>>,
    /// For training, first those with labels.
    pub(super) train: Vec<L::Example>,
    /// How many examples for training have labels.
    pub(super) labelled: usize,
    pub(super) validation: Vec<L::Example>,
    /// What the teacher answers, if there is one.
    pub(super) taught: Option<Taught>,
    pub(super) test: Vec<Example>,
    /// How many of those were cut, and to what.
    pub(super) cut: Option<String>,
    /// Of everything that decides the result.
    pub(super) digest: String,
    pub(super) data_digest: String,
    /// What became of the stages that are over.
    pub(super) done: Vec<Stint>,
}

/// What a run's model reads.
pub(super) struct Examples<E> {
    /// First those with labels.
    pub(super) train: Vec<E>,
    pub(super) labelled: usize,
    pub(super) validation: Vec<E>,
    /// None if they have labels, with which they are tested.
    pub(super) test: Vec<E>,
    /// How many texts for test were cut, and to what.
    pub(super) cut: Option<String>,
}

impl<'a, L: Learner> Run<'a, L> {
    /// Asks the teacher, if there is one.
    ///
    /// # Errors
    /// If an example cannot be read.
    pub(super) fn of(
        recipe: &'a Recipe,
        division: Division,
        (model, teacher): (Model<L>, Option<Model<L>>),
        examples: Examples<L::Example>,
    ) -> Result<Self> {
        if examples.validation.is_empty()
            && let Some(stage) = recipe.stages.iter().find(|s| s.patience.is_some())
        {
            let message = format!(
                "stage {:?}: patience needs data.validation, and there are none for it",
                stage.name
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let taught = match &teacher {
            Some(teacher) => {
                let broken = || {
                    let message = "the teacher's answers are not finite: its weights are damaged";
                    Error::new(ErrorKind::Checkpoint, message)
                };
                let answers =
                    |examples| teacher.answers(&teacher.pass(), examples, SCORED, &broken);
                Some(Taught {
                    validation: answers(&examples.validation)?,
                    test: answers(&examples.test)?,
                })
            }
            None => None,
        };
        let taught_by = match &teacher {
            Some(teacher) => teacher.base.source_digest()?,
            None => Vec::new(),
        };
        let parts = [
            recipe.digest.as_bytes(),
            division.digest.as_bytes(),
            &model.base.source_digest()?,
            &taught_by,
        ];
        Ok(Self {
            train: examples.train,
            labelled: examples.labelled,
            validation: examples.validation,
            taught,
            digest: super::digest(&parts.concat()),
            data_digest: division.digest,
            done: Vec::new(),
            test: division.test,
            cut: examples.cut,
            recipe,
            model,
            teacher,
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

/// Whether each stage has something to do.
///
/// # Errors
/// Names the stage that has not.
pub(super) fn check_stages<L: Learner>(
    recipe: &Recipe,
    model: &Model<L>,
    teacher: Option<&Model<L>>,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<()> {
    // Names of tensors that earlier stages have quantized.
    let mut done = HashSet::new();
    for stage in &recipe.stages {
        check(stage, model, teacher, &mut done).map_err(|e| {
            Error::new(e.kind(), format!("stage {:?}: {}", stage.name, e.message()))
        })?;
    }
    if let Some(note) = left_out(&recipe.stages, model.base.planned()) {
        report(Event::Note(&note));
    }
    Ok(())
}

/// Says which tensors are to have codes that no stage makes: training does not know of them.
fn left_out(stages: &[Stage], planned: &[PlannedTensor]) -> Option<String> {
    let parts = || stages.iter().flat_map(|stage| &stage.quantize);
    let left = planned.iter().filter(|tensor| {
        tensor.plan.scheme == Scheme::Pq && !parts().any(|part| names(part, tensor))
    });
    let left: Vec<&str> = left.map(|tensor| &*tensor.name).collect();
    let more = match left.len() {
        0 => return None,
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    Some(format!(
        "no stage quantizes {}{more}: codes are made at the end, without training",
        left[0]
    ))
}

fn check<'a, L: Learner>(
    stage: &'a Stage,
    model: &'a Model<L>,
    teacher: Option<&Model<L>>,
    done: &mut HashSet<&'a str>,
) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    for part in &stage.quantize {
        let planned = model.base.planned().iter();
        let planned: Vec<_> = planned.filter(|tensor| names(part, tensor)).collect();
        let schemes: Vec<Scheme> = planned.iter().map(|tensor| tensor.plan.scheme).collect();
        let trained = |scheme: &Scheme| matches!(scheme, Scheme::Pq | Scheme::Int8 | Scheme::Int4);
        let some = schemes.iter().any(trained);
        match schemes.first() {
            None => {
                return wrong(format!("quantize: the model has no tensor of {part:?}"));
            }
            Some(other) if !some => {
                return wrong(format!(
                    "quantize: {part} is to be {} by the plan, and only pq, int8 and int4 are trained so",
                    other.name()
                ));
            }
            _ if (planned.iter())
                .all(|tensor| !trained(&tensor.plan.scheme) || done.contains(&*tensor.name)) =>
            {
                return wrong(format!("quantize: an earlier stage did {part}"));
            }
            _ => {}
        }
    }
    let codes: Vec<&PlannedTensor> = (model.base.planned().iter())
        .filter(|tensor| tensor.plan.scheme == Scheme::Pq && !done.contains(&*tensor.name))
        .filter(|tensor| stage.quantize.iter().any(|part| names(part, tensor)))
        .collect();
    for (key, given) in [
        ("calibrate", stage.calibrate.is_some()),
        ("weigh-inputs", stage.weigh_inputs),
    ] {
        if given && codes.is_empty() {
            return wrong(format!(
                "{key} is for codes, and by the plan quantize makes none"
            ));
        }
    }
    // Rows of tables are looked up, and filters of windows have no input of their own.
    let measured = |tensor: &&PlannedTensor| {
        !matches!(
            tensor.group,
            Group::Embedding | Group::Position | Group::Depthwise | Group::Stem
        )
    };
    if stage.weigh_inputs && !codes.iter().any(measured) {
        return wrong("weigh-inputs: what quantize names has no inputs to weigh".into());
    }
    done.extend(model.weights.to_quantize(Some(&stage.quantize)));
    let is_pq =
        |tensor: &PlannedTensor| tensor.plan.scheme == Scheme::Pq && done.contains(&*tensor.name);
    if stage.reassign.is_some() && !model.base.planned().iter().any(is_pq) {
        return wrong("reassign is for codes, and no stage has made any by then".into());
    }
    if let Some(noise) = &stage.noise {
        if (model.weights.to_quantize(noise.groups.as_deref()).next()).is_none() {
            return wrong("noise: the plan quantizes none of the tensors in its groups".into());
        }
        let mut reached = model.weights.to_disturb(noise).peekable();
        if reached.peek().is_none() {
            return wrong(noise.unfit());
        }
        if reached.all(|name| done.contains(name)) {
            return wrong(
                "noise: everything in its groups is quantized by then, and noise is for what is not"
                    .into(),
            );
        }
    }
    if let (Some(distill), Some(teacher)) = (&stage.distill, teacher) {
        let [own, taught] = [model, teacher].map(|model| model.learner.layers() + 1);
        taught_by(distill, own, taught)?;
    }
    Ok(())
}

/// Whether a stage's word for some tensors means this one: a group's name, or how names begin, up to a
/// full stop (`blocks.3`); numbers may be a range (`blocks.0-3`).
pub(super) fn names(part: &str, tensor: &PlannedTensor) -> bool {
    if part == tensor.group.name() {
        return true;
    }
    let mut words = tensor.name.split('.');
    part.split('.').all(|wanted| {
        words
            .next()
            .is_some_and(|word| match wanted.split_once('-') {
                Some((first, last)) => match (first.parse(), last.parse(), word.parse::<usize>()) {
                    (Ok(first), Ok(last), Ok(word)) => (first..=last).contains(&word),
                    _ => wanted == word,
                },
                None => wanted == word,
            })
    })
}

#[cfg(test)]
#[path = "tests/selection.rs"]
mod tests;
