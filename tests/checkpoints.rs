//! Checkpoints that are incomplete, inconsistent or unusual: a clear error, and no file.

#[path = "checkpoints/refused.rs"]
mod refused;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use centroid::convert::{Conversion, ConvertOptions, Plan, with_tokenizer_tables};
use centroid::{
    Artifact, ErrorKind, Mode, Options, Scheme, SentenceEmbedder, TextClassifier, Truncation,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// A copy of a small checkpoint that a test may damage.
struct Copy(TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/checkpoints")
            .join(name);
        let copy = Self(tempfile::tempdir().unwrap());
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_dir() {
                let folder = copy.0.path().join(entry.file_name());
                fs::create_dir(&folder).unwrap();
                for inner in fs::read_dir(entry.path()).unwrap() {
                    let inner = inner.unwrap();
                    fs::copy(inner.path(), folder.join(inner.file_name())).unwrap();
                }
            } else {
                fs::copy(entry.path(), copy.0.path().join(entry.file_name())).unwrap();
            }
        }
        copy
    }

    fn remove(&self, file: &str) -> &Self {
        fs::remove_file(self.0.path().join(file)).unwrap();
        self
    }

    fn write(&self, file: &str, bytes: &[u8]) -> &Self {
        fs::write(self.0.path().join(file), bytes).unwrap();
        self
    }

    fn json(&self, file: &str, change: impl FnOnce(&mut Value)) -> &Self {
        let path = self.0.path().join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
        self
    }

    /// Rewrites the weights; a tensor is a type, a shape and bytes.
    fn weights(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
    ) -> &Self {
        let path = self.0.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            tensors.insert(name, tensor);
        }
        change(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (
                name.clone(),
                TensorView::new(*dtype, shape.clone(), data).unwrap(),
            )
        });
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
        self
    }

    fn open(&self, options: &ConvertOptions) -> centroid::Result<Conversion> {
        Conversion::from_directory(self.0.path(), options)
    }

    /// Converting fails with this kind of error, and its one line has all of `words`.
    fn fails(&self, kind: ErrorKind, words: &[&str]) {
        self.fails_with(&f32_options(), kind, words);
    }

    fn fails_with(&self, options: &ConvertOptions, kind: ErrorKind, words: &[&str]) {
        let out = self.0.path().join("out.centroid");
        let result = self
            .open(options)
            .and_then(|c| c.write(&out, false, &|_| ()));
        let error = result.expect_err(&format!("{words:?}"));
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(!text.contains('\n'), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
        assert!(!out.exists());
        let left: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            left.iter().all(|n| !n.to_string_lossy().ends_with(".tmp")),
            "{left:?}"
        );
    }
}

fn f32_options() -> ConvertOptions {
    ConvertOptions {
        plan: Plan::new(Scheme::F32),
        ..Default::default()
    }
}

fn artifact(conversion: &Conversion) -> Artifact {
    Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap()
}

const QUERY: &str = "bert.encoder.layer.0.attention.self.query.weight";

#[test]
fn notes_tell_what_was_left_out() {
    let note = |name: &str, options: &ConvertOptions| {
        Copy::of(name).open(options).unwrap().notes().join("\n")
    };
    let options = f32_options();
    assert!(note("bert-mlm", &options).contains("language-model head was skipped"));
    assert!(note("bert-model", &options).contains("mean of all tokens"));
    assert!(note("bert-model", &options).contains("pooler was dropped"));
    assert!(note("sbert", &options).contains("truncat") || note("sbert", &options).contains("cut"));
    assert!(!note("bert-gamma", &options).contains("unused"));
    let copy = Copy::of("bert-gelu");
    copy.weights(|t| drop(t.insert("bert.extra".into(), (Dtype::F32, vec![1], vec![0; 4]))));
    assert!(
        copy.open(&options)
            .unwrap()
            .notes()
            .join("\n")
            .contains("unused tensors: bert.extra")
    );
}

