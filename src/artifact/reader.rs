//! Opening an artifact: every number is checked before it is used.
//!
//! The order is: preamble, header checksum, header, sections (place, padding, checksum), tensors
//! (sections, lengths, values), use of every section. Checksums find accidents; the checks that
//! follow them hold against a file whose checksums an attacker has made right.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::limits::*;
use super::map::{ALIGN, Bytes};
use super::tensor::{
    Bits, StoredCodebook, StoredZero, Tensor, Values, rows_and_columns, value_bytes,
};
use super::v1::{
    self, Group, Layout, PqBody, SPLIT_PQ, ScalarBody, Scheme, SectionKind, SplitPqBody,
};
use super::values;
use crate::error::{Error, ErrorKind, Result};

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
    let mut reader = TensorReader {
        sections: &sections,
        used: vec![false; sections.len()],
        owners: HashMap::new(),
        checked: HashSet::new(),
    };
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

struct TensorReader<'a> {
    sections: &'a [Section],
    used: Vec<bool>,
    /// The first tensor of each values section, to hold sharing tensors to the same description.
    owners: HashMap<u32, (Vec<u64>, v1::Record, v1::Record)>,
    /// Sections whose values have been looked at; the scheme matters to zero points.
    checked: HashSet<(u32, Scheme)>,
}

