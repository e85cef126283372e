//! A second encoder of the format, written from `format-spec.md` alone: it shares no code with the
//! crate, so that a mistake made in both has to be made twice.

use std::ops::Range;

use half::f16;
use xxhash_rust::xxh3::xxh3_64;

use crate::valid::Rng;

/// "No section" in a scheme's section fields.
pub const NONE: u32 = 4_294_967_295;
/// Bytes of the preamble, and what sections are aligned to.
pub const ALIGN: usize = 64;
/// Bytes of an entry of the section table.
pub const ENTRY: usize = 32;

pub const VECTOR: u32 = 1;
pub const ROWS: u32 = 2;
pub const TILES: u32 = 3;

#[derive(Clone)]
pub struct Section {
    pub kind: u32,
    pub flags: u32,
    pub bytes: Vec<u8>,
}

#[derive(Clone)]
pub struct Record {
    pub id: u32,
    pub flags: u32,
    pub body: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub group: u32,
    pub shape: Vec<u64>,
    pub layout: (u32, Vec<u8>),
    pub scheme: Scheme,
}

#[derive(Clone)]
pub enum Scheme {
    /// `f32` (1) and `f16` (2).
    Dense {
        id: u32,
        values: u32,
    },
    Pq(Pq),
    /// `int8` (4) and `int4` (5).
    Scalar(Scalar),
    /// Whatever a test wants to write.
    Raw(u32, Vec<u8>),
}

#[derive(Clone)]
pub struct Pq {
    pub block: u32,
    pub centroids: u32,
    pub codes: u32,
    pub codebook: u32,
    pub codebook_scale: f32,
    pub row_scale: u32,
}

#[derive(Clone)]
pub struct Scalar {
    pub id: u32,
    pub values: u32,
    pub scale: f32,
    pub row_scale: u32,
    pub zero_point: i32,
    pub zero_points: u32,
}

/// How [`Model::add`] stores a tensor.
pub enum How {
    F32,
    F16,
    Pq {
        block: u64,
        centroids: u32,
        f16: bool,
        row_scale: bool,
    },
    Int8 {
        row_scale: bool,
        row_zero: bool,
    },
    Int4 {
        row_scale: bool,
        row_zero: bool,
    },
}

/// Everything that stands in a file, before offsets, lengths and checksums.
#[derive(Clone)]
pub struct Model {
    pub kind: u32,
    pub body: Vec<u8>,
    pub tensors: Vec<Tensor>,
    pub sections: Vec<Section>,
    pub records: Vec<Record>,
    /// Bytes after the last structure of the header; a valid file has none.
    pub tail: Vec<u8>,
    pub rng: Rng,
}

/// A written file, and where in it things stand.
#[derive(Clone)]
pub struct File {
    pub bytes: Vec<u8>,
    /// Length of the header.
    pub header: usize,
    /// Where the header's counts stand.
    pub counts: Vec<usize>,
    /// Where the section table's first entry stands.
    pub table: usize,
    pub sections: Vec<Range<usize>>,
}

impl Scheme {
    pub fn id(&self) -> u32 {
        match self {
            Self::Dense { id, .. } | Self::Raw(id, _) => *id,
            Self::Pq(_) => 3,
            Self::Scalar(scalar) => scalar.id,
        }
    }

    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Dense { values, .. } => values.to_le_bytes().to_vec(),
            Self::Pq(pq) => [
                pq.block.to_le_bytes(),
                pq.centroids.to_le_bytes(),
                pq.codes.to_le_bytes(),
                pq.codebook.to_le_bytes(),
                pq.codebook_scale.to_le_bytes(),
                pq.row_scale.to_le_bytes(),
            ]
            .concat(),
            Self::Scalar(scalar) => [
                scalar.values.to_le_bytes(),
                scalar.scale.to_le_bytes(),
                scalar.row_scale.to_le_bytes(),
                scalar.zero_point.to_le_bytes(),
                scalar.zero_points.to_le_bytes(),
            ]
            .concat(),
            Self::Raw(_, body) => body.clone(),
        }
    }

    /// The number of the values or codes section.
    pub fn values(&self) -> u32 {
        match self {
            Self::Dense { values, .. } => *values,
            Self::Pq(pq) => pq.codes,
            Self::Scalar(scalar) => scalar.values,
            Self::Raw(..) => panic!("a raw body has no fields"),
        }
    }
}

/// The header in the making; remembers where its counts stand.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    counts: Vec<usize>,
}

