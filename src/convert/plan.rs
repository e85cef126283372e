//! Which tensor gets which scheme, decided and shown before any work starts.

mod planned;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::ConvertOptions;
use super::encode::NewTensor;
use crate::artifact::{Group, Layout, Scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::quant::CentroidType;
use crate::quant::pq::MAX_BLOCK;

pub use planned::PlannedTensor;

/// The groups that a plan can quantize; everything else stays `f16` (`f32` in an `f32` plan).
pub(crate) const GROUPS: [Group; 10] = [
    Group::Ffn,
    Group::Attention,
    Group::Embedding,
    Group::Position,
    Group::Head,
    Group::Stem,
    Group::Pointwise,
    Group::Depthwise,
    Group::Squeeze,
    Group::Classifier,
];

/// How the matrices of a group are stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GroupPlan {
    /// The scheme.
    pub scheme: Scheme,
    /// `pq`: columns in a block, 1 to 64; of a depthwise filter no more than it has, so that 64 is all of it.
    pub block: usize,
    /// `pq`: centroids in a codebook, 2 to 256; in convolutional networks at most one for four blocks.
    pub centroids: usize,
    /// `pq`: how centroids are stored.
    pub centroid_type: CentroidType,
    /// `pq`, tables of embeddings only: how many codebooks a table has, each for as many neighbouring blocks
    /// of every row.
    pub codebooks: usize,
    /// `pq`, `int8`, `int4`: a scale for each row (output, token) and not only for the tensor.
    pub row_scale: bool,
    /// `int8`, `int4`: shift the grid to the range of the weights.
    pub zero_point: bool,
}

impl GroupPlan {
    /// The defaults of `scheme` for `group`.
    pub fn new(scheme: Scheme, group: Group) -> Self {
        // 27 inputs a row, of which the whole network sees nothing else.
        let scheme = match (scheme, group) {
            (Scheme::Pq, Group::Stem) => Scheme::F16,
            _ => scheme,
        };
        Self {
            scheme,
            block: match group {
                Group::Attention | Group::Head => 4,
                Group::Pointwise | Group::Squeeze | Group::Classifier => 4,
                Group::Depthwise => MAX_BLOCK,
                _ => 8,
            },
            centroids: 256,
            centroid_type: CentroidType::Int8,
            codebooks: 1,
            row_scale: match scheme {
                Scheme::Int8 | Scheme::Int4 => true,
                // Batch norms give their rows a factor in any case.
                Scheme::Pq => matches!(group, Group::Pointwise | Group::Depthwise),
                _ => false,
            },
            zero_point: false,
        }
    }
}

/// How a model is quantized: a scheme for each group, and exceptions by tensor name.
///
/// The default is `pq` with blocks of 8 (ffn, embedding, position) and 4 (attention, head), 256
/// `int8` centroids, and no row scales; in convolutional networks blocks of 4 and whole depthwise filters, row
/// scales where there is a batch norm, and the first convolution as `f16`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    scheme: Scheme,
    groups: BTreeMap<Group, GroupPlan>,
    /// Groups named by the user: there must be such a tensor.
    named: Vec<Group>,
    rules: Vec<Rule>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Run every K-means iteration on all vectors, not on a sample.
    pub kmeans_full: bool,
}

/// An exception for tensors whose names match.
#[derive(Debug, Clone, PartialEq)]
struct Rule {
    pattern: String,
    changes: Changes,
}

/// What a plan file may say about a group or a tensor.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Changes {
    scheme: Option<String>,
    block: Option<usize>,
    centroids: Option<usize>,
    centroid_type: Option<String>,
    codebooks: Option<usize>,
    row_scale: Option<bool>,
    zero_point: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PlanFile {
    scheme: Option<String>,
    seed: Option<u64>,
    kmeans_full: Option<bool>,
    #[serde(default)]
    groups: BTreeMap<String, Changes>,
    #[serde(default)]
    tensors: Vec<TensorRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TensorRule {
    pattern: String,
    #[serde(flatten)]
    changes: toml::Table,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new(Scheme::Pq)
    }
}

