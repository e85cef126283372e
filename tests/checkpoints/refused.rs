//! What is missing, damaged or inconsistent, and options that do not fit.

use std::fs;

use centroid::convert::{Conversion, ConvertOptions, Plan, Pooling};
use centroid::{ErrorKind, Scheme};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::{Copy, QUERY, f32_options};

#[test]
fn missing_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = Conversion::from_directory(empty.path(), &f32_options())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("config.json is missing"),
        "{error}"
    );
    let error = Conversion::from_directory("no/such/dir", &f32_options())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("no/such/dir: not a directory"),
        "{error}"
    );

    let copy = Copy::of("bert-gelu");
    copy.remove("model.safetensors");
    copy.fails(
        ErrorKind::Checkpoint,
        &["none of model.safetensors, pytorch_model.bin is there"],
    );
    copy.write("pytorch_model.bin", b"x");
    copy.fails(
        ErrorKind::Checkpoint,
        &["pytorch_model.bin", "not a valid safetensors file"],
    );
    let copy = Copy::of("bert-gelu");
    copy.remove("tokenizer.json");
    copy.fails(ErrorKind::Tokenizer, &["vocab.txt"]);
    let copy = Copy::of("sbert");
    copy.remove("1_Pooling/config.json");
    copy.fails(
        ErrorKind::Checkpoint,
        &["1_Pooling", "modules.json names it"],
    );
}

#[test]
fn damaged_weights_are_refused() {
    let copy = Copy::of("bert-gelu");
    copy.weights(|t| drop(t.remove(QUERY)));
    copy.fails(
        ErrorKind::Checkpoint,
        &["model.safetensors", QUERY, "missing"],
    );

    let copy = Copy::of("bert-gelu");
    copy.weights(|t| t.get_mut(QUERY).unwrap().1.reverse());
    copy.weights(|t| t.get_mut(QUERY).unwrap().1 = vec![18, 72]);
    copy.fails(ErrorKind::Checkpoint, &[QUERY, "[18, 72]", "[36, 36]"]);

    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let copy = Copy::of("bert-gelu");
        copy.weights(|t| t.get_mut(QUERY).unwrap().2[40..44].copy_from_slice(&value.to_le_bytes()));
        copy.fails(ErrorKind::Checkpoint, &[QUERY, "value 10", shown]);
        copy.fails_with(
            &ConvertOptions::default(),
            ErrorKind::Checkpoint,
            &[QUERY, shown],
        );
    }

    let copy = Copy::of("bert-gelu");
    copy.weights(|t| t.get_mut(QUERY).unwrap().0 = Dtype::I32);
    copy.fails(ErrorKind::Checkpoint, &[QUERY, "I32"]);

    let copy = Copy::of("bert-gelu");
    copy.weights(|t| t.get_mut(QUERY).unwrap().2[..4].copy_from_slice(&2e38f32.to_le_bytes()));
    let mut options = f32_options();
    options.plan = Plan::new(Scheme::F16);
    copy.fails_with(
        &options,
        ErrorKind::Checkpoint,
        &[QUERY, "does not fit f16"],
    );

    let copy = Copy::of("bert-gelu");
    let path = copy.0.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let error = copy.open(&f32_options()).err().unwrap();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    fs::write(&path, [&u64::MAX.to_le_bytes()[..], b"{}"].concat()).unwrap();
    copy.fails(ErrorKind::Checkpoint, &["not a valid safetensors file"]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n";
    copy.write("model.safetensors", pointer);
    copy.fails(
        ErrorKind::Checkpoint,
        &["model.safetensors", "a pointer of Git LFS"],
    );
}

