//! Tensors: their sections, lengths and values.

use std::collections::{HashMap, HashSet};

use super::Section;
use crate::artifact::limits::*;
use crate::artifact::map::Bytes;
use crate::artifact::tensor::{
    Bits, StoredCodebook, StoredZero, Tensor, Values, rows_and_columns, value_bytes,
};
use crate::artifact::v1::{
    self, Group, Layout, PqBody, SPLIT_PQ, ScalarBody, Scheme, SectionKind, SplitPqBody,
};
use crate::artifact::values;
use crate::error::{Error, ErrorKind, Result};

/// Reads tensors, and notes which sections they use.
pub(super) struct TensorReader<'a> {
    sections: &'a [Section],
    pub(super) used: Vec<bool>,
    /// The first tensor of each values section, to hold sharing tensors to the same description.
    owners: HashMap<u32, (Vec<u64>, v1::Record, v1::Record)>,
    /// Sections whose values have been looked at; the scheme matters to zero points.
    checked: HashSet<(u32, Scheme)>,
}

impl<'a> TensorReader<'a> {
    pub(super) fn new(sections: &'a [Section]) -> Self {
        Self {
            sections,
            used: vec![false; sections.len()],
            owners: HashMap::new(),
            checked: HashSet::new(),
        }
    }

    pub(super) fn read(&mut self, entry: &v1::TensorEntry) -> Result<Tensor> {
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
        self.once(section, scheme, || values::finite_f16(bytes.typed()))?;
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
