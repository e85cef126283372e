use super::*;

const MINIMAL: &str = r#"
model = "m"
output = "/out"

[data]
train = "d.tsv"
text = "text"
label = "label"

[[stage]]
name = "tune"
epochs = 1
"#;

fn parse(text: &str) -> Result<Recipe> {
    Recipe::parse(text, Path::new("dir"))
}

#[test]
fn paths_are_relative_to_the_file() {
    let recipe = parse(MINIMAL).unwrap();
    assert_eq!(recipe.model.as_deref(), Some(Path::new("dir/m")));
    assert_eq!(recipe.output, Path::new("/out"));
    assert_eq!(recipe.data.train, Path::new("dir/d.tsv"));
    assert_eq!(recipe.data.test, Part::Share(0.1));
    let changed = MINIMAL.replace(
        "[data]",
        "[data]\ntest = { fold = 1, of = 5 }\nvalidation = \"v.csv\"",
    );
    let recipe = parse(&changed).unwrap();
    assert_eq!(recipe.data.test, Part::Fold { fold: 1, of: 5 });
    assert_eq!(recipe.data.validation, Part::File("dir/v.csv".into()));
}

#[test]
fn mistakes_are_named() {
    for (from, to, expected) in [
        (
            "model = ",
            "modle = ",
            "line 2: unknown field `modle`; the nearest known one is `model`",
        ),
        (
            "epochs = 1",
            "epochs = 1\nlearning-rat = 1",
            "is `learning-rate`",
        ),
        (
            "text = ",
            "txt = ",
            "unknown field `txt`; the nearest known one is `text`",
        ),
        ("epochs = 1", "epochs = -1", "line 12: "),
        ("epochs = 1", "", "missing field `epochs`"),
        ("model = \"m\"", "model = 3", "line 2: "),
        ("[[stage]]", "[[stage]", "line 10: "),
        (
            "model = ",
            "dropout = 1.0\nmodel = ",
            "dropout is from 0 to below 1",
        ),
        ("model = ", "batch = 0\nmodel = ", "batch is at least 1"),
        (
            "[data]",
            "[data]\ntest = 1.5",
            "data.test: a share is from 0",
        ),
        (
            "[data]",
            "[data]\ntest = { fold = 5, of = 5 }",
            "fold is below of",
        ),
        (
            "[data]",
            "[plan]\nscheme = \"int5\"\n[data]",
            "plan: scheme \"int5\" is unknown",
        ),
        (
            "[data]",
            "[plan.groups.ffn]\nblok = 3\n[data]",
            "plan: unknown field `blok`; the nearest known one is `block`",
        ),
        (
            "[data]",
            "[data]\ntest = { fold = 0, off = 5 }",
            "unknown field `off`; the nearest known one is `of`",
        ),
        (
            "[data]",
            "[data]\ntest = { fold = 0, of = 5, sed = 3 }",
            "unknown field `sed`",
        ),
        ("[data]", "[data]\ntest = true", "a share, a file or { fold"),
        (
            "epochs = 1",
            "epochs = 1\nweigh-inputs = true",
            "weigh-inputs is for codes",
        ),
        (
            "epochs = 1",
            "epochs = 1\nreassign = 5",
            "reassign is for codes",
        ),
        (
            "epochs = 1",
            "epochs = 1\nquantize = [\"fnn\"]",
            "group \"fnn\" is unknown; known: ffn",
        ),
        (
            "epochs = 1",
            "epochs = 1\ndistill = {}",
            "stage \"tune\": distill needs a teacher",
        ),
        (
            "label = \"label\"\n",
            "",
            "without data.label a teacher is needed",
        ),
        (
            "epochs = 1",
            "epochs = 1\nwarmup = 2",
            "stage \"tune\": warmup is out of range",
        ),
        (
            "epochs = 1",
            "epochs = 1\ncalibrate = 9",
            "calibrate is for codes, and quantize names no group",
        ),
        (
            "epochs = 1",
            "epochs = 1\nquantize = [\"ffn\"]\nweigh-inputs = true\ncalibrate = 9",
            "calibrate goes beyond weigh-inputs",
        ),
        (
            "epochs = 1",
            "epochs = 1\nquantize = [\"ffn\"]\nweigh-answers = true",
            "weigh-answers goes with calibrate",
        ),
        (
            "epochs = 1",
            "epochs = 1\nlearning-rate = nan",
            "learning-rate is out of range",
        ),
        (
            "epochs = 1",
            "epochs = 1\nnoise = { form = \"proxi\", rate = 0.1 }",
            "unknown variant `proxi`; the nearest known one is `proxy`",
        ),
        (
            "epochs = 1",
            "epochs = 1\nnoise = { form = \"proxy\", rate = 1 }",
            "stage \"tune\": noise.rate: 1 is not from 0 to below 1",
        ),
        (
            "epochs = 1",
            "epochs = 1\nnoise = { form = \"exact\", rate = [0.1, 0.2, 0.3] }",
            "noise.rate is a number, or two in brackets",
        ),
        (
            "epochs = 1",
            "epochs = 1\nnoise = { form = \"proxy\", rate = 0.1, range = \"tensor\" }",
            "noise.range is for the forms int8 and int4",
        ),
        (
            "epochs = 1",
            "epochs = 1\nnoise = { form = \"mean\", rate = 0.1, iterations = 7 }",
            "noise.iterations is for the form exact",
        ),
        (
            "model = ",
            "threads = 3000000000\nmodel = ",
            "threads is from 1 to 1024",
        ),
    ] {
        let text = MINIMAL.replace(from, to);
        assert_ne!(text, MINIMAL, "{from}");
        let error = parse(&text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn other_texts_are_a_chance_and_for_the_teacher_alone() {
    let taught = |distill: &str| {
        let text = MINIMAL.replace("output =", "teacher = \"t\"\noutput =");
        format!("{text}distill = {{ {distill} }}\n")
    };
    let pairs = taught("splice = 0.5").replace("text =", "text-b = \"other\"\ntext =");
    let error = parse(&pairs).unwrap_err();
    assert!(error.to_string().contains("for single texts"), "{error}");
    let taught = |distill: &str| parse(&taught(distill));
    let recipe = taught("splice = 0.5").unwrap();
    assert_eq!(recipe.stages[0].distill.as_ref().unwrap().splice, 0.5);
    for (distill, expected) in [
        ("splice = 1.5", "distill.splice is a chance"),
        ("splice = nan", "distill.splice is a chance"),
        ("splice = 0.5, labels = 1.0", "distill.splice makes texts"),
        ("replace = -0.1", "distill.replace is a chance"),
        ("replace = 0.1, labels = 1.0", "distill.replace makes texts"),
    ] {
        let error = taught(distill).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_run_has_a_stage() {
    let (head, _) = MINIMAL.split_once("[[stage]]").unwrap();
    let error = parse(&format!("stage = []\n{head}")).unwrap_err();
    assert!(
        error.to_string().contains("there is no [[stage]]"),
        "{error}"
    );
    let error = parse(head).unwrap_err();
    assert!(
        error.to_string().contains("missing field `stage`"),
        "{error}"
    );
}

#[test]
fn distances_count_letters() {
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(distance("kitten", "sitting"), 3);
    assert_eq!(distance("same", "same"), 0);
}

/// What people copy.
#[test]
fn the_runs_in_the_readme_are_recipes() {
    let readme = include_str!("../../../README.md");
    let blocks = readme.split("```toml\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    let runs: Vec<&str> = blocks.filter(|b| b.contains("[[stage]]")).collect();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let recipe = parse(run).unwrap();
        recipe.plan().unwrap();
    }
}
