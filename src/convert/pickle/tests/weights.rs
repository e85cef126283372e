//! Which dictionary of a saved object is taken for the weights.

use super::*;

impl Program {
    fn dict(self, entries: impl FnOnce(Self) -> Self) -> Self {
        entries(self.code(b"}(")).code(b"u")
    }

    /// A weight of one value, over the storage `key`.
    fn weight(self, key: &str) -> Self {
        self.tensor(key, 1, 0, &[1], &[1])
    }

    /// A state dictionary with a matrix of this name.
    fn state(self, name: &str) -> Self {
        self.dict(|p| p.text(name).weight("0"))
    }
}

/// A saved dictionary.
fn saved(entries: impl FnOnce(Program) -> Program) -> Vec<u8> {
    let object = Program::new().dict(entries).code(b".");
    let used = |key: &str| {
        let key = Program::default().text(key).0;
        object.0.windows(key.len()).any(|bytes| bytes == key)
    };
    let storages: Vec<_> = (["0", "1"].into_iter().filter(|key| used(key)))
        .map(|key| (key, 1, 4))
        .collect();
    legacy(&object, &storages)
}

fn found(file: &[u8]) -> (String, Vec<String>) {
    let contents = reads(file);
    let names = contents.tensors.into_iter().map(|tensor| tensor.name);
    (contents.path, names.collect())
}

#[test]
fn tensors_beside_the_weights_do_not_hide_them() {
    // As of PyTorch's ImageNet example.
    let example = saved(|p| {
        let p = p.text("epoch").int(3).text("state_dict").state("w");
        p.text("best_acc1").tensor("1", 1, 0, &[], &[])
    });
    assert_eq!(found(&example), ("state_dict".into(), vec!["w".into()]));
    let beside = saved(|p| p.text("cpu").weight("1").text("model").state("w"));
    assert_eq!(found(&beside), ("model".into(), vec!["w".into()]));
    // Wrappers without weights leave the outer ones.
    let outer = saved(|p| {
        let p = p.text("model").dict(|p| p.text("lr").int(1));
        p.text("w").weight("0").text("net").int(2)
    });
    assert_eq!(found(&outer), (String::new(), vec!["w".into()]));
    let within = saved(|p| p.text("model").dict(|p| p.text("state_dict").state("w")));
    assert_eq!(found(&within).0, "model.state_dict");
}

#[test]
fn averaged_weights_come_first_where_there_are_any() {
    let both = saved(|p| p.text("model").state("w").text("ema").state("averaged"));
    assert_eq!(found(&both), ("ema".into(), vec!["averaged".into()]));
    type Ema = fn(Program) -> Program;
    let without: [Ema; 4] = [
        |p| p,
        |p| p.text("decay").int(1).text("shadow_params").code(b"]"),
        |p| p.text("updates").tensor("1", 1, 0, &[], &[]),
        |p| p.text("state_dict").dict(|p| p),
    ];
    for ema in without {
        let file = saved(|p| p.text("ema").dict(ema).text("model").state("w"));
        assert_eq!(found(&file), ("model".into(), vec!["w".into()]));
    }
}

/// The last of a name counts, as in Python.
#[test]
fn names_that_are_there_twice_are_one_tensor() {
    let twice = saved(|p| p.text("w").weight("1").text("w").weight("0"));
    assert_eq!(found(&twice).1, ["w"]);
    let twice = saved(|p| p.text("model").state("w").text("model").state("v"));
    assert_eq!(found(&twice).1, ["v"]);
}

/// A dictionary that holds itself under every name: each is looked into once, however deep.
#[test]
fn dictionaries_within_themselves_end() {
    let names = ["ema", "state_dict", "model", "module", "net", "model_ema"];
    let mut file = Program::new().code(b"}q\x00(");
    for name in names.iter().cycle().take(600_000) {
        file = file.text(name).code(b"h\x00");
    }
    fails(&legacy(&file.code(b"u."), &[]), &["no state dictionary"]);
}

