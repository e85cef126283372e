//! Weights of a trained model: in safetensors or as `torch.save` wrote them, in one file or several behind
//! an index.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::pickle;
use crate::artifact::Bytes;
use crate::error::{Error, ErrorKind, Result};

/// The tensors of a trained checkpoint: mapped files, and where each tensor stands.
///
/// ```no_run
/// # fn main() -> centroid::Result<()> {
/// let checkpoint = centroid::convert::Checkpoint::open("pytorch_model.bin")?;
/// for name in checkpoint.names() {
///     println!("{name}: {:?}", checkpoint.shape(name));
/// }
/// # Ok(())
/// # }
/// ```
pub struct Checkpoint {
    files: Vec<(PathBuf, Bytes)>,
    tensors: BTreeMap<String, Entry>,
    notes: Vec<String>,
    arguments: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Entry {
    file: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// In elements; `None` is row-major without gaps.
    strides: Option<Vec<usize>>,
    /// From the first element on.
    bytes: Bytes,
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

    fn name(self) -> String {
        match self {
            Self::Other(other) => other.to_string(),
            known => format!("{known:?}").to_uppercase(),
        }
    }
}

const INDEX_ENDING: &str = ".index.json";
/// What a directory may hold, the first that is there is read.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// The index of the largest sharded models has some 100 kB.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// What wrappers of training put before each name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

impl Checkpoint {
    /// Opens a file, or what a directory holds: `model.safetensors`, the files of
    /// `model.safetensors.index.json`, `pytorch_model.bin` or those of its index.
    ///
    /// In a file of `torch.save` the weights may stand under a name, as `state_dict` or `model`; averaged ones
    /// (EMA) are preferred. Nothing that such a file names is run: names that are not known are errors.
    ///
    /// # Errors
    /// If there is no such file or it is malformed; the error names the file and, as far as
    /// there are any, the offset and the tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut checkpoint = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            notes: Vec::new(),
            arguments: BTreeMap::new(),
        };
        if !path.is_dir() {
            checkpoint.open_single(path)?;
            return Ok(checkpoint);
        }
        for name in FILES {
            let single = path.join(name);
            if single.exists() {
                checkpoint.open_single(&single)?;
                return Ok(checkpoint);
            }
            let index = path.join(format!("{name}{INDEX_ENDING}"));
            if index.exists() {
                checkpoint.open_shards(path, &index)?;
                return Ok(checkpoint);
            }
        }
        Err(Error::new(
            ErrorKind::Checkpoint,
            format!(
                "none of {} is there, nor {}{INDEX_ENDING}",
                FILES.join(", "),
                FILES[0]
            ),
        )
        .in_file(path))
    }

    fn open_single(&mut self, path: &Path) -> Result<()> {
        let entries = self.add_file(path.to_owned())?;
        self.tensors.extend(entries);
        Ok(())
    }

    fn open_shards(&mut self, directory: &Path, index: &Path) -> Result<()> {
        let bad = |message: String| Error::new(ErrorKind::Checkpoint, message).in_file(index);
        let size = fs::metadata(index).map_err(|e| Error::io(index, e))?.len();
        if size > MAX_INDEX_BYTES {
            return Err(bad(format!("{size} bytes are too many for an index")));
        }
        let text = fs::read(index).map_err(|e| Error::io(index, e))?;
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        let map = json
            .get("weight_map")
            .and_then(|map| map.as_object())
            .ok_or_else(|| bad("weight_map is missing or not an object".into()))?;
        let mut shards: HashMap<&str, HashMap<String, Entry>> = HashMap::new();
        for (name, file) in map {
            let file = file
                .as_str()
                .ok_or_else(|| bad(format!("weight_map.{name} is not a string")))?;
            let mut parts = Path::new(file).components();
            if !matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(_)), None)
            ) {
                return Err(bad(format!(
                    "weight_map.{name}: {file:?} is not a plain file name"
                )));
            }
            if !shards.contains_key(file) {
                let entries = self.add_file(directory.join(file))?;
                shards.insert(file, entries);
            }
            let entry = shards[file].get(name).cloned().ok_or_else(|| {
                Error::new(
                    ErrorKind::Checkpoint,
                    "missing, though the index places it here",
                )
                .in_tensor(name)
                .in_file(directory.join(file))
            })?;
            self.tensors.insert(name.clone(), entry);
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf) -> Result<HashMap<String, Entry>> {
        let bytes = Bytes::map(&path)?;
        let file = self.files.len();
        let entries = if pickle::is_pickle(&bytes) {
            self.pickled(file, &bytes)
        } else {
            safetensors_entries(file, &bytes)
        };
        let entries = entries.map_err(|e| e.in_file(&path))?;
        self.files.push((path, bytes));
        Ok(entries)
    }

    /// The tensors of a file of `torch.save`.
    fn pickled(&mut self, file: usize, bytes: &Bytes) -> Result<HashMap<String, Entry>> {
        let contents = pickle::read(bytes)?;
        if !contents.path.is_empty() {
            let note = format!("the weights stand under {:?} in the file", contents.path);
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.arguments.extend(contents.arguments);
        let mut tensors = contents.tensors;
        for prefix in PREFIXES {
            if tensors.iter().all(|tensor| tensor.name.starts_with(prefix)) {
                for tensor in &mut tensors {
                    tensor.name.drain(..prefix.len());
                }
            }
        }
        let entry = |tensor: pickle::Found| {
            let entry = Entry {
                file,
                dtype: tensor.dtype,
                shape: tensor.shape,
                strides: Some(tensor.strides),
                bytes: tensor.bytes,
            };
            (tensor.name, entry)
        };
        Ok(tensors.into_iter().map(entry).collect())
    }

    /// The tensors' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, outermost dimension first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| &entry.shape[..])
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let entry = self.tensors.get(name)?;
        Some(&self.files[entry.file].0)
    }

    /// What is to be known about where the weights came from, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The values of a tensor as `f32`, row-major.
    ///
    /// # Errors
    /// If it is missing, not of a floating-point type, or holds a value that is not finite.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        let values = match entry.dtype {
            DType::F64 => entry.gather(|b| f64::from_le_bytes(b) as f32),
            DType::F32 => entry.gather(f32::from_le_bytes),
            DType::F16 => entry.gather(|b| f16::from_le_bytes(b).to_f32()),
            DType::Bf16 => entry.gather(|b| bf16::from_le_bytes(b).to_f32()),
            other => {
                let message = format!(
                    "values of type {}; F64, F32, F16 and BF16 can be read",
                    other.name()
                );
                return Err(self.fail(name, message));
            }
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(self.fail(name, format!("value {at} is {}", values[at]))),
            None => Ok(values),
        }
    }

    /// The values of a tensor of integers, row-major.
    ///
    /// # Errors
    /// If it is missing or not of an integer type.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let entry = self.entry(name)?;
        Ok(match entry.dtype {
            DType::I64 => entry.gather(i64::from_le_bytes),
            DType::I32 => entry.gather(|b| i64::from(i32::from_le_bytes(b))),
            DType::I16 => entry.gather(|b| i64::from(i16::from_le_bytes(b))),
            DType::I8 => entry.gather(|b| i64::from(i8::from_le_bytes(b))),
            DType::U8 => entry.gather(|b| i64::from(u8::from_le_bytes(b))),
            other => {
                let message = format!("values of type {} where integers are", other.name());
                return Err(self.fail(name, message));
            }
        })
    }

    /// Arguments of the program that trained the model, where the file has them (fairseq's do).
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).map(String::as_str)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let entry = self.tensors.get(name);
        entry.ok_or_else(|| self.fail(name, "missing".into()))
    }

    fn fail(&self, name: &str, message: String) -> Error {
        let error = Error::new(ErrorKind::Checkpoint, message).in_tensor(name);
        match self.file_of(name) {
            Some(file) => error.in_file(file),
            None => error,
        }
    }

    /// SHA-256 over the weight files, in the order of their names. For a single file this is what
    /// `sha256sum` prints.
    pub(super) fn digest(&self) -> String {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let mut digest = Sha256::new();
        files.iter().for_each(|(_, bytes)| digest.update(&**bytes));
        let bytes = digest.finalize();
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl Entry {
    /// The elements in row-major order.
    fn gather<const N: usize, T>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        let elements = self.bytes.as_chunks::<N>().0;
        let count = self.shape.iter().product();
        let Some(strides) = &self.strides else {
            return elements.iter().map(|&b| read(b)).collect();
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
fn safetensors_entries(file: usize, bytes: &Bytes) -> Result<HashMap<String, Entry>> {
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
            dtype: DType::of(info.dtype),
            shape: info.shape.clone(),
            strides: None,
            bytes: range,
        };
        entries.insert(name, entry);
    }
    Ok(entries)
}
