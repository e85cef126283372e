//! What timm's `config.json` says of a network, its pictures and its classes.

use super::*;

/// Size, side before the middle is cut out, how, and filter.
fn input_of(
    folder: &TempDir,
    options: &ConvertOptions,
) -> (usize, usize, &'static str, &'static str) {
    let conversion = Conversion::efficientnet(folder.path(), None, options).unwrap();
    let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
    let info = artifact.network().unwrap();
    (info.size, info.resize, info.crop, info.filter)
}

#[test]
fn config_of_timm_says_what_the_weights_do_not() {
    for (name, padding, size, resize) in [
        ("tf_efficientnet_lite0", "same", 224, 256),
        ("efficientnet_b0", "symmetric", 224, 256),
        // 260 / 0.89 is 292.13.
        ("tf_efficientnet_b2", "same", 260, 292),
    ] {
        let folder = saved(name, |_| ());
        assert!(Conversion::is_of_images(folder.path()).unwrap());
        // Without a name: the config has it.
        let conversion = Conversion::efficientnet(folder.path(), None, &f32_options()).unwrap();
        let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
        assert_eq!(
            artifact.labels().unwrap(),
            ["ant", "bee", "cow", "dog", "elk"]
        );
        let info = artifact.network().unwrap();
        assert_eq!(info.padding, padding);
        let found = (info.size, info.resize, info.crop, info.filter);
        assert_eq!(found, (size, resize, "after resize", "bicubic"));
    }
    let folder = saved("tf_efficientnet_lite0", |_| ());
    let sized = |image_size, crop| ConvertOptions {
        image_size,
        crop,
        ..f32_options()
    };
    let found = input_of(&folder, &sized(Some(100), None));
    assert_eq!(found, (100, 114, "after resize", "bicubic"));
    let found = input_of(&folder, &sized(Some(100), Some(Crop::Whole)));
    assert_eq!(found, (100, 100, "whole", "bicubic"));
    let found = input_of(&folder, &sized(None, Some(Crop::BeforeResize)));
    assert_eq!(found, (224, 256, "before resize", "bicubic"));
    let folder = saved("tf_efficientnet_lite0", |config| {
        let of = &mut config["pretrained_cfg"];
        of["crop_mode"] = "squash".into();
        of["crop_pct"] = 1.0.into();
        of["interpolation"] = "bilinear".into();
        of["test_input_size"] = serde_json::json!([3, 256, 256]);
    });
    let found = input_of(&folder, &f32_options());
    assert_eq!(found, (224, 224, "whole", "bilinear"));
    let conversion = Conversion::efficientnet(folder.path(), None, &f32_options()).unwrap();
    let noted = (conversion.notes().iter()).any(|note| note.contains("--image-size 256"));
    assert!(noted, "{:?}", conversion.notes());
    // A share of its own stays as it is where only the way is another.
    let folder = saved("tf_efficientnet_b2", |_| ());
    let found = input_of(&folder, &sized(None, Some(Crop::BeforeResize)));
    assert_eq!(found, (260, 292, "before resize", "bicubic"));
    // A file of some years ago.
    let folder = saved("tf_efficientnet_lite0", |config| {
        let of = config.as_object_mut().unwrap();
        of.remove("pretrained_cfg");
        of.insert("input_size".into(), serde_json::json!([3, 200, 200]));
        of.insert("crop_pct".into(), 0.5.into());
    });
    let found = input_of(&folder, &f32_options());
    assert_eq!(found, (200, 400, "after resize", "bicubic"));
    // At the size of evaluation its share is another, too.
    let folder = saved("tf_efficientnet_lite0", |config| {
        let of = &mut config["pretrained_cfg"];
        of["test_input_size"] = serde_json::json!([3, 256, 256]);
        of["test_crop_pct"] = 1.0.into();
    });
    for (size, expected) in [
        (None, (224, 256)),
        (Some(256), (256, 256)),
        (Some(240), (240, 274)),
    ] {
        let found = input_of(&folder, &sized(size, None));
        assert_eq!((found.0, found.1), expected);
    }
    // Synsets have descriptions.
    let folder = saved("tf_efficientnet_lite0", |config| {
        config["label_names"] =
            serde_json::json!({"0": "n1", "1": "n2", "2": "n3", "3": "n4", "4": "n5"});
        config["label_descriptions"] = serde_json::json!({"n1": "tench, Tinca tinca", "n5": "ox"});
    });
    let conversion = Conversion::efficientnet(folder.path(), None, &f32_options()).unwrap();
    let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
    let expected = ["tench, Tinca tinca", "n2", "n3", "n4", "ox"];
    assert_eq!(artifact.labels().unwrap(), expected);
    // Of the same words each says which class it is; and what the names were called before.
    let folder = saved("tf_efficientnet_lite0", |config| {
        let of = config.as_object_mut().unwrap();
        of.remove("label_names");
        of.insert(
            "labels".into(),
            serde_json::json!(["n1", "n2", "n3", "n4", "n5"]),
        );
        of.insert(
            "label_descriptions".into(),
            serde_json::json!({"n1": "crane", "n4": "crane"}),
        );
    });
    let conversion = Conversion::efficientnet(folder.path(), None, &f32_options()).unwrap();
    let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
    let expected = ["crane (n1)", "n2", "n3", "crane (n4)", "n5"];
    assert_eq!(artifact.labels().unwrap(), expected);
}

