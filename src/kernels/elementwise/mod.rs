//! The functions between the products: activations and norms, for a row or a vector.
//!
//! Everything works on whole vectors; the rest of a row is filled up first. A value's result
//! therefore never depends on where in a row, a batch or a chunk it stands. Each function states its
//! largest error, which the tests hold it to on every instruction set.

mod functions;
mod norm;
#[cfg(test)]
pub(super) mod tests;

pub(super) use functions::{exp, exp2_of_negative};
#[cfg(any(test, feature = "convert"))]
pub(crate) use norm::layer_norm;
pub(crate) use norm::{Affine, normalize};
pub(super) use norm::{add_row, norm_row, product_row, scale_row};

use super::simd::Simd;
#[cfg(any(test, feature = "convert"))]
use super::{Isa, simd::Op};

/// The activation functions of BERT, RoBERTa and EfficientNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x (1 + erf(x / sqrt 2)) / 2
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    Relu,
    /// Between 0 and 6.
    Relu6,
    /// x / (1 + e^-x)
    Silu,
    Tanh,
}

/// Applies an activation to every value. The absolute error is at most 4e-7 times max(1, |x|).
#[cfg(any(test, feature = "convert"))]
pub(crate) fn activate(isa: Isa, activation: Activation, values: &mut [f32]) {
    struct Activate<'a>(Activation, &'a mut [f32]);

    impl Op for Activate<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            activate_row(simd, self.0, self.1);
        }
    }

    isa.run(Activate(activation, values));
}

/// Applies an activation to a row; returns the largest magnitude of the results, which is not
/// finite if one of them is not.
#[inline(always)]
pub(super) fn activate_row<S: Simd>(simd: S, activation: Activation, row: &mut [f32]) -> f32 {
    match activation {
        Activation::Gelu => map(simd, functions::Gelu, row),
        Activation::GeluTanh => map(simd, functions::GeluTanh, row),
        Activation::Relu => map(simd, functions::Relu, row),
        Activation::Relu6 => map(simd, functions::Relu6, row),
        Activation::Silu => map(simd, functions::Silu, row),
        Activation::Tanh => map(simd, functions::Tanh, row),
    }
}

/// Applies an activation to vectors.
#[inline(always)]
pub(super) fn apply<S: Simd, const N: usize>(
    simd: S,
    activation: Activation,
    x: [S::F; N],
) -> [S::F; N] {
    match activation {
        Activation::Gelu => functions::Gelu.apply(simd, x),
        Activation::GeluTanh => functions::GeluTanh.apply(simd, x),
        Activation::Relu => functions::Relu.apply(simd, x),
        Activation::Relu6 => functions::Relu6.apply(simd, x),
        Activation::Silu => functions::Silu.apply(simd, x),
        Activation::Tanh => functions::Tanh.apply(simd, x),
    }
}

/// A function of one value, over several vectors at a time: their instructions are independent, so
/// that one need not wait for the other.
trait Function: Copy {
    fn apply<S: Simd, const N: usize>(self, simd: S, x: [S::F; N]) -> [S::F; N];
}

/// Vectors that [`map`] hands to a function.
const VECTORS: usize = 2;

#[inline(always)]
fn map<S: Simd>(simd: S, f: impl Function, row: &mut [f32]) -> f32 {
    let mut largest = [simd.zero_int(); VECTORS];
    let mut chunks = row.chunks_exact_mut(VECTORS * S::LANES);
    for chunk in &mut chunks {
        let mut x = [simd.splat(0.0); VECTORS];
        for i in 0..VECTORS {
            x[i] = simd.load(&chunk[i * S::LANES..]);
        }
        let y = f.apply(simd, x);
        for i in 0..VECTORS {
            simd.store(y[i], &mut chunk[i * S::LANES..]);
            largest[i] = simd.max_int(largest[i], simd.magnitude_bits(y[i]));
        }
    }
    for chunk in chunks.into_remainder().chunks_mut(S::LANES) {
        // Every function is 0 at 0, so that what is filled up is not the largest.
        let [y] = f.apply(simd, [simd.load_part(chunk, 0.0)]);
        simd.store_part(y, chunk);
        largest[0] = simd.max_int(largest[0], simd.magnitude_bits(y));
    }
    let [a, b] = largest;
    largest_of(simd, simd.max_int(a, b))
}

/// The largest magnitude of what [`Simd::magnitude_bits`] gave.
#[inline(always)]
pub(super) fn largest_of<S: Simd>(simd: S, bits: S::I) -> f32 {
    f32::from_bits(simd.largest_int(bits) as u32)
}

/// The largest magnitude of a row, not finite if one value is not.
#[inline(always)]
pub(super) fn largest_in<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let mut largest = [simd.zero_int(); VECTORS];
    let mut chunks = row.chunks_exact(VECTORS * S::LANES);
    for chunk in &mut chunks {
        for i in 0..VECTORS {
            let x = simd.load(&chunk[i * S::LANES..]);
            largest[i] = simd.max_int(largest[i], simd.magnitude_bits(x));
        }
    }
    for chunk in chunks.remainder().chunks(S::LANES) {
        let x = simd.load_part(chunk, 0.0);
        largest[0] = simd.max_int(largest[0], simd.magnitude_bits(x));
    }
    let [a, b] = largest;
    largest_of(simd, simd.max_int(a, b))
}
