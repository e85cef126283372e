//! How far training is: a bar with the loss and the last validation on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use centroid::train::Metric;
use indicatif::{ProgressBar, ProgressStyle};

use super::note;

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(10);
/// The weight of a step in the loss that is shown.
const SMOOTH: f64 = 0.05;

#[derive(Default)]
pub struct Training {
    bar: Option<ProgressBar>,
    /// When the first step ended and which it was; when the last line was printed.
    start: Option<(Instant, usize)>,
    shown: Option<Instant>,
    loss: Option<f64>,
    /// The last validation, in words.
    validation: Option<String>,
}

impl Training {
    pub fn step(&mut self, stage: &str, step: usize, steps: usize, loss: f64) {
        let smooth = self
            .loss
            .map_or(loss, |before| before + SMOOTH * (loss - before));
        self.loss = Some(smooth);
        let (start, first) = *self.start.get_or_insert((Instant::now(), step));
        let validation = match &self.validation {
            Some(validation) => format!(", {validation}"),
            None => String::new(),
        };
        let message = format!("{stage}: loss {smooth:.4}{validation}");
        if stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(steps as u64);
                let template = "{bar:30} {pos}/{len}  {eta} left  {msg}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_position(step as u64);
                bar.reset_eta();
                bar
            });
            bar.set_message(message);
            bar.set_position(step as u64);
        } else if self.shown.is_none_or(|shown| shown.elapsed() >= PAUSE) {
            self.shown = Some(Instant::now());
            let left = match step - first {
                0 => String::new(),
                done => {
                    let each = start.elapsed().as_secs_f64() / done as f64;
                    format!(", {:.0} s left", each * (steps - step) as f64)
                }
            };
            note(format_args!("step {step} of {steps}: {message}{left}"));
        }
    }

    /// After an epoch: a score, and how far answers are from the teacher's.
    pub fn validated(
        &mut self,
        (stage, epoch): (&str, usize),
        (metric, score): (Metric, f64),
        divergence: Option<f64>,
    ) {
        let score = match metric {
            Metric::Accuracy => format!("accuracy {:.2} %", 100.0 * score),
            Metric::Agreement => format!("{:.2} % as the teacher", 100.0 * score),
            Metric::Cosine => format!("mean cosine {score:.4}"),
        };
        let from_teacher = match divergence {
            Some(divergence) => format!(", {divergence:.4} nats from the teacher"),
            None => String::new(),
        };
        self.line(&format!(
            "{stage}, epoch {epoch}: validation {score}{from_teacher}"
        ));
        self.validation = Some(score);
    }

    pub fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(format_args!("{line}"))),
            None => note(format_args!("{line}")),
        }
    }

    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
