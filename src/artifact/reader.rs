//! Opening an artifact: every number is checked before it is used.
//!
//! The order is: preamble, header checksum, header, sections (place, padding, checksum), tensors
//! (sections, lengths, values), use of every section. Checksums find accidents; the checks that
//! follow them hold against a file whose checksums an attacker has made right.

mod tensors;

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::limits::*;
use super::map::{ALIGN, Bytes};
use super::tensor::Tensor;
use super::v1::{self, SectionKind};
use crate::error::{Error, ErrorKind, Result};
use tensors::TensorReader;

/// A decoded and checked file.
pub(super) struct Parsed {
    pub(super) header: v1::Header,
    pub(super) sections: Vec<Section>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) by_name: HashMap<String, usize>,
    pub(super) tokenizer: Option<StoredTokenizer>,
    pub(super) labels: Option<Vec<String>>,
    pub(super) provenance: Vec<(String, String)>,
}

/// The section that holds the tokenizer; what is in it is checked by who uses it.
#[derive(Clone)]
pub(crate) enum StoredTokenizer {
    /// A Hugging Face `tokenizer.json`.
    Json(Bytes),
    /// Tables that are used in place.
    Tables(Bytes),
}

/// One section; `kind` is `None` for an optional one that this version does not know.
pub(super) struct Section {
    pub(super) kind: Option<SectionKind>,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

pub(super) fn parse(file: &Bytes) -> Result<Parsed> {
    let header = header(file)?;
    let sections = sections(file, &header)?;
    let mut reader = TensorReader::new(&sections);
    let mut tensors = Vec::with_capacity(header.tensors.len());
    let mut by_name = HashMap::with_capacity(header.tensors.len());
    for entry in &header.tensors {
        let tensor = reader
            .read(entry)
            .map_err(|e| e.in_tensor(printable(&entry.name)))?;
        if by_name.insert(entry.name.clone(), tensors.len()).is_some() {
            return Err(
                Error::format("a second tensor of this name").in_tensor(printable(&entry.name))
            );
        }
        tensors.push(tensor);
    }
    let mut used = reader.used;
    let json = single(&sections, &mut used, SectionKind::TokenizerJson)?;
    let tables = single(&sections, &mut used, SectionKind::TokenizerTables)?;
    let tokenizer = match (json, tables) {
        (Some(_), Some(_)) => {
            return Err(Error::format("a tokenizer.json and tokenizer tables"));
        }
        (json, tables) => json
            .map(StoredTokenizer::Json)
            .or(tables.map(StoredTokenizer::Tables)),
    };
    let labels = match single(&sections, &mut used, SectionKind::Labels)? {
        Some(bytes) => Some(v1::decode(&bytes, "the labels section")?),
        None => None,
    };
    for (section, used) in sections.iter().zip(&used) {
        if let (Some(kind), false) = (section.kind, used) {
            return Err(
                Error::format(format!("nothing uses this section of {}", kind.name()))
                    .at(section.offset),
            );
        }
    }
    let provenance = provenance(&header)?;
    Ok(Parsed {
        header,
        sections,
        tensors,
        by_name,
        tokenizer,
        labels,
        provenance,
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

fn header(file: &Bytes) -> Result<v1::Header> {
    if cfg!(target_endian = "big") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "artifacts are used in place and little endian; this machine is big endian",
        ));
    }
    let known = file.len().min(v1::MAGIC.len());
    if file[..known] != v1::MAGIC[..known] || file.is_empty() {
        return Err(Error::format("not a .centroid file (wrong magic)").at(0));
    }
    if file.len() < v1::PREAMBLE {
        return Err(Error::format(format!(
            "cut short: {} bytes, the preamble alone has {}",
            file.len(),
            v1::PREAMBLE
        )));
    }
    let version = u32_at(file, 8);
    if version != v1::VERSION {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "format version {version}; this program reads version {}",
                v1::VERSION
            ),
        )
        .at(8));
    }
    zeros(file, 12..16)?;
    zeros(file, 40..64)?;
    let declared = u64_at(file, 32);
    if declared != file.len() as u64 {
        return Err(Error::format(format!(
            "the file has {} bytes where its preamble says {declared}",
            file.len()
        ))
        .at(32));
    }
    let length = u64_at(file, 16);
    if length > MAX_HEADER_BYTES || length > (file.len() - v1::PREAMBLE) as u64 {
        return Err(Error::format(format!(
            "a header of {length} bytes does not fit the file or the limit of {MAX_HEADER_BYTES}"
        ))
        .at(16));
    }
    let bytes = &file[v1::PREAMBLE..v1::PREAMBLE + length as usize];
    if xxh3_64(bytes) != u64_at(file, 24) {
        return Err(Error::new(
            ErrorKind::Checksum,
            "the header does not match its checksum: the file is damaged",
        )
        .at(v1::PREAMBLE as u64));
    }
    let header: v1::Header =
        v1::decode(bytes, "the header").map_err(|e| e.at(v1::PREAMBLE as u64))?;
    if header.tensors.len() > MAX_TENSORS || header.sections.len() > MAX_SECTIONS {
        return Err(Error::format(format!(
            "{} tensors and {} sections; the limits are {MAX_TENSORS} and {MAX_SECTIONS}",
            header.tensors.len(),
            header.sections.len()
        )));
    }
    Ok(header)
}

