//! Rules 23 to 30: the parameters of schemes, and values.

use half::f16;

use crate::build::{Model, Scheme, TILES};
use crate::check::{accept, malformed};
use crate::valid::names::{
    BIAS, F16, F32, INT4, INT4_FULL, INT8, INT8_FULL, INT8_ROWS, PQ, PQ_ROWS, PQ_SMALL,
};
use crate::valid::{named, valid};

/// Gives a PQ tensor another block size, with codes and codebook of the right length for it.
fn reblock(m: &mut Model, tensor: &str, block: u32) {
    let [rows, columns] = m.tensor(tensor).shape[..] else {
        panic!("{tensor} is a vector");
    };
    let pq = m.pq(tensor);
    pq.block = block;
    let (codes, codebook, entries) = (pq.codes, pq.codebook, pq.centroids * block);
    let units = columns.div_ceil(u64::from(block.max(1)));
    m.bytes(codes).resize((rows * units) as usize, 0);
    m.bytes(codebook).resize(entries as usize, 1);
}

#[test]
fn block_of_zero() {
    let words = [&*named(PQ), "block size 0; the limits are 1 and 64"];
    malformed("0", |m| m.pq(PQ).block = 0, &words);
    accept("1", |m| reblock(m, PQ, 1));
}

#[test]
fn block_too_large() {
    for block in [65, 256, u32::MAX] {
        let size = format!("block size {block}; the limits are 1 and 64");
        malformed("large", |m| m.pq(PQ).block = block, &[&named(PQ), &size]);
    }
    let words = [&*named(PQ), "block size 65"];
    malformed("65, all there", |m| reblock(m, PQ, 65), &words);
    accept("64", |m| reblock(m, PQ, 64));
}

/// Gives a PQ tensor with an `int8` codebook another number of centroids and zeros for codes.
fn recount(m: &mut Model, tensor: &str, centroids: u32) {
    let pq = m.pq(tensor);
    pq.centroids = centroids;
    let (codes, codebook, entries) = (pq.codes, pq.codebook, centroids * pq.block);
    m.bytes(codes).fill(0);
    m.bytes(codebook).resize(entries as usize, 1);
}

#[test]
fn centroids_of_zero() {
    let words = [&*named(PQ), "0 centroids; the limits are 2 and 256"];
    malformed("0", |m| m.pq(PQ).centroids = 0, &words);
}

#[test]
fn centroids_of_one() {
    let words = [&*named(PQ), "1 centroids; the limits are 2 and 256"];
    malformed("1", |m| recount(m, PQ, 1), &words);
    accept("2", |m| recount(m, PQ, 2));
}

#[test]
fn centroids_too_many() {
    let words = [&*named(PQ), "257 centroids; the limits are 2 and 256"];
    malformed("257", |m| recount(m, PQ, 257), &words);
    for centroids in [65_536, u32::MAX] {
        let many = format!("{centroids} centroids; the limits are 2 and 256");
        let change = |m: &mut Model| m.pq(PQ).centroids = centroids;
        malformed("many", change, &[&named(PQ), &many]);
    }
}

#[test]
fn code_beyond_codebook() {
    for (tensor, centroids) in [(PQ_ROWS, 16), (PQ_SMALL, 7)] {
        let last = valid().values(tensor).len() - 1;
        for (at, code) in [(0, centroids), (last, centroids), (last / 2, 255)] {
            let value = format!("value {at}: code {code} in a codebook of {centroids} centroids");
            let change = |m: &mut Model| m.values(tensor)[at] = code;
            malformed("a code", change, &[&named(tensor), &value]);
        }
        accept("the last centroid", |m| {
            m.values(tensor)[last] = centroids - 1
        });
    }
    accept("256 centroids", |m| m.values(PQ)[0] = 255);
    let words = [&*named(PQ), "code 255 in a codebook of 255 centroids"];
    let change = |m: &mut Model| {
        recount(m, PQ, 255);
        m.values(PQ)[3] = 255;
    };
    malformed("255 centroids", change, &words);
}

