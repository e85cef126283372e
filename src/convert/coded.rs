//! A matrix that its checkpoint already has as centroids and codes, in fairseq's layout
//! (`fairseq/modules/quantization/pq`): `centroids` `[K, b]` and `assignments`, block-major:
//! `W[o, j * b..][..b] = centroids[assignments[j * out + o]]`.

use super::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::quant::CentroidType;
use crate::quant::blocks::inverse_power_of_two;
use crate::quant::pq::{MAX_BLOCK, Pq};

/// Codes have one byte.
const MAX_CENTROIDS: usize = 256;

/// How codes are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Values in a block.
    pub(super) block: usize,
    pub(super) centroids: usize,
    /// Whether rows have factors.
    pub(super) row_scale: bool,
}

/// Centroids, codes, and the matrix that they stand for.
pub(super) struct Coded {
    centroids: Entry,
    assignments: Entry,
    shape: [usize; 2],
    block: usize,
    /// What rows are multiplied with, the largest magnitude from 1 to 2, and what centroids are in turn.
    factors: Option<(Vec<f32>, f32)>,
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
        // Values in a block are bounded so that few codes are no huge matrix.
        if !(1..=MAX_CENTROIDS).contains(&k) || !(1..=MAX_BLOCK).contains(&block) {
            return Err(format!(
                "{k} centroids of {block} values; 1 to {MAX_CENTROIDS} of 1 to {MAX_BLOCK} can be read"
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
            factors: None,
        })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn assignments(&self) -> &Entry {
        &self.assignments
    }

    /// Multiplies the rows with what a batch norm multiplies them with: finite factors.
    pub(super) fn scale(&mut self, factors: &[f64]) {
        let most = factors.iter().fold(0.0, |most: f64, f| most.max(f.abs()));
        // Powers of two round nothing.
        let unit = inverse_power_of_two(most as f32);
        let factors = factors.iter().map(|f| (f * f64::from(unit)) as f32);
        self.factors = Some((factors.collect(), 1.0 / unit));
    }

    /// What becomes of them.
    pub(super) fn size(&self) -> Size {
        Size {
            block: self.block,
            // An artifact holds at least two.
            centroids: self.centroids.shape[0].max(2),
            row_scale: self.factors.is_some(),
        }
    }

    /// Centroids `[K][b]` and codes `[out][in / b]`, or what is wrong.
    fn parts(&self) -> std::result::Result<(Vec<f32>, Vec<u8>), String> {
        let centroids = self.centroids.values();
        let mut centroids = centroids.map_err(|message| format!("its centroids: {message}"))?;
        if let Some((_, unit)) = self.factors {
            centroids.iter_mut().for_each(|value| *value *= unit);
        }
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
        let mut values: Vec<f32> = codes.iter().flat_map(centroid).copied().collect();
        if let Some((factors, _)) = &self.factors {
            let rows = values.chunks_exact_mut(self.shape[1]).zip(factors);
            rows.for_each(|(row, factor)| row.iter_mut().for_each(|value| *value *= factor));
        }
        Ok(values)
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
            self.factors.as_ref().map(|(factors, _)| &factors[..]),
            to,
        )
    }
}
