//! WebAssembly with simd128. There is nothing to detect at run time: a module that has such instructions
//! does not load where they are unknown. So these are the target's baseline, and what is between products
//! is the `wide` crate's.

pub(super) mod dot;
pub(super) mod lut;
