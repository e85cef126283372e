//! From a trained checkpoint to the parts of an artifact.

pub(crate) mod random_tokenizer;
pub(crate) mod tokenizer;
