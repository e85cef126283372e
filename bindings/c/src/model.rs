//! Opening models, which is the same for all kinds.

use std::ffi::{CString, c_char};
use std::path::Path;

use runtime::Artifact;

use crate::borrowed::{Place, give, string, values};
use crate::options::{self, Options};
use crate::status::{Fault, Status, c_string, run};

/// Where a model's bytes are.
#[derive(Clone, Copy)]
pub(crate) enum Bytes {
    File(*const c_char),
    Memory(*const u8, usize),
}

/// Opens a model and makes a handle of it.
///
/// # Safety
/// The path ends with a zero, or there are so many bytes; `options` and `out` are as their functions say.
pub(crate) unsafe fn open<T>(
    bytes: Bytes,
    options: *const Options,
    out: *mut *mut T,
    make: impl FnOnce(Artifact, runtime::Options) -> runtime::Result<T>,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let out = unsafe { Place::new(out, "out") }?;
        // SAFETY: what the caller promises.
        let options = unsafe { options::given(options) }?;
        let artifact = match bytes {
            // SAFETY: what the caller promises.
            Bytes::File(path) => Artifact::open(unsafe { self::path(path, "path") }?)?,
            Bytes::Memory(data, size) => {
                // SAFETY: what the caller promises.
                Artifact::from_bytes(unsafe { values(data, size, "data") }?)?
            }
        };
        out.set(give(make(artifact, options)?));
        Ok(())
    })
}

/// A path; on Unix of any bytes, elsewhere in UTF-8.
///
/// # Safety
/// As for [`string`].
pub(crate) unsafe fn path<'a>(text: *const c_char, name: &str) -> Result<&'a Path, Fault> {
    #[cfg(unix)]
    if !text.is_null() {
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: what the caller promises.
        let bytes = unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes();
        return Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)));
    }
    // SAFETY: what the caller promises.
    Ok(Path::new(unsafe { string(text, name) }?))
}

/// Labels as C has strings.
pub(crate) struct Labels(Vec<CString>);

impl Labels {
    pub(crate) fn new(labels: &[String]) -> Self {
        Self(labels.iter().map(|label| c_string(label)).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A label, or NULL where there is none of that number.
    pub(crate) fn get(&self, index: usize) -> *const c_char {
        self.0
            .get(index)
            .map_or(std::ptr::null(), |label| label.as_ptr())
    }
}
