//! The hot loop of every quantizer here: which of K centroids is nearest to a vector?
//!
//! `sum h (x - c)^2 = const - 2 (h x) . c + sum h c^2`, and the last term depends on the vector
//! only through its weights `h`. So with `y = -2 h x` and a table `bias[k] = sum h c_k^2`, the
//! nearest centroid is the one with the least `bias[k] + y . c_k`: a small matrix product with an
//! argmin behind it.
//!
//! Four vectors go through the centroids together, eight centroids at a time: the 32 sums stay in
//! registers, and each centroid value that is loaded serves four vectors.

use wide::f32x4;

/// Centroids in a tile.
const TILE: usize = 8;
/// Vectors searched together.
pub(super) const GROUP: usize = 4;

/// Centroids in the order in which [`Tiles::nearest`] reads them: `[ceil(k / 8)][b][8]` f32.
#[derive(Debug, Clone, Default)]
pub(super) struct Tiles {
    b: usize,
    data: Vec<f32>,
}

/// Length of a bias table for `k` centroids.
pub(super) fn bias_len(k: usize) -> usize {
    k.next_multiple_of(TILE)
}

impl Tiles {
    /// Packs `centroids`, `[k][b]`.
    pub(super) fn new(centroids: &[f32], b: usize) -> Self {
        let mut tiles = Self::default();
        tiles.pack(centroids, b);
        tiles
    }

    /// Packs other centroids into the same buffer.
    pub(super) fn pack(&mut self, centroids: &[f32], b: usize) {
        let k = centroids.len() / b;
        self.b = b;
        self.data.clear();
        self.data.resize(bias_len(k) * b, 0.0);
        for (c, centroid) in centroids.chunks_exact(b).enumerate() {
            for (i, &value) in centroid.iter().enumerate() {
                self.data[(c / TILE * b + i) * TILE + c % TILE] = value;
            }
        }
    }

    /// The indices of the nearest centroids of four vectors; equal distances give the lower
    /// index.
    ///
    /// `bias` is padded to [`bias_len`] with infinity, so that padding never wins. `y` holds
    /// `-2 h x` as `[b][4]`: coordinate by coordinate.
    pub(super) fn nearest(&self, bias: &[f32], y: &[[f32; GROUP]]) -> [u8; GROUP] {
        // The common block sizes get an unrolled loop.
        match self.b {
            2 => self.search(bias, <&[_; 2]>::try_from(y).expect("y has b entries")),
            4 => self.search(bias, <&[_; 4]>::try_from(y).expect("y has b entries")),
            8 => self.search(bias, <&[_; 8]>::try_from(y).expect("y has b entries")),
            16 => self.search(bias, <&[_; 16]>::try_from(y).expect("y has b entries")),
            _ => self.search_any(bias, y),
        }
    }

    fn search<const B: usize>(&self, bias: &[f32], y: &[[f32; GROUP]; B]) -> [u8; GROUP] {
        let y: [[f32x4; GROUP]; B] = y.map(|c| c.map(f32x4::splat));
        let mut best = Best::new();
        let tiles = self.data.chunks_exact(B * TILE);
        for (t, (tile, bias)) in tiles.zip(bias.chunks_exact(TILE)).enumerate() {
            let mut sums = [halves(bias); GROUP];
            for (y, c) in y.iter().zip(tile.chunks_exact(TILE)) {
                let c = halves(c);
                for (sum, &y) in sums.iter_mut().zip(y) {
                    sum[0] += y * c[0];
                    sum[1] += y * c[1];
                }
            }
            best.update(t, &sums);
        }
        best.finish()
    }

