//! Putting an artifact together and writing it so that no reader ever sees half a file.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use half::f16;
use xxhash_rust::xxh3::xxh3_64;

use super::Artifact;
use super::map::ALIGN;
use super::reader::StoredTokenizer;
use super::tensor::Bits;
use super::v1::{self, Group, Layout, ModelKind, Scheme, SectionKind};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{INT8_GROUP, to_tiles};

/// The values of a new tensor, in plain row-major order; the writer brings them into the layout.
pub(crate) enum NewValues {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Pq {
        block: usize,
        codebooks: usize,
        centroids: usize,
        /// `[rows][ceil(columns / block)]`
        codes: Vec<u8>,
        codebook: NewCodebook,
        row_scale: Option<Vec<f16>>,
    },
    Scalar {
        bits: Bits,
        /// `[rows][columns]`, one value each: -127..=127 for `int8`, 0..=15 for `int4`.
        values: Vec<i8>,
        scale: f32,
        row_scale: Option<Vec<f16>>,
        zero: NewZero,
    },
}

/// `[codebooks][centroids][block]`
pub(crate) enum NewCodebook {
    Int8 { values: Vec<i8>, scale: f32 },
    F16(Vec<f16>),
}

pub(crate) enum NewZero {
    Tensor(i8),
    Row(Vec<i8>),
}

/// An artifact in the making.
pub(crate) struct Writer {
    header: v1::Header,
    sections: Vec<Vec<u8>>,
    names: HashMap<String, usize>,
    provenance: Vec<(String, String)>,
}

impl Writer {
    pub(crate) fn new(kind: ModelKind, body: Vec<u8>) -> Self {
        Self {
            header: v1::Header {
                model: v1::Record {
                    id: kind.id(),
                    body,
                },
                tensors: Vec::new(),
                sections: Vec::new(),
                records: Vec::new(),
            },
            sections: Vec::new(),
            names: HashMap::new(),
            provenance: Vec::new(),
        }
    }

