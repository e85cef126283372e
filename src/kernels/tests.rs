//! Every kernel that the machine can run, against the naive reference, around every block edge.

mod dots;

use std::fmt::Debug;

use half::f16;
use proptest::prelude::*;

use super::pointwise::{self, Pixels, Then};
use super::weights::PAIR;
use super::{Codebook, Codes, Isa, Offsets, QuantizedRows, Threads, Weights, Zero, reference};
use crate::layout::INT8_GROUP;

/// A small generator of its own, so that a failure is the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn int8(&mut self) -> i8 {
        ((self.next() % 255) as i16 - 127) as i8
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Pq {
        block: usize,
        centroids: usize,
    },
    /// 256 centroids within half of [`PAIR`], or all of it with seeds divisible by 3.
    Narrow {
        block: usize,
    },
    Int4,
    Int8,
    F16,
    F32,
}

const fn pq(block: usize) -> Kind {
    let centroids = 256;
    Kind::Pq { block, centroids }
}

const KINDS: [Kind; 18] = [
    pq(1),
    pq(2),
    pq(3),
    pq(4),
    pq(5),
    pq(8),
    pq(16),
    pq(25),
    // Filled up to 256, and too few for that.
    Kind::Pq {
        block: 8,
        centroids: 64,
    },
    Kind::Pq {
        block: 8,
        centroids: 5,
    },
    Kind::Narrow { block: 2 },
    Kind::Narrow { block: 4 },
    Kind::Narrow { block: 8 },
    Kind::Narrow { block: 16 },
    Kind::Int4,
    Kind::Int8,
    Kind::F16,
    Kind::F32,
];

/// Owns what [`Weights`] borrows.
struct Case {
    out_features: usize,
    in_features: usize,
    kind: Kind,
    bytes: Vec<u8>,
    int8: Vec<i8>,
    f16: Vec<f16>,
    f32: Vec<f32>,
    book: Codebook,
    row_scale: Option<Vec<f16>>,
    zeros: Option<Vec<i8>>,
    bias: Option<Vec<f32>>,
}

impl Case {
    /// `extreme`: all integers are 127 or -127.
    fn new(kind: Kind, out_features: usize, in_features: usize, seed: u64, extreme: bool) -> Self {
        let mut random = Random(seed);
        let sign = |r: u64| if r.is_multiple_of(2) { 127 } else { -127 };
        let mut int8 = |n: usize| -> Vec<i8> {
            (0..n)
                .map(|_| {
                    if extreme {
                        sign(random.next())
                    } else {
                        random.int8()
                    }
                })
                .collect()
        };
        let mut case = Self {
            out_features,
            in_features,
            kind,
            bytes: Vec::new(),
            int8: Vec::new(),
            f16: Vec::new(),
            f32: Vec::new(),
            book: Codebook::int4(8),
            row_scale: None,
            zeros: None,
            bias: None,
        };
        match kind {
            Kind::Pq { block, centroids } => {
                case.book = if seed.is_multiple_of(2) {
                    Codebook::from_int8(&int8(centroids * block), block, 0.01)
                } else {
                    let values: Vec<_> = (0..centroids * block)
                        .map(|_| f16::from_f32(random.float()))
                        .collect();
                    Codebook::from_f16(&values, block)
                };
                let n = out_features * in_features.div_ceil(block);
                let code = |r: u64| (r % centroids as u64) as u8;
                case.bytes = (0..n).map(|_| code(random.next())).collect();
            }
            Kind::Narrow { block } => {
                let (limit, room) = if seed.is_multiple_of(3) {
                    (PAIR, 1)
                } else {
                    (PAIR / 2, 2)
                };
                let limit = limit as i32;
                let mut values = int8(256 * block);
                for pair in values.as_chunks_mut::<2>().0 {
                    // At the limit, whatever the first one is.
                    pair[0] = pair[0].clamp(-limit.min(127) as i8, limit.min(127) as i8);
                    let rest = limit - i32::from(pair[0]).abs();
                    let rest = if extreme {
                        rest
                    } else {
                        rest * random.int8() as i32 / 127
                    };
                    let sign = i32::from(pair[0].signum());
                    pair[1] = (sign * rest).clamp(-127, 127) as i8;
                }
                case.book = Codebook::from_int8(&values, block, 0.01);
                assert!(case.book.room >= room);
                let n = out_features * in_features.div_ceil(block);
                case.bytes = (0..n).map(|_| random.next() as u8).collect();
            }
            Kind::Int4 => {
                let units = in_features.div_ceil(2);
                case.bytes = (0..out_features * units)
                    .map(|_| random.next() as u8)
                    .collect();
                if seed.is_multiple_of(3) {
                    case.book = Codebook::int4(0);
                    case.zeros = Some(
                        (0..out_features)
                            .map(|_| (random.next() % 16) as i8)
                            .collect(),
                    );
                }
            }
            Kind::Int8 => {
                case.int8 = int8(out_features * in_features.div_ceil(INT8_GROUP) * INT8_GROUP);
                if seed.is_multiple_of(3) {
                    case.zeros = Some(int8(out_features));
                }
            }
            Kind::F16 => {
                case.f16 = (0..out_features * in_features)
                    .map(|_| f16::from_f32(random.float()))
                    .collect();
            }
            Kind::F32 => {
                case.f32 = (0..out_features * in_features)
                    .map(|_| random.float())
                    .collect();
            }
        }
        if seed % 5 < 2 {
            case.row_scale = Some(
                (0..out_features)
                    .map(|_| f16::from_f32(random.float().abs()))
                    .collect(),
            );
        }
        if seed % 4 != 1 {
            case.bias = Some((0..out_features).map(|_| random.float()).collect());
        }
        case
    }

