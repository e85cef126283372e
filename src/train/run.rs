//! A run from a recipe to an artifact.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tch::Tensor;

use super::examples::batches;
use super::log::Log;
use super::mix;
use super::optimizer::AdamW;
use super::recipe::{Recipe, Stage};
use super::runtime::Runtime;
use super::setup::{Paths, Run, device, remove};
use super::stage::{Clock, Model, Seen, Steps, Taken};
use super::state::{NewState, Place, State};
use crate::artifact::write_file;
use crate::convert::{PlannedTensor, Report};
use crate::data::Scores;
use crate::error::{Error, ErrorKind, Result};
use crate::nn::Mode;

/// Steps between two lines of the log.
const LOGGED: usize = 10;
/// Texts of a batch where nothing is learnt.
const SCORED: usize = 64;

/// What to do about what an earlier run left in the output directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It is an error.
    New,
    /// Start anew; what is there is overwritten.
    Overwrite,
    /// Go on where it was stopped.
    Resume,
}

/// What happens in a run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A sentence for people.
    Note(&'a str),
    /// What each tensor is to become.
    Plan(&'a [PlannedTensor]),
    /// A step was taken, the `step`th of `steps` in all stages.
    Step {
        /// The stage's name.
        stage: &'a str,
        /// From 1.
        step: usize,
        /// Of all stages.
        steps: usize,
        /// Mean over the step's texts.
        loss: f64,
    },
    /// The accuracy on the validation texts, of torch.
    Validation {
        /// The stage's name.
        stage: &'a str,
        /// Epochs of the stage so far.
        epoch: usize,
        /// Share of right answers.
        accuracy: f64,
    },
}

/// How a run ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// All stages are done.
    Finished(Box<Finished>),
    /// It was asked to stop, and saved its state.
    Stopped,
}

/// What a run made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished {
    /// The artifact.
    pub artifact: PathBuf,
    /// Sizes, and the errors of tensors that were quantized after training.
    pub report: Report,
    /// Answers of the runtime to the test texts, in the mode `int8`.
    pub int8: Scores,
    /// The same in the mode `exact`.
    pub exact: Scores,
    /// Where the weights are, if they are not quantized.
    pub checkpoint: Option<PathBuf>,
}

/// Does what a recipe says. It stops after the step during which `stop` becomes true.
///
/// # Errors
/// For files that cannot be read or written, data that does not fit, and a loss that is not finite. The
/// state that was saved last is still there then.
pub fn run(
    recipe: &Recipe,
    start: Start,
    stop: &AtomicBool,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let device = device(&recipe.device)?;
    if let Some(threads) = recipe.threads {
        tch::set_num_threads(threads as i32);
    }
    let paths = Paths::new(&recipe.output);
    let state = paths.earlier(start)?;
    let mut run = Run::new(recipe, device, report)?;
    let state = match state {
        true => Some(State::read(&paths.state, &run.digest)?),
        false => None,
    };
    if start == Start::Overwrite {
        // A later --resume must not find the state of an earlier run; its artifact stays until there is
        // another.
        remove(&paths.state)?;
    }
    fs::create_dir_all(&recipe.output).map_err(|e| Error::io(&recipe.output, e))?;
    let bytes = state.as_ref().map_or(0, |state| state.place.log);
    let mut watch = Watch {
        log: Log::open(&paths.log, bytes)?,
        paths,
        stop,
        report,
    };
    match run.stages(state, &mut watch)? {
        true => run.finish(&mut watch).map(Outcome::Finished),
        false => Ok(Outcome::Stopped),
    }
}

/// Who has to know what happens.
struct Watch<'a> {
    paths: Paths,
    log: Log,
    stop: &'a AtomicBool,
    report: &'a mut dyn FnMut(Event<'_>),
}

