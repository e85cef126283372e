//! The model's weights while they are trained: plain tensors, and codes with their centroids.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tch::{Device, Kind, Tensor};

use super::coded::Coded;
use super::mix;
use super::noise::Noise;
use super::norms::Norm;
use super::setup::names;
use crate::convert::recode::relative_error;
use crate::convert::trained::{Base, Trained};
use crate::convert::{GroupPlan, PlannedTensor};
use crate::error::{Error, ErrorKind, Result};
use crate::quant::pq::{self, Pq};
use crate::quant::rng::Rng;
use crate::quant::{Importance, Matrix};

/// Values in row-major order.
pub(super) fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let plain = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float);
    let plain = plain.contiguous();
    let mut values = vec![0.0f32; plain.numel()];
    plain.copy_data(&mut values, plain.numel());
    values
}

/// A leaf that gradients are kept for.
pub(super) fn leaf(values: &[f32], shape: &[i64], device: Device) -> Tensor {
    let tensor = Tensor::from_slice(values).view(shape).to_device(device);
    tensor.set_requires_grad(true)
}

pub(super) fn dimensions(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&n| n as i64).collect()
}

pub(super) enum Weight {
    Plain(Plain),
    Coded(Coded),
}

/// Weights that are trained as they are, or row by row in units of their size.
pub(super) struct Plain {
    tensor: Tensor,
    /// `[rows, 1]`
    unit: Option<Tensor>,
}

impl Plain {
    /// In units of the root of each row's mean square, if `relative`.
    fn new(values: &[f32], shape: &[i64], relative: bool, device: Device) -> Self {
        let tensor = leaf(values, shape, device);
        if !relative || shape.len() != 2 {
            return Self { tensor, unit: None };
        }
        let unit = tch::no_grad(|| {
            let size = tensor
                .square()
                .mean_dim([1i64].as_slice(), true, Kind::Float);
            let size = size.sqrt();
            // A row of zeros has no size.
            size.where_self(&size.gt(0.0), &size.ones_like())
        });
        let tensor = (tensor / &unit).detach().set_requires_grad(true);
        Self {
            tensor,
            unit: Some(unit),
        }
    }

    pub(super) fn rows(&self, ids: Option<&Tensor>) -> Tensor {
        let select = |of: &Tensor| match ids {
            Some(ids) => of.index_select(0, ids),
            None => of.shallow_clone(),
        };
        let rows = select(&self.tensor);
        match &self.unit {
            Some(unit) => rows * select(unit),
            None => rows,
        }
    }
}

/// What a step may change.
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    pub(super) role: Role,
}

pub(super) enum Role {
    Matrix,
    /// Biases, norms, factors of rows: no weight decay.
    Vector,
    /// Centroids and their numbers of blocks, `[k, 1]`.
    Centroids(Tensor),
}

/// All weights by their names in the artifact.
pub(super) struct Weights {
    tensors: BTreeMap<String, Weight>,
    /// Matrices in int8 or int4 that are used as they will be stored.
    rounded: BTreeSet<String>,
    plan: HashMap<String, PlannedTensor>,
    /// By layer.
    pub(super) norms: BTreeMap<String, Norm>,
    /// Whether rows are trained in units of their size: where nothing keeps that about the same.
    relative: bool,
    pub(super) device: Device,
}

impl Weights {
    /// Those of a checkpoint; new matrices are drawn with a `deviation`, new vectors are 0. `relative`: learning
    /// rates of matrices are relative to the size of their rows.
    pub(super) fn load(
        base: &Base,
        (relative, deviation): (bool, impl Fn(&PlannedTensor) -> f32),
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let mut plan = HashMap::new();
        for (index, planned) in base.planned().iter().enumerate() {
            let shape = &planned.shape;
            let values = base.values(&planned.name)?.unwrap_or_else(|| {
                let len = shape.iter().product();
                let mut rng = Rng::new(mix(&[seed, index as u64]));
                let deviation = deviation(planned);
                let drawn = (0..len).map(|_| deviation * rng.normal());
                match shape.len() {
                    1 => vec![0.0; len],
                    _ => drawn.collect(),
                }
            });
            let plain = Plain::new(&values, &dimensions(shape), relative, device);
            tensors.insert(planned.name.clone(), Weight::Plain(plain));
            plan.insert(planned.name.clone(), planned.clone());
        }
        Ok(Self {
            tensors,
            rounded: BTreeSet::new(),
            plan,
            norms: BTreeMap::new(),
            relative,
            device,
        })
    }

