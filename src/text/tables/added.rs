//! Added tokens: found in a text before anything else cuts it.
//!
//! The result is that of the `tokenizers` crate, which looks for the longest of all tokens at the
//! leftmost place. The tokens stand sorted, so that the longest one that a text starts with is
//! either the last one that is not greater than the text, or the start of that one.

use super::classes::is_word;
use super::layout::{LEFT_SPACE, RIGHT_SPACE, SINGLE_WORD};

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Token(u32),
    Text(&'t str),
}

/// The tokens of one set, in place.
#[derive(Clone, Copy)]
pub(super) struct Added<'a> {
    /// Id, end of its bytes and flags of each token.
    pub(super) tokens: &'a [[u32; 3]],
    /// Where the bytes of the first token start.
    pub(super) start: u32,
    pub(super) contents: &'a [u8],
    pub(super) index: &'a Index,
}

/// What is made of a set of tokens at opening.
pub(super) struct Index {
    /// The bytes that tokens start with.
    first: [u64; 4],
    /// For each token the longest other one that it starts with.
    parents: Vec<Option<u32>>,
}

impl Index {
    /// `contents` are sorted and not empty.
    pub(super) fn new<'a>(contents: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut first, mut parents) = ([0; 4], Vec::new());
        // The tokens that the current one starts with, shortest first.
        let mut open: Vec<(u32, &[u8])> = Vec::new();
        for (index, content) in contents.enumerate() {
            first[usize::from(content[0] >> 6)] |= 1 << (content[0] & 63);
            while open
                .last()
                .is_some_and(|(_, start)| !content.starts_with(start))
            {
                open.pop();
            }
            parents.push(open.last().map(|(index, _)| *index));
            open.push((index as u32, content));
        }
        Self { first, parents }
    }

    fn starts(&self, byte: u8) -> bool {
        self.first[usize::from(byte >> 6)] >> (byte & 63) & 1 != 0
    }
}

impl<'a> Added<'a> {
    pub(super) fn content(&self, index: usize) -> &'a [u8] {
        let start = match index {
            0 => self.start,
            _ => self.tokens[index - 1][1],
        };
        &self.contents[start as usize..self.tokens[index][1] as usize]
    }

    /// The longest token that `text` starts with.
    fn longest(&self, text: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.tokens.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.content(middle) <= text {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let mut found = low.checked_sub(1);
        while let Some(index) = found {
            if text.starts_with(self.content(index)) {
                return found;
            }
            found = self.index.parents[index].map(|parent| parent as usize);
        }
        None
    }

    /// Cuts `text` into tokens and what is between them; no part is empty.
    pub(super) fn cut<'t>(&self, text: &'t str, mut part: impl FnMut(Part<'t>)) {
        let bytes = text.as_bytes();
        let (mut done, mut at) = (0, 0);
        if !self.tokens.is_empty() {
            while let Some(step) = bytes[at..].iter().position(|&b| self.index.starts(b)) {
                at += step;
                let Some(index) = self.longest(&bytes[at..]) else {
                    at += 1;
                    continue;
                };
                let (mut start, mut end) = (at, at + self.content(index).len());
                at = end;
                let [id, _, flags] = self.tokens[index];
                if flags & SINGLE_WORD != 0
                    && (text[..start].chars().next_back().is_some_and(is_word)
                        || text[end..].chars().next().is_some_and(is_word))
                {
                    continue;
                }
                if flags & LEFT_SPACE != 0 {
                    // Space that the token before has taken is gone.
                    start = match text.get(done..start) {
                        Some(between) => done + between.trim_end().len(),
                        None => done,
                    };
                }
                if flags & RIGHT_SPACE != 0 {
                    // All up to `done` is space where the token before has taken more than this;
                    // to look at it again each time would be quadratic.
                    let from = end.max(done);
                    end = text.len() - text[from..].trim_start().len();
                }
                if done < start {
                    part(Part::Text(&text[done..start]));
                }
                // Tokens that start with space can lie in what the one before has taken.
                if start < end {
                    part(Part::Token(id));
                }
                done = end;
            }
        }
        if done < text.len() {
            part(Part::Text(&text[done..]));
        }
    }
}
