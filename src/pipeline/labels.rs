//! From logits to labels with scores.

use crate::models::encoder::Problem;

/// One label of a text or an image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its number, from 0, in the order of the model's logits.
    pub index: usize,
    /// The softmax of the logits; the sigmoid of the logit where several labels may apply; the logit itself of a
    /// regression, and where a softmax would be of one label alone.
    pub score: f32,
    /// The model's raw output.
    pub logit: f32,
}

/// Every label, the best score first; equal scores stay in the order of the logits.
pub(super) fn best_first(names: &[String], problem: Problem, logits: &[f32]) -> Vec<LabelScore> {
    let scores = scores(problem, logits);
    let mut labels: Vec<LabelScore> = (names.iter().zip(logits).zip(scores))
        .enumerate()
        .map(|(index, ((label, &logit), score))| LabelScore {
            label: label.clone(),
            index,
            score,
            logit,
        })
        .collect();
    labels.sort_by(|a, b| b.score.total_cmp(&a.score));
    labels
}

/// In `f64`, rounded once at the end.
fn scores(problem: Problem, logits: &[f32]) -> Vec<f32> {
    let logits = || logits.iter().map(|&l| f64::from(l));
    let problem = match problem {
        Problem::SingleLabel if logits().len() == 1 => Problem::Regression,
        other => other,
    };
    match problem {
        Problem::SingleLabel => {
            let largest = logits().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits().map(|l| (l - largest).exp()).sum();
            logits()
                .map(|l| ((l - largest).exp() / total) as f32)
                .collect()
        }
        Problem::MultiLabel => logits()
            .map(|l| (1.0 / (1.0 + (-l).exp())) as f32)
            .collect(),
        Problem::Regression => logits().map(|l| l as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_problem() {
        let logits = [1.0, -2.0, 0.5];
        let softmax = scores(Problem::SingleLabel, &logits);
        let total: f32 = logits.iter().map(|l: &f32| l.exp()).sum();
        for (s, l) in softmax.iter().zip(logits) {
            assert!((s - l.exp() / total).abs() < 1e-6);
        }
        for (s, l) in scores(Problem::MultiLabel, &logits).iter().zip(logits) {
            assert!((s - 1.0 / (1.0 + (-l).exp())).abs() < 1e-6);
        }
        assert_eq!(scores(Problem::Regression, &logits), logits);
        assert_eq!(scores(Problem::SingleLabel, &[3.5]), [3.5]);
        assert_eq!(scores(Problem::MultiLabel, &[0.0]), [0.5]);
        assert_eq!(scores(Problem::SingleLabel, &[300.0, -300.0]), [1.0, 0.0]);
    }
}
