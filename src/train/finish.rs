//! The end of a run: the artifact is written, and measured with the runtime.

use serde_json::json;

use super::learner::Learner;
use super::pass::Pass;
use super::recipe::Stage;
use super::run::{Finished, Metric, SCORED, Watch};
use super::setup::{Run, names, remove};
use crate::artifact::{Scheme, write_file};
use crate::convert::trained;
use crate::data::Scores;
use crate::error::{Error, ErrorKind, Result};

/// What the runtime makes of the test examples, in the modes `int8` and `exact`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Tested {
    /// Of a classifier.
    Classifier {
        /// Answers in the mode `int8`.
        int8: Scores,
        /// Answers in the mode `exact`.
        exact: Scores,
    },
    /// Of a classifier that learnt from a teacher alone: the share of answers that are the teacher's.
    Student {
        /// In the mode `int8`.
        int8: f64,
        /// In the mode `exact`.
        exact: f64,
        /// Test examples.
        examples: usize,
    },
    /// Of an embedding model: the mean cosine to the teacher's vectors.
    Embedder {
        /// In the mode `int8`.
        int8: f64,
        /// In the mode `exact`.
        exact: f64,
        /// Test texts.
        texts: usize,
    },
}

impl Tested {
    /// Names and values for the log, by mode.
    fn measured(&self) -> [(&'static str, Vec<(&'static str, f64)>); 2] {
        let of_scores = |scores: &Scores| {
            vec![
                ("accuracy", scores.accuracy()),
                ("macro_f1", scores.macro_f1()),
                ("majority", scores.majority().1),
            ]
        };
        let (int8, exact) = match self {
            Tested::Classifier { int8, exact } => (of_scores(int8), of_scores(exact)),
            Tested::Student { int8, exact, .. } => {
                (vec![("agreement", *int8)], vec![("agreement", *exact)])
            }
            Tested::Embedder { int8, exact, .. } => {
                (vec![("cosine", *int8)], vec![("cosine", *exact)])
            }
        };
        [("int8", int8), ("exact", exact)]
    }

    /// In a sentence.
    fn summary(&self) -> String {
        match self {
            Tested::Classifier { int8, exact } => format!(
                "{} examples; accuracy {:.4} (int8), {:.4} (exact); always the same answer: {:.4}",
                int8.examples(),
                int8.accuracy(),
                exact.accuracy(),
                int8.majority().1
            ),
            Tested::Student {
                int8,
                exact,
                examples,
            } => format!(
                "{examples} examples; the teacher's answer for {:.4} of them (int8), {:.4} (exact)",
                int8, exact
            ),
            Tested::Embedder { int8, exact, texts } => format!(
                "{texts} texts; mean cosine to the teacher {int8:.4} (int8), {exact:.4} (exact)"
            ),
        }
    }
}

/// What the runtime makes of a run's model.
pub(super) struct Measured {
    /// The largest difference of a value of an answer from torch's, in the modes `int8` and `exact`; none if
    /// there was nothing to compare.
    pub(super) difference: Option<[f32; 2]>,
    pub(super) tested: Tested,
    /// A line of JSON for each test example.
    pub(super) lines: Vec<u8>,
}

