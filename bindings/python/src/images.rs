//! Classifiers of images.

use std::path::PathBuf;

use centroid::{Artifact, Options};
use numpy::{PyArray3, PyArrayMethods, PyReadonlyArray3, PyReadonlyArray4, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::errors::told;
use crate::input::kind;
use crate::model::{Model, Pipeline, Settings};
use crate::results::ImageClassification;

impl Pipeline for centroid::ImageClassifier {
    const OF_TEXTS: bool = false;

    fn new(artifact: Artifact, options: Options) -> centroid::Result<Self> {
        Self::new(artifact, options)
    }
}

/// A picture as a caller has it.
enum Picture {
    File(PathBuf),
    Bytes(PyBackedBytes),
    /// Width and height, and pixels of red, green, blue and alpha.
    Pixels([u32; 2], Vec<u8>),
}

impl Picture {
    fn new(i: usize, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.extract::<PyBackedBytes>() {
            return Ok(Self::Bytes(bytes));
        }
        if let Ok(pixels) = value.cast::<PyArray3<u8>>() {
            return Self::pixels(i, &pixels.try_readonly()?);
        }
        let path = value.extract::<PathBuf>().map_err(|_| {
            let message = format!(
                "images[{i}] is {}, neither a path nor bytes nor an array of uint8 [height, width, 3]",
                kind(value)
            );
            PyTypeError::new_err(message)
        })?;
        Ok(Self::File(path))
    }

    fn pixels(i: usize, pixels: &PyReadonlyArray3<'_, u8>) -> PyResult<Self> {
        let view = pixels.as_array();
        let (height, width, colors) = view.dim();
        let size = u32::try_from(width).ok().zip(u32::try_from(height).ok());
        let (Some((width, height)), 3 | 4) = (size, colors) else {
            let message = format!(
                "images[{i}] has shape [{height}, {width}, {colors}]: 3 or 4 colours are needed"
            );
            return Err(PyValueError::new_err(message));
        };
        // Any strides.
        let mut rgba = Vec::with_capacity(view.len() / colors * 4);
        for pixel in view.rows() {
            rgba.extend([pixel[0], pixel[1], pixel[2], u8::MAX]);
        }
        Ok(Self::Pixels([width, height], rgba))
    }
}

/// Classifies images with the network in a `.centroid` file.
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
///     "int8" rounds the inputs of layers to 8 bits, "exact" does not and is slower.
/// isa
///     The instruction set by name, in place of the fastest one.
///
/// Any number of threads may use one at a time. It can be pickled: what opens the pickle opens the file again.
#[pyclass(frozen, subclass, module = "centroid")]
pub struct ImageClassifier(Model<centroid::ImageClassifier>);

#[pymethods]
impl ImageClassifier {
    #[new]
    #[pyo3(signature = (path, *, threads=0, mode="int8", isa=None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        threads: usize,
        mode: &str,
        isa: Option<String>,
    ) -> PyResult<Self> {
        Ok(Self(Model::open(
            py,
            path,
            Settings::new(threads, mode, isa),
        )?))
    }

    /// A model in memory: the bytes of a `.centroid` file, which are copied. It cannot be pickled.
    #[staticmethod]
    #[pyo3(signature = (data, *, threads=0, mode="int8", isa=None))]
    fn from_bytes(
        py: Python<'_>,
        data: &[u8],
        threads: usize,
        mode: &str,
        isa: Option<String>,
    ) -> PyResult<Self> {
        Ok(Self(Model::from_bytes(
            py,
            data,
            Settings::new(threads, mode, isa),
        )?))
    }

    /// Classifies pictures: each a path, the bytes of a JPEG, PNG or WebP file, or an array of uint8
    /// `[height, width, 3]` in red, green and blue (with 4, alpha is passed over), as `numpy.asarray` makes it of
    /// Pillow's. They are resized and cut as the network was trained.
    fn classify(
        &self,
        py: Python<'_>,
        images: Bound<'_, PyAny>,
    ) -> PyResult<Vec<ImageClassification>> {
        if images.is_instance_of::<PyString>() || images.extract::<PyBackedBytes>().is_ok() {
            let message = format!("images is {}; a list is needed", kind(&images));
            return Err(PyTypeError::new_err(message));
        }
        let mut pictures = Vec::new();
        for (i, image) in images.try_iter()?.enumerate() {
            pictures.push(Picture::new(i, &image?)?);
        }
        let model = self.0.pipeline(py)?;
        let all = py.detach(|| {
            let one = |picture: &Picture| match picture {
                Picture::File(path) => model.classify(&[path]),
                Picture::Bytes(bytes) => model.classify_bytes(&[bytes]),
                Picture::Pixels(size, pixels) => Ok(vec![model.classify_rgba(*size, pixels)?]),
            };
            pictures
                .iter()
                .enumerate()
                .map(|(i, picture)| one(picture).map_err(|e| (i, e)))
                .collect()
        });
        let all: Result<Vec<Vec<centroid::ImageClassification>>, _> = all;
        let all = all.map_err(|(i, error)| {
            let raised = crate::errors::raised(py, &error);
            // The message names a picture in memory by its number in the call, which was one of one.
            if !matches!(pictures[i], Picture::File(_)) && pictures.len() > 1 {
                let _ = raised
                    .value(py)
                    .call_method1("add_note", (format!("that is images[{i}]"),));
            }
            raised
        })?;
        Ok(all.into_iter().flatten().map(ImageClassification).collect())
    }

    /// Classifies images that are the network's input already, resized, cut and normalized: an array of float32
    /// `[images, size, size, 3]` in red, green and blue.
    fn classify_inputs(
        &self,
        py: Python<'_>,
        inputs: PyReadonlyArray4<'_, f32>,
    ) -> PyResult<Vec<ImageClassification>> {
        let model = self.0.pipeline(py)?;
        let size = model.size();
        let shape = inputs.shape();
        if shape[1..] != [size, size, 3] {
            let message = format!("shape {shape:?} where [images, {size}, {size}, 3] is needed");
            return Err(PyValueError::new_err(message));
        }
        let values = inputs
            .as_slice()
            .map_err(|_| PyValueError::new_err("the array is not contiguous"))?;
        let images: Vec<&[f32]> = values.chunks_exact(size * size * 3).collect();
        let found = told(py, py.detach(|| model.classify_inputs(&images)))?;
        Ok(found.into_iter().map(ImageClassification).collect())
    }

    /// The labels in the order of the model's logits.
    #[getter]
    fn labels(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.0.pipeline(py)?.labels().to_vec())
    }

    /// Height and width of the network's input.
    #[getter]
    fn size(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.pipeline(py)?.size())
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
        Ok(self.0.shown("ImageClassifier", self.isa(py)?))
    }
}
