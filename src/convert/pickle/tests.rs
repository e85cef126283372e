//! Pickles that no weights are made of: a clear error, nothing run, bounded memory.

use super::*;

mod bounds;
mod weights;

/// A pickle, instruction by instruction.
#[derive(Clone, Default)]
struct Program(Vec<u8>);

impl Program {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }

    fn code(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        let len = u32::try_from(text.len()).unwrap();
        self.code(b"X")
            .code(&len.to_le_bytes())
            .code(text.as_bytes())
    }

    fn int(self, value: i64) -> Self {
        self.code(&[0x8a, 8]).code(&value.to_le_bytes())
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.code(format!("c{module}\n{name}\n").as_bytes())
    }

    fn ints(self, values: &[i64]) -> Self {
        let program = values
            .iter()
            .fold(self.code(b"("), |program, &value| program.int(value));
        program.code(b"t")
    }

    /// A storage of floats.
    fn storage(self, key: &str, elements: i64) -> Self {
        let program = self
            .code(b"(")
            .text("storage")
            .global("torch", "FloatStorage");
        program.text(key).text("cpu").int(elements).code(b"tQ")
    }

    /// A tensor over a storage of so many floats.
    fn tensor(self, key: &str, elements: i64, offset: i64, size: &[i64], strides: &[i64]) -> Self {
        let program = self.global("torch._utils", "_rebuild_tensor_v2").code(b"(");
        let program = program
            .storage(key, elements)
            .int(offset)
            .ints(size)
            .ints(strides);
        program.code(b"\x89Nt").code(b"R")
    }

    /// Everything so far becomes the value of a state dictionary's one entry.
    fn in_dict(program: impl FnOnce(Self) -> Self) -> Self {
        program(Self::new().code(b"}").text("w")).code(b"s.")
    }
}

/// A file of the old layout: the object, then storages of floats.
fn legacy(object: &Program, storages: &[(&str, i64, usize)]) -> Vec<u8> {
    let mut file = Program::new().code(&[0x8a, 10]).code(&[
        0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.',
    ]);
    file = file.code(&[0x80, 2]).int(1001).code(b".");
    file = file
        .code(b"\x80\x02}")
        .text("little_endian")
        .code(b"\x88s.");
    file = file.code(&object.0).code(b"\x80\x02](");
    for (key, ..) in storages {
        file = file.text(key);
    }
    file = file.code(b"e.");
    for (_, elements, bytes) in storages {
        file = file.code(&elements.to_le_bytes()).code(&vec![0; *bytes]);
    }
    file.0
}

fn fails(bytes: &[u8], words: &[&str]) {
    let error = read(&Bytes::copy(bytes).unwrap())
        .err()
        .expect("it was read");
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    for word in words {
        assert!(error.to_string().contains(word), "{error}: {word}");
    }
}

fn reads(bytes: &[u8]) -> Contents {
    read(&Bytes::copy(bytes).unwrap()).unwrap()
}

#[test]
fn the_assembler_writes_what_is_read() {
    let object = Program::in_dict(|p| p.tensor("0", 6, 1, &[2, 2], &[1, 2]));
    let contents = reads(&legacy(&object, &[("0", 6, 24)]));
    let [tensor] = &contents.tensors[..] else {
        panic!("one tensor");
    };
    assert_eq!((&tensor.name[..], &tensor.shape[..]), ("w", &[2, 2][..]));
    assert_eq!((&tensor.strides[..], tensor.bytes.len()), (&[1, 2][..], 20));
    assert_eq!(tensor.dtype, DType::F32);
}

#[test]
fn names_off_the_list_are_errors_and_nothing_runs() {
    let marker = std::env::temp_dir().join("centroid-pickle-ran");
    let command = format!("touch {}", marker.display());
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch._utils", "_rebuild_sparse_tensor"),
    ] {
        let call = |p: Program| p.text(&command).code(b"\x85R");
        let by_line = Program::in_dict(|p| call(p.global(module, name)));
        let by_stack = Program::in_dict(|p| call(p.text(module).text(name).code(b"\x93")));
        for object in [by_line, by_stack] {
            let name = format!("names {module}.{name}");
            fails(&legacy(&object, &[]), &[&name, "nothing was run", "byte "]);
        }
    }
    assert!(!marker.exists());
    let long = "x".repeat(10_000);
    let object = Program::in_dict(|p| p.global(&long, "y"));
    let error = read(&Bytes::copy(&legacy(&object, &[])).unwrap())
        .err()
        .unwrap();
    assert!(error.to_string().len() < 500);
}

