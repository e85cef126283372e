//! Rules 35 to 41: files whose every part is in order and whose parts do not make an encoder.

use centroid::{Artifact, Error, ErrorKind, Options, SentenceEmbedder, TextClassifier};

use crate::build::{Model, Scheme};
use crate::check::{refuse, says};
use crate::valid::{Encoder, HIDDEN, LABELS, POSITIONS, VOCABULARY, strings, tokenizer, valid};

/// From the bytes to a first answer.
pub fn load(bytes: &[u8]) -> Result<(), Error> {
    let artifact = Artifact::from_bytes(bytes)?;
    let classifier = TextClassifier::new(artifact, Options::new().threads(1))?;
    classifier.classify(&["a b"]).map(drop)
}

fn load_embedder(bytes: &[u8]) -> Result<(), Error> {
    let artifact = Artifact::from_bytes(bytes)?;
    let embedder = SentenceEmbedder::new(artifact, Options::new().threads(1))?;
    embedder.embed(&["a b"]).map(drop)
}

/// Changes `base`; fails unless the result opens as an artifact, but not as a model, and by its
/// checksums not even as an artifact.
pub fn unfit(
    what: &str,
    base: &Model,
    change: impl Fn(&mut Model),
    kind: ErrorKind,
    words: &[&str],
) {
    let mut model = base.clone();
    change(&mut model);
    let damaged = model.damaged(&base.encode());
    let checksum = ["does not match its checksum"];
    refuse(what, &damaged, ErrorKind::Checksum, &checksum);

    let bytes = model.encode().bytes;
    let artifact = Artifact::from_bytes(&bytes);
    artifact.unwrap_or_else(|e| panic!("{what}: refused too early: {e}"));
    let error = load(&bytes).expect_err(what);
    says(what, &error, kind, words);
    let embedder = load_embedder(&bytes).expect_err(what);
    assert_eq!(embedder.to_string(), error.to_string(), "{what}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("unfit.centroid");
    std::fs::write(&path, &bytes).unwrap();
    let named = TextClassifier::open(&path).err().unwrap();
    assert_eq!(named.file(), Some(&*path), "{what}");
    let message = format!("{}: {error}", path.display());
    assert_eq!(named.to_string(), message, "{what}");
}

/// [`unfit`] on the classifier.
fn malformed(what: &str, change: impl Fn(&mut Model), words: &[&str]) {
    unfit(what, &valid(), change, ErrorKind::Format, words);
}

/// [`unfit`] by a change of the model body.
fn body(change: impl Fn(&mut Encoder), kind: ErrorKind, words: &[&str]) {
    let mut encoder = Encoder::valid();
    change(&mut encoder);
    let body = encoder.body();
    unfit(words[0], &valid(), |m| m.body = body.clone(), kind, words);
}

/// Takes a section out of use without renumbering the others.
fn hide(m: &mut Model, section: usize) {
    m.sections[section].kind = 4001;
    m.sections[section].flags = 1;
}

/// Removes a tensor and, where no other tensor has it too, its values.
fn remove(m: &mut Model, name: &str) {
    let index = m.tensors.iter().position(|t| t.name == name).unwrap();
    let tensor = m.tensors.remove(index);
    let mut sections = vec![tensor.scheme.values()];
    match tensor.scheme {
        Scheme::Pq(pq) => sections.extend([pq.codebook, pq.row_scale]),
        Scheme::Scalar(scalar) => sections.extend([scalar.row_scale, scalar.zero_points]),
        _ => {}
    }
    let shared = m.tensors.iter().any(|t| t.scheme.values() == sections[0]);
    for section in sections {
        if !shared && section != crate::build::NONE {
            hide(m, section as usize);
        }
    }
}

fn hide_kind(m: &mut Model, kind: u32) {
    let index = m.sections.iter().position(|s| s.kind == kind).unwrap();
    hide(m, index);
}

/// The valid classifier without its head, as an embedding model.
fn embedder() -> Model {
    let mut model = valid();
    model.body = Encoder {
        task: 1,
        pooling: 1,
        normalize: 1,
        labels: 0,
        problem: 0,
        ..Encoder::valid()
    }
    .body();
    for name in ["dense", "labels"] {
        remove(&mut model, &format!("head.{name}.weight"));
        remove(&mut model, &format!("head.{name}.bias"));
    }
    hide_kind(&mut model, 17);
    model
}

#[test]
fn the_valid_files_load() {
    load(&valid().encode().bytes).unwrap();
    load_embedder(&embedder().encode().bytes).unwrap();
    // Each in the other's pipeline is an error that says so.
    let error = load(&embedder().encode().bytes).unwrap_err();
    let words = ["an embedding model and not a classifier"];
    says("an embedder", &error, ErrorKind::Unsupported, &words);
    let error = load_embedder(&valid().encode().bytes).unwrap_err();
    let words = ["a classifier and not an embedding model"];
    says("a classifier", &error, ErrorKind::Unsupported, &words);
}

#[test]
fn unknown_model_kind_does_not_load() {
    let words = ["unknown model kind 3"];
    let change = |m: &mut Model| m.kind = 3;
    unfit("kind 3", &valid(), change, ErrorKind::Unsupported, &words);
}

#[test]
fn a_model_of_images_takes_no_texts() {
    let words = ["a model of kind efficientnet, where a model of texts is"];
    let change = |m: &mut Model| m.kind = 2;
    unfit("kind 2", &valid(), change, ErrorKind::Unsupported, &words);
}

#[test]
fn model_body_wrong_length() {
    let words = ["the encoder's config has 1 bytes after its end"];
    malformed("longer", |m| m.body.push(0), &words);
    let words = ["the encoder's config cannot be decoded"];
    malformed("shorter", |m| m.body.truncate(71), &words);
    malformed("empty", |m| m.body.clear(), &words);
}

#[test]
fn encoder_zero_sizes() {
    type Field = fn(&mut Encoder) -> &mut u32;
    let fields: [(&str, Field); 8] = [
        ("vocab_size", |e| &mut e.vocab_size),
        ("hidden", |e| &mut e.hidden),
        ("layers", |e| &mut e.layers),
        ("heads", |e| &mut e.heads),
        ("intermediate", |e| &mut e.intermediate),
        ("positions", |e| &mut e.positions),
        ("type_vocab", |e| &mut e.type_vocab),
        ("max_tokens", |e| &mut e.max_tokens),
    ];
    for (name, field) in fields {
        let words = format!("the encoder's {name} is 0");
        body(|e| *field(e) = 0, ErrorKind::Format, &[&words]);
    }
    for labels in [0, 65_537, u32::MAX] {
        let words = format!("{labels} labels; the limits are 1 and 65536");
        body(|e| e.labels = labels, ErrorKind::Format, &[&words]);
    }
}

#[test]
fn encoder_too_many_layers() {
    for layers in [1025, u32::MAX] {
        let words = format!("{layers} layers; the limit is 1024");
        body(|e| e.layers = layers, ErrorKind::Format, &[&words]);
    }
    let words = ["tensor layers.2.attention.query.weight: missing"];
    body(|e| e.layers = 1024, ErrorKind::Format, &words);
}

#[test]
fn encoder_heads_do_not_divide() {
    for heads in [2, 10, u32::MAX] {
        let words = format!("hidden 9 is not a multiple of heads {heads}");
        body(|e| e.heads = heads, ErrorKind::Format, &[&words]);
    }
}

#[test]
fn encoder_unknown_activation() {
    for id in [0, 6, u32::MAX] {
        let words = format!("the encoder's activation {id} is unknown");
        body(|e| e.activation = id, ErrorKind::Unsupported, &[&words]);
    }
    for id in [0, 3] {
        let words = format!("the encoder's family {id} is unknown");
        body(|e| e.family = id, ErrorKind::Unsupported, &[&words]);
    }
    let words = ["position_offset 0 in a RoBERTa encoder"];
    body(|e| e.family = 2, ErrorKind::Format, &words);
}

#[test]
fn encoder_unknown_task() {
    for id in [0, 3, u32::MAX] {
        let words = format!("the encoder's task {id} is unknown");
        body(|e| e.task = id, ErrorKind::Unsupported, &[&words]);
    }
    for id in [0, 4] {
        let words = format!("the encoder's problem {id} is unknown");
        body(|e| e.problem = id, ErrorKind::Unsupported, &[&words]);
    }
    // Fields that belong to the other task.
    let task = "which its task does not have";
    let words = ["the encoder's pooling is 1", task];
    body(|e| e.pooling = 1, ErrorKind::Format, &words);
    let words = ["the encoder's normalize is 1", task];
    body(|e| e.normalize = 1, ErrorKind::Format, &words);

    let encoder = Encoder {
        task: 1,
        pooling: 1,
        labels: 0,
        problem: 0,
        ..Encoder::valid()
    };
    let body = |change: fn(&mut Encoder), kind, words: &[&str]| {
        let mut encoder = encoder.clone();
        change(&mut encoder);
        let set = |m: &mut Model| m.body = encoder.body();
        unfit(words[0], &embedder(), set, kind, words);
    };
    let words = ["the encoder's pooling 0 is unknown"];
    body(|e| e.pooling = 0, ErrorKind::Unsupported, &words);
    let words = ["the encoder's pooling 4 is unknown"];
    body(|e| e.pooling = 4, ErrorKind::Unsupported, &words);
    let words = ["the encoder's normalize 2 is unknown"];
    body(|e| e.normalize = 2, ErrorKind::Unsupported, &words);
    let words = ["the encoder's labels is 3", task];
    body(|e| e.labels = 3, ErrorKind::Format, &words);
    let words = ["the encoder's problem is 1", task];
    body(|e| e.problem = 1, ErrorKind::Format, &words);
}

#[test]
fn encoder_bad_eps() {
    let above = 1.0 + f64::EPSILON;
    for eps in [0.0, -0.0, -1e-12, above, f64::NAN, f64::INFINITY] {
        let words = format!("layer_norm_eps {eps} is not above 0 and at most 1");
        body(|e| e.layer_norm_eps = eps, ErrorKind::Format, &[&words]);
    }
}

#[test]
fn encoder_positions_too_few() {
    for (tokens, offset) in [(17, 0), (16, 1), (u32::MAX, 0), (16, u32::MAX - 7)] {
        let needed = u64::from(tokens) + u64::from(offset);
        let words = format!("max_tokens {tokens} from position {offset} need {needed} positions");
        let change = |e: &mut Encoder| (e.max_tokens, e.position_offset) = (tokens, offset);
        body(change, ErrorKind::Format, &[&words, "there are 16"]);
    }
    let mut model = valid();
    model.body = Encoder {
        max_tokens: 15,
        position_offset: 1,
        ..Encoder::valid()
    }
    .body();
    load(&model.encode().bytes).expect("exactly enough");
}

#[test]
fn encoder_roberta_without_offset() {
    let change = |e: &mut Encoder| (e.family, e.position_offset) = (2, 0);
    body(
        change,
        ErrorKind::Format,
        &["position_offset 0 in a RoBERTa encoder"],
    );
}

#[test]
fn encoder_tensor_missing() {
    let names: Vec<String> = valid().tensors.iter().map(|t| t.name.clone()).collect();
    assert_eq!(names.len(), 5 + 2 * 16 + 4);
    for name in &names {
        let words = format!("tensor {name}: missing");
        malformed("a tensor", |m| remove(m, name), &[&words]);
    }
    let change = |m: &mut Model| m.tensor("head.labels.bias").name = "head.labels.Bias".into();
    malformed("a name", change, &["tensor head.labels.bias: missing"]);
}

/// What a file says of itself may be all right, and the model not whole.
#[cfg(feature = "cli")]
#[test]
fn inspect_shows_it_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("unfit.centroid");
    let mut model = valid();
    remove(&mut model, "layers.1.ffn.up.weight");
    std::fs::write(&path, model.encode().bytes).unwrap();
    let mut inspect = std::process::Command::new(env!("CARGO_BIN_EXE_centroid"));
    let output = inspect.arg("inspect").arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(out.contains("checksums"), "{out}");
    let words = "unfit.centroid: tensor layers.1.ffn.up.weight: missing";
    assert!(err.starts_with("error: ") && err.contains(words), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn encoder_tensor_shape() {
    let name = "layers.1.attention.query.weight";
    let asked = "where the model's config asks for tiles of shape [9, 9]";
    for shape in [[27, 3], [3, 27], [1, 81]] {
        let words = [&*format!("tensor {name}: tiles of shape {shape:?}"), asked];
        malformed("shape", |m| m.tensor(name).shape = shape.into(), &words);
    }
    let words = [&*format!("tensor {name}: rows of shape [9, 9]"), asked];
    malformed("layout", |m| m.tensor(name).layout.0 = 2, &words);
    let words = ["tensor layers.0.attention.norm.bias: rows of shape [1, 9]"];
    let change = |m: &mut Model| {
        let tensor = m.tensor("layers.0.attention.norm.bias");
        (tensor.layout.0, tensor.shape) = (2, vec![1, 9]);
    };
    malformed("a vector", change, &words);
    // The same from the other side: a config that the tensors do not fit.
    let asks = "where the model's config asks for";
    let token = ["tensor embeddings.token: rows of shape [40, 9]", asks];
    body(|e| e.vocab_size = 41, ErrorKind::Format, &token);
    body(|e| e.vocab_size = u32::MAX, ErrorKind::Format, &token);
    body(|e| e.hidden = 12, ErrorKind::Format, &token);
    let words = ["tensor embeddings.position: rows of shape [16, 9]", asks];
    body(|e| e.positions = 17, ErrorKind::Format, &words);
    let words = ["tensor embeddings.type: rows of shape [2, 9]", asks];
    body(|e| e.type_vocab = 1, ErrorKind::Format, &words);
    let words = [
        "tensor layers.0.ffn.up.weight: tiles of shape [67, 9]",
        asks,
    ];
    body(|e| e.intermediate = 66, ErrorKind::Format, &words);
    let words = ["tensor head.labels.weight: tiles of shape [3, 9]", asks];
    let change = |m: &mut Model| {
        let labels = 4;
        m.body = Encoder {
            labels,
            ..Encoder::valid()
        }
        .body();
        m.only(17).bytes = strings(&["a", "b", "c", "d"]);
    };
    malformed("labels", change, &words);
}

#[test]
fn encoder_tensor_extra() {
    for name in ["extra", "layers.2.attention.query.bias", "embeddings.Token"] {
        let words = format!("tensor {name}: the model has no such tensor");
        let change = |m: &mut Model| {
            let mut copy = m.tensor("head.dense.bias").clone();
            copy.name = name.to_owned();
            m.tensors.push(copy);
        };
        malformed("a copy", change, &[&words]);
    }
    let words = ["tensor layers.1.attention.query.weight: the model has no such tensor"];
    body(|e| e.layers = 1, ErrorKind::Format, &words);
    let words = ["tensor head.dense.weight: the model has no such tensor"];
    let change = |m: &mut Model| {
        m.body = embedder().body;
        hide_kind(m, 17);
    };
    malformed("a head", change, &words);
}

#[test]
fn labels_missing() {
    let words = ["the labels of the classifier are missing"];
    malformed("none", |m| hide_kind(m, 17), &words);
    let words = ["labels in a model that embeds"];
    let change = |m: &mut Model| {
        m.section(17, strings(&LABELS));
    };
    unfit("labels", &embedder(), change, ErrorKind::Format, &words);
}

#[test]
fn labels_miscounted() {
    for labels in [&[][..], &LABELS[..2], &["a", "b", "c", "d"]] {
        let words = format!("{} labels are stored for 3 logits", labels.len());
        malformed("labels", |m| m.only(17).bytes = strings(labels), &[&words]);
    }
}

#[test]
fn tokenizer_missing() {
    let words = ["the tokenizer is missing"];
    malformed("none", |m| hide_kind(m, 16), &words);
    for json in ["{", "[]", "{}", "null", "\0"] {
        let change = |m: &mut Model| m.only(16).bytes = json.into();
        let words = ["not a tokenizer.json"];
        unfit("not one", &valid(), change, ErrorKind::Tokenizer, &words);
    }
}

#[test]
fn tokenizer_too_large() {
    let words = "for a vocabulary of 40";
    for size in [41, 100] {
        let largest = format!("the tokenizer gives ids up to {}", size - 1);
        let change = |m: &mut Model| m.only(16).bytes = tokenizer(size).into_bytes();
        malformed("vocabulary", change, &[&largest, words]);
    }
    // The post-processor has ids of its own.
    let edited = |from: &str, to: &str| {
        let json = tokenizer(VOCABULARY);
        assert!(json.contains(from));
        let json = json.replacen(from, to, 1);
        move |m: &mut Model| m.only(16).bytes = json.clone().into_bytes()
    };
    let change = edited(r#""ids": [3]"#, r#""ids": [40]"#);
    let largest = "the tokenizer gives ids up to 40";
    malformed("post-processor", change, &[largest, words]);
}

/// A tokenizer without special tokens makes no token of an empty text.
#[test]
fn texts_without_tokens() {
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer(VOCABULARY)).unwrap();
    json["post_processor"] = serde_json::Value::Null;
    let mut model = valid();
    model.only(16).bytes = json.to_string().into_bytes();
    let artifact = Artifact::from_bytes(&model.encode().bytes).unwrap();
    let classifier = TextClassifier::new(artifact, Options::new().threads(1)).unwrap();
    for (texts, which) in [(&["", "a"][..], 0), (&["a", ""], 1), (&["a", "b", " "], 2)] {
        let error = classifier.classify(texts).unwrap_err();
        assert_eq!(
            (error.kind(), error.text()),
            (ErrorKind::Input, Some(which))
        );
    }
    assert_eq!(classifier.classify(&["a"]).unwrap()[0].tokens, 1);
}

/// Types that the template gives and the model does not have are found when a text is run.
#[test]
fn types_beyond_the_table() {
    let mut model = valid();
    let json = tokenizer(VOCABULARY).replacen(r#""type_id": 0"#, r#""type_id": 2"#, 1);
    model.only(16).bytes = json.into_bytes();
    let error = load(&model.encode().bytes).unwrap_err();
    says("type 2", &error, ErrorKind::Input, &["type 2", "2 types"]);
}

#[test]
fn sizes_are_what_these_tests_think() {
    let encoder = Encoder::valid();
    assert_eq!(u64::from(encoder.positions), POSITIONS);
    assert_eq!(u64::from(encoder.hidden), HIDDEN);
    assert_eq!(encoder.body().len(), 10 * 4 + 8 + 6 * 4);
}
