//! Checks of stored values: what a kernel may rely on without looking again.

use std::ops::RangeInclusive;

use half::f16;

use crate::error::{Error, Result};
use crate::layout::{INT8_GROUP, Tile};

fn refuse(index: usize, message: String) -> Result<()> {
    Err(Error::format(format!("value {index}: {message}")))
}

pub(super) fn finite_f32(values: &[f32]) -> Result<()> {
    // Chunks let the loop run branch-free over a cache line at a time.
    for (chunk, part) in values.chunks(256).enumerate() {
        if !part.iter().fold(true, |ok, v| ok & v.is_finite()) {
            let at = part.iter().position(|v| !v.is_finite()).unwrap_or(0);
            return refuse(chunk * 256 + at, format!("{} is not finite", part[at]));
        }
    }
    Ok(())
}

pub(super) fn finite_f16(values: &[f16]) -> Result<()> {
    let infinite = |v: f16| v.to_bits() & 0x7c00 == 0x7c00;
    for (chunk, part) in values.chunks(256).enumerate() {
        if part.iter().fold(false, |bad, &v| bad | infinite(v)) {
            let at = part.iter().position(|&v| infinite(v)).unwrap_or(0);
            return refuse(chunk * 256 + at, format!("{} is not finite", part[at]));
        }
    }
    Ok(())
}

/// Zero points: values that the scheme's integers may have.
pub(super) fn zero_points(points: &[i8], range: &RangeInclusive<i32>) -> Result<()> {
    match points.iter().position(|&z| !range.contains(&i32::from(z))) {
        Some(at) => refuse(
            at,
            format!("zero point {} is outside {range:?}", points[at]),
        ),
        None => Ok(()),
    }
}

/// Scales: finite, normal and above zero.
pub(super) fn scale(scale: f32) -> Result<()> {
    if scale.is_normal() && scale > 0.0 {
        return Ok(());
    }
    Err(Error::format(format!(
        "the scale {scale} is not a normal number above zero"
    )))
}

/// `int8` values: -128 is not one, so that products and their pairwise sums cannot saturate.
pub(super) fn int8(values: &[u8]) -> Result<()> {
    // `contains` on bytes is a vectorised search; `position` alone is not.
    for (chunk, part) in values.chunks(4096).enumerate() {
        if part.contains(&0x80) {
            let at = part.iter().position(|&v| v == 0x80).unwrap_or(0);
            return refuse(
                chunk * 4096 + at,
                "-128 is outside the range of -127 to 127".into(),
            );
        }
    }
    Ok(())
}

/// Every code names one of `centroids` entries.
pub(super) fn codes(codes: &[u8], centroids: u32) -> Result<()> {
    if centroids > u32::from(u8::MAX) {
        return Ok(());
    }
    let largest = codes.iter().fold(0, |largest, &code| code.max(largest));
    if u32::from(largest) < centroids {
        return Ok(());
    }
    let at = codes.iter().position(|&c| c == largest).unwrap_or(0);
    refuse(
        at,
        format!("code {largest} in a codebook of {centroids} centroids"),
    )
}

/// The last group of 8 of every row of an `int8` tile is filled up with zeros.
pub(super) fn int8_padding(values: &[u8], rows: usize, columns: usize) -> Result<()> {
    let (units, last) = (columns.div_ceil(INT8_GROUP), columns % INT8_GROUP);
    if last == 0 {
        return Ok(());
    }
    for tile in (0..Tile::count(rows)).map(|t| Tile::nth(t, rows)) {
        let range = tile.range(units * INT8_GROUP);
        let start = range.end - tile.width * INT8_GROUP;
        for (i, group) in values[start..range.end]
            .chunks_exact(INT8_GROUP)
            .enumerate()
        {
            if group[last..].iter().any(|&v| v != 0) {
                return refuse(start + i * INT8_GROUP, "padding is not zero".into());
            }
        }
    }
    Ok(())
}

/// The high half of the last byte of every `int4` row is zero when the width is odd.
pub(super) fn int4_padding(values: &[u8], tiles: bool, rows: usize, columns: usize) -> Result<()> {
    if columns.is_multiple_of(2) {
        return Ok(());
    }
    let units = columns.div_ceil(2);
    let mut check = |at: usize| match values[at] >> 4 {
        0 => Ok(()),
        _ => refuse(at, "padding is not zero".into()),
    };
    if !tiles {
        return (0..rows).try_for_each(|row| check((row + 1) * units - 1));
    }
    for tile in (0..Tile::count(rows)).map(|t| Tile::nth(t, rows)) {
        let end = tile.range(units).end;
        (end - tile.width..end).try_for_each(&mut check)?;
    }
    Ok(())
}