#[test]
fn configs_of_timm_that_do_not_fit_are_errors() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, &str); 19] = [
        (
            |c| c["architecture"] = "resnet50".into(),
            "architecture: network \"resnet50\" is unknown",
        ),
        (
            |c| c["architecture"] = 3.into(),
            "architecture: 3 is not a string",
        ),
        (|c| c["global_pool"] = "max".into(), "global_pool: \"max\""),
        (
            |c| c["model_args"]["act_layer"] = "relu".into(),
            "model_args.act_layer: \"relu\" makes another network",
        ),
        (
            |c| c["model_args"]["in_chans"] = 1.into(),
            "model_args.in_chans: 1 makes another network",
        ),
        (|c| c["model_args"] = 1.into(), "model_args: not an object"),
        (
            |c| c["pretrained_cfg"] = "x".into(),
            "pretrained_cfg: not an object",
        ),
        (
            |c| c["pretrained_cfg"]["crop_pct"] = 0.0.into(),
            "pretrained_cfg.crop_pct: 0; a share of",
        ),
        (
            |c| c["pretrained_cfg"]["crop_mode"] = "border".into(),
            "pretrained_cfg.crop_mode: \"border\"",
        ),
        (
            |c| c["pretrained_cfg"]["interpolation"] = "lanczos".into(),
            "pretrained_cfg.interpolation: \"lanczos\"",
        ),
        (
            |c| c["pretrained_cfg"]["input_size"] = serde_json::json!([3, 224, 200]),
            "input_size: [3,224,200] is not [3, N, N]",
        ),
        (
            |c| c["pretrained_cfg"]["std"] = serde_json::json!([1, 2]),
            "pretrained_cfg.std: [1,2] is not three numbers",
        ),
        (
            |c| c["pretrained_cfg"]["std"] = serde_json::json!([0, 1, 1]),
            "pretrained_cfg.std: not three finite numbers, or not above 0",
        ),
        (
            |c| c["pretrained_cfg"]["mean"] = serde_json::json!([1e39, 0, 0]),
            "pretrained_cfg.mean: not three finite numbers",
        ),
        (
            |c| c["pretrained_cfg"]["crop_mode"] = 3.into(),
            "pretrained_cfg.crop_mode: 3 is not a string",
        ),
        (
            |c| c["label_names"] = serde_json::json!(["a", "b", "a", "d", "e"]),
            "label_names: two classes are called \"a\"",
        ),
        (
            |c| c["label_names"] = serde_json::json!(["a", "b", " ", "d", "e"]),
            "label_names: the name of class 2 is empty",
        ),
        (
            |c| c["label_names"] = serde_json::json!(["a", "b"]),
            "label_names: 2 names for 5 logits",
        ),
        (
            |c| c["label_names"] = serde_json::json!({"0": "a", "2": "b"}),
            "label_names: class 1 is missing",
        ),
    ];
    let fails = |folder: &TempDir, network: Option<&str>, words: &str| {
        let error = Conversion::efficientnet(folder.path(), network, &f32_options());
        let error = error.err().unwrap_or_else(|| panic!("{words}: no error"));
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("config.json"), "{error}");
    };
    for (change, words) in changes {
        fails(&saved("tf_efficientnet_lite0", change), None, words);
    }
    // A size beyond all limits is found where it would be stored.
    let folder = saved("tf_efficientnet_lite0", |c| {
        c["pretrained_cfg"]["input_size"] = serde_json::json!([3, 5000, 5000])
    });
    let error = Conversion::efficientnet(folder.path(), None, &f32_options());
    let error = error.err().unwrap().to_string();
    let directory = folder.path().to_string_lossy();
    assert!(
        error.contains("size is 5000") && error.contains(&*directory),
        "{error}"
    );
    // Two names that contradict each other, and one that leaves open what the file says.
    let folder = saved("tf_efficientnet_lite0", |_| ());
    for name in ["efficientnet_lite0", "tf_efficientnet_b0"] {
        fails(&folder, Some(name), &format!("not {name}, as is asked for"));
    }
    Conversion::efficientnet(folder.path(), Some("efficientnet-lite0"), &f32_options()).unwrap();
}
