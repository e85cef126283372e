//! What classifiers answer.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// A label with its score.
#[pyclass(frozen, get_all, module = "centroid")]
pub struct LabelScore {
    /// The label.
    label: String,
    /// The softmax of the logits; the sigmoid of the logit where several labels may apply; the logit itself where
    /// there is only one label.
    score: f32,
    /// The model's raw output.
    logit: f32,
    /// Its number, from 0, in the order of the model's logits.
    index: usize,
}

#[pymethods]
impl LabelScore {
    fn __repr__(&self) -> String {
        format!(
            "LabelScore(label={:?}, score={:.4})",
            self.label, self.score
        )
    }
}

fn list<'py>(py: Python<'py>, labels: &[centroid::LabelScore]) -> PyResult<Bound<'py, PyList>> {
    let scores = labels.iter().map(|of| LabelScore {
        label: of.label.clone(),
        score: of.score,
        logit: of.logit,
        index: of.index,
    });
    PyList::new(
        py,
        scores
            .map(|score| Py::new(py, score))
            .collect::<PyResult<Vec<_>>>()?,
    )
}

/// `{"label": ..., "score": ...}` as `transformers` has it, of the best labels.
pub(crate) fn dicts<'py>(
    py: Python<'py>,
    labels: &[centroid::LabelScore],
    top_k: usize,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let dict = |of: &centroid::LabelScore| {
        let dict = PyDict::new(py);
        dict.set_item("label", &of.label)?;
        dict.set_item("score", of.score)?;
        Ok(dict)
    };
    labels.iter().take(top_k).map(dict).collect()
}

/// The result for a text.
#[pyclass(frozen, module = "centroid")]
pub struct Classification(pub(crate) centroid::Classification);

#[pymethods]
impl Classification {
    /// The best label.
    #[getter]
    fn label(&self) -> &str {
        &self.0.labels[0].label
    }

    /// The score of the best label.
    #[getter]
    fn score(&self) -> f32 {
        self.0.labels[0].score
    }

    /// Every label, the best score first.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list(py, &self.0.labels)
    }

    /// Number of tokens, special tokens included.
    #[getter]
    fn tokens(&self) -> usize {
        self.0.tokens
    }

    /// Whether the text was cut to the limit.
    #[getter]
    fn truncated(&self) -> bool {
        self.0.truncated
    }

    fn __repr__(&self) -> String {
        format!(
            "Classification(label={:?}, score={:.4})",
            self.label(),
            self.score()
        )
    }
}

/// The result for an image.
#[pyclass(frozen, module = "centroid")]
pub struct ImageClassification(pub(crate) centroid::ImageClassification);

#[pymethods]
impl ImageClassification {
    /// The best label.
    #[getter]
    fn label(&self) -> &str {
        &self.0.labels[0].label
    }

    /// The score of the best label.
    #[getter]
    fn score(&self) -> f32 {
        self.0.labels[0].score
    }

    /// Every label, the best score first.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list(py, &self.0.labels)
    }

    fn __repr__(&self) -> String {
        format!(
            "ImageClassification(label={:?}, score={:.4})",
            self.label(),
            self.score()
        )
    }
}