impl Out {
    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, value: usize) {
        self.counts.push(ALIGN + self.bytes.len());
        self.u64(value as u64);
    }

    fn string(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }
}

/// Units of a weight in file order, each as (row, number in the row).
fn units(layout: u32, rows: u64, per_row: u64) -> Vec<(u64, u64)> {
    let mut order = vec![(0, 0); (rows * per_row) as usize];
    for o in 0..rows {
        for j in 0..per_row {
            let index = if layout == TILES {
                let t = o / 64;
                let w = 64.min(rows - 64 * t);
                64 * t * per_row + j * w + (o - 64 * t)
            } else {
                o * per_row + j
            };
            order[index as usize] = (o, j);
        }
    }
    order
}

impl Model {
    pub fn section(&mut self, kind: u32, bytes: Vec<u8>) -> u32 {
        self.sections.push(Section {
            kind,
            flags: 0,
            bytes,
        });
        self.sections.len() as u32 - 1
    }

    /// Adds a tensor of random values around `center`.
    pub fn add(
        &mut self,
        name: &str,
        group: u32,
        layout: u32,
        shape: &[u64],
        center: f32,
        how: How,
    ) {
        let (rows, columns) = match *shape {
            [n] => (1, n),
            [rows, columns] => (rows, columns),
            _ => panic!("rank {}", shape.len()),
        };
        let mut rng = self.rng;
        // Wide enough for answers that differ from text to text.
        let width = if layout == TILES { 1.0 } else { 0.25 };
        let plain = (0..rows * columns).map(|_| center + width * rng.float());
        let scheme = match how {
            How::F32 => Scheme::Dense {
                id: 1,
                values: self.section(1, plain.flat_map(f32::to_le_bytes).collect()),
            },
            How::F16 => Scheme::Dense {
                id: 2,
                values: self.section(2, f16_bytes(plain)),
            },
            How::Pq {
                block,
                centroids,
                f16,
                row_scale,
            } => {
                let codes = units(layout, rows, columns.div_ceil(block));
                let codes = codes.iter().map(|_| rng.below(centroids) as u8).collect();
                let entries = u64::from(centroids) * block;
                let codes = self.section(3, codes);
                let codebook = if f16 {
                    self.section(5, f16_bytes((0..entries).map(|_| rng.float())))
                } else {
                    self.section(4, (0..entries).map(|_| rng.int8()).collect())
                };
                Scheme::Pq(Pq {
                    block: block as u32,
                    centroids,
                    codes,
                    codebook,
                    codebook_scale: if f16 { 1.0 } else { 0.01 },
                    row_scale: self.row_scale(&mut rng, row_scale, rows),
                })
            }
            How::Int8 {
                row_scale,
                row_zero,
            } => {
                let group = if layout == TILES { 8 } else { 1 };
                let mut values = Vec::new();
                for (_, j) in units(layout, rows, columns.div_ceil(group)) {
                    for column in j * group..(j + 1) * group {
                        values.push(if column < columns { rng.int8() } else { 0 });
                    }
                }
                let values = self.section(7, values);
                let row_scale = self.row_scale(&mut rng, row_scale, rows);
                let zeros = (0..rows).map(|_| rng.int8() / 8).collect();
                Scheme::Scalar(Scalar {
                    id: 4,
                    values,
                    scale: 0.01,
                    row_scale,
                    zero_point: if row_zero { 0 } else { -5 },
                    zero_points: if row_zero {
                        self.section(9, zeros)
                    } else {
                        NONE
                    },
                })
            }
            How::Int4 {
                row_scale,
                row_zero,
            } => {
                let mut values = Vec::new();
                for (_, j) in units(layout, rows, columns.div_ceil(2)) {
                    let low = rng.below(16) as u8;
                    let high = rng.below(16) as u8;
                    values.push(low | if 2 * j + 1 < columns { high << 4 } else { 0 });
                }
                let values = self.section(8, values);
                let row_scale = self.row_scale(&mut rng, row_scale, rows);
                let zeros = (0..rows).map(|_| rng.below(16) as u8).collect();
                Scheme::Scalar(Scalar {
                    id: 5,
                    values,
                    scale: 0.12,
                    row_scale,
                    zero_point: if row_zero { 0 } else { 8 },
                    zero_points: if row_zero {
                        self.section(9, zeros)
                    } else {
                        NONE
                    },
                })
            }
        };
        self.rng = rng;
        self.tensors.push(Tensor {
            name: name.to_owned(),
            group,
            shape: shape.to_vec(),
            layout: (layout, Vec::new()),
            scheme,
        });
    }

