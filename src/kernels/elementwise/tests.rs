//! Every function on every instruction set, against its formula in f64.

use super::*;
use crate::kernels::QuantizedRows;
use crate::kernels::Threads;
use crate::kernels::fused;

/// Values of -1 to 1 that are the same on every machine.
pub(in crate::kernels) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Relu6,
    Activation::Silu,
    Activation::Tanh,
];

/// Largest absolute error of `f` against `exact` over a fine grid, relative to `max(1, |x|)`.
fn error_of(f: impl Fn(&mut [f32]), exact: impl Fn(f64) -> f64) -> f64 {
    let x: Vec<f32> = (-80_000..80_000).map(|i| i as f32 * 2.5e-4).collect();
    let mut y = x.clone();
    f(&mut y);
    x.iter().zip(&y).fold(0f64, |worst, (&x, &y)| {
        let x = f64::from(x);
        worst.max((f64::from(y) - exact(x)).abs() / x.abs().max(1.0))
    })
}

/// erf by its Taylor series, and by its complement's continued fraction further out.
fn erf(x: f64) -> f64 {
    if x.abs() > 3.0 {
        let a = x.abs();
        let tail = (1..60).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (a + f));
        let value = 1.0 - (-a * a).exp() / (a + tail) / std::f64::consts::PI.sqrt();
        return value.copysign(x);
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..80 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn exact(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

#[test]
fn activations_stay_within_their_stated_errors() {
    for isa in Isa::available() {
        for activation in ACTIVATIONS {
            let error = error_of(|v| activate(isa, activation, v), |x| exact(activation, x));
            assert!(error <= 4e-7, "{} {activation:?}: {error:e}", isa.name());
            let mut far = [-1e30, -100.0, 100.0, 1e30];
            activate(isa, activation, &mut far);
            for (y, x) in far.iter().zip([-1e30, -100.0, 100.0, 1e30]) {
                let error = (f64::from(*y) - exact(activation, x)).abs();
                assert!(
                    error <= 4e-7 * x.abs().max(1.0),
                    "{activation:?} {x:e}: {y:e}"
                );
            }
        }
    }
}

/// Calls one of the exponentials for every value.
struct Exponential<'a>(&'a mut [f32], bool);

impl Op for Exponential<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for chunk in self.0.chunks_mut(S::LANES) {
            let x = simd.load_part(chunk, 0.0);
            let y = match self.1 {
                true => exp2_of_negative(simd, [x])[0],
                false => functions::exp(simd, x),
            };
            simd.store_part(y, chunk);
        }
    }
}

#[test]
fn exponentials_stay_within_their_stated_errors() {
    for isa in Isa::available() {
        for base_two in [false, true] {
            let range = if base_two {
                -125_990..1
            } else {
                -87_000..88_000
            };
            let x: Vec<f32> = range.map(|i| i as f32 * 1e-3).collect();
            let mut y = x.clone();
            isa.run(Exponential(&mut y, base_two));
            let worst = x.iter().zip(&y).fold(0f64, |worst, (&x, &y)| {
                let x = f64::from(x);
                let exact = if base_two { x.exp2() } else { x.exp() };
                worst.max((f64::from(y) / exact - 1.0).abs())
            });
            let budget = if base_two { 2.5e-7 } else { 2e-7 };
            assert!(worst <= budget, "{} {base_two}: {worst:e}", isa.name());
        }
        let mut far = [-126.5, -1e9, f32::NEG_INFINITY, f32::NAN];
        isa.run(Exponential(&mut far, true));
        assert_eq!(bits(&far[..3]), [0, 0, 0]);
        assert!(far[3].is_nan());
    }
}

#[test]
fn reciprocals_stay_within_their_stated_error() {
    struct Reciprocals<'a>(&'a mut [f32]);

    impl Op for Reciprocals<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            for chunk in self.0.chunks_exact_mut(S::LANES) {
                simd.store(simd.reciprocal(simd.load(chunk)), chunk);
            }
        }
    }

    // 1 to 2^126 in steps of about 0.1 %.
    let x: Vec<f32> = (0..80_000)
        .map(|i| (f64::from(i) * 126.0 / 8e4).exp2() as f32)
        .collect();
    for isa in Isa::available() {
        let mut y = x.clone();
        isa.run(Reciprocals(&mut y));
        for (x, y) in x.iter().zip(y) {
            let error = (f64::from(y) * f64::from(*x) - 1.0).abs();
            assert!(error <= 2e-7, "{} {x:e}: {error:e}", isa.name());
        }
    }
}

#[test]
fn non_finite_values_do_not_pass_for_numbers() {
    for isa in Isa::available() {
        for activation in ACTIVATIONS {
            let mut values = vec![1.0; 70];
            values[3] = f32::NAN;
            values[68] = f32::NAN;
            let mut quantized = QuantizedRows::default();
            let machine = (isa, Threads(1));
            fused::activate(machine, activation, &mut values, 35, Some(&mut quantized));
            let nan: Vec<usize> = (0..70).filter(|&i| values[i].is_nan()).collect();
            assert_eq!(nan, [3, 68], "{activation:?}");
            assert!(quantized.scale(0).is_nan() && quantized.scale(1).is_nan());
        }
        let mut row = vec![1.0; 50];
        row[49] = f32::NAN;
        let affine = Affine {
            weight: &[1.0; 50],
            bias: &[0.0; 50],
            eps: 1e-5,
        };
        layer_norm(isa, &mut row, affine);
        assert!(row.iter().all(|v| v.is_nan()));
    }
}

