//! aarch64.

pub(super) mod dotprod;
pub(super) mod i8mm;
pub(super) mod neon;
pub(super) mod neon_dot;
pub(super) mod neon_lut;
