//! Which tensors a stage's words mean.

use super::names;
use crate::artifact::{Group, Scheme};
use crate::convert::{GroupPlan, PlannedTensor};

#[test]
fn words_are_groups_or_beginnings_of_names() {
    let tensor = |name: &str| PlannedTensor {
        name: name.into(),
        group: Group::Pointwise,
        shape: vec![8, 8],
        plan: GroupPlan::new(Scheme::Pq, Group::Pointwise),
        bytes: 0,
        too_small: false,
        kept: false,
    };
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
