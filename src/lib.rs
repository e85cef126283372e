//! A runtime for models whose weights are codebooks.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod error;
#[cfg(feature = "convert")]
pub mod quant;

pub use error::{Error, ErrorKind, Result};
