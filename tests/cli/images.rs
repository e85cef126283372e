//! `centroid classify` with a model of images.

use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Run, centroid};

/// A folder with a small network of generated weights and a picture.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let model = folder.path("model.centroid");
        let run = centroid(&["convert", "--random", "efficientnet-lite0", "-o", &model]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(run.err.contains("plan: other "), "{}", run.err);
        let picture = RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8 * 6, y as u8 * 8, 90]));
        picture.save(folder.path("a.png")).unwrap();
        picture.save(folder.path("b.jpg")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn classify(&self, flags: &[&str], files: &[&str]) -> Run {
        let model = self.path("model.centroid");
        let files: Vec<String> = files.iter().map(|name| self.path(name)).collect();
        let mut args = vec!["classify", &model];
        args.extend(flags);
        args.extend(files.iter().map(String::as_str));
        centroid(&args)
    }
}

#[test]
fn pictures_get_labels() {
    let folder = Folder::new();
    let run = folder.classify(&[], &["a.png", "b.jpg"]);
    let out = run.ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, name) in lines.iter().zip(["a.png", "b.jpg"]) {
        let (labels, file) = line.split_once('\t').unwrap();
        assert_eq!(labels.matches("LABEL_").count(), 5, "{line}");
        assert_eq!(file, folder.path(name));
    }
    let json = folder
        .classify(&["--json", "--top-k", "1"], &["a.png"])
        .json_lines();
    assert_eq!(json[0]["file"], folder.path("a.png"));
    let labels = json[0]["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 1);
    let label: &Value = &labels[0]["label"];
    assert!(lines[0].starts_with(label.as_str().unwrap()), "{label}");
}

#[test]
fn what_is_not_for_pictures_is_refused() {
    let folder = Folder::new();
    for flag in ["--pair", "--ids", "--truncate", "--max-length=9"] {
        let name = flag.split('=').next().unwrap();
        folder
            .classify(&[flag], &["a.png"])
            .fails(2, &[name, "models of texts"]);
    }
    folder
        .classify(&[], &[])
        .fails(2, &["name the pictures' files"]);
    folder
        .classify(&["-"], &[])
        .fails(2, &["name the pictures' files"]);
    // What came before is printed.
    let out = folder
        .classify(&[], &["a.png", "no.png"])
        .fails(1, &["no.png", "No such file"]);
    assert_eq!(out.lines().count(), 1);
    std::fs::write(folder.path("text.png"), "once upon a time").unwrap();
    folder
        .classify(&[], &["text.png"])
        .fails(1, &["text.png", "not a picture"]);
    let model = folder.path("model.centroid");
    centroid(&["embed", &model, "a text"]).fails(1, &["a model of kind efficientnet"]);
    let directory = Path::new(&model).parent().unwrap().to_str().unwrap();
    let output = folder.path("x.centroid");
    let flags = ["convert", directory, "--image-size", "64", "-o", &output];
    centroid(&flags).fails(2, &["--network says which"]);
    let flags = ["convert", directory, "--crop", "whole", "-o", &output];
    centroid(&flags).fails(2, &["--crop is for networks of images"]);
}

#[test]
fn inspect_shows_networks() {
    let folder = Folder::new();
    let model = folder.path("model.centroid");
    let out = centroid(&["inspect", &model]).ok();
    for part in [
        "efficientnet (classification)",
        "16 blocks, 32 to 1280 channels (relu6, padding same)",
        "224 x 224 pixels, cut out of 256 before resize (bicubic)",
        "mean 0.498039,0.498039,0.498039, std 0.501961,0.501961,0.501961",
        "1000: LABEL_0, LABEL_1, LABEL_2, LABEL_3, LABEL_4, ...",
        "pointwise",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    let json = centroid(&["inspect", &model, "--json"]).json();
    assert_eq!(json["kind"], "efficientnet");
    assert_eq!(json["config"]["size"], 224);
    assert_eq!(json["config"]["mean"][0], 0.498039);
    assert_eq!(json["config"]["std"][2], 0.501961);
    assert_eq!(json["labels"].as_array().unwrap().len(), 1000);
    assert!(json.get("layers").is_none());
}

/// A flag for schemes that only the other kind of models has here.
#[test]
fn flags_are_for_groups_that_the_model_has() {
    let folder = Folder::new();
    let (plan, output) = (folder.path("plan.toml"), folder.path("x.centroid"));
    let f16 = |groups: &[&str]| -> String {
        let groups = groups
            .iter()
            .map(|group| format!("[groups.{group}]\nscheme = \"f16\"\n"));
        groups.collect()
    };
    for (architecture, groups) in [
        (
            "minilm-l6",
            ["ffn", "attention", "embedding", "position", "head"],
        ),
        (
            "efficientnet-b0",
            ["stem", "pointwise", "depthwise", "squeeze", "classifier"],
        ),
    ] {
        std::fs::write(&plan, f16(&groups)).unwrap();
        let flags = [
            "convert",
            "--random",
            architecture,
            "--plan",
            &plan,
            "-o",
            &output,
        ];
        let flags = [&flags[..], &["--centroids", "16"]].concat();
        centroid(&flags).fails(2, &["--centroids is for pq"]);
    }
}

#[test]
fn pictures_are_scored() {
    let folder = Folder::new();
    let top = folder.classify(&["--json", "--top-k", "1"], &["a.png", "b.jpg"]);
    let answers: Vec<String> = (top.json_lines().iter())
        .map(|line| line["labels"][0]["label"].as_str().unwrap().to_owned())
        .collect();
    let data = folder.path("data.tsv");
    let other = answers.iter().all(|answer| answer == "LABEL_7");
    let wrong = if other { "LABEL_8" } else { "LABEL_7" };
    let lines = format!(
        "file\tlabel\na.png\t{}\nb.jpg\t{}\nb.jpg\t{wrong}\n",
        answers[0], answers[1]
    );
    std::fs::write(&data, lines).unwrap();
    let model = folder.path("model.centroid");
    let score = |data: &str, flags: &[&str]| {
        centroid(&[&["evaluate", &model, data, "--label", "label"], flags].concat())
    };
    let report = score(&data, &["--image", "file", "--json"]).json();
    assert_eq!(report["n"], 3);
    assert!((report["accuracy"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9);
    // Most of the thousand labels are in nobody's mouth.
    let text = score(&data, &["--image", "file"]).ok();
    assert!(text.lines().count() < 20, "{text}");
    assert!(
        text.contains("labels are neither in the data nor among the answers"),
        "{text}"
    );
    score(&data, &[]).fails(2, &["--text"]);
    score(&data, &["--text", "file"]).fails(2, &["--image names the column"]);
    score(&data, &["--image", "file", "--truncate"])
        .fails(2, &["--truncate is for models of texts"]);
    score(&data, &["--image", "path"]).fails(1, &["path"]);
    let bad = folder.path("bad.tsv");
    std::fs::write(&bad, "file\tlabel\na.png\tLABEL_1\ndata.tsv\tLABEL_2\n").unwrap();
    score(&bad, &["--image", "file"]).fails(1, &["bad.tsv: line 3: ", "data.tsv", "picture"]);
    std::fs::write(&bad, "file\tlabel\na.png\tdog\n").unwrap();
    score(&bad, &["--image", "file"]).fails(1, &["bad.tsv: line 2: ", "\"dog\""]);
}
