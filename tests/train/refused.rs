//! Mistakes lose nothing.

use std::fs;

use centroid::ErrorKind;
use centroid::train::Start;

use crate::tiny::Tiny;
use crate::{F32, TUNE, alone, start};

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let _alone = alone();
    let tiny = Tiny::new();
    let noise = "[[stage]]\nname = \"s\"\nepochs = 1\nnoise = { form = \"proxy\", rate = 0.1 }\n";
    let quantize = "[[stage]]\nname = \"s\"\nepochs = 1\nquantize = [\"ffn\"]\n";
    for (keys, plan, stages, expected) in [
        (
            "",
            F32,
            noise,
            "stage \"s\": noise: the plan quantizes none",
        ),
        ("", F32, quantize, "quantize: ffn is to be f32 by the plan"),
        (
            "device = \"gpu\"\n",
            "",
            TUNE,
            "device \"gpu\" is unknown; known: cpu",
        ),
        ("device = \"cuda:7\"\n", "", TUNE, "sees no such device"),
        ("layers = [5]\n", "", TUNE, "5"),
        // What only an earlier stage makes impossible is seen before it is trained.
        (
            "",
            &*tiny.plan(),
            &format!("{quantize}{noise}")
                .replace("form", "groups = [\"ffn\"], form")
                .replacen("\"s\"", "\"first\"", 1),
            "stage \"s\": noise: everything in its groups is quantized by then",
        ),
        // What no key would change.
        (
            "",
            "[plan]\nscheme = \"int8\"\n",
            &format!("{quantize}calibrate = 9\n"),
            "stage \"s\": calibrate is for codes, and by the plan quantize makes none",
        ),
        (
            "",
            "[plan]\nscheme = \"int8\"\n",
            &format!("{quantize}reassign = 9\n"),
            "stage \"s\": reassign is for codes",
        ),
        (
            "",
            &*tiny.plan(),
            &format!("{quantize}weigh-inputs = true\n").replace("ffn", "embedding"),
            "stage \"s\": weigh-inputs: what quantize names has no inputs",
        ),
        (
            "",
            &*tiny.plan(),
            &format!("{quantize}{quantize}").replacen("\"s\"", "\"first\"", 1),
            "stage \"s\": quantize: an earlier stage did ffn",
        ),
    ] {
        let recipe = tiny.recipe("never", keys, plan, stages);
        let error = start(&recipe, Start::New, None).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(!tiny.path("never").exists());
    }
    let text = fs::read_to_string(tiny.recipe("never", "", "", TUNE)).unwrap();
    let recipe = tiny.path("elsewhere.toml");
    for (from, to, kind) in [
        (
            "model = \"model\"",
            "model = \"no-model\"",
            ErrorKind::Checkpoint,
        ),
        ("train = \"data.tsv\"", "train = \"no.tsv\"", ErrorKind::Io),
        ("text = \"text\"", "text = \"words\"", ErrorKind::Input),
        (
            "label = \"label\"",
            "max-tokens = 1000\nlabel = \"label\"",
            ErrorKind::Config,
        ),
        (
            "[[stage]]",
            "validation = 1e-4\n[[stage]]\npatience = 1",
            ErrorKind::Config,
        ),
        // That is no line's fault.
        (
            "label = \"label\"",
            "max-tokens = 1\nlabel = \"label\"",
            ErrorKind::Config,
        ),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&recipe, text.replace(from, to)).unwrap();
        let error = start(&recipe, Start::New, None).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!tiny.path("never").exists());
    }
}

/// It would be asked for tokens that it has no positions for, or for tokens that are others to it.
#[test]
fn teachers_that_do_not_fit_are_refused() {
    let _alone = alone();
    let tiny = Tiny::new();
    let teacher = tiny.recipe(
        "teacher",
        "",
        F32,
        &TUNE.replace("epochs = 4", "epochs = 1"),
    );
    start(&teacher, Start::New, None).unwrap();
    let checkpoint = tiny.path("teacher/checkpoint");
    let stage = "[[stage]]\nname = \"s\"\nepochs = 1\ndistill = {}\n";
    let recipe = tiny.recipe("student", "teacher = \"teacher/checkpoint\"\n", F32, stage);

    let vocabulary = fs::read_to_string(checkpoint.join("vocab.txt")).unwrap();
    let mut words: Vec<&str> = vocabulary.lines().collect();
    words.swap(5, 6);
    fs::write(checkpoint.join("vocab.txt"), words.join("\n") + "\n").unwrap();
    let other = |name: &str| fs::read(checkpoint.join(name)).ok();
    let json = other("tokenizer.json");
    if json.is_some() {
        fs::remove_file(checkpoint.join("tokenizer.json")).unwrap();
    }
    let error = start(&recipe, Start::New, None).unwrap_err().to_string();
    assert!(error.contains("gives other ids"), "{error}");
    assert!(!tiny.path("student").exists());
    fs::write(checkpoint.join("vocab.txt"), &vocabulary).unwrap();

    let longer = Tiny::with_positions(64);
    let text = fs::read_to_string(&recipe).unwrap();
    let model = format!("model = {:?}", longer.path("model"));
    fs::write(&recipe, text.replace("model = \"model\"", &model)).unwrap();
    let error = start(&recipe, Start::New, None).unwrap_err().to_string();
    assert!(error.contains("set data.max-tokens"), "{error}");
}

/// What a run reads it does not write over.
#[test]
fn a_run_does_not_overwrite_what_it_starts_from() {
    let _alone = alone();
    let tiny = Tiny::new();
    let one = TUNE.replace("epochs = 4", "epochs = 1");
    start(&tiny.recipe("first", "", F32, &one), Start::New, None).unwrap();
    let weights = tiny.path("first/checkpoint/model.safetensors");
    let before = fs::read(&weights).unwrap();
    let recipe = tiny.recipe("first", "", F32, &one);
    let text = fs::read_to_string(&recipe).unwrap();
    let text = text.replace("model = \"model\"", "model = \"first/checkpoint\"");
    fs::write(&recipe, &text).unwrap();
    for mode in [Start::New, Start::Overwrite, Start::Resume] {
        let error = start(&recipe, mode, None).unwrap_err().to_string();
        assert!(error.contains("model would be overwritten"), "{error}");
    }
    // A checkpoint is a result, too.
    fs::remove_file(tiny.path("first/model.centroid")).unwrap();
    let error = start(&tiny.recipe("first", "", F32, &one), Start::New, None).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    assert!(before == fs::read(&weights).unwrap());
}

/// A learning rate that destroys the model stops the run, and the last state stays.
#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let _alone = alone();
    let tiny = Tiny::new();
    let stages = "[[stage]]\nname = \"fine\"\nepochs = 1\n\n\
                  [[stage]]\nname = \"wild\"\nepochs = 3\nlearning-rate = 1e30\nclip = 1e30\n";
    let recipe = tiny.recipe("wild", "", "", stages);
    let error = start(&recipe, Start::New, None).unwrap_err().to_string();
    assert!(error.contains("stage \"wild\", step "), "{error}");
    assert!(error.contains("learning rate is too high"), "{error}");
    assert!(tiny.path("wild").join("state.safetensors").exists());
    assert!(!tiny.path("wild").join("model.centroid").exists());
}