impl Watch<'_> {
    fn note(&mut self, sentence: &str) {
        (self.report)(Event::Note(sentence));
    }

    fn validation(&mut self, stage: &str, epoch: usize, accuracy: f64) -> Result<()> {
        (self.report)(Event::Validation {
            stage,
            epoch,
            accuracy,
        });
        let line = json!({"event": "validation", "stage": stage, "epoch": epoch,
            "accuracy": accuracy});
        self.log.line(&line)
    }
}

/// A stage in work.
struct Work {
    optimizer: AdamW,
    seen: Seen,
    /// The weights that were best in validation.
    best: Vec<(String, Tensor)>,
    place: Place,
}

impl Work {
    fn new(stage: usize, model: &Model) -> Self {
        Self {
            optimizer: AdamW::new(model.weights.parameters()),
            seen: Seen::new(),
            best: Vec::new(),
            place: Place {
                stage,
                ..Place::default()
            },
        }
    }

    /// A stage that goes on.
    fn restored(stage: &Stage, model: &Model, state: &State) -> Result<Self> {
        let mut work = Self::new(state.place.stage, model);
        work.optimizer.set(|name| state.tensor(name))?;
        work.optimizer.steps = state.place.optimizer_steps;
        for name in state.names("seen/") {
            let tensor = state.tensor(&format!("seen/{name}"));
            let tensor = tensor.map(|tensor| tensor.to_device(model.device));
            work.seen.insert(name.to_owned(), tensor);
        }
        if let Some(noise) = &stage.noise
            && work.seen.is_empty()
            && state.place.step > 0
        {
            // A form that need not know anything.
            let names = model.weights.to_quantize(noise.groups.as_deref());
            (work.seen).extend(names.map(|name| (name.to_owned(), None)));
        }
        for (name, _) in work.optimizer.weights() {
            if let Some(tensor) = state.tensor(&format!("best/{name}")) {
                work.best.push((name, tensor));
            }
        }
        work.place = state.place.clone();
        Ok(work)
    }

    fn save(&self, model: &Model, path: &Path, digest: &str) -> Result<()> {
        let mut state = NewState::default();
        for (name, tensor) in self.optimizer.state() {
            state.values(name, tensor);
        }
        for (name, tensor) in &self.seen {
            if let Some(tensor) = tensor {
                state.values(format!("seen/{name}"), tensor);
            }
        }
        for (name, tensor) in &self.best {
            state.values(format!("best/{name}"), tensor);
        }
        state.codes(model.weights.codes());
        state.write(path, &self.place, digest)
    }
}

