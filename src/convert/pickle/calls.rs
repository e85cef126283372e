//! The names that a pickle may use, and what calling them gives.

use super::super::entry::DType;
use super::values::{Object, Storage, Tensor, Value, Values};
use super::{MAX_NAME, fail};
use crate::error::Result;

/// A name of the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Global {
    module: &'static str,
    pub(super) name: &'static str,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    /// A dictionary of pairs, or an object's attributes.
    Dict,
    /// `(storage, offset, size, strides, ...)`.
    Tensor,
    /// `(tensor, requires_grad, hooks)`, and perhaps attributes.
    Parameter,
    /// `(what makes the tensor, its class, arguments, attributes)`.
    Typed,
    /// `torch.Size((...))`.
    Size,
    Storage(DType),
    /// Something beside the weights; its value is not looked at.
    Opaque,
}

/// What weights are made of.
const GLOBALS: &[(&str, &str, Role)] = &[
    ("collections", "OrderedDict", Role::Dict),
    ("argparse", "Namespace", Role::Dict),
    ("torch._utils", "_rebuild_tensor", Role::Tensor),
    ("torch._utils", "_rebuild_tensor_v2", Role::Tensor),
    ("torch._utils", "_rebuild_parameter", Role::Parameter),
    (
        "torch._utils",
        "_rebuild_parameter_with_state",
        Role::Parameter,
    ),
    ("torch._tensor", "_rebuild_from_type_v2", Role::Typed),
    ("torch", "Size", Role::Size),
    ("torch", "DoubleStorage", Role::Storage(DType::F64)),
    ("torch", "FloatStorage", Role::Storage(DType::F32)),
    ("torch", "HalfStorage", Role::Storage(DType::F16)),
    ("torch", "BFloat16Storage", Role::Storage(DType::Bf16)),
    ("torch", "LongStorage", Role::Storage(DType::I64)),
    ("torch", "IntStorage", Role::Storage(DType::I32)),
    ("torch", "ShortStorage", Role::Storage(DType::I16)),
    ("torch", "CharStorage", Role::Storage(DType::I8)),
    ("torch", "ByteStorage", Role::Storage(DType::U8)),
    ("torch", "BoolStorage", Role::Storage(DType::Bool)),
];

const MULTIARRAY: &[&str] = &["scalar", "_reconstruct"];
const PATHS: &[&str] = &[
    "Path",
    "PosixPath",
    "PurePath",
    "PurePosixPath",
    "PureWindowsPath",
    "WindowsPath",
];

/// What else may be named, by module. Files of training programs hold more than weights; what is harmless and
/// common there is on the list so that it can be skipped.
const SKIPPED: &[(&str, &[&str])] = &[
    ("collections", &["Counter", "defaultdict", "deque"]),
    (
        "torch",
        &[
            "Tensor",
            "bfloat16",
            "bool",
            "complex128",
            "complex64",
            "device",
            "float16",
            "float32",
            "float64",
            "int16",
            "int32",
            "int64",
            "int8",
            "uint8",
        ],
    ),
    ("torch.nn.parameter", &["Buffer", "Parameter"]),
    ("numpy", &["dtype", "ndarray"]),
    ("numpy.core.multiarray", MULTIARRAY),
    ("numpy._core.multiarray", MULTIARRAY),
    ("_codecs", &["encode"]),
    ("pathlib", PATHS),
    ("pathlib._local", PATHS),
    (
        "datetime",
        &["date", "datetime", "time", "timedelta", "timezone"],
    ),
    (
        BUILTINS,
        &[
            "Ellipsis",
            "bool",
            "bytearray",
            "bytes",
            "complex",
            "dict",
            "float",
            "frozenset",
            "int",
            "list",
            "long",
            "range",
            "set",
            "slice",
            "str",
            "tuple",
            "unicode",
            "xrange",
        ],
    ),
];
const BUILTINS: &str = "builtins";
/// Python 2's name, which protocol 2 has in its place.
const OLD_BUILTINS: &str = "__builtin__";

/// Looks a name up.
///
/// # Errors
/// Names what is not on the list.
pub(super) fn global(module: &str, name: &str) -> Result<Global> {
    let known = (GLOBALS.iter()).find(|(m, n, _)| (*m, *n) == (module, name));
    if let Some(&(module, name, role)) = known {
        return Ok(Global { module, name, role });
    }
    let place = match module {
        OLD_BUILTINS => BUILTINS,
        other => other,
    };
    let skipped = (SKIPPED.iter())
        .find(|(module, _)| *module == place)
        .and_then(|(module, names)| Some((*module, *names.iter().find(|n| **n == name)?)));
    if let Some((module, name)) = skipped {
        let role = Role::Opaque;
        return Ok(Global { module, name, role });
    }
    let (module, name) = (shown(module), shown(name));
    Err(fail(format!(
        "the pickle names {module}.{name}, which is not among what weights are made of: nothing was run; save \
         the model's state_dict() alone, or as safetensors"
    )))
}

/// A text of the file, short enough for a message.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short + "..."
    } else {
        short
    }
}

