//! Models of texts in training.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use tch::Device;

use super::encoder::{Batch, Forward, Text};
use super::examples::{Division, tokenize};
use super::finish::Measured;
use super::learner::{Learner, Outputs};
use super::neighbours::Neighbours;
use super::pass::Pass;
use super::recipe::{Recipe, Stage};
use super::run::{Event, Metric};
use super::runtime::Runtime;
use super::setup::{Examples, Run, check_stages};
use super::stage::Model;
use super::weights::Weights;
use crate::convert::recode::{Recoded, Tokens};
use crate::convert::trained::Base;
use crate::convert::{ConvertOptions, PlannedTensor};
use crate::data::Example;
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::{Config, Task};
use crate::quant::rng::Rng;
use crate::text::{Tokenizer, Truncation};

/// The deviation of new weights, as in BERT.
const NEW: f32 = 0.02;

/// Texts on which the tokenizers of model and teacher are compared.
const COMPARED: usize = 64;

/// An encoder.
pub(super) struct Texts {
    pub(super) config: Config,
    /// For each layer the one whose weights it uses.
    layer_of: Vec<usize>,
    /// Of tokens, if a stage replaces some.
    neighbours: Option<Neighbours>,
    /// The most tokens of a text.
    limit: usize,
}

impl Learner for Texts {
    type Example = Text;
    type Batch = Batch;
    const RELATIVE: bool = false;

    fn length(text: &Text) -> usize {
        text.ids.len()
    }

    fn label(text: &Text) -> i64 {
        text.label
    }

    fn layers(&self) -> usize {
        self.config.layers
    }

    fn embeds(&self) -> bool {
        matches!(self.config.task, Task::Embedding { .. })
    }

    fn batch(&self, texts: &[&Text], device: Device) -> Result<Batch> {
        Ok(Batch::new(&self.config, texts, device))
    }

    fn forward(&self, pass: &Pass<'_>, batch: &Batch, with_hidden: bool) -> Result<Outputs> {
        let forward = Forward {
            config: &self.config,
            layer_of: &self.layer_of,
            pass,
        };
        forward.run(batch, with_hidden)
    }

    /// Some of them spliced, and some of their tokens replaced.
    fn varied<'e>(
        &self,
        stage: &Stage,
        texts: &'e [Text],
        numbers: &[usize],
        rng: &mut Rng,
    ) -> Vec<Cow<'e, Text>> {
        let distill = stage.distill.as_ref();
        let splice = distill.map_or(0.0, |distill| distill.splice);
        let replace = distill.map_or(0.0, |distill| distill.replace);
        let text = |&number: &usize| {
            let mut text = Cow::Borrowed(&texts[number]);
            if rng.uniform_f64() < splice {
                let other = &texts[numbers[rng.below(numbers.len())]];
                text = Cow::Owned(text.spliced(other, rng.uniform_f64()));
            }
            match &self.neighbours {
                Some(neighbours) if replace > 0.0 => {
                    let chance = replace * rng.uniform_f64();
                    Cow::Owned(neighbours.replace(&text, chance, rng))
                }
                _ => text,
            }
        };
        numbers.iter().map(text).collect()
    }

    fn recode(
        model: &Model<Self>,
        stage: &Stage,
        names: HashSet<String>,
        texts: &[&Text],
        seed: u64,
        made: &mut dyn FnMut(&str, f64) -> Result<()>,
    ) -> Result<Recoded> {
        let tokens = texts.iter().map(|text| Tokens {
            ids: text.ids.clone(),
            types: text.types.clone(),
        });
        let present = |name: &str| model.weights.present(name);
        let gradients = match stage.weigh_answers {
            None | Some(true) => Some(model.gradients(texts, seed)?),
            Some(false) => None,
        };
        let (base, tokens) = (&model.base, tokens.collect());
        base.recode(&names, &present, tokens, gradients.as_ref(), seed, made)
    }

    fn measure(
        run: &Run<'_, Self>,
        bytes: Vec<u8>,
        answers: &[Vec<Vec<f32>>; 2],
    ) -> Result<Measured> {
        let (metric, limit) = (run.metric(), run.model.learner.limit);
        let runtime = Runtime { bytes, limit };
        let difference = runtime.difference(metric, &run.validation, answers)?;
        let (tested, lines) = match &run.taught {
            Some(taught) if metric == Metric::Cosine => runtime.embed(&run.test, &taught.test)?,
            _ => runtime.classify(&run.test)?,
        };
        Ok(Measured {
            difference,
            tested,
            lines,
        })
    }
}

fn load(
    recipe: &Recipe,
    directory: &Path,
    options: &ConvertOptions,
    labels: &[String],
    device: Device,
) -> Result<Model<Texts>> {
    let base = match recipe.data.label {
        Some(_) => Base::classifier(directory, options, labels)?,
        None => Base::embedder(directory, options)?,
    };
    let config = base.config().clone();
    let limit = recipe.data.max_tokens.unwrap_or(config.max_tokens);
    Ok(Model {
        weights: Weights::load(&base, (false, |_: &PlannedTensor| NEW), recipe.seed, device)?,
        learner: Texts {
            layer_of: base.layer_of().to_vec(),
            neighbours: None,
            limit,
            config,
        },
        base,
        device,
    })
}

