//! Any bytes: opening them must give an artifact or an error, and running what opens an answer or
//! an error; never a panic, and never more memory than tools/fuzz allows.
#![no_main]

use centroid::{Artifact, Mode, Options, SentenceEmbedder, TextClassifier};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|data: &[u8]| {
    open(data);
    let mut bytes = data.to_vec();
    if repair(&mut bytes).is_some() {
        open(&bytes);
    }
});

fn open(bytes: &[u8]) {
    let artifact = match Artifact::from_bytes(bytes) {
        Ok(artifact) => artifact,
        Err(error) => return check(&error),
    };
    let _ = (artifact.kind(), artifact.weight_bytes());
    for mode in [Mode::Int8, Mode::Exact] {
        let options = Options::new().threads(1).mode(mode);
        match TextClassifier::new(artifact.clone(), options.clone()) {
            Ok(model) => {
                for texts in [&["a b"][..], &["", "Ab c!"]] {
                    model.classify(texts).err().iter().for_each(check);
                }
                model
                    .classify_pairs(&[("a", "b")])
                    .err()
                    .iter()
                    .for_each(check);
            }
            Err(error) => check(&error),
        }
        match SentenceEmbedder::new(artifact.clone(), options) {
            Ok(model) => model.embed(&["a b", ""]).err().iter().for_each(check),
            Err(error) => check(&error),
        }
    }
}

/// A message is one line, whatever the file says.
fn check(error: &centroid::Error) {
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message:?}");
}

/// Makes lengths and checksums right where they can be found, so that what they cover is reached.
fn repair(bytes: &mut [u8]) -> Option<()> {
    let file_length = bytes.len() as u64;
    let header_length = usize::try_from(u64_at(bytes, 16)?).ok()?;
    let end = header_length.checked_add(64)?;
    let mut at = 64 + 4;
    let body = |bytes: &[u8], at: usize, item: usize| {
        let count = usize::try_from(u64_at(bytes, at)?).ok()?;
        (at + 8).checked_add(count.checked_mul(item)?)
    };
    at = body(bytes, at, 1)?;
    let tensors = u64_at(bytes, at)?;
    at += 8;
    for _ in 0..tensors {
        at = body(bytes, at, 1)? + 4; // name, group
        at = body(bytes, at, 8)? + 4; // shape, layout
        at = body(bytes, at, 1)? + 4; // its body, scheme
        at = body(bytes, at, 1)?;
    }
    let sections = u64_at(bytes, at)?;
    at += 8;
    for _ in 0..sections {
        let offset = usize::try_from(u64_at(bytes, at + 8)?).ok()?;
        let length = usize::try_from(u64_at(bytes, at + 16)?).ok()?;
        let section = bytes.get(offset..offset.checked_add(length)?)?;
        let checksum = xxh3_64(section);
        put(bytes, at + 24, checksum)?;
        at += 32;
    }
    let checksum = xxh3_64(bytes.get(64..end)?);
    put(bytes, 24, checksum)?;
    put(bytes, 32, file_length)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: u64) -> Option<()> {
    let word = bytes.get_mut(at..at.checked_add(8)?)?;
    word.copy_from_slice(&value.to_le_bytes());
    Some(())
}
