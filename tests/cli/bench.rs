//! `bench`: its columns and its rows, not its times.

use serde_json::Value;

use crate::{all, centroid, classifier, embedder, words};

const FIELDS: [&str; 15] = [
    "model",
    "size_bytes",
    "params",
    "kernel",
    "mode",
    "threads",
    "batch",
    "seq",
    "load_ms",
    "min_ms",
    "p50_ms",
    "p99_ms",
    "tokens_per_s_mean",
    "tokens_per_s_sd",
    "peak_rss_bytes",
];
const QUICK: &str = "--runs 2 --seconds 0";

fn bench(model: &str, flags: &str) -> crate::Run {
    centroid(&words(&format!("bench {QUICK} {flags}"), &[model]))
}

#[test]
fn json_is_an_array_of_rows() {
    let rows = bench(
        classifier(),
        "-o json --seq 2,32 --batch 1,3 --threads 1,2 --mode exact",
    )
    .json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, FIELDS);
        assert_eq!(
            (&row["model"], &row["mode"]),
            (&"cli-roberta-seq.centroid".into(), &"exact".into())
        );
        assert_eq!(
            (&row["params"], &row["size_bytes"]),
            (&77678.into(), &310712.into())
        );
        let number = |field: &str| row[field].as_f64().unwrap();
        assert!(number("load_ms") > 0.0 && number("min_ms") > 0.0);
        assert!(number("min_ms") <= number("p50_ms") && number("p50_ms") <= number("p99_ms"));
        // No run was faster than the fastest one.
        let most = number("batch") * number("seq") / (number("min_ms") / 1e3);
        assert!(number("tokens_per_s_mean") <= most * 1.000001);
        if cfg!(target_os = "linux") {
            assert!(number("peak_rss_bytes") > 1e6);
        }
    }
    let column = |field| {
        all(rows, field)
            .iter()
            .map(|v| v.as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(column("threads"), [1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(column("batch"), [1, 1, 3, 3, 1, 1, 3, 3]);
    assert_eq!(column("seq"), [2, 32, 2, 32, 2, 32, 2, 32]);
}

#[test]
fn csv_and_markdown_have_the_same_rows() {
    let flags = "--seq 1,24 --batch 2 --threads 1";
    let csv = bench(embedder(), &format!("{flags} -o csv")).ok();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], FIELDS.join(","));
    assert_eq!(lines.len(), 3);
    let cells: Vec<&str> = lines[2].split(',').collect();
    assert_eq!(cells.len(), FIELDS.len());
    assert_eq!(cells[4..8], ["int8", "1", "2", "24"]);

    let markdown = bench(embedder(), flags).ok();
    let lines: Vec<&str> = markdown.lines().collect();
    assert_eq!(lines.len(), 4);
    let cells = |line: &str| {
        line.split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        cells(lines[0])[1..15],
        [
            "model", "size", "params", "kernel", "mode", "threads", "batch", "seq", "load ms",
            "min ms", "p50 ms", "p99 ms", "tokens/s", "peak RSS"
        ]
    );
    assert!(
        lines.iter().all(|line| cells(line).len() == 16),
        "{markdown}"
    );
    assert_eq!(cells(lines[3])[6..9], ["1", "2", "24"]);
    assert!(cells(lines[3])[13].contains(" ± "));
}

#[test]
fn roofline_adds_three_columns() {
    let flags = "--seq 24 --batch 1 --threads 1,2 --roofline --mode exact";
    let rows = bench(classifier(), &format!("{flags} -o json")).json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let number = |field: &str| row[field].as_f64().unwrap();
        assert!(number("peak_mac_per_s") > 1e7 && number("forward_mac_per_s") > 0.0);
        // In every run, linear layers are a part of the forward pass.
        assert!(number("forward_mac_per_s") <= number("linear_mac_per_s"));
    }
    let flags = "--seq 2 --batch 1 --threads 1 --roofline";
    let csv = bench(classifier(), &format!("{flags} -o csv")).ok();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0].len(), FIELDS.len() + 3);
    assert_eq!(lines[1].len(), FIELDS.len() + 3);
    let markdown = bench(classifier(), flags).ok();
    let columns = |line: &str| line.split('|').count();
    assert!(
        markdown.lines().all(|line| columns(line) == 19),
        "{markdown}"
    );
    assert!(markdown.contains("| forward % |"), "{markdown}");
}

#[test]
fn networks_have_rows_of_images() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("lite0.centroid");
    let model = model.to_str().unwrap();
    centroid(&["convert", "--random", "efficientnet-lite0", "-o", model]).ok();
    let of_images: Vec<&str> = (FIELDS.into_iter().filter(|field| *field != "seq"))
        .map(|field| match field {
            "tokens_per_s_mean" => "images_per_s_mean",
            "tokens_per_s_sd" => "images_per_s_sd",
            field => field,
        })
        .collect();
    let rows = bench(model, "-o json --batch 1,2 --threads 1,2 --roofline").json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys[..of_images.len()], of_images);
        assert_eq!(keys.len(), of_images.len() + 3);
        assert_eq!(row["model"], "lite0.centroid");
        let number = |field: &str| row[field].as_f64().unwrap();
        let most = number("batch") / (number("min_ms") / 1e3);
        assert!(number("images_per_s_mean") <= most * 1.000001);
        assert!(number("forward_mac_per_s") <= number("linear_mac_per_s"));
    }
    assert_eq!(all(rows, "threads"), [1, 1, 2, 2]);
    assert_eq!(all(rows, "batch"), [1, 2, 1, 2]);

    let flags = "--threads 1 --batch 1 --mode exact";
    let csv = bench(model, &format!("{flags} -o csv")).ok();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], of_images.join(","));
    assert_eq!(lines[1].split(',').count(), of_images.len());
    let markdown = bench(model, flags).ok();
    assert!(markdown.contains(" images/s |"), "{markdown}");
    assert!(
        markdown.lines().all(|line| line.split('|').count() == 15),
        "{markdown}"
    );

    let out = bench(model, "--seq 8").fails(2, &["--seq", "lite0.centroid takes images"]);
    assert_eq!(out, "");
    bench("efficientnet-b0", "--seq 8").fails(2, &["--seq", "efficientnet-b0 takes images"]);
}

#[test]
fn texts_over_the_limit_are_refused_before_any_row() {
    let out = bench(classifier(), "--seq 8,33").fails(1, &["--seq 33", "32 tokens"]);
    assert_eq!(out, "");
}

#[test]
fn architectures_are_generated_and_removed() {
    let temporary = tempfile::tempdir().unwrap();
    let row = |flags: &str| -> Value {
        let line = format!("bench -o json --batch 1 --threads 1 {QUICK} {flags}");
        let output = crate::command(&words(&line, &[]))
            .env("TMPDIR", temporary.path())
            .env("TMP", temporary.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].clone()
    };
    let network = row("efficientnet-b0");
    assert_eq!(network["model"], "efficientnet-b0");
    let row = |flags: &str| row(&format!("minilm-l6 --seq 4 {flags}"));
    let plain = row("");
    assert_eq!(plain["model"], "minilm-l6");
    let size = |row: &Value| row["size_bytes"].as_u64().unwrap();
    let shared = row("--share 3");
    assert_eq!(shared["params"], plain["params"]);
    assert!(size(&shared) < size(&plain));
    assert!(size(&row("--block ffn=4")) > size(&plain));
    assert!(size(&row("--scheme int8")) > size(&plain));
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
}