impl Run<'_> {
    fn steps_of_epoch(&self) -> usize {
        self.train.len().div_ceil(self.recipe.batch)
    }

    /// Whether all stages are done; else it was asked to stop.
    fn stages(&mut self, mut state: Option<State>, watch: &mut Watch<'_>) -> Result<bool> {
        let first = state.as_ref().map_or(0, |state| state.place.stage);
        let recipe = self.recipe;
        for (number, stage) in recipe.stages.iter().enumerate().skip(first) {
            let work = match state.take() {
                Some(state) => {
                    self.restore(&state)?;
                    Work::restored(stage, &self.model, &state)?
                }
                None => {
                    self.quantize(stage, watch)?;
                    Work::new(number, &self.model)
                }
            };
            if !self.stage(stage, work, watch)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Codes and centroids for the groups of a stage.
    fn quantize(&mut self, stage: &Stage, watch: &mut Watch<'_>) -> Result<()> {
        if stage.quantize.is_empty() {
            return Ok(());
        }
        let model = &mut self.model;
        let names: Vec<String> = (model.weights.to_quantize(Some(&stage.quantize)))
            .map(str::to_owned)
            .collect();
        for name in names {
            let error = model.weights.quantize(&name, self.recipe.seed, &|_| ())?;
            watch.note(&format!("{name}: quantized, relative error {error:.3}"));
            let line = json!({"event": "quantized", "stage": stage.name, "tensor": name,
                "relative_error": error});
            watch.log.line(&line)?;
        }
        match self.validate()? {
            Some(accuracy) => watch.validation(&stage.name, 0, accuracy),
            None => Ok(()),
        }
    }

    /// Accuracy on the validation texts, if there are any.
    fn validate(&self) -> Result<Option<f64>> {
        match self.validation.is_empty() {
            true => Ok(None),
            false => Ok(Some(self.model.score(&self.validation, SCORED)?.accuracy())),
        }
    }

    /// Whether the stage is done; else it was asked to stop.
    fn stage(&self, stage: &Stage, mut work: Work, watch: &mut Watch<'_>) -> Result<bool> {
        let (recipe, each) = (self.recipe, self.steps_of_epoch());
        let number = work.place.stage;
        let steps = stage.epochs * each;
        let (mut epoch, mut order) = (usize::MAX, Vec::new());
        while work.place.step < steps && !stage.is_over(&work.place, each) {
            let step = work.place.step;
            if epoch != step / each {
                epoch = step / each;
                let seed = mix(&[recipe.seed, number as u64, epoch as u64, 2]);
                order = batches(&self.train, recipe.batch, seed);
            }
            let context = Steps {
                recipe,
                stage,
                teacher: self.teacher.as_ref(),
                texts: &self.train,
            };
            let clock = Clock {
                stage: number,
                step,
                steps,
            };
            let (optimizer, seen) = (&mut work.optimizer, &mut work.seen);
            let taken = context.take(&self.model, optimizer, seen, clock, &order[step % each])?;
            work.place.step += 1;
            work.place.optimizer_steps = work.optimizer.steps;
            self.tell(stage, &work.place, taken, watch)?;

            let ends = work.place.step.is_multiple_of(each);
            if ends && let Some(accuracy) = self.validate()? {
                watch.validation(&stage.name, epoch + 1, accuracy)?;
                if work.place.best.is_none_or(|(best, _)| accuracy > best) {
                    work.place.best = Some((accuracy, epoch + 1));
                    work.best = work.optimizer.weights();
                }
            }
            let stopped = watch.stop.load(Ordering::Relaxed);
            if ends || stopped || work.place.step.is_multiple_of(recipe.save) {
                work.place.log = watch.log.bytes();
                work.save(&self.model, &watch.paths.state, &self.digest)?;
            }
            if stopped {
                return Ok(false);
            }
        }
        if work.place.step < steps {
            let name = &stage.name;
            watch.note(&format!(
                "stage {name:?}: no better for some epochs: it ends"
            ));
        }
        if !work.best.is_empty() {
            work.optimizer.set_weights(&work.best);
        }
        Ok(true)
    }

    /// Says what a step did.
    fn tell(
        &self,
        stage: &Stage,
        place: &Place,
        taken: Taken,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let each = self.steps_of_epoch();
        let steps = |stages: &[Stage]| {
            stages
                .iter()
                .map(|stage| stage.epochs * each)
                .sum::<usize>()
        };
        let of = stage.epochs * each;
        if place.step.is_multiple_of(LOGGED) || place.step == of {
            let line = json!({"event": "step", "stage": stage.name, "step": place.step,
                "of": of, "loss": taken.loss, "gradient_norm": taken.norm,
                "learning_rate": taken.rate});
            watch.log.line(&line)?;
        }
        let stages = &self.recipe.stages;
        (watch.report)(Event::Step {
            stage: &stage.name,
            step: steps(&stages[..place.stage]) + place.step,
            steps: steps(stages),
            loss: taken.loss,
        });
        Ok(())
    }

    /// Gives matrices the codes that a state has.
    fn restore(&mut self, state: &State) -> Result<()> {
        let names: Vec<&str> = state.names("codes/").collect();
        for name in names {
            let values = |part: &str| state.values(&format!("weights/{name}:{part}"));
            let codes = state.codes(name).unwrap_or_default();
            let centroids = values("centroids").unwrap_or_default();
            self.model
                .weights
                .restore(name, codes, centroids, values("factors"))?;
        }
        Ok(())
    }

    /// Writes the artifact, and measures it with the runtime.
    fn finish(self, watch: &mut Watch<'_>) -> Result<Box<Finished>> {
        let mut checkpoint = None;
        let shares = self.recipe.share > 1;
        if let Some(values) = self.model.weights.values()
            && !shares
        {
            self.model.base.save(&watch.paths.checkpoint, &values)?;
            checkpoint = Some(watch.paths.checkpoint.clone());
        }
        let logits = self.model.logits(&self.validation, SCORED)?;
        let trained = self.model.weights.trained()?;
        let provenance = vec![
            ("training".into(), summary(self.recipe)),
            ("training_recipe_sha256".into(), self.recipe.digest.clone()),
            ("training_data_sha256".into(), self.data_digest.clone()),
        ];
        let mut conversion = self.model.base.finish(trained, provenance);
        let (bytes, _) = conversion.to_bytes(&|_| ())?;
        let runtime = Runtime {
            bytes,
            limit: self.limit,
        };
        let difference = runtime.difference(&self.validation, &logits)?;
        let [(int8, by_int8), (exact, by_exact)] = [
            runtime.score(Mode::Int8, &self.test)?,
            runtime.score(Mode::Exact, &self.test)?,
        ];
        let mut answers = Vec::new();
        for ((example, int8), exact) in self.test.iter().zip(&by_int8).zip(&by_exact) {
            let line = json!({"line": example.line, "label": example.label, "int8": int8,
                "exact": exact});
            answers.extend(format!("{line}\n").into_bytes());
        }
        write_file(&watch.paths.answers, &answers, true)?;
        if int8.examples() > 0 {
            conversion.add_provenance(
                "test",
                format!(
                    "{} texts; accuracy {:.4} (int8), {:.4} (exact); always the same answer: {:.4}",
                    int8.examples(),
                    int8.accuracy(),
                    exact.accuracy(),
                    int8.majority().1
                ),
            );
        }
        let written = conversion.write(&watch.paths.artifact, true, &|_| ())?;
        for (mode, scores, difference) in [
            ("int8", &int8, difference[0]),
            ("exact", &exact, difference[1]),
        ] {
            watch.log.line(
                &json!({"event": "test", "mode": mode, "n": scores.examples(),
                "accuracy": scores.accuracy(), "macro_f1": scores.macro_f1(),
                "majority": scores.majority().1, "largest_difference": difference,
                "file_bytes": written.file_bytes, "weight_bytes": written.weight_bytes}),
            )?;
            watch.note(&format!(
                "{mode}: logits of the runtime differ from torch's by at most {difference:.4} on the validation texts"
            ));
        }
        let picture = watch.paths.log.with_extension("svg");
        match super::plot(&watch.paths.log, &picture) {
            // A run without steps has nothing to show.
            Err(e) if e.kind() != ErrorKind::Input => return Err(e),
            _ => {}
        }
        // Last: while it is there, the run can go on.
        remove(&watch.paths.state)?;
        Ok(Box::new(Finished {
            artifact: watch.paths.artifact.clone(),
            report: written,
            int8,
            exact,
            checkpoint,
        }))
    }
}

impl Stage {
    /// Whether its patience is at an end: a run that goes on comes to the same answer.
    fn is_over(&self, place: &Place, steps_of_epoch: usize) -> bool {
        let epoch = place.step / steps_of_epoch;
        match (self.patience, place.best) {
            (Some(patience), Some((_, best))) => epoch >= best + patience,
            _ => false,
        }
    }
}

/// The stages in a line.
fn summary(recipe: &Recipe) -> String {
    let stages = recipe.stages.iter().map(|stage| {
        let mut parts = vec![format!("{} epochs", stage.epochs)];
        if let Some(noise) = &stage.noise {
            parts.push(format!("noise {:?} {:?}", noise.form, noise.rate).to_lowercase());
        }
        if !stage.quantize.is_empty() {
            parts.push(format!("codes for {}", stage.quantize.join(" ")));
        }
        if stage.distill.is_some() {
            parts.push("distilled".into());
        }
        format!("{}: {}", stage.name, parts.join(", "))
    });
    stages.collect::<Vec<_>>().join("; ")
}
