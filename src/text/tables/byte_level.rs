//! Byte-level BPE, as in GPT-2 and RoBERTa.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::classes::{Class, class};
use super::layout::{FUSE_UNKNOWN, Head, NONE, PREFIX_SPACE, SPLIT_WORDS, pair_bucket};

/// Up to this many bytes of a word it is faster to look at all pairs for the next merge.
const SHORT: usize = 48;

/// A number of two or four bytes.
pub(super) trait Width: bytemuck::Pod + Into<u32> {}
impl Width for u16 {}
impl Width for u32 {}

/// The tables in place.
pub(super) struct ByteLevel<'a, W> {
    pub(super) head: &'a Head,
    /// The token of each byte, or [`NONE`].
    pub(super) bytes: &'a [u32],
    pub(super) buckets: &'a [u32],
    /// Left, right, result, rank.
    pub(super) merges: &'a [[W; 4]],
}

/// Memory that is used again for the next word.
#[derive(Default)]
pub(super) struct Scratch {
    prefixed: String,
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<(u32, usize)>>,
}

/// A token, and the merge with the one after it.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    /// Rank and result of that merge; [`NONE`] where there is none.
    rank: u32,
    result: u32,
    /// Neighbours, for long words; [`NOWHERE`] at the ends.
    previous: usize,
    next: usize,
}

const NOWHERE: usize = usize::MAX;

impl<W: Width> ByteLevel<'_, W> {
    /// Appends the tokens of a text without added tokens.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let mut prefixed = std::mem::take(&mut scratch.prefixed);
        let mut text = text;
        if self.head.flags & PREFIX_SPACE != 0 && !text.starts_with(' ') {
            prefixed.clear();
            prefixed.push(' ');
            prefixed.push_str(text);
            text = &prefixed;
        }
        if self.head.flags & SPLIT_WORDS != 0 {
            split(text, |word| self.word(word.as_bytes(), scratch, ids));
        } else {
            self.word(text.as_bytes(), scratch, ids);
        }
        scratch.prefixed = prefixed;
    }

    fn merge(&self, left: u32, right: u32) -> (u32, u32) {
        let bucket = pair_bucket(left, right, self.head.bucket_bits);
        let range = self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize;
        let found = self.merges[range].iter().find(|merge| {
            let [a, b, ..] = merge.map(Into::into);
            a == left && b == right
        });
        found.map_or((NONE, NONE), |merge| {
            let [_, _, result, rank] = merge.map(Into::into);
            (rank, result)
        })
    }

    fn word(&self, word: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let symbols = &mut scratch.symbols;
        symbols.clear();
        let mut fusing = false;
        for &byte in word {
            let mut id = self.bytes[usize::from(byte)];
            let unknown = id == NONE;
            if unknown {
                id = self.head.unknown;
                // Without an unknown token, bytes that are not in the vocabulary are dropped.
                if id == NONE || (fusing && self.head.flags & FUSE_UNKNOWN != 0) {
                    continue;
                }
            }
            fusing = unknown;
            symbols.push(Symbol {
                id,
                rank: NONE,
                result: NONE,
                previous: NOWHERE,
                next: NOWHERE,
            });
        }
        for i in 1..symbols.len() {
            (symbols[i - 1].rank, symbols[i - 1].result) =
                self.merge(symbols[i - 1].id, symbols[i].id);
        }
        if symbols.len() <= SHORT {
            self.merge_short(symbols);
        } else {
            self.merge_long(symbols, &mut scratch.heap);
        }
        ids.extend(symbols.iter().map(|symbol| symbol.id));
    }

    /// Merges the pair of the least rank, the leftmost of these, until none is left.
    fn merge_short(&self, symbols: &mut Vec<Symbol>) {
        loop {
            let (mut at, mut least) = (0, NONE);
            for (i, symbol) in symbols.iter().enumerate() {
                if symbol.rank < least {
                    (at, least) = (i, symbol.rank);
                }
            }
            if least == NONE {
                return;
            }
            symbols[at].id = symbols[at].result;
            symbols.remove(at + 1);
            self.pair(symbols, at, at + 1);
            if at > 0 {
                self.pair(symbols, at - 1, at);
            }
        }
    }

    /// Looks up the merge of `symbols[left]` with `symbols[right]`, if that is there.
    fn pair(&self, symbols: &mut [Symbol], left: usize, right: usize) {
        let (rank, result) = match symbols.get(right) {
            Some(symbol) => self.merge(symbols[left].id, symbol.id),
            None => (NONE, NONE),
        };
        symbols[left].rank = rank;
        symbols[left].result = result;
    }

    /// [`merge_short`](Self::merge_short) with a queue of pairs: n log n, however long the word.
    fn merge_long(&self, symbols: &mut Vec<Symbol>, heap: &mut BinaryHeap<Reverse<(u32, usize)>>) {
        heap.clear();
        let count = symbols.len();
        for (i, symbol) in symbols.iter_mut().enumerate() {
            symbol.previous = i.wrapping_sub(1);
            symbol.next = if i + 1 < count { i + 1 } else { NOWHERE };
            if symbol.rank != NONE {
                heap.push(Reverse((symbol.rank, i)));
            }
        }
        while let Some(Reverse((rank, at))) = heap.pop() {
            let Symbol {
                rank: current,
                result,
                previous,
                next,
                ..
            } = symbols[at];
            // An entry is out of date where a neighbour was merged since; `id` is NONE where the
            // symbol itself was.
            if current != rank || symbols[at].id == NONE {
                continue;
            }
            let after = symbols[next].next;
            symbols[next].id = NONE;
            symbols[at].id = result;
            symbols[at].next = after;
            if after != NOWHERE {
                symbols[after].previous = at;
            }
            for (left, right) in [(at, after), (previous, at)] {
                if left == NOWHERE {
                    continue;
                }
                self.pair(symbols, left, right);
                let rank = symbols[left].rank;
                if rank != NONE {
                    heap.push(Reverse((rank, left)));
                }
            }
        }
        symbols.retain(|symbol| symbol.id != NONE);
    }
}

/// Cuts a text into words as GPT-2's expression does:
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
pub(super) fn split<'t>(mut text: &'t str, mut word: impl FnMut(&'t str)) {
    while !text.is_empty() {
        let (first, rest) = text.split_at(first_word(text));
        word(first);
        text = rest;
    }
}

/// Length of the first word of a text that is not empty.
fn first_word(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes[0] == b'\'' {
        match bytes[1..] {
            [b's' | b't' | b'm' | b'd', ..] => return 2,
            [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => return 3,
            _ => {}
        }
    }
    let run = |start: usize, kind: Class| {
        let end = text[start..].find(|c| class(c) != kind);
        end.map_or(text.len(), |end| start + end)
    };
    // A space belongs to the word after it.
    let start = usize::from(bytes[0] == b' ');
    let kind = text[start..].chars().next().map_or(Class::Space, class);
    if kind != Class::Space {
        return run(start, kind);
    }
    // White space: all of it at the end of the text, else all but the last character, which
    // belongs to the next word or stands alone.
    let end = run(0, Class::Space);
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    match end == text.len() || last == end {
        true => end,
        false => end - last,
    }
}
