//! A runtime for models whose weights are codebooks.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod artifact;
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "convert")]
pub mod convert;
mod error;
mod kernels;
mod layout;
mod models;
mod nn;
#[cfg(feature = "text")]
mod pipeline;
#[cfg(feature = "convert")]
pub mod quant;
#[cfg(feature = "text")]
mod text;

pub use artifact::{Artifact, Group, Layout, ModelKind, PqInfo, Scheme, TensorInfo, ZeroPointInfo};
pub use error::{Error, ErrorKind, Result};
pub use models::encoder::EncoderInfo;
pub use nn::Mode;
#[cfg(feature = "text")]
pub use pipeline::{
    Classification, Embedding, LabelScore, Options, SentenceEmbedder, TextClassifier,
};
#[cfg(feature = "text")]
pub use text::Truncation;
