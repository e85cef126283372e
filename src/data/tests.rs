use std::path::PathBuf;

use super::*;

const COLUMNS: Columns = Columns {
    text: "text",
    text_b: None,
    label: Some("label"),
};

fn read_as(name: &str, bytes: impl AsRef<[u8]>, columns: &Columns) -> Result<Vec<Example>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read(path, columns)
}

fn pairs(examples: &[Example]) -> Vec<(&str, &str, u64)> {
    let pairs = examples.iter();
    pairs.map(|e| (&*e.text, &*e.label, e.line)).collect()
}

#[test]
fn tabs_separate_and_quotation_marks_are_text() {
    let tsv = "id\ttext\tlabel\n1\tsay \"no\tneg\n\n2\t\"\tpos\r\n3\t\tpos";
    let examples = read_as("a.tsv", tsv, &COLUMNS).unwrap();
    let expected = [("say \"no", "neg", 2), ("\"", "pos", 4), ("", "pos", 5)];
    assert_eq!(pairs(&examples), expected);
}

#[test]
fn commas_separate_and_fields_may_be_quoted() {
    let csv = "\u{feff}label,text,other\nneg,\"a, \"\"b\"\"\nc\",\npos,d,x\n";
    let examples = read_as("a.csv", csv, &COLUMNS).unwrap();
    assert_eq!(
        pairs(&examples),
        [("a, \"b\"\nc", "neg", 2), ("d", "pos", 4)]
    );
}

#[test]
fn json_labels_may_be_numbers() {
    let lines = "\u{feff}{\"text\": \"a\\n\", \"label\": 3, \"x\": []}\r\n\n{\"label\": true, \"text\": \"\"}";
    for name in ["a.jsonl", "a.ndjson"] {
        let examples = read_as(name, lines, &COLUMNS).unwrap();
        assert_eq!(pairs(&examples), [("a\n", "3", 1), ("", "true", 3)]);
    }
}

#[test]
fn pairs_have_a_second_text() {
    let columns = Columns {
        text_b: Some("other"),
        ..COLUMNS
    };
    let examples = read_as("a.csv", "label,other,text\nx,b,a\n", &columns).unwrap();
    assert_eq!(examples[0].text_b.as_deref(), Some("b"));
    let line = "{\"text\": \"a\", \"other\": \"b\", \"label\": \"x\"}";
    assert_eq!(
        read_as("a.jsonl", line, &columns).unwrap()[0].text_b,
        examples[0].text_b
    );
    let error = read_as("a.jsonl", line.replace("other", "b"), &columns).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("line 1: there is no key \"other\""),
        "{error}"
    );
}

#[test]
fn bad_files_are_errors_that_name_the_line() {
    for (name, bytes, expected) in [
        ("a.txt", &b"text\tlabel\na\tb\n"[..], "ends in none of"),
        ("a", b"", "ends in none of"),
        ("a.tsv", b"", "the file is empty"),
        ("a.tsv", b"text\tlabel\n", "there are no examples"),
        ("a.jsonl", b"\n \n", "there are no examples"),
        (
            "a.tsv",
            b"Text\tlabel\na\tb\n",
            "there are: \"Text\", \"label\"",
        ),
        (
            "a.csv",
            b"text,label,text\na,b,c\n",
            "column \"text\" is there twice",
        ),
        (
            "a.tsv",
            b"text\tlabel\na\tb\na\n",
            "line 3: 1 fields where the header has 2",
        ),
        (
            "a.tsv",
            b"text\tlabel\na\tb\tc\n",
            "line 2: 3 fields where the header has 2",
        ),
        ("a.tsv", b"text\tlabel\na\t\n", "line 2: the label is empty"),
        ("a.tsv", b"\n", "the file is empty"),
        (
            "a.tsv",
            b"text\tlabel\na\xff\tb\n",
            "line 2: field 1 is not UTF-8 from its byte 1 on",
        ),
        (
            "a.csv",
            b"text,label\na,b\n\nc,\"d\n",
            "line 4: a field is quoted and has no closing",
        ),
        ("a.csv", b"text,label\n\"a,b\n", "line 2: "),
        (
            "a.csv",
            b"label,\"text\na,b\n",
            "there is no column \"text\"",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"a\", \"label\": \"b\"}\n[]\n",
            "line 2: ",
        ),
        ("a.jsonl", b"{\"text\": \"a\", \"label\": \"b\"", "line 1: "),
        (
            "a.jsonl",
            b"\n{\"text\": \"\xff\", \"label\": \"b\"}",
            "line 2: invalid unicode code point at column 11",
        ),
        (
            "a.jsonl",
            b"{\"text\": 1, \"label\": \"b\"}",
            "line 1: \"text\" is not a string",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"a\", \"label\": 0.5}",
            "line 1: \"label\" is not a string, an int",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"a\", \"label\": \"\"}",
            "line 1: the label is empty",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"a\", \"label\": \"b\", \"text\": \"c\"}",
            "line 1: the key \"text\" is there twice",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"a\"}",
            "line 1: there is no key \"label\"",
        ),
    ] {
        let error = read_as(name, bytes, &COLUMNS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
        assert!(
            error.to_string().contains(expected),
            "{expected:?}: {error}"
        );
        assert_eq!(
            error.file().and_then(|f| f.file_name()),
            Some(name.as_ref())
        );
    }
    let missing = read(PathBuf::from("no/such.tsv"), &COLUMNS).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
    // A directory opens, but cannot be read.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.jsonl");
    std::fs::create_dir(&path).unwrap();
    assert_eq!(read(&path, &COLUMNS).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn columns_are_not_read_twice() {
    let columns = |text, text_b, label| Columns {
        text,
        text_b,
        label,
    };
    for bad in [
        columns("a", None, Some("a")),
        columns("a", Some("a"), Some("b")),
        columns("a", Some("b"), Some("b")),
        columns("a", Some("a"), None),
    ] {
        let error = parse(std::path::Path::new("x.tsv"), b"a\tb\n1\t2\n", &bad).unwrap_err();
        assert!(
            error.to_string().contains("columns of their own"),
            "{error}"
        );
    }
    let fine = columns("a", None, Some("b"));
    assert_eq!(
        parse(std::path::Path::new("x.tsv"), b"a\tb\n1\t2\n", &fine)
            .unwrap()
            .len(),
        1
    );
}
