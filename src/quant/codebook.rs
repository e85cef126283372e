//! Codebooks as they are stored: int8 with one scale, or f16.

use half::f16;

use super::half::to_f16;
use crate::error::Result;

/// How the values of centroids are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CentroidType {
    /// One byte a value and one f32 scale a codebook; never -128.
    #[default]
    Int8,
    /// Two bytes a value.
    F16,
}

/// A codebook of `k` centroids with `b` values each, `[k][b]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Codebook {
    /// Centroid value = `scale * values[..]`, values in -127..=127.
    Int8 {
        /// `[k][b]`
        values: Vec<i8>,
        /// Finite and above 0.
        scale: f32,
    },
    /// Centroid values, `[k][b]`, all finite.
    F16(Vec<f16>),
}

impl Codebook {
    /// Number of values, `k * b`.
    pub fn len(&self) -> usize {
        match self {
            Self::Int8 { values, .. } => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether there are no centroids.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as f32, `[k][b]`.
    pub fn decode(&self) -> Vec<f32> {
        match self {
            Self::Int8 { values, scale } => values.iter().map(|&v| scale * f32::from(v)).collect(),
            Self::F16(values) => values.iter().map(|v| v.to_f32()).collect(),
        }
    }

    /// Rounds `centroids`. `weight` says how much each value's error counts: it decides how far
    /// the int8 scale may cut off the largest values.
    pub(super) fn round(centroids: &[f32], weight: &[f64], to: CentroidType) -> Result<Self> {
        match to {
            CentroidType::F16 => {
                let values: Result<Vec<f16>> = centroids.iter().map(|&c| to_f16(c)).collect();
                Ok(Self::F16(values?))
            }
            CentroidType::Int8 => {
                let scale = best_scale(centroids, weight);
                let values = centroids.iter().map(|&c| to_int8(c, scale)).collect();
                Ok(Self::Int8 { values, scale })
            }
        }
    }

    /// Keeps the centroids for which `used` is true, and repeats a single one, because an artifact
    /// holds at least two.
    pub(super) fn keep(&mut self, used: &[bool], b: usize) {
        fn keep<T: Clone>(values: &mut Vec<T>, used: &[bool], b: usize) {
            super::blocks::keep(values, used, b);
            if values.len() == b {
                values.extend_from_within(..);
            }
        }
        match self {
            Self::Int8 { values, .. } => keep(values, used, b),
            Self::F16(values) => keep(values, used, b),
        }
    }
}

fn to_int8(value: f32, scale: f32) -> i8 {
    (value / scale).round().clamp(-127.0, 127.0) as i8
}

/// The scale with the least weighted squared error among 33 from `max / 127` down to half of it.
fn best_scale(centroids: &[f32], weight: &[f64]) -> f32 {
    let max = centroids.iter().fold(0.0, |m, c| f32::max(m, c.abs()));
    if max == 0.0 {
        return 1.0;
    }
    let mut best = (f64::INFINITY, f32::MIN_POSITIVE);
    for step in 0..=32 {
        let scale = (max / 127.0 * (1.0 - step as f32 / 64.0)).max(f32::MIN_POSITIVE);
        let error: f64 = centroids
            .iter()
            .zip(weight)
            .map(|(&c, w)| {
                w * (f64::from(c) - f64::from(scale) * f64::from(to_int8(c, scale))).powi(2)
            })
            .sum();
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_never_holds_minus_128_and_zero_is_representable() {
        let centroids = [-3.0, 3.0, 0.0, 1.0];
        let Codebook::Int8 { values, scale } =
            Codebook::round(&centroids, &[1.0; 4], CentroidType::Int8).unwrap()
        else {
            panic!("asked for int8");
        };
        assert!(values.iter().all(|&v| v >= -127));
        for (v, c) in values.iter().zip(centroids) {
            assert!((scale * f32::from(*v) - c).abs() <= scale / 2.0 + 1e-6);
        }
        assert_eq!(values[2], 0);
    }

    #[test]
    fn the_scale_is_finite_and_positive_for_zeros_and_tiny_values() {
        for centroids in [[0.0, 0.0], [1e-44, 0.0], [3e38, -3e38]] {
            let book = Codebook::round(&centroids, &[1.0; 2], CentroidType::Int8).unwrap();
            let Codebook::Int8 { scale, .. } = book else {
                panic!("asked for int8");
            };
            assert!(scale.is_finite() && scale > 0.0);
            assert!(book.decode().iter().all(|v| v.is_finite()));
        }
        let zero = Codebook::round(&[0.0; 2], &[1.0; 2], CentroidType::Int8).unwrap();
        assert_eq!(
            zero,
            Codebook::Int8 {
                values: vec![0, 0],
                scale: 1.0
            }
        );
    }

    #[test]
    fn a_rare_large_value_is_cut_off_when_that_pays() {
        // One rarely used outlier, many values below 60 % of it.
        let centroids: Vec<f32> = (0..100).map(|i| i as f32 / 170.0).chain([1.0]).collect();
        let mut weight = vec![1e6; 100];
        weight.push(1e-6);
        let Codebook::Int8 { scale, .. } =
            Codebook::round(&centroids, &weight, CentroidType::Int8).unwrap()
        else {
            panic!("asked for int8");
        };
        assert!(scale < 0.8 / 127.0, "{scale}");
    }

    #[test]
    fn f16_overflow_is_an_error() {
        assert!(Codebook::round(&[1e6], &[1.0], CentroidType::F16).is_err());
    }
}
