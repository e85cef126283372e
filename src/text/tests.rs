use serde_json::{Value, json};

use super::*;

#[cfg(feature = "convert")]
const NO_LIMIT: usize = usize::MAX;

/// A WordPiece tokenizer of a few words.
fn small() -> Value {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 3}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
                       "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "one": 4, "##s": 5, "two": 6}},
    })
}

fn load(json: &Value) -> Result<Tokenizer> {
    Tokenizer::from_json(json.to_string().as_bytes())
}

#[test]
fn truncation_and_padding_of_the_file_have_no_effect() {
    let tokenizer = load(&small()).unwrap();
    let encoded = tokenizer
        .encode("One ones two", None, 6, Truncation::Error)
        .unwrap();
    assert_eq!(encoded.ids, [2, 4, 4, 5, 6, 3]);
    assert_eq!((encoded.tokens, encoded.original_tokens), (6, 6));
    assert!(!encoded.truncated);
    let empty = tokenizer.encode("", None, 2, Truncation::Error).unwrap();
    assert_eq!(empty.ids, [2, 3]);
}

#[test]
fn a_text_over_the_limit_is_refused_or_cut() {
    let tokenizer = load(&small()).unwrap();
    let error = tokenizer
        .encode("one one one", None, 4, Truncation::Error)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong);
    assert_eq!(error.to_string(), "the text has 5 tokens, the limit is 4");
    let cut = tokenizer
        .encode("one one one", None, 4, Truncation::Truncate)
        .unwrap();
    assert_eq!(cut.ids, [2, 4, 4, 3]);
    assert_eq!(
        (cut.tokens, cut.original_tokens, cut.truncated),
        (4, 5, true)
    );
    let bare = tokenizer
        .encode("one", None, 2, Truncation::Truncate)
        .unwrap();
    assert_eq!(bare.ids, [2, 3]);
}

