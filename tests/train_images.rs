//! Whole runs of the trainer on a tiny network of images: it learns from nothing, is quantized with noise and
//! in stages, and the runtime computes what torch does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use centroid::data::Scores;
use centroid::train::{Event, Finished, Outcome, Recipe, Start, Tested, run};
use centroid::{Artifact, ImageClassifier, Scheme};

/// Torch has one random generator and one number of threads for the whole process.
static TORCH: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    TORCH
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

const SIDE: u32 = 18;
const PICTURES: usize = 240;

/// Pictures of stripes that lie, stripes that stand, and discs, and a directory that is gone with this value.
struct Pictures(tempfile::TempDir);

impl Pictures {
    fn new() -> Self {
        let pictures = Self(tempfile::tempdir().unwrap());
        let mut state = 1u32;
        let mut below = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % n
        };
        let mut lines = String::from("file\tlabel\n");
        fs::create_dir(pictures.path("pictures")).unwrap();
        for number in 0..PICTURES {
            let label = ["lying", "standing", "disc"][number % 3];
            let (phase, period) = (below(4), 4 + below(2));
            let (x0, y0, radius) = (6 + below(6), 6 + below(6), 4 + below(2));
            let color = [below(128), below(128), below(128)];
            let mut picture = image::RgbImage::new(SIDE, SIDE);
            for (x, y, pixel) in picture.enumerate_pixels_mut() {
                let inside = match label {
                    "lying" => (y + phase) % period < period / 2,
                    "standing" => (x + phase) % period < period / 2,
                    _ => x.abs_diff(x0).pow(2) + y.abs_diff(y0).pow(2) < radius * radius,
                };
                let light = if inside { 127 } else { 0 };
                *pixel = image::Rgb(color.map(|c| (c.min(100) + light + below(28)) as u8));
            }
            let name = format!("pictures/{number}.png");
            picture.save(pictures.path(&name)).unwrap();
            lines += &format!("{name}\t{label}\n");
        }
        fs::write(pictures.path("data.tsv"), lines).unwrap();
        pictures
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a run and returns its path: `keys` come first in the file, `data` in its table.
    fn recipe(&self, output: &str, keys: &str, data: &str, rest: &str) -> PathBuf {
        let text = format!(
            "output = \"{output}\"\nbatch = 16\nthreads = 1\n{keys}\n[data]\ntrain = \"data.tsv\"\n\
             image = \"file\"\n{data}\n{rest}"
        );
        let path = self.path(&format!("{output}.toml"));
        fs::write(&path, text).unwrap();
        path
    }
}

fn start(recipe: &Path, start: Start, stop_at: Option<usize>) -> centroid::Result<Outcome> {
    let recipe = Recipe::read(recipe)?;
    let stop = AtomicBool::new(false);
    run(&recipe, start, &stop, &mut |event| {
        if let Event::Step { step, .. } = event {
            stop.store(Some(step) == stop_at, Ordering::Relaxed);
        }
    })
}

fn finished(outcome: centroid::Result<Outcome>) -> Box<Finished> {
    match outcome.unwrap() {
        Outcome::Finished(finished) => finished,
        other => panic!("{other:?}"),
    }
}

/// Accuracy in the modes `int8` and `exact`.
fn accuracy(finished: &Finished) -> [f64; 2] {
    match &finished.tested {
        Tested::Classifier { int8, exact } => [int8, exact].map(Scores::accuracy),
        other => panic!("{other:?}"),
    }
}

