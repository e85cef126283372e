//! The tables against the `tokenizers` crate, id for id.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::convert::random_tokenizer;
use crate::convert::tokenizer::collect;
use crate::models::encoder::Family;

fn root(part: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(part)
}

/// A tokenizer by its tables and by the crate.
struct Both {
    tables: Tokenizer,
    reference: Tokenizer,
}

impl Both {
    fn new(json: &[u8]) -> Self {
        let section = Tokenizer::tables(json).unwrap().unwrap();
        let tables = Tokenizer::from_tables(Bytes::copy(&section).unwrap()).unwrap();
        let reference = Tokenizer::reference(json).unwrap();
        assert_eq!(tables.max_id(), reference.max_id());
        Self { tables, reference }
    }

    fn of(json: &Value) -> Self {
        Self::new(json.to_string().as_bytes())
    }

    fn agree(&self, text: &str, pair: Option<&str>, limit: usize) {
        let [found, expected] = [&self.tables, &self.reference]
            .map(|t| t.encode(text, pair, limit, Truncation::Truncate).unwrap());
        assert!(
            found == expected,
            "{text:?} + {pair:?} at {limit}:\n{:?}\n{:?}",
            found.ids,
            expected.ids
        );
    }
}

/// BERT's tokenizer with these switches, over the vocabulary of a generated model.
fn bert(clean: bool, han: bool, accents: Option<bool>, lowercase: bool) -> Value {
    let mut json = generated(&random_tokenizer::wordpiece(4000).unwrap());
    json["normalizer"] = json!({
        "type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": han,
        "strip_accents": accents, "lowercase": lowercase,
    });
    json
}

fn generated(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

fn roberta(prefix: bool, words: bool) -> Value {
    let mut json = generated(&random_tokenizer::byte_level_bpe(6000).unwrap());
    json["pre_tokenizer"]["add_prefix_space"] = json!(prefix);
    json["pre_tokenizer"]["use_regex"] = json!(words);
    json
}

/// Adds tokens with every combination of switches, some within others.
fn with_added_tokens(mut json: Value) -> Value {
    let contents = [
        "<x>",
        "Wörd",
        "new token",
        "<x><x>",
        " sp",
        "é",
        "\u{4f60}",
        "Aa",
        "\t",
    ];
    let mut next = json["model"]["vocab"].as_object().unwrap().len();
    for (i, content) in contents.iter().enumerate() {
        let known = json["model"]["vocab"].get(content).cloned();
        let id = known.unwrap_or_else(|| {
            next += 1;
            json!(next - 1)
        });
        let normalized = [0, 1, 3, 5, 7].contains(&i);
        json["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": id, "content": content, "single_word": i % 3 == 1, "lstrip": i & 1 != 0,
            "rstrip": i & 2 != 0, "normalized": normalized, "special": i == 2,
        }));
    }
    json
}

fn every_kind() -> Vec<Both> {
    let mut kinds = Vec::new();
    for (clean, han, accents, lowercase) in [
        (true, true, None, true),
        (true, true, None, false),
        (false, false, Some(true), false),
        (false, true, Some(false), true),
        (true, false, Some(true), true),
    ] {
        kinds.push(bert(clean, han, accents, lowercase));
        kinds.push(with_added_tokens(bert(clean, han, accents, lowercase)));
    }
    let mut plain = bert(true, true, None, true);
    plain["normalizer"] = Value::Null;
    plain["post_processor"] = Value::Null;
    plain["model"]["max_input_chars_per_word"] = json!(7);
    plain["model"]["continuing_subword_prefix"] = json!("a");
    kinds.push(plain);
    for (prefix, words) in [(false, true), (true, true), (true, false)] {
        kinds.push(roberta(prefix, words));
        kinds.push(with_added_tokens(roberta(prefix, words)));
    }
    // Bytes that are not in the vocabulary: dropped, unknown, or unknown together.
    for (unknown, fuse) in [
        (Value::Null, false),
        (json!("<unk>"), false),
        (json!("<unk>"), true),
    ] {
        let mut lacking = roberta(false, true);
        for missing in ["\u{c3}", "\u{e2}", "\u{122}", "q"] {
            lacking["model"]["vocab"]
                .as_object_mut()
                .unwrap()
                .remove(missing);
        }
        let vocab = lacking["model"]["vocab"].as_object().unwrap().clone();
        let whole = |merge: &Value| {
            let (a, b) = merge.as_str().unwrap().split_once(' ').unwrap();
            [a.to_owned(), b.to_owned(), format!("{a}{b}")]
                .iter()
                .all(|t| vocab.contains_key(t))
        };
        lacking["model"]["merges"]
            .as_array_mut()
            .unwrap()
            .retain(whole);
        lacking["model"]["unk_token"] = unknown;
        lacking["model"]["fuse_unk"] = json!(fuse);
        kinds.push(lacking);
    }
    // Ids that take four bytes.
    for mut wide in [bert(true, true, None, true), roberta(false, true)] {
        wide["model"]["vocab"]["far away"] = json!(70_000);
        kinds.push(wide);
    }
    kinds.iter().map(Both::of).collect()
}

