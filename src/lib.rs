//! A runtime for models whose weights are codebooks.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod error;

pub use error::{Error, ErrorKind, Result};
