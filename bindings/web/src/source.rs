//! A JavaScript array of bytes to read from: the model is copied once, to where it stays.

use std::io::{self, Read};

use js_sys::Uint8Array;

pub(crate) struct Source {
    bytes: Uint8Array,
    read: u32,
}

impl Source {
    pub(crate) fn new(bytes: Uint8Array) -> Self {
        Self { bytes, read: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        u64::from(self.bytes.length())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        let end = self.read + wanted.min(self.bytes.length() - self.read);
        let part = self.bytes.subarray(self.read, end);
        let count = (end - self.read) as usize;
        part.copy_to(&mut buffer[..count]);
        self.read = end;
        Ok(count)
    }
}
