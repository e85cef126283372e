//! `evaluate`: scores of the runtime's own answers.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{centroid, classifier, embedder};

/// Ten texts of as many lengths, all within the model's 32 tokens.
fn texts() -> Vec<String> {
    let word = |i: usize| ["a", "b", "c", "d", "e"][i % 5];
    let text = |n: usize| (0..n).map(|i| word(i * n)).collect::<Vec<_>>().join(" ");
    (1..=10).map(text).collect()
}

/// The labels of the classifier, and its best one for each text.
fn answers(texts: &[String], flags: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut arguments = vec!["classify", classifier(), "--json"];
    arguments.extend(flags);
    arguments.push("--");
    arguments.extend(texts.iter().map(|text| &**text));
    let lines = centroid(&arguments).json_lines();
    let label = |value: &Value| value["label"].as_str().unwrap().to_owned();
    let mut labels: Vec<String> = lines[0]["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(label)
        .collect();
    labels.sort();
    (
        labels,
        lines.iter().map(|line| label(&line["labels"][0])).collect(),
    )
}

fn file(name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn evaluate(data: &Path, flags: &[&str]) -> crate::Run {
    let data = data.to_str().unwrap();
    let start = [
        "evaluate",
        classifier(),
        data,
        "--text",
        "t",
        "--label",
        "l",
    ];
    centroid(&[&start[..], flags].concat())
}

#[test]
fn right_and_wrong_answers_are_counted() {
    let texts = texts();
    let (labels, answers) = answers(&texts, &[]);
    // Right but for the last three, which get a label that was not the answer.
    let wrong = |answer: &String| {
        labels
            .iter()
            .find(|label| *label != answer)
            .unwrap()
            .clone()
    };
    let truth: Vec<String> = (answers.iter().enumerate())
        .map(|(i, answer)| if i < 7 { answer.clone() } else { wrong(answer) })
        .collect();
    let rows = texts
        .iter()
        .zip(&truth)
        .map(|(text, label)| format!("{label}\t{text}\n"));
    let data = file(
        "evaluate.tsv",
        format!("l\tt\n{}", rows.collect::<String>()),
    );
    let report = evaluate(&data, &["--json"]).json();
    assert_eq!(
        (&report["n"], &report["truncated"]),
        (&json!(10), &json!(0))
    );
    assert_eq!(report["accuracy"], 0.7);
    assert_eq!(report["mode"], "int8");
    for label in report["labels"].as_array().unwrap() {
        let name = label["label"].as_str().unwrap();
        let count = |of: &[String]| of.iter().filter(|l| *l == name).count();
        assert_eq!(label["n"], count(&truth));
        assert_eq!(label["answers"], count(&answers));
    }
    let confusion = report["confusion"].as_array().unwrap();
    let diagonal = (0..confusion.len()).map(|i| confusion[i][i].as_u64().unwrap());
    assert_eq!(diagonal.sum::<u64>(), 7);
    // The same out of other formats, with one thread, and for people.
    let rows = texts
        .iter()
        .zip(&truth)
        .map(|(text, label)| json!({"t": text, "l": label}));
    let rows: Vec<String> = rows.map(|row| row.to_string()).collect();
    let lines = file("evaluate.jsonl", rows.join("\n"));
    let again = evaluate(&lines, &["--json", "--threads", "1"]).json();
    assert_eq!(again["confusion"], report["confusion"]);
    let text = evaluate(&lines, &[]).ok();
    assert!(
        text.contains("accuracy 70.00 % (standard error 14.49)"),
        "{text}"
    );
    assert!(text.contains("10 examples, int8 mode"), "{text}");
    // A mode is passed on.
    let exact = evaluate(&data, &["--json", "--mode", "exact"]).json();
    assert_eq!(exact["mode"], "exact");
}

#[test]
fn pairs_are_classified_as_pairs() {
    let (texts, second) = (texts(), "f g");
    let pairs: Vec<String> = texts
        .iter()
        .map(|text| format!("{text}\t{second}"))
        .collect();
    let (_, answers) = answers(&pairs, &["--pair"]);
    let rows = texts
        .iter()
        .zip(&answers)
        .map(|(text, label)| format!("{text},{label},{second}\n"));
    let data = file("pairs.csv", format!("t,l,u\n{}", rows.collect::<String>()));
    let report = evaluate(&data, &["--json", "--text-b", "u"]).json();
    assert_eq!(report["accuracy"], 1.0);
}

#[test]
fn long_texts_are_errors_or_cut_with_a_note() {
    let (labels, _) = answers(&texts(), &[]);
    let long = "film ".repeat(100);
    let data = file("long.csv", format!("t,l\na,{0}\n{long},{0}\n", labels[0]));
    evaluate(&data, &[]).fails(1, &["long.csv: line 3: ", "tokens"]);
    let run = evaluate(&data, &["--truncate", "--json"]);
    assert!(
        run.err.contains("1 text was cut to 32 tokens"),
        "{}",
        run.err
    );
    assert_eq!(run.json()["truncated"], 1);
}

#[test]
fn what_cannot_be_scored_is_an_error_with_its_place() {
    let (labels, _) = answers(&texts(), &[]);
    let data = file("labels.csv", format!("t,l\na,{}\nb,sideways\n", labels[0]));
    evaluate(&data, &[]).fails(1, &["labels.csv: line 3: ", "\"sideways\"", &labels[0]]);
    let broken = file("broken.tsv", b"t\tl\n\xff\tx\n");
    evaluate(&broken, &[]).fails(1, &["broken.tsv: line 2: field 1 is not UTF-8"]);
    let columns = ["--text", "t", "--label", "l"];
    let of =
        |model: &str, data: &str| centroid(&[&["evaluate", model, data], &columns[..]].concat());
    of(classifier(), "no/such.csv").fails(1, &["no/such.csv: "]);
    of("no/such.centroid", data.to_str().unwrap()).fails(1, &["no/such.centroid: "]);
    of(embedder(), data.to_str().unwrap()).fails(1, &["not a classifier"]);
    centroid(&["evaluate", classifier(), "x.csv", "--text", "t"]).fails(2, &["--label"]);
    let image = [
        "evaluate",
        classifier(),
        "x.csv",
        "--image",
        "t",
        "--label",
        "l",
    ];
    centroid(&image).fails(2, &["--image is for models of images"]);
}

/// ImageNet's classes have such names, so `convert` takes them.
#[test]
fn labels_of_one_name_are_not_scored() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(crate::checkpoint("bert-gelu")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let config = folder.path().join("config.json");
    let mut fields: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    fields["id2label"] = json!({"0": "crane", "1": "ox", "2": "crane"});
    std::fs::write(&config, fields.to_string()).unwrap();
    let model = folder.path().join("cranes.centroid");
    let model = model.to_string_lossy();
    let flags = ["--scheme", "f32", "-o", &model];
    centroid(&[&["convert", &folder.path().to_string_lossy()], &flags[..]].concat()).ok();
    let data = file("cranes.tsv", "t\tl\na\tox\n");
    let data = data.to_string_lossy();
    let flags = ["evaluate", &model, &data, "--text", "t", "--label", "l"];
    centroid(&flags).fails(1, &["cranes.centroid: two labels are \"crane\""]);
}

/// Whatever it answers would be right.
#[test]
fn a_network_of_one_output_is_not_scored() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("one.centroid");
    let model = model.to_string_lossy();
    centroid(&[
        "convert",
        "--random",
        "efficientnet-lite0",
        "--labels",
        "one",
        "-o",
        &model,
    ])
    .ok();
    let data = file("one.tsv", "l\tfile\none\tone.png\n");
    let data = data.to_string_lossy();
    let flags = ["evaluate", &model, &data, "--image", "file", "--label", "l"];
    centroid(&flags).fails(1, &["one.centroid", "does not choose one label of several"]);
}
