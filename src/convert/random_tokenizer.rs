//! Made-up tokenizers for generated models: the real sizes and special ids, no real vocabulary.
//!
//! The words come from a short list and from syllables, the likelier ones first, so that English
//! text comes to a few characters a token and not to one token a byte.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};

/// Entries of RoBERTa's vocabulary.
pub(crate) const ROBERTA_SIZE: usize = 50_265;
/// Entries of BERT's uncased vocabulary.
pub(crate) const BERT_SIZE: usize = 30_522;

const WORDS: &str = "the of and to a in is it you that he was for on are with as I his they be at \
one have this from or had by not but what all were when we there can an your which their said if \
do will each about how up out them then she many some so these would other into has more her two \
like him see time could no make than first been its who now people my made over did down only way \
find use may water long little very after words called just where most know get through back much \
before go good new write our used me man too any day same right look think also around another \
came come work three word must because does part even place well such here take why things help \
put years different away again off went old number great tell men say small every found still \
between name should home big give air line set own under read last never us left end along while \
might next sound below saw something thought both few those always looked show large often \
together asked house world going want school important until form food keep children feet land \
side without boy once animals life enough took sometimes four head above kind began almost live \
page got earth need far hand high year mother light country father let night picture being study \
second book carry science room friend idea fish mountain north stop base hear horse cut sure watch \
color face wood main movie film story actor scene review best worst love hate bad really music \
funny boring question answer company market government state president city money news report \
model number weight text language computer data system";
const PIECES: &str = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha \
as ou io le ve co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur ing ion ent tion ation er \
ers est ity ly ness less able ment ous ive ful ism ist al ally ance ence ate ated ating ize ized";
const ONSETS: &str = "s t c p b m d f r l h w n g st tr pr br gr cr sp ch sh th pl cl fl bl dr fr v \
j k qu sc str y z";
const NUCLEI: &str = "e a i o u ea ou ai io ee oo ie y au";
const CODAS: &str = "n r s t l d m ng nd nt st p ck c rs ll ss ve ne te re ce ge b g f k x rd rt ld \
sh th ch w";

/// A byte-level BPE tokenizer with exactly `size` entries and RoBERTa's special tokens, as a
/// `tokenizer.json`: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the 256 bytes, then merged
/// tokens, `<mask>` last. No text yields `<unk>`.
///
/// # Errors
///
/// [`ErrorKind::Config`] for a `size` under 261.
pub(crate) fn byte_level_bpe(size: usize) -> Result<Vec<u8>> {
    let mut bpe = Bpe::new();
    if size < bpe.tokens.len() + 1 {
        return Err(too_small(size, bpe.tokens.len() + 1));
    }
    let singles = PIECES.split_whitespace().map(str::to_owned);
    let words = WORDS
        .split_whitespace()
        .flat_map(|w| [format!("\u{120}{w}"), w.to_owned()]);
    let made = syllable_words().flat_map(|w| [format!("\u{120}{w}"), w]);
    for word in singles.chain(words).chain(made) {
        if !bpe.learn(&word, size - 1) {
            break;
        }
    }
    bpe.tokens.push("<mask>".to_owned());

    let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
    let added = added_tokens(&special, &bpe.tokens, |name| name == "<mask>");
    let step = |prefix: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true,
        })
    };
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": step(false),
        "post_processor": {
            "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
            "trim_offsets": true, "add_prefix_space": false,
        },
        "decoder": step(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": numbered(&bpe.tokens),
            "merges": bpe.merges,
        },
    });
    Ok(json.to_string().into_bytes())
}

