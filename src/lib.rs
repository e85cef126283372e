//! A runtime for models whose weights are codebooks.
//!
//! A `.centroid` file ([`Artifact`]) holds a model's weights as one-byte codes into small codebooks,
//! with its tokenizer and labels. [`TextClassifier`], [`SentenceEmbedder`] and [`ImageClassifier`] answer
//! from it, in place: products are computed straight from centroids, after "Training with Quantization
//! Noise for Extreme Model Compression" (Fan et al. 2020, arXiv 2004.07320). [`convert`] makes such files
//! from trained checkpoints.
//!
//! | feature | what it adds |
//! |---|---|
//! | `text` | tokenizing and the text pipelines |
//! | `image` | pictures and [`ImageClassifier`] |
//! | `tokenizers` | the `tokenizers` crate, for a `tokenizer.json` that tokenizer tables cannot express |
//! | `convert` | the quantizers ([`quant`]) and the reading of checkpoints |
//! | `data` | labelled texts from files ([`data`]), and scores |
//! | `train` | training with quantization noise (`train`), in torch |
//! | `cli` (default) | the `centroid` binary |
//!
//! Without features only [`Artifact`] is there, to inspect and check files.
#![deny(unsafe_code)]
// Without `text` and `image` some models or all are run by nothing.
#![cfg_attr(not(all(feature = "text", feature = "image")), allow(dead_code))]
#![cfg_attr(
    not(all(feature = "convert", feature = "data", feature = "image")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![warn(missing_docs)]

mod artifact;
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "convert")]
pub mod convert;
#[cfg(feature = "data")]
pub mod data;
mod error;
#[cfg(any(feature = "convert", feature = "data", feature = "image"))]
mod files;
#[cfg(feature = "image")]
mod image;
mod kernels;
mod layout;
mod models;
mod nn;
#[cfg(any(feature = "text", feature = "image"))]
mod pipeline;
#[cfg(feature = "convert")]
pub mod quant;
#[cfg(feature = "text")]
mod text;
#[cfg(feature = "train")]
pub mod train;

pub use artifact::{Artifact, Group, Layout, ModelKind, PqInfo, Scheme, TensorInfo, ZeroPointInfo};
pub use error::{Error, ErrorKind, Result};
pub use models::efficientnet::NetworkInfo;
pub use models::encoder::EncoderInfo;
pub use nn::Mode;
#[cfg(feature = "text")]
pub use pipeline::{Classification, Embedding, EmbeddingMatrix, SentenceEmbedder, TextClassifier};
#[cfg(feature = "image")]
pub use pipeline::{ImageClassification, ImageClassifier};
#[cfg(any(feature = "text", feature = "image"))]
pub use pipeline::{LabelScore, Options};
#[cfg(feature = "text")]
pub use text::Truncation;

/// The README's program is a test.
#[cfg(all(doctest, feature = "text"))]
#[doc = include_str!("../README.md")]
struct Readme;
