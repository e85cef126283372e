//! `train`: from a run file to a file that `evaluate` scores alike; Ctrl-C and `kill -9` lose nothing.

#[path = "../train/tiny.rs"]
mod tiny;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Command;

use tiny::Tiny;

use crate::{centroid, command};

const STAGES: &str = "[[stage]]\nname = \"tune\"\nepochs = 3\nlearning-rate = 2e-3\n\n\
                      [[stage]]\nname = \"codes\"\nquantize = [\"ffn\"]\nepochs = 2\n";

fn run_of(tiny: &Tiny, stages: &str) -> String {
    let keys = "threads = 1\nsave = 3\n";
    tiny.recipe("out", keys, &tiny.plan(), stages)
        .display()
        .to_string()
}

#[test]
fn a_run_prints_what_it_wrote_and_how_good_it_is() {
    let tiny = Tiny::new();
    let file = run_of(&tiny, STAGES);
    let done = centroid(&["train", &file, "--json"]);
    assert!(done.err.contains("layers.0.ffn.up.weight"), "{}", done.err);
    assert!(
        done.err.contains("always the same answer would be right"),
        "{}",
        done.err
    );
    assert!(
        done.err.contains("codes, epoch 2: validation accuracy"),
        "{}",
        done.err
    );
    let report = done.json();
    let artifact = tiny.path("out/model.centroid").display().to_string();
    assert_eq!(report["file"], artifact);
    assert_eq!(report["file_bytes"], fs::metadata(&artifact).unwrap().len());
    assert!(
        report["int8"]["accuracy"].as_f64().unwrap() > 0.9,
        "{report}"
    );

    // The artifact says where it comes from.
    let inspected = centroid(&["inspect", &artifact]).ok();
    for part in [
        "codes for ffn",
        "training_data_sha256",
        "examples; accuracy",
        "trained; ",
    ] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    // The same texts, scored by another verb.
    let answers = fs::read_to_string(tiny.path("out/answers.jsonl")).unwrap();
    let data = fs::read_to_string(tiny.path("data.tsv")).unwrap();
    let lines: Vec<&str> = data.lines().collect();
    let mut test = String::from("text\tlabel\n");
    for answer in answers.lines() {
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        test += lines[answer["line"].as_u64().unwrap() as usize - 1];
        test.push('\n');
    }
    let path = tiny.path("test.tsv");
    fs::write(&path, test).unwrap();
    let path = path.display().to_string();
    let scores = centroid(&[
        "evaluate", &artifact, &path, "--text", "text", "--label", "label", "--json",
    ]);
    assert_eq!(scores.json()["accuracy"], report["int8"]["accuracy"]);

    centroid(&["train", &file]).fails(1, &["model.centroid", "--force starts anew"]);
    let log = tiny.path("out/log.jsonl").display().to_string();
    fs::remove_file(tiny.path("out/log.svg")).unwrap();
    centroid(&["train", "--plot", &log]).ok();
    assert!(tiny.path("out/log.svg").exists());
}

/// Starts a run, sends a signal after its first step, and returns its exit code and last line.
fn interrupted(arguments: &[&str], signal: &str) -> (Option<i32>, String) {
    let mut child = command(arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.find(|line| line.as_ref().unwrap().starts_with("step "));
    assert!(first.is_some());
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let last = lines.map(Result::unwrap).last().unwrap_or_default();
    (child.wait().unwrap().code(), last)
}

#[test]
fn a_signal_loses_nothing() {
    // Long enough that the signal comes in time.
    let stages = STAGES.replace("epochs = 3", "epochs = 12");
    let (whole, broken) = (Tiny::new(), Tiny::new());
    centroid(&["train", &run_of(&whole, &stages)]).ok();
    let file = run_of(&broken, &stages);
    let (code, last) = interrupted(&["train", &file], "-INT");
    assert_eq!(code, Some(1), "{last}");
    assert!(
        last.starts_with("error: stopped; ") && last.contains("--resume"),
        "{last}"
    );
    assert!(broken.path("out/state.safetensors").exists());
    let (code, last) = interrupted(&["train", &file, "--resume"], "-TERM");
    assert_eq!(code, Some(1), "{last}");
    assert!(last.starts_with("error: stopped; "), "{last}");
    let (code, _) = interrupted(&["train", &file, "--resume"], "-KILL");
    assert_eq!(code, None);
    centroid(&["train", &file, "--resume"]).ok();
    let read = |tiny: &Tiny| fs::read(tiny.path("out/model.centroid")).unwrap();
    assert!(read(&whole) == read(&broken));
}

#[test]
fn mistakes_are_one_line() {
    let tiny = Tiny::new();
    centroid(&["train"]).fails(2, &["RUN.toml"]);
    centroid(&["train", "no.toml"]).fails(1, &["no.toml: "]);
    let bad = run_of(&tiny, &STAGES.replace("epochs = 3", "epoch = 3"));
    centroid(&["train", &bad]).fails(
        1,
        &[
            "out.toml: line ",
            "`epoch`; the nearest known one is `epochs`",
        ],
    );
    centroid(&["train", &bad, "--resume", "--force"]).fails(2, &["--resume"]);
    centroid(&["train", "--plot", &bad]).fails(1, &["out.toml: line 1: "]);

    // What is in the way of the output is left alone.
    let file = run_of(&tiny, STAGES);
    fs::write(tiny.path("out"), "mine").unwrap();
    let failed = centroid(&["train", &file]);
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains("out: "), "{}", failed.err);
    assert_eq!(fs::read_to_string(tiny.path("out")).unwrap(), "mine");
}

/// A disk that is full, as a limit on the size of files: the state before stays, and nothing half
/// written.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let (whole, limited) = (Tiny::new(), Tiny::new());
    centroid(&["train", &run_of(&whole, STAGES)]).ok();
    let file = run_of(&limited, STAGES);
    let (_, last) = interrupted(&["train", &file], "-INT");
    assert!(last.contains("--resume"), "{last}");
    let state = limited.path("out/state.safetensors");
    let before = fs::read(&state).unwrap();
    let names = || {
        let entries = fs::read_dir(limited.path("out")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let files = names();

    // In units of 512 bytes; without the trap a signal would end the process.
    let limit = before.len() / 512 / 2;
    let done = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\""])
        .args([
            &limit.to_string(),
            env!("CARGO_BIN_EXE_centroid"),
            "train",
            &file,
            "--resume",
        ])
        .output()
        .unwrap();
    let error = String::from_utf8(done.stderr).unwrap();
    let error = error.lines().last().unwrap();
    assert_eq!(done.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with("error: ") && error.contains("state.safetensors"),
        "{error}"
    );
    assert!(fs::read(&state).unwrap() == before);
    assert_eq!(names(), files);

    centroid(&["train", &file, "--resume"]).ok();
    let read = |tiny: &Tiny| fs::read(tiny.path("out/model.centroid")).unwrap();
    assert!(read(&whole) == read(&limited));
}