    fn weights(&self, int8: bool) -> Weights<'_> {
        let book = &self.book;
        let (codes, scale) = match self.kind {
            Kind::Pq { .. } | Kind::Narrow { .. } | Kind::Int4 => (
                Codes::Pq {
                    codes: &self.bytes,
                    book,
                },
                if int8 {
                    book.int8_scale
                } else {
                    book.f32_scale
                },
            ),
            Kind::Int8 => (Codes::Int8(&self.int8), 0.013),
            Kind::F16 => (Codes::F16(&self.f16), 1.0),
            Kind::F32 => (Codes::F32(&self.f32), 1.0),
        };
        Weights {
            out_features: self.out_features,
            in_features: self.in_features,
            codes,
            scale,
            row_scale: self.row_scale.as_deref(),
            zero: self.zeros.as_deref().map_or(Zero::Tensor(0), Zero::Row),
            bias: self.bias.as_deref(),
            offsets: None,
        }
    }

    fn has_int8(&self) -> bool {
        !matches!(self.kind, Kind::F16 | Kind::F32)
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Both modes, every instruction set, 1 and 2 threads, against the reference.
fn check(case: &Case, rows: usize, seed: u64) {
    let mut random = Random(seed ^ 0xabcd);
    let x: Vec<f32> = (0..rows * case.in_features)
        .map(|_| random.float())
        .collect();
    check_with(case, &x);
}

/// Names the first difference, and not thousands of numbers.
fn assert_same(values: &[u32], expected: &[u32], (isa, what): (Isa, &impl Debug)) {
    let different = values.iter().zip(expected).position(|(a, b)| a != b);
    let equal = values.len() == expected.len() && different.is_none();
    assert!(equal, "{} {what:?}: output {different:?}", isa.name());
}

fn check_with(case: &Case, x: &[f32]) {
    let rows = x.len() / case.in_features;
    let quantized = QuantizedRows::quantize(x, case.in_features);
    let what = (case.kind, case.out_features, case.in_features, rows);
    let int8 = case.has_int8().then(|| {
        let weights = case.weights(true);
        let expected = bits(&reference::linear_int8(&weights, &quantized));
        (weights, expected)
    });
    let weights = case.weights(false);
    let expected = reference::linear_f32(&weights, x);
    for isa in Isa::available() {
        for threads in [1, 2].map(Threads) {
            let mut y = vec![f32::NAN; rows * case.out_features];
            if let Some((weights, expected)) = &int8 {
                super::linear_int8(isa, threads, weights, &quantized, &mut y);
                assert_same(&bits(&y), expected, (isa, &what));
                y.fill(f32::NAN);
                let pixels = Pixels::Int8(&quantized);
                pointwise::linear((isa, threads), weights, pixels, &mut y, Then::Nothing);
                assert_same(&bits(&y), expected, (isa, &what));
                // Finding out the offsets, and then knowing them.
                let offsets = Offsets::new();
                let weights = Weights {
                    offsets: Some(&offsets),
                    ..*weights
                };
                for _ in 0..2 {
                    y.fill(f32::NAN);
                    super::linear_int8(isa, threads, &weights, &quantized, &mut y);
                    assert_same(&bits(&y), expected, (isa, &what));
                }
            }
            let mut by_pixels = vec![f32::NAN; y.len()];
            let pixels = Pixels::Exact(x);
            let machine = (isa, threads);
            pointwise::linear(machine, &weights, pixels, &mut by_pixels, Then::Nothing);
            y.fill(f32::NAN);
            super::linear_f32(isa, threads, &weights, x, &mut y);
            for y in [y, by_pixels] {
                for (i, (&y, &(exact, magnitude))) in y.iter().zip(&expected).enumerate() {
                    // n additions in f32, each off by half a unit in the last place at most.
                    let bound = magnitude * 6e-8 * (case.in_features as f64 + 4.0) + 1e-30;
                    let error = (f64::from(y) - exact).abs();
                    assert!(
                        error <= bound,
                        "{} {what:?} [{i}]: {error} > {bound}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn products_equal_the_reference_around_tile_edges() {
    for kind in KINDS {
        for (seed, out) in [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257]
            .into_iter()
            .enumerate()
        {
            let case = Case::new(kind, out, 37, seed as u64, false);
            check(&case, 1 + seed % 6, seed as u64);
        }
    }
}

#[test]
fn products_equal_the_reference_around_block_edges() {
    for kind in KINDS {
        for (seed, columns) in [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 25, 26, 63, 64, 65, 130]
            .into_iter()
            .enumerate()
        {
            let case = Case::new(kind, 70, columns, seed as u64, false);
            check(&case, 1 + seed % 5, seed as u64);
        }
    }
}

#[test]
fn products_equal_the_reference_for_every_number_of_rows() {
    for kind in KINDS {
        let case = Case::new(kind, 41, 19, 6, false);
        for rows in 1..=70 {
            check(&case, rows, rows as u64);
        }
        // Wide enough for the lookup tables.
        let case = Case::new(kind, 300, 40, 7, false);
        for rows in 1..=9 {
            check(&case, rows, rows as u64);
        }
    }
}

#[test]
fn products_equal_the_reference_around_blocks_of_rows() {
    for kind in KINDS {
        let case = Case::new(kind, 67, 40, 3, false);
        for rows in [95, 96, 97, 191, 192, 193] {
            check(&case, rows, rows as u64);
        }
    }
}

#[test]
fn products_equal_the_reference_around_blocks_of_the_input() {
    for kind in KINDS {
        for (seed, columns) in [760, 767, 768, 769, 776, 784, 1536, 1545]
            .into_iter()
            .enumerate()
        {
            let case = Case::new(kind, 66, columns, seed as u64, false);
            check(&case, [1, 2, 3, 5, 8, 13][seed % 6], seed as u64);
        }
    }
}

/// Every pair of weights at the limit, with the largest activations there are: where a saturating
/// sum would show.
#[test]
fn the_widest_narrow_pairs_do_not_saturate() {
    for block in [2, 4, 8, 16] {
        for (pair, x, room) in [
            ([127, 1], 1.0, 1),
            ([64, 64], 1.0, 1),
            ([-64, -64], 1.0, 1),
            ([-1, -127], -1.0, 1),
            ([32, 32], 1.0, 2),
            ([-64, 0], 1.0, 2),
            ([1, 63], 1.0, 2),
        ] {
            let mut case = Case::new(Kind::Narrow { block }, 70, 800, 0, true);
            case.book = Codebook::from_int8(&pair.repeat(128 * block), block, 0.01);
            assert_eq!(case.book.room, room);
            check_with(&case, &[x; 7 * 800]);
        }
    }
}

#[test]
fn the_widest_extreme_sum_does_not_overflow() {
    for kind in [pq(8), Kind::Int8] {
        for (seed, out) in [(0, 2), (0, 256)] {
            let mut case = Case::new(kind, out, 1 << 16, seed, true);
            // All of one sign: the sum is 65,536 * 127 * 127, and as much again by the zero point.
            case.int8.fill(127);
            case.zeros = case.zeros.map(|z| vec![-127; z.len()]);
            if let Kind::Pq { block, .. } = kind {
                case.book = Codebook::from_int8(&vec![127; 256 * block], block, 0.01);
            }
            let x = vec![1.0; 1 << 16];
            let quantized = QuantizedRows::quantize(&x, 1 << 16);
            let weights = case.weights(true);
            for isa in Isa::available() {
                let mut y = vec![0.0; out];
                super::linear_int8(isa, Threads(1), &weights, &quantized, &mut y);
                let expected = reference::linear_int8(&weights, &quantized);
                assert_eq!(bits(&y), bits(&expected));
                assert!(y[0] > 0.0);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    for kind in KINDS {
        let case = Case::new(kind, 270, 45, 8, false);
        let mut random = Random(3);
        let x: Vec<f32> = (0..11 * 45).map(|_| random.float()).collect();
        for isa in Isa::available() {
            for int8 in [true, false] {
                if int8 && !case.has_int8() {
                    continue;
                }
                let weights = case.weights(int8);
                let run = |x: &[f32]| {
                    let mut y = vec![0.0; x.len() / 45 * 270];
                    if int8 {
                        let x = QuantizedRows::quantize(x, 45);
                        super::linear_int8(isa, Threads(1), &weights, &x, &mut y);
                    } else {
                        super::linear_f32(isa, Threads(1), &weights, x, &mut y);
                    }
                    bits(&y)
                };
                let all = run(&x);
                for (row, x) in x.chunks_exact(45).enumerate() {
                    assert_eq!(run(x), &all[row * 270..][..270], "{kind:?}");
                }
            }
        }
    }
}

#[test]
fn activations_quantize_within_half_a_step() {
    let mut random = Random(5);
    for columns in [1, 5, 8, 13, 64] {
        let x: Vec<f32> = (0..3 * columns).map(|_| random.float() * 50.0).collect();
        let q = QuantizedRows::quantize(&x, columns);
        for r in 0..3 {
            assert_eq!(
                q.sum(r),
                q.row(r).iter().map(|&v| i32::from(v)).sum::<i32>()
            );
            for (&x, &q8) in x[r * columns..].iter().zip(q.row(r)) {
                assert!((x - f32::from(q8) * q.scale(r)).abs() <= q.scale(r) * 0.5001);
            }
        }
    }
}

#[test]
fn rows_of_zeros_and_non_finite_rows_are_defined() {
    let mut x = vec![0.0; 40];
    x[12] = f32::NAN;
    x[25] = f32::INFINITY;
    x[30] = 1e-42;
    let q = QuantizedRows::quantize(&x, 10);
    assert_eq!(q.scale(0), 0.0);
    assert!(q.scale(1).is_nan() && q.scale(2).is_nan());
    assert!(q.scale(3).is_finite());
    let case = Case::new(pq(8), 9, 10, 0, false);
    let weights = case.weights(true);
    let mut y = vec![0.0; 4 * 9];
    for isa in Isa::available() {
        super::linear_int8(isa, Threads(1), &weights, &q, &mut y);
        assert!(y[9..27].iter().all(|v| v.is_nan()));
        assert!(
            y[..9]
                .iter()
                .zip(weights.bias.unwrap())
                .all(|(a, b)| a == b)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_shape_equals_the_reference(
        kind in 0..KINDS.len(), out in 1usize..200, columns in 1usize..150,
        rows in 1usize..10, seed in any::<u64>(), extreme in any::<bool>(),
    ) {
        check(&Case::new(KINDS[kind], out, columns, seed, extreme), rows, seed);
    }
}
