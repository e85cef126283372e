//! The `.centroid` file: header, sections, checks, reading and writing.
//!
//! `format-spec.md` is the normative description. This module knows no layers: what a tensor means
//! to a model is the model's business.

mod info;
mod limits;
mod map;
mod reader;
mod tensor;
#[cfg(test)]
mod tests;
pub(crate) mod v1;
mod values;
#[cfg(feature = "convert")]
mod writer;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use info::{PqInfo, TensorInfo, ZeroPointInfo};
pub(crate) use limits::{MAX_LABELS, MAX_LAYERS};
pub(crate) use map::Bytes;
pub(crate) use reader::StoredTokenizer;
pub(crate) use tensor::{Bits, StoredCodebook, StoredZero, Tensor, Values};
pub use v1::{Group, Layout, ModelKind, Scheme};
#[cfg(feature = "train")]
pub(crate) use writer::remove_abandoned;
#[cfg(feature = "convert")]
pub(crate) use writer::{
    NewCodebook, NewValues, NewZero, Writer, check_target, refuse_existing, with_tokenizer,
    write_file,
};

use crate::error::{Error, ErrorKind, Result};
use v1::SectionKind;

/// An open `.centroid` file, checked and ready to be used in place.
///
/// Cloning is cheap; clones share the bytes.
#[derive(Clone)]
pub struct Artifact {
    parsed: std::sync::Arc<reader::Parsed>,
    path: Option<PathBuf>,
    file_bytes: u64,
}

impl Artifact {
    /// Maps the file at `path` into memory and checks all of it: preamble, header, checksums,
    /// shapes and values. Nothing is copied; processes that open the same file share its pages.
    ///
    /// The file must not be changed in place or cut short while it is open: reading a page that a
    /// truncated file no longer has ends the process with `SIGBUS`, and changed bytes are no
    /// longer checked. Replacing the file by renaming another over it is safe, and is what this
    /// crate's own writer does. Use [`Artifact::read`] for files that others may truncate.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be mapped, [`ErrorKind::Checksum`] if it is damaged,
    /// [`ErrorKind::Unsupported`] if it is of a newer kind, [`ErrorKind::Format`] otherwise; each
    /// names the file and, as far as known, the tensor and the byte offset.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(Bytes::map(path)?, Some(path))
    }

    /// Like [`Artifact::open`], but reads the file into memory of its own.
    ///
    /// # Errors
    /// As for [`Artifact::open`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(Bytes::read(path)?, Some(path))
    }

    /// Opens an artifact from bytes in memory, for example from `include_bytes!`. The bytes are
    /// copied once, to an address that is a multiple of 64.
    ///
    /// # Errors
    /// As for [`Artifact::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(Bytes::copy(bytes)?, None)
    }

    /// Opens an artifact from the next `len` bytes of a reader, which are read straight to where they
    /// stay. Fewer bytes are a file that was cut short.
    ///
    /// # Errors
    /// As for [`Artifact::open`].
    pub fn from_reader(reader: impl Read, len: u64) -> Result<Self> {
        let len = usize::try_from(len)
            .map_err(|_| Error::format("the file is larger than the address space"))?;
        Self::parse(Bytes::read_from(reader, len)?, None)
    }

    fn parse(bytes: Bytes, path: Option<&Path>) -> Result<Self> {
        let parsed = reader::parse(&bytes).map_err(|e| match path {
            Some(path) => e.in_file(path),
            None => e,
        })?;
        Ok(Self {
            parsed: std::sync::Arc::new(parsed),
            path: path.map(Path::to_path_buf),
            file_bytes: bytes.len() as u64,
        })
    }

    /// The path that the artifact was opened from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Size of the whole file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Version of the file format.
    pub fn format_version(&self) -> u32 {
        v1::VERSION
    }

    /// What kind of model it holds.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this version does not know the kind.
    pub fn kind(&self) -> Result<ModelKind> {
        let id = self.parsed.header.model.id;
        ModelKind::from_id(id).ok_or_else(|| {
            self.locate(Error::new(
                ErrorKind::Unsupported,
                format!("unknown model kind {id}"),
            ))
        })
    }

    /// The labels of a classifier, in the order of its logits.
    pub fn labels(&self) -> Option<&[String]> {
        self.parsed.labels.as_deref()
    }

    /// How the file came about: pairs of keys (`tool`, `source`, `source_sha256`, `recipe`, ...)
    /// and values.
    pub fn provenance(&self) -> &[(String, String)] {
        &self.parsed.provenance
    }

    /// Size of the tokenizer in bytes, 0 without one.
    pub fn tokenizer_bytes(&self) -> u64 {
        match &self.parsed.tokenizer {
            Some(StoredTokenizer::Json(bytes) | StoredTokenizer::Tables(bytes)) => {
                bytes.len() as u64
            }
            None => 0,
        }
    }

    /// What the tokenizer is stored as: `tokenizer tables`, which are used in place, or
    /// `tokenizer.json`.
    pub fn tokenizer_kind(&self) -> Option<&'static str> {
        let kind = match self.parsed.tokenizer.as_ref()? {
            StoredTokenizer::Json(_) => SectionKind::TokenizerJson,
            StoredTokenizer::Tables(_) => SectionKind::TokenizerTables,
        };
        Some(kind.name())
    }

    /// Bytes of everything that a forward pass needs: codes, codebooks, scales, zero points and
    /// plain values. Sections shared between tensors count once.
    pub fn weight_bytes(&self) -> u64 {
        let weights = self.parsed.sections.iter().filter(|s| {
            s.kind.is_some_and(|kind| {
                !matches!(
                    kind,
                    SectionKind::TokenizerJson | SectionKind::TokenizerTables | SectionKind::Labels
                )
            })
        });
        let sections: u64 = weights.map(|s| s.bytes.len() as u64).sum();
        let mut seen = HashSet::new();
        let mut scales = 0;
        for tensor in &self.parsed.tensors {
            let first = tensor.sections()[0].as_ptr();
            if tensor.header_bytes() > 0 && seen.insert(first) {
                scales += tensor.header_bytes();
            }
        }
        sections + scales
    }

    pub(crate) fn tokenizer(&self) -> Option<&StoredTokenizer> {
        self.parsed.tokenizer.as_ref()
    }

    pub(crate) fn model_body(&self) -> &[u8] {
        &self.parsed.header.model.body
    }

    pub(crate) fn stored(&self) -> &[Tensor] {
        &self.parsed.tensors
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<&Tensor> {
        match self.parsed.by_name.get(name) {
            Some(&index) => Ok(&self.parsed.tensors[index]),
            None => Err(self.locate(Error::format("missing").in_tensor(name))),
        }
    }

    /// Adds the file's name to an error.
    pub(crate) fn locate(&self, error: Error) -> Error {
        match &self.path {
            Some(path) => error.in_file(path),
            None => error,
        }
    }
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact")
            .field("path", &self.path)
            .field("file_bytes", &self.file_bytes)
            .field("tensors", &self.parsed.tensors.len())
            .finish()
    }
}
