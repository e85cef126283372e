//! One tensor of a checkpoint: where its bytes are, and how they are read.

use std::collections::HashMap;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use crate::artifact::Bytes;
use crate::error::{Error, ErrorKind, Result};

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) file: usize,
    /// Its name in the file, if it has been given another.
    pub(super) original: Option<String>,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// In elements; `None` is row-major without gaps.
    pub(super) strides: Option<Vec<usize>>,
    /// From the first element on.
    pub(super) bytes: Bytes,
    /// Why its elements cannot be read.
    pub(super) fault: Option<String>,
}

/// Types of elements, as far as weights or codes have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    /// Of safetensors, and of no use here.
    Other(Dtype),
}

impl DType {
    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            other => Self::Other(other),
        }
    }

    /// Of one element.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Other(other) => other.bitsize().div_ceil(8),
        }
    }

    /// Whether weights may be of it.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    fn name(self) -> String {
        match self {
            Self::Other(other) => other.to_string(),
            known => format!("{known:?}").to_uppercase(),
        }
    }
}

impl Entry {
    /// Floating-point values, or what is wrong.
    pub(super) fn values(&self) -> std::result::Result<Vec<f32>, String> {
        let values = match self.dtype {
            DType::F64 => self.gather(|b| f64::from_le_bytes(b) as f32),
            DType::F32 => self.gather(f32::from_le_bytes),
            DType::F16 => self.gather(|b| f16::from_le_bytes(b).to_f32()),
            DType::Bf16 => self.gather(|b| bf16::from_le_bytes(b).to_f32()),
            other => {
                let name = other.name();
                return Err(format!(
                    "values of type {name}; F64, F32, F16 and BF16 can be read"
                ));
            }
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(format!("value {at} is {}", values[at])),
            None => Ok(values),
        }
    }

    /// Integers, or what is wrong.
    pub(super) fn integers(&self) -> std::result::Result<Vec<i64>, String> {
        Ok(match self.dtype {
            DType::I64 => self.gather(i64::from_le_bytes),
            DType::I32 => self.gather(|b| i64::from(i32::from_le_bytes(b))),
            DType::I16 => self.gather(|b| i64::from(i16::from_le_bytes(b))),
            DType::I8 => self.gather(|b| i64::from(i8::from_le_bytes(b))),
            DType::U8 => self.gather(|b| i64::from(u8::from_le_bytes(b))),
            other => {
                return Err(format!(
                    "values of type {} where integers are",
                    other.name()
                ));
            }
        })
    }

    /// The bytes from a row on.
    pub(super) fn behind_row(&self, row: usize) -> Bytes {
        let stride = match &self.strides {
            Some(strides) => strides[0],
            None => self.shape[1..].iter().product(),
        };
        let start = (row * stride * self.dtype.bytes()).min(self.bytes.len());
        (self.bytes.slice(start..self.bytes.len())).unwrap_or_else(|| self.bytes.clone())
    }

    /// The elements in row-major order.
    fn gather<const N: usize, T>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        let elements = self.bytes.as_chunks::<N>().0;
        let count = self.shape.iter().product();
        let Some(strides) = &self.strides else {
            return elements.iter().take(count).map(|&b| read(b)).collect();
        };
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        while values.len() < count {
            values.push(read(elements[at]));
            // The next index: the last dimension runs fastest.
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                at += strides[dimension];
                if index[dimension] < self.shape[dimension] {
                    break;
                }
                at -= strides[dimension] * self.shape[dimension];
                index[dimension] = 0;
            }
        }
        values
    }
}

/// The tensors of a file in safetensors.
pub(super) fn safetensors(file: usize, bytes: &Bytes) -> Result<HashMap<String, Entry>> {
    let bad = |e: safetensors::SafeTensorError| {
        let message = format!("not a valid safetensors file: {e}");
        Error::new(ErrorKind::Checkpoint, message)
    };
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(bad)?;
    // Checks that offsets lie within the file, which the metadata alone does not.
    SafeTensors::deserialize(bytes).map_err(bad)?;
    let data = header + 8;
    let mut entries = HashMap::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let range = bytes
            .slice(data + start..data + end)
            .ok_or_else(|| bad(safetensors::SafeTensorError::MetadataIncompleteBuffer))?;
        let entry = Entry {
            file,
            original: None,
            dtype: DType::of(info.dtype),
            shape: info.shape.clone(),
            strides: None,
            bytes: range,
            fault: None,
        };
        entries.insert(name, entry);
    }
    Ok(entries)
}
