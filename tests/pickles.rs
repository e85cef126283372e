//! Files of `torch.save` in every layout, against what torch says they hold, and what training leaves in names.

use std::fs;
use std::path::PathBuf;

use centroid::convert::{Checkpoint, Conversion, ConvertOptions};
use centroid::{Artifact, ErrorKind};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(data().join("torch").join(name)).unwrap()
}

/// Every tensor of `expected.safetensors`, and no other.
fn compare(name: &str) {
    let checkpoint = open(name);
    let bytes = fs::read(data().join("torch/expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<_> = expected.names().into_iter().map(String::from).collect();
    names.sort();
    let found: Vec<_> = checkpoint.names().collect();
    assert_eq!(found, names, "{name}");
    // Safetensors are read by other code than pickles; what it gives is checked below for two.
    let reference = Checkpoint::open(data().join("torch/expected.safetensors")).unwrap();
    for (tensor, view) in expected.tensors() {
        assert_eq!(
            checkpoint.shape(&tensor),
            Some(view.shape()),
            "{name}: {tensor}"
        );
        match view.dtype() {
            Dtype::I64 | Dtype::U8 => assert_eq!(
                checkpoint.integers(&tensor).unwrap(),
                reference.integers(&tensor).unwrap(),
                "{name}: {tensor}"
            ),
            _ => assert_eq!(
                checkpoint.values(&tensor).unwrap(),
                reference.values(&tensor).unwrap(),
                "{name}: {tensor}"
            ),
        }
    }
    assert_eq!(checkpoint.values("scalar").unwrap(), [2.5]);
    assert_eq!(checkpoint.integers("steps").unwrap(), [1_234_567_890_123]);
    let codes = checkpoint.integers("codes").unwrap();
    assert_eq!(codes[..5], [0, 6, 12, 18, 1]);
}

/// Torch reads the opposite of what is stored: better none than those.
#[test]
fn negated_views_are_errors_where_they_are_read() {
    let checkpoint = open("negated.pt");
    assert_eq!(checkpoint.values("plain").unwrap(), [1.0, 1.0]);
    for name in ["negated", "imaginary"] {
        let error = checkpoint.values(name).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("(neg)"), "{error}");
    }
}

#[test]
fn every_layout_of_torch_gives_its_tensors() {
    for name in ["zip.pt", "legacy.pt", "protocol4.pt", "legacy4.pt"] {
        compare(name);
        assert!(open(name).notes().is_empty());
    }
}

#[test]
fn weights_are_found_among_what_training_keeps() {
    compare("nested.pt");
    let nested = open("nested.pt");
    let note = "the weights stand under \"model.state_dict\" in the file";
    assert_eq!(nested.notes(), [note]);
    assert_eq!(nested.argument("layers"), Some("12"));
    assert_eq!(nested.argument("arch"), Some("roberta_base"));
    assert_eq!(nested.argument("dropout"), Some("0.1"));
    assert_eq!(nested.argument("path"), None);
    // Averaged weights come before the last ones, which are zeros here.
    compare("ema.pt");
    assert!(open("ema.pt").notes()[0].contains("\"state_dict_ema\""));
    assert_eq!(open("metadata.pt").values("x").unwrap(), [1.0, 1.0]);
}

#[test]
fn types_are_not_mistaken() {
    let zip = open("zip.pt");
    for (error, words) in [
        (zip.values("steps").unwrap_err(), "values of type I64"),
        (
            zip.integers("plain").unwrap_err(),
            "values of type F32 where integers are",
        ),
        (zip.values("nothing").unwrap_err(), "missing"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_pickled_directory_converts_like_one_in_safetensors() {
    let from = data().join("checkpoints/bert-model");
    let convert = |directory: &std::path::Path| {
        let conversion = Conversion::from_directory(directory, &ConvertOptions::default()).unwrap();
        let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
        artifact.tensors().collect::<Vec<_>>()
    };
    let values = |checkpoint: &Checkpoint| -> Vec<_> {
        let names = checkpoint
            .names()
            .filter(|name| !name.ends_with("position_ids"));
        (names.map(|name| (name.to_owned(), checkpoint.values(name).unwrap()))).collect()
    };
    let weights = values(&Checkpoint::open(&from).unwrap());
    let expected = convert(&from);
    for pickle in ["bert-model.bin", "bert-model-legacy.bin"] {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(&from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "model.safetensors" {
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let single = copy.path().join("pytorch_model.bin");
        fs::copy(data().join("torch").join(pickle), &single).unwrap();
        assert!(convert(copy.path()) == expected, "{pickle}");
        assert!(
            values(&Checkpoint::open(copy.path()).unwrap()) == weights,
            "{pickle}"
        );

        // The same behind an index, and cut short.
        let shard = copy.path().join("pytorch_model-00001-of-00001.bin");
        fs::rename(&single, &shard).unwrap();
        let checkpoint = Checkpoint::open(&shard).unwrap();
        let map: serde_json::Map<_, _> = (checkpoint.names())
            .map(|name| (name.to_owned(), "pytorch_model-00001-of-00001.bin".into()))
            .collect();
        let index = serde_json::json!({ "weight_map": map });
        fs::write(
            copy.path().join("pytorch_model.bin.index.json"),
            index.to_string(),
        )
        .unwrap();
        assert!(convert(copy.path()) == expected, "{pickle}");
        let bytes = fs::read(&shard).unwrap();
        fs::write(&shard, &bytes[..bytes.len() - 100]).unwrap();
        let error = Checkpoint::open(copy.path()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert!(error.to_string().contains("pytorch_model-00001"), "{error}");
    }
}

/// Files in safetensors with these tensors, each of a value; several are behind an index.
fn wrapped(files: &[&[(&str, Dtype, &[usize])]]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut map = serde_json::Map::new();
    for (number, tensors) in files.iter().enumerate() {
        let file = match files.len() {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{number}.safetensors"),
        };
        let views = tensors.iter().map(|&(name, dtype, shape)| {
            let bytes: &[u8] = match dtype {
                Dtype::I64 => &[5, 0, 0, 0, 0, 0, 0, 0],
                _ => &[0; 4],
            };
            let view = safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes);
            (name, view.unwrap())
        });
        map.extend((tensors.iter()).map(|(name, ..)| ((*name).to_owned(), file.clone().into())));
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(directory.path().join(file), bytes).unwrap();
    }
    if files.len() > 1 {
        let index = serde_json::json!({ "weight_map": map });
        let path = directory.path().join("model.safetensors.index.json");
        fs::write(path, index.to_string()).unwrap();
    }
    directory
}

#[test]
fn what_wrappers_put_before_every_name_is_left_out() {
    let names = |files: &[&[(&str, Dtype, &[usize])]]| -> Vec<String> {
        let checkpoint = Checkpoint::open(wrapped(files).path()).unwrap();
        checkpoint.names().map(str::to_owned).collect()
    };
    let one = |name| (name, Dtype::F32, &[1][..]);
    let count = |name| (name, Dtype::I64, &[][..]);
    assert_eq!(names(&[&[one("module.a"), one("module.b")]]), ["a", "b"]);
    let averaged = [count("n_averaged"), one("module.module.a")];
    assert_eq!(names(&[&averaged]), ["a"]);
    let compiled = [
        count("_orig_mod.n_averaged"),
        one("_orig_mod.module.model.a.b"),
        count("_orig_mod.module.model.c"),
    ];
    assert_eq!(names(&[&compiled]), ["a.b", "c"]);
    // Others' names stay, though some of them begin so.
    let mixed = [one("model.a"), one("head.b")];
    assert_eq!(names(&[&mixed]), ["head.b", "model.a"]);
    assert_eq!(names(&[&[mixed[0]], &[mixed[1]]]), ["head.b", "model.a"]);
    let shards: [&[_]; 2] = [&[one("model.a")], &[one("model.b")]];
    assert_eq!(names(&shards), ["a", "b"]);
    // Errors tell what the file says.
    let directory = wrapped(&[&[one("model.a"), count("model.c")]]);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let error = checkpoint.values("c").unwrap_err();
    assert_eq!(error.tensor(), Some("model.c"));
}