impl TensorReader<'_> {
    fn read(&mut self, entry: &v1::TensorEntry) -> Result<Tensor> {
        if entry.name.is_empty() || entry.name.len() > MAX_NAME_BYTES {
            return Err(Error::format(format!(
                "a name of {} bytes; the limits are 1 and {MAX_NAME_BYTES}",
                entry.name.len()
            )));
        }
        let group = Group::from_id(entry.group)
            .ok_or_else(|| unsupported(format!("unknown group {}", entry.group)))?;
        let layout = Layout::from_id(entry.layout.id)
            .ok_or_else(|| unsupported(format!("unknown layout {}", entry.layout.id)))?;
        let scheme = match entry.scheme.id {
            SPLIT_PQ => Some(Scheme::Pq),
            id => Scheme::from_id(id),
        };
        let scheme =
            scheme.ok_or_else(|| unsupported(format!("unknown scheme {}", entry.scheme.id)))?;
        if !entry.layout.body.is_empty() {
            return Err(Error::format(format!(
                "the layout {} has no parameters, yet {} bytes are given",
                layout.name(),
                entry.layout.body.len()
            )));
        }
        let (rows, columns) = rows_and_columns(layout, &entry.shape)?;
        if layout == Layout::Vector && !matches!(scheme, Scheme::F32 | Scheme::F16) {
            return Err(Error::format(format!(
                "a vector cannot be stored as {}",
                scheme.name()
            )));
        }
        let values = match scheme {
            Scheme::F32 | Scheme::F16 => self.dense(entry, scheme, layout, rows, columns)?,
            Scheme::Pq => self.pq(entry, layout, rows, columns)?,
            Scheme::Int8 | Scheme::Int4 => self.scalar(entry, scheme, layout, rows, columns)?,
        };
        Ok(Tensor {
            name: entry.name.clone(),
            group,
            shape: entry.shape.iter().map(|&d| d as usize).collect(),
            layout,
            values,
        })
    }

    fn dense(
        &mut self,
        entry: &v1::TensorEntry,
        scheme: Scheme,
        layout: Layout,
        rows: u64,
        columns: u64,
    ) -> Result<Values> {
        let body: v1::DenseBody = v1::decode(&entry.scheme.body, "the scheme's parameters")?;
        let length = value_bytes(scheme, layout, rows, columns, 1);
        self.share(body.values, entry)?;
        Ok(if scheme == Scheme::F32 {
            let bytes = self.section(body.values, SectionKind::F32, length)?;
            self.once(body.values, scheme, || values::finite_f32(bytes.typed()))?;
            Values::F32(bytes)
        } else {
            let bytes = self.section(body.values, SectionKind::F16, length)?;
            self.once(body.values, scheme, || values::finite_f16(bytes.typed()))?;
            Values::F16(bytes)
        })
    }

    fn pq(
        &mut self,
        entry: &v1::TensorEntry,
        layout: Layout,
        rows: u64,
        columns: u64,
    ) -> Result<Values> {
        let body = pq_body(entry, layout)?;
        if body.block == 0 || body.block > MAX_BLOCK {
            return Err(Error::format(format!(
                "block size {}; the limits are 1 and {MAX_BLOCK}",
                body.block
            )));
        }
        if !(MIN_CENTROIDS..=MAX_CENTROIDS).contains(&body.centroids) {
            return Err(Error::format(format!(
                "{} centroids; the limits are {MIN_CENTROIDS} and {MAX_CENTROIDS}",
                body.centroids
            )));
        }
        let blocks = columns.div_ceil(u64::from(body.block));
        if body.codebooks == 0 || !blocks.is_multiple_of(u64::from(body.codebooks)) {
            return Err(Error::format(format!(
                "{} codebooks do not divide the {blocks} blocks of a row",
                body.codebooks
            )));
        }
        let length = value_bytes(Scheme::Pq, layout, rows, columns, u64::from(body.block));
        let codes = self.section(body.codes, SectionKind::Codes, length)?;
        self.share(body.codes, entry)?;
        self.once(body.codes, Scheme::Pq, || {
            values::codes(&codes, body.centroids)
        })?;
        // At most 256 centroids of 64 values for each of 65,536 columns: no overflow.
        let centroids = u64::from(body.codebooks) * u64::from(body.centroids);
        let entries = centroids * u64::from(body.block);
        let codebook = match self.kind(body.codebook)? {
            SectionKind::CodebookInt8 => {
                let bytes =
                    self.section(body.codebook, SectionKind::CodebookInt8, Some(entries))?;
                self.once(body.codebook, Scheme::Pq, || values::int8(&bytes))?;
                values::scale(body.codebook_scale)?;
                StoredCodebook::Int8 {
                    values: bytes,
                    scale: body.codebook_scale,
                }
            }
            SectionKind::CodebookF16 => {
                let bytes =
                    self.section(body.codebook, SectionKind::CodebookF16, Some(2 * entries))?;
                self.once(body.codebook, Scheme::Pq, || {
                    values::finite_f16(bytes.typed())
                })?;
                if body.codebook_scale.to_bits() != 1f32.to_bits() {
                    return Err(Error::format(format!(
                        "the scale of an f16 codebook is 1, not {}",
                        body.codebook_scale
                    )));
                }
                StoredCodebook::F16(bytes)
            }
            other => {
                return Err(Error::format(format!(
                    "section {} holds {} where a codebook belongs",
                    body.codebook,
                    other.name()
                )));
            }
        };
        Ok(Values::Pq {
            block: body.block as usize,
            codebooks: body.codebooks as usize,
            centroids: body.centroids as usize,
            codes,
            codebook,
            row_scale: self.row_scale(body.row_scale, Scheme::Pq, rows)?,
        })
    }

    fn scalar(
        &mut self,
        entry: &v1::TensorEntry,
        scheme: Scheme,
        layout: Layout,
        rows: u64,
        columns: u64,
    ) -> Result<Values> {
        let body: ScalarBody = v1::decode(&entry.scheme.body, "the scheme's parameters")?;
        values::scale(body.scale)?;
        let length = value_bytes(scheme, layout, rows, columns, 1);
        let (bits, kind, zeros) = match scheme {
            Scheme::Int8 => (Bits::Eight, SectionKind::Int8, -127..=127),
            _ => (Bits::Four, SectionKind::Int4, 0..=15),
        };
        let bytes = self.section(body.values, kind, length)?;
        self.share(body.values, entry)?;
        self.once(body.values, scheme, || match bits {
            Bits::Eight => values::int8(&bytes).and_then(|()| match layout {
                Layout::Tiles => values::int8_padding(&bytes, rows as usize, columns as usize),
                _ => Ok(()),
            }),
            Bits::Four => values::int4_padding(
                &bytes,
                layout == Layout::Tiles,
                rows as usize,
                columns as usize,
            ),
        })?;
        let zero = if body.zero_points == v1::NONE {
            if !zeros.contains(&body.zero_point) {
                return Err(Error::format(format!(
                    "zero point {} is outside {zeros:?}",
                    body.zero_point
                )));
            }
            StoredZero::Tensor(body.zero_point as i8)
        } else {
            if body.zero_point != 0 {
                return Err(Error::format(
                    "a zero point for the tensor and for its rows",
                ));
            }
            let points = self.section(body.zero_points, SectionKind::ZeroPoints, Some(rows))?;
            self.once(body.zero_points, scheme, || {
                values::zero_points(points.typed(), &zeros)
            })?;
            StoredZero::Row(points)
        };
        Ok(Values::Scalar {
            bits,
            values: bytes,
            scale: body.scale,
            row_scale: self.row_scale(body.row_scale, scheme, rows)?,
            zero,
        })
    }

    fn row_scale(&mut self, section: u32, scheme: Scheme, rows: u64) -> Result<Option<Bytes>> {
        if section == v1::NONE {
            return Ok(None);
        }
        let bytes = self.section(section, SectionKind::RowScales, Some(2 * rows))?;
        self.once(section, scheme, || values::factors(bytes.typed()))?;
        Ok(Some(bytes))
    }

    fn kind(&self, section: u32) -> Result<SectionKind> {
        self.sections
            .get(section as usize)
            .and_then(|s| s.kind)
            .ok_or_else(|| {
                Error::format(format!(
                    "section {section} does not exist or is of an unknown kind; there are {}",
                    self.sections.len()
                ))
            })
    }

    /// A section of this kind and exact length (`None`: the length overflowed).
    fn section(&mut self, index: u32, kind: SectionKind, length: Option<u64>) -> Result<Bytes> {
        let actual = self.kind(index)?;
        if actual != kind {
            return Err(Error::format(format!(
                "section {index} holds {} where {} belong",
                actual.name(),
                kind.name()
            )));
        }
        let section = &self.sections[index as usize];
        if length != Some(section.bytes.len() as u64) {
            let asked = length.map_or("too many".into(), |l| l.to_string());
            return Err(Error::format(format!(
                "section {index} has {} bytes of {} where the shape asks for {asked}",
                section.bytes.len(),
                kind.name(),
            ))
            .at(section.offset));
        }
        self.used[index as usize] = true;
        Ok(section.bytes.clone())
    }

    /// Tensors that share their values must be the same tensor in all but name.
    fn share(&mut self, section: u32, entry: &v1::TensorEntry) -> Result<()> {
        let description = (
            entry.shape.clone(),
            entry.layout.clone(),
            entry.scheme.clone(),
        );
        match self.owners.get(&section) {
            Some(owner) if *owner != description => Err(Error::format(format!(
                "shares section {section} with a tensor of another shape or scheme"
            ))),
            Some(_) => Ok(()),
            None => {
                self.owners.insert(section, description);
                Ok(())
            }
        }
    }

    /// Looks at the values of a section the first time that a tensor uses it.
    fn once(
        &mut self,
        section: u32,
        scheme: Scheme,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.checked.insert((section, scheme)) {
            check().map_err(|e| e.at(self.sections[section as usize].offset))?;
        }
        Ok(())
    }
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// The parameters of `pq`, with however many codebooks.
fn pq_body(entry: &v1::TensorEntry, layout: Layout) -> Result<SplitPqBody> {
    const WHAT: &str = "the scheme's parameters";
    if entry.scheme.id == SPLIT_PQ {
        let body: SplitPqBody = v1::decode(&entry.scheme.body, WHAT)?;
        if layout != Layout::Rows {
            return Err(Error::format(format!(
                "{} cannot have several codebooks",
                layout.name()
            )));
        }
        return Ok(body);
    }
    let body: PqBody = v1::decode(&entry.scheme.body, WHAT)?;
    Ok(SplitPqBody {
        block: body.block,
        codebooks: 1,
        centroids: body.centroids,
        codes: body.codes,
        codebook: body.codebook,
        codebook_scale: body.codebook_scale,
        row_scale: body.row_scale,
    })
}
