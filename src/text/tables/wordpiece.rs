//! WordPiece, as in BERT.

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;

use super::byte_level::Width;
use super::layout::{CLEAN_TEXT, Fnv, Head, LOWERCASE, SPLIT_HAN, STRIP_ACCENTS};

/// The tables in place.
pub(super) struct WordPiece<'a, W> {
    pub(super) head: &'a Head,
    pub(super) buckets: &'a [u32],
    /// Where each token ends.
    pub(super) ends: &'a [u32],
    pub(super) ids: &'a [W],
    pub(super) prefix: &'a [u8],
    pub(super) tokens: &'a [u8],
    /// Bytes of the longest token.
    pub(super) longest: usize,
}

/// Memory that is used again for the next word.
#[derive(Default)]
pub(super) struct Scratch {
    /// End in the word, and hash so far, of each start of the rest of a word.
    starts: Vec<(usize, Fnv)>,
}

impl<W: Width> WordPiece<'_, W> {
    /// Appends the tokens of a normalized text without added tokens.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        words(text, |word| self.word(word, scratch, ids));
    }

    /// Appends the longest tokens from left to right, or the unknown token.
    fn word(&self, word: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let most = self.head.max_chars as usize;
        let before = ids.len();
        if word.len() > most && word.chars().count() > most {
            ids.push(self.head.unknown);
            return;
        }
        let mut start = 0;
        while start < word.len() {
            let prefix = if start > 0 { self.prefix } else { &[] };
            match self.longest(prefix, &word[start..], scratch) {
                Some((bytes, id)) => {
                    ids.push(id);
                    start += bytes;
                }
                None => {
                    ids.truncate(before);
                    ids.push(self.head.unknown);
                    return;
                }
            }
        }
    }

    /// The longest token that is `prefix` and a start of `rest`, which is not empty: the bytes of
    /// `rest` in it, and its id.
    fn longest(&self, prefix: &[u8], rest: &str, scratch: &mut Scratch) -> Option<(usize, u32)> {
        let room = self.longest.checked_sub(prefix.len())?;
        let mut hash = Fnv::START.with(prefix);
        scratch.starts.clear();
        for (start, c) in rest.char_indices() {
            let end = start + c.len_utf8();
            if end > room {
                break;
            }
            hash = hash.with(&rest.as_bytes()[start..end]);
            scratch.starts.push((end, hash));
        }
        (scratch.starts.iter().rev()).find_map(|&(end, hash)| {
            let id = self.find(prefix, &rest.as_bytes()[..end], hash)?;
            Some((end, id))
        })
    }

    fn find(&self, prefix: &[u8], rest: &[u8], hash: Fnv) -> Option<u32> {
        let bucket = hash.bucket(self.head.bucket_bits);
        let range = self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize;
        let mut start = match range.start {
            0 => 0,
            first => self.ends[first - 1] as usize,
        };
        for index in range {
            let end = self.ends[index] as usize;
            if end - start == prefix.len() + rest.len() {
                let (a, b) = self.tokens[start..end].split_at(prefix.len());
                if a == prefix && b == rest {
                    return Some(self.ids[index].into());
                }
            }
            start = end;
        }
        None
    }
}

/// Cuts a text at white space, and takes each punctuation character for a word.
fn words<'t>(text: &'t str, mut word: impl FnMut(&'t str)) {
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let (space, end) = (c.is_whitespace(), at + c.len_utf8());
        if space || is_punctuation(c) {
            if start < at {
                word(&text[start..at]);
            }
            if !space {
                word(&text[at..end]);
            }
            start = end;
        }
    }
    if start < text.len() {
        word(&text[start..]);
    }
}

/// What BERT makes of a text before it looks for words, by `flags`. `spare` is for intermediate
/// results.
pub(super) fn normalize(flags: u32, text: &str, spare: &mut String, normal: &mut String) {
    let has = |flag| flags & flag != 0;
    normal.clear();
    let kept = |c: &char| !has(CLEAN_TEXT) || !(*c == '\0' || *c == '\u{fffd}' || is_control(*c));
    let spaced = |c: char| match has(CLEAN_TEXT) && c.is_whitespace() {
        true => ' ',
        false => c,
    };
    if text.is_ascii() {
        normal.extend(text.chars().filter(kept).map(|c| match has(LOWERCASE) {
            true => spaced(c).to_ascii_lowercase(),
            false => spaced(c),
        }));
        return;
    }
    spare.clear();
    for c in text.chars().filter(kept).map(spaced) {
        if has(SPLIT_HAN) && is_han(c) {
            spare.extend([' ', c, ' ']);
        } else {
            spare.push(c);
        }
    }
    let mut push = |c: char| match has(LOWERCASE) {
        true => normal.extend(c.to_lowercase()),
        false => normal.push(c),
    };
    if has(STRIP_ACCENTS) {
        let decomposed = spare.nfd().map(|(c, _)| c);
        decomposed
            .filter(|c| c.is_ascii() || !c.is_mark_nonspacing())
            .for_each(&mut push);
    } else {
        spare.chars().for_each(push);
    }
}

fn is_control(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\0'..='\x7f' => c.is_ascii_control(),
        _ => c.is_other(),
    }
}

fn is_punctuation(c: char) -> bool {
    match c {
        '\0'..='\x7f' => c.is_ascii_punctuation(),
        _ => c.is_punctuation(),
    }
}

/// The blocks of Han characters that BERT knows.
fn is_han(c: char) -> bool {
    matches!(
        c,
        '\u{4e00}'..='\u{9fff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{20000}'..='\u{2a6df}'
            | '\u{2a700}'..='\u{2b73f}'
            | '\u{2b740}'..='\u{2b81f}'
            | '\u{2b920}'..='\u{2ceaf}'
            | '\u{f900}'..='\u{faff}'
            | '\u{2f800}'..='\u{2fa1f}'
    )
}