impl<L: Learner> Run<'_, L> {
    /// Writes the artifact, and measures it with the runtime.
    pub(super) fn finish(mut self, watch: &mut Watch<'_>) -> Result<Box<Finished>> {
        self.model.weights.fold();
        let mut checkpoint = None;
        if let Some(values) = self.model.weights.values()
            && self.metric() == Metric::Accuracy
            && self.model.base.save(&watch.paths.checkpoint, &values)?
        {
            checkpoint = Some(watch.paths.checkpoint.clone());
        } else {
            // Of an earlier run.
            trained::remove(&watch.paths.checkpoint)?;
        }
        // As the file will have it.
        let weights = &mut self.model.weights;
        let integers = |name: &&str| weights.plan(name).scheme != Scheme::Pq;
        let integers: Vec<String> = (weights.to_quantize(None).filter(integers))
            .map(str::to_owned)
            .collect();
        weights.set_rounded(&integers, true);
        let broken = || {
            let message = "the trained model's answers are not finite";
            Error::new(ErrorKind::Input, message)
        };
        let answers = |int8: bool| {
            let pass = Pass {
                int8,
                ..self.model.pass()
            };
            (self.model).answers(&pass, &self.validation, SCORED, &broken)
        };
        let answers = [answers(true)?, answers(false)?];
        let trained = self.model.weights.trained()?;
        let provenance = vec![
            ("training".into(), self.summary()),
            ("training_recipe_sha256".into(), self.recipe.digest.clone()),
            ("training_data_sha256".into(), self.data_digest.clone()),
        ];
        self.model.base.finish(trained, provenance);
        let (bytes, _) = self.model.base.conversion().to_bytes(&|_| ())?;
        let Measured {
            difference,
            tested,
            lines,
        } = L::measure(&self, bytes, &answers)?;
        write_file(&watch.paths.answers, &lines, true)?;
        let conversion = self.model.base.conversion_mut();
        let tests = !self.test.is_empty();
        if tests {
            let cut = self.cut.as_ref().map(|cut| format!("; {cut}"));
            conversion.add_provenance("test", tested.summary() + &cut.unwrap_or_default());
        }
        let written = conversion.write(&watch.paths.artifact, true, &|_| ())?;
        for (number, (mode, measured)) in tested.measured().into_iter().enumerate() {
            let difference = difference.map(|of_modes| of_modes[number]);
            let mut line = json!({"event": "test", "mode": mode, "n": self.test.len(),
                "largest_difference": difference, "file_bytes": written.file_bytes,
                "weight_bytes": written.weight_bytes});
            for (name, value) in measured {
                line[name] = json!(tests.then_some(value));
            }
            watch.log.line(&line)?;
            if let Some(difference) = difference {
                watch.note(&format!(
                    "{mode}: the runtime differs from torch by at most {difference:.4} on the {} validation \
                     examples",
                    self.validation.len()
                ));
            }
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
            tested,
            checkpoint,
        }))
    }

    /// The stages in a line, and what became of them.
    fn summary(&self) -> String {
        let recipe = self.recipe;
        let stages = recipe.stages.iter().zip(&self.done).map(|(stage, stint)| {
            let mut parts = vec![match stint.epochs < stage.epochs {
                true => format!("{} of {} epochs", stint.epochs, stage.epochs),
                false => format!("{} epochs", stage.epochs),
            }];
            if stint.kept < stint.epochs {
                parts.push(format!("the weights of epoch {}", stint.kept));
            }
            if let Some(noise) = &stage.noise {
                parts.push(format!("noise {:?} {:?}", noise.form, noise.rate).to_lowercase());
            }
            if !stage.quantize.is_empty() {
                let of = stage.quantize.join(" ");
                parts.push(match (self.gives_codes(stage), stage.calibrate) {
                    (false, _) => format!("{of} as stored"),
                    (true, Some(examples)) => format!("codes for {of}, calibrated on {examples}"),
                    (true, None) => format!("codes for {of}"),
                });
            }
            if stage.reassign.is_some() {
                parts.push("reassigned".into());
            }
            if stage.layer_drop > 0.0 {
                parts.push(format!("layers dropped {}", stage.layer_drop));
            }
            if stage.distill.is_some() {
                parts.push("distilled".into());
            }
            if stage.int8 {
                parts.push("int8".into());
            }
            format!("{}: {}", stage.name, parts.join(", "))
        });
        let mut all: Vec<String> = stages.collect();
        if recipe.share > 1 {
            all.insert(0, format!("{} layers share weights", recipe.share));
        }
        if let Some(layers) = &recipe.layers {
            let layers: Vec<String> = layers.iter().map(usize::to_string).collect();
            all.insert(0, format!("layers {}", layers.join(" ")));
        }
        all.join("; ")
    }

    /// Whether one of the tensors that a stage quantizes has codes by the plan.
    fn gives_codes(&self, stage: &Stage) -> bool {
        let mut planned = self.model.base.planned().iter();
        planned.any(|tensor| {
            tensor.plan.scheme == Scheme::Pq
                && stage.quantize.iter().any(|part| names(part, tensor))
        })
    }
}