    pub(super) fn planned(&self, name: &str) -> &PlannedTensor {
        &self.plan[name]
    }

    pub(super) fn plan(&self, name: &str) -> &GroupPlan {
        &self.plan[name].plan
    }

    /// A tensor that is not quantized yet.
    pub(super) fn plain(&self, name: &str) -> Option<Tensor> {
        match &self.tensors[name] {
            Weight::Plain(plain) => Some(plain.rows(None)),
            Weight::Coded(_) => None,
        }
    }

    /// Rows `ids` of a matrix, or all of a tensor; of codes, with centroids as they will be stored, and rounded
    /// as the runtime does in mode `int8` if asked for.
    ///
    /// # Errors
    /// If centroids cannot be stored.
    pub(super) fn rows(&self, name: &str, ids: Option<&Tensor>, int8: bool) -> Result<Tensor> {
        let rows = match &self.tensors[name] {
            Weight::Plain(plain) if self.is_rounded(name) => self.stored(name, plain, ids),
            Weight::Plain(plain) => Ok(plain.rows(ids)),
            Weight::Coded(coded) => coded.rows(ids, int8),
        };
        rows.map_err(|e| e.in_tensor(name))
    }

    /// Rows of a matrix in int8 or int4 as they will be stored; the gradient is that of what is trained.
    fn stored(&self, name: &str, plain: &Plain, ids: Option<&Tensor>) -> Result<Tensor> {
        let planned = &self.plan[name];
        let values = to_vec(&plain.rows(None));
        let matrix = Matrix::new(&values, planned.shape[0], planned.shape[1])?;
        let stored = Tensor::from_slice(&planned.plan.rounded(matrix)?);
        let stored = stored.view(&dimensions(&planned.shape)[..]);
        let stored = stored.to_device(self.device);
        let stored = match ids {
            Some(ids) => stored.index_select(0, ids),
            None => stored,
        };
        let rows = plain.rows(ids);
        Ok(&rows + (stored - &rows).detach())
    }

