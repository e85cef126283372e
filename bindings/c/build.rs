//! Names the shared library's interface: before 1.0 every minor version may change it.

fn main() {
    let version =
        |part: &str| std::env::var(format!("CARGO_PKG_VERSION_{part}")).unwrap_or_default();
    let (major, minor) = (version("MAJOR"), version("MINOR"));
    let interface = if major == "0" {
        format!("0.{minor}")
    } else {
        major
    };
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if matches!(system.as_str(), "linux" | "freebsd" | "netbsd" | "openbsd") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcentroid.so.{interface}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
