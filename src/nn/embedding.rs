//! Embedding tables: a row is decoded when a token asks for it.

use std::sync::Arc;

use super::{Loader, row_scale};
use crate::artifact::{Bits, Layout, StoredZero, Tensor, Values};
use crate::error::Result;
use crate::kernels::Codebook;

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

    /// Adds row `index` to `sum` (`[columns]`).
    pub(crate) fn add(&self, index: usize, sum: &mut [f32]) {
        let columns = self.tensor.shape[1];
        debug_assert_eq!(sum.len(), columns);
        match &self.tensor.values {
            Values::F32(values) => {
                let row = &values.typed::<f32>()[index * columns..][..columns];
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
            }
            Values::F16(values) => {
                let row = &values.typed::<half::f16>()[index * columns..][..columns];
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += v.to_f32());
            }
            Values::Pq {
                block,
                codes,
                row_scale: rows,
                ..
            } => {
                let Some(book) = &self.book else {
                    unreachable!("load makes a table for every pq tensor")
                };
                let units = columns.div_ceil(*block);
                let scale = book.f32_scale * row_scale(rows).map_or(1.0, |r| r[index].to_f32());
                let codes = &codes[index * units..][..units];
                // `chunks_mut` leaves a short last block; `zip` then drops the centroid's rest.
                for (sum, &code) in sum.chunks_mut(*block).zip(codes) {
                    let centroid = &book.f32[usize::from(code) * block..][..*block];
                    sum.iter_mut()
                        .zip(centroid)
                        .for_each(|(s, v)| *s += v * scale);
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
                    Bits::Eight => {
                        let row = &values.typed::<i8>()[index * columns..][..columns];
                        for (s, &q) in sum.iter_mut().zip(row) {
                            *s += (f32::from(q) - zero) * scale;
                        }
                    }
                    Bits::Four => {
                        let units = columns.div_ceil(2);
                        let row = &values[index * units..][..units];
                        for (k, s) in sum.iter_mut().enumerate() {
                            let q = row[k / 2] >> (4 * (k % 2)) & 15;
                            *s += (f32::from(q) - zero) * scale;
                        }
                    }
                }
            }
        }
    }
}
