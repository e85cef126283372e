//! Steps of a stage.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Kind, Reduction, Tensor};

use super::caught::{TORCH, caught};
use super::learner::{Learner, Outputs};
use super::mix;
use super::noise::{Look, Noise};
use super::optimizer::{AdamW, Rates};
use super::pass::{Disturbance, Pass};
use super::recipe::{Distill, Recipe, Stage};
use super::run::Metric;
use super::weights::Weights;
use crate::convert::trained::Base;
use crate::data::Scores;
use crate::error::{Error, ErrorKind, Result};
use crate::quant::rng::Rng;

/// A model in torch.
pub(super) struct Model<L> {
    pub(super) learner: L,
    pub(super) base: Base,
    pub(super) weights: Weights,
    pub(super) device: Device,
}

impl<L: Learner> Model<L> {
    pub(super) fn pass(&self) -> Pass<'_> {
        Pass::plain(&self.weights)
    }

    pub(super) fn batch(&self, examples: &[&L::Example]) -> Result<L::Batch> {
        self.learner.batch(examples, self.device)
    }

    /// Without noise, dropout or gradients.
    fn outputs(&self, batch: &L::Batch, with_hidden: bool, bf16: bool) -> Result<Outputs> {
        let pass = Pass {
            bf16,
            ..self.pass()
        };
        tch::no_grad(|| self.learner.forward(&pass, batch, with_hidden))
    }

    /// The mean square of each input of each linear layer, on some examples: `[columns]` by the weights' names.
    pub(super) fn mean_squares<'a>(
        &self,
        examples: impl Iterator<Item = &'a L::Example>,
    ) -> Result<HashMap<String, Vec<f32>>>
    where
        L::Example: 'a,
    {
        let pass = Pass {
            inputs: Some(RefCell::default()),
            ..self.pass()
        };
        // One by one: padding counts for nothing.
        for example in examples {
            let batch = self.batch(&[example])?;
            tch::no_grad(|| self.learner.forward(&pass, &batch, false))?;
        }
        let inputs = pass.inputs.unwrap_or_default().into_inner();
        let mean = |(sum, tokens): (Tensor, i64)| super::weights::to_vec(&(sum / tokens as f64));
        let means = inputs.into_iter().map(|(name, of)| (name, mean(of)));
        Ok(means.collect())
    }

    /// Logits or vectors of all examples, `[examples][labels or hidden]`, in a pass that makes each matrix from
    /// its codes once.
    ///
    /// # Errors
    /// `broken` if one is not finite.
    pub(super) fn answers(
        &self,
        pass: &Pass<'_>,
        examples: &[L::Example],
        size: usize,
        broken: &dyn Fn() -> Error,
    ) -> Result<Vec<Vec<f32>>> {
        let mut answers = vec![Vec::new(); examples.len()];
        for numbers in super::examples::by_length(examples, L::length, size) {
            let batched: Vec<&L::Example> = numbers.iter().map(|&n| &examples[n]).collect();
            let batch = self.batch(&batched)?;
            let outputs = tch::no_grad(|| self.learner.forward(pass, &batch, false))?;
            let values = super::weights::to_vec(&outputs.answers);
            if !values.iter().all(|value| value.is_finite()) {
                return Err(broken());
            }
            let of_each = values.chunks_exact(values.len() / numbers.len());
            for (number, values) in numbers.into_iter().zip(of_each) {
                answers[number] = values.to_vec();
            }
        }
        Ok(answers)
    }

    /// How good answers to some examples are, for which a teacher answers `taught`.
    pub(super) fn score(
        &self,
        metric: Metric,
        examples: &[L::Example],
        answers: &[Vec<f32>],
        taught: Option<&[Vec<f32>]>,
    ) -> Score {
        let mean = |of: fn(&[f32], &[f32]) -> f64, taught: &[Vec<f32>]| {
            let pairs = answers.iter().zip(taught);
            pairs.map(|(own, taught)| of(own, taught)).sum::<f64>() / examples.len().max(1) as f64
        };
        let by_teacher = |of| taught.map_or(0.0, |taught| mean(of, taught));
        let value = match metric {
            Metric::Cosine => by_teacher(cosine),
            Metric::Agreement => by_teacher(|own, taught| f64::from(best(own) == best(taught))),
            Metric::Accuracy => {
                let mut scores = Scores::new(self.base.labels());
                for (example, logits) in examples.iter().zip(answers) {
                    scores.add(L::label(example) as usize, best(logits));
                }
                scores.accuracy()
            }
        };
        Score {
            value,
            divergence: match self.learner.embeds() {
                true => None,
                false => taught.map(|taught| mean(divergence_of, taught)),
            },
        }
    }
}

