//! What differs between models of texts and networks of images in training.

use std::borrow::Cow;
use std::collections::HashSet;

use tch::{Device, Tensor};

use super::finish::Measured;
use super::pass::Pass;
use super::recipe::Stage;
use super::setup::Run;
use super::stage::Model;
use crate::convert::recode::Recoded;
use crate::error::Result;
use crate::quant::rng::Rng;

/// What comes out of a pass.
pub(super) struct Outputs {
    /// Logits `[examples, labels]`, or vectors `[texts, hidden]` of an embedding model.
    pub(super) answers: Tensor,
    /// What comes out of the embeddings (of an image's first convolution) and of each layer (block):
    /// `[real tokens, hidden]`, or `[images, height, width, channels]`. Empty unless asked for.
    pub(super) hidden: Vec<Option<Tensor>>,
}

/// A kind of model: what its examples are, and what it makes of them.
pub(super) trait Learner: Sized {
    /// A text or an image.
    type Example: Clone;
    type Batch;
    /// Whether errors of what layers give count relative to its size: where nothing keeps that the same.
    const RELATIVE: bool;

    /// Batches hold examples of about one length.
    fn length(example: &Self::Example) -> usize;

    /// The number of its label; 0 if there are no labels.
    fn label(example: &Self::Example) -> i64;

    /// Layers, some of which may be skipped.
    fn layers(&self) -> usize;

    /// Whether answers are vectors and not logits.
    fn embeds(&self) -> bool;

    /// # Errors
    /// If an example cannot be read.
    fn batch(&self, examples: &[&Self::Example], device: Device) -> Result<Self::Batch>;

    /// # Errors
    /// If a codebook cannot be stored.
    fn forward(&self, pass: &Pass<'_>, batch: &Self::Batch, with_hidden: bool) -> Result<Outputs>;

    /// The examples of a step, changed as the stage says.
    fn varied<'e>(
        &self,
        stage: &Stage,
        examples: &'e [Self::Example],
        numbers: &[usize],
        rng: &mut Rng,
    ) -> Vec<Cow<'e, Self::Example>>;

    /// Codes for the matrices `names`, made so that layers' outputs for some examples stay as they are. Calls
    /// `made` with the name and the relative error of each.
    ///
    /// # Errors
    /// If `made` has one, or for values that are not finite.
    fn recode(
        model: &Model<Self>,
        stage: &Stage,
        names: HashSet<String>,
        examples: &[&Self::Example],
        seed: u64,
        made: &mut dyn FnMut(&str, f64) -> Result<()>,
    ) -> Result<Recoded>;

    /// What the runtime makes of an artifact's `bytes`, compared with torch's `answers` (in the modes `int8` and
    /// `exact`) to the validation
    /// examples.
    ///
    /// # Errors
    /// Of the runtime.
    fn measure(
        run: &Run<'_, Self>,
        bytes: Vec<u8>,
        answers: &[Vec<Vec<f32>>; 2],
    ) -> Result<Measured>;
}
