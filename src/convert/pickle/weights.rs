//! Where in the saved object the weights are.

use std::collections::{BTreeMap, HashSet};

use super::calls::shown;
use super::values::{Object, Tensor, Value, Values};
use super::{MAX_NAME, fail};
use crate::error::Result;

/// Under which names weights stand in a training checkpoint; averaged weights (EMA) come first, as they
/// are what its authors evaluate.
const WRAPPERS: [&str; 9] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
];
/// Wrappers within wrappers.
const MAX_DEPTH: usize = 4;

type Entry<'a> = (Value<'a>, Value<'a>);

/// The tensors of the state dictionary by their names (the last, where a name is there twice), and the path to
/// it, as `model.state_dict`.
pub(super) fn find<'a>(
    values: &'a Values<'a>,
    root: Value<'a>,
) -> Result<(BTreeMap<&'a str, &'a Tensor<'a>>, String)> {
    let mut search = Search {
        values,
        seen: HashSet::new(),
        path: Vec::new(),
    };
    let entries = search
        .look_in(root)
        .ok_or_else(|| nothing_in(values, root))?;
    let mut tensors = BTreeMap::new();
    for &(key, value) in entries {
        let (Value::Text(name), Some(Object::Tensor(tensor))) = (key, values.object(value)) else {
            continue;
        };
        if name.len() > MAX_NAME {
            let (len, name) = (name.len(), shown(name));
            let message = format!("a name of {len} bytes; {MAX_NAME} can be read");
            return Err(fail(message).in_tensor(name));
        }
        tensors.insert(name, &**tensor);
    }
    Ok((tensors, search.path.join(".")))
}

struct Search<'a> {
    values: &'a Values<'a>,
    /// Dictionaries, and how deep they stood: one may hold itself, or one many times.
    seen: HashSet<(u32, usize)>,
    path: Vec<&'static str>,
}

impl<'a> Search<'a> {
    /// What is wrapped comes before what stands beside it: a best accuracy or a generator's state may be a
    /// tensor, too.
    fn look_in(&mut self, at: Value<'a>) -> Option<&'a [Entry<'a>]> {
        let entries = self.values.dict(at)?;
        let depth = self.path.len();
        if let Value::Object(number) = at
            && !self.seen.insert((number, depth))
        {
            return None;
        }
        if depth < MAX_DEPTH {
            for (wrapper, inner) in WRAPPERS.into_iter().zip(wrapped(entries)) {
                self.path.push(wrapper);
                let found = inner.and_then(|inner| self.look_in(inner));
                if found.is_some() {
                    return found;
                }
                self.path.pop();
            }
        }
        let is_weight = |&(key, value): &Entry<'_>| match (key, self.values.object(value)) {
            (Value::Text(_), Some(Object::Tensor(tensor))) => tensor.may_be_weight(),
            _ => false,
        };
        entries.iter().any(is_weight).then_some(entries)
    }
}

/// The values of the wrappers' names.
fn wrapped<'a>(entries: &[Entry<'a>]) -> [Option<Value<'a>>; WRAPPERS.len()] {
    let mut found = [None; WRAPPERS.len()];
    for (key, value) in entries {
        if let Value::Text(key) = key
            && let Some(at) = WRAPPERS.iter().position(|wrapper| wrapper == key)
        {
            found[at] = Some(*value);
        }
    }
    found
}

fn nothing_in(values: &Values<'_>, root: Value<'_>) -> crate::error::Error {
    let keys: Vec<_> = (values.dict(root).into_iter().flatten())
        .filter_map(|(key, _)| match key {
            Value::Text(key) => Some(shown(key)),
            _ => None,
        })
        .take(8)
        .collect();
    fail(if keys.is_empty() {
        let kind = values.kind(root);
        format!("no state dictionary: the file holds {kind}")
    } else {
        format!(
            "no state dictionary: among {} there is no tensor of weights, nor a dictionary with some that is \
             named {}",
            keys.join(", "),
            WRAPPERS.join(", ")
        )
    })
}

/// What training programs keep beside the weights: fairseq's `args`, or its newer `cfg.model`. Texts longer than a
/// name are left out.
///
/// # Errors
/// If there are more than the budget allows: a text may be the value of many names.
pub(super) fn arguments(values: &Values<'_>, root: Value<'_>) -> Result<BTreeMap<String, String>> {
    let found = (values
        .entry(root, "args")
        .filter(|v| values.dict(*v).is_some()))
    .or_else(|| values.entry(values.entry(root, "cfg")?, "model"));
    let entries = found.and_then(|value| values.dict(value));
    let mut last = BTreeMap::new();
    for &(key, value) in entries.into_iter().flatten() {
        if let Value::Text(key) = key
            && key.len() <= MAX_NAME
        {
            last.insert(key, value);
        }
    }
    let mut arguments = BTreeMap::new();
    for (key, value) in last {
        let value = match value {
            Value::Text(value) if value.len() <= MAX_NAME => value.to_owned(),
            Value::Int(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            _ => continue,
        };
        values.budget.charge(value.len())?;
        arguments.insert(key.to_owned(), value);
    }
    Ok(arguments)
}