/// Sets the scale of a tensor, whichever scheme it has.
fn rescale(m: &mut Model, tensor: &str, scale: f32) {
    match &mut m.tensor(tensor).scheme {
        Scheme::Pq(pq) => pq.codebook_scale = scale,
        Scheme::Scalar(scalar) => scalar.scale = scale,
        _ => panic!("{tensor} has no scale"),
    }
}

#[test]
fn scale_not_finite() {
    for tensor in [PQ, INT8, INT4] {
        for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let shown = format!("the scale {scale} is not a normal number above zero");
            let words = [&*named(tensor), &shown];
            malformed("a scale", |m| rescale(m, tensor, scale), &words);
        }
    }
}

#[test]
fn scale_of_zero() {
    for tensor in [PQ, INT8, INT4] {
        let smallest = f32::MIN_POSITIVE;
        for scale in [0.0, -0.0, smallest / 2.0, -smallest, -1.0] {
            let words = [&*named(tensor), "is not a normal number above zero"];
            malformed("a scale", |m| rescale(m, tensor, scale), &words);
        }
        accept("the smallest", |m| rescale(m, tensor, smallest));
        accept("the largest", |m| rescale(m, tensor, f32::MAX));
    }
}

#[test]
fn f16_codebook_with_scale() {
    for scale in [0.0, 0.5, 1.0 + f32::EPSILON, -1.0, f32::NAN, f32::INFINITY] {
        let shown = format!("the scale of an f16 codebook is 1, not {scale}");
        let words = [&*named(PQ_ROWS), &shown];
        malformed("a scale", |m| rescale(m, PQ_ROWS, scale), &words);
    }
}

fn halves(m: &mut Model, section: u32, at: usize, value: f16) {
    m.bytes(section)[2 * at..2 * at + 2].copy_from_slice(&value.to_le_bytes());
}

fn row_scale(m: &mut Model, tensor: &str, at: usize, value: f16) {
    let section = match &m.tensor(tensor).scheme {
        Scheme::Pq(pq) => pq.row_scale,
        Scheme::Scalar(scalar) => scalar.row_scale,
        _ => panic!("{tensor} has no row scales"),
    };
    halves(m, section, at, value);
}

#[test]
fn row_scale_not_finite() {
    for tensor in [PQ, INT8_FULL, INT4_FULL] {
        for value in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
            for at in [0, 8] {
                let shown = format!("value {at}: {value} is not finite");
                let change = |m: &mut Model| row_scale(m, tensor, at, value);
                malformed("a factor", change, &[&named(tensor), &shown]);
            }
        }
        accept("the largest", |m| row_scale(m, tensor, 0, f16::MAX));
        // Of a batch norm, say.
        accept("a negative one", |m| row_scale(m, tensor, 8, f16::NEG_ONE));
    }
}

#[test]
fn centroid_of_minus_128() {
    let words = "-128 is outside the range of -127 to 127";
    for at in [0, 1023] {
        let value = format!("value {at}: {words}");
        let change = |m: &mut Model| {
            let codebook = m.pq(PQ).codebook;
            m.bytes(codebook)[at] = 0x80;
        };
        malformed("a centroid", change, &[&named(PQ), &value]);
    }
}

#[test]
fn int8_value_of_minus_128() {
    let words = "-128 is outside the range of -127 to 127";
    for tensor in [INT8, INT8_ROWS, "layers.1.ffn.up.weight"] {
        // Unit by unit, the first value of each is never padding.
        let last = valid().values(tensor).len() - 1;
        let step = if valid().tensor(tensor).layout.0 == TILES {
            8
        } else {
            1
        };
        for at in [0, last / step * step] {
            let value = format!("value {at}: {words}");
            let change = |m: &mut Model| m.values(tensor)[at] = 0x80;
            malformed("a value", change, &[&named(tensor), &value]);
        }
    }
}

