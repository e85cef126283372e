use serde_json::{Value, json};

use crate::convert::random_tokenizer;
use crate::text::{Tokenizer, Truncation, compile, json as file};

fn generated(json: Vec<u8>) -> Value {
    serde_json::from_slice(&json).unwrap()
}

/// What the tables cannot express is named, and left to the `tokenizers` crate.
#[test]
fn what_tables_cannot_express() {
    let wordpiece = generated(random_tokenizer::wordpiece(300).unwrap());
    let bpe = generated(random_tokenizer::byte_level_bpe(300).unwrap());
    let long = "x".repeat(257);
    let lowercase = json!({"type": "Lowercase"});
    let template = |specials: usize| {
        let mut step = wordpiece["post_processor"].clone();
        step["special_tokens"]["[CLS]"]["ids"] = json!(vec![1; specials]);
        step["special_tokens"]["[CLS]"]["tokens"] = json!(vec!["[UNK]"; specials]);
        step
    };
    type Case<'a> = (&'a Value, &'a str, Value, &'a str);
    let cases: &[Case] = &[
        (
            &wordpiece,
            "/normalizer",
            lowercase.clone(),
            "normalizer that is not BERT's",
        ),
        (
            &wordpiece,
            "/pre_tokenizer",
            json!({"type": "Whitespace"}),
            "BERT's pre-tokenizer",
        ),
        (
            &wordpiece,
            "/pre_tokenizer",
            Value::Null,
            "BERT's pre-tokenizer",
        ),
        (
            &wordpiece,
            "/model/max_input_chars_per_word",
            json!(1025),
            "max_chars 1025",
        ),
        (&wordpiece, "/model/vocab/%", json!(7), "the same id"),
        (
            &wordpiece,
            "/added_tokens/4",
            wordpiece["added_tokens"][0].clone(),
            "there twice",
        ),
        (
            &wordpiece,
            "/post_processor",
            template(255),
            "257; the limits are",
        ),
        (&bpe, "/normalizer", lowercase, "BPE with a normalizer"),
        (
            &bpe,
            "/pre_tokenizer",
            json!({"type": "Whitespace"}),
            "byte-level pre-tokenizer",
        ),
        (&bpe, "/model/byte_fallback", json!(true), "byte_fallback"),
        (&bpe, "/model/ignore_merges", json!(true), "ignore_merges"),
        (&bpe, "/model/end_of_word_suffix", json!("</w>"), "suffix"),
    ];
    for (base, place, value, expected) in cases {
        let mut json = (*base).clone();
        *json.pointer_mut(place).unwrap() = value.clone();
        let bytes = json.to_string().into_bytes();
        let reason = compile::compile(&file::read(&bytes).unwrap()).unwrap_err();
        assert!(reason.contains(expected), "{place}: {reason}");
        let tokenizer = Tokenizer::from_json(&bytes).unwrap();
        let encoded = tokenizer
            .encode("the [MASK] one", None, 600, Truncation::Error)
            .unwrap();
        assert!(encoded.tokens > 2, "{place}");
    }
    let mut json = wordpiece.clone();
    json["model"]["vocab"][&long] = json!(300);
    let reason = compile::compile(&file::read(json.to_string().as_bytes()).unwrap());
    assert!(reason.unwrap_err().contains("1 to 256 bytes"));
}

/// The sizes that `format-spec.md` gives, for real numbers of tokens.
#[test]
fn sections_have_their_size() {
    let read = |json: &[u8]| compile::compile(&file::read(json).unwrap()).unwrap();
    let json = random_tokenizer::byte_level_bpe(random_tokenizer::ROBERTA_SIZE).unwrap();
    let merges = generated(json.clone())["model"]["merges"]
        .as_array()
        .unwrap()
        .len();
    let section = read(&json);
    // Two templates of 3 and 6 pieces, five added tokens, 16,384 buckets.
    let fixed = 64 + 8 * 9 + 12 * 5 + 4 * 16_385 + 1024 + "<s><pad></s><unk><mask>".len();
    assert_eq!(section.len(), fixed + 8 * merges);
    assert!(section.len() < 600_000, "{}", section.len());
    assert_eq!(section, read(&json));
}
