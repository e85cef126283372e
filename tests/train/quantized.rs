//! How codes are made, and what is stored in 8 or 4 bits.

use std::fs;
use std::path::Path;

use centroid::train::{Outcome, Start};

use crate::tiny::Tiny;
use crate::{F32, TUNE, alone, finished, logged, scores, set_pooling, start};

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
        let exact = difference(&tiny.path(scheme));
        assert!(exact < 1e-3, "{scheme}: {exact}");
    }
}

/// Of the runtime's answers from torch's, in the mode `exact`.
fn difference(output: &Path) -> f64 {
    let tests = logged(output, "test");
    let exact = tests.iter().find(|line| line["mode"] == "exact").unwrap();
    exact["largest_difference"].as_f64().unwrap()
}

/// What stages have quantized is in torch what it is in the runtime, and so is the rounding of activations and
/// centroids in the mode `int8`.
#[test]
fn torch_computes_what_the_runtime_does() {
    let _alone = alone();
    let tiny = Tiny::new();
    let groups = ["ffn", "attention", "embedding", "position", "head"];
    let pq = |keys: &str| {
        let group = |name: &str| format!("[plan.groups.{name}]\ncentroids = 16\nblock = 4\n{keys}");
        groups.map(group).concat()
    };
    for (output, plan) in [
        ("codes", pq("")),
        ("floats", pq("centroid-type = \"f16\"\n")),
        ("scaled", pq("row-scale = true\n")),
        ("integers", "[plan]\nscheme = \"int8\"\n".into()),
    ] {
        let stages = format!(
            "{TUNE}\n[[stage]]\nname = \"all\"\nepochs = 2\nquantize = {groups:?}\n\
             learning-rate = 1e-3\ncentroid-learning-rate = 3e-3\nint8 = true\n"
        );
        finished(start(&tiny.recipe(output, "", &plan, &stages), Start::New, None).unwrap());
        let tests = logged(&tiny.path(output), "test");
        let [int8, exact] = [0, 1].map(|n| tests[n]["largest_difference"].as_f64().unwrap());
        // Vectors are stored in f16.
        assert!(exact < 1e-3, "{output}: {exact}");
        assert!(int8 < 2e-2, "{output}: {int8}");
    }
}

/// Noise of int4 and always the nearest centroids are validated as what they train: the weights alone, which
/// nothing changes at a learning rate of 0, would be right more often than the coarse ones.
#[test]
fn what_noise_trains_for_is_validated() {
    let _alone = alone();
    let tiny = Tiny::new();
    let recipe = tiny.recipe("plain", "", F32, TUNE);
    finished(start(&recipe, Start::New, None).unwrap());
    let model = "\"plain/checkpoint\"";
    let validated = |output: &str, plan: &str, noise: &str| -> serde_json::Value {
        let stage = format!(
            "[[stage]]\nname = \"still\"\nepochs = 1\nlearning-rate = 0\ncentroid-learning-rate = 0\n{noise}\n"
        );
        let teacher = format!("teacher = {model}\n");
        let recipe = tiny.recipe(output, &teacher, plan, &stage);
        let text = fs::read_to_string(&recipe).unwrap();
        fs::write(&recipe, text.replacen("\"model\"", model, 1)).unwrap();
        finished(start(&recipe, Start::New, None).unwrap());
        logged(&tiny.path(output), "validation").pop().unwrap()
    };
    let accuracy = |line: serde_json::Value| line["accuracy"].as_f64().unwrap();
    let clean = accuracy(validated("clean", F32, ""));
    assert!(clean > 0.95, "{clean}");
    // Two centroids for whole rows leave nothing of the words.
    let coarse = "[plan.groups.embedding]\nscheme = \"pq\"\ncentroids = 2\nblock = 16\n";
    let plan = F32.to_owned() + coarse;
    let always = accuracy(validated(
        "always",
        &plan,
        "noise = { form = \"exact\", rate = 1.0 }",
    ));
    assert!(always < clean - 0.1, "{always} {clean}");
    // What is drawn now and then is validated as it is: codes come later.
    let seldom = accuracy(validated(
        "seldom",
        &plan,
        "noise = { form = \"exact\", rate = 0.1 }",
    ));
    assert_eq!(seldom, clean);
    let proxy = accuracy(validated(
        "proxy",
        &plan,
        "noise = { form = \"proxy\", rate = 0.1 }",
    ));
    assert_eq!(proxy, clean);

    // The same weights as the teacher's, but for their rounding: without it the divergence is 0.
    let distill = "distill = { logits = 1.0 }\n";
    let divergence = |output: &str, plan: &str, noise: &str| {
        let line = validated(output, plan, &format!("{distill}{noise}"));
        line["divergence"].as_f64().unwrap()
    };
    let clean = divergence("clean-taught", F32, "");
    let int4 = "noise = { form = \"int4\", rate = 0.5 }";
    let rounded = divergence("int4-taught", "[plan]\nscheme = \"int4\"\n", int4);
    assert!(clean < 1e-9 && rounded > 1e-7, "{clean} {rounded}");
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
    let recipe = tiny.recipe("late", keys, &plan, &stages(""));
    finished(start(&recipe, Start::New, None).unwrap());
    let recipe = tiny.recipe("whole", keys, &plan, &stages("\"ffn\", \"embedding\", "));
    finished(start(&recipe, Start::New, None).unwrap());
    // Torch's answers are those of the weights in the file, whenever they were rounded.
    for output in ["late", "whole"] {
        let difference = difference(&tiny.path(output));
        assert!(difference < 1e-3, "{output}: {difference}");
    }
    let losses = ["late", "whole"].map(|output| {
        let steps = logged(&tiny.path(output), "step");
        steps.last().unwrap()["loss"].as_f64().unwrap()
    });
    assert_ne!(losses[0], losses[1]);
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
