//! Weights of a trained model: in safetensors or as `torch.save` wrote them, in one file or several behind
//! an index.

mod prefix;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::coded::{Coded, Size};
use super::entry::{self, DType, Entry};
use super::pickle;
use crate::artifact::Bytes;
use crate::error::{Error, ErrorKind, Result};
use crate::quant::CentroidType;
use crate::quant::pq::Pq;

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
    /// Tensors that are codes and centroids, by the name of the matrix.
    coded: BTreeMap<String, Coded>,
    notes: Vec<String>,
    arguments: BTreeMap<String, String>,
}

const INDEX_ENDING: &str = ".index.json";
/// What a directory may hold, the first that is there is read.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// The index of the largest sharded models has some 100 kB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

impl Checkpoint {
    /// Opens a file, or what a directory holds: `model.safetensors`, the files of
    /// `model.safetensors.index.json`, `pytorch_model.bin` or those of its index.
    ///
    /// In a file of `torch.save` the weights may stand under a name, as `state_dict` or `model`; averaged ones
    /// (EMA) are preferred. Nothing that such a file names is run: names that are not known are errors.
    ///
    /// What wrappers of training put before every name (`module.`, `_orig_mod.`, `model.` and `net.`, also one
    /// behind another) is left out of the names, and the count that `AveragedModel` keeps is no tensor here.
    ///
    /// # Errors
    /// If there is no such file or it is malformed; the error names the file and, as far as
    /// there are any, the offset and the tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut checkpoint = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            coded: BTreeMap::new(),
            notes: Vec::new(),
            arguments: BTreeMap::new(),
        };
        checkpoint.add(path.as_ref())?;
        checkpoint.unwrap_names()?;
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            return self.open_single(path);
        }
        for name in FILES {
            let single = path.join(name);
            if single.exists() {
                return self.open_single(&single);
            }
            let index = path.join(format!("{name}{INDEX_ENDING}"));
            if index.exists() {
                return self.open_shards(path, &index);
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
        if bytes.starts_with(b"version https://git-lfs") {
            let message = "a pointer of Git LFS, and not the weights: git lfs pull fetches those";
            return Err(Error::new(ErrorKind::Checkpoint, message).in_file(&path));
        }
        let entries = if pickle::is_pickle(&bytes) {
            self.pickled(file, &bytes)
        } else {
            entry::safetensors(file, &bytes)
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
        let entry = |tensor: pickle::Found| {
            let entry = Entry {
                file,
                original: None,
                dtype: tensor.dtype,
                shape: tensor.shape,
                strides: Some(tensor.strides),
                bytes: tensor.bytes,
                fault: tensor.fault,
            };
            (tensor.name, entry)
        };
        Ok(contents.tensors.into_iter().map(entry).collect())
    }

    /// Gives tensors the names that they have in the model itself. All files count: one shard may hold nothing
    /// but what stands under `model.` in the model.
    fn unwrap_names(&mut self) -> Result<()> {
        (self.tensors).retain(|name, entry| !prefix::is_count(name, &entry.shape));
        let len = prefix::common(self.tensors.keys().map(String::as_str));
        match len {
            0 => Ok(()),
            _ => self.rename(|name| name.get(len..).map(str::to_owned)),
        }
    }

    /// The tensors' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.tensors.keys().chain(self.coded.keys());
        names.map(String::as_str)
    }

    /// The shape of a tensor, outermost dimension first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match (self.tensors.get(name), self.coded.get(name)) {
            (Some(entry), _) => Some(&entry.shape),
            (None, Some(coded)) => Some(coded.shape()),
            (None, None) => None,
        }
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let coded = || self.coded.get(name).map(Coded::assignments);
        let entry = self.tensors.get(name).or_else(coded)?;
        self.files.get(entry.file).map(|(path, _)| path.as_path())
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
        let values = match self.coded.get(name) {
            Some(coded) => coded.values(),
            None => self.entry(name)?.values(),
        };
        values.map_err(|message| self.fail(name, message))
    }

    /// The codes and centroids of a matrix that has them: those of a network quantized by fairseq.
    ///
    /// # Errors
    /// For codes without a centroid and values that do not fit `to`.
    pub(super) fn codes(&self, name: &str, to: CentroidType) -> Option<Result<Pq>> {
        let coded = self.coded.get(name)?;
        Some((coded.pq(to)).map_err(|e| self.locate(name, e)))
    }

    /// How a matrix that has codes is stored.
    pub(super) fn coded(&self, name: &str) -> Option<Size> {
        self.coded.get(name).map(Coded::size)
    }

    /// The values of a tensor of integers, row-major.
    ///
    /// # Errors
    /// If it is missing or not of an integer type.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let integers = self.entry(name)?.integers();
        integers.map_err(|message| self.fail(name, message))
    }

    /// Arguments of the program that trained the model, where the file has them (fairseq's do).
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).map(String::as_str)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        match self.tensors.get(name) {
            Some(Entry {
                fault: Some(fault), ..
            }) => Err(self.fail(name, fault.clone())),
            Some(entry) => Ok(entry),
            None => Err(self.fail(name, "missing".into())),
        }
    }

    fn fail(&self, name: &str, message: String) -> Error {
        self.locate(name, Error::new(ErrorKind::Checkpoint, message))
    }

    /// The first of its files.
    pub(super) fn first_file(&self) -> Option<&Path> {
        self.files.first().map(|(path, _)| path.as_path())
    }

    /// Names tensor and file as they are in the checkpoint.
    pub(super) fn locate(&self, name: &str, error: Error) -> Error {
        let coded = || self.coded.get(name).map(Coded::assignments);
        let entry = self.tensors.get(name).or_else(coded);
        let original = entry.and_then(|entry| entry.original.as_deref());
        let error = error.in_tensor(original.unwrap_or(name));
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

/// What reading under other names needs.
impl Checkpoint {
    /// Gives tensors the names that `to` says; those for which it has none keep theirs.
    ///
    /// # Errors
    /// If two get the same name.
    pub(super) fn rename(&mut self, to: impl Fn(&str) -> Option<String>) -> Result<()> {
        let mut tensors: BTreeMap<String, Entry> = BTreeMap::new();
        for (name, mut entry) in std::mem::take(&mut self.tensors) {
            let new = to(&name);
            if new.is_some() {
                entry.original.get_or_insert(name.clone());
            }
            let file = self.files.get(entry.file).map(|(path, _)| path.clone());
            if let Some(other) = tensors.insert(new.unwrap_or_else(|| name.clone()), entry) {
                let other = other.original.unwrap_or_default();
                let message = format!("is the same as {other}, which is there, too");
                let error = Error::new(ErrorKind::Checkpoint, message).in_tensor(name);
                return Err(match file {
                    Some(file) => error.in_file(file),
                    None => error,
                });
            }
        }
        self.tensors = tensors;
        Ok(())
    }

    /// Fails if there is a tensor `name` already, which another one, `of`, is to be.
    fn refuse(&self, name: &str, of: &str) -> Result<()> {
        let entry = match self.tensors.get(name) {
            Some(entry) => Some(entry.original.as_deref()),
            None => (self.coded.get(name)).map(|coded| coded.assignments().original.as_deref()),
        };
        match entry {
            None => Ok(()),
            Some(original) => {
                let other = original.unwrap_or(name);
                Err(self.fail(of, format!("is the same as {other}, which is there, too")))
            }
        }
    }

    /// Cuts a tensor into equal parts along its first dimension.
    ///
    /// # Errors
    /// If its rows cannot be divided among them.
    pub(super) fn split(&mut self, name: &str, parts: &[String]) -> Result<()> {
        let shape = self.entry(name)?.shape.clone();
        let rows = shape.first().copied().unwrap_or(0);
        if rows == 0 || !rows.is_multiple_of(parts.len()) {
            let message = format!("shape {shape:?} is not that of {} parts", parts.len());
            return Err(self.fail(name, message));
        }
        let Some(whole) = self.tensors.get(name).cloned() else {
            return Ok(());
        };
        let rows = rows / parts.len();
        for (number, part) in parts.iter().enumerate() {
            self.refuse(part, name)?;
            let mut entry = whole.clone();
            entry.original = Some(name.to_owned());
            entry.shape[0] = rows;
            entry.bytes = whole.behind_row(number * rows);
            self.tensors.insert(part.clone(), entry);
        }
        self.tensors.remove(name);
        Ok(())
    }

    /// Takes two tensors as the centroids and codes of a matrix of `rows` rows.
    ///
    /// # Errors
    /// If their shapes do not fit one another.
    pub(super) fn join(
        &mut self,
        (centroids, assignments): (&str, &str),
        name: String,
        rows: Option<usize>,
    ) -> Result<()> {
        self.refuse(&name, assignments)?;
        let mut codes = self.entry(assignments)?.clone();
        codes.original.get_or_insert_with(|| assignments.to_owned());
        let coded = Coded::new((self.entry(centroids)?.clone(), codes), rows);
        let coded = coded.map_err(|message| self.fail(assignments, message))?;
        self.tensors.remove(centroids);
        self.tensors.remove(assignments);
        self.coded.insert(name, coded);
        Ok(())
    }

    /// Gives a matrix that has codes another name, and its rows factors.
    pub(super) fn scale_codes(&mut self, name: &str, to: String, factors: Option<&[f64]>) {
        if let Some(mut coded) = self.coded.remove(name) {
            if let Some(factors) = factors {
                coded.scale(factors);
            }
            self.coded.insert(to, coded);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
        self.coded.remove(name);
    }

    /// Adds a tensor that no file has, or puts other values in the place of one. What is wrong with them is said
    /// of the tensor that they are made `of`, if there is one.
    pub(super) fn put(
        &mut self,
        name: &str,
        of: Option<&str>,
        shape: &[usize],
        values: &[f32],
    ) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let of = of.unwrap_or(name);
        let source = self.tensors.get(of);
        let source = source.or_else(|| self.coded.get(of).map(Coded::assignments));
        let file = source.map_or(usize::MAX, |source| source.file);
        let original = source.map(|source| source.original.clone().unwrap_or(of.to_owned()));
        self.coded.remove(name);
        let entry = Entry {
            file,
            original,
            dtype: DType::F32,
            shape: shape.to_vec(),
            strides: None,
            bytes: Bytes::copy(&bytes)?,
            fault: None,
        };
        self.tensors.insert(name.to_owned(), entry);
        Ok(())
    }
}
