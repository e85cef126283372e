//! `centroid evaluate`

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use centroid::data::{Columns, Example, Scores, read};
use centroid::{Artifact, ImageClassifier, ModelKind, TextClassifier};
use clap::Args;
use serde::Serialize;

use super::Failure;
use super::options::{ModelArgs, note_cut};
use super::output::{Out, one_line};
use super::progress::Progress;

/// Labels up to which all are shown, with a confusion matrix.
const FEW: usize = 50;
/// The same of JSON: a square of numbers, each on its line.
const MANY: usize = 1000;

/// Texts of a call: enough for the classifier to sort them by length.
const CALL: usize = 512;

/// Score a classifier on labelled texts or images
///
/// Reads a .tsv, .csv or .jsonl file with named columns (images by their paths, relative to the file), asks
/// this runtime (and nothing else) for the best label of each text or image, and prints accuracy with its
/// standard error, macro-F1, the share of the most frequent label, scores of each label, and the confusion
/// matrix; of more than 50 labels those that are in the data or among the answers, and a matrix if these are at
/// most 50 (with `--json`: 1000). With `--json`: {"file", "data", "mode", "kernel", "n", "truncated", "accuracy", "standard_error", "macro_f1",
/// "majority": {"label", "share"}, "labels": [{"label", "n", "answers", "precision", "recall", "f1"},
/// ...], "confusion": [[..], ..] with a row a label of the data and a column an answer, both in the order of
/// "labels", or null, "others": how many labels are left out}.
///
/// A label that the model does not have, a text with too many tokens, a file that is no picture, and a line that
/// cannot be read are errors that name the line.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid evaluate sentiment.centroid reviews.tsv --text sentence --label label\n  \
    centroid evaluate nli.centroid dev.jsonl --text premise --text-b hypothesis --label gold --json\n  \
    centroid evaluate clothes.centroid test.tsv --image file --label label")]
pub struct Evaluate {
    /// The `.centroid` file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The labelled texts or images: a .tsv, .csv, .jsonl or .ndjson file
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// The column of the text
    #[arg(long, value_name = "COLUMN", required_unless_present = "image")]
    text: Option<String>,
    /// The column of the second text, where examples are pairs
    #[arg(long, value_name = "COLUMN")]
    text_b: Option<String>,
    /// The column of the picture's path: JPEG, PNG or WebP
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["text", "text_b"])]
    image: Option<String>,
    /// The column of the label
    #[arg(long, value_name = "COLUMN")]
    label: String,
    #[command(flatten)]
    model: ModelArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    data: String,
    mode: &'static str,
    kernel: &'static str,
    n: u64,
    truncated: usize,
    accuracy: f64,
    standard_error: f64,
    macro_f1: f64,
    majority: Majority<'a>,
    labels: Vec<Label<'a>>,
    confusion: Option<Vec<Vec<u64>>>,
    /// Labels that are neither in the data nor among the answers, and not among `labels`.
    others: usize,
}

#[derive(Serialize)]
struct Majority<'a> {
    label: &'a str,
    share: f64,
}

#[derive(Serialize)]
struct Label<'a> {
    label: &'a str,
    n: u64,
    answers: u64,
    precision: f64,
    recall: f64,
    f1: f64,
}

