//! Rules 1 to 10: preamble, places, padding.

use centroid::ErrorKind;

use crate::build::{ALIGN, File, Record, Section};
use crate::check::{malformed, open, patched, refuse};
use crate::valid::valid;

#[test]
fn section_misplaced() {
    for by in [1, 4, 64, -64i64] {
        let change = |file: &mut File| {
            let at = file.entry(5) + 8;
            file.set_u64(at, file.u64_at(at).wrapping_add_signed(by));
        };
        patched("an offset", change, &["section 5: starts at", "and not at"]);
    }
    // A hole that is otherwise in order: zeros, and everything after it moved along.
    let mut file = valid().encode();
    let hole = file.sections[5].start;
    file.bytes.splice(hole..hole, [0; ALIGN]);
    for index in 5..file.sections.len() {
        let at = file.entry(index) + 8;
        file.set_u64(at, file.u64_at(at) + ALIGN as u64);
    }
    file.repair();
    let words = ["section 5: starts at", "and not at"];
    refuse("a hole", &file.bytes, ErrorKind::Format, &words);
}

#[test]
fn section_overlaps() {
    let change = |file: &mut File| {
        // The last section starts where the one before it does and ends where it did.
        let last = file.sections.len() - 1;
        let (entry, start) = (file.entry(last), file.sections[last - 1].start);
        file.set_u64(entry + 8, start as u64);
        file.set_u64(entry + 16, (file.bytes.len() - start) as u64);
    };
    patched("the last two", change, &["starts at", "and not at"]);
}

#[test]
fn section_empty() {
    let empty = |kind, flags| Section {
        kind,
        flags,
        bytes: Vec::new(),
    };
    malformed(
        "an optional one",
        |m| m.sections.insert(m.sections.len() - 1, empty(4001, 1)),
        &["is empty"],
    );
    malformed(
        "the tokenizer",
        |m| *m.only(16) = empty(16, 0),
        &["is empty"],
    );
}

#[test]
fn section_overflows() {
    let last = valid().sections.len() - 1;
    for more in [1, 1 << 40, u64::MAX / 2, u64::MAX] {
        let change = |file: &mut File| {
            let at = file.entry(last) + 16;
            file.set_u64(at, file.u64_at(at).saturating_add(more));
        };
        let section = format!("section {last}: its");
        patched("a length", change, &[&section, "beyond the end"]);
    }
}

#[test]
fn trailing_bytes() {
    for count in [1, 64, 1000] {
        let mut file = valid().encode();
        file.bytes.resize(file.bytes.len() + count, 0);
        let words = ["bytes where its preamble says"];
        refuse("as it is", &file.bytes, ErrorKind::Format, &words);
        file.repair();
        let words = format!("{count} bytes after the last section");
        refuse("repaired", &file.bytes, ErrorKind::Format, &[&words]);
    }
    // Without sections the file ends with its header.
    let mut model = valid();
    model.tensors.clear();
    model.sections.clear();
    let mut file = model.encode();
    open(&file.bytes).unwrap();
    file.bytes.push(0);
    file.repair();
    let words = ["1 bytes after the last section"];
    refuse("no sections", &file.bytes, ErrorKind::Format, &words);
}

#[test]
fn truncated_at_every_edge() {
    let whole = valid().encode();
    let head = ALIGN + whole.header;
    let edges = whole.sections.iter().flat_map(|s| [s.start, s.end]);
    let around = edges.flat_map(|e| [e - 1, e, e + 1]);
    let cuts: Vec<usize> = (0..=head + 1).chain(around).collect();
    for cut in cuts.into_iter().filter(|&cut| cut < whole.bytes.len()) {
        let error = open(&whole.bytes[..cut]).err();
        let error = error.unwrap_or_else(|| panic!("cut at {cut}: accepted"));
        assert_eq!(error.kind(), ErrorKind::Format, "cut at {cut}: {error}");
        if cut < ALIGN {
            continue;
        }
        // The same with the lengths and checksums of what is left.
        let mut file = whole.clone();
        file.bytes.truncate(cut);
        file.header = file.header.min(cut - ALIGN);
        file.set_u64(16, file.header as u64);
        if cut >= head {
            file.repair();
        } else {
            file.repair_header();
        }
        let error = open(&file.bytes).err();
        let error = error.unwrap_or_else(|| panic!("repaired cut at {cut}: accepted"));
        assert_eq!(error.kind(), ErrorKind::Format, "repaired {cut}: {error}");
    }
}