    /// Adds a tensor of `shape` (`[n]` for vectors, else `[rows, columns]`).
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        group: Group,
        layout: Layout,
        shape: &[usize],
        values: NewValues,
    ) -> Result<()> {
        let (rows, columns) = match *shape {
            [n] => (1, n),
            [rows, columns] => (rows, columns),
            _ => return Err(Error::format("a tensor has one or two dimensions").in_tensor(name)),
        };
        let tiles = layout == Layout::Tiles;
        let (scheme, body) = match values {
            NewValues::F32(values) => {
                let values = arrange::<_, 1>(values, tiles, rows, columns);
                let values = self.section(SectionKind::F32, bytemuck::cast_slice(&values).to_vec());
                (Scheme::F32.id(), v1::encode(&v1::DenseBody { values })?)
            }
            NewValues::F16(values) => {
                let values = arrange::<_, 1>(values, tiles, rows, columns);
                let values = self.section(SectionKind::F16, bytemuck::cast_slice(&values).to_vec());
                (Scheme::F16.id(), v1::encode(&v1::DenseBody { values })?)
            }
            NewValues::Pq {
                block,
                codebooks,
                centroids,
                codes,
                codebook,
                row_scale,
            } => {
                let codes = arrange::<_, 1>(codes, tiles, rows, columns.div_ceil(block));
                let codes = self.section(SectionKind::Codes, codes);
                let (codebook, codebook_scale) = match codebook {
                    NewCodebook::Int8 { values, scale } => (
                        self.section(
                            SectionKind::CodebookInt8,
                            bytemuck::cast_slice(&values).to_vec(),
                        ),
                        scale,
                    ),
                    NewCodebook::F16(values) => (
                        self.section(
                            SectionKind::CodebookF16,
                            bytemuck::cast_slice(&values).to_vec(),
                        ),
                        1.0,
                    ),
                };
                let (block, centroids) = (block as u32, centroids as u32);
                let row_scale = self.row_scale(row_scale);
                match codebooks {
                    1 => {
                        let body = v1::PqBody {
                            block,
                            centroids,
                            codes,
                            codebook,
                            codebook_scale,
                            row_scale,
                        };
                        (Scheme::Pq.id(), v1::encode(&body)?)
                    }
                    _ => {
                        let body = v1::SplitPqBody {
                            block,
                            codebooks: codebooks as u32,
                            centroids,
                            codes,
                            codebook,
                            codebook_scale,
                            row_scale,
                        };
                        (v1::SPLIT_PQ, v1::encode(&body)?)
                    }
                }
            }
            NewValues::Scalar {
                bits,
                values,
                scale,
                row_scale,
                zero,
            } => {
                let (scheme, values) = match bits {
                    Bits::Eight => {
                        let values = int8_units(&values, tiles, rows, columns);
                        (Scheme::Int8, self.section(SectionKind::Int8, values))
                    }
                    Bits::Four => {
                        let packed = int4_units(&values, columns);
                        let packed = arrange::<_, 1>(packed, tiles, rows, columns.div_ceil(2));
                        (Scheme::Int4, self.section(SectionKind::Int4, packed))
                    }
                };
                let row_scale = self.row_scale(row_scale);
                let (zero_point, zero_points) = match zero {
                    NewZero::Tensor(zero) => (i32::from(zero), v1::NONE),
                    NewZero::Row(points) => (
                        0,
                        self.section(
                            SectionKind::ZeroPoints,
                            bytemuck::cast_slice(&points).to_vec(),
                        ),
                    ),
                };
                let body = v1::ScalarBody {
                    values,
                    scale,
                    row_scale,
                    zero_point,
                    zero_points,
                };
                (scheme.id(), v1::encode(&body)?)
            }
        };
        self.entry(v1::TensorEntry {
            name: name.to_owned(),
            group: group.id(),
            shape: shape.iter().map(|&d| d as u64).collect(),
            layout: v1::Record {
                id: layout.id(),
                body: Vec::new(),
            },
            scheme: v1::Record { id: scheme, body },
        })
    }

    /// Adds a tensor that shares every section of an earlier one.
    pub(crate) fn shared(&mut self, name: &str, of: &str) -> Result<()> {
        let original = *self
            .names
            .get(of)
            .ok_or_else(|| Error::format("the tensor to share does not exist").in_tensor(of))?;
        let mut entry = self.header.tensors[original].clone();
        entry.name = name.to_owned();
        self.entry(entry)
    }

    fn entry(&mut self, entry: v1::TensorEntry) -> Result<()> {
        let index = self.header.tensors.len();
        if self.names.insert(entry.name.clone(), index).is_some() {
            return Err(Error::format("a second tensor of this name").in_tensor(entry.name));
        }
        self.header.tensors.push(entry);
        Ok(())
    }

    fn row_scale(&mut self, factors: Option<Vec<f16>>) -> u32 {
        match factors {
            Some(factors) => self.section(
                SectionKind::RowScales,
                bytemuck::cast_slice(&factors).to_vec(),
            ),
            None => v1::NONE,
        }
    }

    /// Stores the tokenizer.
    pub(crate) fn tokenizer(&mut self, tokenizer: &StoredTokenizer) {
        match tokenizer {
            StoredTokenizer::Json(bytes) => {
                self.section(SectionKind::TokenizerJson, bytes.to_vec())
            }
            StoredTokenizer::Tables(bytes) => {
                self.section(SectionKind::TokenizerTables, bytes.to_vec())
            }
        };
    }

    /// Stores the labels of a classifier.
    pub(crate) fn labels(&mut self, labels: &Vec<String>) -> Result<()> {
        let bytes = v1::encode(labels)?;
        self.section(SectionKind::Labels, bytes);
        Ok(())
    }

    /// Adds a line to the provenance.
    pub(crate) fn provenance(&mut self, key: &str, value: impl Into<String>) {
        self.provenance.push((key.to_owned(), value.into()));
    }

    fn section(&mut self, kind: SectionKind, bytes: Vec<u8>) -> u32 {
        self.header.sections.push(v1::SectionEntry {
            kind: kind.id(),
            flags: 0,
            offset: 0,
            length: bytes.len() as u64,
            checksum: xxh3_64(&bytes),
        });
        self.sections.push(bytes);
        (self.sections.len() - 1) as u32
    }

    /// The whole file.
    pub(crate) fn into_bytes(mut self) -> Result<Vec<u8>> {
        if !self.provenance.is_empty() {
            self.header.records.push(v1::FlaggedRecord {
                id: v1::RECORD_PROVENANCE,
                flags: 0,
                body: v1::encode(&self.provenance)?,
            });
        }
        let sections: Vec<&[u8]> = self.sections.iter().map(Vec::as_slice).collect();
        assemble(self.header, &sections)
    }
}

