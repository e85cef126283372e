//! Embedding tables: a row is decoded when a token asks for it.

use std::sync::Arc;

use super::{Loader, row_scale};
use crate::artifact::{Bits, Layout, StoredZero, Tensor, Values};
use crate::error::Result;
use crate::kernels::Codebook;
use crate::kernels::tables::TableRow;

/// A table `[rows, columns]`. Its values are the same in both modes.
pub(crate) struct Embedding {
    tensor: Tensor,
    book: Option<Arc<Codebook>>,
}

impl Embedding {
    pub(crate) fn load(
        loader: &mut Loader,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let tensor = loader.tensor(name, Layout::Rows, &[rows, columns])?;
        let book = match &tensor.values {
            Values::Pq {
                codebook, block, ..
            } => Some(loader.codebook(codebook, *block)),
            _ => None,
        };
        Ok(Self {
            tensor: tensor.clone(),
            book,
        })
    }

    /// Row `index` as it is stored.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn row(&self, index: usize) -> TableRow<'_> {
        let columns = self.tensor.shape[1];
        match &self.tensor.values {
            Values::F32(values) => TableRow::F32(&values.typed()[index * columns..][..columns]),
            Values::F16(values) => TableRow::F16(&values.typed()[index * columns..][..columns]),
            Values::Pq {
                block,
                codebooks,
                centroids,
                codes,
                row_scale: rows,
                codebook,
                ..
            } => {
                let Some(book) = &self.book else {
                    unreachable!("load makes a table for every pq tensor")
                };
                let units = columns.div_ceil(*block);
                TableRow::Pq {
                    codes: &codes[index * units..][..units],
                    centroids: &book.f32,
                    block: *block,
                    codebooks: *codebooks,
                    size: centroids * block,
                    scale: codebook.scale()
                        * book.f32_scale
                        * row_scale(rows).map_or(1.0, |r| r[index].to_f32()),
                }
            }
            Values::Scalar {
                bits,
                values,
                scale,
                row_scale: rows,
                zero,
            } => {
                let scale = scale * row_scale(rows).map_or(1.0, |r| r[index].to_f32());
                let zero = f32::from(match zero {
                    StoredZero::Tensor(zero) => *zero,
                    StoredZero::Row(zeros) => zeros.typed::<i8>()[index],
                });
                match bits {
                    Bits::Eight => TableRow::Int8 {
                        values: &values.typed()[index * columns..][..columns],
                        zero,
                        scale,
                    },
                    Bits::Four => {
                        let units = columns.div_ceil(2);
                        TableRow::Int4 {
                            values: &values[index * units..][..units],
                            zero,
                            scale,
                        }
                    }
                }
            }
        }
    }
}
