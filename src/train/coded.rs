//! A matrix as codes and centroids that are trained.

use tch::{Device, Kind, Tensor};

use super::weights::{Plain, leaf, to_vec};
use crate::error::Result;
use crate::kernels;
use crate::quant::codes;
use crate::quant::pq::{self, Pq};
use crate::quant::{CentroidType, Codebook};

/// A block changes where that divides its squared distance to its centroid by two: at the border of two
/// centroids it would go to and fro for ever.
const NEARER: f32 = 0.5;

/// A matrix as codes, and centroids that are trained.
pub(super) struct Coded {
    pub(super) rows: i64,
    pub(super) columns: i64,
    block: i64,
    /// Each for as many neighbouring blocks of a row.
    codebooks: i64,
    /// `[rows, blocks of a row]`, of i64: numbers of centroids, counted through all codebooks.
    pub(super) codes: Tensor,
    /// `[codebooks * k, block]`
    pub(super) centroids: Tensor,
    /// `[rows, 1]`; never below 0 where they multiply.
    pub(super) factors: Option<Tensor>,
    /// `[rows, 1]`, or `[1, 1]` without factors: what `factors` and `centroids` are in units of.
    pub(super) unit: Option<Tensor>,
    /// Blocks of each centroid, at least 1: `[codebooks * k, 1]`
    pub(super) counts: Tensor,
    /// Blocks of each centroid.
    uses: Vec<usize>,
    centroid_type: CentroidType,
    /// `[rows, columns]`: weights that go on being trained, though the model computes with centroids; now
    /// and then each block gets the centroid nearest to them.
    pub(super) latent: Option<Plain>,
}

/// Codes `[rows][per_row]` as numbers of centroids, counted through all codebooks, which have so many `in_all`.
fn through(codes: &[u8], per_row: usize, codebooks: usize, in_all: i64) -> Vec<i64> {
    let (blocks, k) = (per_row / codebooks, in_all / codebooks as i64);
    let places = codes.iter().enumerate();
    let number =
        |(place, &code): (usize, &u8)| (place % per_row / blocks) as i64 * k + i64::from(code);
    places.map(number).collect()
}

/// How often each of `k` centroids is used, and the same as `[k, 1]` with at least 1.
fn uses(codes: &Tensor, k: i64) -> (Vec<usize>, Tensor) {
    let counts = codes.bincount(None::<Tensor>, k).to_kind(Kind::Float);
    let uses = to_vec(&counts).iter().map(|&n| n as usize).collect();
    (uses, counts.clamp_min(1.0).view([k, 1]))
}

impl Coded {
    pub(super) fn new(
        (rows, columns): (usize, usize),
        (block, codebooks): (usize, usize),
        codes: &[u8],
        centroids: &[f32],
        factors: Option<&[f32]>,
        centroid_type: CentroidType,
        device: Device,
    ) -> Self {
        let k = (centroids.len() / block) as i64;
        let wide = through(codes, columns.div_ceil(block), codebooks, k);
        let codes = Tensor::from_slice(&wide).to_device(device);
        let (uses, counts) = uses(&codes, k);
        let factors = factors.map(|factors| leaf(factors, &[rows as i64, 1], device));
        Self {
            rows: rows as i64,
            columns: columns as i64,
            block: block as i64,
            codebooks: codebooks as i64,
            codes: codes.view([rows as i64, -1]),
            centroids: leaf(centroids, &[k, block as i64], device),
            factors,
            unit: None,
            counts,
            uses,
            centroid_type,
            latent: None,
        }
    }

    pub(super) fn from_pq(pq: &Pq, centroid_type: CentroidType, device: Device) -> Self {
        let factors = pq.row_scale.as_ref().map(|scale| {
            let factors = scale.factors.iter().map(|f| f.to_f32());
            factors.collect::<Vec<f32>>()
        });
        Self::new(
            (pq.rows, pq.cols),
            (pq.block, pq.codebooks),
            &pq.codes,
            &pq.codebook.decode(),
            factors.as_deref(),
            centroid_type,
            device,
        )
    }

    /// Makes factors, or centroids where there are none, relative to what they are now.
    pub(super) fn relative(mut self) -> Self {
        let device = self.centroids.device();
        match &mut self.factors {
            Some(factors) => {
                let ones = vec![1.0; factors.numel()];
                let shape = factors.size();
                let unit = factors.detach();
                // A row of zeros stays one.
                *factors = leaf(&ones, &shape, device);
                self.unit = Some(unit);
            }
            None => {
                let size = self.centroids.detach().square().mean(Kind::Float).sqrt();
                let size = size.clamp_min(f64::from(f32::MIN_POSITIVE)).view([1, 1]);
                let centroids = (&self.centroids / &size).detach();
                self.centroids = centroids.set_requires_grad(true);
                self.unit = Some(size);
            }
        }
        self
    }

    /// `[rows, 1]`
    fn present_factors(&self) -> Option<Tensor> {
        let factors = self.factors.as_ref()?.abs();
        Some(match &self.unit {
            Some(unit) => factors * unit,
            None => factors,
        })
    }