    fn row_scale(&mut self, rng: &mut Rng, wanted: bool, rows: u64) -> u32 {
        if !wanted {
            return NONE;
        }
        let factors = (0..rows).map(|_| 1.0 + rng.float() / 2.0);
        self.section(6, f16_bytes(factors))
    }

    /// The whole file, with every offset, length and checksum right.
    pub fn encode(&self) -> File {
        let mut out = Out::default();
        out.u32(self.kind);
        out.string(&self.body);
        out.count(self.tensors.len());
        for tensor in &self.tensors {
            out.string(tensor.name.as_bytes());
            out.u32(tensor.group);
            out.count(tensor.shape.len());
            for &dimension in &tensor.shape {
                out.u64(dimension);
            }
            out.u32(tensor.layout.0);
            out.string(&tensor.layout.1);
            out.u32(tensor.scheme.id());
            out.string(&tensor.scheme.body());
        }
        out.count(self.sections.len());
        let table = ALIGN + out.bytes.len();
        out.bytes
            .resize(out.bytes.len() + ENTRY * self.sections.len(), 0);
        out.count(self.records.len());
        for record in &self.records {
            out.u32(record.id);
            out.u32(record.flags);
            out.string(&record.body);
        }
        out.bytes.extend_from_slice(&self.tail);

        let header = out.bytes.len();
        let mut bytes = b"CENTROID\x01\0\0\0\0\0\0\0".to_vec();
        bytes.extend_from_slice(&(header as u64).to_le_bytes());
        bytes.resize(ALIGN, 0);
        bytes.extend_from_slice(&out.bytes);
        let mut sections = Vec::new();
        for (index, section) in self.sections.iter().enumerate() {
            bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            let entry = table + ENTRY * index;
            bytes[entry..entry + 4].copy_from_slice(&section.kind.to_le_bytes());
            bytes[entry + 4..entry + 8].copy_from_slice(&section.flags.to_le_bytes());
            let offset = bytes.len() as u64;
            bytes[entry + 8..entry + 16].copy_from_slice(&offset.to_le_bytes());
            let length = section.bytes.len() as u64;
            bytes[entry + 16..entry + 24].copy_from_slice(&length.to_le_bytes());
            sections.push(bytes.len()..bytes.len() + section.bytes.len());
            bytes.extend_from_slice(&section.bytes);
        }
        let mut file = File {
            bytes,
            header,
            counts: out.counts,
            table,
            sections,
        };
        file.repair();
        file
    }

    /// The file as an accident would leave it: the checksums are those of `original`.
    pub fn damaged(&self, original: &File) -> Vec<u8> {
        let mut file = self.encode();
        for index in 0..file.sections.len().min(original.sections.len()) {
            let (to, from) = (file.entry(index) + 24, original.entry(index) + 24);
            file.bytes[to..to + 8].copy_from_slice(&original.bytes[from..from + 8]);
        }
        file.repair_header();
        if file.header_bytes() != original.header_bytes() {
            file.bytes[24..32].copy_from_slice(&original.bytes[24..32]);
        }
        file.bytes
    }
}

impl File {
    /// Where the entry of a section stands: kind, flags, offset, length, checksum.
    pub fn entry(&self, section: usize) -> usize {
        self.table + ENTRY * section
    }

    pub fn header_bytes(&self) -> &[u8] {
        &self.bytes[ALIGN..ALIGN + self.header]
    }

    pub fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub fn set_u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Makes every checksum right, and the file's length.
    pub fn repair(&mut self) {
        for index in 0..self.sections.len() {
            let entry = self.entry(index);
            let offset = self.u64_at(entry + 8) as usize;
            let end = offset.checked_add(self.u64_at(entry + 16) as usize);
            if let Some(section) = end.and_then(|end| self.bytes.get(offset..end)) {
                let checksum = xxh3_64(section);
                self.set_u64(entry + 24, checksum);
            }
        }
        self.repair_header();
    }

    /// Makes the header's checksum right, and the file's length.
    pub fn repair_header(&mut self) {
        self.set_u64(24, xxh3_64(self.header_bytes()));
        self.set_u64(32, self.bytes.len() as u64);
    }
}

pub fn f16_bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    let halves = values.into_iter().map(f16::from_f32);
    halves.flat_map(f16::to_le_bytes).collect()
}
