//! Norms of a row, which stays in the L1 cache between the passes.

use super::largest_of;
use crate::kernels::Isa;
use crate::kernels::simd::{Op, Simd};

/// Sums that are kept side by side, so that an addition need not wait for the last one.
const SUMS: usize = 4;

/// What a layer norm multiplies with and adds.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    /// Added to the variance.
    pub(crate) eps: f32,
}

/// Layer norm of one row, in place: `(x - mean) / sqrt(variance + eps) * weight + bias`.
#[cfg(any(test, feature = "convert"))]
pub(crate) fn layer_norm(isa: Isa, row: &mut [f32], affine: Affine) {
    struct LayerNorm<'a>(&'a mut [f32], Affine<'a>);

    impl Op for LayerNorm<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            norm_row(simd, self.0, self.1);
        }
    }

    isa.run(LayerNorm(row, affine));
}

/// `row += added`, both as long.
#[inline(always)]
pub(in crate::kernels) fn add_row<S: Simd>(simd: S, row: &mut [f32], added: &[f32]) {
    let (mut xs, mut others) = (row.chunks_exact_mut(S::LANES), added.chunks_exact(S::LANES));
    for (x, a) in (&mut xs).zip(&mut others) {
        simd.store(simd.add(simd.load(x), simd.load(a)), x);
    }
    let (x, a) = (xs.into_remainder(), others.remainder());
    let sum = simd.add(simd.load_part(x, 0.0), simd.load_part(a, 0.0));
    simd.store_part(sum, x);
}

/// `row *= factors`, both as long.
#[inline(always)]
pub(in crate::kernels) fn scale_row<S: Simd>(simd: S, row: &mut [f32], factors: &[f32]) {
    for (x, f) in row.chunks_mut(S::LANES).zip(factors.chunks(S::LANES)) {
        let product = simd.mul(simd.load_part(x, 0.0), simd.load_part(f, 0.0));
        simd.store_part(product, x);
    }
}

/// `products = row * factors`, all as long; returns the largest magnitude, not finite if one is not.
#[inline(always)]
pub(in crate::kernels) fn product_row<S: Simd>(
    simd: S,
    row: &[f32],
    factors: &[f32],
    products: &mut [f32],
) -> f32 {
    let mut largest = simd.zero_int();
    let (mut xs, mut fs) = (row.chunks_exact(S::LANES), factors.chunks_exact(S::LANES));
    let mut ys = products.chunks_exact_mut(S::LANES);
    for ((x, f), y) in (&mut xs).zip(&mut fs).zip(&mut ys) {
        let product = simd.mul(simd.load(x), simd.load(f));
        simd.store(product, y);
        largest = simd.max_int(largest, simd.magnitude_bits(product));
    }
    let (x, f) = (xs.remainder(), fs.remainder());
    let product = simd.mul(simd.load_part(x, 0.0), simd.load_part(f, 0.0));
    simd.store_part(product, ys.into_remainder());
    largest_of(simd, simd.max_int(largest, simd.magnitude_bits(product)))
}

/// Layer norm of one row; returns the largest magnitude of the results, which is not finite if one
/// of them is not.
#[inline(always)]
pub(in crate::kernels) fn norm_row<S: Simd>(simd: S, row: &mut [f32], affine: Affine) -> f32 {
    let n = row.len() as f32;
    let mean = sum_of(simd, 0.0, row, false) / n;
    let variance = sum_of(simd, mean, row, true) / n;
    let inverse = simd.splat(1.0 / (variance + affine.eps).sqrt());
    let mean = simd.splat(mean);
    let mut largest = simd.zero_int();
    let mut xs = row.chunks_exact_mut(S::LANES);
    let mut weights = affine.weight.chunks_exact(S::LANES);
    let mut biases = affine.bias.chunks_exact(S::LANES);
    for ((x, weight), bias) in (&mut xs).zip(&mut weights).zip(&mut biases) {
        let d = simd.mul(simd.sub(simd.load(x), mean), inverse);
        let y = simd.mul_add(d, simd.load(weight), simd.load(bias));
        simd.store(y, x);
        largest = simd.max_int(largest, simd.magnitude_bits(y));
    }
    let x = xs.into_remainder();
    if !x.is_empty() {
        let d = simd.mul(simd.sub(simd.load_part(x, 0.0), mean), inverse);
        // Beyond the row these are 0, and so is what is looked at for the largest; NaN if d is.
        let weight = simd.load_part(weights.remainder(), 0.0);
        let bias = simd.load_part(biases.remainder(), 0.0);
        let y = simd.mul_add(d, weight, bias);
        simd.store_part(y, x);
        largest = simd.max_int(largest, simd.magnitude_bits(y));
    }
    largest_of(simd, largest)
}

/// The sum of `x - shift`, or of its squares, in an order that depends on the row's length alone.
#[inline(always)]
fn sum_of<S: Simd>(simd: S, shift: f32, row: &[f32], squares: bool) -> f32 {
    let shifts = simd.splat(shift);
    let mut sums = [simd.splat(0.0); SUMS];
    let mut chunks = row.chunks_exact(SUMS * S::LANES);
    for chunk in &mut chunks {
        for (i, sum) in sums.iter_mut().enumerate() {
            let d = simd.sub(simd.load(&chunk[i * S::LANES..]), shifts);
            *sum = match squares {
                true => simd.mul_add(d, d, *sum),
                false => simd.add(*sum, d),
            };
        }
    }
    for chunk in chunks.remainder().chunks(S::LANES) {
        // What is filled up vanishes.
        let d = simd.sub(simd.load_part(chunk, shift), shifts);
        sums[0] = match squares {
            true => simd.mul_add(d, d, sums[0]),
            false => simd.add(sums[0], d),
        };
    }
    let [a, b, c, d] = sums;
    simd.sum(simd.add(simd.add(a, b), simd.add(c, d)))
}

/// Divides a row by its L2 norm, or by 1e-12 if that is larger, as `torch.nn.functional.normalize`.
pub(crate) fn normalize(isa: Isa, row: &mut [f32]) {
    struct Normalize<'a>(&'a mut [f32]);

    impl Op for Normalize<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            let squares = sum_of(simd, 0.0, self.0, true);
            let inverse = simd.splat(1.0 / squares.sqrt().max(1e-12));
            for x in self.0.chunks_mut(S::LANES) {
                let y = simd.mul(simd.load_part(x, 0.0), inverse);
                simd.store_part(y, x);
            }
        }
    }

    isa.run(Normalize(row));
}
