//! Networks of images in training.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::json;
use tch::{Device, Tensor};

use super::calibrated;
use super::examples::Division;
use super::finish::{Measured, Tested};
use super::learner::{Learner, Outputs};
use super::network::Forward;
use super::pass::Pass;
use super::recipe::{Augment, Recipe, Stage};
use super::run::{Event, Metric};
use super::setup::{Examples, Run, check_stages};
use super::stage::{Model, best};
use super::weights::Weights;
use crate::artifact::Artifact;
use crate::convert::recode::Recoded;
use crate::convert::trained::Base;
use crate::convert::{ConvertOptions, PlannedTensor};
use crate::data::{Example, Scores};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, View};
use crate::models::efficientnet::Config;
use crate::nn::Mode;
use crate::pipeline::{ImageClassifier, Options};
use crate::quant::rng::Rng;

const MODES: [Mode; 2] = [Mode::Int8, Mode::Exact];
/// The ratio of sides of a part that is cut out is between this and one over it.
const NARROW: f64 = 0.75;
/// Parts that are tried to find one within a picture.
const TRIES: usize = 10;

/// A picture's file, its label's number, and which part is seen.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    file: PathBuf,
    label: i64,
    view: View,
}

impl Picture {
    /// `[size][size][3]`
    fn input(&self, config: &Config) -> Result<Vec<f32>> {
        let bytes = image::read(&self.file)?;
        image::view(&bytes, self.view, &config.input).map_err(|e| e.in_file(&self.file))
    }
}

/// A convolutional network.
pub(super) struct Images {
    config: Config,
    augment: Option<Augment>,
}

impl Images {
    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

impl Learner for Images {
    type Example = Picture;
    /// `[images, size, size, 3]`
    type Batch = Tensor;
    const RELATIVE: bool = true;

    fn length(_: &Picture) -> usize {
        1
    }

    fn label(picture: &Picture) -> i64 {
        picture.label
    }

    fn layers(&self) -> usize {
        self.config.blocks.len()
    }

    fn embeds(&self) -> bool {
        false
    }

    fn batch(&self, pictures: &[&Picture], device: Device) -> Result<Tensor> {
        let inputs: Result<Vec<Vec<f32>>> = match tch::get_num_threads() {
            ..=1 => pictures.iter().map(|p| p.input(&self.config)).collect(),
            _ => pictures.par_iter().map(|p| p.input(&self.config)).collect(),
        };
        let inputs = inputs?.concat();
        let size = self.config.input.size as i64;
        let batch = Tensor::from_slice(&inputs).view([-1, size, size, 3]);
        Ok(batch.to_device(device))
    }

    fn forward(&self, pass: &Pass<'_>, batch: &Tensor, with_hidden: bool) -> Result<Outputs> {
        let forward = Forward {
            config: &self.config,
            pass,
        };
        forward.run(batch, with_hidden)
    }

    fn varied<'e>(
        &self,
        _: &Stage,
        pictures: &'e [Picture],
        numbers: &[usize],
        rng: &mut Rng,
    ) -> Vec<Cow<'e, Picture>> {
        let varied = |&number: &usize| {
            let picture = &pictures[number];
            match self.augment {
                None => Cow::Borrowed(picture),
                Some(augment) => Cow::Owned(Picture {
                    view: drawn(augment, rng),
                    ..picture.clone()
                }),
            }
        };
        numbers.iter().map(varied).collect()
    }

    fn recode(
        model: &Model<Self>,
        _: &Stage,
        names: HashSet<String>,
        pictures: &[&Picture],
        seed: u64,
        made: &mut dyn FnMut(&str, f64) -> Result<()>,
    ) -> Result<Recoded> {
        calibrated::recode(model, &names, pictures, seed, made)
    }

    fn measure(
        run: &Run<'_, Self>,
        bytes: Vec<u8>,
        answers: &[Vec<Vec<f32>>; 2],
    ) -> Result<Measured> {
        let config = &run.model.learner.config;
        let mut difference = [0f32; 2];
        let mut best = Vec::new();
        let labels = run.model.base.labels();
        for ((difference, mode), answers) in difference.iter_mut().zip(MODES).zip(answers) {
            let options = Options::new().mode(mode);
            let network = ImageClassifier::new(Artifact::from_bytes(&bytes)?, options)?;
            for (picture, by_torch) in run.validation.iter().zip(answers) {
                let input = picture.input(config)?;
                for answer in &network.classify_inputs(&[&input])?[0].labels {
                    let apart = (answer.logit - by_torch[answer.index]).abs();
                    *difference = difference.max(apart);
                }
            }
            let mut of_mode = Vec::with_capacity(run.test.len());
            for example in &run.test {
                of_mode.push(network.classify(&[&example.text])?[0].labels[0].index);
            }
            best.push(of_mode);
        }
        let lines = run.test.iter().enumerate().flat_map(|(at, example)| {
            let [int8, exact] = [0, 1].map(|mode| &labels[best[mode][at]]);
            let line = json!({"line": example.line, "label": example.label, "int8": int8,
                "exact": exact});
            format!("{line}\n").into_bytes()
        });
        Ok(Measured {
            difference: (!run.validation.is_empty()).then_some(difference),
            tested: tested(run, &best)?,
            lines: lines.collect(),
        })
    }
}

