//! A run from a recipe to an artifact.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tch::{Device, Tensor};

use super::encoder::Text;
use super::examples::{Division, batches, tokenize};
use super::log::Log;
use super::mix;
use super::noise::Noise;
use super::optimizer::AdamW;
use super::recipe::{Recipe, Stage};
use super::stage::{Clock, Model, Seen, Steps, taught_by};
use super::state::{NewState, Place, State};
use super::weights::Weights;
use crate::artifact::{Artifact, Scheme};
use crate::convert::{ConvertOptions, PlannedTensor, Report};
use crate::data::{Example, Scores};
use crate::error::{Error, ErrorKind, Result};
use crate::nn::Mode;
use crate::pipeline::{Options, TextClassifier};
use crate::convert::trained::Base;

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
    fs::create_dir_all(&recipe.output).map_err(|e| Error::io(&recipe.output, e))?;
    let bytes = state.as_ref().map_or(0, |state| state.place.log);
    let mut log = Log::open(&paths.log, bytes)?;
    match run.stages(&paths, state, stop, &mut log, report)? {
        true => run.finish(&paths, &mut log, report).map(Outcome::Finished),
        false => Ok(Outcome::Stopped),
    }
}

fn device(name: &str) -> Result<Device> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    let number = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    match number {
        None => wrong(format!("device {name:?} is unknown; known: cpu, cuda, cuda:N")),
        Some(number) if (number as i64) < tch::Cuda::device_count() => Ok(Device::Cuda(number)),
        Some(_) => wrong(format!("device {name:?}: this libtorch sees no such device")),
    }
}

struct Paths {
    artifact: PathBuf,
    checkpoint: PathBuf,
    log: PathBuf,
    state: PathBuf,
}

impl Paths {
    fn new(output: &Path) -> Self {
        Self {
            artifact: output.join("model.centroid"),
            checkpoint: output.join("checkpoint"),
            log: output.join("log.jsonl"),
            state: output.join("state.safetensors"),
        }
    }

    /// Whether there is a state to go on from.
    fn earlier(&self, start: Start) -> Result<bool> {
        let wrong = |message: &str, path: &Path| Err(Error::new(ErrorKind::Io, message).in_file(path));
        let [artifact, state] = [&self.artifact, &self.state].map(|path| path.exists());
        match start {
            Start::Resume if state => Ok(true),
            Start::Resume if artifact => wrong("the run is finished: there is nothing to resume", &self.artifact),
            Start::New if artifact => wrong("is there already; --force starts anew", &self.artifact),
            Start::New if state => wrong(
                "an unfinished run is there; --resume goes on with it, --force starts anew",
                &self.state,
            ),
            _ => Ok(false),
        }
    }
}

struct Run<'a> {
    recipe: &'a Recipe,
    model: Model,
    teacher: Option<Model>,
    train: Vec<Text>,
    validation: Vec<Text>,
    test: Vec<Example>,
    limit: usize,
    /// Of everything that decides the result.
    digest: String,
    data_digest: String,
}

impl<'a> Run<'a> {
    fn new(recipe: &'a Recipe, device: Device, report: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        let division = Division::read(&recipe.data)?;
        let options = ConvertOptions {
            plan: recipe.plan()?,
            layers: recipe.layers.clone(),
            share: recipe.share,
            ..ConvertOptions::default()
        };
        let load = |directory: &Path, options: &ConvertOptions| -> Result<Model> {
            let base = Base::classifier(directory, options, &division.labels)?;
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
            check(stage, &model, teacher.as_ref())
                .map_err(|e| Error::new(e.kind(), format!("stage {:?}: {}", stage.name, e.message())))?;
        }
        let config = model.base.config();
        let limit = recipe.data.max_tokens.unwrap_or(config.max_tokens);
        if limit > config.max_tokens {
            let message = format!("data.max-tokens: the model has at most {}", config.max_tokens);
            return Err(Error::new(ErrorKind::Config, message));
        }
        let tokenizer = model.base.tokenizer()?;
        let mut texts = |examples: &[Example], what: &str| {
            let (texts, cut) = tokenize(examples, &tokenizer, model.base.labels(), limit)?;
            if cut > 0 {
                report(Event::Note(&format!("{what}: {cut} texts were cut to {limit} tokens")));
            }
            Ok::<_, Error>(texts)
        };
        let parts = [&*recipe.digest, &*division.digest, model.base.source_digest()];
        Ok(Self {
            train: texts(&division.train, "train")?,
            validation: texts(&division.validation, "validation")?,
            digest: super::digest(parts.concat().as_bytes()),
            data_digest: division.digest,
            test: division.test,
            recipe,
            model,
            teacher,
            limit,
        })
    }

