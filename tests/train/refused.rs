//! Mistakes lose nothing.

use std::fs;

use centroid::ErrorKind;
use centroid::train::Start;

use crate::tiny::Tiny;
use crate::{F32, TUNE, alone, logged, start};

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
    let int8 = "[plan]\nscheme = \"int8\"\n";
    let noise = |range: &str| {
        format!(
            "learning-rate = 1e39\nnoise = {{ form = \"int8\", rate = 0.5, range = \"{range}\", refresh = 1 }}\n"
        )
    };
    // Whoever sees first what has no end: the loss, noise, or the centroids' rounding.
    for (number, (plan, keys)) in [
        ("", "learning-rate = 1e30\nclip = 1e30\n"),
        (int8, &*noise("histogram")),
        (int8, &*noise("tensor")),
        (
            &*tiny.plan(),
            "quantize = [\"ffn\"]\ncentroid-learning-rate = 1e39\n",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let stages = format!(
            "[[stage]]\nname = \"fine\"\nepochs = 1\n\n[[stage]]\nname = \"wild\"\nepochs = 3\n{keys}"
        );
        let output = format!("wild-{number}");
        let recipe = tiny.recipe(&output, "", plan, &stages);
        let error = start(&recipe, Start::New, None).unwrap_err().to_string();
        assert!(error.contains("stage \"wild\", step "), "{error}");
        assert!(error.contains("learning rate is too high"), "{error}");
        assert!(!error.contains("panic"), "{error}");
        assert!(tiny.path(&output).join("state.safetensors").exists());
        assert!(!tiny.path(&output).join("model.centroid").exists());
    }
}

/// Files of an earlier run are no part of a new one's checkpoint, which replaces them when it is whole.
#[test]
fn a_checkpoint_is_of_one_run() {
    let _alone = alone();
    let tiny = Tiny::new();
    let recipe = tiny.recipe("run", "", F32, TUNE);
    start(&recipe, Start::New, None).unwrap();
    let checkpoint = tiny.path("run/checkpoint");
    let of = |name: &str| fs::read(checkpoint.join(name)).unwrap();
    // Another tokenizer would be read before vocab.txt.
    fs::write(checkpoint.join("tokenizer.json"), "{}").unwrap();
    fs::write(checkpoint.join("notes.txt"), "mine").unwrap();
    let names = |directory: &std::path::Path| {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };

    // What stands where files are prepared, as a full disk would, stops the run before the old ones go.
    let (config, weights) = (of("config.json"), of("model.safetensors"));
    let text = fs::read_to_string(tiny.path("data.tsv")).unwrap();
    fs::write(tiny.path("data.tsv"), text.replace("good\n", "agood\n")).unwrap();
    fs::write(checkpoint.join(".partial.tmp"), "in the way").unwrap();
    let error = start(&recipe, Start::Overwrite, None).unwrap_err();
    assert!(error.to_string().contains(".partial.tmp"), "{error}");
    assert!(config == of("config.json") && weights == of("model.safetensors"));
    assert!(tiny.path("run/state.safetensors").exists());

    fs::remove_file(checkpoint.join(".partial.tmp")).unwrap();
    start(&recipe, Start::Resume, None).unwrap();
    assert!(weights != of("model.safetensors"));
    assert!(String::from_utf8_lossy(&of("config.json")).contains("agood"));
    let expected = [
        "config.json",
        "model.safetensors",
        "notes.txt",
        "sentence_bert_config.json",
        "vocab.txt",
    ];
    assert_eq!(names(&checkpoint), expected);

    // A run without one leaves none, and nothing that it did not write.
    let stage = "[[stage]]\nname = \"codes\"\nepochs = 0\nquantize = [\"ffn\"]\n";
    let recipe = tiny.recipe("run", "", &tiny.plan(), stage);
    start(&recipe, Start::Overwrite, None).unwrap();
    assert_eq!(names(&checkpoint), ["notes.txt"]);
}

/// Nothing was measured without examples.
#[test]
fn without_tests_nothing_is_said_of_them() {
    let _alone = alone();
    let tiny = Tiny::new();
    let recipe = tiny.recipe("run", "", F32, &TUNE.replace("epochs = 4", "epochs = 1"));
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replace("[data]\n", "[data]\ntest = 0.0\n")).unwrap();
    start(&recipe, Start::New, None).unwrap();
    for line in logged(&tiny.path("run"), "test") {
        assert!(line["n"] == 0 && line["accuracy"].is_null(), "{line}");
        assert!(line["largest_difference"].is_f64(), "{line}");
    }
}
