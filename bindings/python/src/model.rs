//! What all models have in common: where they are from, how they run, and that they outlive a fork.

use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use centroid::{Artifact, Mode, Options, Truncation};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::told;

/// How a model runs, as its constructor was told.
pub(crate) struct Settings {
    threads: usize,
    mode: String,
    isa: Option<String>,
    max_length: Option<usize>,
    truncation: bool,
}

impl Settings {
    pub(crate) fn new(threads: usize, mode: &str, isa: Option<String>) -> Self {
        Self::of_texts(threads, mode, isa, None, false)
    }

    pub(crate) fn of_texts(
        threads: usize,
        mode: &str,
        isa: Option<String>,
        max_length: Option<usize>,
        truncation: bool,
    ) -> Self {
        Self {
            threads,
            mode: mode.into(),
            isa,
            max_length,
            truncation,
        }
    }

    fn options(&self) -> PyResult<Options> {
        let mode = [Mode::Int8, Mode::Exact]
            .into_iter()
            .find(|mode| mode.name() == self.mode);
        let Some(mode) = mode else {
            let message = format!("mode {:?} is neither \"int8\" nor \"exact\"", self.mode);
            return Err(PyValueError::new_err(message));
        };
        let mut options = Options::new().threads(self.threads).mode(mode);
        if let Some(name) = &self.isa {
            options = options.isa(name.as_str());
        }
        if let Some(tokens) = self.max_length {
            options = options.max_length(tokens);
        }
        if self.truncation {
            options = options.truncation(Truncation::Truncate);
        }
        Ok(options)
    }

    /// As the constructor takes them.
    fn keywords<'py>(&self, py: Python<'py>, of_texts: bool) -> PyResult<Bound<'py, PyDict>> {
        let keywords = PyDict::new(py);
        keywords.set_item("threads", self.threads)?;
        keywords.set_item("mode", &self.mode)?;
        keywords.set_item("isa", &self.isa)?;
        if of_texts {
            keywords.set_item("max_length", self.max_length)?;
            keywords.set_item("truncation", self.truncation)?;
        }
        Ok(keywords)
    }
}

/// A pipeline of the runtime.
pub(crate) trait Pipeline: Sized + Send + Sync {
    /// Whether the options about tokens are for it.
    const OF_TEXTS: bool;

    fn new(artifact: Artifact, options: Options) -> centroid::Result<Self>;
}

/// A model that was opened.
pub(crate) struct Model<P> {
    artifact: Artifact,
    options: Options,
    settings: Settings,
    /// As an absolute path; `None` if it was opened in memory.
    path: Option<PathBuf>,
    /// The pipeline, and the process that made it.
    made: Mutex<(u32, Arc<P>)>,
}

impl<P: Pipeline> Model<P> {
    pub(crate) fn open(py: Python<'_>, path: PathBuf, settings: Settings) -> PyResult<Self> {
        let options = settings.options()?;
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let opened = py.detach(|| {
            let artifact = Artifact::open(&path)?;
            P::new(artifact.clone(), options.clone()).map(|made| (artifact, made))
        });
        let (artifact, made) = told(py, opened)?;
        Ok(Self::of(artifact, options, settings, Some(absolute), made))
    }

    pub(crate) fn from_bytes(py: Python<'_>, bytes: &[u8], settings: Settings) -> PyResult<Self> {
        let options = settings.options()?;
        let opened = py.detach(|| {
            let artifact = Artifact::from_bytes(bytes)?;
            P::new(artifact.clone(), options.clone()).map(|made| (artifact, made))
        });
        let (artifact, made) = told(py, opened)?;
        Ok(Self::of(artifact, options, settings, None, made))
    }

    fn of(
        artifact: Artifact,
        options: Options,
        settings: Settings,
        path: Option<PathBuf>,
        made: P,
    ) -> Self {
        Self {
            artifact,
            options,
            settings,
            path,
            made: Mutex::new((process::id(), Arc::new(made))),
        }
    }

    /// The pipeline. After a fork its threads are those of the parent, and a call would wait for them for ever:
    /// the child makes a new one.
    ///
    /// A fork happens with the interpreter's lock held, as does this: no lock of ours is held in between.
    pub(crate) fn pipeline(&self, py: Python<'_>) -> PyResult<Arc<P>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let process = process::id();
        if made.0 != process {
            let new = told(py, P::new(self.artifact.clone(), self.options.clone()))?;
            let of_parent = std::mem::replace(&mut *made, (process, Arc::new(new)));
            // Its threads are not there to be ended.
            std::mem::forget(of_parent);
        }
        Ok(made.1.clone())
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// What `pickle` calls the class with.
    pub(crate) fn arguments<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let Some(path) = &self.path else {
            let message = "a model that was opened in memory has no path to be pickled by";
            return Err(PyTypeError::new_err(message));
        };
        let path = PyTuple::new(py, [path.as_os_str()])?;
        Ok((path, self.settings.keywords(py, P::OF_TEXTS)?))
    }

    /// `<centroid.NAME of FILE (ISA)>`
    pub(crate) fn shown(&self, name: &str, isa: &str) -> String {
        let of = match &self.path {
            Some(path) => format!("{}", path.display()),
            None => "bytes".into(),
        };
        format!("<centroid.{name} of {of} ({isa})>")
    }
}