#[test]
fn damaged_shards_are_refused() {
    let index = "model.safetensors.index.json";
    let map = |value: &mut Value, file: &str| value["weight_map"][QUERY] = json!(file);
    for (file, words) in [
        ("../evil.safetensors", "not a plain file name"),
        ("/etc/passwd", "not a plain file name"),
        ("nowhere.safetensors", "nowhere.safetensors"),
    ] {
        let copy = Copy::of("bert-sharded");
        copy.json(index, |value| map(value, file));
        let error = copy.open(&f32_options()).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
    let copy = Copy::of("bert-sharded");
    copy.write(index, b"{");
    copy.fails(ErrorKind::Checkpoint, &[index, "not valid JSON"]);
    let copy = Copy::of("bert-sharded");
    copy.json(index, |value| *value = json!({}));
    copy.fails(ErrorKind::Checkpoint, &[index, "weight_map"]);
}

#[test]
fn configs_are_checked_field_by_field() {
    let kind = ErrorKind::Checkpoint;
    for (field, value, words) in [
        (
            "architectures",
            json!(["XLNetModel"]),
            "\"XLNetModel\" is not supported",
        ),
        ("architectures", json!("BertModel"), "not a list of names"),
        ("hidden_act", json!("mish"), "\"mish\" is not supported"),
        (
            "position_embedding_type",
            json!("relative_key"),
            "\"relative_key\" is not supported",
        ),
        ("is_decoder", json!(true), "decoders are not supported"),
        ("hidden_size", json!(-1), "-1 is not a count"),
        ("hidden_size", json!(null), "missing"),
        (
            "num_hidden_layers",
            json!(4_000_000_000u64),
            "is not a count",
        ),
        ("num_hidden_layers", json!(3), "encoder.layer.2"),
        ("num_hidden_layers", json!(16_000_000), "limit"),
        ("layer_norm_eps", json!(0), "layer_norm_eps"),
        ("layer_norm_eps", json!("small"), "layer_norm_eps"),
        ("vocab_size", json!(10), "too small for the tokenizer"),
        ("vocab_size", json!(5000), "word_embeddings"),
        ("intermediate_size", json!(71), "[70, 36]"),
        ("id2label", json!({"0": "a", "2": "b"}), "id2label"),
        ("id2label", json!({"0": "a", "1": "b"}), "classifier"),
        ("problem_type", json!("guessing"), "\"guessing\" is unknown"),
    ] {
        let copy = Copy::of("bert-gelu");
        copy.json("config.json", |config| config[field] = value.clone());
        let out = copy.0.path().join("out.centroid");
        let result = copy
            .open(&f32_options())
            .and_then(|c| c.write(&out, false, &|_| ()));
        let error = result.expect_err(&format!("{field} {value}"));
        assert!(
            error.to_string().contains(words),
            "{field} {value}: {error}"
        );
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Checkpoint | ErrorKind::Config | ErrorKind::Format
            ),
            "{error}"
        );
    }
    let copy = Copy::of("bert-gelu");
    copy.json("config.json", |config| {
        config["num_attention_heads"] = json!(5)
    });
    copy.fails(ErrorKind::Format, &["36", "5"]);
    let copy = Copy::of("bert-gelu");
    copy.json("config.json", |config| {
        config.as_object_mut().unwrap().remove("id2label");
        config["num_labels"] = json!(16_777_216)
    });
    copy.fails(kind, &["num_labels", "16777216; the limit is "]);
    let copy = Copy::of("bert-gelu");
    copy.write("config.json", b"[]");
    copy.fails(kind, &["config.json", "not a JSON object"]);
    let copy = Copy::of("roberta-seq");
    copy.json("config.json", |config| {
        config["max_position_embeddings"] = json!(2)
    });
    copy.fails(kind, &["max_position_embeddings", "no usable position"]);
    let copy = Copy::of("sbert");
    copy.json("modules.json", |modules| {
        modules[1]["type"] = json!("sentence_transformers.models.Dense")
    });
    copy.fails(kind, &["\"Dense\" is not supported"]);
    let copy = Copy::of("sbert");
    copy.json("1_Pooling/config.json", |pooling| {
        pooling["pooling_mode_mean_tokens"] = json!(false);
        pooling["pooling_mode_lasttoken"] = json!(true);
    });
    copy.fails(kind, &["pooling_mode_lasttoken", "not supported"]);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let classifier = Copy::of("bert-gelu");
    let encoder = Copy::of("bert-model");
    let with = |change: &dyn Fn(&mut ConvertOptions)| {
        let mut options = f32_options();
        change(&mut options);
        options
    };
    let labels = |n: usize| Some((0..n).map(|i| i.to_string()).collect());
    let kind = ErrorKind::Config;
    let options = with(&|o| o.labels = labels(2));
    classifier.fails_with(&options, kind, &["2 labels are given for 3 logits"]);
    encoder.fails_with(&options, kind, &["no classification head"]);
    let options = with(&|o| o.pooling = Some(Pooling::Cls));
    classifier.fails_with(&options, kind, &["this is a classifier"]);
    let options = with(&|o| {
        o.layers = Some(vec![0]);
        o.share = 2
    });
    classifier.fails_with(&options, kind, &["share: 2 layers", "1 in all"]);
    let options = with(&|o| o.layers = Some(vec![0, 9]));
    classifier.fails_with(&options, kind, &["layer 9 does not exist"]);
    let options = with(&|o| {
        o.plan = {
            let mut plan = Plan::default();
            plan.set_block("head", 4).unwrap();
            plan
        }
    });
    encoder.fails_with(&options, kind, &["group head"]);
}