#[test]
fn norms_equal_their_formulas() {
    for isa in Isa::available() {
        for n in [1, 3, 4, 8, 9, 36, 64, 100, 768] {
            let x: Vec<f32> = noise(77, n).iter().map(|v| v * 3.0 + 1.0).collect();
            let (weight, bias) = (noise(1, n), noise(2, n));
            let mut y = x.clone();
            let affine = Affine {
                weight: &weight,
                bias: &bias,
                eps: 1e-5,
            };
            layer_norm(isa, &mut y, affine);
            let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
            let squares = x.iter().map(|&v| (f64::from(v) - mean).powi(2));
            let variance = squares.sum::<f64>() / n as f64;
            for i in 0..n {
                let normal = (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt();
                let exact = normal * f64::from(weight[i]) + f64::from(bias[i]);
                assert!((f64::from(y[i]) - exact).abs() < 2e-6, "{} {n}", isa.name());
            }
            normalize(isa, &mut y);
            let norm: f64 = y.iter().map(|&v| f64::from(v).powi(2)).sum();
            assert!((norm - 1.0).abs() < 1e-6, "{} {n}", isa.name());
        }
    }
}

#[test]
fn a_value_does_not_depend_on_its_place() {
    for isa in Isa::available() {
        for activation in ACTIVATIONS {
            let x: Vec<f32> = noise(5, 200).iter().map(|v| v * 6.0).collect();
            let mut all = x.clone();
            activate(isa, activation, &mut all);
            for start in 0..80 {
                let mut part = x[start..start + start % 7 + 1].to_vec();
                activate(isa, activation, &mut part);
                assert_eq!(bits(&part), bits(&all[start..][..part.len()]));
            }
        }
    }
}

/// What the fused functions give is what their parts give one after another, with any number of
/// threads.
#[test]
fn fused_rows_equal_their_parts() {
    for isa in Isa::available() {
        for (rows, columns) in [(1, 1), (3, 7), (5, 64), (40, 1024)] {
            let x: Vec<f32> = noise(3, rows * columns).iter().map(|v| v * 4.0).collect();
            let added = noise(4, rows * columns);
            let (weight, bias) = (noise(5, columns), noise(6, columns));
            let affine = Affine {
                weight: &weight,
                bias: &bias,
                eps: 1e-5,
            };
            let mut normed: Vec<f32> = x.iter().zip(&added).map(|(x, a)| x + a).collect();
            for row in normed.chunks_exact_mut(columns) {
                layer_norm(isa, row, affine);
            }
            let mut active = x.clone();
            activate_each(isa, &mut active, columns);
            for threads in [1, 2] {
                let machine = (isa, Threads(threads));
                let mut quantized = QuantizedRows::default();
                let mut y = x.clone();
                fused::norm(machine, &mut y, Some(&added), affine, Some(&mut quantized));
                assert_eq!(bits(&y), bits(&normed));
                check_quantized(&quantized, &normed, columns);
                y.copy_from_slice(&x);
                let gelu = Activation::Gelu;
                fused::activate(machine, gelu, &mut y, columns, Some(&mut quantized));
                assert_eq!(bits(&y), bits(&active));
                check_quantized(&quantized, &active, columns);
                fused::quantize(machine, &y, columns, &mut quantized);
                check_quantized(&quantized, &active, columns);
                fused::scale(machine, &mut y, &weight);
                let scaled = (active.iter().zip(weight.iter().cycle())).map(|(a, w)| a * w);
                let scaled: Vec<f32> = scaled.collect();
                assert_eq!(bits(&y), bits(&scaled));
                fused::quantize_scaled(machine, &active, &weight, &mut quantized);
                check_quantized(&quantized, &scaled, columns);
            }
        }
    }
}

fn activate_each(isa: Isa, x: &mut [f32], columns: usize) {
    for row in x.chunks_exact_mut(columns) {
        activate(isa, Activation::Gelu, row);
    }
}

/// Against a plain loop.
fn check_quantized(quantized: &QuantizedRows, x: &[f32], columns: usize) {
    assert_eq!(quantized.rows(), x.len() / columns);
    for (row, x) in x.chunks_exact(columns).enumerate() {
        let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let q: Vec<i8> = (x.iter())
            .map(|v| (v * (127.0 / largest)).round_ties_even() as i8)
            .collect();
        assert_eq!(quantized.row(row), q);
        assert_eq!(quantized.scale(row), largest / 127.0);
        assert_eq!(
            quantized.sum(row),
            q.iter().map(|&q| i32::from(q)).sum::<i32>()
        );
    }
}
