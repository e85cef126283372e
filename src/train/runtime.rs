//! The trained model in this crate's runtime: what its users will get.

use super::encoder::Text;
use crate::artifact::Artifact;
use crate::data::{Example, Scores};
use crate::error::Result;
use crate::nn::Mode;
use crate::pipeline::{Options, TextClassifier};
use crate::text::Truncation;

/// Texts of a call.
const CALL: usize = 256;

/// A finished artifact.
pub(super) struct Runtime {
    pub(super) bytes: Vec<u8>,
    /// The most tokens of a text.
    pub(super) limit: usize,
}

impl Runtime {
    fn open(&self, mode: Mode) -> Result<TextClassifier> {
        let options = Options::new()
            .mode(mode)
            .max_length(self.limit)
            .truncation(Truncation::Truncate);
        TextClassifier::new(Artifact::from_bytes(&self.bytes)?, options)
    }

    /// Scores, and the answer to each text.
    pub(super) fn score(&self, mode: Mode, examples: &[Example]) -> Result<(Scores, Vec<String>)> {
        let model = self.open(mode)?;
        let mut scores = Scores::new(model.labels());
        let mut best = Vec::with_capacity(examples.len());
        for examples in examples.chunks(CALL) {
            let answers = match examples.first().and_then(|example| example.text_b.as_ref()) {
                None => model.classify(&examples.iter().map(|e| &*e.text).collect::<Vec<_>>())?,
                Some(_) => {
                    let pair =
                        |e: &'_ Example| (e.text.clone(), e.text_b.clone().unwrap_or_default());
                    let pairs: Vec<_> = examples.iter().map(pair).collect();
                    let pairs: Vec<_> = pairs.iter().map(|(a, b)| (&**a, &**b)).collect();
                    model.classify_pairs(&pairs)?
                }
            };
            for (example, mut answer) in examples.iter().zip(answers) {
                let answer = answer.labels.swap_remove(0);
                scores.add(scores.label(&example.label)?, answer.index);
                best.push(answer.label);
            }
        }
        Ok((scores, best))
    }

    /// The largest difference of a logit from torch's, in `int8` and `exact`.
    pub(super) fn difference(&self, texts: &[Text], logits: &[Vec<f32>]) -> Result<[f32; 2]> {
        let mut largest = [0f32; 2];
        for (largest, mode) in largest.iter_mut().zip([Mode::Int8, Mode::Exact]) {
            let model = self.open(mode)?;
            // Ids alone say nothing of pairs.
            let single = |(text, _): &(&Text, &Vec<f32>)| text.types.iter().all(|&t| t == 0);
            for (text, logits) in texts.iter().zip(logits).filter(single) {
                let answers = model.classify_ids(&[&text.ids])?;
                for answer in answers.iter().flat_map(|answer| &answer.labels) {
                    *largest = largest.max((logits[answer.index] - answer.logit).abs());
                }
            }
        }
        Ok(largest)
    }
}