/// What programs keep beside the weights is skipped, by the names of either Python.
#[test]
fn harmless_values_stand_beside_the_weights() {
    let of = |module: &str, name: &str| Program::default().global(module, name).code(b")R").0;
    let named = |module: &str, name: &str| Program::default().global(module, name).0;
    let beside = [
        of("__builtin__", "frozenset"),
        of("builtins", "bytearray"),
        named("__builtin__", "long"),
        named("__builtin__", "Ellipsis"),
        of("pathlib", "PosixPath"),
        of("pathlib._local", "PosixPath"),
        of("pathlib", "PurePosixPath"),
        of("pathlib", "WindowsPath"),
        of("pathlib", "Path"),
        of("datetime", "datetime"),
        of("datetime", "timedelta"),
        named("torch", "bool"),
        named("torch", "uint8"),
        named("torch", "int8"),
        named("torch", "int32"),
        Program::default()
            .global("collections", "deque")
            .code(b")R(NNe")
            .0,
        // Protocol 4's set that does not change, protocol 5's bytes that do.
        b"(NN\x91".to_vec(),
        b"\x96\x02\0\0\0\0\0\0\0ab".to_vec(),
    ];
    for value in beside {
        let file = saved(|p| p.text("w").weight("0").text("x").code(&value));
        assert_eq!(found(&file).1, ["w"], "{value:?}");
    }
}

/// Parameters and tensors with attributes give their tensor.
#[test]
fn tensors_with_attributes_are_tensors() {
    let attributes = |p: Program| p.dict(|p| p.text("tag").int(1));
    let parameter = saved(|p| {
        let p = p.text("w");
        let p = p.global("torch._utils", "_rebuild_parameter_with_state");
        attributes(p.code(b"(").weight("0").code(b"\x88N")).code(b"tR")
    });
    assert_eq!(found(&parameter).1, ["w"]);
    let typed = |module: &str, name: &str| {
        saved(|p| {
            let p = p.text("w").global("torch._tensor", "_rebuild_from_type_v2");
            let p = p.code(b"(").global(module, name).global("torch", "Tensor");
            let p = p.code(b"(").storage("0", 1).int(0).ints(&[1]).ints(&[1]);
            attributes(p.code(b"\x89Nt")).code(b"tR")
        })
    };
    let file = typed("torch._utils", "_rebuild_tensor_v2");
    assert_eq!(found(&file).1, ["w"]);
    // Nothing but a tensor, and not the call within itself.
    fails(
        &typed("builtins", "set"),
        &["_rebuild_from_type_v2 with set"],
    );
    let itself = typed("torch._tensor", "_rebuild_from_type_v2");
    fails(&itself, &["_rebuild_from_type_v2 with _rebuild"]);
}

#[test]
fn views_that_do_not_fit_are_errors_where_they_are_used() {
    let expanded = |p: Program| p.text("x").tensor("1", 1, 0, &[10], &[0]);
    let beside = saved(|p| expanded(p.text("model").state("w")));
    assert_eq!(found(&beside).1, ["w"]);
    let among = saved(|p| expanded(p.text("w").weight("0")));
    let contents = reads(&among);
    let fault = |at: usize| contents.tensors[at].fault.as_deref();
    assert_eq!(fault(0), None);
    assert!(fault(1).unwrap().contains("does not fit its storage of 1"));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &among).unwrap();
    let checkpoint = crate::convert::Checkpoint::open(file.path()).unwrap();
    assert_eq!(checkpoint.values("w").unwrap(), [0.0]);
    assert_eq!(checkpoint.shape("x"), Some(&[10][..]));
    let error = checkpoint.values("x").unwrap_err();
    assert_eq!(error.tensor(), Some("x"));
    assert!(error.message().contains("strides [0]"), "{error}");
    assert!(checkpoint.integers("x").is_err());
    // No reader may make room for a size that no file has.
    let huge = saved(|p| {
        let p = p.text("w").weight("0").text("x");
        p.tensor("1", 1, 0, &[1 << 40], &[0])
    });
    fails(&huge, &["does not fit", "x"]);
}
