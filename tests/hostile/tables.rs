//! Tokenizer tables, written from `format-spec.md` alone.

use std::collections::BTreeMap;

use crate::build::Model;
use crate::valid::valid;

pub const NONE: u32 = 4_294_967_295;
pub const FIRST: u32 = 4_294_967_295;
pub const SECOND: u32 = 4_294_967_294;

/// The section's fields, and its arrays as they will stand.
#[derive(Clone)]
pub struct Tables {
    pub model: u32,
    pub flags: u32,
    pub id_limit: u32,
    pub unknown: u32,
    pub single: Vec<[u32; 2]>,
    pub pair: Vec<[u32; 2]>,
    pub added: [u32; 2],
    pub entries: u32,
    pub bits: u32,
    pub max_chars: u32,
    pub tail: [u32; 2],
    /// Id, end and flags of each added token.
    pub tokens_added: Vec<[u32; 3]>,
    pub contents: Vec<u8>,
    pub buckets: Vec<u32>,
    pub ends: Vec<u32>,
    pub ids: Vec<u32>,
    pub prefix: Vec<u8>,
    pub tokens: Vec<u8>,
    pub bytes: Vec<u32>,
    pub merges: Vec<[u32; 4]>,
}

impl Tables {
    pub fn encode(&self) -> Vec<u8> {
        let head = [
            self.model,
            self.flags,
            self.id_limit,
            self.unknown,
            self.single.len() as u32,
            self.pair.len() as u32,
            self.added[0],
            self.added[1],
            self.contents.len() as u32,
            self.entries,
            self.bits,
            self.tokens.len() as u32,
            self.prefix.len() as u32,
            self.max_chars,
            self.tail[0],
            self.tail[1],
        ];
        let narrow = self.id_limit <= 65_536 && self.entries <= 65_536;
        let w = |value: u32| match narrow {
            true => (value as u16).to_le_bytes().to_vec(),
            false => value.to_le_bytes().to_vec(),
        };
        let mut out: Vec<u8> = head.iter().flat_map(|v| v.to_le_bytes()).collect();
        let templates = self.single.iter().chain(&self.pair).flatten();
        let words = templates.chain(self.tokens_added.iter().flatten());
        let words = words
            .chain(&self.buckets)
            .chain(&self.ends)
            .chain(&self.bytes);
        out.extend(words.flat_map(|v| v.to_le_bytes()));
        out.extend(self.ids.iter().flat_map(|&v| w(v)));
        out.extend(self.merges.iter().flatten().flat_map(|&v| w(v)));
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&self.tokens);
        out.extend_from_slice(&self.contents);
        out
    }
}

pub fn token_bucket(token: &[u8], bits: u32) -> u32 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for &byte in token {
        h ^= u64::from(byte);
        h = h.wrapping_mul(0x0100_0000_01b3);
    }
    ((h ^ (h >> 32)) % (1 << bits)) as u32
}

fn merge_bucket(left: u32, right: u32, bits: u32) -> u32 {
    let key = (u64::from(left) << 32) + u64::from(right);
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as u32
}

/// Entries by bucket, and where each bucket starts.
fn bucketed<T: Ord>(entries: Vec<(u32, T)>, bits: u32) -> (Vec<u32>, Vec<T>) {
    let mut buckets: BTreeMap<u32, Vec<T>> = BTreeMap::new();
    for (bucket, entry) in entries {
        buckets.entry(bucket).or_default().push(entry);
    }
    let (mut starts, mut sorted) = (Vec::new(), Vec::new());
    for bucket in 0..1 << bits {
        starts.push(sorted.len() as u32);
        let mut entries = buckets.remove(&bucket).unwrap_or_default();
        entries.sort();
        sorted.append(&mut entries);
    }
    starts.push(sorted.len() as u32);
    (starts, sorted)
}

const SPECIAL: [&str; 5] = ["[CLS]", "[MASK]", "[PAD]", "[SEP]", "[UNK]"];
const SPECIAL_IDS: [u32; 5] = [2, 4, 0, 3, 1];

fn plain(model: u32) -> Tables {
    let ends = SPECIAL.iter().scan(0, |end, token| {
        *end += token.len() as u32;
        Some(*end)
    });
    Tables {
        model,
        flags: 0,
        id_limit: 40,
        unknown: 1,
        single: vec![[2, 0], [FIRST, 0], [3, 0]],
        pair: vec![[2, 0], [FIRST, 0], [3, 0], [SECOND, 1], [3, 1]],
        added: [5, 0],
        entries: 0,
        bits: 4,
        max_chars: 0,
        tail: [0; 2],
        tokens_added: SPECIAL_IDS
            .iter()
            .zip(ends)
            .map(|(&id, end)| [id, end, 0])
            .collect(),
        contents: SPECIAL.concat().into_bytes(),
        buckets: Vec::new(),
        ends: Vec::new(),
        ids: Vec::new(),
        prefix: Vec::new(),
        tokens: Vec::new(),
        bytes: Vec::new(),
        merges: Vec::new(),
    }
}

/// The tokens of [`crate::valid::tokenizer`]: five special ones, the letters, nine pieces.
pub fn wordpiece() -> Tables {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(String::from);
    let pieces = ('a'..='i').map(|c| format!("##{c}"));
    let tokens = special.into_iter().chain(letters).chain(pieces).zip(0..);
    let mut tables = plain(1);
    let hashed = tokens.map(|(token, id)| (token_bucket(token.as_bytes(), 4), (token, id)));
    let (buckets, tokens): (_, Vec<(String, u32)>) = bucketed(hashed.collect(), 4);
    tables.flags = 0b1111;
    tables.entries = 40;
    tables.max_chars = 100;
    tables.buckets = buckets;
    for (token, id) in tokens {
        tables.tokens.extend_from_slice(token.as_bytes());
        tables.ends.push(tables.tokens.len() as u32);
        tables.ids.push(id);
    }
    tables.prefix = b"##".to_vec();
    tables
}

/// Bytes `a` to `z`, and `ab`, `abc`, ... by merges; everything else is unknown.
pub fn byte_level() -> Tables {
    let mut tables = plain(2);
    tables.flags = 1 << 5 | 1 << 6;
    tables.bytes = vec![NONE; 256];
    for letter in b'a'..=b'z' {
        tables.bytes[usize::from(letter)] = 5 + u32::from(letter - b'a');
    }
    let merges = (0..9).map(|i| {
        let left = if i == 0 { 5 } else { 30 + i };
        (left, 6 + i, 31 + i, i)
    });
    let hashed = merges.map(|(a, b, c, rank)| (merge_bucket(a, b, 4), [a, b, c, rank]));
    (tables.buckets, tables.merges) = bucketed(hashed.collect(), 4);
    tables.entries = 9;
    tables
}

/// The valid file with these tables for its tokenizer.
pub fn with(tables: &Tables) -> Model {
    let mut model = valid();
    let section = model.only(16);
    section.kind = 18;
    section.bytes = tables.encode();
    model
}
