//! `centroid train`

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use centroid::data::Scores;
use centroid::train::{Event, Finished, Outcome, Recipe, Start, Tested, plot, run};
use clap::Args;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::output::{Out, one_line, size};
use super::training::Training;
use super::{Failure, note};

/// Train a model with quantization noise and write it as a `.centroid` file
///
/// Does what a TOML file says: which checkpoint or network, which texts or images (with labels for a
/// classifier; without, it learns from a teacher), which stages. Prints the plan
/// before it starts, writes everything into the file's `output` directory, and scores the result on the
/// test examples with this runtime. Ctrl-C (or SIGTERM) stops after the step in work; `--resume` goes on from
/// there with the same result as if nothing had happened.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid train run.toml\n  \
    centroid train run.toml --resume\n  \
    centroid train --plot runs/movie/log.jsonl")]
pub struct Train {
    /// The run's file
    #[arg(value_name = "RUN.toml", required_unless_present = "plot")]
    file: Option<PathBuf>,
    /// Go on where the run was stopped
    #[arg(long, conflicts_with_all = ["force", "plot"])]
    resume: bool,
    /// Start anew, whatever is in the output directory
    #[arg(long, conflicts_with = "plot")]
    force: bool,
    /// Train on this device, whatever the file says: cpu, cuda or cuda:N
    #[arg(long, conflicts_with = "plot")]
    device: Option<String>,
    /// Draw the log of a run so far (log.jsonl) as an SVG beside it, and do nothing else
    #[arg(long, value_name = "LOG", conflicts_with = "file")]
    plot: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "plot")]
    json: bool,
}

#[derive(Serialize)]
struct Summary {
    file: String,
    file_bytes: u64,
    weight_bytes: u64,
    compression_ratio: f64,
    checkpoint: Option<String>,
    n: u64,
    /// Of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    majority: Option<f64>,
    /// None without test examples.
    int8: Option<Measured>,
    exact: Option<Measured>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Measured {
    Classifier {
        accuracy: f64,
        standard_error: f64,
        macro_f1: f64,
    },
    Student {
        agreement: f64,
    },
    Embedder {
        cosine: f64,
    },
}

impl From<&Scores> for Measured {
    fn from(scores: &Scores) -> Self {
        Self::Classifier {
            accuracy: scores.accuracy(),
            standard_error: scores.standard_error(),
            macro_f1: scores.macro_f1(),
        }
    }
}

/// How good, on how many texts: after the mode's name.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classifier {
                accuracy,
                standard_error,
                macro_f1,
            } => write!(
                f,
                "accuracy {:.2} % ± {:.2} (standard error), macro-F1 {macro_f1:.4}",
                100.0 * accuracy,
                100.0 * standard_error
            ),
            Self::Student { agreement } => {
                write!(f, "the teacher's answer for {:.2} %", 100.0 * agreement)
            }
            Self::Embedder { cosine } => write!(f, "mean cosine to the teacher {cosine:.4}"),
        }
    }
}

impl Train {
    pub fn run(self) -> Result<(), Failure> {
        if let Some(log) = &self.plot {
            let picture = log.with_extension("svg");
            if picture == *log {
                let message = format!("{}: is where the picture is to be", log.display());
                return Err(Failure::Failed(message));
            }
            plot(log, &picture)?;
            note(format_args!(
                "wrote {}",
                one_line(&picture.display().to_string())
            ));
            return Ok(());
        }
        let Some(file) = &self.file else {
            return Err(Failure::Usage("RUN.toml is missing".into()));
        };
        let mut recipe = Recipe::read(file)?;
        if let Some(device) = &self.device {
            recipe.device.clone_from(device);
        }
        let start = match (self.resume, self.force) {
            (true, _) => Start::Resume,
            (_, true) => Start::Overwrite,
            _ => Start::New,
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Whoever insists does not wait for the step to end.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
                .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                .map_err(|e| Failure::Failed(format!("signals cannot be handled: {e}")))?;
        }
        let mut training = Training::default();
        let outcome = run(&recipe, start, &stop, &mut |event| match event {
            Event::Plan(plan) => {
                for tensor in plan {
                    note(format_args!("{}", one_line(&tensor.to_string())));
                }
            }
            Event::Note(text) => training.line(&one_line(text)),
            Event::Validation {
                stage,
                epoch,
                metric,
                score,
                divergence,
            } => training.validated((stage, epoch), (metric, score), divergence),
            Event::Step {
                stage,
                step,
                steps,
                loss,
            } => training.step(stage, step, steps, loss),
            _ => {}
        });
        training.finish();
        match outcome? {
            Outcome::Finished(finished) => self.print(&finished),
            _ => Err(Failure::Failed(format!(
                "stopped; the state is saved in {}: --resume goes on",
                recipe.output.display()
            ))),
        }
    }

    fn print(&self, finished: &Finished) -> Result<(), Failure> {
        let report = &finished.report;
        let (n, majority, int8, exact) = match &finished.tested {
            Tested::Student {
                int8,
                exact,
                examples,
            } => {
                let measured = |agreement: f64| Measured::Student { agreement };
                (*examples as u64, None, measured(*int8), measured(*exact))
            }
            Tested::Embedder { int8, exact, texts } => {
                let [int8, exact] = [*int8, *exact].map(|cosine| Measured::Embedder { cosine });
                (*texts as u64, None, int8, exact)
            }
            Tested::Classifier { int8, exact } => {
                let majority = Some(int8.majority().1);
                (int8.examples(), majority, int8.into(), exact.into())
            }
            _ => return Err(Failure::Failed("tested in an unknown way".into())),
        };
        let summary = Summary {
            file: finished.artifact.display().to_string(),
            file_bytes: report.file_bytes,
            weight_bytes: report.weight_bytes,
            compression_ratio: report.compression_ratio(),
            checkpoint: finished
                .checkpoint
                .as_ref()
                .map(|path| path.display().to_string()),
            n,
            majority: majority.filter(|_| n > 0),
            int8: (n > 0).then_some(int8),
            exact: (n > 0).then_some(exact),
        };
        let mut out = Out::new();
        if self.json {
            out.json(&summary)?;
            return out.flush();
        }
        for (mode, measured) in [("int8", &summary.int8), ("exact", &summary.exact)] {
            if let Some(measured) = measured {
                out.line(format_args!("{mode}: {measured}, on {n} test examples"))?;
            }
        }
        if let Some(majority) = summary.majority {
            let percent = 100.0 * majority;
            out.line(format_args!("always the same answer: {percent:.2} %"))?;
        }
        if let Some(checkpoint) = &summary.checkpoint {
            out.line(format_args!("weights: {}", one_line(checkpoint)))?;
        }
        out.line(format_args!(
            "wrote {}: {}, weights {} ({:.1}x below f32)",
            one_line(&summary.file),
            size(report.file_bytes),
            size(report.weight_bytes),
            summary.compression_ratio
        ))?;
        out.flush()
    }
}