impl<'a> Run<'a, Texts> {
    /// # Errors
    /// If a file cannot be read, or something in them or in the recipe does not fit.
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
        let load = |directory: &Path, options: &ConvertOptions, labels: &[String]| {
            load(recipe, directory, options, labels, device)
        };
        let Some(directory) = &recipe.model else {
            let message = "model: a model of texts starts from a checkpoint";
            return Err(Error::new(ErrorKind::Config, message));
        };
        let teacher = match &recipe.teacher {
            Some(directory) => {
                let teacher = load(directory, &ConvertOptions::default(), &division.labels)?;
                Some((directory, teacher))
            }
            None => None,
        };
        // A new head has its labels in the teacher's order.
        let labels = match &teacher {
            Some((_, teacher)) if !teacher.base.labels().is_empty() => teacher.base.labels(),
            _ => &division.labels,
        };
        let mut model = load(directory, &options, labels)?;
        report(Event::Plan(model.base.planned()));
        for note in division.notes.iter().chain(model.base.notes()) {
            report(Event::Note(note));
        }
        let teacher = match teacher {
            Some((directory, teacher)) => {
                fits(recipe, &teacher, &model).map_err(|e| e.in_file(directory))?;
                Some(teacher)
            }
            None => None,
        };
        check_stages(recipe, &model, teacher.as_ref(), report)?;
        let config = &model.learner.config;
        let limit = model.learner.limit;
        if limit > config.max_tokens {
            let message = format!(
                "data.max-tokens: the model has at most {}",
                config.max_tokens
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let tokenizer = model.base.tokenizer()?;
        let pair = recipe.data.text_b.as_ref().map(|_| "");
        // So that no line of the data is blamed.
        tokenizer
            .encode("", pair, limit, Truncation::Truncate)
            .map_err(|e| {
                Error::new(
                    ErrorKind::Config,
                    format!("data.max-tokens: {}", e.message()),
                )
            })?;
        if let (Some(teacher), Some(directory)) = (&teacher, &recipe.teacher) {
            let alike = alike(
                &tokenizer,
                &teacher.base.tokenizer()?,
                &division.train,
                limit,
            );
            if !alike {
                let message = "the teacher's tokenizer gives other ids than the model's";
                return Err(Error::new(ErrorKind::Checkpoint, message).in_file(directory));
            }
        }
        let labels = model.base.labels().to_vec();
        if recipe.data.max_tokens.is_some() {
            // What is longer is refused or cut by those who use the model, too.
            model.base.limit(limit);
        }
        let mut texts = |examples: &[Example], what: &str| {
            let (texts, cut) = tokenize(examples, &tokenizer, &labels, limit)?;
            if cut > 0 {
                report(Event::Note(&format!(
                    "{what}: {cut} texts were cut to {limit} tokens"
                )));
            }
            Ok::<_, Error>((texts, cut))
        };
        let mut train = texts(&division.train, "train")?.0;
        let labelled = train.len();
        train.extend(texts(&division.unlabelled, "unlabelled")?.0);
        let validation = texts(&division.validation, "validation")?.0;
        let mut stages = recipe.stages.iter();
        let replaces = stages.any(|s| s.distill.as_ref().is_some_and(|d| d.replace > 0.0));
        model.learner.neighbours = match &teacher {
            Some(teacher) if replaces => {
                let special = tokenizer.encode("", Some(""), limit, Truncation::Truncate)?;
                let table = teacher.weights.rows("embeddings.token", None, false)?;
                Some(Neighbours::new(&table.detach(), &train, &special.ids))
            }
            _ => None,
        };
        let (mut test, cut) = texts(&division.test, "test")?;
        if recipe.data.label.is_some() {
            test.clear();
        }
        let cut = (cut > 0).then(|| format!("{cut} texts cut to {limit} tokens"));
        let examples = Examples {
            train,
            labelled,
            validation,
            test,
            cut,
        };
        Self::of(recipe, division, (model, teacher), examples)
    }
}

/// Whether two tokenizers do the same with some texts.
fn alike(a: &Tokenizer, b: &Tokenizer, examples: &[Example], limit: usize) -> bool {
    for example in examples.iter().take(COMPARED) {
        let [a, b] = [a, b].map(|tokenizer| {
            let pair = example.text_b.as_deref();
            tokenizer.encode(&example.text, pair, limit, Truncation::Truncate)
        });
        // What is wrong with a text is said with its line, later.
        if let (Ok(a), Ok(b)) = (a, b)
            && a.ids != b.ids
        {
            return false;
        }
    }
    true
}

fn fits(recipe: &Recipe, teacher: &Model<Texts>, model: &Model<Texts>) -> Result<()> {
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
    let limit = model.learner.limit;
    let [own, taught] = [model, teacher].map(|model| model.base.config());
    if taught.max_tokens < limit {
        return wrong(&format!(
            "the teacher takes {} tokens, and texts may have {limit}: set data.max-tokens",
            taught.max_tokens
        ));
    }
    if recipe.data.text_b.is_some() && own.type_vocab != taught.type_vocab {
        return wrong("the teacher has another number of token types than the model");
    }
    let hidden = (recipe.stages.iter())
        .any(|stage| (stage.distill.as_ref()).is_some_and(|distill| distill.hidden > 0.0));
    if hidden && model.base.config().hidden != teacher.base.config().hidden {
        return wrong("distill.hidden: the teacher's token vectors have another length");
    }
    Ok(())
}