/// The number of the largest logit, the first of equal ones.
pub(super) fn best(logits: &[f32]) -> usize {
    let numbers = (0..logits.len()).rev();
    numbers
        .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
        .unwrap_or(0)
}

/// How good a model is on some examples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    /// The share of right answers or of those that are a teacher's, or the mean cosine of its vectors to a teacher's.
    pub(super) value: f64,
    /// The mean divergence of a classifier's answers from a teacher's.
    pub(super) divergence: Option<f64>,
}

/// The Kullback-Leibler divergence of the softmax of our logits from that of the teacher's.
pub(super) fn divergence_of(own: &[f32], taught: &[f32]) -> f64 {
    let logarithms = |logits: &[f32]| -> Vec<f64> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let above = |logit: &f32| f64::from(logit - most);
        let total = logits.iter().map(|l| above(l).exp()).sum::<f64>().ln();
        logits.iter().map(|l| above(l) - total).collect()
    };
    let pairs = logarithms(taught).into_iter().zip(logarithms(own));
    pairs
        .map(|(taught, own)| taught.exp() * (taught - own))
        .sum()
}

/// Of the angle between two vectors; 0 if one is 0.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum::<f64>()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// Where learning rates and noise are in a stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) stage: usize,
    pub(super) step: usize,
    pub(super) steps: usize,
}

impl Clock {
    /// The share of the highest learning rate: it rises in equal steps, then falls to 0.
    pub(super) fn share(self, warmup: f64) -> f64 {
        let rising = (self.steps as f64 * warmup).ceil();
        let step = self.step as f64;
        if step < rising {
            (step + 1.0) / rising
        } else {
            (self.steps as f64 - step) / (self.steps as f64 - rising)
        }
    }
}

/// What noise knows of the weights.
pub(super) type Seen = HashMap<String, Look>;

/// What a step says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) loss: f64,
    pub(super) norm: f64,
    pub(super) rate: f64,
}

/// Everything that a step needs beside the model.
pub(super) struct Steps<'a, L: Learner> {
    pub(super) recipe: &'a Recipe,
    pub(super) stage: &'a Stage,
    pub(super) teacher: Option<&'a Model<L>>,
    pub(super) examples: &'a [L::Example],
}

