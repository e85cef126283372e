//! Columns of texts in, columns out, by Arrow's interface for Python (`__arrow_c_array__`, `__arrow_c_stream__`).

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float32Builder, StringBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, StructArray};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields};
use centroid::{Classification, EmbeddingMatrix};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use pyo3_arrow::ffi::{to_array_pycapsules, to_schema_pycapsule};
use pyo3_arrow::input::AnyArray;

/// A column of texts.
pub(crate) struct Column(Vec<ArrayRef>);

impl Column {
    pub(crate) fn new(values: AnyArray) -> PyResult<Self> {
        let column = values.into_chunked_array().map_err(PyErr::from)?;
        match column.field().data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Ok(Self(column.chunks().to_vec()))
            }
            other => Err(PyTypeError::new_err(format!(
                "a column of {other}; one of strings is needed"
            ))),
        }
    }

    /// Each text, `None` where the column has null.
    pub(crate) fn texts(&self) -> Vec<Option<&str>> {
        let mut texts = Vec::new();
        for chunk in &self.0 {
            match chunk.data_type() {
                DataType::Utf8 => texts.extend(chunk.as_string::<i32>().iter()),
                DataType::LargeUtf8 => texts.extend(chunk.as_string::<i64>().iter()),
                _ => texts.extend(chunk.as_string_view().iter()),
            }
        }
        texts
    }
}

/// Names the row of an error, which counts only texts that are not null.
pub(crate) fn row_of(texts: &[Option<&str>], text: usize) -> usize {
    let there = (texts.iter().enumerate()).filter(|(_, text)| text.is_some());
    there.map(|(row, _)| row).nth(text).unwrap_or(text)
}

/// An Arrow array, for any library that takes one: `pyarrow.array(result)`, `pyarrow.record_batch(result)`,
/// `polars.Series(result)`.
#[pyclass(frozen, module = "centroid")]
pub struct ArrowArray {
    array: ArrayRef,
    field: Arc<Field>,
}

impl ArrowArray {
    fn new(array: ArrayRef, nullable: bool) -> Self {
        let field = Arc::new(Field::new("", array.data_type().clone(), nullable));
        Self { array, field }
    }

    /// The best label of each text, its score, the tokens, and whether it was cut: a struct, or record batch.
    pub(crate) fn of_labels(texts: &[Option<&str>], found: &[Classification]) -> PyResult<Self> {
        let (mut labels, mut scores) = (StringBuilder::new(), Float32Builder::new());
        let (mut tokens, mut truncated) = (UInt32Builder::new(), BooleanBuilder::new());
        let mut found = found.iter();
        for text in texts {
            let of = text.and_then(|_| found.next());
            let best = of.map(|of| &of.labels[0]);
            labels.append_option(best.map(|best| &best.label));
            scores.append_option(best.map(|best| best.score));
            tokens.append_option(of.map(|of| of.tokens as u32));
            truncated.append_option(of.map(|of| of.truncated));
        }
        let fields = Fields::from(vec![
            Field::new("label", DataType::Utf8, true),
            Field::new("score", DataType::Float32, true),
            Field::new("tokens", DataType::UInt32, true),
            Field::new("truncated", DataType::Boolean, true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(labels.finish()),
            Arc::new(scores.finish()),
            Arc::new(tokens.finish()),
            Arc::new(truncated.finish()),
        ];
        let array = StructArray::try_new_with_length(fields, columns, None, texts.len());
        let array = array.map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(Self::new(Arc::new(array), false))
    }

    /// The vector of each text: lists of a fixed size, whose values are the runtime's own array.
    pub(crate) fn of_vectors(
        texts: &[Option<&str>],
        found: EmbeddingMatrix,
        dimensions: usize,
    ) -> PyResult<Self> {
        let there: Vec<bool> = texts.iter().map(Option::is_some).collect();
        let (values, nulls) = if there.iter().all(|there| *there) {
            (found.values, None)
        } else {
            // A null has values, too, which nobody looks at.
            let mut values = Vec::with_capacity(there.len() * dimensions);
            let mut rows = found.values.chunks_exact(dimensions);
            for there in &there {
                match there.then(|| rows.next()).flatten() {
                    Some(row) => values.extend_from_slice(row),
                    None => values.resize(values.len() + dimensions, 0.0),
                }
            }
            (values, Some(NullBuffer::from(there)))
        };
        let values: ArrayRef = Arc::new(Float32Array::new(ScalarBuffer::from(values), None));
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let size = i32::try_from(dimensions).map_err(|e| PyValueError::new_err(e.to_string()))?;
        let array = FixedSizeListArray::try_new(item, size, values, nulls);
        let array = array.map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(Self::new(Arc::new(array), true))
    }
}

#[pymethods]
impl ArrowArray {
    fn __len__(&self) -> usize {
        self.array.len()
    }

    fn __repr__(&self) -> String {
        let (count, of) = (self.array.len(), self.array.data_type());
        format!("<centroid.ArrowArray of {count} values: {of}>")
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        to_schema_pycapsule(py, &*self.field).map_err(PyErr::from)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        to_array_pycapsules(py, self.field.clone(), &*self.array, requested_schema)
            .map_err(PyErr::from)
    }
}
