//! Where things stand in a section of tokenizer tables, as `format-spec.md` gives it.
//!
//! **Frozen**, as the header of the file is: a change gets a new section kind.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, ErrorKind, Result};

/// "No id".
pub(crate) const NONE: u32 = u32::MAX;
/// In a template: the first text, the second text.
pub(crate) const TEXTS: [u32; 2] = [u32::MAX, u32::MAX - 1];
/// Ids are less than this: no embedding has that many rows.
pub(crate) const MAX_IDS: u32 = 1 << 30;
/// Pieces of a template.
pub(crate) const MAX_PIECES: u32 = 256;
/// Added tokens.
pub(crate) const MAX_ADDED: u32 = 1 << 20;
/// Merges or tokens.
pub(crate) const MAX_ENTRIES: u32 = 1 << 26;
/// Bytes of a token, and of what an added token matches.
pub(crate) const MAX_TOKEN_BYTES: usize = 256;
/// Characters of the longest word that WordPiece looks at.
pub(crate) const MAX_CHARS: u32 = 1024;
/// Entries of a bucket: what one lookup may cost.
pub(crate) const MAX_BUCKET: usize = 64;
/// The number of buckets is two to the power of this.
pub(crate) const MAX_BUCKET_BITS: u32 = 24;

pub(crate) const WORDPIECE: u32 = 1;
pub(crate) const BYTE_LEVEL: u32 = 2;

/// WordPiece: take out control characters, and make all white space a space.
pub(crate) const CLEAN_TEXT: u32 = 1;
/// WordPiece: put spaces around Han characters.
pub(crate) const SPLIT_HAN: u32 = 1 << 1;
/// WordPiece: decompose, and take out non-spacing marks.
pub(crate) const STRIP_ACCENTS: u32 = 1 << 2;
/// WordPiece: in lower case.
pub(crate) const LOWERCASE: u32 = 1 << 3;
/// Byte-level: put a space before text that does not start with one.
pub(crate) const PREFIX_SPACE: u32 = 1 << 4;
/// Byte-level: cut text into words.
pub(crate) const SPLIT_WORDS: u32 = 1 << 5;
/// Byte-level: neighbouring unknown bytes are one unknown token.
pub(crate) const FUSE_UNKNOWN: u32 = 1 << 6;

/// Added token: only as a word of its own.
pub(crate) const SINGLE_WORD: u32 = 1;
/// Added token: with the white space before it.
pub(crate) const LEFT_SPACE: u32 = 1 << 1;
/// Added token: with the white space after it.
pub(crate) const RIGHT_SPACE: u32 = 1 << 2;

/// The start of the section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) model: u32,
    pub(crate) flags: u32,
    pub(crate) id_limit: u32,
    pub(crate) unknown: u32,
    pub(crate) single: u32,
    pub(crate) pair: u32,
    /// Added tokens that match text as it comes, and those that match it normalized.
    pub(crate) added: [u32; 2],
    pub(crate) added_bytes: u32,
    pub(crate) entries: u32,
    pub(crate) bucket_bits: u32,
    pub(crate) token_bytes: u32,
    pub(crate) prefix_bytes: u32,
    pub(crate) max_chars: u32,
    pub(crate) reserved: [u32; 2],
}

/// Where each array stands in the section.
#[derive(Debug, Clone)]
pub(crate) struct Arrays {
    pub(crate) template: Range<usize>,
    pub(crate) added: Range<usize>,
    pub(crate) buckets: Range<usize>,
    /// WordPiece: where each token ends. Byte-level: the token of each byte.
    pub(crate) words: Range<usize>,
    /// WordPiece: the id of each token. Byte-level: the merges.
    pub(crate) entries: Range<usize>,
    pub(crate) prefix: Range<usize>,
    pub(crate) tokens: Range<usize>,
    pub(crate) contents: Range<usize>,
    pub(crate) end: usize,
}

pub(crate) const HEAD_BYTES: usize = size_of::<Head>();

impl Head {
    /// Whether ids and ranks take two bytes each, and not four.
    pub(crate) fn narrow(&self) -> bool {
        self.id_limit <= 1 << 16 && self.entries <= 1 << 16
    }

