//! EfficientNets against timm and efficientnet-pytorch: `tests/data/efficientnet` was made by
//! `tools/goldens/efficientnet.py`, in f64.

#[path = "efficientnet/codes.rs"]
mod codes;
#[path = "efficientnet/timm.rs"]
mod timm;

use std::fs;
use std::path::{Path, PathBuf};

use centroid::convert::{Conversion, ConvertOptions, Crop, GroupPlan, Plan};
use centroid::{
    Artifact, ErrorKind, ImageClassifier, Mode, ModelKind, Options, Scheme, TextClassifier,
};
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;
use tempfile::TempDir;

/// Largest absolute error of mode `exact` on f32 artifacts.
const EXACT_BUDGET: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    network: String,
    size: usize,
    labels: usize,
    tensors: Vec<(String, Vec<usize>, f64, f64)>,
    images: u64,
    logits: Vec<Vec<f32>>,
}

/// What the goldens' script calls u.
fn uniform(number: u64, at: u64) -> f64 {
    let z = (number << 32) + at;
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let z = z ^ (z >> 31);
    (z >> 40) as f64 / f64::from(1u32 << 23) - 1.0
}

fn is_codes(name: &str) -> bool {
    name.ends_with(".assignments")
}

impl Golden {
    fn read(name: &str) -> Self {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/efficientnet");
        let text = fs::read_to_string(data.join(format!("{name}.json"))).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The weights in a file, in a directory that lives as long as what is returned.
    fn checkpoint(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let stored: Vec<(String, Vec<usize>, Vec<u8>)> = (self.tensors.iter().zip(0..))
            .map(|((name, shape, offset, scale), number)| {
                let count = shape.iter().product::<usize>() as u64;
                let value = |at| (offset + scale * uniform(number, at)) as f32;
                let code = |at| (scale * (1.0 + uniform(number, at)) / 2.0).floor() as i64;
                let bytes = match is_codes(name) {
                    true => (0..count).flat_map(|at| code(at).to_le_bytes()).collect(),
                    false => (0..count).flat_map(|at| value(at).to_le_bytes()).collect(),
                };
                (name.clone(), shape.clone(), bytes)
            })
            .collect();
        let views = (stored.iter()).map(|(name, shape, bytes)| {
            let dtype = match is_codes(name) {
                true => Dtype::I64,
                false => Dtype::F32,
            };
            (name, TensorView::new(dtype, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        folder
    }

    fn images(&self) -> Vec<Vec<f32>> {
        let values = (self.size * self.size * 3) as u64;
        (0..self.images)
            .map(|k| {
                (0..values)
                    .map(|i| (2.0 * uniform(1_000_000 + k, i)) as f32)
                    .collect()
            })
            .collect()
    }

    fn convert(&self, folder: &TempDir, plan: Plan) -> Artifact {
        let options = ConvertOptions {
            plan,
            image_size: Some(self.size),
            ..ConvertOptions::default()
        };
        // timm's networks are of one shape under two names.
        let named = self.network.contains('_').then_some(&self.network[..]);
        let conversion = Conversion::efficientnet(folder.path(), named, &options).unwrap();
        let variant = self
            .network
            .rsplit(['-', '_'])
            .next()
            .unwrap()
            .to_uppercase();
        let note = format!("an EfficientNet-{variant}");
        assert!(
            conversion.notes().contains(&note),
            "{:?}",
            conversion.notes()
        );
        Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap()
    }
}

fn logits(artifact: &Artifact, options: Options, images: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let classifier = ImageClassifier::new(artifact.clone(), options).unwrap();
    let images: Vec<&[f32]> = images.iter().map(|image| &image[..]).collect();
    let results = classifier.classify_inputs(&images).unwrap();
    (results.into_iter())
        .map(|mut result| {
            result.labels.sort_by_key(|label| label.index);
            result.labels.iter().map(|label| label.logit).collect()
        })
        .collect()
}

fn largest(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

fn options(mode: Mode, threads: usize) -> Options {
    Options::new().mode(mode).threads(threads)
}

#[test]
fn networks_equal_torch_in_exact_mode() {
    for name in [
        "efficientnet-b0",
        "efficientnet-b1",
        "tf_efficientnet_lite0",
        "efficientnet_b0",
        "tf_efficientnet_b2",
    ] {
        let golden = Golden::read(name);
        let artifact = golden.convert(&golden.checkpoint(), Plan::new(Scheme::F32));
        assert_eq!(artifact.kind().unwrap(), ModelKind::EfficientNet);
        assert_eq!(artifact.labels().unwrap().len(), golden.labels);
        let images = golden.images();
        let found = logits(&artifact, options(Mode::Exact, 1), &images);
        let worst = largest(&found, &golden.logits);
        println!(
            "{name}: {worst:e} of {}",
            largest(&golden.logits, &vec![vec![0.0; 9]; 9])
        );
        assert!(worst < EXACT_BUDGET, "{name}: {worst}");
        // With more threads, and alone.
        assert!(found == logits(&artifact, options(Mode::Exact, 2), &images));
        let alone = logits(&artifact, options(Mode::Exact, 1), &images[1..]);
        assert!(found[1..] == alone);
    }
}

#[test]
fn instruction_sets_agree() {
    let golden = Golden::read("tf_efficientnet_lite0");
    let artifact = golden.convert(&golden.checkpoint(), Plan::new(Scheme::Pq));
    let images = golden.images();
    let error = ImageClassifier::new(artifact.clone(), Options::new().isa("none"))
        .err()
        .unwrap();
    let text = error.to_string();
    let (_, names) = text.split_once("available: ").unwrap();
    for isa in names.split(", ") {
        for mode in [Mode::Exact, Mode::Int8] {
            let first = logits(&artifact, options(mode, 1).isa("portable"), &images);
            let other = logits(&artifact, options(mode, 1).isa(isa), &images);
            // Sums of other orders, which rounding to 8 bits may make larger.
            let budget = if mode == Mode::Exact { 1e-4 } else { 0.02 };
            let worst = largest(&first, &other);
            println!(
                "{isa} {mode:?}: {worst:e} of {}",
                largest(&first, &vec![vec![0.0; 9]; 9])
            );
            assert!(worst < budget, "{isa} {mode:?}: {worst}");
            assert!(other == logits(&artifact, options(mode, 2).isa(isa), &images));
        }
    }
}

/// With trained weights and real pictures: `tools/setup` fetches them.
#[test]
fn calibration_lowers_the_error_on_other_pictures() {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/lite0");
    let listed = fs::read_to_string(cache.join("imagenet.tsv")).expect("tools/setup fetches it");
    let files = listed.lines().skip(1).filter_map(|l| l.split_once('\t'));
    let files: Vec<_> = files.map(|(file, _)| cache.join(file)).collect();
    let (others, own) = files.split_at(8);
    let answers = |plan: Plan, pictures: &[PathBuf]| -> Vec<f32> {
        let options = ConvertOptions {
            plan,
            image_size: Some(96),
            pictures: pictures.to_vec(),
            ..ConvertOptions::default()
        };
        let checkpoint = cache.join("lite0.pth");
        let conversion = Conversion::efficientnet(checkpoint, None, &options).unwrap();
        let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
        let provenance = artifact.provenance().to_vec();
        let (_, recipe) = provenance.iter().find(|(key, _)| key == "recipe").unwrap();
        let calibrated = recipe.contains(&format!("calibrated on {} pictures", pictures.len()));
        assert_eq!(calibrated, !pictures.is_empty(), "{recipe}");
        let classifier = ImageClassifier::new(artifact, options_exact()).unwrap();
        let mut answers = Vec::new();
        for mut result in classifier.classify(others).unwrap() {
            result.labels.sort_by_key(|label| label.index);
            answers.extend(result.labels.iter().map(|label| label.logit));
        }
        answers
    };
    let expected = answers(Plan::new(Scheme::F32), &[]);
    // Of few small pictures only the first blocks have pixels enough.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.toml");
    let blocks = [1, 2, 3].map(|i| {
        format!("[[tensors]]\npattern = \"blocks.{i}.*.weight\"\nscheme = \"pq\"\nblock = 3\n")
    });
    fs::write(&file, format!("scheme = \"f32\"\n{}", blocks.concat())).unwrap();
    let error = |pictures: &[_]| {
        let mut plan = Plan::new(Scheme::F32);
        plan.apply_file(&file).unwrap();
        let found = answers(plan, pictures);
        let pairs = found.iter().zip(&expected);
        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>()
    };
    let (plain, calibrated) = (error(&[]), error(own));
    println!("squared error {plain} without calibration, {calibrated} with it");
    assert!(calibrated < 0.5 * plain, "{calibrated} {plain}");
    // Without quantization there is nothing to adjust.
    let options = ConvertOptions {
        plan: Plan::new(Scheme::F32),
        pictures: own.to_vec(),
        ..ConvertOptions::default()
    };
    let conversion = Conversion::efficientnet(cache.join("lite0.pth"), None, &options);
    assert_eq!(conversion.err().unwrap().kind(), ErrorKind::Config);
}

fn options_exact() -> Options {
    options(Mode::Exact, 1)
}

#[test]
fn a_thousand_classes_are_those_of_imagenet() {
    let mut golden = Golden::read("tf_efficientnet_lite0");
    for (name, shape, ..) in &mut golden.tensors {
        if name.starts_with("classifier.") {
            shape[0] = 1000;
        }
    }
    let folder = golden.checkpoint();
    let convert = |labels| {
        let options = ConvertOptions {
            labels,
            ..ConvertOptions::default()
        };
        let name = Some("tf_efficientnet_lite0");
        Conversion::efficientnet(folder.path(), name, &options).unwrap()
    };
    let note = "its 1,000 labels are taken for ImageNet's (--labels gives others)";
    let conversion = convert(None);
    assert!(
        conversion.notes().iter().any(|n| n == note),
        "{:?}",
        conversion.notes()
    );
    let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
    assert_eq!(artifact.labels().unwrap()[609], "jeep");
    let own = convert(Some((0..1000).map(|i| i.to_string()).collect()));
    assert!(!own.notes().iter().any(|n| n == note));
}

#[test]
fn what_does_not_fit_is_refused() {
    let golden = Golden::read("tf_efficientnet_lite0");
    let folder = golden.checkpoint();
    let fails = |network: Option<&str>, options: ConvertOptions, words: &str| {
        let error = Conversion::efficientnet(folder.path(), network, &options)
            .err()
            .unwrap();
        assert!(error.to_string().contains(words), "{error}: {words}");
        error.kind()
    };
    let none = ConvertOptions::default;
    let kind = fails(None, none(), "tf_efficientnet_lite0 or efficientnet_lite0");
    assert_eq!(kind, ErrorKind::Config);
    fails(
        Some("resnet50"),
        none(),
        "\"resnet50\" is unknown; known: efficientnet-X",
    );
    let kind = fails(
        Some("tf_efficientnet_b0"),
        none(),
        "blocks.0.0.se.conv_reduce.weight",
    );
    assert_eq!(kind, ErrorKind::Checkpoint);
    fails(
        Some("tf_efficientnet_lite2"),
        none(),
        "blocks.1.2.conv_pw.weight: missing",
    );
    let labels = Some(vec!["a".into()]);
    fails(
        Some("tf_efficientnet_lite0"),
        ConvertOptions { labels, ..none() },
        "1 labels are given for 5",
    );
    let share = ConvertOptions { share: 2, ..none() };
    fails(
        Some("tf_efficientnet_lite0"),
        share,
        "share is for models of texts",
    );
    let size = ConvertOptions {
        image_size: Some(100_000),
        ..none()
    };
    fails(Some("tf_efficientnet_lite0"), size, "size is 100000");

    let artifact = golden.convert(&folder, Plan::new(Scheme::F16));
    let error = TextClassifier::new(artifact.clone(), Options::new())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("a model of kind efficientnet"),
        "{error}"
    );
    let classifier = ImageClassifier::new(artifact, Options::new()).unwrap();
    assert_eq!(classifier.size(), 65);
    let short = vec![0.0; 10];
    let error = classifier.classify_inputs(&[&short]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("image 0: 10 values where 65 x 65 x 3"),
        "{error}"
    );
    let mut bad = golden.images().remove(0);
    bad[7] = f32::NAN;
    let error = classifier.classify_inputs(&[&bad]).unwrap_err();
    assert!(
        error.to_string().contains("image 0: value 7 is NaN"),
        "{error}"
    );
}

/// A smaller network's tensors are all there in a larger one's file.
#[test]
fn networks_that_leave_tensors_over_are_refused() {
    let refused = |golden: &Golden, network: &str, first: &str, more: &str| {
        let folder = golden.checkpoint();
        let error = Conversion::efficientnet(folder.path(), Some(network), &f32_options());
        let error = error.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        let text = error.to_string();
        assert!(text.contains(first) && text.contains(more), "{text}");
    };
    // B1 has a block more in each stage.
    let mut renamed = Golden::read("efficientnet_b0");
    let block = "blocks.1.2.conv_pw.weight".to_owned();
    (renamed.tensors).push((block, vec![144, 24, 1, 1], 0.0, 0.1));
    refused(
        &renamed,
        "efficientnet_b0",
        "blocks.1.2.conv_pw.weight",
        "not of an EfficientNet-B0",
    );
    refused(
        &Golden::read("efficientnet-b0"),
        "efficientnet-lite0",
        "_blocks.0._se_expand.bias",
        "not of an EfficientNet-LITE0, nor are 63 others",
    );
    let mut scalar = Golden::read("efficientnet-b0");
    let classifier = scalar.tensors.iter_mut().find(|t| t.0 == "_fc.weight");
    classifier.unwrap().1.clear();
    refused(&scalar, "efficientnet-b0", "_fc.weight", "a single number");
    // Counts of training are nothing that a network is made of.
    (renamed.tensors).pop();
    for (name, shape) in [("bn1.num_batches_tracked", vec![]), ("n_averaged", vec![])] {
        renamed.tensors.push((name.into(), shape, 3.0, 0.0));
    }
    let folder = renamed.checkpoint();
    Conversion::efficientnet(folder.path(), Some("efficientnet_b0"), &f32_options()).unwrap();
}

/// How pictures are prepared, no weights say: it can be given, and what is taken is told.
#[test]
fn colours_are_given_or_assumed() {
    let folder = Golden::read("tf_efficientnet_lite0").checkpoint();
    let convert = |folder: &TempDir, name, options: &ConvertOptions, words: &str| {
        let conversion = Conversion::efficientnet(folder.path(), name, options).unwrap();
        let notes = conversion.notes();
        assert!(notes.iter().any(|note| note.contains(words)), "{notes:?}");
        let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
        let info = artifact.network().unwrap();
        (info.mean, info.std)
    };
    let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let found = convert(
        &folder,
        Some("tf_efficientnet_lite0"),
        &f32_options(),
        "cut out of 256 before resize (bicubic), mean 0.498039,0.498039,0.498039, std 0.501961,0.501961,\
         0.501961 (assumed where no flag does)",
    );
    assert_eq!(found, ([0.498039; 3], [0.501961; 3]));
    let given = ConvertOptions {
        mean: Some(imagenet.0),
        std: Some(imagenet.1),
        ..f32_options()
    };
    let words = "mean 0.485,0.456,0.406, std 0.229,0.224,0.225";
    let found = convert(&folder, Some("tf_efficientnet_lite0"), &given, words);
    assert_eq!(found, imagenet);
    // timm's own Lite networks.
    let found = convert(&folder, Some("efficientnet_lite0"), &f32_options(), words);
    assert_eq!(found, imagenet);
    // A tag stands for a preparation that only the config knows.
    let name = Some("tf_efficientnet_lite0.in1k");
    let error = Conversion::efficientnet(folder.path(), name, &f32_options());
    let text = error.err().unwrap().to_string();
    assert!(text.contains("\"tf_efficientnet_lite0.in1k\": what is behind the point"));
    let folder = saved("tf_efficientnet_lite0", |config| {
        config["architecture"] = "tf_efficientnet_lite0.in1k".into();
    });
    let words = "std 0.5,0.5,0.5 (its config.json says so where no flag does)";
    let found = convert(&folder, None, &f32_options(), words);
    assert_eq!(found, ([0.5; 3], [0.5; 3]));
    let found = convert(&folder, None, &given, "std 0.229,0.224,0.225");
    assert_eq!(found, imagenet);
}

/// A directory as timm saves it: weights and `config.json`, with some fields changed.
fn saved(name: &str, change: impl Fn(&mut serde_json::Value)) -> TempDir {
    let folder = Golden::read(name).checkpoint();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/efficientnet");
    let text = fs::read_to_string(data.join(format!("{name}.config.json"))).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn f32_options() -> ConvertOptions {
    let plan = Plan::new(Scheme::F32);
    ConvertOptions {
        plan,
        ..ConvertOptions::default()
    }
}
