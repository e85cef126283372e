//! Makes the JavaScript module that loads a compiled `centroid-web`, and the `.wasm` file beside it.
//!
//!     centroid-web-builder COMPILED.wasm DIRECTORY
//!
//! This is what `wasm-bindgen --target web` does, without the minutes that the whole of that program
//! takes to build.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [compiled, directory] = &arguments[..] else {
        eprintln!("usage: centroid-web-builder COMPILED.wasm DIRECTORY");
        return ExitCode::FAILURE;
    };
    let mut bindgen = Bindgen::new();
    let made = bindgen
        .input_path(compiled)
        .out_name("centroid")
        .web(true)
        .and_then(|bindgen| {
            bindgen
                .typescript(false)
                .remove_name_section(true)
                .remove_producers_section(true)
                .generate(directory)
        });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("centroid-web-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}
