//! What must hold of a section before anything is encoded: all in one pass over each array.

use super::added::{Added, Index};
use super::byte_level::Width;
use super::layout::{
    Arrays, BYTE_LEVEL, Fnv, Head, LEFT_SPACE, MAX_BUCKET, MAX_TOKEN_BYTES, NONE, RIGHT_SPACE,
    SINGLE_WORD, TEXTS, bad, pair_bucket,
};
use super::{head, typed};
use crate::error::Result;

pub(super) fn layout(bytes: &[u8]) -> Result<(Head, Arrays)> {
    let Some(head) = head(bytes) else {
        return Err(bad(format!("{} bytes are too few", bytes.len())));
    };
    head.check()?;
    let arrays = head.arrays().filter(|a| a.end == bytes.len());
    let Some(arrays) = arrays else {
        return Err(bad(format!(
            "the section's {} bytes are not what its head asks for",
            bytes.len()
        )));
    };
    Ok((head, arrays))
}

/// One of the two sets of added tokens.
pub(super) fn added_set<'a>(
    head: &Head,
    tokens: &'a [[u32; 3]],
    contents: &'a [u8],
    set: usize,
    index: &'a Index,
) -> Added<'a> {
    let (raw, normalized) = tokens.split_at(head.added[0] as usize);
    Added {
        tokens: if set == 0 { raw } else { normalized },
        start: match set {
            0 => 0,
            _ => raw.last().map_or(0, |token| token[1]),
        },
        contents,
        index,
    }
}

pub(super) fn added(head: &Head, arrays: &Arrays, bytes: &[u8]) -> Result<[Index; 2]> {
    let tokens: &[[u32; 3]] = typed(&bytes[arrays.added.clone()]);
    let contents = &bytes[arrays.contents.clone()];
    let mut start = 0;
    let mut previous: Option<&[u8]> = None;
    for (i, &[id, end, flags]) in tokens.iter().enumerate() {
        let what = || format!("added token {i}");
        if id >= head.id_limit {
            return Err(head.id_too_large(&what(), id));
        }
        if flags & !(SINGLE_WORD | LEFT_SPACE | RIGHT_SPACE) != 0 {
            return Err(bad(format!(
                "{}: reserved flag bits are set ({flags:#x})",
                what()
            )));
        }
        let content = contents
            .get(start..end as usize)
            .filter(|c| (1..=MAX_TOKEN_BYTES).contains(&c.len()) && std::str::from_utf8(c).is_ok());
        let Some(content) = content else {
            return Err(bad(format!(
                "{}: bytes {start} to {end} are not 1 to {MAX_TOKEN_BYTES} bytes of UTF-8",
                what()
            )));
        };
        if i == head.added[0] as usize {
            previous = None;
        }
        if previous.is_some_and(|previous| previous >= content) {
            return Err(bad(format!(
                "{} is not greater than the one before it",
                what()
            )));
        }
        previous = Some(content);
        start = end as usize;
    }
    if start != contents.len() {
        return Err(bad(format!(
            "{} bytes after the last added token",
            contents.len() - start
        )));
    }
    let nothing = Index::new(std::iter::empty());
    Ok([0, 1].map(|set| {
        let set = added_set(head, tokens, contents, set, &nothing);
        Index::new((0..set.tokens.len()).map(|i| set.content(i)))
    }))
}

pub(super) fn templates(head: &Head, pieces: &[[u32; 2]]) -> Result<()> {
    let (single, pair) = pieces.split_at(head.single as usize);
    for (name, pieces, texts) in [("single", single, 1), ("pair", pair, 2)] {
        for (which, text) in TEXTS.into_iter().enumerate() {
            let count = pieces.iter().filter(|piece| piece[0] == text).count();
            if count != usize::from(which < texts) {
                return Err(bad(format!(
                    "the template {name} holds text {which} {count} times"
                )));
            }
        }
        for &[id, _] in pieces {
            if id >= head.id_limit && !TEXTS.contains(&id) {
                return Err(head.id_too_large(&format!("a piece of the template {name}"), id));
            }
        }
    }
    Ok(())
}

