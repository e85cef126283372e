//! The hot loop of every quantizer here: which of K centroids is nearest to a vector?
//!
//! `sum h (x - c)^2 = const - 2 (h x) . c + sum h c^2`, and the last term depends on the vector
//! only through its weights `h`. So with `y = -2 h x` and a table `bias[k] = sum h c_k^2`, the
//! nearest centroid is the one with the least `bias[k] + y . c_k`: a small matrix product with an
//! argmin behind it.
//!
//! Four vectors go through the centroids together, one or two registers of centroids at a time: the
//! sums stay in registers, and each centroid value that is loaded serves four vectors. Products are
//! rounded before they are added, everywhere: codes are the same on every instruction set.

use super::Isa;
use super::simd::{Op, Simd};

/// Vectors searched together.
pub(crate) const GROUP: usize = 4;
/// What centroids are padded to a multiple of: two of the longest registers.
const PADDING: usize = 32;

/// Centroids in the order in which [`Centroids::nearest`] reads them: `[ceil(k / tile)][b][tile]`
/// f32, where a tile is what the instruction set takes at a time.
#[derive(Debug, Clone)]
pub(crate) struct Centroids {
    isa: Isa,
    b: usize,
    data: Vec<f32>,
}

/// Length of a bias table for `k` centroids.
pub(crate) fn bias_len(k: usize) -> usize {
    k.next_multiple_of(PADDING)
}

impl Centroids {
    /// Packs `centroids`, `[k][b]`.
    pub(crate) fn new(isa: Isa, centroids: &[f32], b: usize) -> Self {
        struct Tile;

        impl Op for Tile {
            type Output = usize;

            #[inline(always)]
            fn eval<S: Simd>(self, _: S) -> usize {
                S::LANES * registers::<S>()
            }
        }

        let tile = isa.run(Tile);
        let mut data = vec![0.0; bias_len(centroids.len() / b) * b];
        for (c, centroid) in centroids.chunks_exact(b).enumerate() {
            for (i, &value) in centroid.iter().enumerate() {
                data[(c / tile * b + i) * tile + c % tile] = value;
            }
        }
        Self { isa, b, data }
    }

    /// The indices of the nearest centroids of four vectors; equal distances give the lower
    /// index.
    ///
    /// `bias` is padded to [`bias_len`] with infinity, so that padding never wins. `y` holds
    /// `-2 h x` as `[b][4]`: coordinate by coordinate.
    #[inline]
    pub(crate) fn nearest(&self, bias: &[f32], y: &[[f32; GROUP]]) -> [u8; GROUP] {
        assert_eq!(y.len(), self.b);
        assert_eq!(bias.len() * self.b, self.data.len());
        self.isa.run(Search {
            data: &self.data,
            bias,
            y,
        })
    }
}

/// Registers of centroids at a time: of 16, eight hold sums, and there is room for what is added.
const fn registers<S: Simd>() -> usize {
    if S::REGISTERS >= 16 { 2 } else { 1 }
}

struct Search<'a> {
    data: &'a [f32],
    bias: &'a [f32],
    y: &'a [[f32; GROUP]],
}

impl Op for Search<'_> {
    type Output = [u8; GROUP];

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> [u8; GROUP] {
        if registers::<S>() == 2 {
            return self.search::<S, 2>(simd);
        }
        self.search::<S, 1>(simd)
    }
}