#[test]
fn tensors_must_lie_within_their_storage() {
    let fits = "does not fit its storage of 6";
    type Case<'a> = (i64, &'a [i64], &'a [i64], &'a str);
    let cases: [Case<'_>; 12] = [
        (0, &[7], &[1], fits),
        (6, &[1], &[1], fits),
        (1, &[2, 3], &[3, 1], fits),
        (0, &[2, 2], &[5, 1], "does not fit"),
        (0, &[2], &[i64::MAX], fits),
        (i64::MAX, &[2], &[i64::MAX], fits),
        (0, &[i64::MAX, i64::MAX], &[1, 1], fits),
        // A stride of 0 makes much of little.
        (0, &[1 << 40], &[0], fits),
        (0, &[1 << 20, 1 << 20, 1], &[0, 0, 0], fits),
        (-1, &[2], &[1], "offset is -1"),
        (0, &[-2], &[1], "size or stride is -2"),
        (0, &[2], &[1, 1], "1 dimensions with 2 strides"),
    ];
    for (offset, size, strides, words) in cases {
        let object = Program::in_dict(|p| p.tensor("0", 6, offset, size, strides));
        fails(&legacy(&object, &[("0", 6, 24)]), &[words]);
    }
    let object = Program::in_dict(|p| p.tensor("0", 6, 0, &[0; 17], &[1; 17]));
    fails(&legacy(&object, &[("0", 6, 24)]), &["17 dimensions"]);
    let object = Program::in_dict(|p| p.tensor("0", -6, 0, &[1], &[1]));
    fails(&legacy(&object, &[("0", 6, 24)]), &["storage size is -6"]);
    // No elements: nothing to reach.
    let object = Program::in_dict(|p| p.tensor("0", 6, 100, &[0, 4], &[4, 1]));
    let contents = reads(&legacy(&object, &[("0", 6, 24)]));
    assert_eq!(contents.tensors[0].bytes.len(), 0);
}

#[test]
fn storages_must_be_there() {
    let object = Program::in_dict(|p| p.tensor("0", 6, 0, &[6], &[1]));
    fails(&legacy(&object, &[]), &["storage 0 is missing", "w"]);
    fails(&legacy(&object, &[("0", 6, 23)]), &["ends behind", "byte "]);
    fails(&legacy(&object, &[("0", 5, 24)]), &["5 elements", "say 6"]);
    fails(&legacy(&object, &[("0", -1, 24)]), &["-1 elements"]);
    fails(
        &legacy(&object, &[("1", 6, 24)]),
        &["storage 1 belongs to no tensor"],
    );
    let huge = Program::in_dict(|p| p.tensor("0", i64::MAX, 0, &[6], &[1]));
    fails(&legacy(&huge, &[("0", i64::MAX, 24)]), &["ends behind"]);
}

