//! Models: a config, the layers it asks for, and the forward pass.

pub(crate) mod efficientnet;
pub(crate) mod encoder;
