//! Tells programs built with the feature `train` where libtorch is, so that they start without
//! `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if std::env::var_os("CARGO_FEATURE_TRAIN").is_none() {
        return;
    }
    // From torch-sys, which found it by LIBTORCH.
    if let Ok(library) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        // As RUNPATH, which LD_LIBRARY_PATH overrides.
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{library}");
    }
}
