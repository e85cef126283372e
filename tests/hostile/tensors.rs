//! Rules 17 to 22 and 31: names, shapes, bodies and section numbers.

use crate::build::{Model, NONE, Pq, Scheme, Tensor};
use crate::check::{accept, malformed};
use crate::valid::names::{
    BIAS, F16, F32, INT4, INT4_FULL, INT8, INT8_FULL, INT8_ROWS, PQ, PQ_ROWS, PQ_SMALL,
};
use crate::valid::{named, valid};

#[test]
fn tensor_name_empty() {
    let words = ["tensor : a name of 0 bytes"];
    malformed("no name", |m| m.tensor(BIAS).name.clear(), &words);
    let words = ["a name of 257 bytes"];
    malformed("long", |m| m.tensor(BIAS).name = "n".repeat(257), &words);
    accept("256", |m| m.tensor(BIAS).name = "n".repeat(256));
}

#[test]
fn tensor_name_twice() {
    let change = |m: &mut Model| {
        let copy = m.tensor(BIAS).clone();
        m.tensors.push(copy);
    };
    let words = [&*named(BIAS), "a second tensor of this name"];
    malformed("a copy", change, &words);
}

#[test]
fn zero_dimension() {
    for (tensor, shape) in [
        (BIAS, vec![0]),
        (F32, vec![0, 9]),
        (PQ, vec![9, 0]),
        (INT8, vec![0, 0]),
        (INT4_FULL, vec![16, 0]),
    ] {
        let words = [&*named(tensor), "is outside 1 to"];
        malformed("a zero", |m| m.tensor(tensor).shape = shape.clone(), &words);
    }
}

#[test]
fn shape_too_large() {
    for (tensor, shape) in [
        (BIAS, vec![65_537]),
        (BIAS, vec![u64::MAX]),
        (F32, vec![9, 65_537]),
        (F16, vec![16_777_217, 9]),
        (PQ_ROWS, vec![1 << 63, 2]),
        (INT8, vec![1 << 32, 1 << 32]),
        (INT4, vec![u64::MAX, u64::MAX]),
    ] {
        let shown = format!("shape {shape:?} is outside 1 to 16777216 rows and 1 to 65536 columns");
        let words = [&*named(tensor), &shown];
        malformed("large", |m| m.tensor(tensor).shape = shape.clone(), &words);
    }
    // The limits themselves, with all their bytes.
    accept("columns", |m| {
        *m.values(F16) = vec![0; 2 * 65_536 * 2];
        m.tensor(F16).shape = vec![2, 65_536];
    });
    accept("rows", |m| {
        *m.values(INT8_ROWS) = vec![1; 16_777_216];
        m.tensor(INT8_ROWS).shape = vec![16_777_216, 1];
    });
}

#[test]
fn wrong_rank() {
    for (tensor, shape) in [
        (BIAS, vec![]),
        (BIAS, vec![1, 9]),
        (F32, vec![81]),
        (PQ, vec![9, 9, 1]),
        (PQ_ROWS, vec![40]),
        (INT4_FULL, vec![1; 1000]),
    ] {
        let rank = format!("cannot have {} dimensions", shape.len());
        let words = [&*named(tensor), &rank];
        malformed("a rank", |m| m.tensor(tensor).shape = shape.clone(), &words);
    }
}

#[test]
fn layout_body() {
    for tensor in [BIAS, PQ, PQ_ROWS] {
        for count in [1, 16] {
            let given = format!("has no parameters, yet {count} bytes are given");
            let words = [&*named(tensor), &given];
            let change = |m: &mut Model| m.tensor(tensor).layout.1 = vec![0; count];
            malformed("a body", change, &words);
        }
    }
}

#[test]
fn vector_as_pq() {
    for (like, scheme) in [(PQ_SMALL, "pq"), (INT8_ROWS, "int8"), (INT4, "int4")] {
        let change = |m: &mut Model| {
            // One row of everything, so that nothing but the layout is wrong with it.
            let mut vector = m.tensor(like).clone();
            let columns = vector.shape[1];
            vector.shape = vec![columns];
            vector.layout.0 = 1;
            let units = match &vector.scheme {
                Scheme::Pq(pq) => columns.div_ceil(u64::from(pq.block)),
                Scheme::Scalar(scalar) if scalar.id == 5 => columns.div_ceil(2),
                _ => columns,
            };
            m.values(like).truncate(units as usize);
            if like == INT4 {
                *m.values(like).last_mut().unwrap() = 0;
            }
            *m.tensor(like) = vector;
        };
        let stored = format!("a vector cannot be stored as {scheme}");
        malformed("a vector", change, &[&named(like), &stored]);
    }
}

