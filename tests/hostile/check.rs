//! What it means for a file to be refused.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use centroid::{Artifact, Error, ErrorKind, Result};

use crate::build::{File, Model};
use crate::valid::valid;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts the bytes that each thread holds.
pub struct Counting;

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are plain
// thread-local cells without destructors, so counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above; `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most bytes that this thread held during `work`, beyond what it held before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

/// `Artifact::from_bytes`, held to allocate no more than a small multiple of the file's size.
pub fn open(bytes: &[u8]) -> Result<Artifact> {
    let (result, peak) = peak(|| Artifact::from_bytes(bytes));
    let limit = 16 * bytes.len() + (64 << 10);
    assert!(
        peak <= limit,
        "{peak} bytes allocated for a file of {}: {result:?}",
        bytes.len()
    );
    result
}

#[test]
fn the_allocator_counts() {
    let (_, most) = peak(|| drop(vec![1u8; 1 << 20]));
    assert!(((1 << 20)..(1 << 20) + 4096).contains(&most), "{most}");
}

/// Fails unless `error` is of `kind`, one line, and says every one of `words`.
pub fn says(what: &str, error: &Error, kind: ErrorKind, words: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{what}: {message}");
    assert_eq!(message.lines().count(), 1, "{what}: {message:?}");
    for word in words {
        assert!(message.contains(word), "{what}: no {word:?} in {message:?}");
    }
}

/// Fails unless these bytes are refused in the same words however they are opened.
pub fn refuse(what: &str, bytes: &[u8], kind: ErrorKind, words: &[&str]) {
    let Err(error) = open(bytes) else {
        panic!("{what}: accepted");
    };
    says(what, &error, kind, words);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hostile.centroid");
    std::fs::write(&path, bytes).unwrap();
    for error in [Artifact::open(&path), Artifact::read(&path)].map(Result::unwrap_err) {
        assert_eq!(error.kind(), kind, "{what}");
        assert_eq!(error.file(), Some(Path::new(&path)), "{what}");
        let (name, message) = (path.display().to_string(), error.to_string());
        let rest = message
            .strip_prefix(&name)
            .and_then(|m| m.strip_prefix(": "));
        assert_eq!(rest, Some(&*open(bytes).unwrap_err().to_string()), "{what}");
    }
}

/// Changes the contents of the valid file; fails unless the result is refused both by its
/// checksums and, these made right, for what it is.
pub fn reject(what: &str, change: impl Fn(&mut Model), kind: ErrorKind, words: &[&str]) {
    let original = valid();
    let mut model = original.clone();
    change(&mut model);
    let damaged = model.damaged(&original.encode());
    let checksum = ["does not match its checksum"];
    refuse(what, &damaged, ErrorKind::Checksum, &checksum);
    refuse(what, &model.encode().bytes, kind, words);
}

/// As [`reject`], for the error that most damage is.
pub fn malformed(what: &str, change: impl Fn(&mut Model), words: &[&str]) {
    reject(what, change, ErrorKind::Format, words);
}

/// Changes bytes of the valid file's header; fails unless the result is refused both by the
/// header's checksum and, this made right, for what it is.
pub fn patched(what: &str, change: impl Fn(&mut File), words: &[&str]) {
    let mut file = valid().encode();
    change(&mut file);
    let checksum = ["the header does not match its checksum"];
    refuse(what, &file.bytes, ErrorKind::Checksum, &checksum);
    file.repair();
    refuse(what, &file.bytes, ErrorKind::Format, words);
}

/// Fails unless the valid file opens after this change.
pub fn accept(what: &str, change: impl Fn(&mut Model)) -> Artifact {
    let mut model = valid();
    change(&mut model);
    open(&model.encode().bytes).unwrap_or_else(|e| panic!("{what}: {e}"))
}
