//! Writing a section of tokenizer tables.

use bytemuck::{Zeroable, cast_slice};

use super::layout::{
    BYTE_LEVEL, Fnv, Head, MAX_BUCKET, MAX_BUCKET_BITS, NONE, WORDPIECE, bad, pair_bucket,
};
use super::{Tables, wordpiece};
use crate::artifact::Bytes;
use crate::error::Result;

/// All that a section says.
pub(crate) struct Spec {
    pub(crate) flags: u32,
    /// Every id is less than this.
    pub(crate) id_limit: u32,
    pub(crate) unknown: Option<u32>,
    /// Ids or [`TEXTS`](super::TEXTS), and their types.
    pub(crate) single: Vec<[u32; 2]>,
    pub(crate) pair: Vec<[u32; 2]>,
    pub(crate) added: Vec<AddedToken>,
    pub(crate) model: Model,
}

pub(crate) struct AddedToken {
    pub(crate) content: String,
    pub(crate) id: u32,
    pub(crate) flags: u32,
    /// Found in normalized text, and not before.
    pub(crate) normalized: bool,
}

pub(crate) enum Model {
    WordPiece {
        prefix: String,
        max_chars: u32,
        tokens: Vec<(String, u32)>,
    },
    ByteLevel {
        bytes: Box<[u32; 256]>,
        /// Left, right and result, each pair once, in the order of their ranks.
        merges: Vec<[u32; 3]>,
    },
}

/// The section's bytes, which [`Tables::new`] accepts.
///
/// # Errors
/// Where the tables have no room for what `spec` says.
pub(crate) fn build(spec: Spec) -> Result<Vec<u8>> {
    let mut added = spec.added;
    let (mut spare, mut normal) = (String::new(), String::new());
    for token in &mut added {
        if token.normalized && matches!(spec.model, Model::WordPiece { .. }) {
            wordpiece::normalize(spec.flags, &token.content, &mut spare, &mut normal);
            token.content.clone_from(&normal);
        }
    }
    added.sort_by(|a, b| (a.normalized, &a.content).cmp(&(b.normalized, &b.content)));

    let mut head = Head {
        flags: spec.flags,
        id_limit: spec.id_limit,
        unknown: spec.unknown.unwrap_or(NONE),
        single: number(spec.single.len())?,
        pair: number(spec.pair.len())?,
        added: [false, true].map(|n| added.iter().filter(|a| a.normalized == n).count() as u32),
        added_bytes: number(added.iter().map(|a| a.content.len()).sum())?,
        ..Head::zeroed()
    };
    let mut out = Vec::new();
    out.extend_from_slice(cast_slice(&spec.single));
    out.extend_from_slice(cast_slice(&spec.pair));
    let mut end = 0;
    for token in &added {
        end += token.content.len() as u32;
        out.extend_from_slice(cast_slice(&[token.id, end, token.flags]));
    }
    match spec.model {
        Model::WordPiece {
            prefix,
            max_chars,
            tokens,
        } => {
            head.model = WORDPIECE;
            head.entries = number(tokens.len())?;
            head.max_chars = max_chars;
            head.prefix_bytes = number(prefix.len())?;
            head.token_bytes = number(tokens.iter().map(|(token, _)| token.len()).sum())?;
            let hash = |token: &str| Fnv::START.with(token.as_bytes());
            let (bits, buckets, tokens) =
                sort(tokens, |(token, _), bits| hash(token).bucket(bits))?;
            head.bucket_bits = bits;
            out.extend_from_slice(cast_slice(&buckets));
            let mut end = 0;
            for (token, _) in &tokens {
                end += token.len() as u32;
                out.extend_from_slice(&end.to_le_bytes());
            }
            numbers(&mut out, tokens.iter().map(|(_, id)| *id), head.narrow());
            out.extend_from_slice(prefix.as_bytes());
            tokens
                .iter()
                .for_each(|(token, _)| out.extend_from_slice(token.as_bytes()));
        }
        Model::ByteLevel { bytes, merges } => {
            head.model = BYTE_LEVEL;
            head.entries = number(merges.len())?;
            let ranked = merges
                .iter()
                .zip(0..)
                .map(|(&[a, b, c], rank)| [a, b, c, rank])
                .collect();
            let (bits, buckets, merges) = sort(ranked, |&[a, b, ..]: &[u32; 4], bits| {
                pair_bucket(a, b, bits)
            })?;
            head.bucket_bits = bits;
            out.extend_from_slice(cast_slice(&buckets));
            out.extend_from_slice(cast_slice(&bytes[..]));
            numbers(&mut out, merges.into_iter().flatten(), head.narrow());
        }
    }
    added
        .iter()
        .for_each(|token| out.extend_from_slice(token.content.as_bytes()));
    let mut section = bytemuck::bytes_of(&head).to_vec();
    section.append(&mut out);
    // What a reader would refuse must not be written.
    Tables::new(Bytes::copy(&section)?)?;
    Ok(section)
}

fn number(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(|_| bad(format!("{count} bytes or entries are too many")))
}

fn numbers(out: &mut Vec<u8>, values: impl Iterator<Item = u32>, narrow: bool) {
    for value in values {
        match narrow {
            true => out.extend_from_slice(&(value as u16).to_le_bytes()),
            false => out.extend_from_slice(&value.to_le_bytes()),
        }
    }
}

/// Sorts entries into about a quarter as many buckets: the number of buckets as a power of two,
/// where each starts, and the entries.
fn sort<T: Ord>(
    mut entries: Vec<T>,
    bucket: impl Fn(&T, u32) -> usize,
) -> Result<(u32, Vec<u32>, Vec<T>)> {
    let bits = entries
        .len()
        .div_ceil(4)
        .next_power_of_two()
        .trailing_zeros();
    let bits = bits.clamp(1, MAX_BUCKET_BITS);
    // Buckets that are still too large with eight times as many are not an accident.
    for bits in bits..=MAX_BUCKET_BITS.min(bits + 3) {
        let mut starts = vec![0u32; (1 << bits) + 1];
        for entry in &entries {
            starts[bucket(entry, bits) + 1] += 1;
        }
        if starts.iter().all(|&size| size as usize <= MAX_BUCKET) {
            for i in 1..starts.len() {
                starts[i] += starts[i - 1];
            }
            entries.sort_by_cached_key(|entry| bucket(entry, bits));
            for range in starts.windows(2) {
                entries[range[0] as usize..range[1] as usize].sort();
            }
            return Ok((bits, starts, entries));
        }
    }
    Err(bad("too many entries have the same hash"))
}