#[test]
fn a_limit_below_the_special_tokens_is_an_error() {
    let tokenizer = load(&small()).unwrap();
    for policy in [Truncation::Error, Truncation::Truncate] {
        for (pair, limit) in [(None, 0), (None, 1), (Some(""), 2)] {
            let error = tokenizer.encode("", pair, limit, policy).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
    }
}

#[test]
fn a_long_pair_is_cut_in_linear_time() {
    let tokenizer = load(&small()).unwrap();
    let long = "one ".repeat(50_000);
    let encoded = tokenizer
        .encode(&long, Some(&long), 8, Truncation::Truncate)
        .unwrap();
    assert_eq!(encoded.ids, [2, 4, 4, 3, 4, 4, 4, 3]);
    assert_eq!(encoded.type_ids, [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(encoded.original_tokens, 100_003);
}

#[test]
fn without_a_post_processor_the_second_text_has_type_1() {
    let mut json = small();
    json["post_processor"] = Value::Null;
    let tokenizer = load(&json).unwrap();
    let encoded = tokenizer
        .encode("one", Some("two"), 2, Truncation::Error)
        .unwrap();
    assert_eq!((encoded.ids, encoded.type_ids), (vec![4, 6], vec![0, 1]));
}

#[test]
fn the_largest_id_is_of_vocabulary_added_or_special_tokens() {
    let tokenizer = load(&small()).unwrap();
    assert_eq!(tokenizer.max_id(), 6);
    let mut json = small();
    json["model"]["vocab"]["gap"] = json!(90);
    json["post_processor"]["cls"] = json!(["[CLS]", 300]);
    let added = json!({"id": 8, "content": "new", "special": false});
    json["added_tokens"].as_array_mut().unwrap().push(added);
    let tokenizer = load(&json).unwrap();
    assert_eq!(tokenizer.max_id(), 300);
}

#[test]
fn a_batch_keeps_its_order_and_names_the_first_bad_text() {
    let tokenizer = load(&small()).unwrap();
    let texts: Vec<String> = (0..200).map(|n| "two ".repeat(n % 7)).collect();
    let alone: Vec<Encoded> = texts
        .iter()
        .map(|t| tokenizer.encode(t, None, 9, Truncation::Error).unwrap())
        .collect();
    let run = |limit| tokenizer.encode_batch(&texts, limit, Truncation::Error);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    assert_eq!(run(9).unwrap(), alone);
    assert_eq!(pool.install(|| run(9)).unwrap(), alone);
    let error = pool.install(|| run(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong);
    assert_eq!(
        error.to_string(),
        "text 4: the text has 6 tokens, the limit is 5"
    );
    let pairs = tokenizer
        .encode_pairs(&[("one", "two"), ("two", "")], 9, Truncation::Error)
        .unwrap();
    assert_eq!(pairs[0].ids, [2, 4, 3, 6, 3]);
    assert_eq!(pairs[1].ids, [2, 6, 3, 3]);
}

/// A post-processor with two of them, each of which would be fine.
fn two_templates(nested: bool) -> Value {
    let piece = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let template = json!({"type": "TemplateProcessing", "single": [piece("A")],
        "pair": [piece("A"), piece("B")], "special_tokens": {}});
    let second = match nested {
        true => json!({"type": "Sequence", "processors": [template]}),
        false => template.clone(),
    };
    json!({"type": "Sequence", "processors": [template, second]})
}

/// Each of these, unchecked, panics in the `tokenizers` crate or is silently put right.
#[test]
fn contradictory_files_are_refused() {
    let bpe = json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []});
    let template =
        json!({"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}});
    let named = json!([{"SpecialToken": {"id": "[X]", "type_id": 0}}]);
    type Case<'a> = (&'a str, &'a [(&'a str, Value)], &'a str);
    let cases: &[Case] = &[
        (
            "merge part",
            &[("/model", bpe.clone()), ("/model/merges", json!(["a c"]))],
            "merges[0]",
        ),
        (
            "merge result",
            &[
                ("/model", bpe.clone()),
                ("/model/merges", json!([["a", "b"]])),
            ],
            "merges[0]",
        ),
        (
            "merge shape",
            &[("/model", bpe.clone()), ("/model/merges", json!(["a b c"]))],
            "merge",
        ),
        (
            "merge length",
            &[("/model", bpe.clone()), ("/model/merges", json!([["a"]]))],
            "merge",
        ),
        ("no vocabulary", &[("/model/vocab", json!({}))], "no tokens"),
        (
            "list vocabulary",
            &[("/model/vocab", json!([["a", 0.5]]))],
            "expected an object",
        ),
        (
            "huge id",
            &[("/model/vocab/one", json!(u32::MAX))],
            "too large",
        ),
        (
            "negative id",
            &[("/model/vocab/one", json!(-1))],
            "not a tokenizer.json",
        ),
        (
            "no unk",
            &[("/model/unk_token", json!("[NONE]"))],
            "unk_token",
        ),
        ("unigram", &[("/model/type", json!("Unigram"))], "Unigram"),
        ("version", &[("/version", json!("2.0"))], "version"),
        (
            "added id",
            &[("/added_tokens/0/id", json!(5))],
            "states id 5 but gets 1",
        ),
        (
            "empty added",
            &[("/added_tokens/0/content", json!(""))],
            "empty content",
        ),
        (
            "template",
            &[
                ("/post_processor", template.clone()),
                ("/post_processor/single", named),
            ],
            "[X]",
        ),
        (
            "two templates",
            &[("/post_processor", two_templates(false))],
            "more than one TemplateProcessing",
        ),
        (
            "two templates, one of them within",
            &[("/post_processor", two_templates(true))],
            "more than one TemplateProcessing",
        ),
        (
            "normalizer",
            &[("/normalizer/type", json!("Precompiled"))],
            "Precompiled",
        ),
        (
            "pre-tokenizer",
            &[("/pre_tokenizer/type", json!("FixedLength"))],
            "FixedLength",
        ),
        (
            "post-processor",
            &[("/post_processor", json!(3))],
            "post_processor",
        ),
        (
            "sequence",
            &[("/pre_tokenizer", json!({"type": "Sequence"}))],
            "pretokenizers",
        ),
    ];
    for (name, changes, expected) in cases {
        let mut json = small();
        for (place, value) in *changes {
            *json.pointer_mut(place).unwrap() = value.clone();
        }
        let error = load(&json)
            .err()
            .unwrap_or_else(|| panic!("{name}: accepted"));
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(!error.to_string().contains('\n'), "{name}: {error}");
    }
    let mut dropout = small();
    dropout["model"] = bpe;
    dropout["model"]["dropout"] = json!(0.1);
    assert!(
        load(&dropout)
            .err()
            .unwrap()
            .to_string()
            .contains("dropout")
    );
    // A template that leaves a text out.
    let mut drops = small();
    drops["post_processor"] = template;
    assert!(
        load(&drops)
            .err()
            .unwrap()
            .to_string()
            .contains("hold A once")
    );
    assert!(Tokenizer::from_json(b"").is_err());
    assert!(Tokenizer::from_json(b"[1").is_err());
}

/// Of a tokenizer that tables cannot express.
#[cfg(feature = "tokenizers")]
#[test]
fn normalizers_that_multiply_a_text_are_refused() {
    let with = |steps: usize| {
        let mut json = small();
        let step = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        json["normalizer"] = json!({"type": "Sequence", "normalizers": vec![step; steps]});
        load(&json)
    };
    // 3^7 is within the limit of 4096, 3^8 beyond it.
    assert!(with(7).is_ok());
    for steps in [8, 40, 200] {
        let error = with(steps).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("lengthens a text"), "{error}");
    }
}

/// Damage anywhere in a file is an error or another tokenizer, never a panic.
#[test]
fn damaged_bytes_never_panic() {
    let bytes = small().to_string().into_bytes();
    for at in 0..bytes.len() {
        for with in [b'"', b'9', b'}'] {
            let mut damaged = bytes.clone();
            damaged[at] = with;
            if let Ok(tokenizer) = Tokenizer::from_json(&damaged) {
                let _ = tokenizer.encode("One ones two", Some("two"), 5, Truncation::Truncate);
            }
        }
        assert!(Tokenizer::from_json(&bytes[..at]).is_err());
    }
}

#[test]
fn it_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}

