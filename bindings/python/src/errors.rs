//! The runtime's errors as Python's exceptions, whose classes are in `centroid/_errors.py`.

use centroid::{Error, ErrorKind};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

static CLASSES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    let module = CLASSES.get_or_try_init(py, || {
        PyModule::import(py, "centroid._errors").map(Into::into)
    })?;
    Ok(module.bind(py).getattr(name)?.cast_into()?)
}

/// An exception for an error of the runtime.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let source = std::error::Error::source(error);
    let system = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    if let (ErrorKind::Io, Some(code)) =
        (error.kind(), system.and_then(std::io::Error::raw_os_error))
    {
        // Python picks the class, as FileNotFoundError, by the number.
        return PyOSError::new_err((code, error.to_string()));
    }
    let name = match error.kind() {
        ErrorKind::Io => return PyOSError::new_err(error.to_string()),
        ErrorKind::Format => "FormatError",
        ErrorKind::Checksum => "ChecksumError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::Config => "ConfigError",
        ErrorKind::Tokenizer => "TokenizerError",
        ErrorKind::TooLong => "TooLongError",
        ErrorKind::Input => "InputError",
        ErrorKind::Isa => "IsaError",
        _ => "CentroidError",
    };
    match class(py, name) {
        Ok(class) => PyErr::from_type(class, error.to_string()),
        Err(missing) => missing,
    }
}

/// The result of a call that ran without the interpreter's lock.
pub(crate) fn told<T>(py: Python<'_>, result: centroid::Result<T>) -> PyResult<T> {
    result.map_err(|error| raised(py, &error))
}
