//! Whole runs of the trainer on a tiny model: it learns, quantizes, is written and answers; what is
//! stopped goes on as if nothing had happened; mistakes lose nothing.

#[path = "train/tiny.rs"]
mod tiny;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use centroid::data::Scores;
use centroid::train::{Event, Finished, Outcome, Recipe, Start, Tested, run};
use centroid::{ErrorKind, SentenceEmbedder, TextClassifier};

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

const STAGES: &str = r#"
[[stage]]
name = "noise"
epochs = 2
learning-rate = 2e-3
noise = { form = "exact", rate = [0.05, 0.2], refresh = 7 }

[[stage]]
name = "ffn"
quantize = ["ffn"]
epochs = 1
learning-rate = 1e-3
noise = { form = "proxy", rate = 0.1 }

[[stage]]
name = "rest"
quantize = ["embedding", "attention"]
epochs = 2
learning-rate = 1e-3
centroid-learning-rate = 3e-3
layer-drop = 0.1
reassign = 9
"#;

#[test]
fn a_stopped_run_goes_on_as_if_nothing_had_happened() {
    let _alone = alone();
    let tiny = Tiny::new();
    let keys = "threads = 1\nsave = 5\n";
    let whole = finished(
        start(
            &tiny.recipe("whole", keys, &tiny.plan(), STAGES),
            Start::New,
            None,
        )
        .unwrap(),
    );
    let accuracy = scores(&whole)[1].accuracy();
    assert!(accuracy > 0.9, "{accuracy}");
    let steps = logged(&tiny.path("whole"), "step").len();
    assert!(steps >= 10, "{steps}");
    let reassigned = logged(&tiny.path("whole"), "reassigned");
    let shares: Vec<f64> = reassigned
        .iter()
        .map(|line| line["share"].as_f64().unwrap())
        .collect();
    assert!(
        shares.iter().any(|&share| share > 0.0 && share < 0.5),
        "{shares:?}"
    );

    // The output's name is in the recipe: the same recipe, elsewhere.
    let elsewhere = Tiny::new();
    let recipe = elsewhere.recipe("whole", keys, &tiny.plan(), STAGES);
    for stop_at in [3, 17, 40, 41] {
        let mode = if stop_at == 3 {
            Start::New
        } else {
            Start::Resume
        };
        let outcome = start(&recipe, mode, Some(stop_at)).unwrap();
        assert!(matches!(outcome, Outcome::Stopped), "{stop_at}");
        let error = start(&recipe, Start::New, None).unwrap_err();
        assert!(
            error.to_string().contains("--resume goes on with it"),
            "{error}"
        );
    }
    finished(start(&recipe, Start::Resume, None).unwrap());
    for file in ["model.centroid", "log.jsonl"] {
        let read = |tiny: &Tiny| fs::read(tiny.path("whole").join(file)).unwrap();
        assert!(read(&tiny) == read(&elsewhere), "{file} differs");
    }
    let error = start(&recipe, Start::Resume, None).unwrap_err();
    assert!(error.to_string().contains("nothing to resume"), "{error}");
}

