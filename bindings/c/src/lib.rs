//! The C interface of centroid: `libcentroid`, with `include/centroid.h`, which cbindgen makes of these files.
//!
//! - Handles are opaque; each has a function that frees it, to which NULL may be given.
//! - A function that can fail returns a [`Status`](status::Status); what went wrong stands in
//!   `centroid_last_error()` of the same thread. Out parameters are written on success only.
//! - Nothing unwinds into the caller: a panic, which would be a bug of the library, is a status.
//! - Handles of models may be used by any number of threads at a time; options and results by one.

mod borrowed;
mod embedder;
#[cfg(feature = "images")]
mod images;
mod model;
mod options;
mod results;
mod status;
mod texts;
