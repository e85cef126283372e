//! Classifiers and embeddings of texts.

use std::path::PathBuf;

use centroid::{Artifact, Options};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3_arrow::input::AnyArray;

use crate::arrow::{ArrowArray, Column, row_of};
use crate::errors::told;
use crate::input::{borrowed, pairs, texts};
use crate::model::{Model, Pipeline, Settings};
use crate::results::{Classification, dicts};

impl Pipeline for centroid::TextClassifier {
    const OF_TEXTS: bool = true;

    fn new(artifact: Artifact, options: Options) -> centroid::Result<Self> {
        Self::new(artifact, options)
    }
}

impl Pipeline for centroid::SentenceEmbedder {
    const OF_TEXTS: bool = true;

    fn new(artifact: Artifact, options: Options) -> centroid::Result<Self> {
        Self::new(artifact, options)
    }
}

/// An error of a column's text, with the number of its row.
fn in_row(error: centroid::Error, texts: &[Option<&str>], py: Python<'_>) -> PyErr {
    match error.text() {
        Some(text) if row_of(texts, text) != text => {
            let row = row_of(texts, text);
            let raised = crate::errors::raised(py, &error);
            let note = format!("that is row {row} of the column, which has nulls before it");
            // Notes are there from Python 3.11 on.
            let _ = raised.value(py).call_method1("add_note", (note,));
            raised
        }
        _ => crate::errors::raised(py, &error),
    }
}

/// Classifies texts with the model in a `.centroid` file.
///
/// The file is mapped into memory, checked, and used in place; it must not be changed while it is open.
///
/// Parameters
/// ----------
/// path
///     The file.
/// threads
///     How many threads a call may use; 0 is as many as the process may run on. Results do not depend on it.
/// mode
///     "int8" rounds the inputs of linear layers to 8 bits, "exact" does not and is slower.
/// isa
///     The instruction set by name, in place of the fastest one.
/// max_length
///     The most tokens of a text, special tokens included; None is the model's own limit.
/// truncation
///     Cut texts with more tokens. If False, they are an error.
///
/// Any number of threads may use one at a time. It can be pickled: what opens the pickle opens the file again.
#[pyclass(frozen, subclass, module = "centroid")]
pub struct TextClassifier(Model<centroid::TextClassifier>);

