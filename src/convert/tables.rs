//! How much errors of the embedding tables count.
//!
//! An entry of a table is used as often as texts have its token or position; then the sum of the three
//! tables' rows is normalized: divided by its standard deviation, and each column multiplied by a weight
//! `g`. So, to first order, the error of column `c` in a use of a row counts `g[c]^2 / variance`. Where
//! gradients of the model's answers are known, these say it better.

use super::calibrate::texts::Tokens;
use super::sensitivity::{PRIOR, Sensitivity};
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::Config;
use crate::quant::Importance;

/// Uses that each row is given beside those that are seen: the texts to come have other words, too.
const UNSEEN: f64 = 0.5;
/// The same where uses count by their gradients.
const UNSEEN_GRADIENTS: f64 = 0.1;

/// How much errors of each table's rows count, and of their columns.
pub(super) struct Tables {
    columns: Vec<f32>,
    tokens: Vec<f32>,
    positions: Vec<f32>,
    /// `[columns][columns]`, if there are gradients.
    hessian: Option<Vec<f32>>,
}

impl Tables {
    /// With the uses in `texts`, and tensors by their names in the artifact.
    ///
    /// # Errors
    /// If `original` has one, and if embeddings of a text are not finite.
    pub(super) fn new(
        config: &Config,
        texts: &[Tokens],
        original: &dyn Fn(&str) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let token = original("embeddings.token")?;
        let position = original("embeddings.position")?;
        let of_type = original("embeddings.type")?;
        let norm = original("embeddings.norm.weight")?;
        let h = config.hidden;
        let mut tokens = vec![0f64; config.vocab_size];
        let mut positions = vec![0f64; config.positions];
        let (mut total, mut seen) = (0.0, 0);
        for text in texts {
            for (t, (&id, &type_id)) in text.ids.iter().zip(&text.types).enumerate() {
                let (id, p) = (id as usize, t + config.position_offset);
                let rows = [(&token, id), (&position, p), (&of_type, type_id as usize)];
                let [a, b, c] = rows.map(|(table, at)| &table[at * h..][..h]);
                let sum = (0..h).map(|k| f64::from(a[k]) + f64::from(b[k]) + f64::from(c[k]));
                let (sum, squares) = sum.fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
                let mean = sum / h as f64;
                let variance = squares / h as f64 - mean * mean + config.layer_norm_eps;
                if !variance.is_finite() {
                    return Err(not_finite());
                }
                let counts = 1.0 / variance.max(f64::MIN_POSITIVE);
                tokens[id] += counts;
                positions[p] += counts;
                total += counts;
                seen += 1;
            }
        }
        let mean = total / f64::from(seen.max(1));
        let with_unseen = |uses: Vec<f64>| -> Vec<f32> {
            let relative = uses.iter().map(|uses| uses / mean + UNSEEN);
            relative.map(|uses| uses as f32).collect()
        };
        let columns: Vec<f32> = norm.iter().map(|g| g * g).collect();
        if columns.iter().any(|square| !square.is_finite()) {
            return Err(not_finite());
        }
        Ok(Self {
            columns,
            tokens: with_unseen(tokens),
            positions: with_unseen(positions),
            hessian: None,
        })
    }

    /// With errors that count as gradients say.
    ///
    /// # Errors
    /// If they are not finite.
    pub(super) fn with(mut self, gradients: &Sensitivity) -> Result<Self> {
        let n = self.columns.len();
        let trace = (0..n).map(|i| gradients.products[i * n + i]).sum::<f64>();
        if !trace.is_finite() {
            return Err(not_finite());
        }
        let prior = self.columns.iter().copied().map(f64::from).sum::<f64>();
        if trace == 0.0 || prior == 0.0 {
            return Ok(self);
        }
        let part = (1.0 - PRIOR) / trace;
        let mut hessian: Vec<f64> = gradients.products.iter().map(|p| p * part).collect();
        for (i, &count) in self.columns.iter().enumerate() {
            hessian[i * n + i] += PRIOR * f64::from(count) / prior;
        }
        // As a share of the mean, which is 1 / n.
        self.hessian = Some(hessian.iter().map(|h| (h * n as f64) as f32).collect());
        let mean = trace / gradients.uses as f64;
        let counts = |sums: &[f64]| {
            sums.iter()
                .map(|sum| (sum / mean + UNSEEN_GRADIENTS) as f32)
                .collect()
        };
        self.tokens = counts(&gradients.tokens);
        self.positions = counts(&gradients.positions);
        Ok(self)
    }

