//! The zip archive that `torch.save` has written since 1.6: `NAME/data.pkl`, and each storage as an
//! uncompressed entry `NAME/data/KEY`.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::values::Budget;
use super::{Contents, contents, fail, machine};
use crate::artifact::Bytes;
use crate::error::Result;

/// The part of the name after the folder's.
const PICKLE: &str = "/data.pkl";

pub(super) fn read(file: &Bytes) -> Result<Contents> {
    let entries = entries(file)?;
    let mut pickles =
        (entries.iter()).filter_map(|(name, range)| Some((name.strip_suffix(PICKLE)?, range)));
    let (folder, pickle) = pickles
        .next()
        .ok_or_else(|| fail("a zip archive without data.pkl: torch.save did not write it"))?;
    if let Some((second, _)) = pickles.next() {
        return Err(fail(format!(
            "two pickles where torch.save writes one: {folder}{PICKLE} and {second}{PICKLE}"
        )));
    }
    if let Some(range) = entries.get(&format!("{folder}/byteorder"))
        && file.get(range.clone()) != Some(b"little")
    {
        return Err(fail("its byte order is not \"little\""));
    }
    let bytes = file.get(..pickle.end).unwrap_or_default();
    let budget = Budget::new();
    let done = machine::run(bytes, pickle.start, &budget)?;
    contents(file, &done.values, done.root, |key| {
        let range = entries.get(&format!("{folder}/data/{key}"));
        let storage = range.and_then(|range| file.slice(range.clone()));
        storage.ok_or_else(|| fail(format!("the archive has no storage {key}")))
    })
}

/// Where each entry's bytes are in the file, in the order of their names.
fn entries(file: &[u8]) -> Result<BTreeMap<String, Range<usize>>> {
    let bad = |e: zip::result::ZipError| fail(format!("not a valid zip archive: {e}"));
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(bad)?;
    let mut entries = BTreeMap::new();
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number).map_err(bad)?;
        let name = entry.name().map_err(bad)?.into_owned();
        if name.ends_with("/constants.pkl") || name.contains("/code/") {
            return Err(fail(
                "a TorchScript program: save the model's state_dict() instead",
            ));
        }
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(fail(format!(
                "entry {name} is compressed or encrypted; torch.save does neither"
            )));
        }
        let start = entry.data_start().and_then(|at| usize::try_from(at).ok());
        let range = start.and_then(|start| {
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= file.len()).then_some(start..end)
        });
        let range =
            range.ok_or_else(|| fail(format!("entry {name} ends behind the file's end")))?;
        entries.insert(name, range);
    }
    Ok(entries)
}
