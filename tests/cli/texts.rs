//! `classify` and `embed`: what is read, what is printed, and when it stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::{all, centroid, classifier, command, embedder, with_input};

/// Far over the 32 tokens of the classifier and the 24 of the embedder.
const LONG: &str = "the quick brown fox jumps over the lazy dog, and then it was the best \
    film of the year, and the worst: the quick brown fox jumps over the lazy dog";

fn texts(input: &[u8]) -> Vec<Value> {
    with_input(&["classify", classifier(), "--json"], input).json_lines()
}

#[test]
fn only_newlines_end_a_text() {
    let odd = "a\rb\u{2028}c\u{b}d\u{85}e\u{c}f\u{1e}";
    let input = format!("{odd}\r\n\n second \t\r\r\nlast\r");
    let lines = texts(input.as_bytes());
    let expected = [odd, "", " second \t\r", "last\r"];
    assert_eq!(all(&lines, "text"), expected.map(Value::from).each_ref());
    // An empty text is its two special tokens.
    assert_eq!(lines[1]["tokens"], 2);
    assert_eq!(texts(b"a\n"), texts(b"a"));
    assert_eq!(texts(b"\n").len(), 1);
    assert!(texts(b"").is_empty());
}

#[test]
fn a_dash_alone_is_standard_input() {
    let run = with_input(&["classify", classifier(), "--json", "-"], b"in\n").json_lines();
    assert_eq!(all(&run, "text"), [&json!("in")]);
    let run = with_input(&["classify", classifier(), "--json", "-", "x"], b"in\n").json_lines();
    assert_eq!(all(&run, "text"), [&json!("-"), &json!("x")]);
}

#[test]
fn output_is_in_the_order_of_the_input() {
    // Many blocks, of texts of unequal lengths.
    let inputs: Vec<String> = (0..300)
        .map(|i| format!("{i}{}", "x".repeat(i % 7)))
        .collect();
    let lines = texts(inputs.join("\n").as_bytes());
    assert_eq!(lines.len(), inputs.len());
    for (line, text) in lines.iter().zip(&inputs) {
        assert_eq!(line["text"], **text);
    }
    // A text's result does not depend on its neighbours or on where it came from.
    let alone = centroid(&["classify", classifier(), "--json", &inputs[299]]).json_lines();
    assert_eq!(lines[299], alone[0]);
}

#[test]
fn classification_json_has_its_fields() {
    let base = ["classify", classifier(), "film", "--json"];
    let line = &centroid(&base).json_lines()[0];
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["text", "tokens", "truncated", "labels"]);
    assert_eq!(
        (&line["tokens"], &line["truncated"]),
        (&json!(5), &json!(false))
    );
    let labels = line["labels"].as_array().unwrap();
    let mut names: Vec<_> = labels
        .iter()
        .map(|l| l["label"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["negative", "positive"]);
    let score = |i: usize| labels[i]["score"].as_f64().unwrap();
    assert!(score(0) >= score(1) && (score(0) + score(1) - 1.0).abs() < 1e-6);
    let logit = |i: usize| labels[i]["logit"].as_f64().unwrap();
    let softmax = 1.0 / (1.0 + (logit(1) - logit(0)).exp());
    assert!((softmax - score(0)).abs() < 1e-6);

    let with = |flags: &[&str]| centroid(&[&base, flags].concat()).json_lines().remove(0);
    assert_eq!(with(&["--ids"])["ids"], json!([0, 73, 294, 80, 2]));
    assert_eq!(with(&["--top-k", "1"])["labels"], json!([labels[0]]));
    assert_eq!(with(&["--top-k", "9"])["labels"], json!(labels));
    assert_eq!(with(&["--threads", "3"]), *line);
    // The checkpoint is f32, of which both modes make the same.
    assert_eq!(with(&["--mode", "exact"]), *line);
}

#[test]
fn floats_round_trip() {
    let model = centroid::SentenceEmbedder::open(embedder()).unwrap();
    let expected = model.embed(&["film"]).unwrap().remove(0).vector;
    assert_eq!(expected.len(), 28);
    let line = &centroid(&["embed", embedder(), "film", "--json"]).json_lines()[0];
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["text", "tokens", "truncated", "embedding"]);
    let values = line["embedding"].as_array().unwrap().iter();
    let json: Vec<f32> = values.map(|v| v.to_string().parse().unwrap()).collect();
    assert_eq!(json, expected);
    let plain = centroid(&["embed", embedder(), "film"]).ok();
    let plain: Vec<f32> = (plain.trim_end().split(' '))
        .map(|v| v.parse().unwrap())
        .collect();
    assert_eq!(plain, expected);
    // No more digits than a 32-bit float has.
    let longest = line["embedding"][0].to_string();
    assert!(
        longest.trim_start_matches(['-', '0', '.']).len() <= 9,
        "{longest}"
    );
}

