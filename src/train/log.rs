//! `log.jsonl`: a line for each thing that happened.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

pub(super) struct Log {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Log {
    /// A new log, or one that goes on after its first `bytes`.
    pub(super) fn open(path: &Path, bytes: u64) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(failed)?;
        let mut bytes = bytes;
        if file.metadata().map_err(failed)?.len() < bytes {
            // Lines were lost, as in a power cut: it goes on after the last whole one.
            let mut left = Vec::new();
            file.read_to_end(&mut left).map_err(failed)?;
            bytes = left
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |at| at as u64 + 1);
        }
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            bytes,
        })
    }

    pub(super) fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)
            .map_err(|e| Error::io(&self.path, std::io::Error::other(e)))?;
        line.push(b'\n');
        (self.file.write_all(&line)).map_err(|e| Error::io(&self.path, e))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Its length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
