//! Rules 11 to 16 and 32 to 34: the header's structures, unknown ids, the sections without tensors.

use centroid::ErrorKind;

use crate::build::{Model, Record, Scheme, Section};
use crate::check::{accept, malformed, open, refuse, reject, says};
use crate::valid::{pairs, strings, valid};

#[test]
fn header_has_more_bytes() {
    for count in [1, 8, 40] {
        let words = format!("the header has {count} bytes after its end");
        malformed("zeros", |m| m.tail = vec![0; count], &[&words]);
    }
}

#[test]
fn huge_counts() {
    let whole = valid().encode();
    assert!(whole.counts.len() > 150, "{}", whole.counts.len());
    for &at in &whole.counts {
        let left = (64 + whole.header - at - 8) as u64;
        let counts = [left + 1, 1 << 20, 1 << 32, 1 << 61, u64::MAX];
        for count in counts {
            let mut file = whole.clone();
            file.set_u64(at, count);
            file.repair_header();
            let error = open(&file.bytes).err();
            let error = error.unwrap_or_else(|| panic!("{count} at {at}: accepted"));
            let message = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Format, "{message}");
            assert!(
                message.contains("the header cannot be decoded"),
                "{message}"
            );
        }
    }
    // Counts that are wrong by any power of two, in headers of any length.
    for filler in [0, 1 << 10, 1 << 14, 1 << 18, 1 << 21] {
        let mut model = valid();
        model.tensors.clear();
        model.sections.clear();
        model.records.truncate(1);
        model.records[0] = Record {
            id: 4001,
            flags: 1,
            body: vec![0; filler],
        };
        let whole = model.encode();
        open(&whole.bytes).unwrap();
        // Of tensors, sections and records.
        for (&at, shift) in whole.counts[1..4]
            .iter()
            .flat_map(|at| (1..40).map(move |s| (at, s)))
        {
            let mut file = whole.clone();
            file.set_u64(at, 1 << shift);
            file.repair_header();
            assert!(open(&file.bytes).is_err(), "2^{shift} at {at}: accepted");
        }
    }
    // The two vectors outside the header, and the strings in them.
    for count in [1u64 << 20, 1 << 32, 1 << 61, u64::MAX] {
        for at in [0, 8] {
            let change =
                |bytes: &mut Vec<u8>| bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            malformed(
                "labels",
                |m| change(&mut m.only(17).bytes),
                &["the labels section cannot be decoded"],
            );
            malformed(
                "provenance",
                |m| change(&mut m.records[0].body),
                &["the provenance record cannot be decoded"],
            );
        }
    }
}

#[test]
fn wrong_section_checksum() {
    let whole = valid().encode();
    for (index, section) in whole.sections.iter().enumerate() {
        let words = ["the section of", "does not match its checksum"];
        for at in [section.start, section.end - 1] {
            let mut file = whole.clone();
            file.bytes[at] ^= 1;
            refuse("a value", &file.bytes, ErrorKind::Checksum, &words);
        }
        let mut file = whole.clone();
        let at = file.entry(index) + 24;
        file.set_u64(at, file.u64_at(at) ^ 1 << 63);
        file.repair_header();
        refuse("a checksum", &file.bytes, ErrorKind::Checksum, &words);
    }
}

#[test]
fn flags_reserved() {
    for bit in 1..32 {
        let words = format!("reserved flag bits are set ({:#x})", 1u32 << bit);
        malformed("a section", |m| m.sections[3].flags = 1 << bit, &[&words]);
        malformed("a record", |m| m.records[0].flags = 1 << bit, &[&words]);
        let words = format!("reserved flag bits are set ({:#x})", 1u32 << bit | 1);
        let optional = |flags: &mut u32| *flags |= 1 << bit;
        let section = |m: &mut Model| optional(&mut m.only(4000).flags);
        malformed("an unknown section", section, &[&words]);
        malformed("a record", |m| optional(&mut m.records[1].flags), &[&words]);
    }
}