impl Global {
    /// What calling this, or making an object of this class, gives.
    pub(super) fn call<'a>(self, values: &mut Values<'a>, args: Value<'a>) -> Result<Value<'a>> {
        let wrong = |what: &str| Err(fail(format!("{}.{} with {what}", self.module, self.name)));
        let Some(args) = values.sequence(args) else {
            return wrong(values.kind(args));
        };
        let object = match self.role {
            Role::Dict => match *args {
                [] => Object::Dict(Vec::new()),
                [pairs] => Object::Dict(entries(values, pairs)?),
                _ => return wrong("several arguments"),
            },
            Role::Tensor => {
                let [storage, offset, size, strides, ..] = *args else {
                    return wrong("too few arguments");
                };
                let Some(&Object::Storage(storage)) = values.object(storage) else {
                    return wrong(&format!("{} for a storage", values.kind(storage)));
                };
                let offset = number(values, offset, "offset")?;
                let (size, strides) = (numbers(values, size)?, numbers(values, strides)?);
                let mut tensor = Tensor::new(storage, offset, size, strides)?;
                tensor.metadata = args.get(6).and_then(|&metadata| unusual(values, metadata));
                Object::Tensor(Box::new(tensor))
            }
            Role::Parameter => {
                let first = args.first().copied().unwrap_or(Value::None);
                return match values.object(first) {
                    Some(Object::Tensor(_)) => Ok(first),
                    _ => wrong(&format!("{} for a tensor", values.kind(first))),
                };
            }
            Role::Typed => {
                let [Value::Global(made), _, args, ..] = *args else {
                    return wrong("other arguments than a tensor has");
                };
                return match made.role {
                    Role::Tensor | Role::Parameter => made.call(values, args),
                    // Such calls would be within such calls without end.
                    _ => wrong(made.name),
                };
            }
            Role::Size => match *args {
                [sizes] if values.sequence(sizes).is_some() => return Ok(sizes),
                _ => return wrong("what is no sequence"),
            },
            Role::Storage(_) => return wrong("arguments: storages are not calls"),
            Role::Opaque => Object::Opaque(self),
        };
        Ok(values.add(object))
    }
}

/// What torch says of a tensor whose values are not those of its storage, as `neg`: negated.
fn unusual(values: &Values<'_>, metadata: Value<'_>) -> Option<String> {
    let entries = match metadata {
        Value::None => return None,
        _ => values.dict(metadata),
    };
    let Some(entries) = entries else {
        return Some(values.kind(metadata).to_owned());
    };
    let set = |value: &Value<'_>| !matches!(value, Value::None | Value::Bool(false));
    let (key, _) = entries.iter().find(|(_, value)| set(value))?;
    Some(match key {
        Value::Text(key) => shown(key),
        _ => values.kind(*key).to_owned(),
    })
}

/// A dictionary's entries, from pairs.
fn entries<'a>(values: &Values<'a>, pairs: Value<'a>) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    if let Some(entries) = values.dict(pairs) {
        values.budget.charge(entries.len())?;
        return Ok(entries.to_vec());
    }
    let pairs = values
        .sequence(pairs)
        .ok_or_else(|| fail(format!("a dictionary of {}", values.kind(pairs))))?;
    values.budget.charge(pairs.len())?;
    (pairs.iter())
        .map(|&pair| match values.sequence(pair) {
            Some(&[key, value]) => Ok((key, value)),
            _ => Err(fail("a dictionary of what are no pairs")),
        })
        .collect()
}

fn number(values: &Values<'_>, value: Value<'_>, what: &str) -> Result<usize> {
    match value {
        Value::Int(number) => {
            usize::try_from(number).map_err(|_| fail(format!("a tensor's {what} is {number}")))
        }
        other => Err(fail(format!("a tensor's {what} is {}", values.kind(other)))),
    }
}

fn numbers(values: &Values<'_>, value: Value<'_>) -> Result<Vec<usize>> {
    /// More than any weight has.
    const MAX_RANK: usize = 16;
    match values.sequence(value) {
        Some(items) if items.len() <= MAX_RANK => {
            values.budget.charge(items.len())?;
            let number = |&item| number(values, item, "size or stride");
            items.iter().map(number).collect()
        }
        Some(items) => Err(fail(format!("a tensor of {} dimensions", items.len()))),
        None => Err(fail(format!(
            "a tensor whose size or strides are {}",
            values.kind(value)
        ))),
    }
}

/// The storage of a persistent id: `("storage", type, key, location, elements)`, and for old files
/// whether it is a view of another.
pub(super) fn storage<'a>(values: &Values<'a>, id: Value<'a>) -> Result<Storage<'a>> {
    let wrong = |what: &str| Err(fail(format!("a persistent id with {what}")));
    let (kind, class, key, len, view) = match values.sequence(id) {
        Some(&[kind, class, key, _, len]) => (kind, class, key, len, Value::None),
        Some(&[kind, class, key, _, len, view]) => (kind, class, key, len, view),
        _ => return wrong("other parts than a storage has"),
    };
    if !matches!(kind, Value::Text("storage")) {
        return wrong("another kind than \"storage\"");
    }
    let Value::Global(Global {
        role: Role::Storage(dtype),
        ..
    }) = class
    else {
        return wrong(&format!("{} for a storage's type", values.kind(class)));
    };
    let Value::Text(key) = key else {
        return wrong(&format!("{} for a storage's key", values.kind(key)));
    };
    if key.len() > MAX_NAME {
        return wrong(&format!("a storage's key of {} bytes", key.len()));
    }
    if !matches!(view, Value::None) {
        return wrong("a view of another storage, which is not supported");
    }
    let len = number(values, len, "storage size")?;
    Ok(Storage { key, dtype, len })
}
