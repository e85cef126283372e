use std::sync::atomic::AtomicU64;

use super::bottleneck::{Expand, Filter, Wide, filter};
use super::*;
use crate::kernels::elementwise::tests::noise;
use crate::kernels::elementwise::{Activation, activate};
use crate::kernels::pointwise::{self, Pixels, Then};
use crate::kernels::tables::TableRow;
use crate::kernels::{Codebook, Codes, QuantizedRows, Weights, Zero, linear_int8};

/// The definition, in `f64`.
fn reference(windows: &Windows, weights: &[f32], bias: &[f32], x: &[f32]) -> Vec<f64> {
    let (channels, kernel) = (bias.len(), windows.kernel);
    let [height, width] = windows.input.map(|size| size as isize);
    let mut y = Vec::new();
    for oy in 0..windows.output[0] {
        for ox in 0..windows.output[1] {
            for c in 0..channels {
                let mut sum = f64::from(bias[c]);
                for ky in 0..kernel {
                    for kx in 0..kernel {
                        let row = (oy * windows.stride + ky) as isize - windows.before[0] as isize;
                        let column =
                            (ox * windows.stride + kx) as isize - windows.before[1] as isize;
                        if (0..height).contains(&row) && (0..width).contains(&column) {
                            let at = (row * width + column) as usize * channels + c;
                            let weight = weights[c * kernel * kernel + ky * kernel + kx];
                            sum += f64::from(x[at]) * f64::from(weight);
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn close(a: &[f32], b: &[f64], budget: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (f64::from(*a) - b).abs() <= budget * b.abs().max(1.0),
            "{i}: {a} {b}"
        );
    }
}

#[test]
fn windows_are_those_of_tensorflow_and_torch() {
    let of = |size, kernel, stride, padding| {
        let windows = Windows::new([size, size + 1], kernel, stride, padding);
        (windows.output, windows.before)
    };
    // From tf.nn.conv2d and torch.nn.Conv2d.
    assert_eq!(of(224, 3, 2, Padding::Same), ([112, 113], [0, 1]));
    assert_eq!(of(7, 5, 2, Padding::Same), ([4, 4], [2, 1]));
    assert_eq!(of(5, 3, 1, Padding::Same), ([5, 6], [1, 1]));
    assert_eq!(of(224, 3, 2, Padding::Symmetric), ([112, 113], [1, 1]));
    assert_eq!(of(7, 5, 2, Padding::Symmetric), ([4, 4], [2, 2]));
    assert_eq!(of(1, 5, 2, Padding::Same), ([1, 1], [2, 1]));
    assert_eq!(of(1, 5, 1, Padding::Symmetric), ([1, 2], [2, 2]));
}

/// Heights, widths, kernels and strides around the edges of what is computed together.
const WINDOWS: [(usize, usize, usize, usize); 11] = [
    (1, 1, 3, 1),
    (2, 9, 5, 2),
    (9, 10, 3, 1),
    (17, 8, 3, 2),
    (6, 23, 5, 1),
    (5, 7, 5, 1),
    (11, 5, 7, 2),
    (20, 21, 5, 2),
    (3, 3, 1, 1),
    (4, 3, 3, 1),
    (30, 13, 3, 1),
];

/// What [`filter`] fills.
fn filtered(
    machine: (Isa, Threads),
    wide: Wide,
    windows: &Windows,
    (weights, bias): (&[f32], &[f32]),
    activation: Activation,
) -> [Vec<f32>; 2] {
    let taps = windows.kernel * windows.kernel;
    let filters = Filter {
        windows,
        row: |c: usize| TableRow::F32(&weights[c * taps..][..taps]),
        bias,
        activation,
    };
    let mut y = vec![f32::NAN; windows.pixels() * bias.len()];
    let mut sums = vec![f32::NAN; windows.output[0] * bias.len()];
    filter(machine, wide, &filters, &mut y, &mut sums);
    [y, sums]
}

#[test]
fn depthwise_equals_its_definition_on_every_instruction_set() {
    for (seed, (height, width, kernel, stride)) in (0..).zip(WINDOWS) {
        for channels in [1, 5, 16, 24, 33, 64, 65, 144] {
            for padding in [Padding::Same, Padding::Symmetric] {
                let windows = Windows::new([height, width], kernel, stride, padding);
                let weights = noise(seed, channels * kernel * kernel);
                let bias = noise(seed + 50, channels);
                let x = noise(seed + 90, height * width * channels);
                let mut expected = reference(&windows, &weights, &bias, &x);
                expected.iter_mut().for_each(|v| *v = v.clamp(0.0, 6.0));
                let sums: Vec<f64> = (expected.chunks(windows.output[1] * channels))
                    .flat_map(|row| (0..channels).map(|c| row[c..].iter().step_by(channels).sum()))
                    .collect();
                for isa in Isa::available() {
                    let run = |threads| {
                        let wide = Wide::Image(&x);
                        let filters = (&weights[..], &bias[..]);
                        filtered((isa, threads), wide, &windows, filters, Activation::Relu6)
                    };
                    let got = run(Threads(1));
                    close(&got[0], &expected, 1e-5);
                    close(&got[1], &sums, 1e-5);
                    let what = (channels, height, width, kernel, stride);
                    assert_eq!(got, run(Threads(2)), "{what:?}");
                    assert_eq!(got, run(Threads(5)), "{what:?}");
                }
            }
        }
    }
}

/// A bottleneck's first half gives what its parts give one after another, bit for bit.
#[test]
fn bottlenecks_equal_their_parts() {
    let activation = Activation::Silu;
    for (seed, (height, width, kernel, stride)) in (0..).zip(WINDOWS) {
        let (inputs, channels) = (3 + 7 * seed as usize, [24, 64, 72][seed as usize % 3]);
        let windows = Windows::new([height, width], kernel, stride, Padding::Same);
        let book: Vec<i8> = noise(seed, 1024)
            .iter()
            .map(|v| (v * 127.0) as i8)
            .collect();
        let book = Codebook::from_int8(&book, 4, 0.01);
        let units = inputs.div_ceil(4);
        let codes = noise(seed + 9, channels * units);
        let codes: Vec<u8> = codes.iter().map(|v| (v * 127.0) as i8 as u8).collect();
        let (bias, filter_bias) = (noise(seed + 1, channels), noise(seed + 2, channels));
        let weights = Weights {
            out_features: channels,
            in_features: inputs,
            codes: Codes::Pq {
                codes: &codes,
                book: &book,
            },
            scale: 0.01,
            row_scale: None,
            zero: Zero::Tensor(0),
            bias: Some(&bias),
            offsets: None,
        };
        let taps = noise(seed + 3, channels * kernel * kernel);
        let filters = (&taps[..], &filter_bias[..]);
        let x = noise(seed + 4, height * width * inputs);
        let quantized = QuantizedRows::quantize(&x, inputs);
        for isa in Isa::available() {
            for x in [Pixels::Exact(&x), Pixels::Int8(&quantized)] {
                let one = (isa, Threads(1));
                let mut wide = vec![f32::NAN; height * width * channels];
                match x {
                    Pixels::Exact(_) => {
                        pointwise::linear(one, &weights, x, &mut wide, Then::Nothing);
                    }
                    Pixels::Int8(x) => linear_int8(isa, one.1, &weights, x, &mut wide),
                }
                activate(isa, activation, &mut wide);
                let expected = filtered(one, Wide::Image(&wide), &windows, filters, activation);
                for threads in [1, 2, 5].map(Threads) {
                    let clock = AtomicU64::new(0);
                    let expand = Wide::Product(Expand {
                        weights: &weights,
                        x,
                        clock: Some(&clock),
                    });
                    let got = filtered((isa, threads), expand, &windows, filters, activation);
                    assert_eq!(got, expected, "{} {seed} {threads:?}", isa.name());
                    assert!(clock.into_inner() > 0);
                }
            }
        }
    }
}

#[test]
fn products_are_activated_or_added_as_they_are_stored() {
    let (inputs, outputs, rows) = (20, 72, 131);
    let stored = noise(1, inputs * outputs);
    let values: Vec<i8> = (noise(1, 24 * outputs).iter().map(|v| (v * 127.0) as i8)).collect();
    let bias = noise(2, outputs);
    let x = noise(3, inputs * rows);
    let quantized = QuantizedRows::quantize(&x, inputs);
    for (codes, x) in [
        (Codes::F32(&stored), Pixels::Exact(&x)),
        (Codes::Int8(&values), Pixels::Int8(&quantized)),
    ] {
        let weights = Weights {
            out_features: outputs,
            in_features: inputs,
            codes,
            scale: 1.0,
            row_scale: None,
            zero: Zero::Tensor(0),
            bias: Some(&bias),
            offsets: None,
        };
        for isa in Isa::available() {
            let run = |threads, then| {
                let mut y = noise(7, rows * outputs);
                pointwise::linear((isa, Threads(threads)), &weights, x, &mut y, then);
                y
            };
            let plain = run(1, Then::Nothing);
            let mut active = plain.clone();
            activate(isa, Activation::Silu, &mut active);
            let before = noise(7, rows * outputs);
            let sum: Vec<f32> = plain.iter().zip(&before).map(|(a, b)| a + b).collect();
            for threads in [1, 2, 5] {
                assert_eq!(run(threads, Then::Nothing), plain);
                assert_eq!(run(threads, Then::Activation(Activation::Silu)), active);
                assert_eq!(run(threads, Then::Sum), sum);
            }
        }
    }
}

#[test]
fn gathered_rows_are_the_windows() {
    let windows = Windows::new([5, 6], 3, 2, Padding::Same);
    let x: Vec<f32> = (1..=5 * 6 * 2).map(|v| v as f32).collect();
    for threads in [1, 2] {
        let mut rows = vec![f32::NAN; windows.pixels() * 18];
        gather(Threads(threads), &windows, 2, &x, &mut rows);
        for (pixel, row) in rows.chunks_exact(18).enumerate() {
            let (oy, ox) = (pixel / windows.output[1], pixel % windows.output[1]);
            for (at, &value) in row.iter().enumerate() {
                let (ky, kx, c) = (at / 6, at / 2 % 3, at % 2);
                let y = (oy * 2 + ky)
                    .checked_sub(windows.before[0])
                    .filter(|&y| y < 5);
                let x_at = (ox * 2 + kx)
                    .checked_sub(windows.before[1])
                    .filter(|&x| x < 6);
                let expected = match (y, x_at) {
                    (Some(y), Some(column)) => x[(y * 6 + column) * 2 + c],
                    _ => 0.0,
                };
                assert_eq!(value, expected, "{pixel} {at}");
            }
        }
    }
}

#[test]
fn means_and_sigmoids_are_close() {
    for isa in Isa::available() {
        for (channels, height, width) in [(1, 1, 1), (17, 3, 5), (40, 7, 7), (16, 100, 90)] {
            let x = noise(2, channels * height * width);
            let mut means = vec![f32::NAN; channels];
            pool(isa, width, &x, &mut means);
            let expected: Vec<f64> = (0..channels)
                .map(|c| {
                    let values = x[c..].iter().step_by(channels);
                    values.map(|v| f64::from(*v)).sum::<f64>() / (height * width) as f64
                })
                .collect();
            close(&means, &expected, 1e-6);
            // One row of the image that is its sums already.
            mean(isa, 4, &x[..height * channels], &mut means);
            let sums = (0..channels).map(|c| x[c..height * channels].iter().step_by(channels));
            let of_sums: Vec<f64> = sums
                .map(|sums| sums.map(|v| f64::from(*v)).sum::<f64>() / 4.0)
                .collect();
            close(&means, &of_sums, 1e-6);
        }
        let x: Vec<f32> = (-400..=400).map(|i| i as f32 / 4.0).collect();
        let mut y = x.clone();
        sigmoid(isa, &mut y);
        for (x, y) in x.iter().zip(&y) {
            let expected = 1.0 / (1.0 + (-f64::from(*x).max(-87.0)).exp());
            let error = (f64::from(*y) - expected).abs() / expected;
            assert!(error < 4e-7 || *x < -87.0, "{x}: {y} {expected}");
        }
        let mut nan = [f32::NAN];
        sigmoid(isa, &mut nan);
        assert!(nan[0].is_nan());
    }
}