impl Evaluate {
    pub fn run(self) -> Result<(), Failure> {
        let artifact = Artifact::open(&self.file)?;
        let images = artifact.kind()? == ModelKind::EfficientNet;
        match (images, &self.image) {
            (true, Some(column)) => return self.images(artifact, column),
            (true, None) => {
                return Err(Failure::Usage(
                    "a model of images: --image names the column of their paths".into(),
                ));
            }
            (false, Some(_)) => {
                let message = "--image is for models of images, and this is one of texts";
                return Err(Failure::Usage(message.into()));
            }
            (false, None) => {}
        }
        let info = artifact.encoder()?;
        let model = TextClassifier::new(artifact, self.model.options())?;
        // A single output is a number, not a label.
        if info.problem != Some("single_label_classification") || model.labels().len() < 2 {
            let problem = info.problem.unwrap_or("embedding");
            let file = self.file.display();
            return Err(Failure::Failed(format!(
                "{file}: the model does not choose one label of several (its problem type is {problem})"
            )));
        }
        self.distinct(model.labels())?;
        let columns = Columns {
            text: self.text.as_deref().unwrap_or_default(),
            text_b: self.text_b.as_deref(),
            label: Some(&self.label),
        };
        let examples = read(&self.data, &columns)?;
        let mut scores = Scores::new(model.labels());
        let truncated = self.score(&model, &examples, &mut scores)?;
        note_cut(truncated, model.max_length());
        self.tell(&self.report(model.isa(), &scores, truncated))
    }

    /// The name of a label has to say which one it is.
    fn distinct(&self, labels: &[String]) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        match labels.iter().find(|label| !seen.insert(*label)) {
            None => Ok(()),
            Some(twice) => Err(Failure::Failed(format!(
                "{}: two labels are {twice:?}: which of them is right, data cannot say",
                self.file.display()
            ))),
        }
    }

    fn tell(&self, report: &Report) -> Result<(), Failure> {
        let mut out = Out::new();
        if self.json {
            out.json(report)?;
        } else {
            print(report, &mut out)?;
        }
        out.flush()
    }

    /// Scores a network on pictures in files.
    fn images(&self, artifact: Artifact, column: &str) -> Result<(), Failure> {
        if let Some(flag) = self.model.of_texts() {
            return Err(Failure::Usage(format!("{flag} is for models of texts")));
        }
        let model = ImageClassifier::new(artifact, self.model.options())?;
        if model.labels().len() < 2 {
            let file = self.file.display();
            return Err(Failure::Failed(format!(
                "{file}: the model does not choose one label of several"
            )));
        }
        self.distinct(model.labels())?;
        let columns = Columns {
            text: column,
            text_b: None,
            label: Some(&self.label),
        };
        let examples = read(&self.data, &columns)?;
        let mut scores = Scores::new(model.labels());
        let labels = self.labels(&examples, &scores)?;
        let directory = self.data.parent().unwrap_or(Path::new(""));
        let progress = Progress::new(examples.len() as u64);
        for (example, label) in examples.iter().zip(labels) {
            let answer = model.classify(&[directory.join(&example.text)]);
            let answer = answer.map_err(|error| self.on(example.line, &error.to_string()))?;
            scores.add(label, answer[0].labels[0].index);
            progress.add(1);
        }
        progress.finish();
        self.tell(&self.report(model.isa(), &scores, 0))
    }

    fn on(&self, line: u64, message: &str) -> Failure {
        Failure::Failed(format!("{}: line {line}: {message}", self.data.display()))
    }

    /// The numbers of all labels, before anything is answered: a wrong one in the last line should not cost the
    /// time of all others.
    fn labels(&self, examples: &[Example], scores: &Scores) -> Result<Vec<usize>, Failure> {
        let number = |example: &Example| {
            let label = scores.label(&example.label);
            label.map_err(|error| self.on(example.line, error.message()))
        };
        examples.iter().map(number).collect()
    }

    /// Counts the answers to all examples; returns how many of them were cut.
    fn score(
        &self,
        model: &TextClassifier,
        examples: &[Example],
        scores: &mut Scores,
    ) -> Result<usize, Failure> {
        let labels = self.labels(examples, scores)?;
        let progress = Progress::new(examples.len() as u64);
        let mut truncated = 0;
        for (examples, labels) in examples.chunks(CALL).zip(labels.chunks(CALL)) {
            let answers = match self.text_b {
                Some(_) => {
                    let second = examples.iter().filter_map(|e| e.text_b.as_deref());
                    let pairs = examples.iter().map(|e| &*e.text).zip(second);
                    model.classify_pairs(&pairs.collect::<Vec<_>>())
                }
                None => {
                    let texts: Vec<&str> = examples.iter().map(|e| &*e.text).collect();
                    model.classify(&texts)
                }
            };
            let answers = answers.map_err(|error| match error.text() {
                Some(text) => self.on(examples[text].line, error.message()),
                None => error.into(),
            })?;
            for (answer, &label) in answers.iter().zip(labels) {
                scores.add(label, answer.labels[0].index);
                truncated += usize::from(answer.truncated);
            }
            progress.add(examples.len() as u64);
        }
        progress.finish();
        Ok(truncated)
    }

    fn report<'a>(&self, kernel: &'static str, scores: &'a Scores, truncated: usize) -> Report<'a> {
        let (label, share) = scores.majority();
        let all = scores.labels().len();
        // Of a thousand labels most may be neither in the data nor among the answers.
        let seen = |number: &usize| {
            let of = scores.of(*number);
            all <= FEW || of.examples > 0 || of.answers > 0
        };
        let shown: Vec<usize> = (0..all).filter(seen).collect();
        let most = if self.json { MANY } else { FEW };
        let labels = shown.iter().map(|&number| {
            let of = scores.of(number);
            Label {
                label: &scores.labels()[number],
                n: of.examples,
                answers: of.answers,
                precision: of.precision,
                recall: of.recall,
                f1: of.f1,
            }
        });
        Report {
            file: self.file.display().to_string(),
            data: self.data.display().to_string(),
            mode: self.model.mode.name(),
            kernel,
            n: scores.examples(),
            truncated,
            accuracy: scores.accuracy(),
            standard_error: scores.standard_error(),
            macro_f1: scores.macro_f1(),
            majority: Majority { label, share },
            labels: labels.collect(),
            confusion: (shown.len() <= most).then(|| scores.confusion(&shown)),
            others: all - shown.len(),
        }
    }
}