    fn search_any(&self, bias: &[f32], y: &[[f32; GROUP]]) -> [u8; GROUP] {
        let mut best = Best::new();
        let tiles = self.data.chunks_exact(self.b * TILE);
        for (t, (tile, bias)) in tiles.zip(bias.chunks_exact(TILE)).enumerate() {
            let mut sums = [halves(bias); GROUP];
            for (y, c) in y.iter().zip(tile.chunks_exact(TILE)) {
                let c = halves(c);
                for (sum, &y) in sums.iter_mut().zip(y) {
                    let y = f32x4::splat(y);
                    sum[0] += y * c[0];
                    sum[1] += y * c[1];
                }
            }
            best.update(t, &sums);
        }
        best.finish()
    }
}

fn halves(values: &[f32]) -> [f32x4; 2] {
    [
        f32x4::new([values[0], values[1], values[2], values[3]]),
        f32x4::new([values[4], values[5], values[6], values[7]]),
    ]
}

/// The least sum of each lane and the tile that it came from (as f32, so that one kind of blend
/// serves both; tile numbers are exact).
struct Best {
    sum: [[f32x4; 2]; GROUP],
    tile: [[f32x4; 2]; GROUP],
}

impl Best {
    fn new() -> Self {
        Self {
            sum: [[f32x4::splat(f32::INFINITY); 2]; GROUP],
            tile: [[f32x4::ZERO; 2]; GROUP],
        }
    }

    #[inline(always)]
    fn update(&mut self, tile: usize, sums: &[[f32x4; 2]; GROUP]) {
        let tile = f32x4::splat(tile as f32);
        for (v, sums) in sums.iter().enumerate() {
            for (half, &sum) in sums.iter().enumerate() {
                let less = sum.simd_lt(self.sum[v][half]);
                self.sum[v][half] = sum.fast_min(self.sum[v][half]);
                self.tile[v][half] = less.bitselect(tile, self.tile[v][half]);
            }
        }
    }

    fn finish(&self) -> [u8; GROUP] {
        std::array::from_fn(|v| {
            let mut nearest = (f32::INFINITY, 0);
            for half in 0..2 {
                let sums = self.sum[v][half].to_array();
                let tiles = self.tile[v][half].to_array();
                for lane in 0..4 {
                    let index = tiles[lane] as usize * TILE + half * 4 + lane;
                    if sums[lane] < nearest.0 || (sums[lane] == nearest.0 && index < nearest.1) {
                        nearest = (sums[lane], index);
                    }
                }
            }
            nearest.1 as u8
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::rng::Rng;

    #[test]
    fn equals_the_naive_search_for_every_block_size_and_odd_k() {
        let mut rng = Rng::new(3);
        for b in 1..=17 {
            for k in [1, 2, 7, 8, 9, 63, 256] {
                // Multiples of 1/8 keep every sum exact, so that ties are ties in both.
                let mut draw = |n: usize| -> Vec<f32> {
                    (0..n).map(|_| (rng.normal() * 8.0).round() / 8.0).collect()
                };
                let centroids = draw(k * b);
                let x = draw(GROUP * b);
                let h: Vec<f32> = draw(b).iter().map(|v| v.abs()).collect();
                let mut bias = vec![f32::INFINITY; bias_len(k)];
                for (c, bias) in centroids.chunks_exact(b).zip(&mut bias) {
                    *bias = c.iter().zip(&h).map(|(c, h)| h * c * c).sum();
                }
                let y: Vec<[f32; GROUP]> = (0..b)
                    .map(|i| std::array::from_fn(|v| -2.0 * h[i] * x[v * b + i]))
                    .collect();
                let found = Tiles::new(&centroids, b).nearest(&bias, &y);
                for v in 0..GROUP {
                    let distance = |c: &[f32]| -> f32 {
                        let x = &x[v * b..][..b];
                        (0..b).map(|i| h[i] * (x[i] - c[i]) * (x[i] - c[i])).sum()
                    };
                    let mut naive = 0;
                    for c in 1..k {
                        let at = |c: usize| distance(&centroids[c * b..][..b]);
                        if at(c) < at(naive) {
                            naive = c;
                        }
                    }
                    assert_eq!(usize::from(found[v]), naive, "b {b}, k {k}");
                }
            }
        }
    }
}
