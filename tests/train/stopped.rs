//! What is stopped goes on as if nothing had happened.

use std::fs;
use std::sync::atomic::AtomicBool;

use centroid::train::{Event, Outcome, Recipe, Start, run};

use crate::tiny::Tiny;
use crate::{TUNE, alone, finished, logged, scores, start};

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

/// A layer that the first step after a stop skips does not change in that step, whether it had gradients
/// before or not.
#[test]
fn skipped_layers_do_not_tell_of_a_stop() {
    let _alone = alone();
    let stages = "[[stage]]\nname = \"tune\"\nepochs = 1\nlearning-rate = 2e-3\nlayer-drop = 0.6\n";
    let keys = "threads = 1\nsave = 1000\n";
    let [whole, broken] = [Tiny::new(), Tiny::new()];
    let recipe = |tiny: &Tiny| tiny.recipe("run", keys, &tiny.plan(), stages);
    finished(start(&recipe(&whole), Start::New, None).unwrap());
    let recipe = recipe(&broken);
    for stop_at in 1..12 {
        let mode = match stop_at {
            1 => Start::New,
            _ => Start::Resume,
        };
        let outcome = start(&recipe, mode, Some(stop_at)).unwrap();
        assert!(matches!(outcome, Outcome::Stopped), "{stop_at}");
    }
    finished(start(&recipe, Start::Resume, None).unwrap());
    let read = |tiny: &Tiny| fs::read(tiny.path("run/model.centroid")).unwrap();
    assert!(read(&whole) == read(&broken));
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

/// What is damaged in a state skips no steps, and reaches no model.
#[test]
fn a_damaged_state_does_not_resume() {
    let _alone = alone();
    let tiny = Tiny::new();
    let stage =
        "[[stage]]\nname = \"codes\"\nquantize = [\"ffn\"]\nepochs = 3\nlearning-rate = 1e-3\n";
    let recipe = tiny.recipe("run", "threads = 1\nsave = 1\n", &tiny.plan(), stage);
    let steps = tiny.path("run").join("state.safetensors");
    // After the first epoch, whose weights may be the best.
    start(&recipe, Start::New, Some(40)).unwrap();
    let whole = fs::read(&steps).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(whole[8..8 + length].to_vec()).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(header.contains(from), "{from}: {header}");
        let header = header.replacen(from, to, 1);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&whole[8 + length..]);
        bytes
    };
    let wild = {
        let tensors = safetensors::SafeTensors::deserialize(&whole).unwrap();
        let (_, codes) = (tensors.iter())
            .find(|(name, _)| name.starts_with("best_codes/"))
            .unwrap();
        let at = codes.data().as_ptr() as usize - whole.as_ptr() as usize;
        let mut bytes = whole.clone();
        bytes[at] = 0xff;
        bytes
    };
    for (bytes, expected) in [
        (
            edited("\"step\":\"40\"", "\"step\":\"9999\""),
            "step 9999 of stage 0",
        ),
        (edited("\"stage\":\"0\"", "\"stage\":\"99\""), "of stage 99"),
        (
            edited("\"layout\":\"1\"", "\"layout\":\"0\""),
            "another version",
        ),
        (wild, "the best codes do not fit the model"),
    ] {
        fs::write(&steps, bytes).unwrap();
        let error = start(&recipe, Start::Resume, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!tiny.path("run").join("model.centroid").exists());
    }
    fs::write(&steps, &whole).unwrap();
    finished(start(&recipe, Start::Resume, None).unwrap());
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

/// Nor is one of a model whose words or settings are others now.
#[test]
fn another_vocabulary_or_configuration_does_not_resume() {
    let _alone = alone();
    let tiny = Tiny::new();
    let recipe = tiny.recipe("run", "", "", TUNE);
    start(&recipe, Start::New, Some(2)).unwrap();
    for (file, from, to) in [
        ("vocab.txt", "film\nplot", "plot\nfilm"),
        ("config.json", "1e-12", "1e-6"),
    ] {
        let path = tiny.path("model").join(file);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before.replace(from, to)).unwrap();
        let error = start(&recipe, Start::Resume, None).unwrap_err();
        assert!(error.to_string().contains("have changed since"), "{error}");
        fs::write(&path, before).unwrap();
    }
    finished(start(&recipe, Start::Resume, None).unwrap());
}

