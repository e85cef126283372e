//! PyTorch's own checkpoint files: a pickle that describes tensors, and their bytes beside it.
//!
//! A pickle is a program for a stack machine, and Python's runs whatever it names. This one knows
//! the few calls that state dictionaries are made of ([`calls`]); any other name is an error, and
//! nothing is ever run. Two containers are read: the zip archive of torch 1.6 and later
//! ([`archive`]) and the stream of pickles before it ([`legacy`]). Tensor bytes stay where they
//! are in the mapped file.
//!
//! What a hostile file can make this do is bounded: lengths are checked against the bytes that
//! are left, one instruction makes at most one value, there are at most [`MAX_STEPS`] of them
//! (copies counted), values stand in a list and not inside one another, so nothing recurses, and a
//! tensor has no more elements than its storage.

mod archive;
mod calls;
mod legacy;
mod machine;
mod values;

#[cfg(test)]
mod tests;

use self::values::{Object, Tensor, Value, Values};
use super::entry::DType;
use crate::artifact::Bytes;
use crate::error::{Error, ErrorKind, Result};

/// Instructions of one pickle. A tensor takes some 50 of them.
const MAX_STEPS: usize = 2 << 20;

/// Under which names weights stand in a training checkpoint; averaged weights (EMA) come first, as they
/// are what its authors evaluate.
const WRAPPERS: [&str; 9] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
];
const ZIP: &[u8] = b"PK\x03\x04";
/// Wrappers within wrappers.
const MAX_DEPTH: usize = 4;

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
    pub(super) arguments: Vec<(String, String)>,
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

/// Where the weights are in the object that was saved, and what they are: names and tensors.
fn state_dict<'a>(
    values: &'a Values<'a>,
    root: Value<'a>,
) -> Result<(Vec<(&'a str, &'a Tensor<'a>)>, String)> {
    let (mut at, mut path) = (root, Vec::new());
    for _ in 0..=MAX_DEPTH {
        let Some(entries) = values.dict(at) else {
            break;
        };
        let tensors: Vec<_> = (entries.iter())
            .filter_map(|&(key, value)| match (key, values.object(value)) {
                (Value::Text(name), Some(Object::Tensor(tensor))) => Some((name, tensor)),
                _ => None,
            })
            .collect();
        if !tensors.is_empty() {
            return Ok((tensors, path.join(".")));
        }
        let inner = WRAPPERS.iter().find_map(|&wrapper| {
            let value = values.entry(at, wrapper)?;
            values.dict(value).is_some().then_some((wrapper, value))
        });
        match inner {
            Some((wrapper, value)) => {
                path.push(wrapper);
                at = value;
            }
            None => break,
        }
    }
    let kind = values.kind(at);
    let keys: Vec<_> = (values.dict(at).into_iter().flatten())
        .filter_map(|(key, _)| match key {
            Value::Text(key) => Some(*key),
            _ => None,
        })
        .take(8)
        .collect();
    Err(fail(if keys.is_empty() {
        format!("no state dictionary: the file holds {kind}")
    } else {
        format!(
            "no state dictionary: among {} there is no tensor, nor a dictionary named {}",
            keys.join(", "),
            WRAPPERS.join(", ")
        )
    }))
}

/// What training programs keep beside the weights: fairseq's `args`, or its newer `cfg.model`.
fn arguments(values: &Values<'_>, root: Value<'_>) -> Vec<(String, String)> {
    let found = (values
        .entry(root, "args")
        .filter(|v| values.dict(*v).is_some()))
    .or_else(|| values.entry(values.entry(root, "cfg")?, "model"));
    let entries = found.and_then(|value| values.dict(value));
    (entries.into_iter().flatten())
        .filter_map(|(key, value)| match (key, value) {
            (Value::Text(key), Value::Text(value)) => Some(((*key).into(), (*value).into())),
            (Value::Text(key), Value::Int(value)) => Some(((*key).into(), value.to_string())),
            (Value::Text(key), Value::Bool(value)) => Some(((*key).into(), value.to_string())),
            (Value::Text(key), Value::Float(value)) => Some(((*key).into(), value.to_string())),
            _ => None,
        })
        .collect()
}

/// The contents, once it is known which bytes each storage has.
fn contents(
    values: &Values<'_>,
    root: Value<'_>,
    mut storage: impl FnMut(&str) -> Result<Bytes>,
) -> Result<Contents> {
    let (tensors, path) = state_dict(values, root)?;
    let tensors = (tensors.into_iter())
        .map(|(name, tensor)| {
            let found = storage(tensor.storage.key).and_then(|bytes| tensor.place(name, &bytes));
            found.map_err(|e| e.in_tensor(name))
        })
        .collect::<Result<_>>()?;
    Ok(Contents {
        tensors,
        path,
        arguments: arguments(values, root),
    })
}
