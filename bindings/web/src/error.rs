//! Errors of the library as exceptions.

use centroid::ErrorKind;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(raw_module = "./error.js")]
extern "C" {
    type CentroidError;

    #[wasm_bindgen(constructor)]
    fn new(message: &str, kind: &str, text: Option<u32>) -> CentroidError;
}

/// The exception for an error: its message, its kind by name, and which text it is about.
pub(crate) fn exception(error: centroid::Error) -> JsValue {
    let text = error.text().and_then(|text| u32::try_from(text).ok());
    CentroidError::new(&error.to_string(), name(error.kind()), text).into()
}

/// The exception for what the library does not know of.
pub(crate) fn of_kind(kind: &str, message: &str) -> JsValue {
    CentroidError::new(message, kind, None).into()
}

fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Io => "io",
        ErrorKind::Format => "format",
        ErrorKind::Checksum => "checksum",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Checkpoint => "checkpoint",
        ErrorKind::Config => "config",
        ErrorKind::Tokenizer => "tokenizer",
        ErrorKind::TooLong => "too-long",
        ErrorKind::Input => "input",
        ErrorKind::Isa => "isa",
        _ => "unknown",
    }
}
