//! What a plan comes to for one tensor.

use std::fmt;

use super::GroupPlan;
use crate::artifact::{Group, Layout, Scheme};
use crate::convert::coded::Size;
use crate::convert::encode::NewTensor;
use crate::quant::CentroidType;

/// A tensor and what becomes of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedTensor {
    /// Its name in the artifact.
    pub name: String,
    /// Its group.
    pub group: Group,
    /// `[n]` or `[rows, columns]`.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub plan: GroupPlan,
    /// Bytes that this takes, codebooks and scales included.
    pub bytes: u64,
    /// It was to be `pq`, but is too small for its codebook.
    pub too_small: bool,
    /// It has codes and centroids already, which are stored as they are.
    pub kept: bool,
}

impl PlannedTensor {
    pub(super) fn new(tensor: &NewTensor, plan: &GroupPlan) -> Self {
        let (rows, columns) = tensor.matrix();
        let n = rows * columns;
        let rows_of = |bytes: usize| if plan.row_scale { rows * bytes } else { 0 };
        let zero = if plan.zero_point && plan.row_scale {
            rows
        } else {
            0
        };
        let bytes = match plan.scheme {
            Scheme::F32 => 4 * n,
            Scheme::F16 => 2 * n,
            Scheme::Pq => {
                let (each, scale) = match plan.centroid_type {
                    CentroidType::F16 => (2, 0),
                    _ => (1, 4),
                };
                let codebook = plan.codebooks * plan.centroids * plan.block * each + scale;
                rows * columns.div_ceil(plan.block) + codebook + rows_of(2)
            }
            Scheme::Int8 if tensor.layout == Layout::Tiles => {
                rows * columns.next_multiple_of(8) + rows_of(2) + zero + 8
            }
            Scheme::Int8 => n + rows_of(2) + zero + 8,
            Scheme::Int4 => rows * columns.div_ceil(2) + rows_of(2) + zero + 8,
        };
        Self {
            name: tensor.name.clone(),
            group: tensor.group,
            shape: tensor.shape.clone(),
            plan: plan.clone(),
            bytes: bytes as u64,
            too_small: false,
            kept: false,
        }
    }

    /// Lets codes of the checkpoint be stored as they are, if codes are what is planned. Whether they are.
    pub(in crate::convert) fn keep_codes(&mut self, tensor: &NewTensor, size: Size) -> bool {
        let planned = self.plan.scheme == Scheme::Pq || self.too_small;
        if !planned {
            return false;
        }
        let plan = GroupPlan {
            block: size.block,
            centroids: size.centroids,
            row_scale: size.row_scale,
            centroid_type: self.plan.centroid_type,
            ..GroupPlan::new(Scheme::Pq, tensor.group)
        };
        *self = Self::new(tensor, &plan);
        self.kept = true;
        true
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).product()
    }
}

impl fmt::Display for PlannedTensor {
    /// One line: name, shape, scheme, bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        let mut scheme = plan.scheme.name().to_owned();
        if plan.scheme == Scheme::Pq {
            let kind = match plan.centroid_type {
                CentroidType::F16 => "f16",
                _ => "int8",
            };
            scheme += &format!(
                " block {} x {} {kind} centroids",
                plan.block, plan.centroids
            );
            if plan.codebooks > 1 {
                scheme += &format!(" in each of {} codebooks", plan.codebooks);
            }
            if let Some(&columns) = self.shape.last()
                && columns % plan.block != 0
            {
                scheme += &format!(" (last block {})", columns % plan.block);
            }
        }
        if !matches!(plan.scheme, Scheme::F32 | Scheme::F16) && plan.row_scale {
            scheme += ", row scales";
        }
        if plan.zero_point {
            scheme += ", zero points";
        }
        if self.kept {
            scheme += ", as the checkpoint has them";
        }
        if self.too_small {
            scheme += " (too small for a codebook)";
        }
        write!(
            f,
            "{:<40} {:<14} {:>10} B  {scheme}",
            self.name,
            format!("{:?}", self.shape),
            self.bytes
        )
    }
}