/// The second state is lost, as after a `kill -9`: its steps are taken again.
#[test]
fn a_killed_run_goes_on_from_its_last_state() {
    let _alone = alone();
    let tiny = Tiny::new();
    let keys = "threads = 1\nsave = 5\n";
    let recipe = tiny.recipe("run", keys, &tiny.plan(), STAGES);
    start(&recipe, Start::New, Some(10)).unwrap();
    let state = tiny.path("run").join("state.safetensors");
    let early = fs::read(&state).unwrap();
    start(&recipe, Start::Resume, Some(20)).unwrap();
    fs::write(&state, early).unwrap();
    finished(start(&recipe, Start::Resume, None).unwrap());
    let steps: Vec<u64> = logged(&tiny.path("run"), "step")
        .iter()
        .filter(|line| line["stage"] == "noise")
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
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
        assert!(tests.iter().all(|v| largest(v) < 0.1), "{tests:?}");
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

/// Weighing inputs gives up some of the error of linear weights, and leaves tables alone.
#[test]
fn inputs_weigh_in_kmeans() {
    let _alone = alone();
    let tiny = Tiny::new();
    let [plain, weighed] = ["false", "true"].map(|weigh| {
        let stage = format!(
            "[[stage]]\nname = \"codes\"\nepochs = 0\nquantize = [\"ffn\", \"embedding\"]\n\
             weigh-inputs = {weigh}\n"
        );
        let recipe = tiny.recipe(weigh, "", &tiny.plan(), &stage);
        finished(start(&recipe, Start::New, None).unwrap());
        logged(&tiny.path(weigh), "quantized")
    });
    assert_eq!(plain.len(), 5);
    for (plain, weighed) in plain.iter().zip(&weighed) {
        let error = |line: &serde_json::Value| line["relative_error"].as_f64().unwrap();
        let table = plain["tensor"] == "embeddings.token";
        assert_eq!(error(plain) == error(weighed), table, "{plain} {weighed}");
    }
}

/// Codes made for the inputs that layers really get keep more of the model; and with products in bf16 what
/// is left is learnt.
#[test]
fn calibrated_codes_keep_more_of_the_model() {
    let _alone = alone();
    let tiny = Tiny::new();
    set_pooling(&tiny, "mean_tokens", true);
    let cosines = ["", "calibrate = 200\n"].map(|calibrate| {
        let stage = format!(
            "[[stage]]\nname = \"codes\"\nepochs = 2\nquantize = [\"ffn\", \"attention\"]\n\
             learning-rate = 1e-3\ndistill = {{ hidden = 1.0 }}\n{calibrate}"
        );
        let output = format!("out{}", calibrate.len());
        let keys = "teacher = \"model\"\nbf16 = true\n";
        let recipe = tiny.recipe(&output, keys, &tiny.plan(), &stage);
        let text = fs::read_to_string(&recipe).unwrap();
        fs::write(&recipe, text.replace("label = \"label\"\n", "")).unwrap();
        finished(start(&recipe, Start::New, None).unwrap());
        let validations = logged(&tiny.path(&output), "validation");
        let cosine = |line: &serde_json::Value| line["cosine"].as_f64().unwrap();
        validations.iter().map(cosine).collect::<Vec<f64>>()
    });
    let [plain, calibrated] = &cosines;
    assert!(1.0 - calibrated[0] < 0.2 * (1.0 - plain[0]), "{cosines:?}");
    // There is next to nothing left to learn for the others.
    assert!(plain[2] > plain[0], "{cosines:?}");
}

/// Codes made for the model's answers keep more of them.
#[test]
fn errors_count_by_what_they_do_to_answers() {
    let _alone = alone();
    let tiny = Tiny::new();
    let recipe = tiny.recipe("plain", "", F32, TUNE);
    finished(start(&recipe, Start::New, None).unwrap());
    // So few that much is lost.
    let group = |name: &str| format!("[plan.groups.{name}]\ncentroids = 2\nblock = 8\n");
    let plan = ["ffn", "attention", "embedding"].map(group).concat();
    let divergences = ["weigh-answers = false\n", ""].map(|how| {
        let stage = format!(
            "[[stage]]\nname = \"codes\"\nepochs = 1\ncalibrate = 400\n{how}learning-rate = 1e-5\n\
             centroid-learning-rate = 1e-5\n\
             quantize = [\"embedding\", \"ffn\", \"attention\"]\n\
             distill = {{ splice = 0.5, replace = 0.4 }}\n"
        );
        let output = format!("out{}", how.len());
        let keys = "teacher = \"plain/checkpoint\"\n";
        let recipe = tiny.recipe(&output, keys, &plan, &stage);
        let text = fs::read_to_string(&recipe).unwrap();
        let tuned = text.replace("model = \"model\"", "model = \"plain/checkpoint\"");
        fs::write(&recipe, tuned).unwrap();
        finished(start(&recipe, Start::New, None).unwrap());
        let validations = logged(&tiny.path(&output), "validation");
        let divergence = |line: &serde_json::Value| line["divergence"].as_f64().unwrap();
        validations.iter().map(divergence).collect::<Vec<f64>>()
    });
    let [plain, weighed] = &divergences;
    assert!(weighed[0] < 0.5 * plain[0], "{divergences:?}");
    // Answers to texts with other words do no harm.
    assert!(weighed[1] < 2.0 * weighed[0], "{divergences:?}");
}

#[test]
fn qat_and_scalar_noise_train() {
    let _alone = alone();
    let tiny = Tiny::new();
    for (scheme, rate, range) in [("int8", 1.0, "channel"), ("int4", 0.5, "histogram")] {
        let stage = format!(
            "[[stage]]\nname = \"qat\"\nepochs = 4\nlearning-rate = 2e-3\nnoise = {{ form = \"{scheme}\", \
             rate = {rate}, range = \"{range}\" }}\n"
        );
        let recipe = tiny.recipe(
            scheme,
            "",
            &format!("[plan]\nscheme = \"{scheme}\"\n"),
            &stage,
        );
        let done = finished(start(&recipe, Start::New, None).unwrap());
        let accuracy = scores(&done)[1].accuracy();
        assert!(accuracy > 0.9, "{scheme}: {accuracy}");
    }
}

/// From the stage on that quantizes them, matrices in int4 are trained as they will be stored.
#[test]
fn what_is_rounded_is_trained_as_it_is_stored() {
    let _alone = alone();
    let tiny = Tiny::new();
    let int4 = |name: &str| format!("[plan.groups.{name}]\nscheme = \"int4\"\n");
    let plan = F32.to_owned()
        + &["ffn", "embedding"].map(int4).concat()
        + "[plan.groups.attention]\nscheme = \"pq\"\ncentroids = 16\nblock = 4\n";
    let stages = |rounded: &str| {
        format!(
            "[[stage]]\nname = \"tune\"\nepochs = 2\nlearning-rate = 2e-3\n\
             [[stage]]\nname = \"codes\"\nepochs = 2\nlearning-rate = 1e-3\nquantize = [{rounded}\"attention\"]\n"
        )
    };
    let keys = "threads = 1\nsave = 5\n";
    let difference = |output: &str| {
        let tests = logged(&tiny.path(output), "test");
        let exact = tests.iter().find(|line| line["mode"] == "exact").unwrap();
        exact["largest_difference"].as_f64().unwrap()
    };
    let recipe = tiny.recipe("late", keys, &plan, &stages(""));
    finished(start(&recipe, Start::New, None).unwrap());
    let recipe = tiny.recipe("whole", keys, &plan, &stages("\"ffn\", \"embedding\", "));
    finished(start(&recipe, Start::New, None).unwrap());
    let [late, early] = ["late", "whole"].map(difference);
    assert!(early < 1e-3 && late > 0.02, "{late} {early}");
    let quantized = logged(&tiny.path("whole"), "quantized");
    let rounded = |line: &&serde_json::Value| line["tensor"] == "embeddings.token";
    let error = quantized.iter().find(rounded).unwrap()["relative_error"].as_f64();
    assert!(error.is_some_and(|e| (0.01..0.2).contains(&e)), "{error:?}");

    // The same again, stopped in that stage.
    let read = || fs::read(tiny.path("whole").join("model.centroid")).unwrap();
    let whole = read();
    let steps = logged(&tiny.path("whole"), "step");
    let all = steps.last().unwrap()["of"].as_u64().unwrap() as usize;
    let mut mode = Start::Overwrite;
    for stop_at in [3, all + 2] {
        let outcome = start(&recipe, mode, Some(stop_at)).unwrap();
        assert!(matches!(outcome, Outcome::Stopped), "{stop_at}");
        mode = Start::Resume;
    }
    finished(start(&recipe, mode, None).unwrap());
    assert!(read() == whole);
}

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
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&recipe, text.replace(from, to)).unwrap();
        let error = start(&recipe, Start::New, None).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!tiny.path("never").exists());
    }
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

/// A state of another recipe is not gone on from.
#[test]
fn a_changed_recipe_does_not_resume() {
    let _alone = alone();
    let tiny = Tiny::new();
    start(&tiny.recipe("run", "", "", TUNE), Start::New, Some(2)).unwrap();
    let changed = tiny.recipe("run", "seed = 2\n", "", TUNE);
    let error = start(&changed, Start::Resume, None).unwrap_err();
    assert!(error.to_string().contains("have changed since"), "{error}");
    finished(start(&changed, Start::Overwrite, None).unwrap());
}
