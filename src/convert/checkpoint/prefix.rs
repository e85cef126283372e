//! What wrappers of training put before every name, and beside the names.

/// `DataParallel` and `AveragedModel`, `torch.compile`, and attributes that Lightning's modules and other
/// programs keep the model in. No reader here knows names that begin so.
const PREFIXES: [&str; 4] = ["module.", "_orig_mod.", "model.", "net."];
/// `AveragedModel` counts its updates in a tensor.
const COUNT: &str = "n_averaged";

/// Whether a tensor is no weight of the model that was wrapped.
pub(super) fn is_count(name: &str, shape: &[usize]) -> bool {
    shape.is_empty() && name.rsplit('.').next() == Some(COUNT)
}

/// How many bytes all names begin with that are wrappers' and not the model's.
pub(super) fn common<'a>(names: impl Iterator<Item = &'a str> + Clone) -> usize {
    if names.clone().next().is_none() {
        return 0;
    }
    let mut len = 0;
    let begins = |name: &str, len: usize, prefix: &str| {
        let rest = name.get(len..).and_then(|rest| rest.strip_prefix(prefix));
        rest.is_some_and(|rest| !rest.is_empty())
    };
    while let Some(prefix) =
        (PREFIXES.iter()).find(|prefix| names.clone().all(|name| begins(name, len, prefix)))
    {
        len += prefix.len();
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_stripped_where_every_name_has_them() {
        let cases: [(&[&str], usize); 9] = [
            (&[], 0),
            (&["module.a", "module.b"], 7),
            (&["_orig_mod.module.a.b", "_orig_mod.module.c"], 17),
            (&["module.model.net.a"], 17),
            (&["model.a", "net.b"], 0),
            (&["model.a", "loss.b"], 0),
            (&["module.model.a", "module.head.b"], 7),
            (&["module.", "module.a"], 0),
            (&["encoder.a", "encoder.model.b"], 0),
        ];
        for (names, len) in cases {
            assert_eq!(common(names.iter().copied()), len, "{names:?}");
        }
    }
}
