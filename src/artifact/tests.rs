//! Limits that take a file too large for the tests of hostile files, which see only what is public.

use xxhash_rust::xxh3::xxh3_64;

use super::Artifact;
use super::limits::{MAX_SECTIONS, MAX_TENSORS};
use super::v1::{self, FlaggedRecord, Header, Record, SectionEntry, TensorEntry};
use crate::error::ErrorKind;

/// Opens a file of this header and nothing else.
fn open(header: &Header) -> crate::Error {
    let header = v1::encode(header).unwrap();
    let mut file = v1::MAGIC.to_vec();
    file.extend_from_slice(&v1::VERSION.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&(header.len() as u64).to_le_bytes());
    file.extend_from_slice(&xxh3_64(&header).to_le_bytes());
    file.extend_from_slice(&((v1::PREAMBLE + header.len()) as u64).to_le_bytes());
    file.resize(v1::PREAMBLE, 0);
    file.extend_from_slice(&header);
    Artifact::from_bytes(&file).unwrap_err()
}

fn header(tensors: usize, sections: usize) -> Header {
    let record = Record {
        id: 1,
        body: Vec::new(),
    };
    let tensor = TensorEntry {
        name: String::new(),
        group: 6,
        shape: Vec::new(),
        layout: record.clone(),
        scheme: record.clone(),
    };
    let section = SectionEntry {
        kind: 1,
        flags: 0,
        offset: 0,
        length: 0,
        checksum: 0,
    };
    Header {
        model: record,
        tensors: vec![tensor; tensors],
        sections: vec![section; sections],
        records: Vec::<FlaggedRecord>::new(),
    }
}

#[test]
fn table_limits() {
    let limits = "the limits are 131072 and 262144";
    for (tensors, sections) in [(MAX_TENSORS + 1, 0), (0, MAX_SECTIONS + 1)] {
        let error = open(&header(tensors, sections));
        assert_eq!(error.kind(), ErrorKind::Format);
        let counts = format!("{tensors} tensors and {sections} sections; {limits}");
        assert_eq!(error.to_string(), counts);
    }
    // At the limits it is the entries that are refused, not their number.
    let error = open(&header(MAX_TENSORS, 0)).to_string();
    assert!(error.contains("a name of 0 bytes"), "{error}");
    let error = open(&header(0, MAX_SECTIONS)).to_string();
    assert!(error.contains("section 0: starts at 0"), "{error}");
}
