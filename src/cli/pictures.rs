//! Pictures to calibrate with: those in a directory, or those that a file lists.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Failure;
use super::convert::read_lines;

/// How names of files that are taken out of a directory end.
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// The files of pictures that `path` means: all in a directory and those below it, by name, or the lines of a
/// file, which start from its directory.
pub fn listed(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |message: String| Failure::Failed(format!("{}: {message}", path.display()));
    if path.is_dir() {
        let mut found = Vec::new();
        collect(path, &mut found)
            .map_err(|(at, e)| Failure::Failed(format!("{}: {e}", at.display())))?;
        return match found.is_empty() {
            true => Err(fail(format!(
                "no picture is in this directory: no name ends in .{}",
                ENDINGS.join(", .")
            ))),
            false => Ok(found),
        };
    }
    let from = path.parent().unwrap_or(Path::new(""));
    let lines = read_lines(path)?;
    Ok(lines.iter().map(|line| from.join(line.trim())).collect())
}

/// Adds the pictures of a directory in the order of their names. Links to directories are not followed.
fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let context = |e| (directory.to_owned(), e);
    let entries = fs::read_dir(directory).map_err(context)?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let ending = path.extension().map(|e| e.to_ascii_lowercase());
        if entry.file_type().map_err(context)?.is_dir() {
            collect(&path, found)?;
        } else if ENDINGS
            .iter()
            .any(|e| ending.as_deref() == Some(e.as_ref()))
        {
            found.push(path);
        }
    }
    Ok(())
}
