//! A run from a recipe to an artifact.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tch::Tensor;

use super::examples::batches;
use super::finish::Tested;
use super::images::Images;
use super::learner::Learner;
use super::log::Log;
use super::mix;
use super::noise::Look;
use super::optimizer::AdamW;
use super::recipe::{Recipe, Stage};
use super::setup::{Paths, Run, device, remove};
use super::stage::{Clock, Model, Score, Seen, Steps, Taken};
use super::state::{NewState, Place, State};
use super::texts::Texts;
use crate::convert::{PlannedTensor, Report};
use crate::error::{Error, Result};

/// Steps between two lines of the log.
const LOGGED: usize = 10;
/// Examples of a batch where nothing is learnt.
pub(super) const SCORED: usize = 64;

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
        /// Mean over the step's examples.
        loss: f64,
    },
    /// How good torch is on the validation examples.
    Validation {
        /// The stage's name.
        stage: &'a str,
        /// Epochs of the stage so far.
        epoch: usize,
        /// What is measured.
        metric: Metric,
        /// Its value.
        score: f64,
        /// How far a classifier's answers are from its teacher's, if it has one: the mean Kullback-Leibler
        /// divergence of their softmax, in nats. It says more of a few texts than the share of right answers.
        divergence: Option<f64>,
    },
}

/// How good a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// A classifier's share of right answers.
    Accuracy,
    /// The share of answers that are the teacher's, of a classifier whose examples have no labels.
    Agreement,
    /// The mean cosine of an embedding model's vectors to the teacher's.
    Cosine,
}

impl Metric {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Agreement => "agreement",
            Metric::Cosine => "cosine",
        }
    }
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
    /// What the runtime made of the test texts.
    pub tested: Tested,
    /// Where a classifier's weights are, if they are not quantized.
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
    paths.spare(&recipe.inputs())?;
    let resumes = paths.earlier(start)?;
    let start = (start, resumes);
    match recipe.data.image {
        None => {
            let run = Run::<Texts>::new(recipe, device, report)?;
            go(run, start, paths, stop, report)
        }
        Some(_) => {
            let run = Run::<Images>::new(recipe, device, report)?;
            go(run, start, paths, stop, report)
        }
    }
}

fn go<L: Learner>(
    mut run: Run<'_, L>,
    (start, resumes): (Start, bool),
    paths: Paths,
    stop: &AtomicBool,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let recipe = run.recipe;
    let state = match resumes {
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
pub(super) struct Watch<'a> {
    pub(super) paths: Paths,
    pub(super) log: Log,
    stop: &'a AtomicBool,
    report: &'a mut dyn FnMut(Event<'_>),
}

impl Watch<'_> {
    pub(super) fn note(&mut self, sentence: &str) {
        (self.report)(Event::Note(sentence));
    }

    pub(super) fn validation(
        &mut self,
        stage: &str,
        epoch: usize,
        metric: Metric,
        Score { value, divergence }: Score,
    ) -> Result<()> {
        (self.report)(Event::Validation {
            stage,
            epoch,
            metric,
            score: value,
            divergence,
        });
        let mut line = json!({"event": "validation", "stage": stage, "epoch": epoch,
            metric.name(): value});
        if let Some(divergence) = divergence {
            line["divergence"] = divergence.into();
        }
        self.log.line(&line)
    }
}

/// Names, shapes and codes of matrices.
type Codes = Vec<(String, [usize; 2], Vec<u8>)>;

/// A stage in work.
struct Work {
    optimizer: AdamW,
    seen: Seen,
    /// The weights that were best in validation, and the codes.
    best: Vec<(String, Tensor)>,
    best_codes: Codes,
    place: Place,
}

impl Work {
    fn new<L>(stage: usize, model: &Model<L>) -> Self {
        Self {
            optimizer: AdamW::new(model.weights.parameters()),
            seen: Seen::new(),
            best: Vec::new(),
            best_codes: Vec::new(),
            place: Place {
                stage,
                ..Place::default()
            },
        }
    }

    /// A stage that goes on.
    fn restored<L>(stage: &Stage, model: &Model<L>, state: &State) -> Result<Self> {
        let mut work = Self::new(state.place.stage, model);
        work.optimizer.set(|name| state.tensor(name))?;
        work.optimizer.steps = state.place.optimizer_steps;
        for name in state.names("seen/") {
            let read = |name: &str| Some(state.tensor(name)?.to_device(model.device));
            let look = Look {
                of_all: read(&format!("seen/{name}")),
                factors: read(&format!("factors/{name}")),
            };
            work.seen.insert(name.to_owned(), look);
        }
        if let Some(noise) = &stage.noise
            && work.seen.is_empty()
            && state.place.step > 0
        {
            // A form that need not know anything.
            let names = model.weights.to_quantize(noise.groups.as_deref());
            (work.seen).extend(names.map(|name| (name.to_owned(), Look::default())));
        }
        for (name, _) in work.optimizer.weights() {
            if let Some(tensor) = state.tensor(&format!("best/{name}")) {
                work.best.push((name, tensor));
            }
        }
        if !work.best.is_empty() {
            for (name, shape, _) in model.weights.codes() {
                let codes = state
                    .codes(&format!("best_codes/{name}"))
                    .unwrap_or_default();
                work.best_codes.push((name, shape, codes.to_vec()));
            }
        }
        work.place = state.place.clone();
        Ok(work)
    }

    /// Keeps the weights if they are the best so far.
    fn compare<L>(&mut self, stage: &Stage, score: Score, epoch: usize, model: &Model<L>) {
        // What it learns is what counts.
        let merit = match score.divergence {
            Some(divergence) if stage.learns_from_teacher() => -divergence,
            _ => score.value,
        };
        if self.place.best.is_none_or(|(best, _)| merit > best) {
            self.place.best = Some((merit, epoch));
            self.best = self.optimizer.weights();
            self.best_codes = model.weights.codes();
        }
    }

