//! The bytes of an artifact: a memory map or an owned, aligned buffer, cut into cheap shared slices.
//!
//! This is the one file outside the kernels that holds `unsafe`: mapping a file is unsafe because
//! nothing stops another process from changing it.
#![allow(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, ErrorKind, Result};

/// Sections start at multiples of this many bytes, in the file and in memory.
pub(crate) const ALIGN: usize = 64;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Chunk([u8; ALIGN]);

enum Owner {
    Mapped(memmap2::Mmap),
    Owned { chunks: Vec<Chunk>, len: usize },
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Owner::Mapped(map) => map,
            Owner::Owned { chunks, len } => &bytemuck::cast_slice(chunks)[..*len],
        }
    }
}

/// A shared, immutable range of an artifact's bytes.
#[derive(Clone)]
pub(crate) struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// Maps `path`.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let (file, len) = open(path)?;
        if len == 0 {
            return Err(Error::format("the file is empty").in_file(path));
        }
        // SAFETY: the map is private and read-only. That nobody writes to or truncates the file
        // while it is mapped is a documented duty of the caller of `Artifact::open`; this crate's
        // own writer never touches a file in place, it renames a new one over it.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self::whole(Owner::Mapped(map)))
    }

    /// Reads `path` into memory.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let (file, len) = open(path)?;
        Self::read_from(file, len).map_err(|e| e.in_file(path))
    }

    /// Reads at most `len` bytes.
    pub(crate) fn read_from(reader: impl Read, len: usize) -> Result<Self> {
        let mut chunks = allocate(len)?;
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut chunks);
        let mut filled = 0;
        let mut reader = reader.take(len as u64);
        loop {
            match reader.read(&mut buffer[filled..len]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::new(ErrorKind::Io, e.to_string()).caused_by(e)),
            }
        }
        Ok(Self::whole(Owner::Owned {
            chunks,
            len: filled,
        }))
    }

    /// Copies `bytes` into an aligned buffer.
    pub(crate) fn copy(bytes: &[u8]) -> Result<Self> {
        let mut chunks = allocate(bytes.len())?;
        bytemuck::cast_slice_mut(&mut chunks)[..bytes.len()].copy_from_slice(bytes);
        Ok(Self::whole(Owner::Owned {
            chunks,
            len: bytes.len(),
        }))
    }

    fn whole(owner: Owner) -> Self {
        let range = 0..owner.bytes().len();
        Self {
            owner: Arc::new(owner),
            range,
        }
    }

    /// A part of these bytes; `None` when `range` does not lie within them.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        Some(Self {
            owner: self.owner.clone(),
            range: self.range.start + range.start..self.range.start + range.end,
        })
    }

    /// The bytes as values of `T`, in place.
    ///
    /// # Panics
    /// If the length or alignment does not fit `T`. The reader has checked both: sections start at
    /// multiples of 64 bytes and their lengths follow from the tensor's shape.
    pub(crate) fn typed<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(self)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

fn open(path: &Path) -> Result<(File, usize)> {
    let regular = |metadata: io::Result<Metadata>| match metadata {
        Ok(metadata) if metadata.is_file() => Ok(metadata),
        Ok(_) => Err(Error::new(ErrorKind::Io, "not a regular file").in_file(path)),
        Err(e) => Err(Error::io(path, e)),
    };
    // Opening a pipe would wait for somebody to write into it.
    regular(path.metadata())?;
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let metadata = regular(file.metadata())?;
    let len = usize::try_from(metadata.len())
        .map_err(|_| Error::format("the file is larger than the address space").in_file(path))?;
    Ok((file, len))
}

fn allocate(len: usize) -> Result<Vec<Chunk>> {
    let count = len.div_ceil(ALIGN);
    let mut chunks = Vec::new();
    chunks
        .try_reserve_exact(count)
        .map_err(|_| Error::new(ErrorKind::Io, format!("out of memory for {len} bytes")))?;
    chunks.resize(count, Chunk::zeroed());
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_bytes_are_aligned_and_sliced() {
        let bytes = Bytes::copy(&(0..200u8).collect::<Vec<_>>()).unwrap();
        assert_eq!(bytes.as_ptr() as usize % ALIGN, 0);
        let part = bytes.slice(64..72).unwrap().slice(2..6).unwrap();
        assert_eq!(&*part, &[66, 67, 68, 69]);
        assert!(bytes.slice(100..201).is_none());
        assert!(part.slice(0..5).is_none());
    }

    #[test]
    fn a_reader_gives_what_it_has() {
        /// A few bytes at a time, with interruptions, and an error in place of the last byte.
        struct Slow<'a>(&'a [u8], bool);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(std::io::ErrorKind::Interrupted.into());
                }
                if self.0.len() == 1 {
                    return Err(std::io::Error::other("the line is dead"));
                }
                let most = buffer.len().min(7);
                self.0.read(&mut buffer[..most])
            }
        }
        let all: Vec<u8> = (0..=255).collect();
        let bytes = Bytes::read_from(Slow(&all, false), 140).unwrap();
        assert_eq!(&*bytes, &all[..140]);
        assert_eq!(bytes.as_ptr() as usize % ALIGN, 0);
        // Cut short: as many as there are.
        assert_eq!(Bytes::read_from(&all[..50], 140).unwrap().len(), 50);
        let error = Bytes::read_from(Slow(&all[..8], false), 140).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.to_string(), "the line is dead");
        assert!(Bytes::read_from(&all[..], usize::MAX / 2).is_err());
    }

    #[cfg(not(target_family = "wasm"))]
    #[test]
    fn special_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Bytes::map(dir.path()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(Bytes::read(dir.path()).is_err());
    }
}
