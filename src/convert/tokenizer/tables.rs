//! Tokenizer tables for an artifact, compared with the tokenizer that they stand for.

use crate::artifact::{Bytes, StoredTokenizer};
use crate::error::{Error, ErrorKind, Result};
use crate::text::{Tokenizer, Truncation};

/// Texts in which tokenizers differ, if they do: what each step treats in its own way.
const TRICKY: &[&str] = &[
    "",
    " ",
    "\n\n \t",
    "Hello, world! It's 12:30; they've paid $1,234.56 (50%).",
    "  leading and   inner   and trailing  ",
    "we'll I'd you're 's't're've'm'll'd ''s 'S 'LL",
    "tabs\tand\r\nlines\u{b}\u{c}\u{85}\u{a0}\u{2003}\u{3000}end",
    "caf\u{e9} cafe\u{301} na\u{ef}ve \u{c5}ngstr\u{f6}m \u{1e9b}\u{323} \u{344}\u{323}",
    "STRASSE stra\u{df}e \u{130}stanbul \u{3a3}\u{3a3}\u{3c3} \u{1c5} \u{fb01}n \u{2126}",
    "\u{41c}\u{43e}\u{441}\u{43a}\u{432}\u{430} \u{391}\u{3b8}\u{3ae}\u{3bd}\u{3b1} \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{645}\u{631}\u{62d}\u{628}\u{627}",
    "\u{4f60}\u{597d}\u{4e16}\u{754c} \u{65e5}\u{672c}\u{8a9e}\u{306e} \u{d55c}\u{ad6d}\u{c5b4} \u{20000}\u{2f800}\u{f900}",
    "\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940} \u{e44}\u{e17}\u{e22} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{1f1e9}\u{1f1ea} \u{263a}\u{fe0f}",
    "\0nul\u{1}\u{7f}\u{ad}\u{200b}\u{feff}\u{fffd}\u{e000}\u{d7ff}\u{10ffff}\u{378}",
    "\u{2460}\u{bd}\u{b2} \u{661}\u{662}\u{663} \u{2167} 3\u{2044}4",
    "\u{2018}quotes\u{2019} \u{201c}and\u{201d} \u{2014}dashes\u{2013} \u{2026} \u{ab}x\u{bb} \u{bf}que\u{a1}",
    "[CLS] a [SEP][SEP] b [MASK]c [PAD] [UNK] [cls] [ SEP ]",
    "<s> a </s></s> b  <mask> c<mask>\n<pad> <unk> <S> < s >",
    "http://example.com/a_b-c?d=e&f=g#h user@example.com C++ #tag @name __init__",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
];

/// The tokenizer as an artifact stores it: tables where they can express it, else the JSON, with a
/// note that says why.
///
/// # Errors
/// Those of [`Tokenizer::from_json`], and `ErrorKind::Tokenizer` if the tables give other ids than
/// the `tokenizers` crate.
pub(in crate::convert) fn stored(
    json: Vec<u8>,
    notes: &mut Vec<String>,
) -> Result<StoredTokenizer> {
    match Tokenizer::tables(&json)? {
        Ok(section) => {
            let section = Bytes::copy(&section)?;
            compare(&Tokenizer::from_tables(section.clone())?, &json)?;
            Ok(StoredTokenizer::Tables(section))
        }
        Err(reason) => {
            notes.push(format!(
                "the tokenizer stays a tokenizer.json, which opens slowly: {reason}"
            ));
            Ok(StoredTokenizer::Json(Bytes::copy(&json)?))
        }
    }
}

/// Fails where the tables tokenize otherwise than the `tokenizers` crate does by the JSON.
fn compare(tables: &Tokenizer, json: &[u8]) -> Result<()> {
    let reference = Tokenizer::reference(json)?;
    if tables.max_id() != reference.max_id() {
        return Err(differs("the largest id"));
    }
    // Added tokens next to all kinds of neighbours, as the file spells them.
    let added = reference.added_tokens();
    let mixed = added.iter().take(64).flat_map(|token| {
        [
            token.clone(),
            format!("a{token}b"),
            format!("  {token}  {token}\n{token}. "),
            token.to_uppercase(),
        ]
    });
    let lines: Vec<String> = TRICKY
        .iter()
        .map(|&line| line.to_owned())
        .chain(mixed)
        .collect();
    for (i, line) in lines.iter().enumerate() {
        for pair in [None, Some(&*lines[(7 * i + 1) % lines.len()])] {
            for limit in [usize::MAX, 11] {
                let [found, expected] = [tables, &reference].map(|tokenizer| {
                    let most = limit.max(tokenizer.special_tokens(pair.is_some()));
                    tokenizer.encode(line, pair, most, Truncation::Truncate)
                });
                if found? != expected? {
                    return Err(differs(&format!("the ids of {line:?}")));
                }
            }
        }
    }
    Ok(())
}

fn differs(what: &str) -> Error {
    Error::new(
        ErrorKind::Tokenizer,
        format!("tokenizer tables differ from the tokenizers crate in {what}: please report this"),
    )
}