    fn steps_of_epoch(&self) -> usize {
        self.train.len().div_ceil(self.recipe.batch)
    }

    /// Whether all stages are done; else it was asked to stop.
    fn stages(
        &mut self,
        paths: &Paths,
        mut state: Option<State>,
        stop: &AtomicBool,
        log: &mut Log,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool> {
        let first = state.as_ref().map_or(0, |state| state.place.stage);
        if let Some(state) = &state {
            self.restore(state)?;
        }
        let recipe = self.recipe;
        for (number, stage) in recipe.stages.iter().enumerate().skip(first) {
            let state = state.take();
            if state.is_none() {
                self.quantize(stage, log, report)?;
            }
            if !self.stage(number, stage, paths, state, stop, log, report)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Codes and centroids for the groups of a stage.
    fn quantize(
        &mut self,
        stage: &Stage,
        log: &mut Log,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        if stage.quantize.is_empty() {
            return Ok(());
        }
        let model = &mut self.model;
        let names: Vec<String> = (model.weights.to_quantize(Some(&stage.quantize)))
            .map(str::to_owned)
            .collect();
        for name in names {
            let error = model.weights.quantize(&name, self.recipe.seed, &|_| ())?;
            report(Event::Note(&format!("{name}: quantized, relative error {error:.3}")));
            log.line(&json!({"event": "quantized", "stage": stage.name, "tensor": name,
                "relative_error": error}))?;
        }
        if let Some(accuracy) = self.validate()? {
            report(Event::Validation { stage: &stage.name, epoch: 0, accuracy });
            log.line(&json!({"event": "validation", "stage": stage.name, "epoch": 0,
                "accuracy": accuracy}))?;
        }
        Ok(())
    }

    /// Accuracy on the validation texts, if there are any.
    fn validate(&self) -> Result<Option<f64>> {
        match self.validation.is_empty() {
            true => Ok(None),
            false => Ok(Some(self.model.score(&self.validation, SCORED)?.accuracy())),
        }
    }

    /// Whether the stage is done; else it was asked to stop.
    #[allow(clippy::too_many_arguments)]
    fn stage(
        &mut self,
        number: usize,
        stage: &Stage,
        paths: &Paths,
        state: Option<State>,
        stop: &AtomicBool,
        log: &mut Log,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool> {
        let (recipe, each) = (self.recipe, self.steps_of_epoch());
        let steps = stage.epochs * each;
        let before: usize = recipe.stages[..number].iter().map(|stage| stage.epochs * each).sum();
        let all: usize = recipe.stages.iter().map(|stage| stage.epochs * each).sum();
        let mut optimizer = AdamW::new(self.model.weights.parameters());
        let (mut seen, mut best_weights) = (Seen::new(), Vec::new());
        let mut place = Place { stage: number, ..Place::default() };
        if let Some(state) = state {
            optimizer.set(|name| state.tensor(name))?;
            optimizer.steps = state.place.optimizer_steps;
            for name in state.names("seen/") {
                seen.insert(name.to_owned(), state.tensor(&format!("seen/{name}")));
            }
            if let Some(noise) = &stage.noise
                && seen.is_empty()
                && state.place.step > 0
            {
                // Forms that need not know anything.
                let names = self.model.weights.to_quantize(noise.groups.as_deref());
                seen.extend(names.map(|name| (name.to_owned(), None)));
            }
            for (name, _) in optimizer.weights() {
                if let Some(tensor) = state.tensor(&format!("best/{name}")) {
                    best_weights.push((name, tensor));
                }
            }
            place = state.place;
        }
        let (mut epoch, mut order) = (usize::MAX, Vec::new());
        while place.step < steps {
            if epoch != place.step / each {
                epoch = place.step / each;
                let seed = mix(&[recipe.seed, number as u64, epoch as u64, 2]);
                order = batches(&self.train, recipe.batch, seed);
            }
            let clock = Clock { stage: number, step: place.step, steps };
            let context = Steps {
                recipe,
                stage,
                teacher: self.teacher.as_ref(),
                texts: &self.train,
            };
            let texts = &order[place.step % each];
            let taken = context.take(&self.model, &mut optimizer, &mut seen, clock, texts)?;
            place.step += 1;
            place.optimizer_steps = optimizer.steps;
            if place.step.is_multiple_of(LOGGED) || place.step == steps {
                log.line(&json!({"event": "step", "stage": stage.name, "step": place.step,
                    "of": steps, "loss": taken.loss, "gradient_norm": taken.norm,
                    "learning_rate": taken.rate}))?;
            }
            report(Event::Step {
                stage: &stage.name,
                step: before + place.step,
                steps: all,
                loss: taken.loss,
            });
            let mut worse = 0;
            let ends = place.step.is_multiple_of(each);
            if ends && let Some(accuracy) = self.validate()? {
                let epoch = place.step / each;
                report(Event::Validation { stage: &stage.name, epoch, accuracy });
                log.line(&json!({"event": "validation", "stage": stage.name, "epoch": epoch,
                    "accuracy": accuracy}))?;
                if place.best.is_none_or(|(best, _)| accuracy > best) {
                    place.best = Some((accuracy, epoch));
                    best_weights = optimizer.weights();
                }
                worse = epoch - place.best.map_or(epoch, |(_, epoch)| epoch);
            }
            let stopped = stop.load(Ordering::Relaxed);
            if ends || stopped || place.step.is_multiple_of(recipe.save) {
                place.log = log.bytes();
                self.save(&optimizer, &seen, &best_weights, &paths.state, &place)?;
            }
            if stage.patience.is_some_and(|patience| worse >= patience) {
                let note = format!("stage {:?}: no better for {worse} epochs", stage.name);
                report(Event::Note(&note));
                break;
            }
            if stopped {
                return Ok(false);
            }
        }
        if !best_weights.is_empty() {
            optimizer.set_weights(&best_weights);
        }
        Ok(true)
    }

    fn save(
        &self,
        optimizer: &AdamW,
        seen: &Seen,
        best: &[(String, Tensor)],
        path: &Path,
        place: &Place,
    ) -> Result<()> {
        let mut state = NewState::default();
        for (name, tensor) in optimizer.state() {
            state.values(name, tensor);
        }
        for (name, tensor) in seen {
            if let Some(tensor) = tensor {
                state.values(format!("seen/{name}"), tensor);
            }
        }
        for (name, tensor) in best {
            state.values(format!("best/{name}"), tensor);
        }
        state.codes(self.model.weights.codes());
        state.write(path, place, &self.digest)
    }

    /// Gives matrices the codes that a state has.
    fn restore(&mut self, state: &State) -> Result<()> {
        let names: Vec<&str> = state.names("codes/").collect();
        for name in names {
            let values = |part: &str| state.values(&format!("weights/{name}:{part}"));
            let codes = state.codes(name).unwrap_or_default();
            let centroids = values("centroids").unwrap_or_default();
            self.model.weights.restore(name, codes, centroids, values("factors"))?;
        }
        Ok(())
    }

    /// Writes the artifact, and measures it with the runtime.
    fn finish(
        self,
        paths: &Paths,
        log: &mut Log,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Box<Finished>> {
        let mut checkpoint = None;
        let shares = self.recipe.share > 1;
        if let Some(values) = self.model.weights.values()
            && !shares
        {
            self.model.base.save(&paths.checkpoint, &values)?;
            checkpoint = Some(paths.checkpoint.clone());
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
        let runtime = Runtime { bytes, limit: self.limit };
        let difference = runtime.difference(&self.validation, &logits)?;
        let [int8, exact] = [
            runtime.score(Mode::Int8, &self.test)?,
            runtime.score(Mode::Exact, &self.test)?,
        ];
        if int8.examples() > 0 {
            conversion.add_provenance("test", format!(
                "{} texts; accuracy {:.4} (int8), {:.4} (exact); always the same answer: {:.4}",
                int8.examples(), int8.accuracy(), exact.accuracy(), int8.majority().1
            ));
        }
        let written = conversion.write(&paths.artifact, true, &|_| ())?;
        for (mode, scores, difference) in [("int8", &int8, difference[0]), ("exact", &exact, difference[1])] {
            log.line(&json!({"event": "test", "mode": mode, "n": scores.examples(),
                "accuracy": scores.accuracy(), "macro_f1": scores.macro_f1(),
                "majority": scores.majority().1, "largest_difference": difference,
                "file_bytes": written.file_bytes, "weight_bytes": written.weight_bytes}))?;
            report(Event::Note(&format!(
                "{mode}: logits of the runtime differ from torch's by at most {difference:.4} on the validation texts"
            )));
        }
        // Last: while it is there, the run can go on.
        match fs::remove_file(&paths.state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&paths.state, e));
            }
            _ => {}
        }
        Ok(Box::new(Finished {
            artifact: paths.artifact.clone(),
            report: written,
            int8,
            exact,
            checkpoint,
        }))
    }
}

/// The finished artifact in this crate's runtime.
struct Runtime {
    bytes: Vec<u8>,
    limit: usize,
}

impl Runtime {
    fn open(&self, mode: Mode) -> Result<TextClassifier> {
        let options = Options::new()
            .mode(mode)
            .max_length(self.limit)
            .truncation(crate::text::Truncation::Truncate);
        TextClassifier::new(Artifact::from_bytes(&self.bytes)?, options)
    }

    fn score(&self, mode: Mode, examples: &[Example]) -> Result<Scores> {
        let model = self.open(mode)?;
        let mut scores = Scores::new(model.labels());
        for examples in examples.chunks(SCORED) {
            let answers = match examples.first().and_then(|example| example.text_b.as_ref()) {
                None => model.classify(&examples.iter().map(|e| &*e.text).collect::<Vec<_>>())?,
                Some(_) => {
                    let pair = |e: &'_ Example| (e.text.clone(), e.text_b.clone().unwrap_or_default());
                    let pairs: Vec<_> = examples.iter().map(pair).collect();
                    let pairs: Vec<_> = pairs.iter().map(|(a, b)| (&**a, &**b)).collect();
                    model.classify_pairs(&pairs)?
                }
            };
            for (example, answer) in examples.iter().zip(answers) {
                let of = scores.label(&example.label)?;
                scores.add(of, scores.label(&answer.labels[0].label)?);
            }
        }
        Ok(scores)
    }

    /// The largest difference of a logit from torch's, in `int8` and `exact`.
    fn difference(&self, texts: &[Text], logits: &[Vec<f32>]) -> Result<[f32; 2]> {
        let mut largest = [0f32; 2];
        for (largest, mode) in largest.iter_mut().zip([Mode::Int8, Mode::Exact]) {
            let model = self.open(mode)?;
            // Ids alone say nothing of pairs.
            let single = |(text, _): &(&Text, &Vec<f32>)| text.types.iter().all(|&t| t == 0);
            for (text, logits) in texts.iter().zip(logits).filter(single) {
                let answers = model.classify_ids(&[&text.ids])?;
                for answer in answers.iter().flat_map(|answer| &answer.labels) {
                    *largest = largest.max((logits[answer.index] - answer.logit).abs());
                }
            }
        }
        Ok(largest)
    }
}

fn fits(teacher: &Model, model: &Model) -> Result<()> {
    let wrong = |message: &str| Err(Error::new(ErrorKind::Checkpoint, message));
    if teacher.base.has_new_head() {
        return wrong("the teacher has no head for the labels of the data: it has to be fine-tuned first");
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
        let planned = model.base.planned().iter().filter(|tensor| tensor.group.name() == group);
        let schemes: Vec<Scheme> = planned.map(|tensor| tensor.plan.scheme).collect();
        if let Some(other) = schemes.iter().find(|&&scheme| scheme != Scheme::Pq) {
            return wrong(format!(
                "quantize: {group} is to be {} by the plan, and only pq has centroids to train",
                other.name()
            ));
        }
        if schemes.is_empty() {
            return wrong(format!("quantize: the model has no tensor of the group {group}"));
        }
    }
    if let Some(Noise { groups, .. }) = &stage.noise
        && model.weights.to_quantize(groups.as_deref()).next().is_none()
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
