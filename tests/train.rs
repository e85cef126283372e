//! Whole runs of the trainer on a tiny model: it learns, quantizes, is written and answers; what is
//! stopped goes on as if nothing had happened; mistakes lose nothing.

#[path = "train/quantized.rs"]
mod quantized;
#[path = "train/refused.rs"]
mod refused;
#[path = "train/stopped.rs"]
mod stopped;
#[path = "train/tiny.rs"]
mod tiny;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use centroid::data::Scores;
use centroid::train::{Event, Finished, Outcome, Recipe, Start, Tested, run};
use centroid::{SentenceEmbedder, TextClassifier};

use tiny::Tiny;

/// Torch has one random generator and one number of threads for the whole process.
static TORCH: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    TORCH
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
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

fn finished(outcome: Outcome) -> Box<Finished> {
    match outcome {
        Outcome::Finished(finished) => finished,
        other => panic!("{other:?}"),
    }
}

/// A classifier's scores in the modes `int8` and `exact`.
fn scores(finished: &Finished) -> [&Scores; 2] {
    match &finished.tested {
        Tested::Classifier { int8, exact } => [int8, exact],
        other => panic!("{other:?}"),
    }
}

/// Lines of the log with a key of this value.
fn logged(directory: &Path, event: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(directory.join("log.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &serde_json::Value| line["event"] == event)
        .collect()
}

const F32: &str = "[plan]\nscheme = \"f32\"\n";
const TUNE: &str = "[[stage]]\nname = \"tune\"\nepochs = 4\nlearning-rate = 2e-3\n";

#[test]
fn a_tiny_model_learns_and_its_checkpoint_is_one() {
    let _alone = alone();
    let tiny = Tiny::new();
    let recipe = tiny.recipe("plain", "", F32, TUNE);
    let done = finished(start(&recipe, Start::New, None).unwrap());
    let [int8, exact] = scores(&done).map(Scores::accuracy);
    assert!(exact > 0.95, "{exact}");
    assert!(int8 > 0.95, "{int8}");

    // The runtime computes what torch does.
    let output = tiny.path("plain");
    let tests = logged(&output, "test");
    let difference = |mode: &str| {
        let line = tests.iter().find(|line| line["mode"] == mode).unwrap();
        line["largest_difference"].as_f64().unwrap()
    };
    assert!(difference("exact") < 1e-4, "{}", difference("exact"));
    assert!(difference("int8") < 0.3, "{}", difference("int8"));

    let answers = fs::read_to_string(output.join("answers.jsonl")).unwrap();
    let answers: Vec<serde_json::Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let right = answers
        .iter()
        .filter(|line| line["label"] == line["exact"])
        .count();
    assert_eq!(answers.len() as u64, scores(&done)[1].examples());
    assert_eq!(right as f64 / answers.len() as f64, exact);
    assert!(
        fs::read_to_string(output.join("log.svg"))
            .unwrap()
            .starts_with("<svg")
    );

    let model = TextClassifier::open(output.join("model.centroid")).unwrap();
    let answers = model
        .classify(&["the film was awful", "the film was great"])
        .unwrap();
    assert_eq!(
        [&*answers[0].labels[0].label, &*answers[1].labels[0].label],
        ["bad", "good"]
    );

    // The checkpoint converts to the same model.
    let options = centroid::convert::ConvertOptions {
        plan: centroid::convert::Plan::new(centroid::Scheme::F32),
        ..Default::default()
    };
    let checkpoint = done.checkpoint.unwrap();
    let conversion = centroid::convert::Conversion::from_directory(checkpoint, &options).unwrap();
    let path = output.join("again.centroid");
    conversion.write(&path, false, &|_| ()).unwrap();
    let again = TextClassifier::open(path).unwrap();
    let texts = ["some plot is fine", "a poor actor"];
    assert_eq!(
        again.classify(&texts).unwrap(),
        model.classify(&texts).unwrap()
    );
    assert!(!output.join("state.safetensors").exists());
}

/// A checkpoint without config.json leaves one that has it, and codes are trained as what they stand for.
#[test]
fn checkpoints_of_fairseq_are_trained() {
    let _alone = alone();
    let tiny = Tiny::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints");
    for name in ["fairseq-roberta", "fairseq-ipq", "fairseq-0.12"] {
        let recipe = tiny.recipe(name, "", F32, TUNE);
        let text = fs::read_to_string(&recipe).unwrap();
        let model = format!("model = {:?}", data.join(name));
        fs::write(&recipe, text.replace("model = \"model\"", &model)).unwrap();
        let done = finished(start(&recipe, Start::New, None).unwrap());
        let tests = logged(&tiny.path(name), "test");
        let difference = tests[1]["largest_difference"].as_f64().unwrap();
        assert!(difference < 1e-4, "{name}: {difference}");

        let checkpoint = done.checkpoint.unwrap();
        let config = fs::read(checkpoint.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["model_type"], "roberta");
        let options = centroid::convert::ConvertOptions {
            plan: centroid::convert::Plan::new(centroid::Scheme::F32),
            ..Default::default()
        };
        let conversion =
            centroid::convert::Conversion::from_directory(checkpoint, &options).unwrap();
        let path = tiny.path(name).join("again.centroid");
        conversion.write(&path, false, &|_| ()).unwrap();
        let texts = ["some plot is fine", "a poor actor"];
        let [model, again] = [tiny.path(name).join("model.centroid"), path].map(|path| {
            TextClassifier::open(path)
                .unwrap()
                .classify(&texts)
                .unwrap()
        });
        assert_eq!(model, again);
    }
}

/// In parts, too, each token counts once: losses of hidden states are means over tokens.
#[test]
fn accumulation_changes_no_loss() {
    let _alone = alone();
    let tiny = Tiny::new();
    let stage = "[[stage]]\nname = \"same\"\nepochs = 1\nlearning-rate = 0.0\n\
                 distill = { logits = 0.5, hidden = 1.0 }\n";
    finished(start(&tiny.recipe("teacher", "", F32, TUNE), Start::New, None).unwrap());
    let losses = [1, 4].map(|parts| {
        let keys =
            format!("teacher = \"teacher/checkpoint\"\ndropout = 0.0\naccumulate = {parts}\n");
        let output = format!("parts-{parts}");
        finished(start(&tiny.recipe(&output, &keys, F32, stage), Start::New, None).unwrap());
        let steps = logged(&tiny.path(&output), "step");
        let losses = steps.iter().map(|step| step["loss"].as_f64().unwrap());
        losses.collect::<Vec<f64>>()
    });
    assert!(!losses[0].is_empty());
    for (whole, parts) in losses[0].iter().zip(&losses[1]) {
        assert!((whole - parts).abs() < 1e-5 * whole, "{losses:?}");
    }
}

/// The limit goes with the model: whoever uses it sees what it was measured with.
#[test]
fn a_limit_of_tokens_is_the_models_own() {
    let _alone = alone();
    let tiny = Tiny::new();
    let recipe = tiny.recipe("short", "", F32, &TUNE.replace("epochs = 4", "epochs = 1"));
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(
        &recipe,
        text.replace("[data]\n", "[data]\nmax-tokens = 6\n"),
    )
    .unwrap();
    let done = finished(start(&recipe, Start::New, None).unwrap());
    let model = TextClassifier::open(&done.artifact).unwrap();
    assert!(model.classify(&["the film was great"]).is_ok());
    let error = model.classify(&["the film was really great"]).unwrap_err();
    assert!(error.to_string().contains("the limit is 6"), "{error}");
    let artifact = centroid::Artifact::open(&done.artifact).unwrap();
    let provenance = artifact.provenance();
    let test = provenance.iter().find(|(key, _)| *key == "test").unwrap();
    assert!(test.1.contains("texts cut to 6 tokens"), "{}", test.1);
    let limit = done.checkpoint.unwrap().join("sentence_bert_config.json");
    let limit: serde_json::Value = serde_json::from_slice(&fs::read(limit).unwrap()).unwrap();
    assert_eq!(limit["max_seq_length"], 6);
}

/// A teacher's labels may stand in any order: a new head takes it.
#[test]
fn a_new_head_has_its_teachers_order_of_labels() {
    let _alone = alone();
    let tiny = Tiny::new();
    finished(start(&tiny.recipe("teacher", "", F32, TUNE), Start::New, None).unwrap());
    let config = tiny.path("teacher/checkpoint/config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["id2label"] = serde_json::json!({"0": "good", "1": "bad"});
    json["label2id"] = serde_json::json!({"good": 0, "bad": 1});
    fs::write(&config, json.to_string()).unwrap();
    let stage = "[[stage]]\nname = \"s\"\nepochs = 1\ndistill = {}\n";
    let recipe = tiny.recipe("student", "teacher = \"teacher/checkpoint\"\n", F32, stage);
    let done = finished(start(&recipe, Start::New, None).unwrap());
    let model = TextClassifier::open(&done.artifact).unwrap();
    assert_eq!(model.labels(), ["good", "bad"]);
}

/// Layers that a step leaves out have no hidden states to compare: without any of them a model is as its teacher.
#[test]
fn layers_left_out_are_not_compared() {
    let _alone = alone();
    let tiny = Tiny::new();
    let teacher = tiny.recipe("teacher", "", F32, TUNE);
    finished(start(&teacher, Start::New, None).unwrap());
    let stage = "[[stage]]\nname = \"same\"\nepochs = 2\nlearning-rate = 0.0\nlayer-drop = 0.95\n\
                 distill = { logits = 0.0, hidden = 1.0 }\n";
    let keys = "teacher = \"teacher/checkpoint\"\ndropout = 0.0\n";
    let recipe = tiny.recipe("dropped", keys, F32, stage);
    let text = fs::read_to_string(&recipe).unwrap();
    let text = text.replace("model = \"model\"", "model = \"teacher/checkpoint\"");
    fs::write(&recipe, text).unwrap();
    finished(start(&recipe, Start::New, None).unwrap());
    let steps = logged(&tiny.path("dropped"), "step");
    assert!(steps.iter().any(|step| step["loss"] == 0.0), "{steps:?}");
}

#[test]
fn a_teacher_teaches_a_smaller_model() {
    let _alone = alone();
    let tiny = Tiny::new();
    let teacher = tiny.recipe("teacher", "", F32, TUNE);
    finished(start(&teacher, Start::New, None).unwrap());
    let distilled = r#"
[[stage]]
name = "distil"
quantize = ["ffn", "attention", "embedding"]
epochs = 10
learning-rate = 2e-3
centroid-learning-rate = 1e-2
distill = { labels = 0.5, hidden = 1.0, temperature = 2.0 }
"#;
    let keys = "teacher = \"teacher/checkpoint\"\nlayers = [1]\n";
    let recipe = tiny.recipe("student", keys, &tiny.plan(), distilled);
    let done = finished(start(&recipe, Start::New, None).unwrap());
    let accuracy = scores(&done)[1].accuracy();
    assert!(accuracy > 0.9, "{accuracy}");
    let difference = logged(&tiny.path("student"), "test")[1]["largest_difference"].as_f64();
    // Centroids are rounded to int8, the rest to f16.
    assert!(difference.unwrap() < 0.3, "{difference:?}");

    // With 40 texts that have no labels an epoch takes more steps, where labels are not needed.
    let mut lines = String::from("text\n");
    (0..40).for_each(|i| lines += &format!("the film is awful {i}\n"));
    fs::write(tiny.path("more.tsv"), lines).unwrap();
    let stages = distilled
        .replace("labels = 0.5, ", "")
        .replace("epochs = 10", "epochs = 1");
    let stages = format!("{TUNE}{stages}");
    for (output, more) in [("more", true), ("fewer", false)] {
        let keys = "teacher = \"teacher/checkpoint\"\n";
        let recipe = tiny.recipe(output, keys, &tiny.plan(), &stages);
        if more {
            let text = fs::read_to_string(&recipe).unwrap();
            let text = text.replace("[data]\n", "[data]\nunlabelled = \"more.tsv\"\n");
            fs::write(&recipe, text).unwrap();
        }
        finished(start(&recipe, Start::New, None).unwrap());
        let steps = logged(&tiny.path(output), "step");
        let of = |stage: &str| {
            let mut lines = steps.iter().rev();
            lines.find(|line| line["stage"] == stage).unwrap()["of"]
                .as_u64()
                .unwrap()
        };
        let (labelled, all) = (of("tune") / 4, of("distil"));
        let right = if more {
            all > labelled + 1
        } else {
            all == labelled
        };
        assert!(right, "{labelled} {all}");
    }
    let text = fs::read_to_string(tiny.path("more.toml")).unwrap();
    let (head, _) = text.split_once("[[stage]]").unwrap();
    fs::write(tiny.path("more.toml"), format!("{head}{TUNE}")).unwrap();
    let error = start(&tiny.path("more.toml"), Start::Overwrite, None).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no stage learns from the teacher alone"),
        "{error}"
    );

    // Without a fine-tuned head there is nothing to learn.
    let recipe = tiny.recipe("none", "teacher = \"model\"\n", &tiny.plan(), distilled);
    let error = start(&recipe, Start::New, None).unwrap_err();
    assert!(
        error.to_string().contains("has to be fine-tuned first"),
        "{error}"
    );
    assert!(!tiny.path("none").exists());
}

/// Makes the checkpoint one of sentence-transformers.
fn set_pooling(tiny: &Tiny, pooling: &str, normalize: bool) {
    let write = |name: &str, text: String| {
        let path = tiny.path("model").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let module = |index: usize, path: &str, of: &str| {
        format!(
            "{{\"idx\": {index}, \"name\": \"{index}\", \"path\": \"{path}\", \
             \"type\": \"sentence_transformers.models.{of}\"}}"
        )
    };
    let mut modules = vec![
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
    ];
    if normalize {
        modules.push(module(2, "2_Normalize", "Normalize"));
    }
    write("modules.json", format!("[{}]", modules.join(", ")));
    write(
        "1_Pooling/config.json",
        format!(
            "{{\"word_embedding_dimension\": {}, \"pooling_mode_{pooling}\": true}}",
            tiny::HIDDEN
        ),
    );
}

/// Without labels: vectors are learnt, in every way of pooling, at last with what is rounded in use.
#[test]
fn an_embedding_model_learns_from_its_teacher() {
    let _alone = alone();
    let tiny = Tiny::new();
    let stages = r#"
[[stage]]
name = "codes"
quantize = ["ffn", "attention", "embedding"]
weigh-inputs = true
epochs = 6
learning-rate = 2e-3
centroid-learning-rate = 1e-2
distill = { hidden = 0.5 }

[[stage]]
name = "int8"
epochs = 2
learning-rate = 5e-4
centroid-learning-rate = 2e-3
int8 = true
distill = { embedding = 2.0, hidden = 0.0 }
"#;
    for (pooling, normalize) in [
        ("mean_tokens", true),
        ("cls_token", false),
        ("max_tokens", true),
    ] {
        set_pooling(&tiny, pooling, normalize);
        let recipe = tiny.recipe(pooling, "teacher = \"model\"\n", &tiny.plan(), stages);
        let text = fs::read_to_string(&recipe).unwrap();
        fs::write(&recipe, text.replace("label = \"label\"\n", "")).unwrap();
        let done = finished(start(&recipe, Start::New, None).unwrap());
        let Tested::Embedder { int8, exact, texts } = done.tested else {
            panic!("{:?}", done.tested);
        };
        assert!(int8 > 0.9 && exact > 0.9, "{pooling}: {int8} {exact}");
        assert!(done.checkpoint.is_none());
        let directory = tiny.path(pooling);
        let validations = logged(&directory, "validation");
        let cosines: Vec<f64> = validations
            .iter()
            .map(|v| v["cosine"].as_f64().unwrap())
            .collect();
        assert!(cosines[0] < int8, "{cosines:?}");
        // The runtime computes what torch does.
        let tests = logged(&directory, "test");
        let largest = |v: &serde_json::Value| v["largest_difference"].as_f64().unwrap();
        assert!(largest(&tests[0]) < 2e-2, "{tests:?}");
        assert!(largest(&tests[1]) < 1e-3, "{tests:?}");
        let answers = fs::read_to_string(directory.join("answers.jsonl")).unwrap();
        assert_eq!(answers.lines().count(), texts);
        let model = SentenceEmbedder::open(directory.join("model.centroid")).unwrap();
        let vectors = model.embed(&["the film was great"]).unwrap();
        let norm: f32 = vectors[0].vector.iter().map(|v| v * v).sum();
        assert_eq!((norm - 1.0).abs() < 1e-3, normalize, "{norm}");
    }

    // Mistakes, before anything is written.
    let label = |recipe: &Path, stages: &str, expected: &str| {
        let text = fs::read_to_string(recipe).unwrap();
        let start_of = text.find("[[stage]]").unwrap();
        let text = text[..start_of].replace("label = \"label\"\n", "") + stages;
        fs::write(recipe, text).unwrap();
        let error = start(recipe, Start::New, None).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(!tiny.path("never").exists());
    };
    let with =
        |distill: &str| format!("[[stage]]\nname = \"s\"\nepochs = 1\ndistill = {{ {distill} }}\n");
    let taught = || tiny.recipe("never", "teacher = \"model\"\n", "", TUNE);
    label(&taught(), TUNE, "nothing to learn but distill");
    label(
        &taught(),
        &with("logits = 1.0"),
        "logits are of models with labels",
    );
    label(&taught(), &with("labels = 1.0"), "the data have none");
    label(
        &tiny.recipe("never", "", "", TUNE),
        &with("hidden = 1.0"),
        "a teacher is needed",
    );
}

/// Of pairs, too, the runtime is compared with torch; without validation there is nothing to compare.
#[test]
fn pairs_are_compared_with_the_runtime() {
    let _alone = alone();
    let tiny = Tiny::new();
    let text = fs::read_to_string(tiny.path("data.tsv")).unwrap();
    let lines = text.lines().enumerate().map(|(number, line)| match number {
        0 => format!("more\t{line}\n"),
        _ => format!("the film\t{line}\n"),
    });
    fs::write(tiny.path("data.tsv"), lines.collect::<String>()).unwrap();
    for (output, validation) in [("pairs", "0.1"), ("none", "0.0")] {
        let recipe = tiny.recipe(
            output,
            "",
            &tiny.plan(),
            &TUNE.replace("epochs = 4", "epochs = 1"),
        );
        let text = fs::read_to_string(&recipe).unwrap();
        let keys = format!("text-b = \"more\"\nvalidation = {validation}\nlabel =");
        fs::write(&recipe, text.replace("label =", &keys)).unwrap();
        finished(start(&recipe, Start::New, None).unwrap());
        for line in logged(&tiny.path(output), "test") {
            let difference = &line["largest_difference"];
            match output {
                "none" => assert!(difference.is_null(), "{difference}"),
                _ => assert!(
                    (1e-9..2.0).contains(&difference.as_f64().unwrap()),
                    "{difference}"
                ),
            }
        }
    }
}

/// A checkpoint has the weights of each layer, be they shared or others left out.
#[test]
fn checkpoints_number_layers_as_they_are_now() {
    let _alone = alone();
    let tiny = Tiny::new();
    for (output, keys) in [("one", "layers = [1]\n"), ("shared", "share = 2\n")] {
        let recipe = tiny.recipe(output, keys, F32, TUNE);
        let done = finished(start(&recipe, Start::New, None).unwrap());
        assert!(done.checkpoint.is_some(), "{output}");
        let again = format!("again-{output}");
        let nothing = "[[stage]]\nname = \"none\"\nepochs = 0\n";
        let recipe = tiny.recipe(&again, "", F32, nothing);
        let text = fs::read_to_string(&recipe).unwrap();
        let model = format!("model = \"{output}/checkpoint\"");
        fs::write(&recipe, text.replace("model = \"model\"", &model)).unwrap();
        finished(start(&recipe, Start::New, None).unwrap());
        let answers = [output, &again]
            .map(|name| fs::read_to_string(tiny.path(name).join("answers.jsonl")).unwrap());
        assert_eq!(answers[0], answers[1], "{output}");
    }
}