fn zeros(file: &[u8], range: std::ops::Range<usize>) -> Result<()> {
    match file[range.clone()].iter().position(|&b| b != 0) {
        Some(at) => {
            Err(Error::format("a reserved or padding byte is not zero")
                .at((range.start + at) as u64))
        }
        None => Ok(()),
    }
}

/// Sections stand in header order at the next multiple of 64, and the last one ends the file:
/// no holes, no overlap, nothing outside the sections.
fn sections(file: &Bytes, header: &v1::Header) -> Result<Vec<Section>> {
    let header_length = u64_at(file, 16);
    let mut end = v1::PREAMBLE as u64 + header_length;
    let mut sections = Vec::with_capacity(header.sections.len());
    for (index, entry) in header.sections.iter().enumerate() {
        let fail =
            |message: String| Error::format(format!("section {index}: {message}")).at(entry.offset);
        let kind = known(
            SectionKind::from_id(entry.kind),
            entry.flags,
            || format!("section {index}: unknown section kind {}", entry.kind),
            index,
        )?;
        let start = end.next_multiple_of(ALIGN as u64);
        if entry.offset != start {
            return Err(fail(format!(
                "starts at {} and not at {start}, where the one before it ends",
                entry.offset
            )));
        }
        if entry.length == 0 {
            return Err(fail("is empty".into()));
        }
        end = entry
            .offset
            .checked_add(entry.length)
            .filter(|&end| end <= file.len() as u64)
            .ok_or_else(|| {
                fail(format!(
                    "its {} bytes reach beyond the end of the file",
                    entry.length
                ))
            })?;
        let previous_end = sections
            .last()
            .map_or(v1::PREAMBLE + header_length as usize, |s: &Section| {
                s.offset as usize + s.bytes.len()
            });
        zeros(file, previous_end..start as usize)?;
        let bytes = file
            .slice(entry.offset as usize..end as usize)
            .ok_or_else(|| fail("lies outside the file".into()))?;
        sections.push(Section {
            kind,
            offset: entry.offset,
            bytes,
        });
    }
    if end != file.len() as u64 {
        return Err(Error::format(format!(
            "{} bytes after the last section",
            file.len() as u64 - end
        ))
        .at(end));
    }
    for (section, entry) in sections.iter().zip(&header.sections) {
        if xxh3_64(&section.bytes) != entry.checksum {
            let kind = section.kind.map_or("an unknown kind", SectionKind::name);
            return Err(Error::new(
                ErrorKind::Checksum,
                format!("the section of {kind} does not match its checksum: the file is damaged"),
            )
            .at(section.offset));
        }
    }
    Ok(sections)
}

/// An id that this version knows, `None` for an unknown one that may be skipped.
fn known<T>(
    id: Option<T>,
    flags: u32,
    unknown: impl Fn() -> String,
    index: usize,
) -> Result<Option<T>> {
    if flags & !v1::OPTIONAL != 0 {
        return Err(Error::format(format!(
            "entry {index}: reserved flag bits are set ({flags:#x})"
        )));
    }
    if id.is_none() && flags & v1::OPTIONAL == 0 {
        return Err(Error::new(ErrorKind::Unsupported, unknown()));
    }
    Ok(id)
}

/// The one section of `kind`, if there is one.
fn single(sections: &[Section], used: &mut [bool], kind: SectionKind) -> Result<Option<Bytes>> {
    let mut found = None;
    for (section, used) in sections.iter().zip(used) {
        if section.kind == Some(kind) {
            if found.is_some() {
                return Err(
                    Error::format(format!("a second section of {}", kind.name()))
                        .at(section.offset),
                );
            }
            *used = true;
            found = Some(section.bytes.clone());
        }
    }
    Ok(found)
}

fn provenance(header: &v1::Header) -> Result<Vec<(String, String)>> {
    let mut found = None;
    for (index, record) in header.records.iter().enumerate() {
        let id = (record.id == v1::RECORD_PROVENANCE).then_some(());
        let unknown = || format!("record {index}: unknown record id {}", record.id);
        if known(id, record.flags, unknown, index)?.is_some() {
            if found.is_some() {
                return Err(Error::format("a second provenance record"));
            }
            found = Some(v1::decode(&record.body, "the provenance record")?);
        }
    }
    Ok(found.unwrap_or_default())
}

/// A name from the file for use in a message: one line, of bounded length.
fn printable(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}
