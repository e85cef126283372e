//! Rounding to f16 with a check for overflow.

use half::f16;

use crate::error::{Error, ErrorKind, Result};

/// The nearest f16.
///
/// # Errors
/// [`ErrorKind::Checkpoint`] if that is not finite (65520 and above).
pub(super) fn to_f16(value: f32) -> Result<f16> {
    let rounded = f16::from_f32(value);
    match rounded.is_finite() {
        true => Ok(rounded),
        false => Err(Error::new(
            ErrorKind::Checkpoint,
            format!("{value} is outside the range of f16"),
        )),
    }
}

/// The least f16 that is not below `value`, for `value` in `[0, 1]`.
pub(super) fn to_f16_up(value: f32) -> f16 {
    let rounded = f16::from_f32(value);
    match rounded.to_f32() < value {
        true => f16::from_bits(rounded.to_bits() + 1),
        false => rounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_is_an_error() {
        assert_eq!(to_f16(65519.0).unwrap(), f16::MAX);
        for bad in [65520.0, -1e30, f32::INFINITY, f32::NAN] {
            assert_eq!(to_f16(bad).unwrap_err().kind(), ErrorKind::Checkpoint);
        }
    }

    #[test]
    fn rounding_up_is_up_and_tight() {
        for i in 0..=10_000 {
            let value = i as f32 / 10_000.0;
            let up = to_f16_up(value);
            assert!(up.to_f32() >= value && up.to_f32() <= 1.0);
            if up.to_bits() > 0 {
                assert!(f16::from_bits(up.to_bits() - 1).to_f32() < value);
            }
        }
        assert_eq!(to_f16_up(1e-30).to_bits(), 1);
    }
}
