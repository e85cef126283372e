//! Files that are read whole: none without a limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// The text of a settings file, which may be a pipe (`--plan <(...)`): at most 1 MiB.
///
/// # Errors
/// [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::Config`] if it is longer or not UTF-8.
#[cfg(feature = "convert")]
pub(crate) fn settings(path: &Path) -> Result<String> {
    const LIMIT: u64 = 1 << 20;
    let wrong = |message: String| Error::new(ErrorKind::Config, message).in_file(path);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let read = file.take(LIMIT + 1).read_to_end(&mut bytes);
    if read.map_err(|e| Error::io(path, e))? as u64 > LIMIT {
        return Err(wrong(format!("more than {LIMIT} bytes")));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to() as u64;
        wrong("not UTF-8".into()).at(at)
    })
}

/// The bytes of a regular file, and of nothing that has no end, as a device or a pipe.
///
/// # Errors
/// [`ErrorKind::Io`] if it cannot be read or is no regular file, [`ErrorKind::Input`] if it is longer than `limit`.
pub(crate) fn regular(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    let refused = |kind, message: String| Err(Error::new(kind, message).in_file(path));
    if !metadata.is_file() {
        return refused(ErrorKind::Io, "not a regular file".into());
    }
    if metadata.len() > limit {
        let message = format!("{} bytes, and the limit is {limit}", metadata.len());
        return refused(ErrorKind::Input, message);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // One that grows meanwhile is not followed.
    let read = file.take(metadata.len()).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        std::fs::write(&file, [b'a'; 100]).unwrap();
        assert_eq!(regular(&file, 100).unwrap(), [b'a'; 100]);
        let long = regular(&file, 99).unwrap_err();
        assert_eq!(long.kind(), ErrorKind::Input);
        assert_eq!(long.message(), "100 bytes, and the limit is 99");
        for path in [directory.path().join("b"), directory.path().to_owned()] {
            let error = regular(&path, u64::MAX).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_never_ends_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let endless = directory.path().join("a.tsv");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        let error = regular(&endless, 1 << 40).unwrap_err();
        assert_eq!(error.message(), "not a regular file");
        #[cfg(feature = "convert")]
        assert!((settings(&endless).unwrap_err().to_string()).ends_with("more than 1048576 bytes"));
    }

    #[test]
    #[cfg(feature = "convert")]
    fn settings_are_utf8() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plan.toml");
        std::fs::write(&file, b"seed = 1\n\xff").unwrap();
        let error = settings(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().ends_with("not UTF-8 (at byte 9)"),
            "{error}"
        );
    }
}