#[test]
fn scheme_body_too_short() {
    for tensor in [F32, F16, PQ, PQ_ROWS, INT8, INT4] {
        for left in [0, 3] {
            let change = |m: &mut Model| {
                let scheme = &mut m.tensor(tensor).scheme;
                let body = scheme.body();
                let keep = if left == 0 { 0 } else { body.len() - 1 };
                *scheme = Scheme::Raw(scheme.id(), body[..keep].to_vec());
            };
            let words = [&*named(tensor), "the scheme's parameters cannot be decoded"];
            malformed("cut", change, &words);
        }
    }
}

#[test]
fn scheme_body_too_long() {
    for tensor in [F32, F16, PQ, PQ_ROWS, INT8, INT4] {
        for more in [1, 4] {
            let change = |m: &mut Model| {
                let scheme = &mut m.tensor(tensor).scheme;
                let mut body = scheme.body();
                body.resize(body.len() + more, 0);
                *scheme = Scheme::Raw(scheme.id(), body);
            };
            let after = format!("the scheme's parameters has {more} bytes after its end");
            malformed("longer", change, &[&named(tensor), &after]);
        }
    }
}

/// Every field that holds a section number: the tensor, the field's offset in the body, and
/// whether it may be `none`.
const FIELDS: [(&str, usize, bool); 9] = [
    (F32, 0, false),
    (F16, 0, false),
    (PQ, 8, false),
    (PQ, 12, false),
    (PQ, 20, true),
    (INT8_FULL, 0, false),
    (INT8_FULL, 8, true),
    (INT8_FULL, 16, true),
    (INT4_FULL, 0, false),
];

fn point(m: &mut Model, tensor: &str, field: usize, section: u32) {
    let scheme = &mut m.tensor(tensor).scheme;
    let mut body = scheme.body();
    body[field..field + 4].copy_from_slice(&section.to_le_bytes());
    *scheme = Scheme::Raw(scheme.id(), body);
}

fn pointed(m: &mut Model, tensor: &str, field: usize) -> u32 {
    let body = m.tensor(tensor).scheme.body();
    u32::from_le_bytes(body[field..field + 4].try_into().unwrap())
}

#[test]
fn section_number_out_of_range() {
    let sections = valid().sections.len() as u32;
    for (tensor, field, optional) in FIELDS {
        for number in [sections, sections + 1, NONE - 1, NONE] {
            if optional && number == NONE {
                continue;
            }
            let missing = format!("section {number} does not exist");
            let words = [&*named(tensor), &missing, &format!("there are {sections}")];
            malformed("a number", |m| point(m, tensor, field, number), &words);
        }
    }
}

#[test]
fn section_of_wrong_kind() {
    for (tensor, field, _) in FIELDS {
        // Of the right length, but of another kind: the first one that is neither it nor, where
        // a codebook belongs, another codebook.
        let index = pointed(&mut valid(), tensor, field);
        let words = [&*named(tensor), &format!("section {index} holds"), "belong"];
        for kind in [1, 6, 9, 16, 17] {
            let change = |m: &mut Model| m.sections[index as usize].kind = kind;
            if valid().sections[index as usize].kind != kind {
                malformed("a kind", change, &words);
            }
        }
    }
}

#[test]
fn section_of_wrong_length() {
    for (tensor, field, _) in FIELDS {
        let index = pointed(&mut valid(), tensor, field);
        let length = valid().sections[index as usize].bytes.len();
        for wrong in [length - 1, length - 4, length + 1, length + 4, 2 * length] {
            let has = format!("section {index} has {wrong} bytes of");
            let asks = format!("where the shape asks for {length}");
            let change = |m: &mut Model| m.bytes(index).resize(wrong, 0);
            malformed("a length", change, &[&named(tensor), &has, &asks]);
        }
    }
}

#[test]
fn shared_section_disagrees() {
    let share = |name: &'static str, change: fn(&mut Tensor)| {
        move |m: &mut Model| {
            let mut copy = m.tensor(name).clone();
            copy.name = "copy".to_owned();
            change(&mut copy);
            m.tensors.push(copy);
        }
    };
    accept("agreeing", share(PQ_SMALL, |_| {}));
    let words = ["tensor copy: shares section", "another shape or scheme"];
    malformed("layout", share(PQ_SMALL, |t| t.layout.0 = 2), &words);
    malformed("shape", share(PQ_SMALL, |t| t.shape = vec![27, 3]), &words);
    malformed("shape", share(F32, |t| t.shape = vec![27, 3]), &words);
    let layout = share(BIAS, |t| (t.layout.0, t.shape) = (2, vec![1, 9]));
    malformed("layout", layout, &words);
    for name in [PQ, INT8, INT4] {
        let scale = share(name, |t| match &mut t.scheme {
            Scheme::Pq(pq) => pq.codebook_scale = 0.5,
            Scheme::Scalar(scalar) => scalar.scale = 0.5,
            _ => {}
        });
        malformed("scale", scale, &words);
    }
    let zero = share(INT8, |t| {
        if let Scheme::Scalar(scalar) = &mut t.scheme {
            scalar.zero_point = 3;
        }
    });
    malformed("zero point", zero, &words);
    // The one that matters most: codes that were checked against a longer codebook.
    let shorter = |m: &mut Model| {
        share(PQ, |_| {})(m);
        let short = m.pq(PQ_SMALL).codebook;
        let pq = m.pq("copy");
        (pq.block, pq.centroids, pq.codebook) = (4, 5, short);
        m.bytes(short).resize(20, 1);
        let small = m.pq(PQ_SMALL);
        small.centroids = 5;
        small.block = 4;
        let codes = small.codes;
        m.bytes(codes).fill(0);
    };
    malformed("codebook", shorter, &words);
}

