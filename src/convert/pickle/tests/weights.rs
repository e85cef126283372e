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
