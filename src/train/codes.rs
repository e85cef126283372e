//! Where codes come from.

use std::collections::HashMap;

use serde_json::json;

use super::learner::Learner;
use super::recipe::Stage;
use super::run::Watch;
use super::setup::Run;
use super::stage::{Score, Seen, look};
use crate::artifact::Scheme;
use crate::error::Result;

/// Examples that say which inputs of a layer count.
const WEIGHED: usize = 256;

impl<L: Learner> Run<'_, L> {
    /// Codes and centroids for the groups of a stage. Returns how good the model is with them.
    pub(super) fn quantize(
        &mut self,
        stage: &Stage,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Score>> {
        if stage.quantize.is_empty() {
            return Ok(None);
        }
        // Batch norms that are still trained go into the weights.
        self.model.weights.fold();
        // A line for each matrix once it has its codes: those of a large model take long.
        let mut made = |name: &str, error: f64| {
            watch.note(&format!("{name}: quantized, relative error {error:.3}"));
            let line = json!({"event": "quantized", "stage": stage.name, "tensor": name,
                "relative_error": error});
            watch.log.line(&line)
        };
        for (name, error) in self.round(stage)? {
            made(&name, error)?;
        }
        let examples = match stage.learns_from_teacher() {
            true => &self.train[..],
            false => &self.train[..self.labelled],
        };
        let seed = self.recipe.seed;
        let names = self.model.weights.to_quantize(Some(&stage.quantize));
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names.is_empty() {
            // All are in int8 or int4.
        } else if let Some(most) = stage.calibrate {
            let examples: Vec<&L::Example> = spread(examples, most).collect();
            let names = names.into_iter().collect();
            let recoded = L::recode(&self.model, stage, names, &examples, seed, &mut made)?;
            let weights = &mut self.model.weights;
            for (name, values) in &recoded.biases {
                weights.set_plain(name, values);
            }
            for (name, pq) in &recoded.codes {
                // Where codes are to change, it is from here: the weights' nearest centroids are others.
                weights.set_pq(name, pq, false);
            }
        } else {
            let squares = match stage.weigh_inputs {
                true => self.model.mean_squares(spread(examples, WEIGHED))?,
                false => HashMap::new(),
            };
            let weights = &mut self.model.weights;
            for name in names {
                let importance = squares.get(&name).map(Vec::as_slice);
                let how = (importance, stage.reassign.is_some());
                let error = weights.quantize(&name, seed, how, &|_| ())?;
                made(&name, error)?;
            }
        }
        // What noise will see in the first step.
        let mut seen = Seen::new();
        if let Some(noise) = stage.noise.as_ref().filter(|noise| noise.always_exact()) {
            look(noise, &self.model, &mut seen, 0, seed)?;
        }
        let score = self.validate(stage, &seen, 0)?;
        if let Some(score) = score {
            watch.validation(&stage.name, 0, self.metric(), score)?;
        }
        Ok(score)
    }

    /// From now on the matrices of a stage's groups that the plan has in int8 or int4 are used as they will be
    /// stored. Returns their names and relative errors.
    pub(super) fn round(&mut self, stage: &Stage) -> Result<Vec<(String, f64)>> {
        let weights = &mut self.model.weights;
        let names = weights.to_quantize(Some(&stage.quantize));
        let names = names.filter(|name| weights.plan(name).scheme != Scheme::Pq);
        let names: Vec<String> = names.map(str::to_owned).collect();
        let rounded = names.into_iter().map(|name| {
            let error = weights.round(&name)?;
            Ok((name, error))
        });
        rounded.collect()
    }
}

/// At most so many examples, from all parts of the data.
fn spread<E>(examples: &[E], most: usize) -> impl Iterator<Item = &E> {
    let taken = most.min(examples.len());
    (0..taken).map(move |number| &examples[number * examples.len() / taken])
}
