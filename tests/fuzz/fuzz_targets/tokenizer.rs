//! Any bytes as the tokenizer of a small model, as tables or as JSON, and any text for it: an
//! answer or an error of one line; never a panic, a hang, or more memory than tools/fuzz allows.
//!
//! The first byte is the section's kind, 16 or 18; the text stands after the last 0xff of the rest.
#![no_main]

use centroid::{Artifact, Options, TextClassifier, Truncation};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64;

const MODEL: &[u8] = include_bytes!("../../data/golden/v1-every-scheme.centroid");

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else {
        return;
    };
    let kind = if kind == 16 { 16 } else { 18 };
    // 0xff is in no JSON and no UTF-8; tables often hold it, and then the text is their end.
    let (section, text) = match rest.iter().rposition(|&b| b == 0xff) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &b"Ab c\xc3\xa9!"[..]),
    };
    for section in [section, rest] {
        if !section.is_empty() {
            run(kind, section, &String::from_utf8_lossy(text));
        }
    }
});

fn run(kind: u32, section: &[u8], text: &str) {
    let artifact = Artifact::from_bytes(&with_tokenizer(kind, section)).unwrap();
    let options = Options::new().threads(1).truncation(Truncation::Truncate);
    match TextClassifier::new(artifact, options) {
        Ok(model) => {
            let texts = [text, "", "a b", "abc[SEP] \u{4f60}\u{301}'s <s>"];
            model.classify(&texts).err().iter().for_each(check);
            let pair = [(text, "a b")];
            model.classify_pairs(&pair).err().iter().for_each(check);
        }
        Err(error) => check(&error),
    }
}

fn check(error: &centroid::Error) {
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message:?}");
}

/// [`MODEL`] with this section for its tokenizer, and all that follows from it made right.
fn with_tokenizer(kind: u32, section: &[u8]) -> Vec<u8> {
    let header = u64_at(MODEL, 16) as usize;
    let mut bytes = MODEL[..64 + header].to_vec();
    let mut at = 64 + 4;
    at += 8 + u64_at(MODEL, at) as usize;
    let tensors = u64_at(MODEL, at);
    at += 8;
    for _ in 0..tensors {
        at += 8 + u64_at(MODEL, at) as usize + 4; // name, group
        at += 8 + 8 * u64_at(MODEL, at) as usize + 4; // shape, layout
        at += 8 + u64_at(MODEL, at) as usize + 4; // its body, scheme
        at += 8 + u64_at(MODEL, at) as usize;
    }
    let sections = u64_at(MODEL, at) as usize;
    at += 8;
    for entry in (0..sections).map(|i| at + 32 * i) {
        let (start, length) = (u64_at(MODEL, entry + 8), u64_at(MODEL, entry + 16));
        let mut content = &MODEL[start as usize..(start + length) as usize];
        if MODEL[entry] == 16 && MODEL[entry + 1] == 0 {
            content = section;
            bytes[entry..entry + 4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        let offset = bytes.len() as u64;
        put(&mut bytes, entry + 8, offset);
        put(&mut bytes, entry + 16, content.len() as u64);
        put(&mut bytes, entry + 24, xxh3_64(content));
        bytes.extend_from_slice(content);
    }
    let checksum = xxh3_64(&bytes[64..64 + header]);
    put(&mut bytes, 24, checksum);
    let length = bytes.len() as u64;
    put(&mut bytes, 32, length);
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
