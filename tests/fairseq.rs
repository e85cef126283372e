//! Checkpoints of fairseq: names, vocabulary, and the codes of its own iPQ. That weights are read right,
//! `tests/parity.rs` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use centroid::convert::{Checkpoint, Conversion, ConvertOptions, Plan};
use centroid::{Artifact, ErrorKind, Mode, Options, Scheme, TensorInfo, TextClassifier};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    let checkpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints");
    checkpoints.join(name)
}

fn planned(scheme: Scheme) -> ConvertOptions {
    ConvertOptions {
        plan: Plan::new(scheme),
        labels: Some(vec!["bad".into(), "good".into()]),
        ..ConvertOptions::default()
    }
}

fn logits(artifact: Artifact, text: &str) -> Vec<f32> {
    let options = Options::new().mode(Mode::Exact).threads(1);
    let classifier = TextClassifier::new(artifact, options).unwrap();
    let mut labels = classifier.classify(&[text]).unwrap().remove(0).labels;
    labels.sort_by_key(|label| label.index);
    labels.iter().map(|label| label.logit).collect()
}

#[test]
fn codes_of_ipq_are_stored_as_they_are() {
    let conversion = Conversion::from_directory(data("fairseq-ipq"), &planned(Scheme::Pq)).unwrap();
    let note =
        "20 matrices keep the codes and centroids that the checkpoint has, in blocks of 4 and 8";
    assert!(
        conversion.notes().iter().any(|n| n == note),
        "{:?}",
        conversion.notes()
    );
    let kept = conversion.plan().iter().filter(|tensor| tensor.kept);
    let blocks: BTreeMap<_, _> = kept
        .map(|t| (&t.name[..], (t.plan.block, t.plan.centroids)))
        .collect();
    assert_eq!(blocks["embeddings.token"], (8, 32));
    assert_eq!(blocks["layers.0.ffn.up.weight"], (4, 32));
    assert_eq!(blocks["head.dense.weight"], (4, 32));
    assert!(!blocks.contains_key("embeddings.position"));

    // Centroids are rounded to int8, codes are not touched.
    let (bytes, report) = conversion.to_bytes(&|_| ()).unwrap();
    for tensor in report.tensors {
        if blocks.contains_key(&tensor.name[..]) {
            assert_eq!(tensor.scheme, Scheme::Pq);
            let error = tensor.relative_error.unwrap();
            assert!(error > 0.0 && error < 0.05, "{}: {error}", tensor.name);
        }
    }
    let artifact = Artifact::from_bytes(&bytes).unwrap();
    assert_eq!(artifact.labels().unwrap(), ["bad", "good"]);
    let f32 = Conversion::from_directory(data("fairseq-ipq"), &planned(Scheme::F32)).unwrap();
    assert!(f32.plan().iter().all(|tensor| !tensor.kept));
    let f32 = Artifact::from_bytes(&f32.to_bytes(&|_| ()).unwrap().0).unwrap();
    let text = "it was the best of times";
    for (a, b) in logits(artifact, text).into_iter().zip(logits(f32, text)) {
        // Weights far larger than trained ones; a wrong code would change everything.
        assert!((a - b).abs() < 0.03, "{a} {b}");
    }
}

/// Of a file that fairseq 0.12.2 itself made: `tools/goldens/fairseq_itself.py`.
#[test]
fn codes_of_fairseq_itself_are_taken() {
    let conversion =
        Conversion::from_directory(data("fairseq-0.12"), &planned(Scheme::Pq)).unwrap();
    let notes = conversion.notes();
    let note =
        "14 matrices keep the codes and centroids that the checkpoint has, in blocks of 4 and 8";
    assert!(notes.iter().any(|n| n == note), "{notes:?}");
    // Its copies of the layers' weights, from before they were quantized, are nobody's.
    assert!(!notes.iter().any(|n| n.contains("unused")), "{notes:?}");
    let (bytes, _) = conversion.to_bytes(&|_| ()).unwrap();
    let artifact = Artifact::from_bytes(&bytes).unwrap();
    let down = |tensor: &TensorInfo| tensor.name == "layers.1.ffn.down.weight";
    let down = artifact.tensors().find(down).unwrap();
    assert_eq!((down.scheme, &down.shape[..]), (Scheme::Pq, &[32, 80][..]));
}

/// A directory with one file, tensors of f32 or (where there are integers) i64.
struct Made(TempDir);

enum Values {
    Floats(Vec<usize>, f32),
    Integers(Vec<i64>),
}
use Values::{Floats, Integers};