impl Plan {
    /// The default plan of a scheme.
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            groups: GROUPS
                .into_iter()
                .map(|group| (group, GroupPlan::new(scheme, group)))
                .collect(),
            named: Vec::new(),
            rules: Vec::new(),
            seed: 0,
            kmeans_full: false,
        }
    }

    /// The plan of a group.
    pub fn group_mut(&mut self, group: Group) -> Option<&mut GroupPlan> {
        self.groups.get_mut(&group)
    }

    /// Sets the block size of a group by its name, for a model that must have such a tensor.
    ///
    /// # Errors
    /// If the group is unknown, its scheme has no blocks, or the size is not 1 to 64.
    pub fn set_block(&mut self, group: &str, block: usize) -> Result<()> {
        let found = group_by_name(group)?;
        let plan = self
            .groups
            .entry(found)
            .or_insert_with(|| GroupPlan::new(self.scheme, found));
        if plan.scheme != Scheme::Pq {
            return Err(config(format!(
                "{group}: block sizes are for pq and not for {}",
                plan.scheme.name()
            )));
        }
        plan.block = block;
        self.named.push(found);
        check(group, plan)
    }

    /// Changes every group.
    ///
    /// # Errors
    /// If a group's plan is then out of range.
    pub fn set_all(&mut self, change: impl Fn(&mut GroupPlan)) -> Result<()> {
        for (group, plan) in &mut self.groups {
            change(plan);
            check(group.name(), plan)?;
        }
        Ok(())
    }

    /// Applies a plan file (TOML); the README describes it.
    ///
    /// # Errors
    /// If the file cannot be read, or has an unknown key, group, scheme or a value out of range.
    pub fn apply_file(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.apply_path(path.as_ref(), None)
    }

    /// [`apply_file`](Self::apply_file) with `scheme` in place of the file's own `scheme`; groups
    /// and tensors that name another one keep it.
    ///
    /// # Errors
    /// As for `apply_file`.
    pub fn apply_file_with_scheme(&mut self, path: impl AsRef<Path>, scheme: Scheme) -> Result<()> {
        self.apply_path(path.as_ref(), Some(scheme))
    }

    fn apply_path(&mut self, path: &Path, scheme: Option<Scheme>) -> Result<()> {
        let text = files::settings(path)?;
        self.apply_toml(&text, scheme).map_err(|e| e.in_file(path))
    }

    /// Changes the scheme of every group that has another one; block sizes stay.
    fn set_scheme(&mut self, scheme: Scheme) {
        self.scheme = scheme;
        for (&group, plan) in &mut self.groups {
            if plan.scheme != scheme {
                *plan = GroupPlan {
                    block: plan.block,
                    ..GroupPlan::new(scheme, group)
                };
            }
        }
    }

    pub(super) fn apply_toml(&mut self, text: &str, scheme: Option<Scheme>) -> Result<()> {
        let one_line = |e: toml::de::Error| {
            let line = e.span().map_or(1, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            config(format!("line {line}: {}", e.message().replace('\n', " ")))
        };
        self.apply(toml::from_str(text).map_err(one_line)?, scheme)
    }

    /// Applies what a plan file says, as a part of another file.
    #[cfg(feature = "train")]
    pub(crate) fn apply_table(&mut self, table: &toml::Table) -> Result<()> {
        let file = PlanFile::deserialize(table.clone())
            .map_err(|e| config(e.message().replace('\n', " ")))?;
        self.apply(file, None)
    }

    fn apply(&mut self, file: PlanFile, scheme: Option<Scheme>) -> Result<()> {
        let named = file.scheme.as_deref().map(scheme_by_name).transpose()?;
        if let Some(scheme) = scheme.or(named) {
            self.set_scheme(scheme);
        }
        self.seed = file.seed.unwrap_or(self.seed);
        self.kmeans_full = file.kmeans_full.unwrap_or(self.kmeans_full);
        for (name, changes) in &file.groups {
            let group = group_by_name(name)?;
            let current = self.groups[&group].clone();
            let plan = changes.apply(current, group)?;
            check(name, &plan)?;
            self.groups.insert(group, plan);
            self.named.push(group);
        }
        for rule in file.tensors {
            let changes: Changes = rule.changes.try_into().map_err(|e: toml::de::Error| {
                config(format!("{}: {}", rule.pattern, e.message()))
            })?;
            // Nonsense in a rule is an error whether or not it ever applies.
            changes.apply(GroupPlan::new(self.scheme, Group::Other), Group::Other)?;
            self.rules.push(Rule {
                pattern: rule.pattern,
                changes,
            });
        }
        Ok(())
    }

    /// Decides for every tensor.
    ///
    /// # Errors
    /// If a group or pattern of the user matches nothing, or a scheme cannot hold a tensor.
    pub(super) fn resolve(&self, tensors: &[NewTensor]) -> Result<Vec<PlannedTensor>> {
        for group in &self.named {
            if !tensors.iter().any(|tensor| tensor.group == *group) {
                return Err(config(format!(
                    "the plan names the group {}, of which the model has no tensor",
                    group.name()
                )));
            }
        }
        for rule in &self.rules {
            if !tensors.iter().any(|t| matches(&rule.pattern, &t.name)) {
                return Err(config(format!(
                    "the pattern {:?} matches no tensor",
                    rule.pattern
                )));
            }
        }
        tensors.iter().map(|tensor| self.decide(tensor)).collect()
    }

    fn decide(&self, tensor: &NewTensor) -> Result<PlannedTensor> {
        let plain = match self.scheme {
            Scheme::F32 => Scheme::F32,
            _ => Scheme::F16,
        };
        let mut plan = match self.groups.get(&tensor.group) {
            Some(plan) => plan.clone(),
            None => GroupPlan::new(plain, tensor.group),
        };
        check(tensor.group.name(), &plan)?;
        for rule in &self.rules {
            if matches(&rule.pattern, &tensor.name) {
                plan = rule.changes.apply(plan, tensor.group)?;
                check(&tensor.name, &plan)?;
            }
        }
        let dense = matches!(plan.scheme, Scheme::F32 | Scheme::F16);
        if tensor.layout == Layout::Vector && !dense {
            return Err(config(format!(
                "{}: a vector cannot be stored as {}",
                tensor.name,
                plan.scheme.name()
            )));
        }
        if plan.scheme == Scheme::Pq && plan.codebooks != 1 {
            let blocks = tensor.matrix().1.div_ceil(plan.block);
            let name = &tensor.name;
            if tensor.layout != Layout::Rows {
                let message = "more than one codebook is for tables of embeddings";
                return Err(config(format!("{name}: {message}")));
            }
            if plan.codebooks == 0 || !blocks.is_multiple_of(plan.codebooks) {
                let codebooks = plan.codebooks;
                return Err(config(format!(
                    "{name}: {codebooks} codebooks do not divide the {blocks} blocks of a row"
                )));
            }
        }
        let (rows, columns) = tensor.matrix();
        if tensor.group == Group::Depthwise {
            plan.block = plan.block.min(columns);
        }
        if matches!(
            tensor.group,
            Group::Pointwise | Group::Depthwise | Group::Squeeze
        ) {
            let blocks = rows * columns.div_ceil(plan.block);
            plan.centroids = plan.centroids.min(blocks / 4).max(2);
        }
        let mut planned = PlannedTensor::new(tensor, &plan);
        if plan.scheme == Scheme::Pq {
            let options = plan.pq_options(0);
            let as_f16 = PlannedTensor::new(tensor, &GroupPlan::new(Scheme::F16, tensor.group));
            if options.is_too_small(rows, columns) || planned.bytes >= as_f16.bytes {
                planned = as_f16;
                planned.too_small = true;
            }
        }
        Ok(planned)
    }
}