#[test]
fn optional_unknown_is_skipped() {
    let artifact = accept("as it is", |m| {
        assert_eq!(m.only(4000).flags, 1);
        assert_eq!((m.records[1].id, m.records[1].flags), (4000, 1));
    });
    assert_eq!(artifact.labels().unwrap(), crate::valid::LABELS);
    let provenance = [("tool", "by hand"), ("seed", "1")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(artifact.provenance(), provenance);
    accept("optional and known", |m| {
        m.sections[3].flags = 1;
        m.records[0].flags = 1;
    });
    // Damage is damage, also where nobody looks.
    let mut file = valid().encode();
    let skipped = valid().sections.iter().position(|s| s.kind == 4000);
    file.bytes[file.sections[skipped.unwrap()].start] ^= 1;
    let words = ["the section of an unknown kind does not match its checksum"];
    refuse("a checksum", &file.bytes, ErrorKind::Checksum, &words);
}

#[test]
fn unknown_section_kind() {
    for kind in [0, 10, 19, 4000, u32::MAX] {
        let index = valid().sections.len() - 2;
        let words = format!("section {index}: unknown section kind {kind}");
        let change = |m: &mut Model| {
            m.sections[index].kind = kind;
            m.sections[index].flags = 0;
        };
        reject("a kind", change, ErrorKind::Unsupported, &[&words]);
    }
    let words = [
        "tensor layers.0.attention.query.weight: section",
        "unknown kind",
    ];
    let change = |m: &mut Model| {
        let codes = m.pq("layers.0.attention.query.weight").codes as usize;
        m.sections[codes].kind = 4001;
        m.sections[codes].flags = 1;
    };
    malformed("an optional one in use", change, &words);
}

#[test]
fn unknown_record() {
    for id in [0, 2, 4000, u32::MAX] {
        let words = format!("record 1: unknown record id {id}");
        let change = |m: &mut Model| {
            m.records[1].id = id;
            m.records[1].flags = 0;
        };
        reject("a record", change, ErrorKind::Unsupported, &[&words]);
    }
}

const NAME: &str = "layers.1.attention.query.weight";

#[test]
fn unknown_scheme() {
    for id in [0, 7, u32::MAX] {
        let words = format!("tensor {NAME}: unknown scheme {id}");
        let change = |m: &mut Model| {
            let tensor = m.tensor(NAME);
            tensor.scheme = Scheme::Raw(id, tensor.scheme.body());
        };
        reject("a scheme", change, ErrorKind::Unsupported, &[&words]);
    }
}

#[test]
fn unknown_layout() {
    for id in [0, 4, u32::MAX] {
        let words = format!("tensor {NAME}: unknown layout {id}");
        let change = |m: &mut Model| m.tensor(NAME).layout.0 = id;
        reject("a layout", change, ErrorKind::Unsupported, &[&words]);
    }
}

#[test]
fn unknown_group() {
    for id in [0, 12, u32::MAX] {
        let words = format!("tensor {NAME}: unknown group {id}");
        let change = |m: &mut Model| m.tensor(NAME).group = id;
        reject("a group", change, ErrorKind::Unsupported, &[&words]);
    }
}

#[test]
fn unknown_model_kind() {
    for id in [0, 3, u32::MAX] {
        let artifact = accept("a kind", |m| m.kind = id);
        let error = artifact.kind().unwrap_err();
        let words = format!("unknown model kind {id}");
        says("a kind", &error, ErrorKind::Unsupported, &[&words]);
    }
}

#[test]
fn unused_section() {
    for kind in 1..=9 {
        let change = |m: &mut Model| {
            let copy = m.sections.iter().find(|s| s.kind == kind).cloned();
            let end = m.sections.len() - 1;
            m.sections.insert(end, copy.unwrap());
        };
        let start = {
            let mut model = valid();
            change(&mut model);
            model.encode().sections[model.sections.len() - 2].start
        };
        let at = format!("(at byte {start})");
        malformed("a copy", change, &["nothing uses this section of", &at]);
    }
}

#[test]
fn tokenizer_twice() {
    for (kind, name) in [(16, "tokenizer.json"), (17, "labels")] {
        let change = |m: &mut Model| {
            let copy = m.only(kind).clone();
            m.sections.push(copy);
        };
        let words = format!("a second section of {name}");
        malformed("a copy", change, &[&words]);
    }
    let change = |m: &mut Model| {
        m.only(16).kind = 18;
        let copy = m.only(18).clone();
        m.sections.push(copy);
    };
    malformed("tables", change, &["a second section of tokenizer tables"]);
    // Neither has to be there.
    let artifact = accept("without", |m| m.sections.retain(|s| s.kind < 16));
    assert_eq!(artifact.tokenizer_bytes(), 0);
    assert_eq!(artifact.labels(), None);
}

#[test]
fn tokenizer_in_two_forms() {
    for first in [16, 18] {
        let change = |m: &mut Model| {
            let mut copy = m.only(16).clone();
            m.only(16).kind = first;
            copy.kind = 34 - first;
            m.sections.push(copy);
        };
        malformed("both", change, &["a tokenizer.json and tokenizer tables"]);
    }
}

fn cut(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() - 1);
}