#[test]
fn plain_output_is_one_line_a_text() {
    let out = centroid(&["classify", classifier(), "a\nb\tc\u{1b}", ""]).ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2);
    let (scores, text) = lines[0].split_once('\t').unwrap();
    assert_eq!(text, "a\\nb\\tc\\u{1b}");
    let fields: Vec<&str> = scores.split_whitespace().collect();
    assert_eq!(fields.len(), 4, "{scores}");
    assert!(fields[1].parse::<f32>().unwrap() >= fields[3].parse().unwrap());
    assert!(lines[1].ends_with('\t'));

    let out = centroid(&["classify", classifier(), "film", "--ids", "--top-k", "1"]).ok();
    assert!(out.ends_with("\tfilm\t0 73 294 80 2\n"), "{out}");
    let out = with_input(&["embed", embedder()], b"a\n\nb").ok();
    let values = out.lines().map(|line| line.split(' ').count());
    assert_eq!(values.collect::<Vec<_>>(), [28; 3]);
}

#[test]
fn pairs_are_separated_by_one_tab() {
    let verb = ["classify", classifier(), "--pair", "--json", "--ids"];
    let lines = with_input(&verb, b"film\tthe\r\n\t\nfilm\t").json_lines();
    let pairs = [["film", "the"], ["", ""], ["film", ""]];
    assert_eq!(
        all(&lines, "text"),
        pairs.map(|p| Value::from(p[0])).each_ref()
    );
    assert_eq!(
        all(&lines, "text_pair"),
        pairs.map(|p| Value::from(p[1])).each_ref()
    );
    let model = centroid::TextClassifier::open(classifier()).unwrap();
    let direct = model.classify_pairs(&[("film", "the")]).unwrap();
    assert_eq!(lines[0]["ids"], json!(direct[0].ids));

    let out = with_input(&verb, b"a\tb\nno tab\nc\td\n").fails(1, &["line 2", "0 tabs"]);
    assert_eq!(out.lines().count(), 1);
    with_input(&verb, b"a\tb\n\n").fails(1, &["line 2", "0 tabs"]);
    with_input(&verb, b"a\tb\tc").fails(1, &["line 1", "2 tabs"]);
    let arguments = [&verb[..], &["a\tb", "ab"]].concat();
    let out = centroid(&arguments).fails(1, &["argument 2", "0 tabs"]);
    assert_eq!(out.lines().count(), 1);
    let plain = centroid(&["classify", classifier(), "--pair", "a\tb"]).ok();
    assert!(plain.ends_with("\ta\tb\n"), "{plain}");
    let embedded = centroid(&["embed", embedder(), "--pair", "a\tb", "--json"]).json_lines();
    assert_eq!(embedded[0]["text_pair"], "b");
}

#[test]
fn long_texts_stop_the_run_behind_the_results_before_them() {
    let tokens = centroid(&["classify", classifier(), LONG]).fails(
        1,
        &["argument 1: the text has ", " tokens, the limit is 32"],
    );
    assert_eq!(tokens, "");
    for verb in [["classify", classifier()], ["embed", embedder()]] {
        let input = format!("one\ntwo\n{LONG}\nfour\n");
        let out = with_input(&verb, input.as_bytes()).fails(1, &["line 3: the text has "]);
        assert_eq!(out, with_input(&verb, b"one\ntwo\n").ok());
        assert_eq!(out.lines().count(), 2);
    }
    let out = centroid(&["classify", classifier(), "one", LONG]).fails(1, &["argument 2"]);
    assert_eq!(out.lines().count(), 1);
    let long_pair = format!("a\tb\na\t{LONG}\n");
    with_input(&["classify", classifier(), "--pair"], long_pair.as_bytes())
        .fails(1, &["line 2", "the limit is 32"]);
}

