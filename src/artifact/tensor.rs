//! Checked views of the tensors of an open artifact.

use super::limits::{MAX_IN_FEATURES, MAX_RANK, MAX_ROWS};
use super::map::Bytes;
use super::v1::{Group, Layout, Scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::layout;

/// One tensor: checked against its shape, pointing into the file.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) group: Group,
    pub(crate) shape: Vec<usize>,
    pub(crate) layout: Layout,
    pub(crate) values: Values,
}

/// The stored values of a tensor.
#[derive(Clone)]
pub(crate) enum Values {
    F32(Bytes),
    F16(Bytes),
    Pq {
        block: usize,
        /// Each for as many neighbouring blocks of a row; one in linear layers.
        codebooks: usize,
        centroids: usize,
        codes: Bytes,
        codebook: StoredCodebook,
        row_scale: Option<Bytes>,
    },
    Scalar {
        bits: Bits,
        values: Bytes,
        scale: f32,
        row_scale: Option<Bytes>,
        zero: StoredZero,
    },
}

/// `[codebooks][centroids][block]`, as `int8` with one scale or as `f16`.
#[derive(Clone)]
pub(crate) enum StoredCodebook {
    Int8 { values: Bytes, scale: f32 },
    F16(Bytes),
}

impl StoredCodebook {
    /// What its values are multiplied by.
    pub(crate) fn scale(&self) -> f32 {
        match self {
            StoredCodebook::Int8 { scale, .. } => *scale,
            StoredCodebook::F16(_) => 1.0,
        }
    }
}

/// Width of a scalar-quantized value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Eight,
    Four,
}

/// What is subtracted from a stored integer before scaling.
#[derive(Clone)]
pub(crate) enum StoredZero {
    Tensor(i8),
    Row(Bytes),
}

impl Tensor {
    pub(crate) fn scheme(&self) -> Scheme {
        match &self.values {
            Values::F32(_) => Scheme::F32,
            Values::F16(_) => Scheme::F16,
            Values::Pq { .. } => Scheme::Pq,
            Values::Scalar {
                bits: Bits::Eight, ..
            } => Scheme::Int8,
            Values::Scalar {
                bits: Bits::Four, ..
            } => Scheme::Int4,
        }
    }

    /// Rows and columns; a vector is one row.
    pub(crate) fn matrix(&self) -> (usize, usize) {
        match self.shape[..] {
            [rows, columns] => (rows, columns),
            _ => (1, self.shape.iter().product()),
        }
    }

    /// Fails unless the tensor has this layout and shape.
    pub(crate) fn expect(&self, layout: Layout, shape: &[usize]) -> Result<()> {
        if self.layout != layout || self.shape != shape {
            return Err(Error::new(
                ErrorKind::Format,
                format!(
                    "{} of shape {:?} where the model's config asks for {} of shape {shape:?}",
                    self.layout.name(),
                    self.shape,
                    layout.name(),
                ),
            )
            .in_tensor(&self.name));
        }
        Ok(())
    }

    /// Every byte range that the tensor points at.
    pub(crate) fn sections(&self) -> Vec<&Bytes> {
        match &self.values {
            Values::F32(values) | Values::F16(values) => vec![values],
            Values::Pq {
                codes,
                codebook,
                row_scale,
                ..
            } => {
                let codebook = match codebook {
                    StoredCodebook::Int8 { values, .. } | StoredCodebook::F16(values) => values,
                };
                let mut all = vec![codes, codebook];
                all.extend(row_scale);
                all
            }
            Values::Scalar {
                values,
                row_scale,
                zero,
                ..
            } => {
                let mut all = vec![values];
                all.extend(row_scale);
                if let StoredZero::Row(zero) = zero {
                    all.push(zero);
                }
                all
            }
        }
    }

    /// Bytes of scales that are kept in the header and not in a section.
    pub(crate) fn header_bytes(&self) -> u64 {
        match &self.values {
            Values::F32(_) | Values::F16(_) => 0,
            Values::Pq { codebook, .. } => match codebook {
                StoredCodebook::Int8 { .. } => 4,
                StoredCodebook::F16(_) => 0,
            },
            Values::Scalar { .. } => 8,
        }
    }
}

/// Length in bytes of the main section of a tensor, or `None` when it overflows a `u64`.
pub(crate) fn value_bytes(
    scheme: Scheme,
    layout: Layout,
    rows: u64,
    columns: u64,
    block: u64,
) -> Option<u64> {
    let per_row = match (scheme, layout) {
        (Scheme::F32, _) => columns.checked_mul(4)?,
        (Scheme::F16, _) => columns.checked_mul(2)?,
        (Scheme::Pq, _) => columns.div_ceil(block),
        (Scheme::Int8, Layout::Tiles) => columns.next_multiple_of(layout::INT8_GROUP as u64),
        (Scheme::Int8, _) => columns,
        (Scheme::Int4, _) => columns.div_ceil(2),
    };
    rows.checked_mul(per_row)
}

/// Rows and columns, from a shape of the rank that the layout has and within the limits.
pub(super) fn rows_and_columns(layout: Layout, shape: &[u64]) -> Result<(u64, u64)> {
    let dimensions = match (layout, shape) {
        (Layout::Vector, &[n]) => Some((1, n)),
        (Layout::Rows | Layout::Tiles, &[rows, columns]) => Some((rows, columns)),
        _ => None,
    };
    let shown = &shape[..shape.len().min(MAX_RANK)];
    let (rows, columns) = dimensions.ok_or_else(|| {
        Error::format(format!(
            "{} cannot have {} dimensions ({shown:?})",
            layout.name(),
            shape.len()
        ))
    })?;
    if rows == 0 || columns == 0 || rows > MAX_ROWS || columns > MAX_IN_FEATURES {
        return Err(Error::format(format!(
            "shape {shown:?} is outside 1 to {MAX_ROWS} rows and 1 to {MAX_IN_FEATURES} columns"
        )));
    }
    Ok((rows, columns))
}
