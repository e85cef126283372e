//! Where codes come from.

use std::collections::HashMap;

use serde_json::json;

use super::encoder::Text;
use super::recipe::Stage;
use super::run::Watch;
use super::setup::Run;
use crate::convert::recode::Tokens;
use crate::error::Result;
use crate::quant::pq::Pq;

/// Texts whose token vectors say which inputs of a layer count.
const WEIGHED: usize = 256;

impl Run<'_> {
    /// Codes and centroids for the groups of a stage.
    pub(super) fn quantize(&mut self, stage: &Stage, watch: &mut Watch<'_>) -> Result<()> {
        if stage.quantize.is_empty() {
            return Ok(());
        }
        let texts = match stage.learns_from_teacher() {
            true => &self.train[..],
            false => &self.train[..self.labelled],
        };
        let model = &mut self.model;
        let names: Vec<String> = (model.weights.to_quantize(Some(&stage.quantize)))
            .map(str::to_owned)
            .collect();
        let reassigned = stage.reassign.is_some();
        let errors = if let Some(most) = stage.calibrate {
            let texts = spread(texts, most).map(|text| Tokens {
                ids: text.ids.clone(),
                types: text.types.clone(),
            });
            let weights = &model.weights;
            let present = |name: &str| weights.present(name);
            let names = names.into_iter().collect();
            let recoded = model
                .base
                .recode(&names, &present, texts.collect(), self.recipe.seed)?;
            for (name, values) in &recoded.biases {
                model.weights.set_plain(name, values);
            }
            let set = |(name, pq, error): (String, Pq, f64)| {
                // Where codes are to change, it is from here: the weights' nearest centroids are others.
                model.weights.set_pq(&name, &pq, false);
                (name, error)
            };
            recoded.codes.into_iter().map(set).collect()
        } else {
            let squares = match stage.weigh_inputs {
                true => model.mean_squares(spread(texts, WEIGHED))?,
                false => HashMap::new(),
            };
            let mut errors = Vec::new();
            for name in names {
                let how = (squares.get(&name).map(Vec::as_slice), reassigned);
                let weights = &mut model.weights;
                let error = weights.quantize(&name, self.recipe.seed, how, &|_| ())?;
                errors.push((name, error));
            }
            errors
        };
        for (name, error) in errors {
            watch.note(&format!("{name}: quantized, relative error {error:.3}"));
            let line = json!({"event": "quantized", "stage": stage.name, "tensor": name,
                "relative_error": error});
            watch.log.line(&line)?;
        }
        match self.validate()? {
            Some(score) => watch.validation(&stage.name, 0, self.metric(), score),
            None => Ok(()),
        }
    }
}

/// At most so many texts, from all parts of the data.
fn spread(texts: &[Text], most: usize) -> impl Iterator<Item = &Text> {
    let taken = most.min(texts.len());
    (0..taken).map(move |number| &texts[number * texts.len() / taken])
}