#[test]
fn every_character_alone_and_between_others() {
    let kinds = every_kind();
    let every: Vec<char> = ('\0'..=char::MAX).collect();
    // Characters that no encoding tells apart from their neighbours come in the thousands.
    let chosen = every
        .iter()
        .filter(|&&c| c < '\u{3400}' || (c as u32).is_multiple_of(13));
    let chosen: Vec<char> = chosen.copied().collect();
    for (i, chunk) in chosen.chunks(64).enumerate() {
        let apart: String = chunk
            .iter()
            .flat_map(|&c| ['a', c, 'b', ' ', c, '1', c, ' '])
            .collect();
        let together: String = chunk.iter().collect();
        for (j, both) in kinds.iter().enumerate() {
            // Each chunk meets a third of the kinds.
            if (i + j) % 3 == 0 {
                both.agree(&apart, None, usize::MAX);
                both.agree(&together, None, usize::MAX);
            }
        }
    }
}

#[test]
fn pairs_are_cut_alike() {
    let texts = [
        "",
        "one",
        "two three",
        "a longer text of some eight or nine words",
    ];
    for both in every_kind() {
        for a in texts {
            for b in texts {
                for limit in 4..24 {
                    both.agree(a, Some(b), limit);
                    both.agree(a, None, limit);
                }
            }
        }
    }
}

/// One of the things that tokenizers treat in their own way.
fn morsel() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        "\0",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "\u{200b}",
        "\u{200d}",
        "\u{fe0f}",
        "\u{ad}",
        "\u{fffd}",
        "\u{301}",
        "\u{323}",
        "\u{344}",
        "\u{f73}",
        "\u{1f468}",
        "\u{1f3fd}",
        "\u{1f1e9}",
        "\u{4f60}",
        "\u{3042}",
        "\u{ac00}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{10ffff}",
        "\u{378}",
        "\u{130}",
        "\u{df}",
        "\u{1c5}",
        "\u{fb03}",
        "\u{2167}",
        "\u{660}",
        "'",
        "'s",
        "'ll",
        "'LL",
        "'re",
        ".",
        "...",
        "##",
        "#",
        "_",
        "<",
        ">",
        "[",
        "]",
        "<s>",
        "</s>",
        "<mask>",
        "<x>",
        "<x><x>",
        "W\u{f6}rd",
        "w\u{f6}rd",
        "new token",
        " sp",
        "Aa",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[mask]",
        "the",
        "The",
        "ing",
        "qu",
        "\u{e9}",
        "\u{c9}",
        "1",
        "23",
    ]);
    prop_oneof![
        6 => fixed.prop_map(str::to_owned),
        2 => "[a-zA-Z]{1,12}",
        1 => any::<char>().prop_map(String::from),
        1 => "\\PC{1,4}",
        1 => "[ -~]{1,8}",
        1 => (prop::sample::select(vec!["a", "ab", "th", "!", " ", "\u{e9}", "9"]), 1usize..400)
            .prop_map(|(part, times)| part.repeat(times)),
    ]
}

#[test]
fn hostile_texts() {
    let kinds = every_kind();
    let texts = prop::collection::vec(morsel(), 0..24).prop_map(|parts| parts.concat());
    let config = ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(text in texts, which in 0..kinds.len())| {
        kinds[which].agree(&text, None, usize::MAX);
        kinds[(which + 7) % kinds.len()].agree(&text, None, usize::MAX);
    });
}

