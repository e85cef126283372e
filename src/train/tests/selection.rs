//! Which tensors a stage's words mean.

use std::path::Path;

use super::{left_out, names};
use crate::artifact::{Group, Scheme};
use crate::convert::{GroupPlan, PlannedTensor};
use crate::train::Recipe;

fn tensor(name: &str, scheme: Scheme) -> PlannedTensor {
    PlannedTensor {
        name: name.into(),
        group: Group::Pointwise,
        shape: vec![8, 8],
        plan: GroupPlan::new(scheme, Group::Pointwise),
        bytes: 0,
        too_small: false,
        kept: false,
    }
}

#[test]
fn words_are_groups_or_beginnings_of_names() {
    let tensor = |name: &str| tensor(name, Scheme::Pq);
    let means = |word: &str, name: &str| names(word, &tensor(name));
    assert!(means("pointwise", "features.weight"));
    assert!(!means("depthwise", "features.weight"));
    assert!(means("features", "features.weight"));
    assert!(!means("feature", "features.weight"));
    for (word, yes, no) in [
        (
            "blocks.1",
            "blocks.1.expand.weight",
            "blocks.11.expand.weight",
        ),
        (
            "blocks.2-4",
            "blocks.4.project.weight",
            "blocks.5.project.weight",
        ),
        (
            "blocks.2-4.expand",
            "blocks.2.expand.weight",
            "blocks.2.project.weight",
        ),
        (
            "blocks.3.expand.weight",
            "blocks.3.expand.weight",
            "blocks.3.expand",
        ),
    ] {
        assert!(means(word, yes), "{word} {yes}");
        assert!(!means(word, no), "{word} {no}");
    }
    // No range, no number.
    assert!(!means("blocks.a-b", "blocks.1.expand.weight"));
    assert!(!means("blocks.4-2", "blocks.3.expand.weight"));
}

#[test]
fn what_no_stage_quantizes_is_said() {
    let recipe = |quantize: &str| {
        let text = format!(
            "output = \"o\"\n[network]\nname = \"efficientnet-lite0\"\n[data]\ntrain = \"d.tsv\"\nimage = \"f\"\n\
             label = \"l\"\n[[stage]]\nname = \"s\"\nepochs = 1\nquantize = {quantize}\n"
        );
        Recipe::parse(&text, Path::new("")).unwrap()
    };
    let planned = [
        "blocks.0.expand.weight",
        "blocks.1.expand.weight",
        "features.weight",
    ]
    .map(|name| tensor(name, Scheme::Pq));
    let note = |quantize| left_out(&recipe(quantize).stages, &planned);
    assert_eq!(note("[\"pointwise\"]"), None);
    let all_but = |first: &str, more: &str| {
        Some(format!(
            "no stage quantizes {first}{more}: codes are made at the end, without training"
        ))
    };
    assert_eq!(note("[\"blocks.0-1\"]"), all_but("features.weight", ""));
    assert_eq!(note("[]"), all_but("blocks.0.expand.weight", " and 2 more"));
    let plain = [tensor("features.weight", Scheme::Int8)];
    assert_eq!(left_out(&recipe("[]").stages, &plain), None);
}
