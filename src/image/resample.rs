//! Resizing as Pillow does it (`libImaging/Resample.c`), value by value: networks were trained and measured with
//! that. Columns come first, then rows, as in Pillow 12.0 (12.3 begins with the rows of pictures that are more
//! than 100 times as high as wide, 13 with those of others, too); in between values are bytes again, and weights
//! have 22 bits.

use std::ops::Range;

use ::image::RgbImage;

use crate::models::efficientnet::Filter;

/// Bits of a weight behind the point.
const BITS: u32 = 32 - 8 - 2;

/// What becomes of a picture: the part `columns` and `rows` of what it would be at the size `whole`, and only that
/// is computed.
pub(super) struct Part {
    pub(super) whole: [u32; 2],
    pub(super) columns: Range<u32>,
    pub(super) rows: Range<u32>,
}

impl Part {
    /// All of it.
    pub(super) fn all([width, height]: [u32; 2]) -> Self {
        Self {
            whole: [width, height],
            columns: 0..width,
            rows: 0..height,
        }
    }
}

/// A part of a picture at another size.
///
/// # Panics
/// If the part is not within the whole, or one of the sizes is 0.
pub(super) fn resize(picture: &RgbImage, part: &Part, filter: Filter) -> RgbImage {
    let [width, height] = part.whole;
    assert!(part.columns.end <= width && part.rows.end <= height);
    let taps = |from: u32, to: u32, range: &Range<u32>| -> Vec<Taps> {
        range
            .clone()
            .map(|at| Taps::new([from, to], at, filter))
            .collect()
    };
    let columns = taps(picture.width(), width, &part.columns);
    let rows = taps(picture.height(), height, &part.rows);
    // What the rows of the result are made of.
    let first = rows.iter().map(|taps| taps.first).min().unwrap_or(0);
    let end = rows.iter().map(Taps::end).max().unwrap_or(0);
    let stride = 3 * picture.width() as usize;
    let narrow = 3 * columns.len();
    let mut between = Vec::with_capacity((end - first) * narrow);
    for row in picture.as_raw()[first * stride..end * stride].chunks_exact(stride) {
        for taps in &columns {
            let mut sums = [HALF; 3];
            let pixels = row[3 * taps.first..].chunks_exact(3);
            for (pixel, &weight) in pixels.zip(&taps.weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            between.extend(sums.map(byte));
        }
    }
    let mut values = Vec::with_capacity(rows.len() * narrow);
    let mut sums = vec![0; narrow];
    for taps in &rows {
        sums.fill(HALF);
        let lines = between[(taps.first - first) * narrow..].chunks_exact(narrow);
        for (line, &weight) in lines.zip(&taps.weights) {
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum += i32::from(value) * weight;
            }
        }
        values.extend(sums.iter().map(|&sum| byte(sum)));
    }
    let size = [columns.len(), rows.len()].map(|side| side as u32);
    RgbImage::from_raw(size[0], size[1], values).expect("as many values")
}

/// What rounds a sum to the nearest.
const HALF: i32 = 1 << (BITS - 1);

fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The pixels of a line that one of the result is made of, and how much each counts.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

impl Taps {
    /// Of pixel `at` of a line that is resized.
    fn new([from, to]: [u32; 2], at: u32, filter: Filter) -> Self {
        if from == to {
            // Pillow leaves such a pass out.
            return Self {
                first: at as usize,
                weights: vec![1 << BITS],
            };
        }
        let scale = f64::from(from) / f64::from(to);
        let wide = scale.max(1.0);
        let support = wide * reach(filter);
        let center = (f64::from(at) + 0.5) * scale;
        let first = ((center - support + 0.5) as i64).max(0);
        let end = ((center + support + 0.5) as i64).min(i64::from(from));
        let inverse = 1.0 / wide;
        let weight = |x: i64| weight(filter, (x as f64 - center + 0.5) * inverse);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let rounded = |weight: f64| {
            let weight = if sum == 0.0 { weight } else { weight / sum };
            let scaled = weight * f64::from(1 << BITS);
            (scaled + 0.5f64.copysign(scaled)) as i32
        };
        Self {
            first: first as usize,
            weights: weights.into_iter().map(rounded).collect(),
        }
    }

    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// How far pixels count.
fn reach(filter: Filter) -> f64 {
    match filter {
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
    }
}

/// How much a pixel counts at a distance.
fn weight(filter: Filter, x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match filter {
        Filter::Bilinear if x < 1.0 => 1.0 - x,
        Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use ::image::Rgb;

    use super::*;

    /// Of every kind: what is written by `tools/goldens/resample.py`, in which Pillow 12 resizes all.
    #[test]
    fn values_are_pillows() {
        for line in include_str!("../../tests/data/resample.txt").lines() {
            let mut words = line.split(' ');
            let filter = match words.next() {
                Some("bilinear") => Filter::Bilinear,
                _ => Filter::Bicubic,
            };
            let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
            let &[
                width,
                height,
                wide,
                high,
                left,
                top,
                columns,
                rows,
                expected,
            ] = &numbers[..]
            else {
                panic!("{line}");
            };
            let picture = RgbImage::from_fn(width as u32, height as u32, |x, y| {
                let of =
                    |c: u32| x * 31 + y * 17 + c * 101 + x * y % 13 * 19 + (x * x + 3 * y * y) / 5;
                Rgb([0, 1, 2].map(|c| of(c) as u8))
            });
            let [left, top, columns, rows] = [left, top, columns, rows].map(|n| n as u32);
            let part = Part {
                whole: [wide as u32, high as u32],
                columns: left..left + columns,
                rows: top..top + rows,
            };
            let found = resize(&picture, &part, filter);
            assert_eq!(found.dimensions(), (columns, rows));
            // FNV-1a.
            let hash = found
                .as_raw()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
                });
            assert_eq!(hash, expected, "{line}");
        }
    }
}
