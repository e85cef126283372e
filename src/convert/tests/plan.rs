use super::*;

#[test]
fn patterns_match_like_globs() {
    for (pattern, name, expected) in [
        ("a.b", "a.b", true),
        ("a.b", "a.bc", false),
        ("*", "anything", true),
        ("layers.0.*", "layers.0.ffn.up.weight", true),
        ("layers.0.*", "layers.10.ffn.up.weight", false),
        ("*.weight", "layers.0.ffn.up.weight", true),
        ("layers.*.ffn.*.weight", "layers.3.ffn.up.weight", true),
        ("layers.*.ffn.*.weight", "layers.3.ffn.up.bias", false),
        ("a*a", "a", false),
        ("a*b*b", "ab", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn layers_are_pruned_first_and_then_shared() {
    let options = |layers: &[usize]| ConvertOptions {
        layers: Some(layers.to_vec()),
        ..Default::default()
    };
    assert_eq!(kept_layers(&options(&[0, 2, 4]), 6).unwrap(), [0, 2, 4]);
    for bad in [&[][..], &[6], &[2, 2], &[3, 1]] {
        assert!(kept_layers(&options(bad), 6).is_err(), "{bad:?}");
    }
    assert_eq!(layer_of(5, 2).unwrap(), [0, 0, 2, 2, 4]);
    assert_eq!(layer_of(5, 5).unwrap(), [0; 5]);
    assert_eq!(layer_of(3, 0).unwrap(), [0, 1, 2]);
    assert_eq!(layer_of(1, 1).unwrap(), [0]);
    for (layers, share) in [(1, 2), (5, 6)] {
        let error = layer_of(layers, share).unwrap_err();
        assert!(error.message().starts_with("share: "), "{error}");
    }
}

#[test]
fn plan_files_are_checked() {
    for (text, expected) in [
        ("groups.ffn.block = 0", "block size 0"),
        (
            "groups.ffn = { scheme = \"int8\", block = 4 }",
            "block has no effect on int8",
        ),
        (
            "groups.ffn = { scheme = \"f16\", row-scale = true }",
            "row-scale has no effect on f16",
        ),
        ("groups.ffn.blocks = 4", "unknown field `blocks`"),
        ("groups.fnn.block = 4", "group \"fnn\" is unknown"),
        ("scheme = \"int5\"", "scheme \"int5\" is unknown"),
        ("speed = 1", "unknown field `speed`"),
        (
            "[[tensors]]\npattern = \"*\"\nblok = 3",
            "unknown field `blok`",
        ),
        ("groups.head.zero-point = true", "zero points are for int8"),
        ("groups.ffn.centroid-type = \"f8\"", "centroid-type \"f8\""),
        (
            "[groups.embedding]\nscheme = \"int8\"\ncodebooks = 2",
            "codebooks are for pq and not for int8",
        ),
        ("seed = ", "line 1"),
    ] {
        let error = Plan::default().apply_toml(text, None).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
    let mut plan = Plan::default();
    let text = "seed = 7\n[groups.ffn]\nscheme = \"int8\"\nzero-point = true\n";
    plan.apply_toml(text, None).unwrap();
    assert_eq!(plan.seed, 7);
    let ffn = &plan.groups[&Group::Ffn];
    assert!(ffn.scheme == Scheme::Int8 && ffn.zero_point && ffn.row_scale);
    assert!(plan.set_block("ffn", 8).is_err());
}