/// Gives `tensor` so many codebooks, all like the one it has.
fn split(m: &mut Model, tensor: &str, codebooks: u32) {
    let pq = m.pq(tensor).clone();
    let codebook = m.bytes(pq.codebook);
    *codebook = codebook.repeat(codebooks.max(1) as usize);
    m.tensor(tensor).scheme = several(&pq, codebooks);
}

fn several(pq: &Pq, codebooks: u32) -> Scheme {
    let body = [
        pq.block.to_le_bytes(),
        codebooks.to_le_bytes(),
        pq.centroids.to_le_bytes(),
        pq.codes.to_le_bytes(),
        pq.codebook.to_le_bytes(),
        pq.codebook_scale.to_le_bytes(),
        pq.row_scale.to_le_bytes(),
    ];
    Scheme::Raw(6, body.concat())
}

#[test]
fn codebooks_do_not_divide() {
    let blocks = 3;
    for codebooks in [0, 2, 4, 6] {
        let shown = format!("{codebooks} codebooks do not divide the {blocks} blocks of a row");
        let change = |m: &mut Model| split(m, PQ_ROWS, codebooks);
        malformed("codebooks", change, &[&named(PQ_ROWS), &shown]);
    }
    // Without their bytes.
    for codebooks in [u32::MAX, 3] {
        let change = |m: &mut Model| {
            let pq = m.pq(PQ_ROWS).clone();
            m.tensor(PQ_ROWS).scheme = several(&pq, codebooks);
        };
        malformed("codebooks", change, &[&named(PQ_ROWS)]);
    }
    for codebooks in [1, 3] {
        let artifact = accept("codebooks", |m| split(m, PQ_ROWS, codebooks));
        let info = artifact.tensors().find(|t| t.name == PQ_ROWS).unwrap();
        assert_eq!(info.pq.unwrap().codebooks, codebooks as usize);
    }
}

#[test]
fn several_codebooks_in_tiles() {
    let change = |m: &mut Model| split(m, PQ, 2);
    let words = [&*named(PQ), "tiles cannot have several codebooks"];
    malformed("codebooks", change, &words);
}

/// Centroids that stand in another order in the codebook of each block, under other codes.
#[cfg(feature = "text")]
#[test]
fn each_block_is_looked_up_in_its_own_codebook() {
    use centroid::{Options, TextClassifier};

    let classify = |artifact| {
        let model = TextClassifier::new(artifact, Options::new().threads(1)).unwrap();
        let found = model.classify(&["a b c", "some other words"]).unwrap();
        let logits = found
            .iter()
            .flat_map(|f| f.labels.iter().map(|l| l.logit.to_bits()));
        logits.collect::<Vec<u32>>()
    };
    let changed = |codebooks: usize| {
        accept("codebooks", |m| {
            let pq = m.pq(PQ_ROWS).clone();
            let (k, each) = (pq.centroids as usize, 2 * pq.block as usize);
            let codebook = m.bytes(pq.codebook).clone();
            let of = |book: usize| (0..k).map(move |number| (number + k - book) % k);
            let centroid = |number: usize| codebook[number * each..][..each].to_vec();
            let all = (0..codebooks).flat_map(of).flat_map(centroid);
            *m.bytes(pq.codebook) = all.collect();
            for (place, code) in m.bytes(pq.codes).iter_mut().enumerate() {
                let book = place % 3 * codebooks / 3;
                *code = ((usize::from(*code) + book) % k) as u8;
            }
            m.tensor(PQ_ROWS).scheme = several(&pq, codebooks as u32);
        })
    };
    let plain = classify(accept("as it is", |_| ()));
    for codebooks in [1, 3] {
        assert_eq!(classify(changed(codebooks)), plain, "{codebooks}");
    }
}