#[test]
fn texts_are_cut_only_on_request() {
    let verb = ["classify", classifier(), "--json", "--truncate"];
    let input = format!("{LONG}\nshort\n{LONG}!\n");
    let run = with_input(&verb, input.as_bytes());
    assert_eq!(run.err, "note: 2 texts were cut to 32 tokens\n");
    let lines = run.json_lines();
    assert_eq!(
        all(&lines, "truncated"),
        [true, false, true].map(Value::from).each_ref()
    );
    assert_eq!(lines[0]["tokens"], 32);
    assert_eq!(lines[0]["text"], LONG);

    let shorter = [&verb[..], &["--max-length", "4", "film"]].concat();
    let run = centroid(&shorter);
    assert_eq!(run.err, "note: 1 text was cut to 4 tokens\n");
    assert_eq!(run.json_lines()[0]["tokens"], 4);
    assert_eq!(
        centroid(&["classify", classifier(), "--truncate", "film"]).err,
        ""
    );
    centroid(&["classify", classifier(), "--max-length", "4", "film"])
        .fails(1, &["5 tokens", "limit is 4"]);
    centroid(&["classify", classifier(), "--max-length", "33", "x"]).fails(1, &["33", "32"]);
}

#[test]
fn invalid_utf8_names_line_and_byte() {
    let verb = ["embed", embedder()];
    let out = with_input(&verb, b"fine\nab\xffc\nmore\n").fails(1, &["line 2", "byte 2", "0xff"]);
    assert_eq!(out, with_input(&verb, b"fine\n").ok());
    // A character cut short by the end of the input.
    with_input(&verb, b"\xe2\x82").fails(1, &["line 1", "byte 0", "0xe2"]);
}

#[cfg(unix)]
#[test]
fn invalid_utf8_in_arguments_names_the_argument() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let bad = OsStr::from_bytes(b"abc\xc0");
    let arguments = [OsStr::new("embed"), embedder().as_ref(), "a".as_ref(), bad];
    let out = centroid(&arguments).fails(1, &["argument 2", "byte 3", "0xc0"]);
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn a_line_without_end_is_an_error() {
    let mut input = b"short\n".to_vec();
    input.resize(input.len() + (16 << 20) + 1, b'x');
    let out = with_input(&["classify", classifier(), "--truncate"], &input)
        .fails(1, &["line 2", "longer than 16777216 bytes"]);
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    for verb in [["classify", classifier()], ["embed", embedder()]] {
        let mut child = command(&verb).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || {
            // Until the child is gone: it must not read all of an endless input.
            while stdin.write_all(b"film\n").is_ok() {}
        });
        let mut first = String::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut first).unwrap();
        assert!(first.ends_with('\n'));
        drop(reader);
        writer.join().unwrap();
        let mut err = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        assert_eq!((child.wait().unwrap().code(), &err[..]), (Some(0), ""));
    }
}

#[test]
fn results_come_while_the_input_is_open() {
    let mut child = (command(&["classify", classifier()]).stdin(Stdio::piped()))
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for text in ["one", "two"] {
        writeln!(stdin, "{text}").unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.ends_with(&format!("\t{text}\n")), "{line}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = (command(&["classify", classifier(), "film"]).stdout(full))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("error: standard output: "), "{err}");
}

#[test]
fn token_ids_give_what_texts_give() {
    let model = centroid::TextClassifier::open(classifier()).unwrap();
    let texts = model.classify(&["film", "It was the best"]).unwrap();
    let ids: Vec<&[u32]> = texts.iter().map(|text| &text.ids[..]).collect();
    assert_eq!(model.classify_ids(&ids).unwrap(), texts);
    let model = centroid::SentenceEmbedder::open(embedder()).unwrap();
    let texts = model.embed(&["film", ""]).unwrap();
    let ids: Vec<&[u32]> = texts.iter().map(|text| &text.ids[..]).collect();
    assert_eq!(model.embed_ids(&ids).unwrap(), texts);

    for (bad, kind) in [
        (vec![], centroid::ErrorKind::Input),
        (vec![2, 300, 3], centroid::ErrorKind::Input),
        (vec![5; 25], centroid::ErrorKind::TooLong),
    ] {
        let error = model.embed_ids(&[&[2, 3], &bad]).unwrap_err();
        assert_eq!((error.kind(), error.text()), (kind, Some(1)), "{error}");
        assert!(error.to_string().starts_with("text 1: "), "{error}");
        assert!(!error.message().contains("text 1"), "{error}");
    }
    assert!(model.embed_ids(&[&[5; 24]]).is_ok());
}
