//! x86-64 beyond its baseline.

pub(super) mod avx2;
pub(super) mod avx2_dot;
pub(super) mod avx2_lut;
pub(super) mod avx512;
pub(super) mod avx512_dot;
pub(super) mod pairs;
pub(super) mod vbmi;
pub(super) mod vnni;
pub(super) mod vnni_lut;