#[test]
fn programs_must_be_whole_and_sensible() {
    let many = |count: usize, code: &[u8]| Program::new().code(&code.repeat(count)).code(b".");
    let cases: &[(Program, &[&str])] = &[
        (Program::new().code(b"}"), &["needed"]),
        (Program::new().code(b"."), &["without a value"]),
        (Program::new().code(b"(N0."), &["without a value"]),
        (Program::new().code(b"N(."), &["without a value"]),
        (Program::new().code(b"t."), &["no mark"]),
        (Program::new().code(b"](Ne(e."), &["a list"]),
        (
            Program::new().code(b"N\x85a."),
            &["items for a tuple", "without a value"],
        ),
        (Program::new().code(b"}NNNu."), &["no mark"]),
        (Program::new().code(b"}(NNNu."), &["a key without a value"]),
        (Program::new().code(b"NNNs."), &["entries for None"]),
        (
            Program::new().code(b"h\x07."),
            &["nothing was remembered as 7"],
        ),
        (Program::new().code(b"N)R."), &["a call of None"]),
        (Program::new().code(b"NNb."), &["attributes for None"]),
        (Program::new().code(b"NQ."), &["a persistent id"]),
        (Program::new().code(b"i."), &["instruction 0x69"]),
        (Program::new().code(b"\x80\x09."), &["protocol 9"]),
        (
            Program::new().code(b"X\xff\xff\xff\xff."),
            &["4294967295 bytes are needed"],
        ),
        (
            Program::new().code(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff."),
            &["bytes are needed"],
        ),
        (
            Program::new().code(b"\x8b\xff\xff\xff\x7f."),
            &["2147483647 bytes"],
        ),
        (Program::new().code(b"X\x01\0\0\0\xff."), &["UTF-8"]),
        (Program::new().code(b"ctorch"), &["without an end"]),
        (Program::new().code(b"NN\x93."), &["whose name is no text"]),
        (Program::new().code(b"N."), &["the file holds None"]),
        (Program::new().code(b"}."), &["the file holds a dictionary"]),
        (
            Program::new().code(b"}").text("a").code(b"Ns."),
            &["among a there is no tensor"],
        ),
        (
            Program::new().global("torch", "FloatStorage").code(b")R."),
            &["storages are not calls"],
        ),
        (
            Program::new()
                .global("torch._utils", "_rebuild_tensor_v2")
                .code(b")R."),
            &["too few arguments"],
        ),
        (
            Program::new()
                .global("torch._utils", "_rebuild_parameter")
                .code(b")R."),
            &["None for a tensor"],
        ),
        (
            Program::new()
                .global("collections", "OrderedDict")
                .code(b"N\x85R."),
            &["a dictionary of None"],
        ),
        (many(MAX_STEPS, b"N"), &["more than 2097152 instructions"]),
    ];
    for (program, words) in cases {
        let file = legacy(program, &[]);
        let error = read(&Bytes::copy(&file).unwrap()).err().unwrap();
        let text = error.to_string();
        assert!(
            words.iter().any(|word| text.contains(word)),
            "{text}: {words:?}"
        );
    }
}

/// Deep nesting, self-reference and copies of copies cost what their instructions cost.
#[test]
fn bombs_fizzle() {
    let deep = Program::new()
        .code(b")")
        .code(&b"\x85".repeat(1_000_000))
        .code(b".");
    fails(&legacy(&deep, &[]), &["the file holds a tuple"]);
    let inside_itself = Program::new()
        .code(b"}q\x00")
        .text("model")
        .code(b"h\x00s.");
    fails(&legacy(&inside_itself, &[]), &["no state dictionary"]);
    // A dictionary of a hundred thousand entries, copied as often.
    let mut copies = Program::new()
        .code(b"}(")
        .code(&b"NN".repeat(100_000))
        .code(b"uq\x000");
    copies = copies.code(&b"}h\x00b0".repeat(100_000)).code(b"N.");
    fails(&legacy(&copies, &[]), &["instructions"]);
    let mut copies = Program::new()
        .code(b"}(")
        .code(&b"NN".repeat(100_000))
        .code(b"uq\x000");
    copies = copies.global("collections", "OrderedDict").code(b"q\x010");
    copies = copies
        .code(&b"h\x01h\x00\x85R0".repeat(100_000))
        .code(b"N.");
    fails(&legacy(&copies, &[]), &["instructions"]);
}

#[test]
fn other_files_are_named_for_what_they_are() {
    fails(b"\x80\x02K\x01.", &["not one of torch.save", "an integer"]);
    fails(b"\x80\x02", &["the pickle ends here"]);
    fails(b"PK\x03\x04 and no more", &["not a valid zip archive"]);
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(is_pickle(&tar));
    fails(&tar, &["tar archive"]);
    assert!(!is_pickle(b"\x80\x01\0\0\0\0\0\0{\"a\":1}"));
}

/// A zip archive with these entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(*name, stored).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn archives_must_hold_what_the_pickle_says() {
    let object = Program::in_dict(|p| p.tensor("0", 6, 0, &[6], &[1])).0;
    let good = archive(&[("m/data.pkl", &object), ("m/data/0", &[0; 24])]);
    assert_eq!(reads(&good).tensors[0].bytes.len(), 24);
    type Case<'a> = (&'a [(&'a str, &'a [u8])], &'a str);
    let cases: [Case<'_>; 7] = [
        (&[("m/other", &object)], "without data.pkl"),
        (&[("m/data.pkl", &object)], "no storage 0"),
        (
            &[("m/data.pkl", &object), ("n/data/0", &[0; 24])],
            "no storage 0",
        ),
        (
            &[("m/data.pkl", &object), ("m/data/0", &[0; 23])],
            "has 23 bytes, 6 elements of 4",
        ),
        (
            &[("m/data.pkl", &object), ("m/constants.pkl", b"")],
            "TorchScript",
        ),
        (
            &[("m/data.pkl", &object), ("m/byteorder", b"big")],
            "byte order",
        ),
        (
            &[
                ("n/data.pkl", &object),
                ("n/data/0", &[0; 24]),
                ("m/data.pkl", &object),
                ("m/data/0", &[0; 24]),
            ],
            "m/data.pkl and n/data.pkl",
        ),
    ];
    for (entries, words) in cases {
        fails(&archive(entries), &[words]);
    }
    // The directory is at the end: every cut is noticed.
    for len in 4..good.len() {
        assert!(read(&Bytes::copy(&good[..len]).unwrap()).is_err(), "{len}");
    }
}

/// Any single byte changed: an error or a tensor, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let object = Program::in_dict(|p| p.tensor("0", 6, 1, &[2, 2], &[1, 2]));
    let old = legacy(&object, &[("0", 6, 24)]);
    let new = archive(&[("m/data.pkl", &object.0), ("m/data/0", &[0; 24])]);
    for file in [old, new] {
        for at in 0..file.len() {
            for change in [1, 0x80, 0xff] {
                let mut bad = file.clone();
                bad[at] ^= change;
                if let Err(error) = read(&Bytes::copy(&bad).unwrap()) {
                    assert_eq!(error.to_string().lines().count(), 1);
                }
            }
        }
    }
}
