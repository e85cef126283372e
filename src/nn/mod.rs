//! Layers over checked tensors: linear, embedding, layer norm, depthwise convolution.
//!
//! A layer points at the bytes of the open artifact. All that is made at open are small tables: the
//! codebooks in the kernels' form and `f16` vectors as `f32`.

mod conv;
mod embedding;
mod linear;
mod norm;
mod watch;

pub(crate) use conv::Depthwise;
pub(crate) use embedding::Embedding;
pub(crate) use linear::{Input, Linear};
pub(crate) use norm::Norm;
pub(crate) use watch::{watch, watched};

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::artifact::{Artifact, Bytes, Layout, StoredCodebook, Tensor, Values};
use crate::error::{Error, Result};
use crate::kernels::{Codebook, Isa, Threads};

/// How linear layers treat their input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Activations are rounded to 8 bits, each row (token) with a scale of its own, and multiplied
    /// with `int8` centroids in exact integer arithmetic. Applies to tensors stored as `pq`,
    /// `int8` or `int4` (`f16` codebooks are rounded to `int8` at open); tensors stored as `f16` or
    /// `f32` are multiplied in `f32`. Where a processor multiplies pairs of 16-bit integers (AVX2 and beyond),
    /// attention over 96 tokens and more, up to 32,768, is rounded to 16 bits, whatever tensors are stored as.
    #[default]
    Int8,
    /// Activations stay `f32` everywhere.
    Exact,
}

impl Mode {
    /// `int8` or `exact`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Int8 => "int8",
            Mode::Exact => "exact",
        }
    }
}

/// How a forward pass runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) isa: Isa,
    pub(crate) threads: Threads,
    pub(crate) mode: Mode,
}

impl Context {
    /// What the functions between the products run on.
    pub(crate) fn machine(self) -> (Isa, Threads) {
        (self.isa, self.threads)
    }
}

/// Builds layers from the tensors of an artifact, and makes each shared codebook once.
pub(crate) struct Loader<'a> {
    artifact: &'a Artifact,
    /// By their bytes and block size, without the scale: a file may have many of those for one codebook.
    books: HashMap<(*const u8, usize), Arc<Codebook>>,
    /// `f16` vectors by their bytes.
    vectors: HashMap<*const u8, Arc<[f32]>>,
    grids: HashMap<i8, Arc<Codebook>>,
    taken: HashSet<&'a str>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(artifact: &'a Artifact) -> Self {
        Self {
            artifact,
            books: HashMap::new(),
            vectors: HashMap::new(),
            grids: HashMap::new(),
            taken: HashSet::new(),
        }
    }

    /// The tensor `name`, which must have this layout and shape.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        layout: Layout,
        shape: &[usize],
    ) -> Result<&'a Tensor> {
        let tensor = self.artifact.tensor(name)?;
        tensor
            .expect(layout, shape)
            .map_err(|e| self.artifact.locate(e))?;
        self.taken.insert(&tensor.name);
        Ok(tensor)
    }

    /// A vector of `n` values.
    pub(crate) fn vector(&mut self, name: &str, n: usize) -> Result<Vector> {
        let tensor = self.tensor(name, Layout::Vector, &[n])?;
        Ok(match &tensor.values {
            Values::F32(bytes) => Vector(Stored::InPlace(bytes.clone())),
            Values::F16(bytes) => {
                let expanded = self.vectors.entry(bytes.as_ptr()).or_insert_with(|| {
                    let values = bytes.typed::<half::f16>().iter();
                    values.map(|v| v.to_f32()).collect()
                });
                Vector(Stored::Expanded(expanded.clone()))
            }
            _ => unreachable!("the reader admits f32 and f16 vectors only"),
        })
    }

    /// The kernels' tables for a stored codebook, whose own scale is not in them.
    fn codebook(&mut self, stored: &StoredCodebook, block: usize) -> Arc<Codebook> {
        let bytes = match stored {
            StoredCodebook::Int8 { values, .. } | StoredCodebook::F16(values) => values,
        };
        let book = self.books.entry((bytes.as_ptr(), block));
        let book = book.or_insert_with(|| {
            Arc::new(match stored {
                StoredCodebook::Int8 { values, .. } => {
                    Codebook::from_int8(values.typed(), block, 1.0)
                }
                StoredCodebook::F16(values) => Codebook::from_f16(values.typed(), block),
            })
        });
        book.clone()
    }

    /// The grid of `int4` values about a zero point.
    fn int4_grid(&mut self, zero: i8) -> Arc<Codebook> {
        let grid = self.grids.entry(zero);
        grid.or_insert_with(|| Arc::new(Codebook::int4(zero)))
            .clone()
    }

    /// Fails if the artifact has a tensor that no layer took.
    pub(crate) fn finish(self) -> Result<()> {
        let left = |tensor: &&Tensor| !self.taken.contains(tensor.name.as_str());
        match self.artifact.stored().iter().find(left) {
            Some(tensor) => Err(self.artifact.locate(
                Error::format("the model has no such tensor")
                    .in_tensor(tensor.name.escape_debug().to_string()),
            )),
            None => Ok(()),
        }
    }
}

/// `f32` values of a vector, in place where they are stored as such.
pub(crate) struct Vector(Stored);

enum Stored {
    InPlace(Bytes),
    Expanded(Arc<[f32]>),
}

impl std::ops::Deref for Vector {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Stored::InPlace(bytes) => bytes.typed(),
            Stored::Expanded(values) => values,
        }
    }
}

/// Row factors of a tensor, if it has any.
fn row_scale(bytes: &Option<Bytes>) -> Option<&[half::f16]> {
    bytes.as_ref().map(|bytes| bytes.typed())
}

/// `{prefix}.{name}`
pub(crate) fn join(prefix: &str, name: &str) -> String {
    format!("{prefix}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact() -> Artifact {
        let bytes = include_bytes!("../../tests/data/golden/v1-bert-pq.centroid");
        Artifact::from_bytes(bytes).unwrap()
    }

    /// A file may have many scales, or many names, for the same bytes: it must not be able to ask for many
    /// times its size.
    #[test]
    fn what_is_shared_is_made_once() {
        let artifact = artifact();
        let mut loader = Loader::new(&artifact);
        let codebook = |tensor: &Tensor| match &tensor.values {
            Values::Pq {
                codebook: StoredCodebook::Int8 { values, scale },
                block,
                ..
            } => Some((values.clone(), *scale, *block)),
            _ => None,
        };
        let (values, scale, block) = artifact.stored().iter().find_map(codebook).unwrap();
        let mut book = |scale: f32, block: usize| {
            let values = values.clone();
            loader.codebook(&StoredCodebook::Int8 { values, scale }, block)
        };
        let first = book(scale, block);
        assert!(Arc::ptr_eq(&first, &book(2.0 * scale, block)));
        assert!(Arc::ptr_eq(&first, &book(scale, block)));
        assert!(!Arc::ptr_eq(&first, &book(scale, block / 2)));

        let is_f16 = |tensor: &&Tensor| {
            tensor.layout == Layout::Vector && matches!(tensor.values, Values::F16(_))
        };
        let vector = artifact.stored().iter().find(is_f16).unwrap();
        let [first, second] =
            [0, 1].map(
                |_| match loader.vector(&vector.name, vector.shape[0]).unwrap().0 {
                    Stored::Expanded(values) => values,
                    Stored::InPlace(_) => panic!("in place"),
                },
            );
        assert!(Arc::ptr_eq(&first, &second));
    }
}