/// How good the runtime's answers are, in the modes `int8` and `exact`.
fn tested(run: &Run<'_, Images>, answers: &[Vec<usize>]) -> Result<Tested> {
    if run.metric() == Metric::Agreement {
        let taught = run.taught.as_ref().map(|taught| &taught.test[..]);
        let taught = taught.unwrap_or_default();
        let share = |answers: &[usize]| {
            let pairs = answers.iter().zip(taught);
            let same = pairs.filter(|(own, taught)| **own == best(taught)).count();
            same as f64 / answers.len().max(1) as f64
        };
        return Ok(Tested::Student {
            int8: share(&answers[0]),
            exact: share(&answers[1]),
            examples: run.test.len(),
        });
    }
    let score = |answers: &[usize]| -> Result<Scores> {
        let mut scores = Scores::new(run.model.base.labels());
        for (example, &answer) in run.test.iter().zip(answers) {
            scores.add(scores.label(&example.label)?, answer);
        }
        Ok(scores)
    };
    Ok(Tested::Classifier {
        int8: score(&answers[0])?,
        exact: score(&answers[1])?,
    })
}

/// Which part of a picture is seen in a step.
fn drawn(augment: Augment, rng: &mut Rng) -> View {
    let flip = augment.flip && rng.uniform_f64() < 0.5;
    if augment.area >= 1.0 {
        return View { part: None, flip };
    }
    let mut part = None;
    for _ in 0..TRIES {
        let area = augment.area + (1.0 - augment.area) * rng.uniform_f64();
        // Evenly in the logarithm.
        let ratio = NARROW.powf(2.0 * rng.uniform_f64() - 1.0);
        let (width, height) = ((area * ratio).sqrt(), (area / ratio).sqrt());
        if width <= 1.0 && height <= 1.0 {
            let left = (1.0 - width) * rng.uniform_f64();
            let top = (1.0 - height) * rng.uniform_f64();
            part = Some([left, top, width, height]);
            break;
        }
    }
    View { part, flip }
}

/// The deviation of new weights (He et al. 2015, arXiv 1502.01852).
fn deviation(tensor: &PlannedTensor) -> f32 {
    let inputs = tensor.shape.last().copied().unwrap_or(1);
    (2.0 / inputs as f32).sqrt()
}

fn pictures(examples: &[Example], labels: &[String]) -> Vec<Picture> {
    let number = |example: &Example| labels.iter().position(|label| *label == example.label);
    let view = View {
        part: None,
        flip: false,
    };
    let picture = |example: &Example| Picture {
        file: PathBuf::from(&example.text),
        label: number(example).unwrap_or(0) as i64,
        view,
    };
    examples.iter().map(picture).collect()
}

impl Model<Images> {
    fn new(base: Base, recipe: &Recipe, device: Device) -> Result<Self> {
        let config = base.image_config().cloned();
        let config = config.ok_or_else(|| Error::new(ErrorKind::Config, "not a network of images"));
        Ok(Self {
            weights: Weights::load(&base, (true, deviation), recipe.seed, device)?,
            learner: Images {
                config: config?,
                augment: recipe.data.augment,
            },
            base,
            device,
        })
    }