/// The rest; returns the bytes of the longest token of WordPiece.
pub(super) fn model(head: &Head, arrays: &Arrays, bytes: &[u8]) -> Result<usize> {
    let buckets = typed(&bytes[arrays.buckets.clone()]);
    check_buckets(head, buckets)?;
    let words = typed(&bytes[arrays.words.clone()]);
    let entries = &bytes[arrays.entries.clone()];
    if head.model == BYTE_LEVEL {
        for (byte, &id) in words.iter().enumerate() {
            if id >= head.id_limit && id != NONE {
                return Err(head.id_too_large(&format!("byte {byte}"), id));
            }
        }
        match head.narrow() {
            true => merges::<u16>(head, buckets, typed(entries))?,
            false => merges::<u32>(head, buckets, typed(entries))?,
        }
        return Ok(0);
    }
    match head.narrow() {
        true => ids::<u16>(head, typed(entries))?,
        false => ids::<u32>(head, typed(entries))?,
    }
    tokens(head, buckets, words, &bytes[arrays.tokens.clone()])
}

fn check_buckets(head: &Head, buckets: &[u32]) -> Result<()> {
    let mut previous = 0;
    for (i, &start) in buckets.iter().enumerate() {
        let size = (start as usize).checked_sub(previous);
        if size.is_none_or(|size| size > MAX_BUCKET) || (i == 0 && start != 0) {
            return Err(bad(format!(
                "bucket {i} starts at {start} after {previous}: buckets start at 0, follow each \
                 other and have at most {MAX_BUCKET} entries"
            )));
        }
        previous = start as usize;
    }
    if previous != head.entries as usize {
        return Err(bad(format!(
            "the buckets hold {previous} of {} entries",
            head.entries
        )));
    }
    Ok(())
}

fn merges<W: Width>(head: &Head, buckets: &[u32], merges: &[[W; 4]]) -> Result<()> {
    let mut ranks = vec![0u64; merges.len().div_ceil(64)];
    let mut at = 0;
    for (bucket, &end) in buckets[1..].iter().enumerate() {
        let mut previous = None;
        for merge in &merges[at..end as usize] {
            let [left, right, result, rank] = merge.map(Into::into);
            for id in [left, right, result] {
                if id >= head.id_limit {
                    return Err(head.id_too_large(&format!("merge {at}"), id));
                }
            }
            if pair_bucket(left, right, head.bucket_bits) != bucket {
                return Err(bad(format!("merge {at} is not in the bucket of its hash")));
            }
            if previous >= Some((left, right)) {
                return Err(bad(format!(
                    "merge {at} is not greater than the one before it"
                )));
            }
            previous = Some((left, right));
            let word = ranks.get_mut(rank as usize / 64);
            let bit = 1 << (rank % 64);
            match word.filter(|word| **word & bit == 0 && (rank as usize) < merges.len()) {
                Some(word) => *word |= bit,
                None => {
                    return Err(bad(format!(
                        "merge {at} has the rank {rank}: ranks are less than {} and occur once",
                        merges.len()
                    )));
                }
            }
            at += 1;
        }
    }
    Ok(())
}

fn ids<W: Width>(head: &Head, ids: &[W]) -> Result<()> {
    let largest = ids.iter().fold(0, |largest, &id| largest.max(id.into()));
    match largest < head.id_limit {
        true => Ok(()),
        false => Err(head.id_too_large("a token", largest)),
    }
}

fn tokens(head: &Head, buckets: &[u32], ends: &[u32], bytes: &[u8]) -> Result<usize> {
    let (mut at, mut start, mut longest) = (0, 0, 0);
    for (bucket, &last) in buckets[1..].iter().enumerate() {
        let mut previous: Option<&[u8]> = None;
        for &end in &ends[at..last as usize] {
            let token = bytes.get(start..end as usize);
            let Some(token) = token.filter(|t| (1..=MAX_TOKEN_BYTES).contains(&t.len())) else {
                return Err(bad(format!(
                    "token {at}: bytes {start} to {end} are not 1 to {MAX_TOKEN_BYTES} bytes"
                )));
            };
            if Fnv::START.with(token).bucket(head.bucket_bits) != bucket {
                return Err(bad(format!("token {at} is not in the bucket of its hash")));
            }
            if previous.is_some_and(|previous| previous >= token) {
                return Err(bad(format!(
                    "token {at} is not greater than the one before it"
                )));
            }
            previous = Some(token);
            longest = longest.max(token.len());
            start = end as usize;
            at += 1;
        }
    }
    if start != bytes.len() {
        return Err(bad(format!(
            "{} bytes after the last token",
            bytes.len() - start
        )));
    }
    Ok(longest)
}
