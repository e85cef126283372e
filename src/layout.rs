//! The order of stored values, shared by the writer and the kernels (`format-spec.md`, "Tiles").
//!
//! A linear weight `[out_features, in_features]` is cut into tiles of [`TILE`] outputs. Within a
//! tile the input runs slowest and the outputs fastest, so that a kernel which walks the input
//! reads the codes of neighbouring outputs from neighbouring bytes. The last tile has its true
//! width `out_features mod 64` and is never padded. With `u` units a row (codes, `f16` values,
//! groups of 8 `int8` values, ...) unit `j` of output `o` stands at
//!
//! ```text
//! t = o / 64,  w = min(64, out_features - 64 t),  index = 64 t u + j w + (o - 64 t)
//! ```

use std::ops::Range;

/// Outputs of a full tile.
pub(crate) const TILE: usize = 64;
/// Values of one unit of an `int8` tile.
pub(crate) const INT8_GROUP: usize = 8;

/// One tile of a linear weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    /// The first output.
    pub(crate) first: usize,
    /// How many outputs: 64, or less in the last tile.
    pub(crate) width: usize,
}

impl Tile {
    /// How many tiles `out_features` outputs make.
    pub(crate) fn count(out_features: usize) -> usize {
        out_features.div_ceil(TILE)
    }

    pub(crate) fn nth(index: usize, out_features: usize) -> Self {
        let first = index * TILE;
        Self {
            first,
            width: TILE.min(out_features - first),
        }
    }

    /// Where the tile's units stand, at `units` a row.
    pub(crate) fn range(&self, units: usize) -> Range<usize> {
        self.first * units..(self.first + self.width) * units
    }
}

/// Reorders row-major units `[out_features][units]` of `N` values each into tiles.
#[cfg(feature = "convert")]
pub(crate) fn to_tiles<T: Copy, const N: usize>(
    row_major: &[[T; N]],
    out_features: usize,
    units: usize,
) -> Vec<[T; N]> {
    assert_eq!(row_major.len(), out_features * units);
    let mut tiles = Vec::with_capacity(row_major.len());
    for tile in (0..Tile::count(out_features)).map(|t| Tile::nth(t, out_features)) {
        for unit in 0..units {
            let column = row_major[tile.first * units + unit..].iter().step_by(units);
            tiles.extend(column.take(tile.width));
        }
    }
    tiles
}

/// The other way round: from tiles to `[out_features][in_features]`.
#[cfg(feature = "train")]
pub(crate) fn from_tiles(tiled: &[f32], out_features: usize, in_features: usize) -> Vec<f32> {
    assert_eq!(tiled.len(), out_features * in_features);
    let mut rows = vec![0.0; tiled.len()];
    for tile in (0..Tile::count(out_features)).map(|t| Tile::nth(t, out_features)) {
        let columns = tiled[tile.range(in_features)].chunks_exact(tile.width);
        for (column, values) in columns.enumerate() {
            for (row, value) in (tile.first..).zip(values) {
                rows[row * in_features + column] = *value;
            }
        }
    }
    rows
}

#[cfg(all(test, feature = "convert"))]
mod tests {
    use super::*;

    #[cfg(feature = "train")]
    #[test]
    fn tiles_become_rows_again() {
        for (rows, columns) in [(1, 5), (64, 3), (65, 2), (130, 7)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let tiled = to_tiles(values.as_chunks::<1>().0, rows, columns).concat();
            assert_eq!(from_tiles(&tiled, rows, columns), values);
        }
    }

    #[test]
    fn tiles_follow_the_formula() {
        for (out_features, units) in [(1, 1), (3, 5), (64, 2), (65, 3), (200, 7)] {
            let rows: Vec<[u32; 1]> = (0..(out_features * units) as u32).map(|v| [v]).collect();
            let tiles = to_tiles(&rows, out_features, units);
            for o in 0..out_features {
                for j in 0..units {
                    let t = o / 64;
                    let w = 64.min(out_features - 64 * t);
                    let index = 64 * t * units + j * w + (o - 64 * t);
                    assert_eq!(tiles[index][0] as usize, o * units + j);
                }
            }
        }
    }
}
