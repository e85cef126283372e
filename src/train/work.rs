//! A stage in work: what changes from step to step, and is saved.

use std::path::Path;

use tch::Tensor;

use super::noise::Look;
use super::optimizer::AdamW;
use super::recipe::Stage;
use super::stage::{Model, Score, Seen};
use super::state::{NewState, Place, State};
use crate::error::{Error, ErrorKind, Result};

/// Names, shapes and codes of matrices.
type Codes = Vec<(String, [usize; 2], Vec<u8>)>;

/// A stage in work.
pub(super) struct Work {
    pub(super) optimizer: AdamW,
    pub(super) seen: Seen,
    /// The weights that were best in validation, and the codes.
    pub(super) best: Vec<(String, Tensor)>,
    pub(super) best_codes: Codes,
    pub(super) place: Place,
}

impl Work {
    pub(super) fn new<L>(stage: usize, model: &Model<L>) -> Self {
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
    pub(super) fn restored<L>(stage: &Stage, model: &Model<L>, state: &State) -> Result<Self> {
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
            let names = model.weights.to_disturb(noise);
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
                if !model.weights.fits(&name, codes) {
                    let message = "the best codes do not fit the model";
                    return Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(name));
                }
                work.best_codes.push((name, shape, codes.to_vec()));
            }
        }
        work.place = state.place.clone();
        Ok(work)
    }

    /// Keeps the weights if they are the best so far.
    pub(super) fn compare<L>(
        &mut self,
        stage: &Stage,
        score: Score,
        epoch: usize,
        model: &Model<L>,
    ) {
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

    pub(super) fn save<L>(&self, model: &Model<L>, path: &Path, digest: &str) -> Result<()> {
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