    /// In the units of the weights, or of those over their factors.
    fn present_centroids(&self) -> Tensor {
        match (&self.factors, &self.unit) {
            (None, Some(unit)) => &self.centroids * unit,
            _ => self.centroids.shallow_clone(),
        }
    }

    pub(super) fn to_pq(&self) -> Result<Pq> {
        let factors = self.present_factors().as_ref().map(to_vec);
        Pq::trained(
            (self.rows as usize, self.columns as usize),
            (self.block as usize, self.codebooks as usize),
            self.bytes(),
            &to_vec(&self.present_centroids()),
            factors.as_deref(),
            self.centroid_type,
        )
    }

    /// `[rows][blocks of a row]`
    pub(super) fn bytes(&self) -> Vec<u8> {
        let k = self.centroids.size()[0] / self.codebooks;
        let codes = self.codes.to_device(Device::Cpu).view([-1]);
        let codes = codes.remainder(k).to_kind(Kind::Uint8);
        let mut bytes = vec![0u8; codes.numel()];
        codes.copy_data(&mut bytes, codes.numel());
        bytes
    }

    /// Gives blocks the centroid nearest to their latent weights, where it is much nearer than the one that
    /// they have. Returns how many changed.
    pub(super) fn reassign(&mut self) -> Result<usize> {
        let Some(latent) = &self.latent else {
            return Ok(0);
        };
        let factors = self.present_factors().as_ref().map(to_vec);
        let present = self.bytes();
        let nearest = codes::nearer_codes(
            (self.rows as usize, self.columns as usize),
            (self.block as usize, self.codebooks as usize),
            to_vec(&latent.rows(None)),
            factors.as_deref(),
            &to_vec(&self.present_centroids()),
            (&present, NEARER),
        )?;
        let changed = nearest.iter().zip(&present).filter(|(a, b)| a != b);
        let changed = changed.count();
        self.set_codes(&nearest);
        Ok(changed)
    }

    /// Whether codes `[rows][blocks of a row]` are of centroids that there are.
    pub(super) fn fits(&self, codes: &[u8]) -> bool {
        let k = self.counts.size()[0] / self.codebooks;
        codes.len() == self.codes.numel() && codes.iter().all(|&code| i64::from(code) < k)
    }

    /// Where they are: the optimizer knows the numbers of blocks, too.
    pub(super) fn set_codes(&mut self, codes: &[u8]) {
        let numbers = self.counts.size()[0];
        let per_row = self.codes.size()[1] as usize;
        let wide = through(codes, per_row, self.codebooks as usize, numbers);
        let codes = Tensor::from_slice(&wide);
        let (uses, counts) = uses(&codes, numbers);
        self.uses = uses;
        self.counts.copy_(&counts);
        self.codes.copy_(&codes.view_as(&self.codes));
    }

    /// Centroids as they will be stored, and as the runtime's mode `int8` rounds them if they are `rounded`;
    /// the gradient is that of what is trained. Rounding to int8 is coarse, 2 to 6 % of their size in linear
    /// layers: a classifier trained without it had logits off by up to 1.2 in mode `exact`, with it 0.01.
    ///
    /// # Errors
    /// If they cannot be stored.
    fn stored_centroids(&self, rounded: bool) -> Result<Tensor> {
        let block = self.block as usize;
        let shape = (block, self.codebooks as usize);
        let centroids = self.present_centroids();
        let stored =
            pq::stored_centroids(&to_vec(&centroids), shape, &self.uses, self.centroid_type)?;
        let stored = match &stored {
            Codebook::F16(values) if rounded => {
                let rounded = kernels::Codebook::from_f16(values, block);
                let values = rounded.int8[..values.len()].iter();
                values.map(|&v| f32::from(v) * rounded.int8_scale).collect()
            }
            stored => stored.decode(),
        };
        let stored = Tensor::from_slice(&stored).view_as(&centroids);
        let stored = stored.to_device(centroids.device());
        Ok(&centroids + (stored - &centroids).detach())
    }

    /// The rows `ids`, or all of them: `[rows, columns]`, as they will be stored; for mode `int8` the weights
    /// of a linear layer, of which all rows are wanted, are rounded as it does.
    pub(super) fn rows(&self, ids: Option<&Tensor>, int8: bool) -> Result<Tensor> {
        let centroids = self.stored_centroids(int8 && ids.is_none())?;
        let select = |of: &Tensor| match ids {
            Some(ids) => of.index_select(0, ids),
            None => of.shallow_clone(),
        };
        let codes = select(&self.codes);
        let rows = codes.size()[0];
        // The same as an embedding, whose gradient torch adds up 2 to 5 times slower on a CPU.
        let codes = codes.view([-1, 1]);
        let codes = codes.expand([codes.size()[0], self.block], false);
        let blocks = centroids.gather(0, &codes, false);
        let matrix = blocks.view([rows, -1]).narrow(1, 0, self.columns);
        let matrix = match self.present_factors() {
            Some(factors) => matrix * select(&factors),
            None => matrix,
        };
        Ok(match &self.latent {
            // Nothing is added but a way for the gradient.
            Some(latent) => {
                let latent = latent.rows(ids);
                matrix + (&latent - latent.detach())
            }
            None => matrix,
        })
    }
}