#[pymethods]
impl TextClassifier {
    #[new]
    #[pyo3(signature = (path, *, threads=0, mode="int8", isa=None, max_length=None, truncation=false))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        threads: usize,
        mode: &str,
        isa: Option<String>,
        max_length: Option<usize>,
        truncation: bool,
    ) -> PyResult<Self> {
        let settings = Settings::of_texts(threads, mode, isa, max_length, truncation);
        Ok(Self(Model::open(py, path, settings)?))
    }

    /// A model in memory: the bytes of a `.centroid` file, which are copied. It cannot be pickled.
    #[staticmethod]
    #[pyo3(signature = (data, *, threads=0, mode="int8", isa=None, max_length=None, truncation=false))]
    fn from_bytes(
        py: Python<'_>,
        data: &[u8],
        threads: usize,
        mode: &str,
        isa: Option<String>,
        max_length: Option<usize>,
        truncation: bool,
    ) -> PyResult<Self> {
        let settings = Settings::of_texts(threads, mode, isa, max_length, truncation);
        Ok(Self(Model::from_bytes(py, data, settings)?))
    }

    /// Classifies each text; with `pairs` each text with the one of the same number there.
    ///
    /// A text's result is the same, bit for bit, alone and among others.
    #[pyo3(signature = (texts, pairs=None))]
    fn classify(
        &self,
        py: Python<'_>,
        texts: Bound<'_, PyAny>,
        pairs: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Classification>> {
        let found = self.run(py, &texts, pairs.as_ref())?;
        Ok(found.into_iter().map(Classification).collect())
    }

    /// Labels and scores as `transformers.pipeline("text-classification")` gives them: for a list of texts a list
    /// of the best labels as dicts, with `top_k` a list of the `top_k` best ones for each text (None: all of them).
    #[pyo3(signature = (texts, **options))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        texts: Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let top_k = top_k(options)?;
        let single = texts.is_instance_of::<PyString>();
        let list = match single {
            true => PyList::new(py, [&texts])?.into_any(),
            false => texts,
        };
        let found = self.run(py, &list, None)?;
        let count = top_k.unwrap_or(1);
        let mut each = Vec::with_capacity(found.len());
        for of in &found {
            each.push(dicts(py, &of.labels, count)?);
        }
        let answer = match (top_k, single) {
            (None, _) => PyList::new(py, each.into_iter().flatten())?.into_any(),
            (Some(_), true) => PyList::new(py, each.into_iter().flatten())?.into_any(),
            (Some(_), false) => PyList::new(py, each)?.into_any(),
        };
        Ok(answer)
    }

    /// Classifies a column of strings (anything with `__arrow_c_array__` or `__arrow_c_stream__`, as of pyarrow or
    /// polars). Gives columns label, score, tokens and truncated, null where the column is.
    fn classify_arrow(&self, py: Python<'_>, column: AnyArray) -> PyResult<ArrowArray> {
        let column = Column::new(column)?;
        let texts = column.texts();
        let there: Vec<&str> = texts.iter().copied().flatten().collect();
        let model = self.0.pipeline(py)?;
        let found = py.detach(|| model.classify(&there));
        let found = found.map_err(|error| in_row(error, &texts, py))?;
        ArrowArray::of_labels(&texts, &found)
    }

    /// The labels in the order of the model's logits.
    #[getter]
    fn labels(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.0.pipeline(py)?.labels().to_vec())
    }

    /// The most tokens of a text, special tokens included.
    #[getter]
    fn max_length(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.pipeline(py)?.max_length())
    }

    /// The instruction set in use.
    #[getter]
    fn isa(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.0.pipeline(py)?.isa())
    }

    /// The file, as an absolute path; None if it was opened in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.0.path()
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        self.0.arguments(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.shown("TextClassifier", self.isa(py)?))
    }
}

impl TextClassifier {
    fn run(
        &self,
        py: Python<'_>,
        firsts: &Bound<'_, PyAny>,
        seconds: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<centroid::Classification>> {
        let model = self.0.pipeline(py)?;
        let firsts = texts(firsts, "texts")?;
        let found = match seconds {
            None => {
                let texts = borrowed(&firsts);
                py.detach(|| model.classify(&texts))
            }
            Some(seconds) => {
                let seconds = texts(seconds, "pairs")?;
                let pairs = pairs(&firsts, &seconds)?;
                py.detach(|| model.classify_pairs(&pairs))
            }
        };
        told(py, found)
    }
}

/// What `top_k` asks for: nothing if it is not given, all labels for None.
fn top_k(options: Option<&Bound<'_, PyDict>>) -> PyResult<Option<usize>> {
    let Some(options) = options else {
        return Ok(None);
    };
    if let Some(other) = options
        .keys()
        .iter()
        .find(|key| !key.eq("top_k").unwrap_or(false))
    {
        let message = format!("{other} is not a known argument; top_k is");
        return Err(pyo3::exceptions::PyTypeError::new_err(message));
    }
    match options.get_item("top_k")? {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(Some(usize::MAX)),
        Some(value) => match value.extract()? {
            0 => Err(PyValueError::new_err("top_k is 0")),
            count => Ok(Some(count)),
        },
    }
}

/// Gives each text a vector, with the embedding model in a `.centroid` file.
///
/// The file is mapped into memory, checked, and used in place; it must not be changed while it is open.
///
/// Parameters
/// ----------
/// path
///     The file.
/// threads
///     How many threads a call may use; 0 is as many as the process may run on. Results do not depend on it.
/// mode
///     "int8" rounds the inputs of linear layers to 8 bits, "exact" does not and is slower.
/// isa
///     The instruction set by name, in place of the fastest one.
/// max_length
///     The most tokens of a text, special tokens included; None is the model's own limit.
/// truncation
///     Cut texts with more tokens. If False, they are an error.
///
/// Any number of threads may use one at a time. It can be pickled: what opens the pickle opens the file again.
#[pyclass(frozen, subclass, module = "centroid")]
pub struct SentenceEmbedder(Model<centroid::SentenceEmbedder>);

#[pymethods]
impl SentenceEmbedder {
    #[new]
    #[pyo3(signature = (path, *, threads=0, mode="int8", isa=None, max_length=None, truncation=false))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        threads: usize,
        mode: &str,
        isa: Option<String>,
        max_length: Option<usize>,
        truncation: bool,
    ) -> PyResult<Self> {
        let settings = Settings::of_texts(threads, mode, isa, max_length, truncation);
        Ok(Self(Model::open(py, path, settings)?))
    }

