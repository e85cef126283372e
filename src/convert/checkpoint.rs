//! Weights in safetensors: one file, or several behind an index.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::artifact::Bytes;
use crate::error::{Error, ErrorKind, Result};

/// Mapped weight files and where each tensor stands.
pub(super) struct Checkpoint {
    files: Vec<(PathBuf, Bytes)>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The index of the largest sharded models has some 100 kB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

impl Checkpoint {
    /// Opens `model.safetensors` or, without one, the files of `model.safetensors.index.json`.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let single = directory.join(SINGLE);
        if single.exists() {
            let mut checkpoint = Self {
                files: Vec::new(),
                tensors: BTreeMap::new(),
            };
            for (name, entry) in checkpoint.add_file(single)? {
                checkpoint.tensors.insert(name, entry);
            }
            return Ok(checkpoint);
        }
        let index = directory.join(INDEX);
        if index.exists() {
            return Self::open_shards(directory, &index);
        }
        let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"]
            .into_iter()
            .find(|name| directory.join(name).exists());
        Err(Error::new(
            ErrorKind::Checkpoint,
            match pickled {
                Some(name) => format!(
                    "no {SINGLE}; {name} is a pickle, which can run code when it is read: save the \
                     model again with safe_serialization=True"
                ),
                None => format!("neither {SINGLE} nor {INDEX} is there"),
            },
        )
        .in_file(directory))
    }

    fn open_shards(directory: &Path, index: &Path) -> Result<Self> {
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
        let mut checkpoint = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
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
                let entries = checkpoint.add_file(directory.join(file))?;
                shards.insert(file, entries);
            }
            let entry = shards[file].get(name).cloned().ok_or_else(|| {
                Error::new(
                    ErrorKind::Checkpoint,
                    format!("missing, though {INDEX} places it here"),
                )
                .in_tensor(name)
                .in_file(directory.join(file))
            })?;
            checkpoint.tensors.insert(name.clone(), entry);
        }
        Ok(checkpoint)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<HashMap<String, Entry>> {
        let bytes = Bytes::map(&path)?;
        let bad = |e: safetensors::SafeTensorError| {
            Error::new(
                ErrorKind::Checkpoint,
                format!("not a valid safetensors file: {e}"),
            )
            .in_file(&path)
        };
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(bad)?;
        // Checks that offsets lie within the file, which the metadata alone does not.
        SafeTensors::deserialize(&bytes).map_err(bad)?;
        let data = header + 8;
        let mut entries = HashMap::new();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let range = bytes
                .slice(data + start..data + end)
                .ok_or_else(|| bad(safetensors::SafeTensorError::MetadataIncompleteBuffer))?;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes: range,
            };
            entries.insert(name, entry);
        }
        self.files.push((path, bytes));
        Ok(entries)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| &entry.shape[..])
    }

    /// The file that holds `name`.
    pub(super) fn file_of(&self, name: &str) -> Option<&Path> {
        let entry = self.tensors.get(name)?;
        Some(&self.files[entry.file].0)
    }

    /// The values of a tensor as `f32`, row-major.
    ///
    /// # Errors
    /// If it is not of a floating-point type or holds a value that is not finite.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>> {
        let fail = |message: String| {
            let error = Error::new(ErrorKind::Checkpoint, message).in_tensor(name);
            match self.file_of(name) {
                Some(file) => error.in_file(file),
                None => error,
            }
        };
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| fail("missing".into()))?;
        let bytes = &entry.bytes;
        let values: Vec<f32> = match entry.dtype {
            Dtype::F32 => (bytes.as_chunks().0.iter())
                .map(|&b| f32::from_le_bytes(b))
                .collect(),
            Dtype::F16 => (bytes.as_chunks().0.iter())
                .map(|&b| f16::from_le_bytes(b).to_f32())
                .collect(),
            Dtype::BF16 => (bytes.as_chunks().0.iter())
                .map(|&b| bf16::from_le_bytes(b).to_f32())
                .collect(),
            other => {
                return Err(fail(format!(
                    "values of type {other:?}; F32, F16 and BF16 can be read"
                )));
            }
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(fail(format!("value {at} is {}", values[at]))),
            None => Ok(values),
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
