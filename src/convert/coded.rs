//! A matrix that its checkpoint already has as centroids and codes, in fairseq's layout
//! (`fairseq/modules/quantization/pq`): `centroids` `[K, b]` and `assignments`, block-major:
//! `W[o, j * b..][..b] = centroids[assignments[j * out + o]]`.

use super::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::quant::CentroidType;
use crate::quant::pq::Pq;

/// Codes have one byte.
const MAX_CENTROIDS: usize = 256;

/// Centroids, codes, and the matrix that they stand for.
pub(super) struct Coded {
    centroids: Entry,
    assignments: Entry,
    shape: [usize; 2],
    block: usize,
}

impl Coded {
    /// Codes of a matrix with so many rows (all blocks in one column, if that is not known).
    ///
    /// # Errors
    /// What is wrong with the shapes.
    pub(super) fn new(
        (centroids, assignments): (Entry, Entry),
        rows: Option<usize>,
    ) -> std::result::Result<Self, String> {
        let &[k, block] = &centroids.shape[..] else {
            return Err(format!("centroids of shape {:?}", centroids.shape));
        };
        let &[blocks] = &assignments.shape[..] else {
            return Err(format!(
                "shape {:?} where one dimension is",
                assignments.shape
            ));
        };
        if !(1..=MAX_CENTROIDS).contains(&k) || block == 0 {
            return Err(format!(
                "{k} centroids of {block} values; 1 to {MAX_CENTROIDS} can be read"
            ));
        }
        let rows = rows.unwrap_or(blocks);
        if rows == 0 || !blocks.is_multiple_of(rows) {
            return Err(format!("{blocks} codes for {rows} rows"));
        }
        let columns = (blocks / rows).checked_mul(block);
        let columns = columns.ok_or("too many columns")?;
        Ok(Self {
            centroids,
            assignments,
            shape: [rows, columns],
            block,
        })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn centroids(&self) -> &Entry {
        &self.centroids
    }

    /// Values in a block, and centroids.
    pub(super) fn size(&self) -> (usize, usize) {
        // An artifact holds at least two centroids.
        (self.block, self.centroids.shape[0].max(2))
    }

    /// Centroids `[K][b]` and codes `[out][in / b]`, or what is wrong.
    fn parts(&self) -> std::result::Result<(Vec<f32>, Vec<u8>), String> {
        let mut centroids = self.centroids.values()?;
        let k = self.centroids.shape[0];
        if k == 1 {
            centroids.extend_from_within(..);
        }
        let assignments = self.assignments.integers()?;
        let rows = self.shape[0];
        let blocks = assignments.len() / rows;
        let mut codes = vec![0; assignments.len()];
        for (at, &code) in assignments.iter().enumerate() {
            let (block, row) = (at / rows, at % rows);
            codes[row * blocks + block] = u8::try_from(code)
                .ok()
                .filter(|&code| usize::from(code) < k)
                .ok_or_else(|| format!("code {at} is {code}, and there are {k} centroids"))?;
        }
        Ok((centroids, codes))
    }

    /// The matrix, row-major, or what is wrong.
    pub(super) fn values(&self) -> std::result::Result<Vec<f32>, String> {
        let (centroids, codes) = self.parts()?;
        let centroid = |&code: &u8| &centroids[usize::from(code) * self.block..][..self.block];
        Ok(codes.iter().flat_map(centroid).copied().collect())
    }

    /// Codes and centroids as they are stored.
    ///
    /// # Errors
    /// [`ErrorKind::Checkpoint`] for codes without a centroid and values that do not fit `to`.
    pub(super) fn pq(&self, to: CentroidType) -> Result<Pq> {
        let bad = |message| Error::new(ErrorKind::Checkpoint, message);
        let (centroids, codes) = self.parts().map_err(bad)?;
        let [rows, columns] = self.shape;
        Pq::trained(
            (rows, columns),
            (self.block, 1),
            codes,
            &centroids,
            None,
            to,
        )
    }
}
