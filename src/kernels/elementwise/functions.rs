//! The functions themselves, over vectors.

use super::Function;
use crate::kernels::simd::Simd;

/// e^x, relative error at most 2e-7 where the result is a normal number; below -87.3 it is the
/// result at -87.3 (1.2e-38) and above 88.3 that at 88.3. NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, then a polynomial for e^r (Cephes `expf`) and n is added
/// to the exponent's bits.
#[inline(always)]
pub(in crate::kernels) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    let clamped = clamp(simd, x, -87.3, 88.3);
    let n = simd.round(simd.mul(clamped, simd.splat(std::f32::consts::LOG2_E)));
    let n_float = simd.to_float(n);
    let r = simd.mul_add(n_float, simd.splat(-0.693_359_4), clamped);
    let r = simd.mul_add(n_float, simd.splat(2.121_944_4e-4), r);
    let coefficients = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let [p] = polynomial(simd, &coefficients, [r]);
    let e = simd.mul_add(p, simd.mul(r, r), simd.add(r, simd.splat(1.0)));
    keep_nan(simd, x, simd.mul(e, simd.power_of_two(n)))
}

/// 2^x for x of at most 0, relative error at most 2.5e-7; exactly 0 below -126. NaN stays NaN.
///
/// x is an integer and a rest between -1/2 and 1/2, exactly, and the polynomial for the rest is good
/// to 7.6e-8.
#[inline(always)]
pub(in crate::kernels) fn exp2_of_negative<S: Simd, const N: usize>(
    simd: S,
    x: [S::F; N],
) -> [S::F; N] {
    let (mut rest, mut power) = (x, x);
    for i in 0..N {
        // Out of range this is any number: the last step puts 0 in its place, or keeps NaN.
        let n = simd.round(x[i]);
        rest[i] = simd.sub(x[i], simd.to_float(n));
        power[i] = simd.power_of_two(n);
    }
    let mut y = polynomial(simd, &EXP2, rest);
    for i in 0..N {
        let vanishes = simd.less(x[i], simd.splat(-126.0));
        y[i] = simd.select(vanishes, simd.splat(0.0), simd.mul(y[i], power[i]));
    }
    y
}

/// 2^x for x between -1/2 and 1/2, relative error 7.6e-8.
const EXP2: [f32; 6] = [
    1.341_000_5e-3,
    9.676_036e-3,
    5.550_297_3e-2,
    2.402_210_7e-1,
    6.931_472_4e-1,
    1.000_000_1,
];

/// Horner's scheme, the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, coefficients: &[f32], x: [S::F; N]) -> [S::F; N] {
    let mut sums = [simd.splat(coefficients[0]); N];
    for &c in &coefficients[1..] {
        let c = simd.splat(c);
        for i in 0..N {
            sums[i] = simd.mul_add(sums[i], x[i], c);
        }
    }
    sums
}

/// The same of even degree, as a polynomial in x^2 and another that is multiplied with x: two chains
/// of half the length, which take less time than one where instructions wait for each other.
#[inline(always)]
fn long_polynomial<S: Simd, const N: usize>(
    simd: S,
    coefficients: &[f32; DEGREE + 1],
    x: [S::F; N],
) -> [S::F; N] {
    let mut square = x;
    for i in 0..N {
        square[i] = simd.mul(x[i], x[i]);
    }
    let mut even = [simd.splat(coefficients[0]); N];
    let mut odd = [simd.splat(coefficients[1]); N];
    for power in 1..DEGREE / 2 {
        let c = simd.splat(coefficients[2 * power]);
        for i in 0..N {
            even[i] = simd.mul_add(even[i], square[i], c);
        }
        let c = simd.splat(coefficients[2 * power + 1]);
        for i in 0..N {
            odd[i] = simd.mul_add(odd[i], square[i], c);
        }
    }
    let c = simd.splat(coefficients[DEGREE]);
    for i in 0..N {
        even[i] = simd.mul_add(even[i], square[i], c);
        even[i] = simd.mul_add(odd[i], x[i], even[i]);
    }
    even
}

/// Of a [`long_polynomial`].
const DEGREE: usize = 16;

/// `max` and `min` may drop a NaN.
#[inline(always)]
fn clamp<S: Simd>(simd: S, x: S::F, low: f32, high: f32) -> S::F {
    simd.min(simd.max(x, simd.splat(low)), simd.splat(high))
}

/// `result`, or NaN where `x` is NaN: clamping drops it.
#[inline(always)]
fn keep_nan<S: Simd>(simd: S, x: S::F, result: S::F) -> S::F {
    simd.select(simd.is_nan(x), x, result)
}

/// x (1 + erf(x / sqrt 2)) / 2, absolute error at most 3e-7 + 1.2e-7 |x|.
///
/// It is max(x, 0) - g(|x|) with g(a) = a erfc(a / sqrt 2) / 2, a bump that is 1e-7 at 5.5 and less
/// beyond. A polynomial for g is cheaper than one for erf: g only has to be right absolutely.
#[derive(Clone, Copy)]
pub(super) struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(self, simd: S, x: [S::F; N]) -> [S::F; N] {
        // Minimax on 0..=5.5 by Remez' algorithm, error 1.2e-7, for -g in t = a / 2.75 - 1.
        let coefficients = [
            1.517_679e-2,
            8.053_617e-4,
            -9.689_583e-2,
            3.640_799_6e-2,
            2.537_053_5e-1,
            -2.308_406_1e-1,
            -2.695_961_6e-1,
            5.440_987e-1,
            -1.525_607_1e-1,
            -4.592_227_3e-1,
            6.286_078_7e-1,
            -2.605_161_7e-1,
            -1.789_810_5e-1,
            3.086_897_7e-1,
            -1.912_619e-1,
            6.057_775e-2,
            -8.194_38e-3,
        ];
        ramp_less_bump(simd, &coefficients, x)
    }
}

