//! What an artifact holds, for apps that list it.

use std::collections::HashMap;

use super::tensor::{Bits, StoredCodebook, StoredZero, Tensor, Values};
use super::v1::{Group, Layout, Scheme};
use super::{Artifact, Bytes};

/// A tensor of an open artifact.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name; unique in the file.
    pub name: String,
    /// The part of the model that it belongs to.
    pub group: Group,
    /// The order in which its values are stored.
    pub layout: Layout,
    /// `[n]` or `[rows, columns]`.
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub scheme: Scheme,
    /// What is particular to the scheme `pq`.
    pub pq: Option<PqInfo>,
    /// Whether each row has a scale of its own.
    pub row_scale: bool,
    /// What is subtracted from a stored integer, beyond the middle of its range.
    pub zero_point: ZeroPointInfo,
    /// Bytes of its values, codebook, scales and zero points.
    pub bytes: u64,
    /// Of these, the bytes that no earlier tensor of the file uses. Over all tensors they add up
    /// to [`Artifact::weight_bytes`].
    pub own_bytes: u64,
    /// The first tensor of the file that has the same stored values, if that is another one.
    pub shared_with: Option<String>,
}

impl TensorInfo {
    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).product()
    }
}

/// Codes and codebook of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PqInfo {
    /// Columns that one code stands for.
    pub block: usize,
    /// Columns of a row's last code: fewer than `block` where that does not divide the columns.
    pub last_block: usize,
    /// Codes in a row.
    pub codes_per_row: usize,
    /// Codebooks, each for as many neighbouring blocks of a row.
    pub codebooks: usize,
    /// Centroids in a codebook.
    pub centroids: usize,
    /// How centroids are stored: [`Scheme::Int8`] or [`Scheme::F16`].
    pub codebook: Scheme,
}

/// Zero points of the schemes `int8` and `int4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZeroPointInfo {
    /// None: the grid is symmetric, or the scheme has none.
    None,
    /// One for the tensor.
    Tensor(i8),
    /// One a row.
    Row,
}

impl Artifact {
    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo> + '_ {
        let mut sections: HashMap<*const u8, &str> = HashMap::new();
        self.stored().iter().map(move |tensor| {
            let parts = tensor.sections();
            let first = parts[0].as_ptr();
            let shared_with = sections.get(&first).map(|name| (*name).to_owned());
            let mut own_bytes = match shared_with {
                Some(_) => 0,
                None => tensor.header_bytes(),
            };
            for part in &parts {
                sections.entry(part.as_ptr()).or_insert_with(|| {
                    own_bytes += part.len() as u64;
                    &tensor.name
                });
            }
            info(tensor, &parts, own_bytes, shared_with)
        })
    }
}

fn info(
    tensor: &Tensor,
    parts: &[&Bytes],
    own_bytes: u64,
    shared_with: Option<String>,
) -> TensorInfo {
    let (_, columns) = tensor.matrix();
    let (mut pq, mut has_row_scale, mut zero_point) = (None, false, ZeroPointInfo::None);
    match &tensor.values {
        Values::F32(_) | Values::F16(_) => {}
        Values::Pq {
            block,
            codebooks,
            centroids,
            codebook,
            row_scale,
            ..
        } => {
            let codes_per_row = columns.div_ceil(*block);
            pq = Some(PqInfo {
                block: *block,
                last_block: columns - (codes_per_row - 1) * block,
                codes_per_row,
                codebooks: *codebooks,
                centroids: *centroids,
                codebook: match codebook {
                    StoredCodebook::Int8 { .. } => Scheme::Int8,
                    StoredCodebook::F16(_) => Scheme::F16,
                },
            });
            has_row_scale = row_scale.is_some();
        }
        Values::Scalar {
            bits,
            row_scale,
            zero,
            ..
        } => {
            has_row_scale = row_scale.is_some();
            // `int4` is stored unsigned: 8 is the middle of its range.
            let middle = match bits {
                Bits::Eight => 0,
                Bits::Four => 8,
            };
            zero_point = match zero {
                StoredZero::Tensor(zero) if *zero == middle => ZeroPointInfo::None,
                StoredZero::Tensor(zero) => ZeroPointInfo::Tensor(*zero),
                StoredZero::Row(_) => ZeroPointInfo::Row,
            };
        }
    }
    TensorInfo {
        name: tensor.name.clone(),
        group: tensor.group,
        layout: tensor.layout,
        shape: tensor.shape.clone(),
        scheme: tensor.scheme(),
        pq,
        row_scale: has_row_scale,
        zero_point,
        bytes: parts.iter().map(|p| p.len() as u64).sum::<u64>() + tensor.header_bytes(),
        own_bytes,
        shared_with,
    }
}