#[test]
fn limits_on_tokens_hold_exactly() {
    // 34 positions less the padding's 2.
    let classifier = TextClassifier::new(
        artifact(&Copy::of("roberta-seq").open(&f32_options()).unwrap()),
        Options::new().mode(Mode::Exact),
    )
    .unwrap();
    assert_eq!(classifier.max_length(), 32);
    let ids = |n: usize| vec![5u32; n];
    for n in [1, 31, 32] {
        let results = classifier.classify_ids(&[&ids(n)]).unwrap();
        assert_eq!(results[0].tokens, n);
    }
    let error = classifier.classify_ids(&[&ids(3), &ids(33)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong);
    assert!(error.to_string().contains("33") && error.to_string().contains("32"));
    assert_eq!(error.text(), Some(1));
}

#[test]
fn layers_are_pruned_and_shared() {
    let copy = Copy::of("roberta-seq");
    let logits = |options: &ConvertOptions| {
        let artifact = artifact(&copy.open(options).unwrap());
        let bytes = artifact.weight_bytes();
        let classifier = TextClassifier::new(artifact, Options::new().mode(Mode::Exact)).unwrap();
        let result = classifier.classify(&["a good film"]).unwrap().remove(0);
        (
            result.labels.iter().map(|l| l.logit).collect::<Vec<_>>(),
            bytes,
        )
    };
    let with = |layers: &[usize], share: usize| ConvertOptions {
        layers: Some(layers.to_vec()),
        share,
        ..f32_options()
    };
    let all = logits(&f32_options());
    assert_eq!(logits(&with(&[0, 1, 2], 1)), all);
    assert_ne!(logits(&with(&[0, 2], 1)).0, all.0);
    // Three layers that share layer 0's weights take the room of one.
    let shared = logits(&with(&[0, 1, 2], 3));
    let one = logits(&with(&[0], 1));
    assert_eq!(shared.1, one.1);
    assert_ne!(shared.0, one.0);
    // What the shared layers compute is layer 0 three times over: the same as a checkpoint whose
    // layers are copies.
    let copies = Copy::of("roberta-seq");
    copies.weights(|tensors| {
        let first: Vec<_> = (tensors.iter())
            .filter(|(name, _)| name.contains(".layer.0."))
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        for (name, tensor) in first {
            for layer in ["1", "2"] {
                tensors.insert(
                    name.replace(".layer.0.", &format!(".layer.{layer}.")),
                    tensor.clone(),
                );
            }
        }
    });
    let copied = artifact(&copies.open(&f32_options()).unwrap());
    let classifier = TextClassifier::new(copied, Options::new().mode(Mode::Exact)).unwrap();
    let result = classifier.classify(&["a good film"]).unwrap().remove(0);
    assert_eq!(
        result.labels.iter().map(|l| l.logit).collect::<Vec<_>>(),
        shared.0
    );
}

#[test]
fn calibration_lowers_the_error_on_other_text() {
    let texts: Vec<String> = (0..60)
        .map(|i| {
            format!(
                "the film was {} and {} good, {i}",
                ["not", "very", "so"][i % 3],
                ["bad", "a", "best"][i / 3 % 3]
            )
        })
        .collect();
    let others = [
        "it was the worst film",
        "very good and not so bad",
        "best of all",
    ];
    // A model of sentences, and one with a head: its dense layer is calibrated like the others.
    for name in ["sbert", "bert-gelu"] {
        let copy = Copy::of(name);
        let answers = |options: &ConvertOptions| -> Vec<f32> {
            let artifact = artifact(&copy.open(options).unwrap());
            let options = Options::new().mode(Mode::Exact);
            if name == "sbert" {
                let embedder = SentenceEmbedder::new(artifact, options).unwrap();
                let embeddings = embedder.embed(&others).unwrap();
                return embeddings.into_iter().flat_map(|e| e.vector).collect();
            }
            let classifier = TextClassifier::new(artifact, options).unwrap();
            let mut logits = Vec::new();
            for mut found in classifier.classify(&others).unwrap() {
                found.labels.sort_by(|a, b| a.label.cmp(&b.label));
                logits.extend(found.labels.iter().map(|l| l.logit));
            }
            logits
        };
        let expected = answers(&f32_options());
        let error = |calibration: &[String]| {
            let mut plan = Plan::default();
            plan.set_all(|group| {
                group.centroids = 16;
                group.block = 2;
            })
            .unwrap();
            let options = ConvertOptions {
                plan,
                calibration: calibration.to_vec(),
                ..Default::default()
            };
            let found = answers(&options);
            let pairs = found.iter().zip(&expected);
            pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>()
        };
        let (plain, calibrated) = (error(&[]), error(&texts));
        println!("{name}: squared error {plain} without calibration, {calibrated} with it");
        assert!(calibrated < plain);
    }
}

#[test]
fn existing_files_are_kept_unless_forced() {
    let copy = Copy::of("bert-gelu");
    let conversion = copy.open(&f32_options()).unwrap();
    let out = copy.0.path().join("out.centroid");
    fs::write(&out, b"precious").unwrap();
    let error = conversion.write(&out, false, &|_| ()).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    conversion.write(&out, true, &|_| ()).unwrap();
    Artifact::open(&out).unwrap();
    assert!(
        conversion
            .write(copy.0.path().join("no/dir/x"), true, &|_| ())
            .is_err()
    );
}

#[test]
fn the_first_text_without_a_finite_result_is_named() {
    let copy = Copy::of("bert-gelu");
    copy.weights(|tensors| {
        let (_, shape, data) = tensors
            .get_mut("bert.embeddings.word_embeddings.weight")
            .unwrap();
        // The sum of these overflows.
        for value in data.as_chunks_mut::<4>().0[50 * shape[1]..][..shape[1]].iter_mut() {
            *value = 2e38f32.to_le_bytes();
        }
    });
    let conversion = copy.open(&f32_options()).unwrap();
    for mode in [Mode::Exact, Mode::Int8] {
        for threads in [1, 2] {
            let options = Options::new().mode(mode).threads(threads);
            let classifier = TextClassifier::new(artifact(&conversion), options).unwrap();
            // Texts are computed in the order of their lengths, and the last one fails first.
            let texts: Vec<Vec<u32>> = (0..60)
                .map(|i| {
                    let mut ids = vec![7; 40 - i / 2];
                    ids[1] = if matches!(i, 20 | 59) { 50 } else { 8 };
                    ids
                })
                .collect();
            let texts: Vec<&[u32]> = texts.iter().map(|ids| &ids[..]).collect();
            let error = classifier.classify_ids(&texts).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input);
            assert_eq!(error.text(), Some(20), "{error}");
            assert!(error.to_string().contains("not finite"), "{error}");
            assert_eq!(classifier.classify_ids(&texts[..20]).unwrap().len(), 20);
        }
    }
}

