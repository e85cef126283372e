//! Files that ask for much more memory than they have bytes: a text is remembered once and named often.

use super::*;

/// The most bytes that reading a file had at any time, and what it gave.
fn peak(file: &[u8]) -> (u64, Result<Contents>) {
    let file = Bytes::copy(file).unwrap();
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(read(&file)));
    (info.bytes_max, result.unwrap())
}

/// A text under number 0 and a weight under number 1, then a dictionary's entries.
fn remembered(text: &str, entries: &[u8]) -> Vec<u8> {
    let object = Program::new().text(text).code(b"q\x000");
    let object = object.tensor("0", 1, 0, &[1], &[1]).code(b"q\x010}(");
    legacy(&object.code(entries).code(b"u."), &[("0", 1, 4)])
}

#[test]
fn a_name_is_copied_once() {
    const COUNT: usize = 100_000;
    let file = remembered(&"n".repeat(MAX_NAME), &b"h\x00h\x01".repeat(COUNT));
    let (most, contents) = peak(&file);
    assert_eq!(contents.unwrap().tensors.len(), 1);
    // The values, on the stack and as entries; the names alone would be 400 MB.
    assert!(most < 40 << 20, "{most} bytes");

    let file = remembered(&"n".repeat(1 << 20), &b"h\x00h\x01".repeat(COUNT));
    let (most, contents) = peak(&file);
    let error = contents.err().unwrap().to_string();
    assert!(error.contains("a name of 1048576 bytes"), "{error}");
    assert!(error.len() < 300 && most < 40 << 20, "{most} bytes");
}

#[test]
fn arguments_are_within_the_budget() {
    let with = |len: usize, count: u32| {
        let mut entries = Program::default().text("w").code(b"h\x01").text("args");
        entries = entries.code(b"}(h\x00h\x00");
        for number in 0..count {
            entries = entries.text(&number.to_string()).code(b"h\x00");
        }
        let file = remembered(&"n".repeat(len), &entries.code(b"u").0);
        peak(&file)
    };
    // The long text is not kept, neither as a name nor as a value.
    let (most, contents) = with(1 << 20, 10_000);
    assert_eq!(contents.unwrap().arguments.len(), 0);
    assert!(most < 8 << 20, "{most} bytes");
    assert_eq!(with(100, 10).1.unwrap().arguments.len(), 11);
    let (most, contents) = with(MAX_NAME, 10_000);
    let error = contents.err().unwrap().to_string();
    assert!(error.contains("copied values"), "{error}");
    assert!(most < 8 << 20, "{most} bytes");
}

/// Each pickle of an old file has values, and they stay until the last is read.
#[test]
fn the_pickles_of_a_file_share_one_budget() {
    let object = Program::in_dict(|p| p.tensor("0", 6, 0, &[6], &[1]));
    let padding = b")".repeat(MAX_STEPS / 4);
    let mut file = legacy(&object, &[("0", 6, 24)]);
    assert!(read(&Bytes::copy(&file).unwrap()).is_ok());
    // The first four pickles start with a protocol's number and need nothing that is on the stack.
    let mut at = 0;
    for _ in 0..4 {
        let found = file[at..].windows(2).position(|two| two == b"\x80\x02");
        at += found.unwrap() + 2;
        file.splice(at..at, padding.iter().copied());
        at += padding.len();
    }
    let (most, contents) = peak(&file);
    let error = contents.err().unwrap().to_string();
    assert!(error.contains("more than 2097152 instructions"), "{error}");
    assert!(most < 300 << 20, "{most} bytes");
}

/// Sizes and strides are copied from a tuple that is there once.
#[test]
fn shapes_are_within_the_budget() {
    let call = b"h\x02h\x03R0";
    let object = |count: usize| {
        let p = Program::new().global("torch._utils", "_rebuild_tensor_v2");
        let p = p.code(b"q\x020(").storage("0", 1).int(0);
        let p = p
            .code(b"(")
            .code(&b"K\x01".repeat(16))
            .code(b"tq\x04h\x04t");
        let p = p.code(b"q\x030").code(&call.repeat(count));
        p.code(b"}").text("w").code(b"h\x02h\x03Rs.")
    };
    let file = |count| legacy(&object(count), &[("0", 1, 4)]);
    assert_eq!(reads(&file(1000)).tensors[0].shape.len(), 16);
    // Fewer instructions than there may be: 4 for each.
    fails(&file(100_000), &["copied values"]);
}

/// Keys of storages are looked up for each tensor.
#[test]
fn long_keys_are_errors() {
    let key = "k".repeat(MAX_NAME + 1);
    let object = Program::in_dict(|p| p.tensor(&key, 1, 0, &[1], &[1]));
    fails(&legacy(&object, &[(&key, 1, 4)]), &["key of 4097 bytes"]);
    let object = Program::new().code(b"}").text(&"k".repeat(1 << 20));
    let (_, contents) = peak(&legacy(&object.code(b"Ns."), &[]));
    assert!(contents.err().unwrap().to_string().len() < 1000);
}