impl Search<'_> {
    #[inline(always)]
    fn search<S: Simd, const R: usize>(self, simd: S) -> [u8; GROUP] {
        // The common block sizes get an unrolled loop.
        match self.y.len() {
            4 => self.tiles::<S, R>(simd, 4),
            8 => self.tiles::<S, R>(simd, 8),
            b => self.tiles::<S, R>(simd, b),
        }
    }

    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(self, simd: S, b: usize) -> [u8; GROUP] {
        let tile = S::LANES * R;
        // The least sum of each lane and the tile that it came from, as f32, so that one kind of
        // blend serves both; tile numbers are exact.
        let mut least = [[simd.splat(f32::INFINITY); R]; GROUP];
        let mut from = [[simd.splat(0.0); R]; GROUP];
        let y = &self.y[..b];
        let tiles = self.data.chunks_exact(b * tile);
        for (t, (centroids, bias)) in tiles.zip(self.bias.chunks_exact(tile)).enumerate() {
            let mut sums = [vectors::<S, R>(simd, bias); GROUP];
            for (y, c) in y.iter().zip(centroids.chunks_exact(tile)) {
                let c = vectors::<S, R>(simd, c);
                for (sum, &y) in sums.iter_mut().zip(y) {
                    let y = simd.splat(y);
                    for (sum, &c) in sum.iter_mut().zip(&c) {
                        *sum = simd.add(*sum, simd.mul(y, c));
                    }
                }
            }
            let t = simd.splat(t as f32);
            for v in 0..GROUP {
                for r in 0..R {
                    let less = simd.less(sums[v][r], least[v][r]);
                    least[v][r] = simd.select(less, sums[v][r], least[v][r]);
                    from[v][r] = simd.select(less, t, from[v][r]);
                }
            }
        }
        // Of the lanes with the least sum the one with the lowest index. Loops, since what a closure
        // does may not be inlined here, and would be compiled for the baseline.
        let mut lanes = [0.0; 16];
        for (lane, value) in lanes.iter_mut().enumerate() {
            *value = lane as f32;
        }
        let lanes = simd.load(&lanes);
        let mut nearest = [0; GROUP];
        for (v, nearest) in nearest.iter_mut().enumerate() {
            let mut sum = least[v][0];
            for &other in &least[v][1..] {
                sum = simd.min(sum, other);
            }
            let sum = simd.splat(simd.fold(sum, smaller));
            let none = simd.splat(f32::INFINITY);
            let mut index = none;
            for r in 0..R {
                let first = simd.splat((r * S::LANES) as f32);
                let tiles = simd.mul(from[v][r], simd.splat(tile as f32));
                let here = simd.add(tiles, simd.add(first, lanes));
                let here = simd.select(simd.less(sum, least[v][r]), none, here);
                index = simd.min(index, here);
            }
            *nearest = simd.fold(index, smaller) as u8;
        }
        nearest
    }
}

/// The first `R` vectors.
#[inline(always)]
fn vectors<S: Simd, const R: usize>(simd: S, values: &[f32]) -> [S::F; R] {
    let mut vectors = [simd.splat(0.0); R];
    for (vector, values) in vectors.iter_mut().zip(values.chunks_exact(S::LANES)) {
        *vector = simd.load(values);
    }
    vectors
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::rng::Rng;

    #[test]
    fn equals_the_naive_search_for_every_block_size_and_odd_k() {
        let mut rng = Rng::new(3);
        for b in 1..=17 {
            for k in [1, 2, 7, 8, 9, 31, 32, 33, 63, 255, 256] {
                // Multiples of 1/8 keep every sum exact, so that ties are ties in both.
                let mut draw = |n: usize| -> Vec<f32> {
                    (0..n).map(|_| (rng.normal() * 8.0).round() / 8.0).collect()
                };
                let centroids = draw(k * b);
                let x = draw(GROUP * b);
                let h: Vec<f32> = draw(b).iter().map(|v| v.abs()).collect();
                let (bias, y) = prepared(&centroids, &x, &h);
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
                    for isa in Isa::available() {
                        let found = Centroids::new(isa, &centroids, b).nearest(&bias, &y);
                        assert_eq!(usize::from(found[v]), naive, "b {b}, k {k}, {}", isa.name());
                    }
                }
            }
        }
    }

    /// Sums that are rounded, of vectors that are about as near to two centroids as to one.
    #[test]
    fn codes_are_the_same_on_every_instruction_set() {
        let mut rng = Rng::new(4);
        for b in [3, 4, 8] {
            let centroids: Vec<f32> = (0..256 * b).map(|_| rng.normal()).collect();
            let table = |isa| Centroids::new(isa, &centroids, b);
            let tables: Vec<Centroids> = Isa::available().into_iter().map(table).collect();
            for _ in 0..2000 {
                let mut middle = || {
                    let (p, q) = (rng.below(256), rng.below(256));
                    let of = |k: usize| &centroids[k * b..][..b];
                    let values = of(p).iter().zip(of(q)).map(|(p, q)| (p + q) / 2.0);
                    values.collect::<Vec<f32>>()
                };
                let x = [middle(), middle(), middle(), middle()].concat();
                let (bias, y) = prepared(&centroids, &x, &vec![1.0; b]);
                let found: Vec<_> = tables.iter().map(|t| t.nearest(&bias, &y)).collect();
                assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
            }
        }
    }

    /// The bias table and `y` of four vectors with the weights `h`.
    fn prepared(centroids: &[f32], x: &[f32], h: &[f32]) -> (Vec<f32>, Vec<[f32; GROUP]>) {
        let b = h.len();
        let mut bias = vec![f32::INFINITY; bias_len(centroids.len() / b)];
        for (c, bias) in centroids.chunks_exact(b).zip(&mut bias) {
            *bias = c.iter().zip(h).map(|(c, h)| h * c * c).sum();
        }
        let of = |i: usize| std::array::from_fn(|v| -2.0 * h[i] * x[v * b + i]);
        (bias, (0..b).map(of).collect())
    }
}
