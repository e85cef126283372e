//! `inspect`, and the library's own description of an artifact.

use std::fs;

use crate::{centroid, checkpoint, classifier, embedder};

#[test]
fn json_has_what_scripts_read() {
    let inspected = centroid(&["inspect", classifier(), "--json"]).json();
    assert_eq!(inspected["kind"], "encoder");
    assert_eq!(inspected["checksums"], "verified");
    assert_eq!(
        (&inspected["layers"], &inspected["distinct_layers"]),
        (&3.into(), &3.into())
    );
    assert_eq!(
        inspected["file_bytes"],
        fs::metadata(classifier()).unwrap().len()
    );
    let number = |field: &str| inspected[field].as_f64().unwrap();
    assert_eq!(number("weight_bytes"), 4.0 * number("parameters"));
    assert_eq!(
        (number("bits_per_weight"), number("compression_ratio")),
        (32.0, 1.0)
    );
    assert!(number("tokenizer_bytes") > 1000.0);
    assert_eq!(inspected["tokenizer_kind"], "tokenizer tables");
    assert!(number("file_bytes") > number("weight_bytes") + number("tokenizer_bytes"));
    let config = &inspected["config"];
    assert_eq!(
        (&config["family"], &config["task"]),
        (&"roberta".into(), &"classification".into())
    );
    assert_eq!(
        (&config["max_tokens"], &config["hidden"]),
        (&32.into(), &48.into())
    );
    assert_eq!(inspected["provenance"]["source"], "roberta-seq");
    assert_eq!(
        inspected["labels"],
        serde_json::json!(["negative", "positive"])
    );
    let groups = inspected["groups"].as_array().unwrap();
    let sum = |field: &str| {
        groups
            .iter()
            .map(|g| g[field].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(inspected["weight_bytes"], sum("bytes"));
    assert_eq!(inspected["parameters"], sum("parameters"));
    assert!(inspected.get("tensors").is_none());
}

#[test]
fn shared_layers_count_each_time_and_are_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let inspect = |flags: &[&str]| {
        let file = directory.path().join(format!("{}.centroid", flags.len()));
        let (file, source) = (file.to_str().unwrap(), checkpoint("roberta-seq"));
        let start = ["convert", &source, "-o", file, "--scheme", "int8"];
        centroid(&[&start, flags].concat()).ok();
        let artifact = centroid::Artifact::open(file).unwrap();
        let tensors: Vec<_> = artifact.tensors().collect();
        let own: u64 = tensors.iter().map(|t| t.own_bytes).sum();
        assert_eq!(own, artifact.weight_bytes());
        centroid(&["inspect", file, "--json", "--tensors"]).json()
    };
    let distinct = inspect(&[]);
    let shared = inspect(&["--share", "2"]);
    assert_eq!(
        (&shared["layers"], &shared["distinct_layers"]),
        (&3.into(), &2.into())
    );
    assert_eq!(shared["parameters"], distinct["parameters"]);
    assert!(shared["weight_bytes"].as_u64() < distinct["weight_bytes"].as_u64());
    let tensors = shared["tensors"].as_array().unwrap();
    let (mut with, mut own) = (0, 0);
    for tensor in tensors {
        let name = tensor["name"].as_str().unwrap();
        match name.strip_prefix("layers.1.") {
            Some(part) => {
                assert_eq!(tensor["shared_with"], format!("layers.0.{part}"));
                with += 1;
            }
            None => {
                assert!(tensor["shared_with"].is_null(), "{name}");
                own += 1;
            }
        }
    }
    assert_eq!((with, own), (16, tensors.len() - 16));
}

#[test]
fn people_get_lines() {
    let out = centroid(&["inspect", embedder()]).ok();
    for part in [
        "encoder (bert, embedding)",
        "checksums verified",
        "mean, L2 norm 1",
        "bits a weight",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains("layers.0.ffn.up.weight"));
    let out = centroid(&["inspect", embedder(), "--tensors"]).ok();
    let line = out
        .lines()
        .find(|l| l.starts_with("layers.0.ffn.up.weight"))
        .unwrap();
    assert!(line.contains("[52, 28]") && line.ends_with("f32"), "{line}");
}

#[test]
fn damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("damaged.centroid");
    let mut bytes = fs::read(embedder()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap();
    centroid(&["inspect", file]).fails(1, &["damaged.centroid", "checksum"]);
    fs::write(file, &bytes[..middle]).unwrap();
    centroid(&["inspect", file]).fails(1, &["damaged.centroid"]);
}

#[test]
fn the_library_describes_codes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pq.centroid");
    let (path, source) = (file.to_str().unwrap(), checkpoint("sbert"));
    centroid(&[
        "convert",
        &source,
        "-o",
        path,
        "--centroids",
        "16",
        "--block",
        "ffn=3",
    ])
    .ok();
    let artifact = centroid::Artifact::open(&file).unwrap();
    let up = artifact
        .tensors()
        .find(|t| t.name == "layers.0.ffn.up.weight")
        .unwrap();
    let pq = up.pq.unwrap();
    assert_eq!(
        (pq.block, pq.last_block, pq.codes_per_row, pq.centroids),
        (3, 1, 10, 16)
    );
    assert_eq!(pq.codebook, centroid::Scheme::Int8);
    // Codes, codebook and its scale.
    assert_eq!((up.bytes, up.own_bytes), (52 * 10 + 16 * 3 + 4, up.bytes));
    assert_eq!(up.parameters(), 52 * 28);
    let encoder = artifact.encoder().unwrap();
    assert_eq!(
        (encoder.task, encoder.pooling, encoder.normalize),
        ("embedding", Some("mean"), true)
    );
}

/// Opening one waits for a writer.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.centroid");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let pipe = pipe.to_string_lossy();
    centroid(&["inspect", &pipe]).fails(1, &["pipe.centroid", "not a regular file"]);
}
