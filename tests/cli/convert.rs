//! `convert`: plans, precedence, reports, and what is never overwritten.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Run, centroid, checkpoint, words};

/// `convert` into `model.centroid` of a directory of its own.
struct Convert {
    directory: TempDir,
}

impl Convert {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn run(&self, source: &[&str], flags: &str) -> Run {
        let output = self.path("model.centroid");
        let start = [&["convert"], source, &["-o", &output]].concat();
        centroid(&[&start[..], &words(flags, &[])].concat())
    }

    fn checkpoint(&self, name: &str, flags: &str) -> Run {
        self.run(&[&checkpoint(name)], flags)
    }

    /// The tensors of `inspect --json --tensors`.
    fn tensors(&self) -> Vec<Value> {
        let file = self.path("model.centroid");
        let inspected = centroid(&["inspect", &file, "--json", "--tensors"]).json();
        inspected["tensors"].as_array().unwrap().clone()
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory.path()).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = files.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }
}

fn find<'a>(tensors: &'a [Value], name: &str) -> &'a Value {
    tensors.iter().find(|t| t["name"] == name).unwrap()
}

/// Converts the embedder by `flags` after `--force`, and returns its tensors.
fn sbert(flags: &str) -> Vec<Value> {
    let convert = Convert::new();
    convert.checkpoint("sbert", flags).ok();
    convert.tensors()
}

const UP: &str = "layers.0.ffn.up.weight";
const QUERY: &str = "layers.0.attention.query.weight";

#[test]
fn the_report_says_what_was_written() {
    let convert = Convert::new();
    let run = convert.checkpoint("sbert", "--centroids 16 --block ffn=3 --json");
    // The plan is on standard error: a line a tensor, notes, bytes by group.
    assert!(run.err.contains("layers.0.ffn.up.weight"), "{}", run.err);
    assert!(
        run.err.contains("\nnote: the pooler was dropped"),
        "{}",
        run.err
    );
    assert!(run.err.contains("\nplan: ffn 1128 B + "), "{}", run.err);
    let report = run.json();
    let file = convert.path("model.centroid");
    assert_eq!(report["file"], *file);
    assert_eq!(report["file_bytes"], fs::metadata(&file).unwrap().len());
    let artifact = centroid::Artifact::open(&file).unwrap();
    assert_eq!(report["weight_bytes"], artifact.weight_bytes());
    assert_eq!(report["tokenizer_bytes"], artifact.tokenizer_bytes());
    let parameters = report["parameters"].as_u64().unwrap();
    let ratio = 4.0 * parameters as f64 / artifact.weight_bytes() as f64;
    assert_eq!(report["compression_ratio"].as_f64().unwrap(), ratio);
    assert!(!report["notes"].as_array().unwrap().is_empty());
    let tensors = report["tensors"].as_array().unwrap();
    let bytes = tensors.iter().map(|t| t["bytes"].as_u64().unwrap());
    assert_eq!(bytes.sum::<u64>(), artifact.weight_bytes());
    let up = find(tensors, UP);
    assert_eq!((&up["group"], &up["scheme"]), (&"ffn".into(), &"pq".into()));
    assert_eq!(up["shape"], serde_json::json!([52, 28]));
    let error = up["relative_error"].as_f64().unwrap();
    assert!(error > 0.0 && error < 1.0);
    assert_eq!(convert.files(), ["model.centroid"]);

    let text = Convert::new();
    let out = text.checkpoint("sbert", "--scheme int8").ok();
    assert!(out.contains("times smaller than f32"), "{out}");
    let last = out.lines().last().unwrap();
    let size = fs::metadata(text.path("model.centroid")).unwrap().len();
    assert!(
        last.starts_with("wrote ") && last.ends_with(&format!("({size} bytes)")),
        "{last}"
    );
}