impl<L: Learner> Steps<'_, L> {
    /// Takes a step with some examples.
    ///
    /// # Errors
    /// If the loss or a gradient is not finite.
    pub(super) fn take(
        &self,
        model: &Model<L>,
        optimizer: &mut AdamW,
        seen: &mut Seen,
        clock: Clock,
        numbers: &[usize],
    ) -> Result<Taken> {
        let seeds = [self.recipe.seed, clock.stage as u64, clock.step as u64];
        if let Some(noise) = &self.stage.noise {
            look(noise, model, seen, clock.step, self.recipe.seed)?;
        }
        // Every random choice of torch in this step follows, whatever came before: a run that goes on
        // makes the same ones.
        tch::manual_seed((mix(&seeds) >> 1) as i64);
        let mut rng = Rng::new(mix(&[seeds[0], seeds[1], seeds[2], 1]));
        // Layers that share weights are kept or skipped together.
        let chunk = self.recipe.share.max(1);
        let drawn: Vec<bool> = (0..model.learner.layers().div_ceil(chunk))
            .map(|_| rng.uniform_f64() < self.stage.layer_drop)
            .collect();
        let skipped = (0..model.learner.layers()).map(|layer| drawn[layer / chunk]);
        let skipped = skipped.collect();
        let noise = self.stage.noise.as_ref().map(|noise| Disturbance {
            noise,
            rate: noise.rate.at(clock.step as f64 / clock.steps as f64),
            seen,
        });
        let mut pass = Pass {
            noise,
            training: true,
            dropout: self.recipe.dropout,
            skipped,
            int8: self.stage.int8,
            bf16: self.recipe.bf16,
            ..model.pass()
        };
        optimizer.forget();
        let mut loss = 0.0;
        let mut rng = Rng::new(mix(&[seeds[0], seeds[1], seeds[2], 2]));
        let (learner, stage) = (&model.learner, self.stage);
        let examples = learner.varied(stage, self.examples, numbers, &mut rng);
        let whole: usize = examples.iter().map(|example| L::length(example)).sum();
        for part in examples.chunks(examples.len().div_ceil(self.recipe.accumulate)) {
            let part: Vec<&L::Example> = part.iter().map(|example| &**example).collect();
            let length: usize = part.iter().map(|example| L::length(example)).sum();
            let shares = Shares {
                examples: part.len() as f64 / examples.len() as f64,
                length: length as f64 / whole as f64,
            };
            let part = self.loss(model, &pass, &part, shares)?;
            loss += part.double_value(&[]);
            if !loss.is_finite() {
                return Err(self.diverged(clock, "the loss is not finite"));
            }
            part.backward();
            // A graph is used once: what is shared in it is made anew.
            pass = pass.again();
        }
        let share = clock.share(self.stage.warmup);
        let rates = Rates {
            weights: self.stage.learning_rate * share,
            centroids: self.stage.centroid_learning_rate * share,
            decay: self.stage.weight_decay,
            clip: self.stage.clip,
        };
        let norm = optimizer
            .step(rates)
            .map_err(|e| self.diverged(clock, &e.to_string()))?;
        Ok(Taken {
            loss,
            norm,
            rate: rates.weights,
        })
    }

    /// What is said of an error of [`Self::take`], or of torch in it.
    pub(super) fn failed(&self, optimizer: &AdamW, clock: Clock, error: Error) -> Error {
        let finite = || caught(|| Ok(optimizer.finite())).unwrap_or(true);
        if error.message().starts_with(&self.at(clock, "")) {
            error
        } else if !finite() {
            // Whatever failed did so for that.
            self.diverged(clock, &error.to_string())
        } else if error.message().starts_with(TORCH) {
            let message = format!("{}: the last saved state is as it was", error.message());
            Error::new(error.kind(), self.at(clock, &message))
        } else {
            error
        }
    }

    fn at(&self, clock: Clock, what: &str) -> String {
        format!(
            "stage {:?}, step {}: {what}",
            self.stage.name,
            clock.step + 1
        )
    }

    fn diverged(&self, clock: Clock, what: &str) -> Error {
        let message = format!(
            "{what}; most likely a learning rate is too high (learning-rate {:e}, centroid-learning-rate {:e}): \
             the last saved state is as it was",
            self.stage.learning_rate, self.stage.centroid_learning_rate
        );
        Error::new(ErrorKind::Input, self.at(clock, &message))
    }

    /// What a part of a step adds to its loss.
    fn loss(
        &self,
        model: &Model<L>,
        pass: &Pass<'_>,
        examples: &[&L::Example],
        shares: Shares,
    ) -> Result<Tensor> {
        let batch = model.batch(examples)?;
        let smoothing = self.recipe.label_smoothing;
        let by_labels = |logits: &Tensor| {
            let labels: Vec<i64> = examples.iter().map(|example| L::label(example)).collect();
            let labels = Tensor::from_slice(&labels).to_device(model.device);
            logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, smoothing)
        };
        let forward = |with_hidden| model.learner.forward(pass, &batch, with_hidden);
        let (Some(distill), Some(teacher)) = (&self.stage.distill, self.teacher) else {
            return Ok(by_labels(&forward(false)?.answers) * shares.examples);
        };
        let with_hidden = distill.hidden > 0.0;
        let taught = teacher.outputs(&batch, with_hidden, self.recipe.bf16)?;
        let outputs = forward(with_hidden)?;
        let mut loss = Tensor::from(0f32).to_device(outputs.answers.device());
        if distill.labels > 0.0 {
            loss += by_labels(&outputs.answers) * distill.labels;
        }
        let (own, by_teacher) = (&outputs.answers, &taught.answers);
        let of_logits = self.recipe.of_logits(distill);
        if of_logits > 0.0 {
            loss += divergence(own, by_teacher, distill.temperature) * of_logits;
        }
        let of_embedding = self.recipe.of_embedding(distill);
        if of_embedding > 0.0 {
            let cosines = Tensor::cosine_similarity(own, by_teacher, -1, 1e-8);
            loss += (1.0 - cosines.mean(Kind::Float)) * of_embedding;
        }
        loss *= shares.examples;
        if with_hidden {
            let layers = taught_by(distill, outputs.hidden.len(), taught.hidden.len())?;
            let errors = outputs.hidden.iter().zip(&layers);
            // What a layer that was left out would have answered, nobody knows.
            let there = outputs.hidden.iter().flatten().count();
            for (own, &layer) in errors {
                let (Some(own), Some(taught)) = (own, &taught.hidden[layer]) else {
                    continue;
                };
                let mut error = own.mse_loss(taught, Reduction::Mean);
                if L::RELATIVE {
                    let size = taught.square().mean(Kind::Float);
                    error /= size.clamp_min(f64::from(f32::MIN_POSITIVE));
                }
                loss += error * (shares.length * distill.hidden / there as f64);
            }
        }
        Ok(loss)
    }
}

