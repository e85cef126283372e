//! A run from a recipe to an artifact.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::caught::caught;
use super::examples::batches;
use super::finish::Tested;
use super::images::Images;
use super::learner::Learner;
use super::log::Log;
use super::mix;
use super::pass::{Disturbance, Pass};
use super::recipe::{Recipe, Stage};
use super::setup::{Paths, Run, device, remove};
use super::stage::{Clock, Score, Seen, Steps, Taken};
use super::state::{Place, State, Stint};
use super::texts::Texts;
use super::work::Work;
use crate::artifact::{Scheme, remove_abandoned};
use crate::convert::{PlannedTensor, Report};
use crate::error::{Error, ErrorKind, Result};

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
    /// Where the weights in f32 of a classifier of texts are, if none of its tensors has codes.
    pub checkpoint: Option<PathBuf>,
}

/// Does what a recipe says. It stops after the step during which `stop` becomes true.
///
/// # Errors
/// For files that cannot be read or written, data that does not fit, a loss that is not finite, and whatever
/// torch refuses, as memory that is not there. The state that was saved last is still there then. (Such refusals are
/// panics in `tch`: a hook in front of the process's own keeps silent about those.)
pub fn run(
    recipe: &Recipe,
    start: Start,
    stop: &AtomicBool,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    caught(|| begin(recipe, start, stop, report))
}

fn begin(
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
    for path in [&paths.state, &paths.artifact, &paths.answers] {
        remove_abandoned(path)?;
    }
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
        if let Some(state) = &state {
            self.check(&state.place)
                .map_err(|e| e.in_file(&watch.paths.state))?;
            self.done.clone_from(&state.place.done);
        }
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
                    work.place.done.clone_from(&self.done);
                    if let Some(score) = start {
                        // Codes that are made with care may be better than what training makes of them.
                        work.compare(stage, score, 0, &self.model);
                    }
                    if !stage.quantize.is_empty() {
                        // They may have taken longer than many steps.
                        work.place.log = watch.log.bytes();
                        work.save(&self.model, &watch.paths.state, &self.digest)?;
                        if watch.stop.load(Ordering::Relaxed) {
                            return Ok(false);
                        }
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

    /// How good the model is on the validation examples, if there are any: with all that the stage's noise rounds
    /// to int8 or int4 as it will be stored, with the codebooks of its noise where they always stand in for the
    /// weights, and in the mode that it is trained for.
    pub(super) fn validate(
        &mut self,
        stage: &Stage,
        seen: &Seen,
        step: usize,
    ) -> Result<Option<Score>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let weights = &mut self.model.weights;
        let integers = |name: &&str| weights.plan(name).scheme != Scheme::Pq;
        let disturbed = (stage.noise.iter()).flat_map(|noise| weights.to_disturb(noise));
        let stored: Vec<String> = disturbed.filter(integers).map(str::to_owned).collect();
        weights.set_rounded(&stored, true);
        let always = stage.noise.as_ref().filter(|noise| noise.always_exact());
        let pass = Pass {
            int8: stage.int8,
            noise: always.map(|noise| Disturbance {
                noise,
                rate: 1.0,
                seen,
            }),
            ..self.model.pass()
        };
        let broken = || {
            let message = format!(
                "stage {:?}, after step {step}: the model's answers are not finite; most likely a learning rate \
                 is too high: the last saved state is as it was",
                stage.name
            );
            Error::new(ErrorKind::Input, message)
        };
        let answers = (self.model).answers(&pass, &self.validation, SCORED, &broken)?;
        drop(pass);
        let taught = self.taught.as_ref().map(|taught| &taught.validation[..]);
        let score = (self.model).score(self.metric(), &self.validation, &answers, taught);
        self.model.weights.set_rounded(&stored, false);
        Ok(Some(score))
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
            let numbers = &order[step % each];
            let taken = caught(|| context.take(&self.model, optimizer, seen, clock, numbers))
                .map_err(|e| context.failed(optimizer, clock, e))?;
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
            if ends && let Some(score) = self.validate(stage, &work.seen, work.place.step)? {
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
        let epochs = work.place.step.checked_div(each).unwrap_or(0);
        let kept = work.place.best.map_or(epochs, |(_, epoch)| epoch);
        self.done.push(Stint { epochs, kept });
        let line = json!({"event": "stage", "stage": stage.name, "epochs": epochs, "kept": kept});
        watch.log.line(&line)?;
        Ok(true)
    }

    /// Whether a state's place is one of this run: no part of it is skipped for a damaged number.
    fn check(&self, place: &Place) -> Result<()> {
        let steps = (self.recipe.stages.get(place.stage))
            .map(|stage| stage.epochs * self.steps_of_epoch(stage));
        let whole = steps.is_some_and(|steps| place.step <= steps)
            && place.optimizer_steps == place.step as u64
            && place.done.len() == place.stage;
        match whole {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Checkpoint,
                format!(
                    "not a state of this run: step {} of stage {}",
                    place.step, place.stage
                ),
            )),
        }
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
