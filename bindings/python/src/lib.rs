//! centroid for Python: `centroid._centroid`, which the package `centroid` shows to the world.
//!
//! Calls give the interpreter's lock back while they compute. Models are pickled by the path that they were
//! opened from, and open it again.

mod arrow;
mod errors;
mod images;
mod input;
mod model;
mod results;
mod texts;

use pyo3::prelude::*;

#[pymodule]
mod _centroid {
    #[pymodule_export]
    use super::arrow::ArrowArray;
    #[pymodule_export]
    use super::images::ImageClassifier;
    #[pymodule_export]
    use super::results::{Classification, ImageClassification, LabelScore};
    #[pymodule_export]
    use super::texts::{SentenceEmbedder, TextClassifier};

    /// The version of the runtime.
    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