fn print(report: &Report, out: &mut Out) -> Result<(), Failure> {
    let (file, data) = (one_line(&report.file), one_line(&report.data));
    out.line(format_args!("{file} on {data}"))?;
    out.line(format_args!(
        "accuracy {:.2} % (standard error {:.2}), macro-F1 {:.2} %, {} examples, {} mode, {} kernels",
        100.0 * report.accuracy,
        100.0 * report.standard_error,
        100.0 * report.macro_f1,
        report.n,
        report.mode,
        report.kernel,
    ))?;
    out.line(format_args!(
        "always answering {:?} scores {:.2} %",
        report.majority.label,
        100.0 * report.majority.share
    ))?;
    let names: Vec<String> = report.labels.iter().map(|l| one_line(l.label)).collect();
    let width = names.iter().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0).max("label".len());
    out.line(format_args!(
        "\n{:width$}  {:>7}  {:>9}  {:>7}  {:>7}",
        "label", "n", "precision", "recall", "F1"
    ))?;
    for (name, label) in names.iter().zip(&report.labels) {
        out.line(format_args!(
            "{name:width$}  {:>7}  {:>7.2} %  {:>5.2} %  {:>5.2} %",
            label.n,
            100.0 * label.precision,
            100.0 * label.recall,
            100.0 * label.f1
        ))?;
    }
    if report.others > 0 {
        let others = report.others;
        out.line(format_args!(
            "{others} labels are neither in the data nor among the answers"
        ))?;
    }
    let Some(confusion) = &report.confusion else {
        return Ok(());
    };
    out.line(format_args!(
        "\nlabel (a row each) and answer (a column each, in the same order)"
    ))?;
    for (name, counts) in names.iter().zip(confusion) {
        let counts: Vec<String> = counts.iter().map(|count| format!("{count:>7}")).collect();
        out.line(format_args!("{name:width$}  {}", counts.join("")))?;
    }
    Ok(())
}
