//! Bad usage is exit code 2 and one line; help is on standard output.

use crate::{centroid, checkpoint, classifier, words};

#[test]
fn bad_flags_are_usage_errors() {
    let sbert = checkpoint("sbert");
    let convert = |flags: &str| format!("convert {sbert} -o unwritten.centroid {flags}");
    let cases: &[(String, &str)] = &[
        ("".into(), "a verb is missing"),
        ("frobnicate".into(), "'frobnicate'"),
        ("inspect".into(), "<FILE>"),
        ("inspect x --frobnicate".into(), "'--frobnicate'"),
        ("classify x --threads 0".into(), "--threads"),
        ("classify x --threads many".into(), "--threads"),
        ("classify x --top-k 0".into(), "--top-k"),
        ("classify x --max-length 0".into(), "--max-length"),
        ("classify x --mode fast".into(), "int8, exact"),
        ("embed x --top-k 1".into(), "'--top-k'"),
        ("bench x --seq 0".into(), "--seq"),
        ("bench x --seq 8,,16".into(), "--seq"),
        ("bench x --batch 0".into(), "--batch"),
        ("bench x --threads 1,0".into(), "--threads"),
        ("bench x --runs 0".into(), "--runs"),
        ("bench x --seconds nan".into(), "--seconds"),
        ("bench x -o xml".into(), "md, csv, json"),
        ("bench x --scheme pq".into(), "not for a file"),
        ("bench x --block ffn=4".into(), "not for a file"),
        ("bench x --share 2".into(), "not for a file"),
        (
            "bench minilm-l6 --scheme int8 --block ffn=4".into(),
            "block sizes are for pq",
        ),
        ("convert -o x".into(), "CHECKPOINT"),
        ("convert --random minilm-l6".into(), "--output"),
        ("convert --random gpt-2 -o x".into(), "roberta-base"),
        (convert("--random minilm-l6"), "--random"),
        (
            "convert --random minilm-l6 -o x --calibrate f".into(),
            "--calibrate",
        ),
        (convert("--scheme int9"), "pq, int8, int4, f16, f32"),
        (convert("--block ffn=0"), "1 to 64"),
        (convert("--block ffn=65"), "1 to 64"),
        (convert("--block foo=1"), "\"foo\" is unknown"),
        (convert("--block ffn"), "GROUP=N"),
        (convert("--block ffn=4,ffn=8"), "twice"),
        (convert("--centroids 1"), "2 to 256"),
        (convert("--centroids 257"), "2 to 256"),
        (convert("--centroid-type f32"), "int8, f16"),
        (convert("--layers 2,1"), "ascending"),
        (convert("--layers 1,1"), "ascending"),
        (convert("--layers 0-2"), "not a layer"),
        (convert("--share 0"), "--share"),
        (convert("--seed -1"), "'-1'"),
        (convert("--labels a,,b"), "label 2 is empty"),
        (convert("--labels a,b,a"), "\"a\" is there twice"),
        (convert("--pooling median"), "mean, cls, max"),
        (
            convert("--scheme int8 --block ffn=4"),
            "block sizes are for pq",
        ),
        (convert("--scheme int8 --centroids 16"), "--centroids"),
        (
            convert("--scheme int8 --centroid-type f16"),
            "--centroid-type",
        ),
        (convert("--scheme int4 --kmeans-full"), "--kmeans-full"),
        (convert("--scheme f16 --row-scale"), "--row-scale"),
        (convert("--zero-point"), "--zero-point"),
        (convert("--per-tensor"), "--per-tensor"),
        (
            convert("--scheme int8 --per-tensor --row-scale"),
            "--row-scale",
        ),
        (convert("--seed 1 --seed 2"), "--seed"),
        (convert("--scheme f16 --seed 1"), "--seed is for pq"),
        (
            convert("--network resnet50"),
            "\"resnet50\" is unknown; known: efficientnet-X",
        ),
        (
            convert("--network tf_efficientnet_b0.ap_in1k"),
            "the config.json of timm's directory",
        ),
        (
            convert("--network efficientnet_b0 --share 2"),
            "--share is for models of texts",
        ),
        (
            convert("--network efficientnet_b0 --pooling mean"),
            "--pooling is for models of texts",
        ),
        (
            convert("--network efficientnet_b0 --normalize"),
            "--normalize is for models of texts",
        ),
        (
            convert("--network efficientnet_b0 --layers 0,1"),
            "--layers is for models of texts",
        ),
        (
            convert("--network efficientnet_b0 --block ffn=8"),
            "--block ffn is for models of texts",
        ),
        (
            convert("--block pointwise=4"),
            "--block pointwise is for networks of images",
        ),
        (convert("--mean 0.5,0.5,0.5"), "--mean is for networks of"),
        (convert("--std 0.5,0.5,0.5"), "--std is for networks of"),
        (convert("--mean 0.5,0.5"), "not three numbers"),
        (convert("--mean 0.5,x,0.5"), "\"x\" is not a finite"),
        (convert("--mean 0.5,inf,0.5"), "\"inf\" is not a finite"),
        (convert("--std 0.5,0,0.5"), "0 is not above 0"),
        (
            "bench efficientnet-lite0 --share 2".into(),
            "--share is for models of texts",
        ),
        (
            "bench efficientnet-lite0 --block ffn=8".into(),
            "--block ffn is for models of texts",
        ),
    ];
    // With libtorch, starting takes a while.
    let (first, second) = cases.split_at(cases.len() / 2);
    std::thread::scope(|scope| {
        for part in [first, second] {
            scope.spawn(move || {
                for (line, expected) in part {
                    let out = centroid(&words(line, &[])).fails(2, &[expected]);
                    assert_eq!(out, "", "{line}");
                }
            });
        }
    });
    assert!(!std::path::Path::new("unwritten.centroid").exists());
}

#[test]
fn other_failures_are_1() {
    let missing = "no such directory/model.centroid";
    for verb in ["inspect", "classify", "embed", "bench"] {
        centroid(&[verb, missing]).fails(1, &[missing]);
    }
    centroid(&["embed", classifier(), "x"]).fails(1, &["holds a classifier"]);
    centroid(&["classify", crate::embedder(), "x"]).fails(1, &["holds an embedding model"]);
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    centroid(&["inspect", readme]).fails(1, &["Cargo.toml", "not a .centroid file"]);
}

#[test]
fn messages_stay_on_their_line() {
    centroid(&["inspect", "no\nsuch\u{1b}[31mfile"]).fails(1, &["no\\nsuch\\u{1b}[31mfile"]);
    centroid(&["bench", "x", "--seq", "1\n\n2"]).fails(2, &["--seq"]);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = centroid(&["--help"]).ok();
    for verb in ["convert", "inspect", "classify", "embed", "bench"] {
        assert!(help.contains(verb));
        let help = centroid(&[verb, "--help"]).ok();
        assert!(help.contains("Usage: centroid"), "{help}");
    }
    for verb in ["classify", "embed", "bench"] {
        let help = centroid(&[verb, "--help"]).ok();
        assert!(help.contains("[default: int8]"), "{help}");
        assert!(help.contains("[possible values: int8, exact]"), "{help}");
    }
    let version = format!("centroid {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(centroid(&["--version"]).ok(), version);
}