/// Patience ends a stage: the artifact says after how many epochs, and which of them was kept, stopped in
/// between or not.
#[test]
fn what_became_of_stages_is_told() {
    let _alone = alone();
    let [whole, broken] = [Tiny::new(), Tiny::new()];
    let keys = "threads = 1\n";
    let stages = "[[stage]]\nname = \"eager\"\nepochs = 30\nlearning-rate = 5e-3\npatience = 1\n\
                  [[stage]]\nname = \"last\"\nepochs = 2\nlearning-rate = 1e-5\n";
    let recipe = |tiny: &Tiny| tiny.recipe("run", keys, &tiny.plan(), stages);
    finished(start(&recipe(&whole), Start::New, None).unwrap());
    let [eager, last] = &logged(&whole.path("run"), "stage")[..] else {
        panic!("two stages");
    };
    let number = |line: &serde_json::Value, key: &str| line[key].as_u64().unwrap();
    let (epochs, kept) = (number(eager, "epochs"), number(eager, "kept"));
    assert!(epochs < 30 && epochs == kept + 1, "{eager}");
    let mut told =
        format!("eager: {epochs} of 30 epochs, the weights of epoch {kept}; last: 2 epochs");
    if number(last, "kept") < 2 {
        told += &format!(", the weights of epoch {}", number(last, "kept"));
    }
    let artifact = centroid::Artifact::open(whole.path("run/model.centroid")).unwrap();
    let provenance = artifact.provenance();
    let (_, training) = provenance
        .iter()
        .find(|(key, _)| *key == "training")
        .unwrap();
    assert_eq!(*training, told);

    // In the second stage.
    let steps = logged(&whole.path("run"), "step");
    assert!(steps.iter().any(|line| line["stage"] == "last"));
    let stop_at = number(&steps[0], "of") as usize + 3;
    let outcome = start(&recipe(&broken), Start::New, Some(stop_at)).unwrap();
    assert!(matches!(outcome, Outcome::Stopped));
    finished(start(&recipe(&broken), Start::Resume, None).unwrap());
    let read = |tiny: &Tiny| fs::read(tiny.path("run/model.centroid")).unwrap();
    assert!(read(&whole) == read(&broken));
}

/// Codes are saved as soon as a stage has made them, and a run that was asked to stop meanwhile does.
#[test]
fn codes_are_not_made_twice() {
    let _alone = alone();
    let [whole, broken] = [Tiny::new(), Tiny::new()];
    let stages = "[[stage]]\nname = \"codes\"\nquantize = [\"ffn\", \"embedding\"]\nepochs = 1\n\
                  learning-rate = 1e-3\nnoise = { form = \"exact\", rate = 0.2 }\n";
    let recipe = |tiny: &Tiny| tiny.recipe("run", "threads = 1\n", &tiny.plan(), stages);
    finished(start(&recipe(&whole), Start::New, None).unwrap());

    let recipe = recipe(&broken);
    let outcome = run(
        &Recipe::read(&recipe).unwrap(),
        Start::New,
        &AtomicBool::new(true),
        &mut |event| assert!(!matches!(event, Event::Step { .. })),
    );
    assert!(matches!(outcome.unwrap(), Outcome::Stopped));
    // What a process that was killed has left of writing its state; one that is still there, and something else.
    let output = broken.path("run");
    let dead = output.join(format!(".state.safetensors.{}.tmp", u32::MAX));
    let alive = output.join(".state.safetensors.1.tmp");
    let other = output.join(".state.safetensors.old.tmp");
    for file in [&dead, &alive, &other] {
        fs::write(file, "part of a state").unwrap();
    }
    let mut made = 0;
    let outcome = run(
        &Recipe::read(&recipe).unwrap(),
        Start::Resume,
        &AtomicBool::new(false),
        &mut |event| {
            made += usize::from(matches!(event, Event::Note(note) if note.contains("quantized")));
        },
    );
    finished(outcome.unwrap());
    assert_eq!(made, 0);
    assert_eq!(
        [&dead, &alive, &other].map(|file| file.exists()),
        [false, true, true]
    );
    for file in ["model.centroid", "log.jsonl"] {
        let read = |tiny: &Tiny| fs::read(tiny.path("run").join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file} differs");
    }
}