/// A lowercasing WordPiece tokenizer with exactly `size` entries and BERT's special tokens, as a
/// `tokenizer.json`: `[PAD]` 0, `[UNK]` 100, `[CLS]` 101, `[SEP]` 102, `[MASK]` 103.
///
/// ASCII words are never `[UNK]`, save those of over 100 letters, which BERT does not look at.
///
/// # Errors
///
/// [`ErrorKind::Config`] for a `size` that does not hold the ASCII characters.
pub(crate) fn wordpiece(size: usize) -> Result<Vec<u8>> {
    let mut tokens = vec!["[PAD]".to_owned()];
    tokens.extend((0..99).map(|i| format!("[unused{i}]")));
    tokens.extend(["[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned));
    let ascii = || ('!'..='~').filter(|c| !c.is_ascii_uppercase());
    tokens.extend(ascii().map(String::from));
    tokens.extend(
        ascii()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| format!("##{c}")),
    );
    if size < tokens.len() {
        return Err(too_small(size, tokens.len()));
    }

    // Latin, Greek, Cyrillic, Hebrew, Arabic, punctuation, kana, and the start of the Han block.
    let ranges = [
        ('\u{a1}', '\u{ff}'),
        ('\u{3b1}', '\u{3c9}'),
        ('\u{430}', '\u{45f}'),
        ('\u{5d0}', '\u{5ea}'),
        ('\u{620}', '\u{64a}'),
        ('\u{2010}', '\u{2026}'),
        ('\u{3041}', '\u{3093}'),
        ('\u{30a1}', '\u{30f3}'),
        ('\u{4e00}', '\u{4eff}'),
    ];
    let letters = ranges
        .into_iter()
        .flat_map(|(first, last)| first..=last)
        .filter(|c| !c.is_uppercase())
        .flat_map(|c| [c.to_string(), format!("##{c}")]);
    let pieces = PIECES
        .split_whitespace()
        .flat_map(|p| [format!("##{p}"), p.to_owned()]);
    let words = WORDS.split_whitespace().map(str::to_lowercase);
    let made = syllable_words().flat_map(|w| [w.clone(), format!("##{w}")]);
    let mut known: HashSet<String> = tokens.iter().cloned().collect();
    for token in letters.chain(pieces).chain(words).chain(made) {
        if tokens.len() == size {
            break;
        }
        if known.insert(token.clone()) {
            tokens.push(token);
        }
    }

    let special =
        |name: &str, type_id: u32| json!({"SpecialToken": {"id": name, "type_id": type_id}});
    let part = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&names, &tokens, |_| false),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), part("A", 0), special("[SEP]", 0)],
            "pair": [
                special("[CLS]", 0), part("A", 0), special("[SEP]", 0),
                part("B", 1), special("[SEP]", 1),
            ],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [102], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": numbered(&tokens),
        },
    });
    Ok(json.to_string().into_bytes())
}

/// The character that stands for each byte in a byte-level vocabulary, in GPT-2's order: printable
/// bytes are themselves and come first, the others count up from U+0100.
pub(super) fn byte_symbols() -> [char; 256] {
    let mut symbols = ['\0'; 256];
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = ('\u{100}'..).take(256);
    let listed = (0..=255).filter(|&b| printable(b)).map(char::from);
    let rest = (0..=255)
        .filter(|&b| !printable(b))
        .zip(others)
        .map(|(_, c)| c);
    for (symbol, c) in symbols.iter_mut().zip(listed.chain(rest)) {
        *symbol = c;
    }
    symbols
}

/// A growing BPE vocabulary.
struct Bpe {
    tokens: Vec<String>,
    ids: HashMap<String, usize>,
    merges: Vec<String>,
    /// Rank and result of a merge.
    ranks: HashMap<(usize, usize), (usize, usize)>,
}

impl Bpe {
    fn new() -> Self {
        let special = ["<s>", "<pad>", "</s>", "<unk>"].map(str::to_owned);
        let tokens: Vec<String> = special
            .into_iter()
            .chain(byte_symbols().map(String::from))
            .collect();
        let ids = tokens.iter().cloned().zip(0..).collect();
        Self {
            tokens,
            ids,
            merges: Vec::new(),
            ranks: HashMap::new(),
        }
    }

    /// Adds merges until `word` is one token; false once there are `limit` tokens.
    fn learn(&mut self, word: &str, limit: usize) -> bool {
        let mut parts = self.split(word);
        while let [a, b, ..] = parts[..] {
            if self.tokens.len() >= limit {
                return false;
            }
            let joined = format!("{}{}", self.tokens[a], self.tokens[b]);
            // Where the token exists by another pair, this is one more way to it.
            let id = *self.ids.entry(joined).or_insert_with_key(|joined| {
                self.tokens.push(joined.clone());
                self.tokens.len() - 1
            });
            self.ranks.insert((a, b), (self.merges.len(), id));
            self.merges
                .push(format!("{} {}", self.tokens[a], self.tokens[b]));
            parts = self.split(word);
        }
        true
    }

    /// What the tokenizer makes of `word` with the merges so far.
    fn split(&self, word: &str) -> Vec<usize> {
        let mut buffer = [0; 4];
        let mut parts: Vec<usize> = word
            .chars()
            .map(|c| self.ids[&*c.encode_utf8(&mut buffer)])
            .collect();
        while let Some((_, id, at)) = parts
            .windows(2)
            .enumerate()
            .filter_map(|(at, pair)| {
                let &(rank, id) = self.ranks.get(&(pair[0], pair[1]))?;
                Some((rank, id, at))
            })
            .min()
        {
            parts[at] = id;
            parts.remove(at + 1);
        }
        parts
    }
}

