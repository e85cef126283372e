//! PyTorch's own checkpoint files: a pickle that describes tensors, and their bytes beside it.
//!
//! A pickle is a program for a stack machine, and Python's runs whatever it names. This one knows
//! the few calls that state dictionaries are made of ([`calls`]); any other name is an error, and
//! nothing is ever run. Two containers are read: the zip archive of torch 1.6 and later
//! ([`archive`]) and the stream of pickles before it ([`legacy`]). Tensor bytes stay where they
//! are in the mapped file.
//!
//! What a hostile file can make this do is bounded: lengths are checked against the bytes that
//! are left, one instruction makes at most one value, there are at most [`MAX_STEPS`] of them in all
//! pickles of the file (copies counted), values stand in a list and not inside one another, so nothing
//! recurses, texts stay in the file but for names of at most [`MAX_NAME`] bytes, each copied once, and a tensor
//! has no more elements than its storage.

mod archive;
mod calls;
mod legacy;
mod machine;
mod values;
mod weights;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::values::{Value, Values};
use super::entry::DType;
use crate::artifact::Bytes;
use crate::error::{Error, ErrorKind, Result};

/// Instructions of a file's pickles. A tensor takes some 50 of them.
const MAX_STEPS: usize = 2 << 20;
/// Bytes of a tensor's or storage's name.
const MAX_NAME: usize = 4096;
/// What a tensor of the weights costs in instructions, its sizes and strides apart.
const TENSOR_STEPS: usize = 8;

const ZIP: &[u8] = b"PK\x03\x04";

/// A tensor of a checkpoint, in place.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
    /// From the tensor's first element to its storage's end.
    pub(super) bytes: Bytes,
}

/// What a file holds.
pub(super) struct Contents {
    pub(super) tensors: Vec<Found>,
    /// Where in the file's object the tensors were, as `model.state_dict`; empty for the root.
    pub(super) path: String,
    /// The arguments of the training program, where the file has them: numbers, texts and truths.
    pub(super) arguments: BTreeMap<String, String>,
}

/// Whether this may be a file of `torch.save`, and not one in safetensors: that has a header's length of eight
/// bytes, then the header, a JSON object.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    bytes.get(8) != Some(&b'{')
        && (bytes.starts_with(ZIP) || bytes.starts_with(b"\x80") || tar(bytes))
}

fn tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Reads the state dictionary of a file.
///
/// # Errors
/// With the offset in the file, as far as there is one.
pub(super) fn read(file: &Bytes) -> Result<Contents> {
    if file.starts_with(ZIP) {
        archive::read(file)
    } else if tar(file) {
        Err(fail(
            "a tar archive of a torch before 0.1.10: load it with a newer torch and save it again",
        ))
    } else {
        legacy::read(file)
    }
}

fn fail(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Checkpoint, message)
}

/// The contents, once it is known which bytes each storage has.
fn contents(
    values: &Values<'_>,
    root: Value<'_>,
    mut storage: impl FnMut(&str) -> Result<Bytes>,
) -> Result<Contents> {
    let (tensors, path) = weights::find(values, root)?;
    let tensors = (tensors.into_iter())
        .map(|(name, tensor)| {
            values
                .budget
                .charge(TENSOR_STEPS + 2 * tensor.shape.len())?;
            let found = storage(tensor.storage.key).and_then(|bytes| tensor.place(name, &bytes));
            found.map_err(|e| e.in_tensor(name))
        })
        .collect::<Result<_>>()?;
    Ok(Contents {
        tensors,
        path,
        arguments: weights::arguments(values, root)?,
    })
}
