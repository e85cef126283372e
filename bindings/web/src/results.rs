//! Results as plain objects.

use centroid::{Classification, ImageClassification, LabelScore};
use serde::Serialize;
use wasm_bindgen::JsValue;

use crate::error;

#[derive(Serialize)]
struct Score<'a> {
    label: &'a str,
    score: f32,
    index: usize,
    logit: f32,
}

#[derive(Serialize)]
struct Text<'a> {
    label: &'a str,
    score: f32,
    scores: Vec<Score<'a>>,
    tokens: usize,
    truncated: bool,
}

#[derive(Serialize)]
struct Image<'a> {
    label: &'a str,
    score: f32,
    scores: Vec<Score<'a>>,
}

fn scores(labels: &[LabelScore], most: usize) -> Vec<Score<'_>> {
    (labels.iter().take(most))
        .map(|of| Score {
            label: &of.label,
            score: of.score,
            index: of.index,
            logit: of.logit,
        })
        .collect()
}

/// The best label; every model has one at least.
fn best(labels: &[LabelScore]) -> (&str, f32) {
    labels
        .first()
        .map_or(("", f32::NAN), |best| (&best.label, best.score))
}

fn object(value: &impl Serialize) -> Result<JsValue, JsValue> {
    serde_wasm_bindgen::to_value(value).map_err(|e| error::of_kind("internal", &e.to_string()))
}

/// The results of texts, each with its `most` best labels.
pub(crate) fn texts(results: &[Classification], most: usize) -> Result<JsValue, JsValue> {
    let all: Vec<Text> = results
        .iter()
        .map(|result| {
            let (label, score) = best(&result.labels);
            Text {
                label,
                score,
                scores: scores(&result.labels, most),
                tokens: result.tokens,
                truncated: result.truncated,
            }
        })
        .collect();
    object(&all)
}

/// The result of an image, with its `most` best labels.
pub(crate) fn image(result: &ImageClassification, most: usize) -> Result<JsValue, JsValue> {
    let (label, score) = best(&result.labels);
    object(&Image {
        label,
        score,
        scores: scores(&result.labels, most),
    })
}
