//! The file that `torch.save` wrote before 1.6, and writes with
//! `_use_new_zipfile_serialization=False`: five pickles one after another (a magic number, the
//! protocol, the system, the object, the storages' keys), then for each key the number of its
//! elements (i64) and their bytes.

use std::collections::HashMap;

use super::calls::shown;
use super::values::{Budget, Object, Value};
use super::{Contents, contents, fail, machine};
use crate::artifact::Bytes;
use crate::error::Result;

/// 0x1950a86a20f9469cfc6c
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

pub(super) fn read(file: &Bytes) -> Result<Contents> {
    let budget = Budget::new();
    let run = |start| machine::run(file, start, &budget);
    let magic = run(0)?;
    if !matches!(magic.root, Value::Bytes(found) if found == MAGIC) {
        return Err(fail(format!(
            "a pickle, but not one of torch.save: it begins with {}",
            magic.values.kind(magic.root)
        )));
    }
    let protocol = run(magic.end)?;
    match protocol.root {
        Value::Int(PROTOCOL) => {}
        Value::Int(other) => {
            return Err(fail(format!(
                "protocol {other} of torch.save; {PROTOCOL} can be read"
            )));
        }
        other => {
            let kind = protocol.values.kind(other);
            return Err(fail(format!("{kind} where torch.save's protocol is")));
        }
    }
    let system = run(protocol.end)?;
    let little = system.values.entry(system.root, "little_endian");
    if !matches!(little, Some(Value::Bool(true))) {
        return Err(fail("it was not written on a little-endian machine"));
    }
    let object = run(system.end)?;
    let keys = run(object.end)?;

    // How many elements of which size there are for a key, tensors say.
    let declared: HashMap<&str, (usize, usize)> = (object.values.objects())
        .filter_map(|object| match object {
            Object::Storage(storage) => Some((storage.key, (storage.len, storage.dtype.bytes()))),
            _ => None,
        })
        .collect();
    let listed = keys.values.sequence(keys.root);
    let listed = listed.ok_or_else(|| fail("the storages' keys are not a list"))?;
    let mut storages = HashMap::new();
    let mut at = keys.end;
    for &key in listed {
        let Value::Text(key) = key else {
            return Err(fail("a storage's key is not a text"));
        };
        let (len, size) = *(declared.get(key))
            .ok_or_else(|| fail(format!("storage {} belongs to no tensor", shown(key))))?;
        let missing = || fail(format!("storage {key} ends behind the file's end")).at(at as u64);
        let start = at.checked_add(8).ok_or_else(missing)?;
        let count = file.get(at..start).and_then(|bytes| bytes.first_chunk());
        let count = i64::from_le_bytes(*count.ok_or_else(missing)?);
        if usize::try_from(count) != Ok(len) {
            let message = format!("storage {key} has {count} elements where tensors say {len}");
            return Err(fail(message).at(at as u64));
        }
        let bytes = len.checked_mul(size);
        let end = bytes.and_then(|bytes| start.checked_add(bytes));
        let end = end.filter(|&end| end <= file.len()).ok_or_else(missing)?;
        storages.insert(key, start..end);
        at = end;
    }
    contents(file, &object.values, object.root, |key| {
        let range = storages.get(key).cloned();
        let storage = range.and_then(|range| file.slice(range));
        storage.ok_or_else(|| fail(format!("storage {key} is missing")))
    })
}
