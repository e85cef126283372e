//! The end of a run: the artifact is written, and measured with the runtime.

use serde_json::json;

use super::recipe::Recipe;
use super::run::{Finished, Metric, SCORED, Watch};
use super::runtime::Runtime;
use super::setup::{Run, remove};
use crate::artifact::write_file;
use crate::data::Scores;
use crate::error::{ErrorKind, Result};

/// What the runtime makes of the test texts, in the modes `int8` and `exact`.
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
                "{} texts; accuracy {:.4} (int8), {:.4} (exact); always the same answer: {:.4}",
                int8.examples(),
                int8.accuracy(),
                exact.accuracy(),
                int8.majority().1
            ),
            Tested::Embedder { int8, exact, texts } => format!(
                "{texts} texts; mean cosine to the teacher {int8:.4} (int8), {exact:.4} (exact)"
            ),
        }
    }
}

impl Run<'_> {
    /// Writes the artifact, and measures it with the runtime.
    pub(super) fn finish(self, watch: &mut Watch<'_>) -> Result<Box<Finished>> {
        let mut checkpoint = None;
        let shares = self.recipe.share > 1;
        if let Some(values) = self.model.weights.values()
            && !shares
            && self.metric() == Metric::Accuracy
        {
            self.model.base.save(&watch.paths.checkpoint, &values)?;
            checkpoint = Some(watch.paths.checkpoint.clone());
        }
        let answers = self.model.answers(&self.validation, SCORED)?;
        let trained = self.model.weights.trained()?;
        let provenance = vec![
            ("training".into(), summary(self.recipe)),
            ("training_recipe_sha256".into(), self.recipe.digest.clone()),
            ("training_data_sha256".into(), self.data_digest.clone()),
        ];
        let metric = self.metric();
        let mut conversion = self.model.base.finish(trained, provenance);
        let (bytes, _) = conversion.to_bytes(&|_| ())?;
        let runtime = Runtime {
            bytes,
            limit: self.limit,
        };
        let difference = runtime.difference(metric, &self.validation, &answers)?;
        let (tested, lines) = match &self.taught {
            Some(taught) if metric == Metric::Cosine => runtime.embed(&self.test, &taught.test)?,
            _ => runtime.classify(&self.test)?,
        };
        write_file(&watch.paths.answers, &lines, true)?;
        if !self.test.is_empty() {
            conversion.add_provenance("test", tested.summary());
        }
        let written = conversion.write(&watch.paths.artifact, true, &|_| ())?;
        for ((mode, measured), difference) in tested.measured().into_iter().zip(difference) {
            let mut line = json!({"event": "test", "mode": mode, "n": self.test.len(),
                "largest_difference": difference, "file_bytes": written.file_bytes,
                "weight_bytes": written.weight_bytes});
            for (name, value) in measured {
                line[name] = json!(value);
            }
            watch.log.line(&line)?;
            watch.note(&format!(
                "{mode}: the runtime differs from torch by at most {difference:.4} on the validation texts"
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
            tested,
            checkpoint,
        }))
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
        if stage.int8 {
            parts.push("int8".into());
        }
        format!("{}: {}", stage.name, parts.join(", "))
    });
    stages.collect::<Vec<_>>().join("; ")
}