/// Every golden artifact with its tokenizer as tables: the same tensors, the same answers.
#[test]
fn artifacts_get_tokenizer_tables() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let directory = tempfile::tempdir().unwrap();
    let texts = ["A film, of sorts.", "caf\u{e9} \u{4f60} [SEP] </s>", ""];
    let mut upgraded = 0;
    for entry in fs::read_dir(golden).unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_none_or(|e| e != "centroid") {
            continue;
        }
        let before = Artifact::open(&source).unwrap();
        if before.tokenizer_kind().is_none() {
            // A network of images.
            continue;
        }
        let target = directory.path().join(source.file_name().unwrap());
        with_tokenizer_tables(&before, &target, false).unwrap();
        let error = with_tokenizer_tables(&before, &target, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let after = Artifact::open(&target).unwrap();
        assert_eq!(after.tokenizer_kind(), Some("tokenizer tables"));
        assert!(after.tensors().eq(before.tensors()));
        assert_eq!(after.provenance(), before.provenance());
        upgraded += usize::from(before.tokenizer_kind() == Some("tokenizer.json"));
        // Tables stay as they are.
        let again = directory.path().join("again");
        with_tokenizer_tables(&after, &again, true).unwrap();
        assert!(fs::read(&again).unwrap() == fs::read(&target).unwrap());

        let options = || Options::new().threads(1).truncation(Truncation::Truncate);
        if before.labels().is_some() {
            let [before, after] =
                [before, after].map(|a| TextClassifier::new(a, options()).unwrap());
            assert_eq!(
                after.classify(&texts).unwrap(),
                before.classify(&texts).unwrap()
            );
        } else {
            let [before, after] =
                [before, after].map(|a| SentenceEmbedder::new(a, options()).unwrap());
            assert_eq!(after.embed(&texts).unwrap(), before.embed(&texts).unwrap());
        }
    }
    assert_eq!(upgraded, 11);
}
