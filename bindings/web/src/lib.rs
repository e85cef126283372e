//! The runtime of centroid, as WebAssembly for browsers and node.
//!
//! What JavaScript sees is in `js/`: `api.js` checks arguments, finds the model's bytes and calls these
//! classes, which do the rest. There is one thread, and every error becomes an exception.

mod error;
mod models;
mod results;
mod source;

use wasm_bindgen::prelude::*;

pub use models::{Embedder, Images, Model, Texts};

/// Runs once, when the module is loaded. A panic ends a WebAssembly program without a word, so the hook
/// throws an exception with its message.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| {
        wasm_bindgen::throw_val(error::of_kind("internal", &info.to_string()))
    }));
}