    /// How much errors of different columns of a table count together, `[columns][columns]`, where that is
    /// known.
    pub(super) fn hessian(&self, name: &str) -> Option<&[f32]> {
        matches!(name, "embeddings.token" | "embeddings.position")
            .then_some(self.hessian.as_deref()?)
    }

    /// For a table of the embeddings; errors of other tensors all count the same.
    pub(super) fn importance(&self, name: &str) -> Importance<'_> {
        let rows = match name {
            "embeddings.token" => &self.tokens,
            "embeddings.position" => &self.positions,
            _ => return Importance::default(),
        };
        Importance {
            columns: Some(&self.columns),
            rows: Some(rows),
        }
    }
}

fn not_finite() -> Error {
    let message = "the embeddings of a calibration text are not finite";
    Error::new(ErrorKind::Checkpoint, message)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::models::encoder::{Family, HiddenAct, Pooling, Task};

    #[test]
    fn rows_count_as_they_are_used_and_the_louder_the_less() {
        let config = Config {
            family: Family::Bert,
            vocab_size: 4,
            hidden: 2,
            layers: 1,
            heads: 1,
            intermediate: 2,
            positions: 3,
            position_offset: 0,
            type_vocab: 1,
            activation: HiddenAct::Gelu,
            layer_norm_eps: 0.0,
            max_tokens: 3,
            task: Task::Embedding {
                pooling: Pooling::Mean,
                normalize: true,
            },
        };
        // Token 1 spreads by 1, token 2 by 2: their variances are 1 and 4.
        let original = |name: &str| {
            Ok(match name {
                "embeddings.token" => vec![9.0, 9.0, 0.0, 2.0, 0.0, 4.0, 9.0, 9.0],
                "embeddings.position" => vec![0.0; 6],
                "embeddings.type" => vec![0.0; 2],
                _ => vec![1.0, -3.0],
            })
        };
        let text = |ids: &[u32]| Tokens {
            ids: ids.to_vec(),
            types: vec![0; ids.len()],
        };
        let tables = Tables::new(&config, &[text(&[1, 2]), text(&[1])], &original).unwrap();
        // Uses count 1, 1 and 1/4: 3/4 in the mean.
        let expected = [0.5, 2.0 / 0.75 + 0.5, 0.25 / 0.75 + 0.5, 0.5];
        let near = |found: Option<&[f32]>, expected: &[f32]| {
            let found = found.unwrap();
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-5, "{found:?}");
            }
        };
        let broken = |name: &str| original(name).map(|v| v.iter().map(|v| v * f32::MAX).collect());
        let error = Tables::new(&config, &[text(&[1])], &broken).err().unwrap();
        assert!(error.to_string().contains("not finite"), "{error}");
        let token = tables.importance("embeddings.token");
        near(token.rows, &expected);
        near(token.columns, &[1.0, 9.0]);
        let position = tables.importance("embeddings.position");
        near(position.rows, &[2.0 / 0.75 + 0.5, 0.25 / 0.75 + 0.5, 0.5]);
        assert!(tables.importance("embeddings.type").rows.is_none());
        assert!(tables.hessian("embeddings.token").is_none());

        // Three uses whose gradients have the squares 5 and 1 in the two columns, which counted 1 and 9.
        let gradients = |square: f64| Sensitivity {
            products: vec![square, 1.0, 1.0, 1.0],
            tokens: vec![0.0, square, 1.0, 0.0],
            positions: vec![square + 1.0, 0.0, 0.0],
            uses: 3,
            outputs: HashMap::new(),
        };
        let tables = tables.with(&gradients(5.0)).unwrap();
        let part = 0.9 / 6.0;
        let expected = [part * 5.0 + 0.1 * 0.1, part, part, part + 0.1 * 0.9];
        near(
            tables.hessian("embeddings.token"),
            &expected.map(|h| 2.0 * h),
        );
        assert!(tables.hessian("embeddings.type").is_none());
        let token = tables.importance("embeddings.token");
        near(token.rows, &[0.1, 2.5 + 0.1, 0.5 + 0.1, 0.1]);
        let position = tables.importance("embeddings.position");
        near(position.rows, &[3.0 + 0.1, 0.1, 0.1]);
        let error = tables.with(&gradients(f64::NAN)).err().unwrap();
        assert!(error.to_string().contains("not finite"), "{error}");
    }
}
