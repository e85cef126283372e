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
//! that is read has no more elements than its storage.

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
    /// Why its elements cannot be read. Buffers that are no weights may be so.
    pub(super) fault: Option<String>,
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
    file: &Bytes,
    values: &Values<'_>,
    root: Value<'_>,
    mut storage: impl FnMut(&str) -> Result<Bytes>,
) -> Result<Contents> {
    let (found, path) = weights::find(values, root)?;
    let mut tensors = Vec::with_capacity(found.len());
    // A fault is one where the tensor is used, and at once where sizes could not be trusted or all have one.
    let mut at_fault = None;
    for (name, tensor) in found {
        values
            .budget
            .charge(TENSOR_STEPS + 2 * tensor.shape.len())?;
        let placed = storage(tensor.storage.key).and_then(|bytes| tensor.place(name, &bytes));
        let placed = placed.map_err(|e| e.in_tensor(name))?;
        if let Some(fault) = &placed.fault {
            let error = || fail(fault).in_tensor(name);
            if tensor.len().is_none_or(|len| len > file.len()) {
                return Err(error());
            }
            at_fault.get_or_insert_with(error);
        }
        tensors.push(placed);
    }
    if let Some(error) = at_fault
        && tensors.iter().all(|tensor| tensor.fault.is_some())
    {
        return Err(error);
    }
    Ok(Contents {
        tensors,
        path,
        arguments: weights::arguments(values, root)?,
    })
}