/// A model of one layer, 4 wide.
fn tensors() -> BTreeMap<String, Values> {
    let prefix = "encoder.sentence_encoder";
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        tensors.insert(format!("{prefix}.{name}"), Floats(shape.to_vec(), 0.5));
    };
    add("embed_tokens.weight", &[9, 4]);
    add("embed_positions.weight", &[10, 4]);
    for norm in [
        "layernorm_embedding",
        "layers.0.self_attn_layer_norm",
        "layers.0.final_layer_norm",
    ] {
        add(&format!("{norm}.weight"), &[4]);
        add(&format!("{norm}.bias"), &[4]);
    }
    for (part, rows, columns) in [
        ("self_attn.q_proj", 4, 4),
        ("self_attn.k_proj", 4, 4),
        ("self_attn.v_proj", 4, 4),
        ("self_attn.out_proj", 4, 4),
        ("fc1", 8, 4),
        ("fc2", 4, 8),
    ] {
        add(&format!("layers.0.{part}.weight"), &[rows, columns]);
        add(&format!("layers.0.{part}.bias"), &[rows]);
    }
    tensors
}

impl Made {
    fn new(change: impl FnOnce(&mut BTreeMap<String, Values>)) -> Self {
        let mut tensors = tensors();
        change(&mut tensors);
        let made = Self(tempfile::tempdir().unwrap());
        let stored: Vec<_> = (tensors.into_iter())
            .map(|(name, values)| match values {
                Floats(shape, value) => {
                    let count = shape.iter().product();
                    (name, Dtype::F32, shape, value.to_le_bytes().repeat(count))
                }
                Integers(values) => {
                    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    (name, Dtype::I64, vec![values.len()], bytes)
                }
            })
            .collect();
        let views = (stored.iter()).map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(made.0.path().join("model.pt"), bytes).unwrap();
        made
    }

