//! The one error type: what went wrong, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of an [`Error`], for callers that react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused to read or write a file.
    Io,
    /// The bytes are not a valid artifact.
    Format,
    /// A stored checksum does not match the bytes it covers.
    Checksum,
    /// Valid, but from a newer version or outside what this crate implements.
    Unsupported,
    /// A trained checkpoint (weights or `config.json`) is incomplete or inconsistent.
    Checkpoint,
    /// A quantization plan or an option is wrong.
    Config,
    /// The tokenizer's files are missing or unreadable.
    Tokenizer,
    /// A text has more tokens than the model has positions.
    TooLong,
    /// Any other unusable input value.
    Input,
    /// The requested instruction set is unknown or not available here.
    Isa,
}

/// Everything that can go wrong in this crate.
///
/// [`Display`](fmt::Display) is one line that names the file, tensor and byte offset as far as
/// they are known.
///
/// ```
/// let error = centroid::Artifact::open("no/such/model.centroid").unwrap_err();
/// assert_eq!(error.kind(), centroid::ErrorKind::Io);
/// assert!(error.to_string().starts_with("no/such/model.centroid: "));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    text: Option<usize>,
    file: Option<PathBuf>,
    tensor: Option<String>,
    offset: Option<u64>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message in the form "what is wrong" (no final full stop).
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: one_line(message.into()),
            text: None,
            file: None,
            tensor: None,
            offset: None,
            source: None,
        }))
    }

    pub(crate) fn format(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, message)
    }

    pub(crate) fn io(file: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, source.to_string())
            .in_file(file)
            .caused_by(source)
    }

    /// Names the file, unless one is named already.
    pub(crate) fn in_file(mut self, file: impl AsRef<Path>) -> Self {
        self.0
            .file
            .get_or_insert_with(|| file.as_ref().to_path_buf());
        self
    }

    /// Names the tensor, unless one is named already.
    pub(crate) fn in_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.0.tensor.get_or_insert_with(|| one_line(tensor.into()));
        self
    }

    /// Names the byte offset in the file, unless one is named already.
    pub(crate) fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Names the text of a call by its number from 0, unless one is named already.
    #[cfg(feature = "text")]
    pub(crate) fn in_text(mut self, text: usize) -> Self {
        self.0.text.get_or_insert(text);
        self
    }

    pub(crate) fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong, without the place: the file, tensor, text and offset are left out.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The text of a call that the error is about, by its number from 0.
    pub fn text(&self) -> Option<usize> {
        self.0.text
    }

    /// The file that the error is about, where there is one.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The tensor that the error is about, where there is one.
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// The byte offset in [`file`](Self::file) that the error is about, where there is one.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

/// Control characters escaped: names and values in messages come from files, and an error is one
/// line.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            message,
            text,
            file,
            tensor,
            offset,
            ..
        } = &*self.0;
        if let Some(file) = file {
            write!(f, "{}: ", one_line(file.display().to_string()))?;
        }
        if let Some(tensor) = tensor {
            write!(f, "tensor {tensor}: ")?;
        }
        if let Some(text) = text {
            write!(f, "text {text}: ")?;
        }
        f.write_str(message)?;
        if let Some(offset) = offset {
            write!(f, " (at byte {offset})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let error = Error::new(ErrorKind::Input, "a\nb")
            .in_file("c\rd")
            .in_tensor("e\tf");
        assert_eq!(error.to_string(), "c\\rd: tensor e\\tf: a\\nb");
    }
}
