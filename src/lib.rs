//! A runtime for models whose weights are codebooks.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod artifact;
mod error;
mod kernels;
mod layout;

pub use artifact::{Artifact, Group, Layout, ModelKind, Scheme};
pub use error::{Error, ErrorKind, Result};