#[test]
fn padding_not_zero() {
    let file = valid().encode();
    let mut end = ALIGN + file.header;
    let mut gaps = 0;
    for section in &file.sections {
        for at in end..section.start {
            gaps += 1;
            let mut bytes = file.bytes.clone();
            bytes[at] = 0x80;
            let error = open(&bytes).err();
            let error = error.unwrap_or_else(|| panic!("byte {at}: accepted"));
            let message = "a reserved or padding byte is not zero";
            assert_eq!(error.to_string(), format!("{message} (at byte {at})"));
            assert_eq!(error.kind(), ErrorKind::Format);
        }
        end = section.end;
    }
    assert!(gaps > 1000, "{gaps} bytes of padding");
}

#[test]
fn wrong_magic() {
    let file = valid().encode();
    for at in 0..8 {
        let mut bytes = file.bytes.clone();
        bytes[at] ^= 0x20;
        let words = ["not a .centroid file (wrong magic) (at byte 0)"];
        refuse("one letter", &bytes, ErrorKind::Format, &words);
    }
    for other in [&b""[..], b"PK\x03\x04", b"GGUF", b"CENTROIX"] {
        let error = open(other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format, "{error}");
        assert!(error.to_string().contains("wrong magic"), "{error}");
    }
}

#[test]
fn wrong_version() {
    for version in [0u32, 2, 256, u32::MAX] {
        let mut file = valid().encode();
        file.bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let words = format!("format version {version};");
        refuse("a version", &file.bytes, ErrorKind::Unsupported, &[&words]);
    }
}

#[test]
fn reserved_bytes_set() {
    for at in (12..16).chain(40..64) {
        let mut file = valid().encode();
        file.bytes[at] = 1;
        let words = format!("reserved or padding byte is not zero (at byte {at})");
        refuse("a byte", &file.bytes, ErrorKind::Format, &[&words]);
    }
}

#[test]
fn header_too_long() {
    let whole = valid().encode();
    let beyond = (whole.bytes.len() - ALIGN) as u64 + 1;
    for length in [beyond, (16 << 20) + 1, u64::MAX - 63, u64::MAX] {
        let mut file = whole.clone();
        file.set_u64(16, length);
        let words = format!("a header of {length} bytes does not fit");
        refuse("a length", &file.bytes, ErrorKind::Format, &[&words]);
    }
    // A header that is really there and in order, but for its length.
    let filled = |to: usize| {
        let mut model = valid();
        model.records.push(Record {
            id: 4001,
            flags: 1,
            body: Vec::new(),
        });
        let body = vec![0; to - model.encode().header];
        model.records.last_mut().unwrap().body = body;
        model.encode()
    };
    open(&filled(16 << 20).bytes).expect("the limit itself");
    let words = ["a header of 16777217 bytes", "limit of 16777216"];
    let file = filled((16 << 20) + 1);
    refuse("one more", &file.bytes, ErrorKind::Format, &words);
}

#[test]
fn wrong_file_length() {
    let whole = valid().encode();
    let length = whole.bytes.len() as u64;
    for wrong in [0, length - 1, length + 1, length | 1 << 32, u64::MAX] {
        let mut file = whole.clone();
        file.set_u64(32, wrong);
        let words = format!("the file has {length} bytes where its preamble says {wrong}");
        refuse("a length", &file.bytes, ErrorKind::Format, &[&words]);
    }
}

#[test]
fn wrong_header_checksum() {
    for at in 24..32 {
        let mut file = valid().encode();
        file.bytes[at] ^= 1;
        let words = ["the header does not match its checksum"];
        refuse("a checksum", &file.bytes, ErrorKind::Checksum, &words);
    }
}