/// The largest difference of a logit from torch's, in the modes `int8` and `exact`.
fn differences(directory: &Path) -> [f64; 2] {
    let text = fs::read_to_string(directory.join("log.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let tests: Vec<serde_json::Value> = lines
        .filter(|line: &serde_json::Value| line["event"] == "test")
        .collect();
    [0, 1].map(|mode| tests[mode]["largest_difference"].as_f64().unwrap())
}

/// Odd sizes, both strides, a block that adds its input, one that expands nothing, and a squeeze.
const SHAPE: &str = r#"
[network.shape]
size = 17
resize = 18
activation = "silu"
stem = 8
features = 48
[[network.shape.blocks]]
expanded = 8
channels = 12
[[network.shape.blocks]]
expanded = 48
squeezed = 4
kernel = 5
stride = 2
channels = 16
[[network.shape.blocks]]
expanded = 64
channels = 16
"#;
const F32: &str = "[plan]\nscheme = \"f32\"\n";
const LABEL: &str = "label = \"label\"\n";
const TUNE: &str = "[[stage]]\nname = \"tune\"\nepochs = 12\nlearning-rate = 1e-2\n";

/// Codes block by block, and int4 among them, noise in front of them, and at last what the mode `int8` rounds.
const STAGES: &str = r#"
[plan.groups]
depthwise.block = 3

[[plan.tensors]]
pattern = "blocks.0.depthwise.weight"
scheme = "int4"

[[stage]]
name = "noise"
epochs = 1
learning-rate = 1e-3
noise = { form = "proxy", rate = 0.1 }

[[stage]]
name = "first"
quantize = ["blocks.0-1"]
weigh-inputs = true
epochs = 6
learning-rate = 5e-3
centroid-learning-rate = 1e-2
noise = { form = "exact", rate = 0.2, refresh = 5 }
distill = { hidden = 1.0 }

[[stage]]
name = "rest"
quantize = ["blocks.2", "features"]
epochs = 6
learning-rate = 5e-3
centroid-learning-rate = 1e-2
layer-drop = 0.1
distill = { labels = 0.5 }

[[stage]]
name = "int8"
epochs = 1
learning-rate = 3e-4
int8 = true
distill = { hidden = 0.0 }
"#;

fn teacher(pictures: &Pictures) -> Box<Finished> {
    let rest = format!("{SHAPE}\n{F32}\n{TUNE}");
    let data = format!("{LABEL}augment = {{ flip = true, area = 0.8 }}\n");
    let recipe = pictures.recipe("teacher", "dropout = 0.0\n", &data, &rest);
    finished(start(&recipe, Start::New, None))
}

#[test]
fn a_network_learns_from_nothing_and_is_quantized_in_stages() {
    let _alone = alone();
    let pictures = Pictures::new();
    let done = teacher(&pictures);
    let [int8, exact] = accuracy(&done);
    assert!(int8 > 0.9 && exact > 0.9, "{int8} {exact}");
    assert!(done.checkpoint.is_none());
    // Batch norms are in the weights, which are in f32.
    let directory = pictures.path("teacher");
    let [in_int8, in_exact] = differences(&directory);
    assert!(in_int8 < 1e-3 && in_exact < 1e-3, "{in_int8} {in_exact}");
    let model = ImageClassifier::open(directory.join("model.centroid")).unwrap();
    assert_eq!(model.labels(), ["disc", "lying", "standing"]);
    assert_eq!(model.size(), 17);

    let keys = "model = \"teacher/model.centroid\"\nteacher = \"teacher/model.centroid\"\n\
                dropout = 0.0\nsave = 7\n";
    let recipe = pictures.recipe("codes", keys, LABEL, STAGES);
    let done = finished(start(&recipe, Start::New, None));
    let [int8, exact] = accuracy(&done);
    eprintln!(
        "{}",
        fs::read_to_string(pictures.path("codes/log.jsonl")).unwrap()
    );
    assert!(int8 > 0.85 && exact > 0.85, "{int8} {exact}");
    let [in_int8, in_exact] = differences(&pictures.path("codes"));
    assert!(in_exact < 0.05 && in_int8 < 0.5, "{in_int8} {in_exact}");
    let artifact = Artifact::open(pictures.path("codes/model.centroid")).unwrap();
    for tensor in artifact.tensors() {
        // The classifier is too small for a codebook.
        let plain = ["stem.weight", "classifier.weight"].contains(&&*tensor.name);
        let int4 = tensor.name == "blocks.0.depthwise.weight";
        let coded = tensor.name.ends_with(".weight") && !plain && !int4;
        assert_eq!(tensor.scheme == Scheme::Pq, coded, "{}", tensor.name);
        assert_eq!(tensor.scheme == Scheme::Int4, int4, "{}", tensor.name);
    }

    // The same again, stopped in every stage.
    let text = fs::read_to_string(&recipe).unwrap();
    fs::rename(pictures.path("codes"), pictures.path("whole")).unwrap();
    fs::write(&recipe, text).unwrap();
    for stop_at in [5, 20, 60, 100, 170] {
        let mode = if stop_at == 5 {
            Start::New
        } else {
            Start::Resume
        };
        let outcome = start(&recipe, mode, Some(stop_at)).unwrap();
        assert!(matches!(outcome, Outcome::Stopped), "{stop_at}");
    }
    finished(start(&recipe, Start::Resume, None));
    for file in ["model.centroid", "log.jsonl", "answers.jsonl"] {
        let read = |name: &str| fs::read(pictures.path(name).join(file)).unwrap();
        assert!(read("whole") == read("codes"), "{file} differs");
    }
}

/// Batch norms' own means and variances go on, too.
#[test]
fn a_new_network_goes_on_where_it_was_stopped() {
    let _alone = alone();
    let pictures = Pictures::new();
    let stages = "[[stage]]\nname = \"noise\"\nepochs = 3\nlearning-rate = 5e-3\n\
                  noise = { form = \"int8\", rate = 0.5 }\n";
    let plan = "[plan]\nscheme = \"int8\"\n";
    let rest = format!("{SHAPE}\n{plan}\n{stages}");
    let recipe = pictures.recipe("run", "save = 4\nbf16 = true\n", LABEL, &rest);
    finished(start(&recipe, Start::New, None));
    fs::rename(pictures.path("run"), pictures.path("whole")).unwrap();
    for (mode, stop_at) in [(Start::New, 3), (Start::Resume, 17)] {
        let outcome = start(&recipe, mode, Some(stop_at)).unwrap();
        assert!(matches!(outcome, Outcome::Stopped), "{stop_at}");
    }
    finished(start(&recipe, Start::Resume, None));
    for file in ["model.centroid", "log.jsonl"] {
        let read = |name: &str| fs::read(pictures.path(name).join(file)).unwrap();
        assert!(read("whole") == read("run"), "{file} differs");
    }
}

/// Distilling needs no labels, and a network for other labels gets a new classifier.
#[test]
fn a_teacher_teaches_without_labels() {
    let _alone = alone();
    let pictures = Pictures::new();
    teacher(&pictures);
    let keys =
        "model = \"teacher/model.centroid\"\nteacher = \"teacher/model.centroid\"\ndropout = 0.0\n";
    let stage = "[[stage]]\nname = \"codes\"\ncalibrate = 40\nquantize = [\"pointwise\", \"depthwise\"]\nepochs = 8\n\
                 learning-rate = 5e-3\ncentroid-learning-rate = 1e-2\ndistill = { }\n\
                 [plan.groups]\ndepthwise.block = 3\n";
    let recipe = pictures.recipe("student", keys, "", stage);
    let done = finished(start(&recipe, Start::New, None));
    let Tested::Student {
        int8,
        exact,
        examples,
    } = done.tested
    else {
        panic!("{:?}", done.tested);
    };
    assert!(int8 > 0.8 && exact > 0.8, "{int8} {exact}");
    assert_eq!(examples, PICTURES / 10);

    let lines = fs::read_to_string(pictures.path("data.tsv")).unwrap();
    let lines = lines
        .replace("\tlying", "\tstripes")
        .replace("\tstanding", "\tstripes");
    fs::write(pictures.path("data.tsv"), lines).unwrap();
    let keys = "model = \"teacher/model.centroid\"\n";
    let recipe = pictures.recipe("other", keys, LABEL, &format!("{F32}{TUNE}"));
    let done = finished(start(&recipe, Start::New, None));
    assert!(accuracy(&done)[1] > 0.9, "{:?}", accuracy(&done));
}

#[test]
fn mistakes_are_named_and_nothing_is_written() {
    let _alone = alone();
    let pictures = Pictures::new();
    let new = |keys: &str, data: &str, rest: &str| {
        let recipe = pictures.recipe("never", keys, data, rest);
        let error = start(&recipe, Start::New, None).unwrap_err();
        assert!(!pictures.path("never").exists());
        error.to_string()
    };
    let quantize =
        |what: &str| format!("[[stage]]\nname = \"s\"\nepochs = 1\nquantize = [\"{what}\"]\n");
    let weighed = quantize("features") + "calibrate = 8\nweigh-answers = true\n";
    let without = SHAPE.replace("stem = 8", "stem = 0");
    let even = SHAPE.replace("kernel = 5", "kernel = 4");
    let act = SHAPE.replace("\"silu\"", "\"gelu\"");
    for (error, expected) in [
        (new("", LABEL, TUNE), "model or network is missing"),
        (
            new(
                "model = \"m\"\n",
                "label = \"label\"\ntext = \"file\"\n",
                TUNE,
            ),
            "data.text is for texts",
        ),
        (
            new("share = 2\n", LABEL, &format!("{SHAPE}{TUNE}")),
            "share is for texts",
        ),
        (
            new("", "", &format!("{SHAPE}{TUNE}")),
            "a teacher is needed",
        ),
        (new("", LABEL, &format!("{without}{TUNE}")), "stem is 0"),
        (new("", LABEL, &format!("{even}{TUNE}")), "kernel 4 is even"),
        (
            new("", LABEL, &format!("{act}{TUNE}")),
            "known: relu6, silu",
        ),
        (
            new(
                "",
                LABEL,
                &format!("[network]\nname = \"resnet50\"\n{TUNE}"),
            ),
            "\"resnet50\" is unknown",
        ),
        (
            new("", LABEL, &format!("{SHAPE}{}", quantize("ffn"))),
            "group \"ffn\" is unknown; known: stem, pointwise",
        ),
        (
            new("", LABEL, &format!("{SHAPE}{weighed}")),
            "weigh-answers is for texts",
        ),
        (
            new("", LABEL, &format!("{SHAPE}{}", quantize("blocks.7"))),
            "no tensor of \"blocks.7\"",
        ),
        (
            new("", LABEL, &format!("{SHAPE}{}", quantize("stem"))),
            "stem is to be f16 by the plan",
        ),
        (
            new(
                "",
                "label = \"label\"\naugment = { area = 0.0 }\n",
                &format!("{SHAPE}{TUNE}"),
            ),
            "augment.area",
        ),
        (new("model = \"data.tsv\"\n", LABEL, TUNE), "data.tsv"),
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }

    // A picture that is none, and one that is not there.
    fs::write(pictures.path("pictures/9.png"), b"GIF89a").unwrap();
    let rest = format!("{SHAPE}\n{F32}\n{TUNE}");
    let recipe = pictures.recipe("broken", "", LABEL, &rest);
    let error = start(&recipe, Start::New, None).unwrap_err().to_string();
    assert!(
        error.contains("9.png") && error.contains("picture"),
        "{error}"
    );
    fs::remove_file(pictures.path("pictures/9.png")).unwrap();
    let error = new("", LABEL, &rest);
    assert!(
        error.contains("9.png") && error.contains("line 11"),
        "{error}"
    );
}
