//! A tokenizer whose tables are used in place, from the section of an artifact.
//!
//! Nothing is built at opening but a few words a added token; what is checked there ([`check`]) is
//! what encoding relies on: every id in range, every table sorted into buckets of bounded size.

mod added;
mod build;
mod byte_level;
mod check;
mod classes;
mod layout;
#[cfg(all(test, feature = "convert"))]
mod tests;
mod wordpiece;

use std::cell::Cell;

pub(super) use build::{AddedToken, Model, Spec, build};
pub(super) use layout::{
    CLEAN_TEXT, FUSE_UNKNOWN, LEFT_SPACE, LOWERCASE, MAX_IDS, NONE, PREFIX_SPACE, RIGHT_SPACE,
    SINGLE_WORD, SPLIT_HAN, SPLIT_WORDS, STRIP_ACCENTS, TEXTS,
};

use self::added::{Added, Index, Part};
use self::byte_level::ByteLevel;
use self::layout::{Arrays, HEAD_BYTES, Head, WORDPIECE};
use self::wordpiece::WordPiece;
use crate::artifact::Bytes;
use crate::error::Result;

/// Memory that a thread keeps for its next text: more than this is given back.
const KEPT_BYTES: usize = 1 << 20;

/// A checked section of tokenizer tables.
pub(super) struct Tables {
    bytes: Bytes,
    head: Head,
    arrays: Arrays,
    /// Of added tokens that match text as it comes, and of those that match it normalized.
    indices: [Index; 2],
    /// Bytes of the longest token of WordPiece.
    longest: usize,
}

/// Memory that is used again for the next text.
#[derive(Default)]
struct Scratch {
    normal: String,
    spare: String,
    wordpiece: wordpiece::Scratch,
    byte_level: byte_level::Scratch,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Tables {
    /// Checks a section.
    ///
    /// # Errors
    /// [`ErrorKind::Format`](crate::ErrorKind::Format) where it breaks a rule of `format-spec.md`.
    pub(super) fn new(bytes: Bytes) -> Result<Self> {
        let (head, arrays) = check::layout(&bytes)?;
        let indices = check::added(&head, &arrays, &bytes)?;
        check::templates(&head, typed(&bytes[arrays.template.clone()]))?;
        let longest = check::model(&head, &arrays, &bytes)?;
        Ok(Self {
            bytes,
            head,
            arrays,
            indices,
            longest,
        })
    }

    /// The largest id that any table holds.
    pub(super) fn max_id(&self) -> u32 {
        self.head.id_limit - 1
    }

    /// What a text, or a pair of texts, becomes: a list of ids, or of [`TEXTS`], with their types.
    pub(super) fn template(&self, pair: bool) -> &[[u32; 2]] {
        let pieces: &[[u32; 2]] = typed(&self.bytes[self.arrays.template.clone()]);
        let (single, double) = pieces.split_at(self.head.single as usize);
        if pair { double } else { single }
    }

    /// Appends the tokens of `text`, without special tokens around it.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut scratch = SCRATCH.take();
        let [raw, normalized] = [0, 1].map(|set| self.added(set));
        raw.cut(text, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text) => self.normalized(text, &normalized, &mut scratch, ids),
        });
        if text.len() <= KEPT_BYTES / 32 {
            SCRATCH.set(scratch);
        }
    }

    /// Appends the tokens of a text without added tokens of the first set.
    fn normalized(&self, text: &str, added: &Added, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if self.head.model == WORDPIECE {
            let Scratch {
                normal,
                spare,
                wordpiece,
                ..
            } = scratch;
            wordpiece::normalize(self.head.flags, text, spare, normal);
            added.cut(normal, |part| match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) if self.head.narrow() => {
                    self.wordpiece::<u16>().encode(text, wordpiece, ids);
                }
                Part::Text(text) => self.wordpiece::<u32>().encode(text, wordpiece, ids),
            });
        } else {
            let scratch = &mut scratch.byte_level;
            added.cut(text, |part| match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) if self.head.narrow() => {
                    self.byte_level::<u16>().encode(text, scratch, ids);
                }
                Part::Text(text) => self.byte_level::<u32>().encode(text, scratch, ids),
            });
        }
    }

    fn added(&self, set: usize) -> Added<'_> {
        let tokens: &[[u32; 3]] = typed(&self.bytes[self.arrays.added.clone()]);
        let contents = &self.bytes[self.arrays.contents.clone()];
        check::added_set(&self.head, tokens, contents, set, &self.indices[set])
    }

    fn wordpiece<W: byte_level::Width>(&self) -> WordPiece<'_, W> {
        WordPiece {
            head: &self.head,
            buckets: typed(&self.bytes[self.arrays.buckets.clone()]),
            ends: typed(&self.bytes[self.arrays.words.clone()]),
            ids: typed(&self.bytes[self.arrays.entries.clone()]),
            prefix: &self.bytes[self.arrays.prefix.clone()],
            tokens: &self.bytes[self.arrays.tokens.clone()],
            longest: self.longest,
        }
    }

    fn byte_level<W: byte_level::Width>(&self) -> ByteLevel<'_, W> {
        ByteLevel {
            head: &self.head,
            bytes: typed(&self.bytes[self.arrays.words.clone()]),
            buckets: typed(&self.bytes[self.arrays.buckets.clone()]),
            merges: typed(&self.bytes[self.arrays.entries.clone()]),
        }
    }
}

/// Bytes as numbers. The arrays of a section stand in order of their widths, so that each is
/// aligned where the section is.
fn typed<T: bytemuck::Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

/// The head of a section; `None` where it is too short.
fn head(bytes: &[u8]) -> Option<Head> {
    bytes.get(..HEAD_BYTES).map(bytemuck::pod_read_unaligned)
}
