//! How much errors count for a model's answers, from gradients of these.
//!
//! For small errors, and a loss of squares or a divergence, the loss is `|J e|^2`: errors of an output count
//! as the squares of the gradients with respect to it. Calibration weighs each token's error of a linear
//! layer's output by the square of its gradient (compare GuidedQuant, Kim et al. 2025, arXiv 2505.07004),
//! and errors of the embedding tables by the products of theirs.

use std::collections::HashMap;

/// The part of what errors count that is not taken from gradients, where there are some: these tell of small
/// errors and of the texts that they were computed for.
pub(super) const PRIOR: f64 = 0.1;

/// Gradients `g` of a model's answers to some texts.
pub(crate) struct Sensitivity {
    /// With respect to the embeddings, the sums of the tables' rows: the sum of `g g^T`,
    /// `[columns][columns]`.
    pub(crate) products: Vec<f64>,
    /// The sum of `g^T g` for the uses of each token.
    pub(crate) tokens: Vec<f64>,
    /// And of each position.
    pub(crate) positions: Vec<f64>,
    /// How many tokens the texts have.
    pub(crate) uses: usize,
    /// By the names of linear layers' weights: `g^T g` with respect to each output vector, of a head for each
    /// text, of others for each token of each text.
    pub(crate) outputs: HashMap<String, Vec<f32>>,
}

impl Sensitivity {
    /// How much errors of each output vector of a linear layer count: 1 in the mean.
    pub(super) fn counts(&self, name: &str) -> Option<Vec<f32>> {
        let squares = self.outputs.get(name)?;
        let sum = squares.iter().copied().map(f64::from).sum::<f64>();
        let mean = sum / squares.len() as f64;
        if !mean.is_finite() || mean == 0.0 {
            return None;
        }
        let count = |&square: &f32| PRIOR + (1.0 - PRIOR) * f64::from(square) / mean;
        Some(squares.iter().map(|square| count(square) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_count_by_their_gradients_but_never_nothing() {
        let outputs = [
            ("some", vec![0.0, 1.0, 5.0]),
            ("none", vec![0.0; 3]),
            ("broken", vec![1.0, f32::INFINITY]),
        ];
        let sensitivity = Sensitivity {
            products: vec![1.0],
            tokens: vec![1.0],
            positions: vec![1.0],
            uses: 1,
            outputs: outputs.map(|(name, of)| (name.to_owned(), of)).into(),
        };
        let counts = sensitivity.counts("some").unwrap();
        for (count, expected) in counts.iter().zip([0.1, 0.1 + 0.45, 0.1 + 2.25]) {
            assert!((count - expected).abs() < 1e-6, "{counts:?}");
        }
        for unknown in ["none", "broken", "another"] {
            assert_eq!(sensitivity.counts(unknown), None, "{unknown}");
        }
    }
}