#[test]
fn zero_point_out_of_range() {
    let cases = [
        (INT8, -127, 127, [-128, 128, i32::MIN, 256]),
        (INT4, 0, 15, [-1, 16, i32::MAX, -256]),
    ];
    for (tensor, low, high, wrong) in cases {
        for zero in wrong {
            let shown = format!("zero point {zero} is outside {low}..={high}");
            let change = |m: &mut Model| m.scalar(tensor).zero_point = zero;
            malformed("a tensor's", change, &[&named(tensor), &shown]);
        }
        for zero in [low, high] {
            accept("a limit", |m| m.scalar(tensor).zero_point = zero);
        }
    }
    for (tensor, wrong) in [
        (INT8_FULL, &[-128i8][..]),
        (INT4_FULL, &[-1, 16, 127, -128]),
    ] {
        for &zero in wrong {
            for row in [0, 8] {
                let shown = format!("value {row}: zero point {zero} is outside");
                let change = |m: &mut Model| {
                    let section = m.scalar(tensor).zero_points;
                    m.bytes(section)[row] = zero as u8;
                };
                malformed("a row's", change, &[&named(tensor), &shown]);
            }
        }
    }
    // Zero points that int8 may have and int4 may not, in one section for both.
    let change = |m: &mut Model| {
        let section = m.scalar(INT8_FULL).zero_points;
        m.bytes(section)[0] = 16;
        let other = m.scalar("layers.1.attention.value.weight");
        let mine = std::mem::replace(&mut other.zero_points, section);
        m.sections[mine as usize].kind = 4001;
        m.sections[mine as usize].flags = 1;
    };
    let words = [&*named("layers.1.attention.value.weight"), "zero point 16"];
    malformed("a shared section", change, &words);
}

#[test]
fn zero_point_twice() {
    for tensor in [INT8_FULL, INT4_FULL] {
        for zero in [1, 5, -1] {
            let words = [
                &*named(tensor),
                "a zero point for the tensor and for its rows",
            ];
            let change = |m: &mut Model| m.scalar(tensor).zero_point = zero;
            malformed("both", change, &words);
        }
    }
}

#[test]
fn value_not_finite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (tensor, last) in [(F32, 80), (BIAS, 8)] {
            for at in [0, last] {
                let shown = format!("value {at}: {value} is not finite");
                let change = |m: &mut Model| {
                    let to = &mut m.values(tensor)[4 * at..4 * at + 4];
                    to.copy_from_slice(&value.to_le_bytes());
                };
                malformed("f32", change, &[&named(tensor), &shown]);
            }
        }
    }
    for value in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
        for at in [0, 63] {
            let shown = format!("value {at}: {value} is not finite");
            let change = |m: &mut Model| {
                let section = m.tensor(F16).scheme.values();
                halves(m, section, at, value);
            };
            malformed("f16", change, &[&named(F16), &shown]);
            let change = |m: &mut Model| {
                let section = m.pq(PQ_ROWS).codebook;
                halves(m, section, at, value);
            };
            malformed("a centroid", change, &[&named(PQ_ROWS), &shown]);
        }
    }
}

#[test]
fn int8_padding_set() {
    // 9 columns: the second unit of a row has one value and seven of padding. The weight of 67
    // rows has two tiles, the second one of 3 rows.
    for (tensor, rows) in [(INT8, 9), ("layers.1.ffn.up.weight", 67)] {
        let tiles: &[(usize, usize)] = if rows == 9 {
            &[(0, 9)]
        } else {
            &[(0, 64), (64, 3)]
        };
        for &(first, width) in tiles {
            for (o, i) in [(0, 1), (0, 7), (width - 1, 1), (width - 1, 7)] {
                let unit = first * 2 + width + o;
                let shown = format!("value {}: padding is not zero", 8 * unit);
                let change = |m: &mut Model| {
                    assert_eq!(m.values(tensor)[8 * unit + i], 0);
                    m.values(tensor)[8 * unit + i] = 1;
                };
                malformed("a value", change, &[&named(tensor), &shown]);
            }
        }
    }
}

#[test]
fn int4_padding_set() {
    // 67 columns in tiles: 34 units a row, 9 rows; 9 columns in rows: 5 bytes a row, 16 rows.
    let tiles = [33 * 9, 33 * 9 + 8].map(|at| (INT4, at));
    let rows = [4, 79].map(|at| (INT4_FULL, at));
    for (tensor, at) in tiles.into_iter().chain(rows) {
        let shown = format!("value {at}: padding is not zero");
        let change = |m: &mut Model| {
            assert_eq!(m.values(tensor)[at] >> 4, 0);
            m.values(tensor)[at] |= 0x10;
        };
        malformed("a nibble", change, &[&named(tensor), &shown]);
    }
}