    /// Names of tensors that the plan quantizes and that are not quantized yet, in `groups` if given.
    pub(super) fn to_quantize<'a>(
        &'a self,
        groups: Option<&'a [String]>,
    ) -> impl Iterator<Item = &'a str> {
        use crate::artifact::Scheme::{F16, F32};
        let planned = |name: &str| &self.plan[name];
        self.tensors
            .iter()
            .filter(move |(name, weight)| {
                let planned = planned(name);
                matches!(weight, Weight::Plain(_))
                    && !self.is_rounded(name)
                    && !matches!(planned.plan.scheme, F32 | F16)
                    && groups.is_none_or(|parts| parts.iter().any(|part| names(part, planned)))
            })
            .map(|(name, _)| name.as_str())
    }

    /// Names of tensors that noise disturbs now.
    pub(super) fn to_disturb<'a>(&'a self, noise: &'a Noise) -> impl Iterator<Item = &'a str> {
        let all = self.to_quantize(None);
        all.filter(|name| noise.reaches(&self.plan[*name]))
    }

    /// From now on, or no longer, some matrices in int8 or int4 are used as they will be stored.
    pub(super) fn set_rounded(&mut self, names: &[String], rounded: bool) {
        for name in names {
            match rounded {
                true => self.rounded.insert(name.clone()),
                false => self.rounded.remove(name),
            };
        }
    }

    /// Whether a matrix in int8 or int4 is used as it will be stored.
    pub(super) fn is_rounded(&self, name: &str) -> bool {
        self.rounded.contains(name)
    }

    /// From now on a matrix in int8 or int4 is used as it will be stored. Returns the relative error.
    pub(super) fn round(&mut self, name: &str) -> Result<f64> {
        let exact = self.present(name)?;
        self.rounded.insert(name.to_owned());
        Ok(relative_error(&exact, &self.present(name)?))
    }

    /// Gives a matrix codes and centroids, by K-means on what it is now, with errors weighed by the
    /// `importance` of each column; they stay as latent weights if it is to be `reassigned`. Returns the relative error.
    pub(super) fn quantize(
        &mut self,
        name: &str,
        seed: u64,
        (importance, reassigned): (Option<&[f32]>, bool),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<f64> {
        let planned = &self.plan[name];
        let Some(tensor) = self.plain(name) else {
            let message = "is quantized already";
            return Err(Error::new(ErrorKind::Config, message).in_tensor(name));
        };
        let values = to_vec(&tensor);
        let matrix = Matrix::new(&values, planned.shape[0], planned.shape[1])
            .map_err(|e| e.in_tensor(name))?;
        let options = planned.plan.pq_options(seed);
        let importance = Importance {
            columns: importance,
            rows: None,
        };
        let pq =
            pq::quantize(matrix, importance, &options, progress).map_err(|e| e.in_tensor(name))?;
        let error = pq.relative_error(matrix);
        self.set_pq(name, &pq, reassigned);
        Ok(error)
    }

    /// Gives a matrix codes and centroids; what it was goes on as latent weights if it is to be `reassigned`.
    pub(super) fn set_pq(&mut self, name: &str, pq: &Pq, reassigned: bool) {
        let planned = &self.plan[name];
        let mut coded = Coded::from_pq(pq, planned.plan.centroid_type, self.device);
        if self.relative {
            coded = coded.relative();
        }
        if let (true, Weight::Plain(plain)) = (reassigned, &self.tensors[name]) {
            let values = to_vec(&plain.rows(None));
            let size = [coded.rows, coded.columns];
            coded.latent = Some(Plain::new(&values, &size, self.relative, self.device));
        }
        self.tensors.insert(name.to_owned(), Weight::Coded(coded));
    }

    /// Gives a tensor that is not quantized other values.
    pub(super) fn set_plain(&mut self, name: &str, values: &[f32]) {
        let shape = dimensions(&self.plan[name].shape);
        let plain = Plain::new(values, &shape, self.relative, self.device);
        self.tensors.insert(name.to_owned(), Weight::Plain(plain));
    }

    /// What is computed with: `[rows][columns]`, or a vector.
    pub(super) fn present(&self, name: &str) -> Result<Vec<f32>> {
        self.rows(name, None, false).map(|tensor| to_vec(&tensor))
    }

    /// Gives all codes latent weights, or takes them away; where there were none, they are what codes
    /// stand for.
    ///
    /// # Errors
    /// Of reading the codes.
    pub(super) fn keep_latent(&mut self, keep: bool) -> Result<()> {
        for weight in self.tensors.values_mut() {
            if let Weight::Coded(coded) = weight {
                if !keep {
                    coded.latent = None;
                } else if coded.latent.is_none() {
                    let values = to_vec(&coded.rows(None, false)?);
                    let size = [coded.rows, coded.columns];
                    coded.latent = Some(Plain::new(&values, &size, self.relative, self.device));
                }
            }
        }
        Ok(())
    }

    /// Gives blocks the centroid nearest to their latent weights, where it is much nearer. Returns the share
    /// of blocks that have another one than before.
    pub(super) fn reassign(&mut self) -> Result<f64> {
        let (mut changed, mut all) = (0, 0);
        for (name, weight) in &mut self.tensors {
            if let Weight::Coded(coded) = weight
                && coded.latent.is_some()
            {
                changed += coded.reassign().map_err(|e| e.in_tensor(name))?;
                all += coded.codes.numel();
            }
        }
        Ok(changed as f64 / all.max(1) as f64)
    }

    /// Whether a matrix can be given these codes.
    pub(super) fn fits(&self, name: &str, codes: &[u8]) -> bool {
        matches!(self.tensors.get(name), Some(Weight::Coded(coded)) if coded.fits(codes))
    }

    /// Sets the codes of matrices that have some.
    pub(super) fn set_codes(&mut self, codes: &[(String, [usize; 2], Vec<u8>)]) {
        for (name, _, codes) in codes {
            if let Some(Weight::Coded(coded)) = self.tensors.get_mut(name) {
                coded.set_codes(codes);
            }
        }
    }

    /// Everything that a step may change, in a fixed order.
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        for (name, weight) in &self.tensors {
            let mut add = |name: String, tensor: &Tensor, role| {
                let tensor = tensor.shallow_clone();
                parameters.push(Parameter { name, tensor, role });
            };
            match weight {
                Weight::Plain(Plain { tensor, .. }) if tensor.dim() == 1 => {
                    add(name.clone(), tensor, Role::Vector);
                }
                Weight::Plain(Plain { tensor, unit }) => {
                    add(name.clone(), tensor, Role::Matrix);
                    if let Some(unit) = unit {
                        // Without a gradient it stays as it is, and is saved with the rest.
                        add(format!("{name}:unit"), unit, Role::Vector);
                    }
                }
                Weight::Coded(coded) => {
                    let counts = coded.counts.shallow_clone();
                    let role = Role::Centroids(counts);
                    add(format!("{name}:centroids"), &coded.centroids, role);
                    if let Some(factors) = &coded.factors {
                        add(format!("{name}:factors"), factors, Role::Vector);
                    }
                    if let Some(unit) = &coded.unit {
                        add(format!("{name}:unit"), unit, Role::Vector);
                    }
                    if let Some(Plain { tensor, unit }) = &coded.latent {
                        add(format!("{name}:latent"), tensor, Role::Matrix);
                        if let Some(unit) = unit {
                            add(format!("{name}:latent:unit"), unit, Role::Vector);
                        }
                    }
                }
            }
        }
        for (layer, norm) in &self.norms {
            parameters.extend(norm.parameters(layer));
        }
        parameters
    }

    /// The codes of each matrix that has them, `[rows][blocks of a row]`.
    pub(super) fn codes(&self) -> Vec<(String, [usize; 2], Vec<u8>)> {
        let coded = self
            .tensors
            .iter()
            .filter_map(|(name, weight)| match weight {
                Weight::Coded(coded) => {
                    let size = coded.codes.size();
                    let shape = [size[0] as usize, size[1] as usize];
                    Some((name.clone(), shape, coded.bytes()))
                }
                Weight::Plain(_) => None,
            });
        coded.collect()
    }

    /// Gives a matrix the codes, centroids and factors that a saved state has.
    pub(super) fn restore(
        &mut self,
        name: &str,
        codes: &[u8],
        centroids: &[f32],
        factors: Option<&[f32]>,
    ) -> Result<()> {
        let wrong = || Error::new(ErrorKind::Checkpoint, "does not fit the model").in_tensor(name);
        let planned = self.plan.get(name).ok_or_else(wrong)?;
        let &[rows, columns] = &planned.shape[..] else {
            return Err(wrong());
        };
        let (block, codebooks) = (planned.plan.block, planned.plan.codebooks);
        let k = centroids.len() / block / codebooks;
        let fits = codes.len() == rows * columns.div_ceil(block)
            && centroids.len() == codebooks * k * block
            && codes.iter().all(|&code| usize::from(code) < k)
            && factors.is_none_or(|factors| factors.len() == rows);
        if !fits {
            return Err(wrong());
        }
        let coded = Coded::new(
            (rows, columns),
            (block, codebooks),
            codes,
            centroids,
            factors,
            planned.plan.centroid_type,
            self.device,
        );
        // The optimizer puts the units that were saved in the place of these.
        let coded = match self.relative {
            true => coded.relative(),
            false => coded,
        };
        self.tensors.insert(name.to_owned(), Weight::Coded(coded));
        Ok(())
    }

    /// What an artifact is made of.
    pub(super) fn trained(&self) -> Result<HashMap<String, Trained>> {
        let tensors = self.tensors.iter().map(|(name, weight)| {
            let trained = match weight {
                Weight::Plain(plain) => Trained::Values(to_vec(&plain.rows(None))),
                Weight::Coded(coded) => Trained::Pq(coded.to_pq().map_err(|e| e.in_tensor(name))?),
            };
            Ok((name.clone(), trained))
        });
        tensors.collect()
    }

    /// All values, if nothing has codes.
    pub(super) fn values(&self) -> Option<HashMap<String, Vec<f32>>> {
        let tensors = self.tensors.iter().map(|(name, weight)| match weight {
            Weight::Plain(plain) => Some((name.clone(), to_vec(&plain.rows(None)))),
            Weight::Coded(_) => None,
        });
        tensors.collect()
    }
}
