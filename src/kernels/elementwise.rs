//! The functions between the products: activations, softmax, layer norm.
//!
//! Everything works on whole vectors of [`LANE`] values; the rest of a row is filled up first. A
//! value's result therefore never depends on where in a row, a batch or a chunk it stands. Each
//! function states its largest error, which the tests hold it to.

use wide::{f32x8, i32x8};

/// Values worked on at a time.
pub(crate) const LANE: usize = 8;

/// Up to 8 values, filled up with zeros.
#[inline]
pub(crate) fn in_lanes(values: &[f32]) -> f32x8 {
    match values.first_chunk::<LANE>() {
        Some(lanes) => f32x8::from(*lanes),
        None => {
            let mut lanes = [0.0; LANE];
            lanes[..values.len()].copy_from_slice(values);
            f32x8::from(lanes)
        }
    }
}

/// Applies `f` to every value.
#[inline]
fn map(values: &mut [f32], f: impl Fn(f32x8) -> f32x8) {
    for chunk in values.chunks_mut(LANE) {
        let result = f(in_lanes(chunk)).to_array();
        chunk.copy_from_slice(&result[..chunk.len()]);
    }
}

/// e^x, relative error at most 2e-7 where the result is a normal number; below -87.3 it is the
/// result at -87.3 (1.2e-38) and above 88.3 that at 88.3. NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, then a polynomial for e^r (Cephes `expf`) and n is added
/// to the exponent's bits.
#[inline]
pub(crate) fn exp(x: f32x8) -> f32x8 {
    // `max` and `min` would drop a NaN.
    let clamped = x.fast_max(f32x8::splat(-87.3)).fast_min(f32x8::splat(88.3));
    let n = (clamped * f32x8::splat(std::f32::consts::LOG2_E)).fast_round_int();
    let n_float = n.round_float();
    let r = clamped - n_float * f32x8::splat(0.693_359_4);
    let r = r + n_float * f32x8::splat(2.121_944_4e-4);
    let mut p = f32x8::splat(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p * r + f32x8::splat(c);
    }
    let e = p * (r * r) + r + f32x8::ONE;
    let power: f32x8 = bytemuck::cast((n + i32x8::splat(127)) << 23);
    // A NaN in x comes back through this sum; otherwise it adds zero.
    e * power + (x - x) * f32x8::ZERO
}

/// tanh(x), absolute error at most 2e-7.
#[inline]
pub(crate) fn tanh(x: f32x8) -> f32x8 {
    // Beyond 9.1 it is 1 in f32; the clamp keeps exp finite.
    let clamped = x.fast_max(f32x8::splat(-9.1)).fast_min(f32x8::splat(9.1));
    let e = exp(clamped + clamped);
    let by_exp = (e - f32x8::ONE) / (e + f32x8::ONE);
    // Near zero e - 1 cancels: x - x^3 / 3 + 2 x^5 / 15 there.
    let x2 = clamped * clamped;
    let series =
        clamped * (f32x8::ONE + x2 * (f32x8::splat(-1.0 / 3.0) + x2 * f32x8::splat(2.0 / 15.0)));
    let small = clamped.abs().simd_lt(f32x8::splat(0.05));
    small.select(series, by_exp) + (x - x) * f32x8::ZERO
}

/// erf(x), absolute error at most 4e-7 (Abramowitz and Stegun 7.1.26 is good to 1.5e-7).
#[inline]
fn erf(x: f32x8) -> f32x8 {
    let a = x.abs();
    let t = f32x8::ONE / (f32x8::ONE + a * f32x8::splat(0.327_591_1));
    let mut p = f32x8::splat(1.061_405_4);
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = p * t + f32x8::splat(c);
    }
    let result = f32x8::ONE - p * t * exp(-(a * a));
    result.copysign(x)
}

/// The activation functions of BERT and RoBERTa, under their names in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x (1 + erf(x / sqrt 2)) / 2
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    Relu,
    /// x / (1 + e^-x)
    Silu,
    Tanh,
}

/// Applies an activation. The absolute error is at most 4e-7 times max(1, |x|).
pub(crate) fn activate(activation: Activation, values: &mut [f32]) {
    let half = f32x8::HALF;
    match activation {
        Activation::Gelu => map(values, |x| {
            half * x * (f32x8::ONE + erf(x * f32x8::splat(std::f32::consts::FRAC_1_SQRT_2)))
        }),
        Activation::GeluTanh => map(values, |x| {
            let inner = x + f32x8::splat(0.044_715) * (x * x * x);
            half * x * (f32x8::ONE + tanh(inner * f32x8::splat(0.797_884_6)))
        }),
        // Written so that NaN stays NaN.
        Activation::Relu => map(values, |x| x.simd_lt(f32x8::ZERO).select(f32x8::ZERO, x)),
        Activation::Silu => map(values, |x| x / (f32x8::ONE + exp(-x))),
        Activation::Tanh => map(values, tanh),
    }
}

/// Softmax of `values * scale`, in place. Absolute error at most 5e-7.
pub(crate) fn softmax(values: &mut [f32], scale: f32) {
    let largest = values
        .iter()
        .fold(f32::NEG_INFINITY, |m, &v| m.max(v * scale));
    map(values, |x| {
        exp(x * f32x8::splat(scale) - f32x8::splat(largest))
    });
    let inverse = 1.0 / sum(values);
    values.iter_mut().for_each(|v| *v *= inverse);
}

/// The sum in eight interleaved partial sums, whatever the length.
fn sum(values: &[f32]) -> f32 {
    let mut sums = f32x8::ZERO;
    for chunk in values.chunks(LANE) {
        sums += in_lanes(chunk);
    }
    fold(sums)
}

fn fold(sums: f32x8) -> f32 {
    let [a, b, c, d, e, f, g, h] = sums.to_array();
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Layer norm of one row, in place: `(x - mean) / sqrt(variance + eps) * weight + bias`.
pub(crate) fn layer_norm(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = row.len() as f32;
    let mean = sum(row) / n;
    let mut squares = f32x8::ZERO;
    let mut chunks = row.chunks_exact(LANE);
    for chunk in &mut chunks {
        let d = in_lanes(chunk) - f32x8::splat(mean);
        squares += d * d;
    }
    let mut tail = [0.0; LANE];
    for (t, v) in tail.iter_mut().zip(chunks.remainder()) {
        *t = v - mean;
    }
    let tail = f32x8::from(tail);
    squares += tail * tail;
    let inverse = 1.0 / (fold(squares) / n + eps).sqrt();
    for ((v, &w), &b) in row.iter_mut().zip(weight).zip(bias) {
        *v = (*v - mean) * inverse * w + b;
    }
}

/// Divides a row by its L2 norm, or by 1e-12 if that is larger, as `torch.nn.functional.normalize`.
pub(crate) fn normalize(row: &mut [f32]) {
    let mut squares = f32x8::ZERO;
    for chunk in row.chunks(LANE) {
        let v = in_lanes(chunk);
        squares += v * v;
    }
    let inverse = 1.0 / fold(squares).sqrt().max(1e-12);
    row.iter_mut().for_each(|v| *v *= inverse);
}
