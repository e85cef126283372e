//! A runtime for models whose weights are codebooks.
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "convert")]
mod convert;
mod error;
#[cfg(feature = "text")]
mod text;

pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "text")]
pub use text::Truncation;