#[test]
fn long_words_and_long_runs() {
    let letters = "abcdefghijklmnopqrstuvwxyzthequickbrownfox";
    let mixed: String = letters.chars().cycle().take(5000).collect();
    let mut texts = vec![mixed];
    for part in [
        "a",
        "th",
        " ",
        "\n",
        "!",
        "\u{4f60}",
        "\u{301}",
        "\u{1f642}",
        "<s>",
        "é ",
    ] {
        texts.push(part.repeat(3000));
        texts.push(format!("x{}y", part.repeat(3000)));
    }
    // Words around the length from which merges are queued, and those that WordPiece skips.
    texts.extend((40..120).map(|n| letters.chars().cycle().skip(n).take(n).collect()));
    for both in every_kind() {
        texts
            .iter()
            .for_each(|text| both.agree(text, None, usize::MAX));
    }
}

/// Texts without end must not take quadratic time; this would not come back if they did.
#[test]
fn a_megabyte_without_a_space() {
    let both = [roberta(false, true), bert(true, true, None, true)].map(|json| Both::of(&json));
    for part in [
        "a", "th", "sthe", "!", " ", "\u{e9}", "\u{4f60}", "\u{301}", "<mask>", "[MASK]",
    ] {
        let text = part.repeat((1 << 20) / part.len());
        for both in &both {
            let encoded = both
                .tables
                .encode(&text, None, 8, Truncation::Truncate)
                .unwrap();
            assert_eq!(encoded.tokens, 8.min(encoded.original_tokens));
        }
    }
}

/// Added tokens of white space that take the white space around them.
#[test]
fn added_tokens_of_white_space() {
    for (left, right) in [(false, true), (true, false), (true, true)] {
        let mut json = roberta(false, true);
        let next = json["model"]["vocab"].as_object().unwrap().len();
        for (i, content) in [" ", "\t\t", " a"].iter().enumerate() {
            json["added_tokens"].as_array_mut().unwrap().push(json!({
                "id": next + i, "content": content, "lstrip": left, "rstrip": right,
                "single_word": i == 1, "normalized": false, "special": true,
            }));
        }
        let both = Both::of(&json);
        let mut texts = vec![
            "  a".to_owned(),
            " \t\t b\t\t\tc ".into(),
            "a \ta  a".into(),
        ];
        for (a, b) in [(" ", "a"), ("\t", " "), ("\t\t", "b "), ("  ", "\n")] {
            texts.extend((0..5).map(|n| format!("{}{}{}", a.repeat(n), b, a)));
        }
        for text in texts {
            // Of tokens that lie in space already taken the crate may make a panic.
            let text = &*text;
            let expected = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                both.reference
                    .encode(text, None, 99, Truncation::Truncate)
                    .unwrap()
            }));
            let found = both
                .tables
                .encode(text, None, 99, Truncation::Truncate)
                .unwrap();
            if let Ok(expected) = expected {
                assert_eq!(found, expected, "{text:?}");
            }
        }
        let spaces = " ".repeat(1 << 20);
        let encoded = both
            .tables
            .encode(&spaces, None, 8, Truncation::Truncate)
            .unwrap();
        assert!(encoded.original_tokens > 2);
    }
}

/// Real sentences, real vocabularies. Without `tools/setup` there is nothing to compare.
#[test]
fn reviews() {
    let mut kinds = vec![
        Both::new(&random_tokenizer::byte_level_bpe(random_tokenizer::ROBERTA_SIZE).unwrap()),
        Both::new(&random_tokenizer::wordpiece(random_tokenizer::BERT_SIZE).unwrap()),
    ];
    if let Ok(json) = std::fs::read(root(".cache/minilm-l6-v2/tokenizer.json")) {
        kinds.push(Both::new(&json));
    }
    if root(".cache/gpt2-bpe/vocab.json").exists() {
        kinds.push(Both::new(&gpt2()));
    }
    for file in [
        "movie.tsv",
        "amazon.txt",
        "nyt.txt",
        "tweets.txt",
        "heldout.txt",
    ] {
        let lines = std::fs::read_to_string(root(".cache/reviews").join(file)).unwrap_or_default();
        for line in lines.lines() {
            kinds.iter().for_each(|both| both.agree(line, None, 512));
        }
    }
}

/// The vocabulary of GPT-2 in RoBERTa's frame.
fn gpt2() -> Vec<u8> {
    collect(&root(".cache/gpt2-bpe"), Family::Roberta)
        .unwrap()
        .json
}
