//! Right and wrong answers, counted.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

/// Labels that an error names.
const NAMED: usize = 20;

/// How often which label was answered to examples of which label.
#[derive(Debug, Clone)]
pub struct Scores {
    labels: Vec<String>,
    /// By the labels' numbers, of an example and its answer: of thousands of labels few pairs are there.
    counts: BTreeMap<(usize, usize), u64>,
    /// Of each label, its examples and the answers that it was.
    sums: Vec<[u64; 2]>,
}

/// What [`Scores`] say about a label. A share of nothing is 0.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LabelScores {
    /// Examples that have the label.
    pub examples: u64,
    /// Examples that it was the answer to.
    pub answers: u64,
    /// Share of those answers that are right.
    pub precision: f64,
    /// Share of those examples whose answer it was.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl Scores {
    /// For answers that are one of `labels`; nothing is counted yet.
    pub fn new(labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        Self {
            counts: BTreeMap::new(),
            sums: vec![[0; 2]; labels.len()],
            labels,
        }
    }

    /// The number of a label.
    ///
    /// # Errors
    /// [`ErrorKind::Input`], with labels that there are.
    pub fn label(&self, label: &str) -> Result<usize> {
        self.labels.iter().position(|l| l == label).ok_or_else(|| {
            let some = self.labels.iter().take(NAMED).map(|l| format!("{l:?}"));
            let some = some.collect::<Vec<_>>().join(", ");
            let more = match self.labels.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} others"),
            };
            let message = format!("label {label:?} is unknown; there are: {some}{more}");
            Error::new(ErrorKind::Input, message)
        })
    }

    /// Counts an example of label number `example` with the answer number `answer`.
    ///
    /// # Panics
    /// If there is no label of such a number.
    pub fn add(&mut self, example: usize, answer: usize) {
        self.sums[example][0] += 1;
        self.sums[answer][1] += 1;
        *self.counts.entry((example, answer)).or_insert(0) += 1;
    }

    /// The labels, in the order of their numbers.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The confusion matrix of some labels, by their numbers: `[labels of examples][labels of answers]`.
    pub fn confusion(&self, labels: &[usize]) -> Vec<Vec<u64>> {
        let row = |&example: &usize| {
            let columns = labels.iter();
            columns.map(|&answer| self.count(example, answer)).collect()
        };
        labels.iter().map(row).collect()
    }

    fn count(&self, example: usize, answer: usize) -> u64 {
        self.counts.get(&(example, answer)).copied().unwrap_or(0)
    }

    /// How many examples were counted.
    pub fn examples(&self) -> u64 {
        self.sums.iter().map(|[examples, _]| examples).sum()
    }

    /// The share of right answers.
    pub fn accuracy(&self) -> f64 {
        let right = (0..self.labels.len()).map(|l| self.count(l, l)).sum();
        share(right, self.examples())
    }

    /// The standard error of [`accuracy`](Self::accuracy), of a sample as large as this:
    /// sqrt(a (1 - a) / n).
    pub fn standard_error(&self) -> f64 {
        let accuracy = self.accuracy();
        (accuracy * (1.0 - accuracy) / self.examples().max(1) as f64).sqrt()
    }

    /// The mean F1 of the labels that examples have or that were answers, as scikit-learn counts it.
    pub fn macro_f1(&self) -> f64 {
        let scores = (0..self.labels.len()).map(|label| self.of(label));
        let seen: Vec<f64> = scores
            .filter(|scores| scores.examples + scores.answers > 0)
            .map(|scores| scores.f1)
            .collect();
        seen.iter().sum::<f64>() / seen.len().max(1) as f64
    }

    /// The label that most examples have, the first one of several, and the share of them that has it: what
    /// an answer that is always the same would score.
    pub fn majority(&self) -> (&str, f64) {
        let size = |label: &usize| self.sums[*label][0];
        // Of equal ones, `max_by_key` takes the last.
        match (0..self.labels.len()).rev().max_by_key(size) {
            Some(label) => (&self.labels[label], share(size(&label), self.examples())),
            None => ("", 0.0),
        }
    }

    /// What there is to say about label number `label`.
    ///
    /// # Panics
    /// If there is no label of such a number.
    pub fn of(&self, label: usize) -> LabelScores {
        let right = self.count(label, label);
        let [examples, answers] = self.sums[label];
        LabelScores {
            examples,
            answers,
            precision: share(right, answers),
            recall: share(right, examples),
            f1: share(2 * right, examples + answers),
        }
    }
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against scikit-learn's `classification_report`, for true labels 0 0 0 1 1 2 and answers 0 1 0 1 1 1
    /// out of four labels.
    #[test]
    fn numbers_are_those_of_scikit_learn() {
        let mut scores = Scores::new(["a", "b", "c", "d"]);
        for (example, answer) in [(0, 0), (0, 1), (0, 0), (1, 1), (1, 1), (2, 1)] {
            scores.add(example, answer);
        }
        assert_eq!(scores.examples(), 6);
        assert!((scores.accuracy() - 4.0 / 6.0).abs() < 1e-12);
        assert!((scores.standard_error() - 0.192_450_089_7).abs() < 1e-9);
        // (0.8 + 2/3 + 0) / 3: nobody has or says "d".
        assert!((scores.macro_f1() - 0.488_888_888_9).abs() < 1e-9);
        assert_eq!(scores.majority(), ("a", 0.5));
        let b = scores.of(1);
        assert_eq!((b.examples, b.answers), (2, 4));
        assert_eq!((b.precision, b.recall), (0.5, 1.0));
        assert!((b.f1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(scores.of(2).precision, 0.0);
        assert_eq!(
            scores.confusion(&[0, 1, 3]),
            [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
        );
        assert_eq!(scores.label("c").unwrap(), 2);
        let error = scores.label("e").unwrap_err().to_string();
        assert!(
            error.contains("\"e\" is unknown") && error.contains("\"d\""),
            "{error}"
        );
    }

    /// A square of them would take 32 GB.
    #[test]
    fn many_labels_take_little() {
        let mut scores = Scores::new((0..1 << 16).map(|i| i.to_string()));
        scores.add(65_535, 0);
        scores.add(7, 7);
        assert_eq!((scores.examples(), scores.accuracy()), (2, 0.5));
        assert_eq!(scores.confusion(&[7, 65_535]), [[1, 0], [0, 0]]);
        let error = scores.label("x").unwrap_err().to_string();
        assert!(error.ends_with("\"19\" and 65516 others"), "{error}");
    }

    #[test]
    fn nothing_counted_is_nothing_right() {
        let scores = Scores::new(["a", "b"]);
        assert_eq!((scores.accuracy(), scores.macro_f1()), (0.0, 0.0));
        assert_eq!(
            (scores.majority(), scores.standard_error()),
            (("a", 0.0), 0.0)
        );
        assert_eq!(Scores::new(Vec::<String>::new()).majority(), ("", 0.0));
    }

    #[test]
    fn of_equal_labels_the_first_is_the_majority() {
        let mut scores = Scores::new(["a", "b", "c"]);
        for label in [2, 1] {
            scores.add(label, 0);
        }
        assert_eq!(scores.majority(), ("b", 0.5));
    }
}
