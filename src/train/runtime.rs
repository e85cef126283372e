//! The trained model in this crate's runtime: what its users will get.

use serde_json::json;

use super::encoder::Text;
use super::finish::Tested;
use super::run::Metric;
use super::stage::cosine;
use crate::artifact::Artifact;
use crate::data::{Example, Scores};
use crate::error::Result;
use crate::nn::Mode;
use crate::pipeline::{Options, SentenceEmbedder, TextClassifier};
use crate::text::Truncation;

/// Texts of a call.
const CALL: usize = 256;
const MODES: [Mode; 2] = [Mode::Int8, Mode::Exact];

/// A finished artifact.
pub(super) struct Runtime {
    pub(super) bytes: Vec<u8>,
    /// The most tokens of a text.
    pub(super) limit: usize,
}

/// Calls one method for single texts and another one for pairs.
macro_rules! of_texts {
    ($model:expr, $examples:expr, $single:ident, $pairs:ident) => {{
        let pair = |e: &'_ Example| (e.text.clone(), e.text_b.clone().unwrap_or_default());
        match $examples.first().and_then(|e| e.text_b.as_ref()) {
            None => $model.$single(&$examples.iter().map(|e| &*e.text).collect::<Vec<_>>()),
            Some(_) => {
                let pairs: Vec<_> = $examples.iter().map(pair).collect();
                $model.$pairs(&pairs.iter().map(|(a, b)| (&**a, &**b)).collect::<Vec<_>>())
            }
        }
    }};
}

impl Runtime {
    fn open(&self, mode: Mode) -> Result<(Artifact, Options)> {
        let options = Options::new()
            .mode(mode)
            .max_length(self.limit)
            .truncation(Truncation::Truncate);
        Ok((Artifact::from_bytes(&self.bytes)?, options))
    }

    fn classifier(&self, mode: Mode) -> Result<TextClassifier> {
        let (artifact, options) = self.open(mode)?;
        TextClassifier::new(artifact, options)
    }

    fn embedder(&self, mode: Mode) -> Result<SentenceEmbedder> {
        let (artifact, options) = self.open(mode)?;
        SentenceEmbedder::new(artifact, options)
    }

    /// A classifier's answers in both modes, and a line of JSON for each text.
    pub(super) fn classify(&self, examples: &[Example]) -> Result<(Tested, Vec<u8>)> {
        let score = |mode| -> Result<(Scores, Vec<String>)> {
            let model = self.classifier(mode)?;
            let mut scores = Scores::new(model.labels());
            let mut best = Vec::with_capacity(examples.len());
            for examples in examples.chunks(CALL) {
                let answers = of_texts!(model, examples, classify, classify_pairs)?;
                for (example, mut answer) in examples.iter().zip(answers) {
                    let answer = answer.labels.swap_remove(0);
                    scores.add(scores.label(&example.label)?, answer.index);
                    best.push(answer.label);
                }
            }
            Ok((scores, best))
        };
        let [(int8, by_int8), (exact, by_exact)] = [score(Mode::Int8)?, score(Mode::Exact)?];
        let answers = examples.iter().zip(&by_int8).zip(&by_exact);
        let lines = answers.flat_map(|((example, int8), exact)| {
            let line = json!({"line": example.line, "label": example.label, "int8": int8,
                "exact": exact});
            format!("{line}\n").into_bytes()
        });
        let lines = lines.collect();
        Ok((Tested::Classifier { int8, exact }, lines))
    }

    /// The cosines of an embedding model's vectors to those `taught`, and a line of JSON for each text.
    pub(super) fn embed(
        &self,
        examples: &[Example],
        taught: &[Vec<f32>],
    ) -> Result<(Tested, Vec<u8>)> {
        let cosines = |mode| -> Result<Vec<f64>> {
            let model = self.embedder(mode)?;
            let mut cosines = Vec::with_capacity(examples.len());
            for (examples, taught) in examples.chunks(CALL).zip(taught.chunks(CALL)) {
                let own = of_texts!(model, examples, embed, embed_pairs)?;
                let own = own.iter().map(|embedding| &embedding.vector);
                cosines.extend(own.zip(taught).map(|(own, taught)| cosine(own, taught)));
            }
            Ok(cosines)
        };
        let (int8, exact) = (cosines(Mode::Int8)?, cosines(Mode::Exact)?);
        let answers = examples.iter().zip(&int8).zip(&exact);
        let lines = answers.flat_map(|((example, int8), exact)| {
            let line = json!({"line": example.line, "int8": int8, "exact": exact});
            format!("{line}\n").into_bytes()
        });
        let lines = lines.collect();
        let texts = examples.len();
        let mean = |cosines: &[f64]| cosines.iter().sum::<f64>() / texts.max(1) as f64;
        let (int8, exact) = (mean(&int8), mean(&exact));
        Ok((Tested::Embedder { int8, exact, texts }, lines))
    }

    /// The largest difference of a logit, or of a value of a vector, from torch's, in `int8` and `exact`; none
    /// without texts.
    pub(super) fn difference(
        &self,
        metric: Metric,
        texts: &[Text],
        by_torch: &[Vec<Vec<f32>>; 2],
    ) -> Result<Option<[f32; 2]>> {
        if texts.is_empty() {
            return Ok(None);
        }
        let inputs: Vec<_> = texts
            .iter()
            .map(|text| (&*text.ids, &*text.types))
            .collect();
        let mut largest = [0f32; 2];
        for ((largest, mode), by_torch) in largest.iter_mut().zip(MODES).zip(by_torch) {
            let answers = self.answers(metric, mode)?;
            for (inputs, by_torch) in inputs.chunks(CALL).zip(by_torch.chunks(CALL)) {
                for (own, by_torch) in answers(inputs)?.iter().zip(by_torch) {
                    for (own, by_torch) in own.iter().zip(by_torch) {
                        *largest = largest.max((own - by_torch).abs());
                    }
                }
            }
        }
        Ok(Some(largest))
    }

    /// Logits or vectors of texts that are token ids and types.
    #[allow(clippy::type_complexity)]
    fn answers(
        &self,
        metric: Metric,
        mode: Mode,
    ) -> Result<Box<dyn Fn(&[(&[u32], &[u32])]) -> Result<Vec<Vec<f32>>>>> {
        Ok(match metric {
            Metric::Accuracy | Metric::Agreement => {
                let model = self.classifier(mode)?;
                Box::new(move |ids| {
                    let answers = model.classify_typed(ids)?;
                    let logits = answers.iter().map(|answer| {
                        let mut logits = vec![0.0; answer.labels.len()];
                        (answer.labels.iter()).for_each(|l| logits[l.index] = l.logit);
                        logits
                    });
                    Ok(logits.collect())
                })
            }
            Metric::Cosine => {
                let model = self.embedder(mode)?;
                Box::new(move |ids| {
                    let vectors = model.embed_typed(ids)?;
                    Ok(vectors.into_iter().map(|e| e.vector).collect())
                })
            }
        })
    }
}