    /// Checks the fields alone; only then do [`Head::arrays`] make sense.
    pub(crate) fn check(&self) -> Result<()> {
        let within = |name: &str, value: u32, range: Range<u32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let (least, most) = (range.start, range.end - 1);
            Err(bad(format!(
                "{name} {value}; the limits are {least} and {most}"
            )))
        };
        let (flags, wordpiece) = match self.model {
            WORDPIECE => (CLEAN_TEXT | SPLIT_HAN | STRIP_ACCENTS | LOWERCASE, true),
            BYTE_LEVEL => (PREFIX_SPACE | SPLIT_WORDS | FUSE_UNKNOWN, false),
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("tokenizer tables: unknown model {other}"),
                ));
            }
        };
        if self.flags & !flags != 0 {
            return Err(bad(format!(
                "reserved flag bits are set ({:#x})",
                self.flags
            )));
        }
        if self.reserved != [0; 2] {
            return Err(bad("reserved bytes are set"));
        }
        within("id_limit", self.id_limit, 1..MAX_IDS + 1)?;
        within("single", self.single, 1..MAX_PIECES + 1)?;
        within("pair", self.pair, 2..MAX_PIECES + 1)?;
        for added in self.added {
            within("added", added, 0..MAX_ADDED + 1)?;
        }
        within("bucket_bits", self.bucket_bits, 1..MAX_BUCKET_BITS + 1)?;
        if wordpiece {
            within("entries", self.entries, 1..MAX_ENTRIES + 1)?;
            within("max_chars", self.max_chars, 1..MAX_CHARS + 1)?;
            within("prefix_bytes", self.prefix_bytes, 0..MAX_TOKEN_BYTES as u32)?;
        } else {
            within("entries", self.entries, 0..MAX_ENTRIES + 1)?;
            if [self.token_bytes, self.prefix_bytes, self.max_chars] != [0; 3] {
                return Err(bad("fields of WordPiece are set in a byte-level model"));
            }
        }
        let unknown_needed = wordpiece || self.flags & FUSE_UNKNOWN != 0;
        if self.unknown >= self.id_limit && (unknown_needed || self.unknown != NONE) {
            return Err(self.id_too_large("the unknown token", self.unknown));
        }
        Ok(())
    }

    /// Where the arrays stand. With fields in their limits nothing here overflows 64 bits.
    pub(crate) fn arrays(&self) -> Option<Arrays> {
        let mut end = HEAD_BYTES as u64;
        let mut next = |bytes: u64| {
            let start = end;
            end += bytes;
            Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        };
        let of = u64::from;
        let entries = of(self.entries);
        let width = if self.narrow() { 2 } else { 4 };
        let (words, fields) = match self.model {
            WORDPIECE => (4 * entries, 1),
            _ => (4 * 256, 4),
        };
        Some(Arrays {
            template: next(8 * (of(self.single) + of(self.pair)))?,
            added: next(12 * (of(self.added[0]) + of(self.added[1])))?,
            buckets: next(4 * ((1 << self.bucket_bits) + 1))?,
            words: next(words)?,
            entries: next(fields * width * entries)?,
            prefix: next(of(self.prefix_bytes))?,
            tokens: next(of(self.token_bytes))?,
            contents: next(of(self.added_bytes))?,
            end: usize::try_from(end).ok()?,
        })
    }

    pub(crate) fn id_too_large(&self, what: &str, id: u32) -> Error {
        bad(format!(
            "{what} has the id {id}; ids are less than {}",
            self.id_limit
        ))
    }
}

pub(crate) fn bad(message: impl AsRef<str>) -> Error {
    Error::format(format!("tokenizer tables: {}", message.as_ref()))
}

/// The bucket of a merge of two tokens.
pub(crate) fn pair_bucket(left: u32, right: u32, bits: u32) -> usize {
    let key = u64::from(left) << 32 | u64::from(right);
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
}

/// The FNV-1a hash of bytes, one after another.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) const START: Self = Self(0xcbf2_9ce4_8422_2325);

    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// The bucket of a token.
    pub(crate) fn bucket(self, bits: u32) -> usize {
        ((self.0 ^ self.0 >> 32) & ((1 << bits) - 1)) as usize
    }
}