    fn fails(&self, words: &[&str]) {
        let error = Conversion::from_directory(self.0.path(), &ConvertOptions::default());
        let error = error.err().expect("it was read");
        for word in words.iter().chain(&["model.pt"]) {
            assert!(error.to_string().contains(word), "{error}: {word}");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    // Safetensors have no arguments.
    Made::new(|_| ()).fails(&["encoder_attention_heads"]);
    let stem = "encoder.sentence_encoder";
    Made::new(|t| drop(t.remove(&format!("{stem}.embed_tokens.weight")))).fails(&["embed_tokens"]);
    Made::new(|t| drop(t.remove(&format!("{stem}.embed_positions.weight"))))
        .fails(&["embed_positions"]);
    Made::new(|t| drop(t.remove(&format!("{stem}.layernorm_embedding.weight"))))
        .fails(&["emb_layer_norm"]);
    Made::new(|t| drop(t.insert(format!("{stem}.layer_norm.weight"), Floats(vec![4], 1.0))))
        .fails(&["encoder_normalize_before"]);
    Made::new(|t| {
        drop(t.insert(
            format!("{stem}.quant_noise.weight"),
            Floats(vec![4, 4], 1.0),
        ))
    })
    .fails(&["quant_noise.weight", "not supported"]);
    Made::new(|t| {
        for head in ["a", "b"] {
            t.insert(
                format!("classification_heads.{head}.dense.weight"),
                Floats(vec![4, 4], 1.0),
            );
        }
    })
    .fails(&["several classification heads: a, b"]);
    Made::new(|t| {
        drop(t.insert(
            format!("{stem}.layers.0.self_attn.in_proj_weight"),
            Floats(vec![10, 4], 1.0),
        ))
    })
    .fails(&["in_proj_weight", "[10, 4]", "3 parts"]);
}

/// Of what is there twice, nobody knows which is meant.
#[test]
fn tensors_under_one_name_are_refused() {
    let stem = "encoder.sentence_encoder.layers.0";
    Made::new(|t| {
        t.insert(format!("{stem}.fc1.centroids"), Floats(vec![16, 2], 0.25));
        t.insert(format!("{stem}.fc1.assignments"), Integers(vec![0; 16]));
    })
    .fails(&["fc1.assignments", "is the same as", "fc1.weight"]);
    Made::new(|t| {
        let fused = format!("{stem}.self_attn.in_proj_weight");
        t.insert(fused, Floats(vec![12, 4], 1.0));
    })
    .fails(&["in_proj_weight", "is the same as", "q_proj.weight"]);
    // Two versions' names of the embeddings' norm.
    Made::new(|t| {
        let norm = "encoder.sentence_encoder.emb_layer_norm.weight";
        t.insert(norm.into(), Floats(vec![4], 1.0));
    })
    .fails(&[
        "emb_layer_norm.weight",
        "is the same as",
        "layernorm_embedding.weight",
    ]);
}

/// Heads are computed with tanh.
#[test]
fn another_activation_of_the_head_is_refused() {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data("fairseq-0.12")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let model = copy.path().join("model.pt");
    let mut bytes = fs::read(&model).unwrap();
    let find = |bytes: &[u8], from: usize, wanted: &[u8]| {
        let at = bytes[from..]
            .windows(wanted.len())
            .position(|part| part == wanted);
        from + at.unwrap()
    };
    let key = find(&bytes, 0, b"pooler_activation_fn");
    let value = find(&bytes, key, b"tanh");
    assert!(value - key < 64);
    Conversion::from_directory(copy.path(), &planned(Scheme::F32)).unwrap();
    bytes[value..value + 4].copy_from_slice(b"relu");
    fs::write(&model, bytes).unwrap();
    let error = Conversion::from_directory(copy.path(), &planned(Scheme::F32))
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let message = error.to_string();
    assert!(
        message.contains("pooler_activation_fn is \"relu\"") && message.contains("model.pt"),
        "{message}"
    );
}

#[test]
fn codes_must_fit_their_centroids() {
    let stem = "encoder.sentence_encoder.layers.0.fc1";
    let coded = |centroids: &[usize], codes: Vec<i64>| {
        Made::new(|t| {
            t.remove(&format!("{stem}.weight"));
            t.insert(
                format!("{stem}.centroids"),
                Floats(centroids.to_vec(), 0.25),
            );
            t.insert(format!("{stem}.assignments"), Integers(codes));
        })
    };
    coded(&[16, 2, 2], vec![0; 16]).fails(&["fc1.assignments", "[16, 2, 2]"]);
    coded(&[257, 2], vec![0; 16]).fails(&["257 centroids"]);
    coded(&[16, 0], vec![0; 16]).fails(&["16 centroids of 0"]);
    // A small file would be a matrix of a terabyte.
    coded(&[16, 65], vec![0; 16]).fails(&["16 centroids of 65 values", "of 1 to 64"]);
    coded(&[16, 2], vec![0; 15]).fails(&["15 codes for 8 rows"]);
    coded(&[16, 2], vec![0; 16]).fails(&["encoder_attention_heads"]);
}

#[test]
fn dictionaries_must_name_what_there_is() {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data("fairseq-ipq")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let fails = |file: &str, text: &str, words: &[&str]| {
        let path = copy.path().join(file);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        let error = Conversion::from_directory(copy.path(), &planned(Scheme::F32)).err();
        let error = error.expect("it was read");
        assert_eq!(error.kind(), ErrorKind::Tokenizer);
        for word in words {
            assert!(error.to_string().contains(word), "{error}: {word}");
        }
        fs::write(&path, kept).unwrap();
    };
    fails(
        "dict.txt",
        "219 316\nabc\n",
        &["dict.txt", "line 2", "not a token and its count"],
    );
    fails(
        "dict.txt",
        "219 316\n219 1\n",
        &["line 2", "219 is there twice"],
    );
    fails(
        "dict.txt",
        "99999 316\n",
        &["99999 is not an id of encoder.json"],
    );
    fails("encoder.json", "[]", &["encoder.json"]);
    fs::remove_file(copy.path().join("vocab.bpe")).unwrap();
    let error = Conversion::from_directory(copy.path(), &planned(Scheme::F32))
        .err()
        .unwrap();
    assert!(error.to_string().contains("vocab.bpe"), "{error}");
}

/// Codes beyond the centroids are only seen when they are read.
#[test]
fn codes_without_a_centroid_are_refused() {
    let checkpoint = Checkpoint::open(data("fairseq-ipq/model.pt")).unwrap();
    let name = "encoder.sentence_encoder.layers.0.fc1.assignments";
    let codes = checkpoint.integers(name).unwrap();
    assert_eq!(codes.len(), 1200);
    let bytes = fs::read(data("fairseq-ipq/model.pt")).unwrap();
    let stored: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
    let at = bytes
        .windows(stored.len())
        .position(|window| window == stored)
        .unwrap();
    let copy = tempfile::tempdir().unwrap();
    for file in ["dict.txt", "encoder.json", "vocab.bpe"] {
        fs::copy(data("fairseq-ipq").join(file), copy.path().join(file)).unwrap();
    }
    for bad in [32i64, -1, 1 << 40] {
        let mut bytes = bytes.clone();
        bytes[at + 56..at + 64].copy_from_slice(&bad.to_le_bytes());
        fs::write(copy.path().join("model.pt"), bytes).unwrap();
        for scheme in [Scheme::Pq, Scheme::F32] {
            let conversion = Conversion::from_directory(copy.path(), &planned(scheme)).unwrap();
            let error = conversion.to_bytes(&|_| ()).err().unwrap();
            let words = format!("code 7 is {bad}, and there are 32 centroids");
            assert!(error.to_string().contains(&words), "{error}");
            assert!(error.to_string().contains("model.pt"), "{error}");
        }
    }
}