#[test]
fn labels_have_more_bytes() {
    let words = ["the labels section has 1 bytes after its end"];
    malformed("a zero", |m| m.only(17).bytes.push(0), &words);
    let words = ["the labels section cannot be decoded"];
    malformed("short", |m| cut(&mut m.only(17).bytes), &words);
    let change = |m: &mut Model| m.only(17).bytes[16] = 0xff;
    malformed("not UTF-8", change, &words);
}

#[test]
fn provenance_twice() {
    let change = |m: &mut Model| {
        let copy = m.records[0].clone();
        m.records.push(copy);
    };
    malformed("a copy", change, &["a second provenance record"]);
    let artifact = accept("without", |m| m.records.clear());
    assert!(artifact.provenance().is_empty());
}

#[test]
fn provenance_has_more_bytes() {
    let words = ["the provenance record has 1 bytes after its end"];
    malformed("a zero", |m| m.records[0].body.push(0), &words);
    let words = ["the provenance record cannot be decoded"];
    malformed("short", |m| cut(&mut m.records[0].body), &words);
}

/// Names and labels are the attacker's; a message is one line of bounded length all the same.
#[test]
fn messages_are_one_short_line() {
    let name = "\x1b[2J\n".repeat(51);
    let mut model = valid();
    let tensor = model.tensor(NAME);
    tensor.name = name;
    tensor.group = 99;
    let error = open(&model.encode().bytes).unwrap_err().to_string();
    assert!(
        error.contains(r"\u{1b}[2J\n") && error.len() < 600,
        "{error}"
    );
    assert!(!error.contains(['\n', '\x1b']), "{error:?}");
}

/// Limits hold for what is really there too: the longest vectors that a length allows still open.
#[test]
fn many_small_items_open() {
    for count in [40, 500, 5_000, 60_000] {
        let empty = vec![""; count];
        let artifact = accept("labels", |m| m.only(17).bytes = strings(&empty));
        assert_eq!(artifact.labels().unwrap().len(), count);
        let artifact = accept("provenance", |m| {
            m.records[0].body = pairs(&vec![("", ""); count]);
        });
        assert_eq!(artifact.provenance().len(), count);
        accept("records", |m| {
            let empty = Record {
                id: 4001,
                flags: 1,
                body: Vec::new(),
            };
            m.records.resize(count, empty);
        });
        accept("sections", |m| {
            let one = Section {
                kind: 4001,
                flags: 1,
                bytes: vec![1],
            };
            m.sections.resize(m.sections.len() + count.min(5_000), one);
        });
        accept("tensors", |m| {
            let template = m.tensor(NAME).clone();
            m.tensors.extend((0..count).map(|i| {
                let mut tensor = template.clone();
                tensor.name = format!("{i}");
                tensor
            }));
        });
    }
}
