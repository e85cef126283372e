//! Which instruction sets there are, and which one is used: decided once, at run time.

use std::sync::OnceLock;

use super::portable::Portable;
use crate::error::{Error, ErrorKind, Result};

/// A token for an instruction set that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// The baseline of the target, by the `wide` crate: SSE2, NEON or simd128.
    Portable(Portable),
}

/// The environment variable that overrides the choice.
pub(crate) const VARIABLE: &str = "CENTROID_ISA";

impl Isa {
    /// Every instruction set that this processor has, the slowest first.
    pub(crate) fn available() -> Vec<Self> {
        vec![Isa::Portable(Portable::new())]
    }

    /// The name, as `CENTROID_ISA` takes it and `bench` prints it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Isa::Portable(_) => "portable",
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
        assert!(error.to_string().contains("portable"), "{error}");
        for isa in Isa::available() {
            assert_eq!(Isa::by_name(isa.name()).unwrap(), isa);
        }
    }
}