/// The bytes of an artifact with another tokenizer in the place of its own.
pub(crate) fn with_tokenizer(artifact: &Artifact, tokenizer: &StoredTokenizer) -> Result<Vec<u8>> {
    let mut header = artifact.parsed.header.clone();
    let mut sections: Vec<&[u8]> = artifact.parsed.sections.iter().map(|s| &*s.bytes).collect();
    let own = [SectionKind::TokenizerJson, SectionKind::TokenizerTables].map(SectionKind::id);
    let place = header.sections.iter().position(|s| own.contains(&s.kind));
    let place = place.ok_or_else(|| Error::format("the tokenizer is missing"))?;
    let (kind, bytes) = match tokenizer {
        StoredTokenizer::Json(bytes) => (SectionKind::TokenizerJson, bytes),
        StoredTokenizer::Tables(bytes) => (SectionKind::TokenizerTables, bytes),
    };
    let entry = &mut header.sections[place];
    entry.kind = kind.id();
    entry.length = bytes.len() as u64;
    entry.checksum = xxh3_64(bytes);
    sections[place] = bytes;
    assemble(header, &sections)
}

/// Gives each section its place, and puts all together.
fn assemble(mut header: v1::Header, sections: &[&[u8]]) -> Result<Vec<u8>> {
    // Fixed-width integers: the header's length does not depend on the offsets in it.
    let length = v1::encode(&header)?.len();
    let mut end = (v1::PREAMBLE + length) as u64;
    for section in &mut header.sections {
        section.offset = end.next_multiple_of(ALIGN as u64);
        end = section.offset + section.length;
    }
    let mut file = preamble_and_header(&v1::encode(&header)?, end);
    for (entry, bytes) in header.sections.iter().zip(sections) {
        file.resize(entry.offset as usize, 0);
        file.extend_from_slice(bytes);
    }
    Ok(file)
}

/// Writes `bytes` at `path`: to a temporary file beside it, synced, then renamed, so that `path`
/// is at any moment absent, the old file or the new one.
///
/// # Errors
/// If `path` exists and `force` is not set, or on any failure to write; nothing is left behind.
pub(crate) fn write_file(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    refuse_existing(path, force)?;
    let temporary = Temporary::create(path)?;
    (&temporary.file)
        .write_all(bytes)
        .map_err(|e| Error::io(path, e))?;
    temporary.rename(path, force)
}

/// Fails if `path` exists and is not to be overwritten, or is no file.
pub(crate) fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let message = "is no regular file, and is not replaced by one";
        return Err(Error::new(ErrorKind::Io, message).in_file(path));
    }
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(Error::new(
            ErrorKind::Io,
            "the file exists already; --force overwrites it",
        )
        .in_file(path));
    }
    Ok(())
}

/// Fails if [`write_file`] could not write `path`, for which it makes a temporary file.
#[cfg(feature = "convert")]
pub(crate) fn check_target(path: &Path, force: bool) -> Result<()> {
    refuse_existing(path, force)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            let message = "its directory does not exist";
            Err(Error::new(ErrorKind::Io, message).in_file(path))
        }
        _ => Temporary::create(path).map(drop),
    }
}