/// Endless made-up words, from likely syllables to unlikely, then of more syllables.
fn syllable_words() -> impl Iterator<Item = String> {
    let syllables = syllables();
    let count = syllables.len();
    let more = syllables.clone();
    syllables.into_iter().chain((0usize..).map(move |i| {
        // Number 0, 1, 2... in base `count`, shortest first, with at least two digits.
        let mut word = String::new();
        let mut rest = i;
        word.push_str(&more[rest % count]);
        rest /= count;
        loop {
            word.push_str(&more[rest % count]);
            rest /= count;
            if rest == 0 {
                return word;
            }
            rest -= 1;
        }
    }))
}

/// Onset, nucleus and coda in the order of the sum of their ranks.
fn syllables() -> Vec<String> {
    let mut all = Vec::new();
    for (i, onset) in ONSETS.split_whitespace().enumerate() {
        for (j, nucleus) in NUCLEI.split_whitespace().enumerate() {
            all.push((i + 2 * j, format!("{onset}{nucleus}")));
            for (k, coda) in CODAS.split_whitespace().enumerate() {
                all.push((i + 2 * j + k + 1, format!("{onset}{nucleus}{coda}")));
            }
        }
    }
    all.sort_by_key(|(rank, _)| *rank);
    all.into_iter().map(|(_, syllable)| syllable).collect()
}

fn numbered(tokens: &[String]) -> Map<String, Value> {
    tokens
        .iter()
        .cloned()
        .zip((0..).map(|i: usize| json!(i)))
        .collect()
}

fn added_tokens(special: &[&str], tokens: &[String], lstrip: impl Fn(&str) -> bool) -> Vec<Value> {
    special
        .iter()
        .map(|&name| {
            json!({
                "id": tokens.iter().position(|t| t == name),
                "content": name, "single_word": false, "lstrip": lstrip(name), "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect()
}

fn too_small(size: usize, least: usize) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("a vocabulary of {size} is too small: at least {least}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Tokenizer, Truncation};

    const TEXT: &str = "The quick brown fox jumps over the lazy dog, and nobody in the audience \
        of this wonderful film was surprised by its unlikely ending.";

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let encoded = tokenizer.encode(text, None, 1 << 20, Truncation::Error);
        encoded.unwrap().ids
    }

    #[test]
    fn byte_level_has_robertas_size_and_special_ids() {
        let json = byte_level_bpe(ROBERTA_SIZE).unwrap();
        assert!(json.len() < 1_400_000);
        assert_eq!(json, byte_level_bpe(ROBERTA_SIZE).unwrap());
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        assert_eq!(tokenizer.max_id() as usize, ROBERTA_SIZE - 1);
        assert_eq!(ids(&tokenizer, ""), [0, 2]);
        assert_eq!(
            ids(&tokenizer, "<s><pad></s><unk><mask>"),
            [0, 0, 1, 2, 3, 50264, 2]
        );
        let tokens = ids(&tokenizer, TEXT).len();
        assert!(tokens < TEXT.len() / 2);
        let every_char: String = ('\0'..'\u{3000}').collect();
        assert!(!ids(&tokenizer, &every_char).contains(&3));
    }

    #[test]
    fn wordpiece_has_berts_size_and_special_ids() {
        let json = wordpiece(BERT_SIZE).unwrap();
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        assert_eq!(tokenizer.max_id() as usize, BERT_SIZE - 1);
        assert_eq!(ids(&tokenizer, "[PAD][UNK][MASK]"), [101, 0, 100, 103, 102]);
        let tokens = ids(&tokenizer, TEXT).len();
        assert!(tokens < TEXT.len() / 2);
        for a in '\0'..='\x7f' {
            for b in '\0'..='\x7f' {
                assert!(
                    !ids(&tokenizer, &format!("{a}{b} {b}{a}q")).contains(&100),
                    "{a:?}{b:?}"
                );
            }
        }
        assert_eq!(ids(&tokenizer, "\u{1f642}"), [101, 100, 102]);
    }

    #[test]
    fn any_size_is_exact() {
        for size in [261, 262, 300, 1000, 70_000] {
            let tokenizer = Tokenizer::from_json(&byte_level_bpe(size).unwrap()).unwrap();
            assert_eq!(tokenizer.max_id() as usize, size - 1);
            assert!(ids(&tokenizer, TEXT).iter().all(|&id| (id as usize) < size));
        }
        for size in [208, 1000, 40_000] {
            let tokenizer = Tokenizer::from_json(&wordpiece(size).unwrap()).unwrap();
            assert_eq!(tokenizer.max_id() as usize, size - 1);
        }
        for error in [
            byte_level_bpe(260).unwrap_err(),
            wordpiece(207).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