/// How much of a step a part of it is.
#[derive(Clone, Copy)]
struct Shares {
    /// Of its examples, which answers are of.
    examples: f64,
    /// Of their lengths, which hidden states are of.
    length: f64,
}

/// The Kullback-Leibler divergence of the teacher's softmax from ours, both at a temperature, times its square.
fn divergence(own: &Tensor, taught: &Tensor, temperature: f64) -> Tensor {
    let soft = |logits: &Tensor| (logits / temperature).log_softmax(-1, Kind::Float);
    let texts = own.size()[0] as f64;
    soft(own).kl_div(&soft(taught), Reduction::Sum, true) * (temperature * temperature / texts)
}

/// For the embeddings and each layer the teacher's output that they learn from.
pub(super) fn taught_by(distill: &Distill, own: usize, taught: usize) -> Result<Vec<usize>> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    match &distill.layers {
        None => Ok((0..own)
            .map(|i| i * (taught - 1) / (own - 1).max(1))
            .collect()),
        Some(layers) if layers.len() != own => wrong(format!(
            "distill.layers: {} numbers, for the embeddings and {} layers",
            layers.len(),
            own - 1
        )),
        Some(layers) => match layers.iter().find(|&&layer| layer >= taught) {
            Some(layer) => wrong(format!("distill.layers: the teacher has no layer {layer}")),
            None => Ok(layers.clone()),
        },
    }
}

/// Looks at the weights again where that is due.
pub(super) fn look<L>(
    noise: &Noise,
    model: &Model<L>,
    seen: &mut Seen,
    step: usize,
    seed: u64,
) -> Result<()> {
    if !seen.is_empty() && !step.is_multiple_of(noise.refresh) {
        return Ok(());
    }
    seen.clear();
    for name in model.weights.to_disturb(noise) {
        let Some(tensor) = model.weights.plain(name) else {
            continue;
        };
        let plan = model.weights.plan(name);
        let seen_now = noise
            .look(&tensor.detach(), plan, seed)
            .map_err(|e| e.in_tensor(name))?;
        seen.insert(name.to_owned(), seen_now);
    }
    if seen.is_empty() {
        let message = "noise: none of the plan's tensors is in its groups and not quantized yet";
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}
