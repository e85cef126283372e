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

    /// Rounds `centroids` `[k][b]`. `weight` says how much each value's error counts: it decides how
    /// far the int8 scale may cut off the largest values. In int8, neighbours stay within `width`.
    pub(super) fn round(
        centroids: &[f32],
        b: usize,
        weight: &[f64],
        to: CentroidType,
        width: Width,
    ) -> Result<Self> {
        match to {
            CentroidType::F16 => {
                let values: Result<Vec<f16>> = centroids.iter().map(|&c| to_f16(c)).collect();
                Ok(Self::F16(values?))
            }
            CentroidType::Int8 => {
                let (scale, _) = best_scale(centroids, b, weight, width);
                let centroids = centroids.chunks_exact(b);
                let values = centroids.flat_map(|centroid| width.round(centroid, scale));
                let values = values.collect();
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

/// How far apart int8 centroids reach: the most that the magnitudes of two neighbouring values, at an
/// even place and the one after it, add up to, and the most that those of a centroid do.
///
/// Processors without `int8` dot products multiply unsigned by signed bytes and add two neighbouring
/// products in 16 bits. They do so directly where neighbours add up to 128 at most, and add two such
/// sums where they add up to 64. Two dot products of whole centroids and activations up to 127 add up in
/// 16 bits where the magnitudes of a centroid add up to 129 at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Width {
    pair: u8,
    centroid: u16,
}

impl Width {
    /// All of int8.
    pub(super) const WIDE: Self = Self::pairs(254);
    const NARROW: [Self; 3] = [
        Self {
            pair: 64,
            centroid: 129,
        },
        Self::pairs(64),
        Self::pairs(128),
    ];
    /// Share of the error of a quantization that rounding to a narrower codebook may add.
    const TOLERANCE: f64 = 0.01;

    const fn pairs(pair: u8) -> Self {
        Self {
            pair,
            centroid: u16::MAX,
        }
    }

    /// The narrowest that costs next to nothing, where blocks differ from their centroids by
    /// `error` in all.
    ///
    /// It nearly always costs nothing where codes are long: beside an error of 0.3 of the variance, as at one
    /// bit a weight, the narrowest is within the tolerance (see the tests).
    pub(super) fn narrowest(centroids: &[f32], b: usize, weight: &[f64], error: f64) -> Self {
        if !b.is_multiple_of(2) {
            return Self::WIDE;
        }
        let rounding = |width| best_scale(centroids, b, weight, width).1;
        let wide = rounding(Self::WIDE);
        let most = wide + Self::TOLERANCE * (error + wide);
        let narrow = Self::NARROW
            .into_iter()
            .find(|&width| rounding(width) <= most);
        narrow.unwrap_or(Self::WIDE)
    }

    /// The int8 values of a centroid divided by `scale`, as near as neighbours may be.
    fn round(self, centroid: &[f32], scale: f32) -> impl Iterator<Item = i8> {
        let most = f32::from(self.pair);
        centroid.chunks(2).flat_map(move |pair| {
            let mut rounded = [0.0; 2];
            for (to, from) in rounded.iter_mut().zip(pair) {
                *to = (from / scale).round().clamp(-127.0, 127.0);
            }
            let excess = (rounded[0].abs() + rounded[1].abs() - most).max(0.0);
            // Both lose the same, as far as both have it to lose.
            let small = usize::from(rounded[0].abs() > rounded[1].abs());
            let lost = (excess / 2.0).floor().min(rounded[small].abs());
            rounded[small] -= lost.copysign(rounded[small]);
            rounded[1 - small] -= (excess - lost).copysign(rounded[1 - small]);
            rounded
                .into_iter()
                .take(pair.len())
                .map(|value| value as i8)
        })
    }
}

/// The scale with the least weighted squared error among 33 from where all values fit down to half of
/// it, and that error.
fn best_scale(centroids: &[f32], b: usize, weight: &[f64], width: Width) -> (f32, f64) {
    let mut most = 0f32;
    for centroid in centroids.chunks_exact(b) {
        // Divided first: the sum of large values may overflow.
        let sum = |values: &[f32], most: f32| values.iter().map(|c| c.abs() / most).sum::<f32>();
        for pair in centroid.chunks(2) {
            let largest = pair.iter().fold(0.0, |m, c| f32::max(m, c.abs()));
            most = most
                .max(largest / 127.0)
                .max(sum(pair, f32::from(width.pair)));
        }
        // Every value may be rounded up.
        let room = f32::from(width.centroid) - b as f32 / 2.0;
        most = most.max(sum(centroid, room.max(1.0)));
    }
    if most == 0.0 {
        return (1.0, 0.0);
    }
    let mut best = (f32::MIN_POSITIVE, f64::INFINITY);
    for step in 0..=32 {
        let scale = (most * (1.0 - step as f32 / 64.0)).max(f32::MIN_POSITIVE);
        if let Some(error) = rounding_error(centroids, b, weight, (width, scale), best.1) {
            best = (scale, error);
        }
    }
    best
}

/// The weighted squared error of rounding with a scale; `None` where it is not below `most`, or where a centroid
/// becomes too wide.
fn rounding_error(
    centroids: &[f32],
    b: usize,
    weight: &[f64],
    (width, scale): (Width, f32),
    most: f64,
) -> Option<f64> {
    let mut error = 0.0;
    for (centroid, weight) in centroids.chunks_exact(b).zip(weight.chunks_exact(b)) {
        let mut sum = 0;
        for ((&c, w), v) in (centroid.iter().zip(weight)).zip(width.round(centroid, scale)) {
            sum += u16::from(v.unsigned_abs());
            error += w * (f64::from(c) - f64::from(scale) * f64::from(v)).powi(2);
        }
        // Errors only grow.
        if sum > width.centroid || error >= most || error.is_nan() {
            return None;
        }
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_never_holds_minus_128_and_zero_is_representable() {
        let centroids = [-3.0, 3.0, 0.0, 1.0];
        let Codebook::Int8 { values, scale } =
            Codebook::round(&centroids, 4, &[1.0; 4], CentroidType::Int8, Width::WIDE).unwrap()
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
            let book =
                Codebook::round(&centroids, 2, &[1.0; 2], CentroidType::Int8, Width::WIDE).unwrap();
            let Codebook::Int8 { scale, .. } = book else {
                panic!("asked for int8");
            };
            assert!(scale.is_finite() && scale > 0.0);
            assert!(book.decode().iter().all(|v| v.is_finite()));
        }
        let zero =
            Codebook::round(&[0.0; 2], 2, &[1.0; 2], CentroidType::Int8, Width::WIDE).unwrap();
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
            Codebook::round(&centroids, 1, &weight, CentroidType::Int8, Width::WIDE).unwrap()
        else {
            panic!("asked for int8");
        };
        assert!(scale < 0.8 / 127.0, "{scale}");
    }

    #[test]
    fn f16_overflow_is_an_error() {
        assert!(Codebook::round(&[1e6], 1, &[1.0], CentroidType::F16, Width::WIDE).is_err());
    }

    /// Sums of the magnitudes of each `n` values of the centroids.
    fn sums(book: &Codebook, b: usize, n: usize) -> Vec<u32> {
        let Codebook::Int8 { values, .. } = book else {
            panic!("asked for int8");
        };
        let centroids = values.chunks_exact(b);
        let pairs = centroids.flat_map(|centroid| centroid.chunks(n));
        pairs
            .map(|pair| pair.iter().map(|v| u32::from(v.unsigned_abs())).sum())
            .collect()
    }

    #[test]
    fn neighbours_stay_within_the_width() {
        let mut rng = crate::quant::rng::Rng::new(3);
        for b in [1, 2, 3, 8] {
            let centroids: Vec<f32> = (0..64 * b).map(|_| rng.normal().powi(3)).collect();
            let weight: Vec<f64> = (0..64 * b).map(|_| rng.uniform_f64()).collect();
            for width in [
                Width::pairs(64),
                Width::pairs(128),
                Width::WIDE,
                Width::NARROW[0],
            ] {
                let book = Codebook::round(&centroids, b, &weight, CentroidType::Int8, width);
                let book = book.unwrap();
                let most = u32::from(width.pair);
                assert!(sums(&book, b, 2).iter().all(|&sum| sum <= most));
                let most = u32::from(width.centroid);
                assert!(sums(&book, b, b).iter().all(|&sum| sum <= most));
                // Nowhere near: the largest of them is used.
                assert!(
                    sums(&book, b, 2)
                        .iter()
                        .any(|&sum| 4 * sum > u32::from(width.pair))
                );
                let error: f64 = (book.decode().iter().zip(&centroids).zip(&weight))
                    .map(|((a, b), w)| w * f64::from(a - b).powi(2))
                    .sum();
                let (_, stated) = best_scale(&centroids, b, &weight, width);
                assert!((error - stated).abs() <= 1e-4 * stated, "{error} {stated}");
            }
        }
    }

    #[test]
    fn a_pair_that_is_too_wide_loses_on_both_sides() {
        let round = |pair: [f32; 2]| Width::pairs(64).round(&pair, 1.0).collect::<Vec<_>>();
        assert_eq!(round([40.0, -40.0]), [32, -32]);
        assert_eq!(round([-70.0, 10.0]), [-62, 2]);
        assert_eq!(round([3.0, 100.0]), [0, 64]);
        assert_eq!(round([127.0, -127.0]), [32, -32]);
        assert_eq!(round([60.0, 4.0]), [60, 4]);
        assert_eq!(round([0.0, -65.0]), [0, -64]);
    }

    #[test]
    fn codebooks_are_as_narrow_as_costs_nothing() {
        let mut rng = crate::quant::rng::Rng::new(4);
        let centroids: Vec<f32> = (0..256 * 8).map(|_| rng.normal()).collect();
        let weight = vec![1.0; centroids.len()];
        let narrowest = |share| {
            let error = share * centroids.len() as f64;
            Width::narrowest(&centroids, 8, &weight, error)
        };
        assert_eq!(narrowest(0.3), Width::NARROW[0]);
        assert_eq!(narrowest(0.02), Width::pairs(128));
        assert_eq!(narrowest(0.001), Width::WIDE);
        assert_eq!(narrowest(0.0), Width::WIDE);
        let odd = Width::narrowest(&centroids[..768], 3, &weight[..768], 1e9);
        assert_eq!(odd, Width::WIDE);
    }
}