/// Ids of `transformers`, written by `tools/goldens/tokenizer_ids.py`.
#[cfg(feature = "convert")]
#[test]
fn ids_are_those_of_transformers() {
    use crate::convert::tokenizer::collect;
    use crate::models::encoder::Family;

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers");
    let folders = [
        ("bert-uncased", Family::Bert, 0),
        ("bert-uncased-json", Family::Bert, 1),
        ("bert-uncased-overruled", Family::Bert, 4),
        ("bert-uncased-accents", Family::Bert, 0),
        ("bert-cased", Family::Bert, 0),
        ("roberta", Family::Roberta, 0),
        ("roberta-json", Family::Roberta, 1),
        ("roberta-added", Family::Roberta, 0),
    ];
    for (name, family, notes) in folders {
        let bundle = collect(&root.join(name), family).unwrap();
        assert_eq!(bundle.notes.len(), notes, "{name}: {:?}", bundle.notes);
        assert_eq!(bundle.max_length, Some(512));
        let tokenizer = Tokenizer::from_json(&bundle.json).unwrap();
        let shared = root.join(name.trim_end_matches("-json"));
        let golden = std::fs::read(shared.join("golden.json")).unwrap();
        let golden: Vec<Value> = serde_json::from_slice(&golden).unwrap();
        assert!(golden.len() > 80);
        for case in golden {
            let text = case["text"].as_str().unwrap();
            let pair = case["pair"].as_str();
            let limit = case["limit"].as_u64().map_or(NO_LIMIT, |n| n as usize);
            let encoded = tokenizer
                .encode(text, pair, limit, Truncation::Truncate)
                .unwrap();
            let place = format!("{name}: {text:?} + {pair:?} at {limit}");
            assert_eq!(json!(encoded.ids), case["ids"], "{place}");
            let ones = case["ones"].as_u64().unwrap() as usize;
            let mut types = vec![0; encoded.tokens - ones];
            types.resize(encoded.tokens, 1);
            assert_eq!(encoded.type_ids, types, "{place}");
            assert_eq!(
                encoded.truncated,
                encoded.original_tokens > limit,
                "{place}"
            );
            assert!(encoded.ids.iter().all(|&id| id <= tokenizer.max_id()));
            let strict = tokenizer.encode(text, pair, limit, Truncation::Error);
            assert_eq!(strict.is_err(), encoded.truncated, "{place}");
        }
    }
}