/// The preamble for `header` in a file of `file_length` bytes, and `header` itself.
pub(crate) fn preamble_and_header(header: &[u8], file_length: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(v1::PREAMBLE + header.len());
    bytes.extend_from_slice(&v1::MAGIC);
    bytes.extend_from_slice(&v1::VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&xxh3_64(header).to_le_bytes());
    bytes.extend_from_slice(&file_length.to_le_bytes());
    bytes.resize(v1::PREAMBLE, 0);
    bytes.extend_from_slice(header);
    bytes
}

/// Removes what processes that were killed left of writing a file: its temporary files, but for those of
/// processes that are still there.
#[cfg(feature = "train")]
pub(crate) fn remove_abandoned(target: &Path) -> Result<()> {
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
        return Ok(());
    };
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let begins = format!(".{}.", name.to_string_lossy());
    for entry in fs::read_dir(directory).map_err(|e| Error::io(directory, e))? {
        let entry = entry.map_err(|e| Error::io(directory, e))?;
        let name = entry.file_name();
        let process = (name.to_str())
            .and_then(|name| name.strip_prefix(&begins)?.strip_suffix(".tmp"))
            .and_then(|process| process.parse::<u32>().ok());
        if let Some(process) = process
            && !Path::new("/proc").join(process.to_string()).exists()
        {
            fs::remove_file(entry.path()).map_err(|e| Error::io(entry.path(), e))?;
        }
    }
    Ok(())
}

/// A file that removes itself unless it is renamed.
struct Temporary {
    file: File,
    path: Option<PathBuf>,
}

impl Temporary {
    fn create(target: &Path) -> Result<Self> {
        let name = target
            .file_name()
            .ok_or_else(|| Error::new(ErrorKind::Io, "not a file name").in_file(target))?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        let path = target.with_file_name(temporary);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|e| Error::io(target, e))?;
        Ok(Self {
            file,
            path: Some(path),
        })
    }

    fn rename(mut self, target: &Path, force: bool) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(target, e))?;
        refuse_existing(target, force)?;
        if let Some(path) = &self.path {
            fs::rename(path, target).map_err(|e| Error::io(target, e))?;
        }
        self.path = None;
        // The rename itself is durable only once the directory is; not every file system can.
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty());
        if let Ok(directory) = File::open(parent.unwrap_or(Path::new("."))) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn arrange<T: Copy, const N: usize>(
    values: Vec<T>,
    tiles: bool,
    rows: usize,
    units: usize,
) -> Vec<T>
where
    [T; N]: Copy,
{
    if !tiles {
        return values;
    }
    to_tiles(values.as_chunks::<N>().0, rows, units).concat()
}

/// Groups of 8 values, the last one of a row filled up with zeros, in tiles; or plain rows.
fn int8_units(values: &[i8], tiles: bool, rows: usize, columns: usize) -> Vec<u8> {
    if !tiles {
        return bytemuck::cast_slice(values).to_vec();
    }
    let units = columns.div_ceil(INT8_GROUP);
    let mut groups = Vec::with_capacity(rows * units);
    for row in values.chunks_exact(columns) {
        for group in row.chunks(INT8_GROUP) {
            let mut unit = [0u8; INT8_GROUP];
            unit[..group.len()].copy_from_slice(bytemuck::cast_slice(group));
            groups.push(unit);
        }
    }
    to_tiles(&groups, rows, units).concat()
}

/// Two values a byte, the first in the low half.
fn int4_units(values: &[i8], columns: usize) -> Vec<u8> {
    let pack = |pair: &[i8]| (pair[0] & 15) as u8 | pair.get(1).map_or(0, |&v| (v as u8) << 4);
    values
        .chunks_exact(columns)
        .flat_map(|row| row.chunks(2).map(pack))
        .collect()
}
