//! Texts as Python has them.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

/// The name of a value's class, for messages.
pub(crate) fn kind(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().name();
    name.map_or_else(|_| "?".into(), |name| name.to_string())
}

/// Texts out of anything that gives `str`s one after the other, without copies of them.
pub(crate) fn texts(values: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<PyBackedStr>> {
    if values.is_instance_of::<PyString>() {
        // It gives its characters one after the other.
        let message = format!("{name} is a str; a list of them is needed");
        return Err(PyTypeError::new_err(message));
    }
    let iterator = (values.try_iter()).map_err(|_| {
        PyTypeError::new_err(format!("{name} is {}, not a list of str", kind(values)))
    })?;
    let one = |(i, value): (usize, PyResult<Bound<'_, PyAny>>)| {
        let value = value?;
        match value.cast::<PyString>() {
            // What cannot be UTF-8, as lone surrogates, is Python's own error.
            Ok(text) => PyBackedStr::try_from(text.clone()),
            Err(_) => Err(PyTypeError::new_err(format!(
                "{name}[{i}] is {}, not str",
                kind(&value)
            ))),
        }
    };
    iterator.enumerate().map(one).collect()
}

pub(crate) fn borrowed(texts: &[PyBackedStr]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

/// Pairs of texts: two lists of the same length.
pub(crate) fn pairs<'a>(
    firsts: &'a [PyBackedStr],
    seconds: &'a [PyBackedStr],
) -> PyResult<Vec<(&'a str, &'a str)>> {
    if firsts.len() != seconds.len() {
        return Err(pyo3::exceptions::PyValueError::new_err(format!(
            "{} texts and {} pairs; as many are needed",
            firsts.len(),
            seconds.len()
        )));
    }
    Ok(firsts
        .iter()
        .zip(seconds)
        .map(|(a, b)| (&**a, &**b))
        .collect())
}