/// x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3), absolute error at most 3e-7 +
/// 1.2e-7 |x|: as [`Gelu`], with g(a) = a / (1 + e^2u(a)).
#[derive(Clone, Copy)]
pub(super) struct GeluTanh;

impl Function for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(self, simd: S, x: [S::F; N]) -> [S::F; N] {
        // Error 1.9e-7.
        let coefficients = [
            5.818_906e-3,
            1.240_680_6e-2,
            -5.250_736e-2,
            -2.309_351_6e-2,
            1.697_835_9e-1,
            -1.000_534_5e-1,
            -1.954_583_4e-1,
            3.854_531_6e-1,
            -1.708_339_8e-1,
            -3.465_835_8e-1,
            6.079_434e-1,
            -3.053_141e-1,
            -1.601_317_5e-1,
            3.168_227e-1,
            -1.968_914_7e-1,
            6.036_214_5e-2,
            -7.723_033e-3,
        ];
        ramp_less_bump(simd, &coefficients, x)
    }
}

/// max(x, 0) + p(min(|x|, 5.5) / 2.75 - 1)
#[inline(always)]
fn ramp_less_bump<S: Simd, const N: usize>(
    simd: S,
    coefficients: &[f32; DEGREE + 1],
    x: [S::F; N],
) -> [S::F; N] {
    let mut t = x;
    for i in 0..N {
        let a = simd.min(simd.abs(x[i]), simd.splat(5.5));
        t[i] = simd.mul_add(a, simd.splat(1.0 / 2.75), simd.splat(-1.0));
    }
    let mut y = long_polynomial(simd, coefficients, t);
    for i in 0..N {
        // x + |x| is exact, and NaN for NaN.
        let twice = simd.add(x[i], simd.abs(x[i]));
        y[i] = simd.mul_add(twice, simd.splat(0.5), y[i]);
    }
    y
}

/// max(x, 0), and NaN for NaN, as (x + |x|) / 2: `max` may drop a NaN, and of a selection that is
/// stored where x was, compilers make a masked store, which is slow on some processors.
#[derive(Clone, Copy)]
pub(super) struct Relu;

impl Function for Relu {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(self, simd: S, mut x: [S::F; N]) -> [S::F; N] {
        let half = simd.splat(0.5);
        for x in &mut x {
            *x = simd.mul_add(simd.abs(*x), half, simd.mul(*x, half));
        }
        x
    }
}

/// min(max(x, 0), 6)
#[derive(Clone, Copy)]
pub(super) struct Relu6;

impl Function for Relu6 {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(self, simd: S, mut x: [S::F; N]) -> [S::F; N] {
        // Not `map`, whose closure is not inlined: see `simd`.
        for x in &mut x {
            *x = keep_nan(simd, *x, clamp(simd, *x, 0.0, 6.0));
        }
        x
    }
}

/// x / (1 + e^-x), absolute error at most 4e-7 max(1, |x|).
///
/// The exponential is that of base 2 for a rounded -x / ln 2: what rounding moves it by, relatively, e^-x
/// makes up for by being small where x is large.
#[derive(Clone, Copy)]
pub(super) struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(self, simd: S, x: [S::F; N]) -> [S::F; N] {
        let (mut rest, mut power) = (x, x);
        for i in 0..N {
            // Up to 2^125 the reciprocal is a normal number. NaN is lost here and comes back below.
            let scaled = simd.mul(x[i], simd.splat(-std::f32::consts::LOG2_E));
            let t = clamp(simd, scaled, -125.0, 125.0);
            let n = simd.round(t);
            rest[i] = simd.sub(t, simd.to_float(n));
            power[i] = simd.power_of_two(n);
        }
        let mut y = polynomial(simd, &EXP2, rest);
        for i in 0..N {
            let divisor = simd.mul_add(y[i], power[i], simd.splat(1.0));
            y[i] = simd.mul(x[i], simd.reciprocal(divisor));
        }
        y
    }
}

/// tanh(x), absolute error at most 2e-7.
#[derive(Clone, Copy)]
pub(super) struct Tanh;

impl Function for Tanh {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(self, simd: S, mut x: [S::F; N]) -> [S::F; N] {
        let one = simd.splat(1.0);
        for x in &mut x {
            // Beyond 9.1 it is 1 in f32; the clamp keeps exp finite.
            let c = clamp(simd, *x, -9.1, 9.1);
            let e = exp(simd, simd.add(c, c));
            let by_exp = simd.div(simd.sub(e, one), simd.add(e, one));
            // Near zero e - 1 cancels: x - x^3 / 3 + 2 x^5 / 15 there.
            let x2 = simd.mul(c, c);
            let [series] = polynomial(simd, &[2.0 / 15.0, -1.0 / 3.0, 1.0], [x2]);
            let small = simd.less(simd.abs(c), simd.splat(0.05));
            let result = simd.select(small, simd.mul(c, series), by_exp);
            *x = keep_nan(simd, *x, result);
        }
        x
    }
}
