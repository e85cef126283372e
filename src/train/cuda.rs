//! CUDA's part of libtorch, loaded when a run asks for it.
//!
//! Nothing refers to it by a name that the linker sees, so that it would be left out of a binary even
//! where it is there; and a binary that needs it would not start where it is not.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Loads the library, from where libtorch was found or by the loader's own search, once; `Err` says why
/// there is none.
pub(super) fn load() -> Result<(), &'static str> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let name = libloading::library_filename("torch_cuda");
        // SAFETY: a part of the libtorch that this process has loaded; what it runs then adds its kernels
        // to libtorch's tables.
        let library = unsafe { libloading::Library::new(name) };
        // Never unloaded: the tables go on pointing into it.
        library.map(std::mem::forget).map_err(|e| e.to_string())
    });
    match loaded {
        Ok(()) => Ok(()),
        Err(why) => Err(why),
    }
}