    /// What a recipe starts from.
    fn start(
        recipe: &Recipe,
        options: &ConvertOptions,
        classes: Option<&[String]>,
        device: Device,
    ) -> Result<Self> {
        let network = recipe.network.as_ref();
        let name = network.and_then(|network| network.name.as_deref());
        if let Some(path) = &recipe.model {
            let base = Base::network(path, name, options, classes)?;
            return Self::new(base, recipe, device);
        }
        let labels = classes.unwrap_or_default();
        let base = match network.and_then(|network| network.shape.as_ref()) {
            Some(shape) => Base::new_network(shape.config(labels.len())?, options, labels)?,
            None => Base::named_network(name.unwrap_or_default(), options, labels)?,
        };
        let mut model = Self::new(base, recipe, device)?;
        // All that nothing is multiplied in front of.
        let planned = model.base.planned().iter();
        let normed = planned.filter(|tensor| {
            let group = tensor.group.name();
            tensor.name.ends_with(".weight") && !["squeeze", "classifier"].contains(&group)
        });
        let layers = normed.map(|tensor| tensor.name.replace(".weight", ""));
        let layers: Vec<String> = layers.collect();
        model.weights.normalize(layers);
        Ok(model)
    }
}

impl<'a> Run<'a, Images> {
    /// # Errors
    /// If a file cannot be read, or something in them or in the recipe does not fit.
    pub(super) fn new(
        recipe: &'a Recipe,
        device: Device,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        let division = Division::read(&recipe.data)?;
        let labelled = recipe.data.label.is_some();
        let classes = labelled.then_some(&division.labels[..]);
        let options = ConvertOptions {
            plan: recipe.plan()?,
            image_size: recipe.network.as_ref().and_then(|n| n.image_size),
            ..ConvertOptions::default()
        };
        let model = Model::start(recipe, &options, classes, device)?;
        report(Event::Plan(model.base.planned()));
        for note in division.notes.iter().chain(model.base.notes()) {
            report(Event::Note(note));
        }
        let teacher = match &recipe.teacher {
            Some(path) => Some(teacher(recipe, path, &model, device).map_err(|e| e.in_file(path))?),
            None => None,
        };
        check_stages(recipe, &model, teacher.as_ref(), report)?;
        let of = |examples: &[Example]| pictures(examples, model.base.labels());
        let mut train = of(&division.train);
        let labelled = train.len();
        train.extend(of(&division.unlabelled));
        let validation = of(&division.validation);
        let test = match &recipe.data.label {
            Some(_) => Vec::new(),
            None => of(&division.test),
        };
        let examples = Examples {
            train,
            labelled,
            validation,
            test,
            cut: None,
        };
        Self::of(recipe, division, (model, teacher), examples)
    }
}

/// The network that stages learn from: it sees what the model sees.
fn teacher(
    recipe: &Recipe,
    path: &Path,
    model: &Model<Images>,
    device: Device,
) -> Result<Model<Images>> {
    let wrong = |message: &str| Err(Error::new(ErrorKind::Checkpoint, message));
    let artifact = path.extension().is_some_and(|end| end == "centroid");
    let network = recipe.network.as_ref().filter(|_| !artifact);
    let options = ConvertOptions {
        image_size: network.and_then(|network| network.image_size),
        ..ConvertOptions::default()
    };
    let name = network.and_then(|network| network.name.as_deref());
    let base = Base::network(path, name, &options, None)?;
    let teacher = Model::<Images>::new(base, recipe, device)?;
    if teacher.base.labels() != model.base.labels() {
        return wrong(
            "the teacher's labels are others than the model's, or stand in another order",
        );
    }
    let [own, taught] = [model, &teacher].map(|model| &model.learner.config);
    if own.input != taught.input {
        return wrong("the teacher takes other inputs than the model");
    }
    let hidden = (recipe.stages.iter())
        .any(|stage| (stage.distill.as_ref()).is_some_and(|distill| distill.hidden > 0.0));
    if hidden && (own.stem != taught.stem || own.blocks != taught.blocks) {
        return wrong(
            "distill.hidden: the teacher's blocks are others than the model's; 0 learns from its \
             answers alone",
        );
    }
    Ok(teacher)
}