#[test]
fn files_are_overwritten_by_force_only() {
    let convert = Convert::new();
    let file = convert.write("model.centroid", b"precious");
    // Before any work: not even the plan is shown.
    convert
        .checkpoint("sbert", "")
        .fails(1, &["exists", "--force"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    convert.checkpoint("sbert", "--force").ok();
    assert_ne!(fs::read(&file).unwrap(), b"precious");
    assert_eq!(convert.files(), ["model.centroid"]);

    let elsewhere = convert.path("no/such/directory.centroid");
    let sbert = checkpoint("sbert");
    centroid(&["convert", &sbert, "-o", &elsewhere]).fails(1, &["directory does not exist"]);
    let directory = convert.path("");
    centroid(&["convert", &sbert, "-o", &directory, "--force"]).fails(1, &["is a directory"]);
}

#[test]
fn what_is_converted_is_not_written_over() {
    let convert = Convert::new();
    let own = convert.path("checkpoint");
    fs::create_dir(&own).unwrap();
    for entry in fs::read_dir(checkpoint("sbert")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, Path::new(&own).join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::remove_file(Path::new(&own).join("modules.json")).unwrap();
    let plan = convert.write("plan.toml", b"scheme = \"int8\"\n");
    let texts = convert.write("texts.txt", b"a film\n");
    let weights = format!("{own}/model.safetensors");
    let before = fs::read(&weights).unwrap();
    let flags = ["--plan", &plan, "--calibrate", &texts, "--force"];
    for (output, what) in [
        (&weights, "a part of it"),
        (&plan, "is the plan"),
        (&texts, "is what --calibrate names"),
    ] {
        let command = [&["convert", &own, "-o", output], &flags[..]].concat();
        centroid(&command).fails(1, &[what]);
    }
    assert!(fs::read(&weights).unwrap() == before);
    assert_eq!(fs::read(&texts).unwrap(), b"a film\n");
    // An artifact may lie beside its checkpoint, and be made again.
    let beside = format!("{own}/model.centroid");
    for _ in 0..2 {
        centroid(&[
            "convert", &own, "-o", &beside, "--scheme", "int8", "--force",
        ])
        .ok();
    }
}

/// A device stays one, and where nothing can be written that is said before any work.
#[test]
#[cfg(unix)]
fn outputs_that_cannot_be_are_refused_at_once() {
    let convert = Convert::new();
    let link = convert.path("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let sbert = checkpoint("sbert");
    let run = centroid(&["convert", &sbert, "-o", &link, "--force"]);
    run.fails(1, &["no regular file"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // Its temporary file would have too long a name.
    let long = convert.path(&"x".repeat(250));
    let run = centroid(&["convert", &sbert, "-o", &long]);
    assert!(!run.err.contains("plan:"), "{}", run.err);
    run.fails(1, &["too long"]);
    assert_eq!(convert.files(), ["null"]);
}

#[test]
fn a_failed_conversion_leaves_nothing() {
    let convert = Convert::new();
    let missing = convert.path("nothing");
    convert
        .run(&[&missing], "")
        .fails(1, &["nothing", "not a directory"]);
    let empty = convert.path("empty");
    fs::create_dir(&empty).unwrap();
    convert
        .run(&[&empty], "")
        .fails(1, &["config.json is missing"]);
    convert
        .checkpoint("sbert", "--layers 5")
        .fails(1, &["layer 5 does not exist"]);
    convert
        .checkpoint("sbert", "--block head=4")
        .fails(1, &["the group head"]);
    convert
        .checkpoint("sbert", "--labels a,b")
        .fails(1, &["--labels"]);
    convert
        .checkpoint("roberta-seq", "--pooling max")
        .fails(1, &["--pooling"]);
    convert
        .checkpoint("roberta-seq", "--normalize")
        .fails(1, &["--normalize"]);
    convert
        .checkpoint("roberta-seq", "--labels a,b,c")
        .fails(1, &[]);
    assert_eq!(convert.files(), ["empty"]);
}

#[test]
fn flags_reach_the_tensors() {
    let pq = sbert("--centroids 16 --centroid-type f16 --row-scale --block ffn=3,attention=7");
    let up = find(&pq, UP);
    assert_eq!(up["scheme"], "pq");
    for (field, expected) in [
        ("block", 3),
        ("last_block", 1),
        ("codes_per_row", 10),
        ("centroids", 16),
    ] {
        assert_eq!(up[field], expected, "{field}");
    }
    assert_eq!(
        (&up["centroid_type"], &up["row_scale"]),
        (&"f16".into(), &true.into())
    );
    assert_eq!(find(&pq, QUERY)["block"], 7);

    let int8 = sbert("--scheme int8 --zero-point");
    let up = find(&int8, UP);
    assert_eq!(
        (&up["scheme"], &up["row_scale"]),
        (&"int8".into(), &true.into())
    );
    assert_eq!(
        (&up["zero_point"], &up["block"]),
        (&"row".into(), &Value::Null)
    );
    let int4 = sbert("--scheme int4 --per-tensor");
    let up = find(&int4, UP);
    assert_eq!(
        (&up["scheme"], &up["row_scale"]),
        (&"int4".into(), &false.into())
    );
    assert_eq!(up["zero_point"], Value::Null);
    assert!(sbert("--scheme f32").iter().all(|t| t["scheme"] == "f32"));
    assert!(sbert("--scheme f16").iter().all(|t| t["scheme"] == "f16"));
}

#[test]
fn model_flags_reach_the_config() {
    let convert = Convert::new();
    let flags = "--scheme f16 --layers 0,2 --labels good,bad";
    convert.checkpoint("roberta-seq", flags).ok();
    let file = convert.path("model.centroid");
    let inspected = centroid(&["inspect", &file, "--json"]).json();
    assert_eq!(
        (&inspected["layers"], &inspected["distinct_layers"]),
        (&2.into(), &2.into())
    );
    assert_eq!(inspected["labels"], serde_json::json!(["good", "bad"]));
    let out = centroid(&["classify", &file, "film"]).ok();
    assert!(out.contains("good ") && out.contains("bad "), "{out}");

    convert
        .checkpoint("bert-model", "--force --pooling max --normalize")
        .ok();
    let config = &centroid(&["inspect", &file, "--json"]).json()["config"];
    assert_eq!(
        (&config["pooling"], &config["normalize"]),
        (&"max".into(), &true.into())
    );
}

/// Names with commas, as ImageNet's, cannot be said in a list.
#[test]
fn labels_come_from_a_file_too() {
    let convert = Convert::new();
    let labels = convert.path("labels.txt");
    let flags = format!("--scheme f16 --force --labels-file {labels}");
    std::fs::write(&labels, "maillot, tank suit\r\nox\n").unwrap();
    convert.checkpoint("roberta-seq", &flags).ok();
    let file = convert.path("model.centroid");
    let inspected = centroid(&["inspect", &file, "--json"]).json();
    assert_eq!(
        inspected["labels"],
        serde_json::json!(["maillot, tank suit", "ox"])
    );
    for (text, words) in [
        (&b"a\n\nb\n"[..], "line 2: label 2 is empty"),
        (b"a\na\n", "line 2: \"a\" is there twice"),
        (b"", "line 1: the file is empty"),
        (b"a\n\xff\n", "utf-8"),
        (b"a\nb\nc\n", "3 labels"),
    ] {
        std::fs::write(&labels, text).unwrap();
        convert.checkpoint("roberta-seq", &flags).fails(1, &[words]);
    }
}

#[test]
fn a_seed_decides_the_bytes() {
    let bytes = |flags: &str| {
        let convert = Convert::new();
        let flags = format!("--layers 0 --json {flags}");
        convert.run(&["--random", "minilm-l6"], &flags).ok();
        fs::read(convert.path("model.centroid")).unwrap()
    };
    assert_eq!(bytes(""), bytes("--seed 0"));
    assert_ne!(bytes("--seed 1"), bytes("--seed 2"));
}

#[test]
fn a_plan_file_stands_between_defaults_and_flags() {
    let convert = Convert::new();
    let planned = |text: &str, flags: &str| {
        let file = convert.write("plan.toml", text.as_bytes());
        let flags = format!("--force --centroids 16 --plan {file} {flags}");
        convert.checkpoint("sbert", &flags).ok();
        convert.tensors()
    };
    let tensors = planned("[groups.ffn]\nblock = 2\n", "");
    assert_eq!(find(&tensors, UP)["block"], 2);
    assert_eq!(find(&tensors, QUERY)["block"], 4);
    let tensors = planned("[groups.ffn]\nblock = 2\n", "--block ffn=5");
    assert_eq!(find(&tensors, UP)["block"], 5);
    // The file's scheme gives way to the flag; a group's own does not.
    let text = "scheme = \"f16\"\n[groups.ffn]\nscheme = \"int8\"\n[groups.attention]\nblock = 7\n";
    let tensors = planned(text, "--scheme pq");
    assert_eq!(find(&tensors, UP)["scheme"], "int8");
    assert_eq!(find(&tensors, QUERY)["scheme"], "pq");
    assert_eq!(find(&tensors, QUERY)["block"], 7);
    // Rules for single tensors go over flags.
    let text = format!("[[tensors]]\npattern = \"{UP}\"\nblock = 6\n");
    let tensors = planned(&text, "--block ffn=5");
    assert_eq!(find(&tensors, UP)["block"], 6);
    assert_eq!(find(&tensors, "layers.0.ffn.down.weight")["block"], 5);
}

#[test]
fn plan_files_fail_in_one_line() {
    let convert = Convert::new();
    for (text, expected) in [
        ("scheme = \"int9\"", "\"int9\" is unknown"),
        ("groups.ffn.block = 0", "block size 0"),
        ("groups.ffn.blok = 1", "unknown field"),
        ("\nseed = \n", "line 2"),
        (
            "[[tensors]]\npattern = \"nothing*\"\nblock = 2",
            "matches no tensor",
        ),
    ] {
        let file = convert.write("plan.toml", text.as_bytes());
        let flags = format!("--plan {file}");
        convert.checkpoint("sbert", &flags).fails(1, &[expected]);
    }
    let missing = format!("--plan {}", convert.path("missing.toml"));
    convert
        .checkpoint("sbert", &missing)
        .fails(1, &["missing.toml"]);
    let file = convert.write("plan.toml", b"scheme = \"int8\"");
    for flags in ["--block ffn=4", "--centroids 16"] {
        let flags = format!("--plan {file} {flags}");
        convert.checkpoint("sbert", &flags).fails(2, &["pq"]);
    }
}

#[test]
fn calibration_files_are_checked() {
    let convert = Convert::new();
    for (content, expected) in [
        (&b""[..], "line 1: the file is empty"),
        (b"\n \n\n", "line 3: "),
        (b"fine\n\nbad \xff\n", "line 3: invalid UTF-8 at byte 4"),
    ] {
        let file = convert.write("texts.txt", content);
        let run = convert.checkpoint("sbert", &format!("--calibrate {file}"));
        run.fails(1, &["texts.txt", expected]);
    }
    let missing = format!("--calibrate {}", convert.path("missing.txt"));
    convert
        .checkpoint("sbert", &missing)
        .fails(1, &["missing.txt"]);
    let file = convert.write("texts.txt", "film\n\nIt was the best\r\n".as_bytes());
    convert
        .checkpoint("sbert", &format!("--scheme f32 --calibrate {file}"))
        .fails(1, &["calibration is for codes, int8 and int4"]);
    convert
        .checkpoint("sbert", &format!("--scheme int8 --calibrate {file}"))
        .ok();
    let inspected = centroid(&["inspect", &convert.path("model.centroid"), "--json"]).json();
    let recipe = inspected["provenance"]["recipe"].as_str().unwrap();
    assert!(recipe.contains("calibrated on 2 texts"), "{recipe}");
}

#[test]
fn pictures_calibrate_networks_of_images() {
    let convert = Convert::new();
    // Read before the checkpoint is.
    let checkpoint = convert.write("net.pth", b"no checkpoint");
    let folder = convert.path("pictures");
    fs::create_dir_all(format!("{folder}/deeper")).unwrap();
    let calibrate = |checkpoint: &str, on: &str| {
        let out = convert.path("net.centroid");
        let flags = [
            "--image-size",
            "64",
            "--scheme",
            "int8",
            "--force",
            "--calibrate",
            on,
        ];
        centroid(&[&["convert", checkpoint, "-o", &out], &flags[..]].concat())
    };
    let nothing = "no picture is in this directory";
    calibrate(&checkpoint, &folder).fails(1, &[&folder, nothing]);
    let empty = convert.write("list.txt", b"\n");
    calibrate(&checkpoint, &empty).fails(1, &["list.txt", "every line is empty"]);
    let missing = convert.path("nowhere");
    calibrate(&checkpoint, &missing).fails(1, &["nowhere"]);

    let lite0 = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/lite0/lite0.pth");
    assert!(
        Path::new(lite0).is_file(),
        "{lite0} is missing: run tools/setup"
    );
    let picture = image::RgbImage::from_fn(90, 70, |x, y| image::Rgb([x as u8, y as u8, 7]));
    picture.save(format!("{folder}/a.png")).unwrap();
    picture.save(format!("{folder}/deeper/b.JPG")).unwrap();
    fs::write(format!("{folder}/notes.txt"), "no picture").unwrap();
    let recipe = || {
        let file = convert.path("net.centroid");
        let inspected = centroid(&["inspect", &file, "--json"]).json();
        inspected["provenance"]["recipe"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    calibrate(lite0, &folder).ok();
    assert!(
        recipe().contains("calibrated on 2 pictures"),
        "{}",
        recipe()
    );
    let list = convert.write("list.txt", b"pictures/a.png\n\n");
    calibrate(lite0, &list).ok();
    assert!(
        recipe().contains("calibrated on 1 pictures"),
        "{}",
        recipe()
    );
    // Here the plan is printed before.
    for (lines, expected) in [
        ("pictures/a.png\npictures/c.png\n", "c.png: No such file"),
        ("pictures/notes.txt\n", "notes.txt: not a picture"),
    ] {
        let list = convert.write("list.txt", lines.as_bytes());
        let run = calibrate(lite0, &list);
        let last = run.err.lines().last().unwrap();
        assert!(run.code == 1 && last.starts_with("error: "), "{last}");
        assert!(last.contains(expected), "{last}");
        let kept = recipe().contains("calibrated on 1 pictures");
        assert!(kept, "what was there stays");
    }
}

#[test]
fn random_roberta_base_fits_its_budget() {
    let convert = Convert::new();
    let run = convert.run(&["--random", "roberta-base"], "--json");
    assert!(run.err.contains("answers are not"), "{}", run.err);
    let report = run.json();
    assert!(report["weight_bytes"].as_u64().unwrap() <= 14_200_000);
    assert_eq!(report["tensors"][0]["relative_error"], Value::Null);
    let file = convert.path("model.centroid");
    let inspected = centroid(&["inspect", &file, "--json"]).json();
    assert_eq!(
        (&inspected["layers"], &inspected["distinct_layers"]),
        (&12.into(), &12.into())
    );
    for field in [
        "weight_bytes",
        "tokenizer_bytes",
        "file_bytes",
        "parameters",
        "compression_ratio",
    ] {
        assert_eq!(inspected[field], report[field], "{field}");
    }
    assert!(Path::new(&file).exists());
}

#[test]
fn a_closed_pipe_does_not_lose_the_file() {
    let convert = Convert::new();
    let output = convert.path("model.centroid");
    let source = checkpoint("sbert");
    let mut child = crate::command(&["convert", &source, "-o", &output, "--scheme", "f16"])
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{err}");
    assert!(!err.contains("error"), "{err}");
    assert_eq!(convert.files(), ["model.centroid"]);
}
