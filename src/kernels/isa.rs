//! Which instruction sets there are, and which one is used: decided once, at run time.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use super::aarch64::{dotprod::NeonDotprod, i8mm::NeonI8mm, neon::Neon};
use super::portable::Portable;
use super::simd::{Op, Simd};
#[cfg(target_arch = "x86_64")]
use super::x86::{avx2::Avx2, avx512::Avx512, vbmi::Avx512Vbmi, vnni::Avx512Vnni};
use crate::error::{Error, ErrorKind, Result};

/// A token for an instruction set that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// The baseline of the target, by the `wide` crate: SSE2, NEON or simd128; for products with simd128 by
    /// instructions of its own.
    Portable(Portable),
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// The same with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// The same with VNNI and VBMI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vbmi(Avx512Vbmi),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// NEON with `int8` dot products.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(NeonDotprod),
    /// NEON with `int8` matrix products.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(NeonI8mm),
}

/// The environment variable that overrides the choice.
pub(crate) const VARIABLE: &str = "CENTROID_ISA";

impl Isa {
    /// Every instruction set that this processor has, the slowest first.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg_attr(target_arch = "wasm32", allow(unused_mut))]
        let mut all = vec![Isa::Portable(Portable::new())];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::new().map(Isa::Avx2));
            all.extend(Avx512::new().map(Isa::Avx512));
            all.extend(Avx512Vnni::new().map(Isa::Avx512Vnni));
            all.extend(Avx512Vbmi::new().map(Isa::Avx512Vbmi));
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.extend(Neon::new().map(Isa::Neon));
            all.extend(NeonDotprod::new().map(Isa::NeonDotprod));
            all.extend(NeonI8mm::new().map(Isa::NeonI8mm));
        }
        all
    }

    /// The name, as `CENTROID_ISA` takes it and `bench` prints it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Isa::Portable(_) if cfg!(all(target_arch = "wasm32", target_feature = "simd128")) => {
                "simd128"
            }
            Isa::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vbmi(_) => "avx512-vbmi",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(_) => "neon-i8mm",
        }
    }

    /// What multiplies four `int8` at a time, if it is there.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn vnni(self) -> Option<super::x86::vnni::Avx512Vnni> {
        match self {
            Isa::Avx512Vnni(token) => Some(token),
            Isa::Avx512Vbmi(token) => Some(token.vnni()),
            _ => None,
        }
    }

    /// Multiply-accumulates of `int8` products in a nanosecond on one core, roughly: enough to tell
    /// a job that is worth a second thread from one that is not. For NEON they are estimates.
    pub(crate) fn int8_rate(self) -> usize {
        match self {
            Isa::Portable(_) => 28,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => 80,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => 160,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) | Isa::Avx512Vbmi(_) => 200,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => 40,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) | Isa::NeonI8mm(_) => 80,
        }
    }

    /// The same for products in `f32`.
    pub(crate) fn f32_rate(self) -> usize {
        match self {
            Isa::Portable(_) => 10,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => 30,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) | Isa::Avx512Vnni(_) | Isa::Avx512Vbmi(_) => 60,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) | Isa::NeonDotprod(_) | Isa::NeonI8mm(_) => 20,
        }
    }

    /// Runs `op` with this instruction set's vectors.
    #[inline]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        match self {
            Isa::Portable(simd) => simd.run(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => simd.run(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => simd.run(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(token) => token.avx512().run(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vbmi(token) => token.vnni().avx512().run(op),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => simd.run(op),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(token) => token.neon().run(op),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(token) => token.neon().run(op),
        }
    }

    /// The instruction set called `name`.
    pub(crate) fn by_name(name: &str) -> Result<Self> {
        let available = Self::available();
        available
            .iter()
            .copied()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
                Error::new(
                    ErrorKind::Isa,
                    format!(
                        "instruction set {name:?} is unknown or not available on this processor; \
                         available: {}",
                        names.join(", ")
                    ),
                )
            })
    }

    /// What `CENTROID_ISA` asks for, else the fastest one. The variable is read once.
    pub(crate) fn detect() -> Result<Self> {
        static REQUESTED: OnceLock<Option<String>> = OnceLock::new();
        let requested = REQUESTED.get_or_init(|| {
            let value = std::env::var_os(VARIABLE)?;
            let value = value.to_string_lossy().trim().to_owned();
            (!value.is_empty()).then_some(value)
        });
        match requested {
            Some(name) => Self::by_name(name)
                .map_err(|e| Error::new(ErrorKind::Isa, format!("{VARIABLE}: {e}"))),
            None => Ok(*Self::available().last().expect("portable is always there")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_list_what_there_is() {
        let error = Isa::by_name("avx1024").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Isa);
        let baseline = Isa::Portable(Portable::new()).name();
        assert!(error.to_string().contains(baseline), "{error}");
        for isa in Isa::available() {
            assert_eq!(Isa::by_name(isa.name()).unwrap(), isa);
        }
    }
}