    /// A model in memory: the bytes of a `.centroid` file, which are copied. It cannot be pickled.
    #[staticmethod]
    #[pyo3(signature = (data, *, threads=0, mode="int8", isa=None, max_length=None, truncation=false))]
    fn from_bytes(
        py: Python<'_>,
        data: &[u8],
        threads: usize,
        mode: &str,
        isa: Option<String>,
        max_length: Option<usize>,
        truncation: bool,
    ) -> PyResult<Self> {
        let settings = Settings::of_texts(threads, mode, isa, max_length, truncation);
        Ok(Self(Model::from_bytes(py, data, settings)?))
    }

    /// Embeds texts: for a list an array of float32 `[texts, dimensions]`, for one str `[dimensions]`; with `pairs`
    /// each text together with the one of the same number there.
    ///
    /// The array is the runtime's own memory, without a copy. A text's vector is the same, bit for bit, alone and
    /// among others.
    #[pyo3(signature = (texts, pairs=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        texts: Bound<'py, PyAny>,
        pairs: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let single = texts.is_instance_of::<PyString>();
        let listed = |value: &Bound<'py, PyAny>| match value.is_instance_of::<PyString>() && single
        {
            true => Ok(PyList::new(py, [value])?.into_any()),
            false => PyResult::Ok(value.clone()),
        };
        let model = self.0.pipeline(py)?;
        let firsts = crate::input::texts(&listed(&texts)?, "texts")?;
        let found = match pairs {
            None => {
                let texts = borrowed(&firsts);
                py.detach(|| model.embed_matrix(&texts))
            }
            Some(seconds) => {
                let seconds = crate::input::texts(&listed(&seconds)?, "pairs")?;
                let pairs = crate::input::pairs(&firsts, &seconds)?;
                py.detach(|| model.embed_pairs_matrix(&pairs))
            }
        };
        let values = PyArray1::from_vec(py, told(py, found)?.values);
        if single {
            return Ok(values.into_any());
        }
        let rows: Bound<'py, PyArray2<f32>> = values.reshape([firsts.len(), model.dimensions()])?;
        Ok(rows.into_any())
    }

    /// Embeds a column of strings (anything with `__arrow_c_array__` or `__arrow_c_stream__`, as of pyarrow or
    /// polars). Gives a column of lists of `dimensions` float32, null where the column is.
    fn encode_arrow(&self, py: Python<'_>, column: AnyArray) -> PyResult<ArrowArray> {
        let column = Column::new(column)?;
        let texts = column.texts();
        let there: Vec<&str> = texts.iter().copied().flatten().collect();
        let model = self.0.pipeline(py)?;
        let found = py.detach(|| model.embed_matrix(&there));
        let found = found.map_err(|error| in_row(error, &texts, py))?;
        ArrowArray::of_vectors(&texts, found, model.dimensions())
    }

    /// Number of values of a vector.
    #[getter]
    fn dimensions(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.pipeline(py)?.dimensions())
    }

    /// The most tokens of a text, special tokens included.
    #[getter]
    fn max_length(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.pipeline(py)?.max_length())
    }

    /// The instruction set in use.
    #[getter]
    fn isa(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.0.pipeline(py)?.isa())
    }

    /// The file, as an absolute path; None if it was opened in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.0.path()
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        self.0.arguments(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.shown("SentenceEmbedder", self.isa(py)?))
    }
}
