//! Dot products that every processor of the target has.

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(super) use super::portable_dot::{PortableF32 as F32, PortableInt8 as Int8};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) use super::wasm32::dot::{Simd128F32 as F32, Simd128Int8 as Int8};