    fn save<L>(&self, model: &Model<L>, path: &Path, digest: &str) -> Result<()> {
        let mut state = NewState::default();
        for (name, tensor) in self.optimizer.state() {
            state.values(name, tensor);
        }
        for (name, look) in &self.seen {
            for (part, tensor) in [("seen", &look.of_all), ("factors", &look.factors)] {
                if let Some(tensor) = tensor {
                    state.values(format!("{part}/{name}"), tensor);
                }
            }
        }
        for (name, tensor) in &self.best {
            state.values(format!("best/{name}"), tensor);
        }
        state.codes("codes", model.weights.codes());
        state.codes("best_codes", self.best_codes.clone());
        state.write(path, &self.place, digest)
    }
}

impl<L: Learner> Run<'_, L> {
    /// The examples that a stage learns from.
    fn examples(&self, stage: &Stage) -> &[L::Example] {
        match stage.learns_from_teacher() {
            true => &self.train,
            false => &self.train[..self.labelled],
        }
    }

    fn steps_of_epoch(&self, stage: &Stage) -> usize {
        self.examples(stage).len().div_ceil(self.recipe.batch)
    }

    /// Whether all stages are done; else it was asked to stop.
    fn stages(&mut self, mut state: Option<State>, watch: &mut Watch<'_>) -> Result<bool> {
        let first = state.as_ref().map_or(0, |state| state.place.stage);
        let recipe = self.recipe;
        for (number, stage) in recipe.stages.iter().enumerate().skip(first) {
            let work = match state.take() {
                Some(state) => {
                    self.restore(&recipe.stages[..=number], &state)?;
                    self.model.weights.keep_latent(stage.reassign.is_some())?;
                    Work::restored(stage, &self.model, &state)?
                }
                None => {
                    let start = self.quantize(stage, watch)?;
                    self.model.weights.keep_latent(stage.reassign.is_some())?;
                    let mut work = Work::new(number, &self.model);
                    if let Some(score) = start {
                        // Codes that are made with care may be better than what training makes of them.
                        work.compare(stage, score, 0, &self.model);
                    }
                    work
                }
            };
            if !self.stage(stage, work, watch)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How good the model is on the validation examples, if there are any.
    pub(super) fn validate(&self) -> Result<Option<Score>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let taught = self.taught.as_ref().map(|taught| &taught.validation[..]);
        let score = (self.model).score(self.metric(), &self.validation, taught, SCORED);
        score.map(Some)
    }

    pub(super) fn metric(&self) -> Metric {
        match self.recipe.data.label {
            Some(_) => Metric::Accuracy,
            None if self.model.learner.embeds() => Metric::Cosine,
            None => Metric::Agreement,
        }
    }

    /// Whether the stage is done; else it was asked to stop.
    fn stage(&mut self, stage: &Stage, mut work: Work, watch: &mut Watch<'_>) -> Result<bool> {
        let (recipe, each) = (self.recipe, self.steps_of_epoch(stage));
        let number = work.place.stage;
        let steps = stage.epochs * each;
        let (mut epoch, mut order) = (usize::MAX, Vec::new());
        while work.place.step < steps && !stage.is_over(&work.place, each) {
            let step = work.place.step;
            if epoch != step / each {
                epoch = step / each;
                let seed = mix(&[recipe.seed, number as u64, epoch as u64, 2]);
                order = batches(self.examples(stage), L::length, recipe.batch, seed);
            }
            let context = Steps {
                recipe,
                stage,
                teacher: self.teacher.as_ref(),
                examples: self.examples(stage),
            };
            let clock = Clock {
                stage: number,
                step,
                steps,
            };
            let (optimizer, seen) = (&mut work.optimizer, &mut work.seen);
            let taken = context.take(&self.model, optimizer, seen, clock, &order[step % each])?;
            work.place.step += 1;
            if let Some(each) = stage.reassign
                && work.place.step.is_multiple_of(each)
            {
                let share = self.model.weights.reassign()?;
                let line = json!({"event": "reassigned", "stage": stage.name,
                    "step": work.place.step, "share": share});
                watch.log.line(&line)?;
            }
            work.place.optimizer_steps = work.optimizer.steps;
            self.tell(stage, &work.place, taken, watch)?;

            let ends = work.place.step.is_multiple_of(each);
            if ends && let Some(score) = self.validate()? {
                watch.validation(&stage.name, epoch + 1, self.metric(), score)?;
                work.compare(stage, score, epoch + 1, &self.model);
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
            self.model.weights.set_codes(&work.best_codes);
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
        let steps_of = |stage: &Stage| stage.epochs * self.steps_of_epoch(stage);
        let steps = |stages: &[Stage]| stages.iter().map(steps_of).sum::<usize>();
        let of = steps_of(stage);
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

    /// Gives matrices the codes that a state has, in the last of some stages.
    fn restore(&mut self, stages: &[Stage], state: &State) -> Result<()> {
        if stages.iter().any(|stage| !stage.quantize.is_empty()) {
            self.model.weights.fold();
        }
        for stage in stages {
            self.round(stage)?;
        }
        let names: Vec<&str> = state.names("codes/").collect();
        for name in names {
            let values = |part: &str| state.values(&format!("weights/{name}:{part}"));
            let codes = state.codes(&format!("codes/{name}")).unwrap_or_default();
            let centroids = values("centroids").unwrap_or_default();
            self.model
                .weights
                .restore(name, codes, centroids, values("factors"))?;
        }
        Ok(())
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