impl Changes {
    fn apply(&self, mut plan: GroupPlan, group: Group) -> Result<GroupPlan> {
        if let Some(name) = &self.scheme {
            let scheme = scheme_by_name(name)?;
            if scheme != plan.scheme {
                plan = GroupPlan::new(scheme, group);
            }
            let dense = matches!(scheme, Scheme::F32 | Scheme::F16);
            for (key, given, fits) in [
                ("block", self.block.is_some(), scheme == Scheme::Pq),
                ("centroids", self.centroids.is_some(), scheme == Scheme::Pq),
                (
                    "centroid-type",
                    self.centroid_type.is_some(),
                    scheme == Scheme::Pq,
                ),
                ("row-scale", self.row_scale == Some(true), !dense),
            ] {
                if given && !fits {
                    return Err(config(format!("{key} has no effect on {name}")));
                }
            }
        }
        plan.block = self.block.unwrap_or(plan.block);
        plan.centroids = self.centroids.unwrap_or(plan.centroids);
        plan.codebooks = self.codebooks.unwrap_or(plan.codebooks);
        plan.row_scale = self.row_scale.unwrap_or(plan.row_scale);
        plan.zero_point = self.zero_point.unwrap_or(plan.zero_point);
        if let Some(name) = &self.centroid_type {
            plan.centroid_type = match name.as_str() {
                "int8" => CentroidType::Int8,
                "f16" => CentroidType::F16,
                _ => {
                    return Err(config(format!(
                        "centroid-type {name:?} is unknown; int8 and f16 are known"
                    )));
                }
            };
        }
        Ok(plan)
    }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn check(what: &str, plan: &GroupPlan) -> Result<()> {
    if plan.scheme == Scheme::Pq && !(1..=MAX_BLOCK).contains(&plan.block) {
        return Err(config(format!(
            "{what}: block size {} is not 1 to {MAX_BLOCK}",
            plan.block
        )));
    }
    if plan.scheme == Scheme::Pq && !(2..=256).contains(&plan.centroids) {
        return Err(config(format!(
            "{what}: {} centroids are not 2 to 256",
            plan.centroids
        )));
    }
    if plan.codebooks != 1 && plan.scheme != Scheme::Pq {
        return Err(config(format!(
            "{what}: codebooks are for pq and not for {}",
            plan.scheme.name()
        )));
    }
    if plan.zero_point && !matches!(plan.scheme, Scheme::Int8 | Scheme::Int4) {
        return Err(config(format!(
            "{what}: zero points are for int8 and int4 and not for {}",
            plan.scheme.name()
        )));
    }
    Ok(())
}

fn group_by_name(name: &str) -> Result<Group> {
    GROUPS
        .into_iter()
        .find(|group| group.name() == name)
        .ok_or_else(|| {
            let known = GROUPS.map(Group::name).join(", ");
            config(format!("group {name:?} is unknown; known: {known}"))
        })
}

/// The scheme called `name`.
fn scheme_by_name(name: &str) -> Result<Scheme> {
    (Scheme::ALL.iter().copied())
        .find(|scheme| scheme.name() == name)
        .ok_or_else(|| {
            let known: Vec<_> = Scheme::ALL.iter().map(|s| s.name()).collect();
            config(format!(
                "scheme {name:?} is unknown; known: {}",
                known.join(", ")
            ))
        })
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
    }
    match last {
        Some(last) => rest.ends_with(last),
        None => rest.is_empty(),
    }
}

/// The original numbers of the layers to keep.
pub(super) fn kept_layers(options: &ConvertOptions, layers: usize) -> Result<Vec<usize>> {
    let Some(kept) = &options.layers else {
        return Ok((0..layers).collect());
    };
    if kept.is_empty() {
        return Err(config("no layer is kept".into()));
    }
    if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(config(format!(
            "layers {} and {} are not in ascending order",
            pair[0], pair[1]
        )));
    }
    match kept.iter().find(|&&layer| layer >= layers) {
        Some(layer) => Err(config(format!(
            "layer {layer} does not exist; the checkpoint has 0 to {}",
            layers - 1
        ))),
        None => Ok(kept.clone()),
    }
}

/// For each of `layers` layers the one whose tensors it uses: the first of its chunk of `share`.
pub(super) fn layer_of(layers: usize, share: usize) -> Result<Vec<usize>> {
    if share > 1 && share > layers {
        return Err(config(format!(
            "share: {share} layers cannot share weights where there are {layers} in all"
        )));
    }
    let share = share.max(1);
    Ok((0..layers).map(|layer| layer / share * share).collect())
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
