use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::text::Truncation;

/// A directory with these files.
fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\none\n##s\nZwei\n";
const BPE: &str = r#"{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4,"b":5,"ab":6,"<mask>":7}"#;

fn ids(files: &[(&str, &str)], family: Family, text: &str) -> Vec<u32> {
    let bundle = collect(dir(files).path(), family).unwrap();
    let tokenizer = Tokenizer::from_json(&bundle.json).unwrap();
    let encoded = tokenizer.encode(text, None, 100, Truncation::Error);
    encoded.unwrap().ids
}

#[test]
fn vocab_txt_follows_the_configuration() {
    let cased = ("tokenizer_config.json", r#"{"do_lower_case": false}"#);
    let vocab = ("vocab.txt", VOCAB);
    assert_eq!(ids(&[vocab], Family::Bert, "ONES Zwei"), [2, 5, 6, 1, 3]);
    assert_eq!(
        ids(&[vocab, cased], Family::Bert, "ones Zwei"),
        [2, 5, 6, 7, 3]
    );
    let dos = VOCAB.replace('\n', "\r\n");
    assert_eq!(
        ids(&[("vocab.txt", &dos)], Family::Bert, "ones"),
        [2, 5, 6, 3]
    );
}

#[test]
fn special_tokens_come_from_either_file() {
    let vocab = ("vocab.txt", "<p>\n<u>\n<c>\n<e>\n<m>\none\n");
    let roles = r#"{"pad_token": "<p>", "unk_token": "<u>", "cls_token": {"content": "<c>"},
        "sep_token": "<e>", "mask_token": "<m>"}"#;
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let found = ids(&[vocab, (name, roles)], Family::Bert, "one two <m>");
        assert_eq!(found, [2, 5, 1, 4, 3], "{name}");
    }
}

#[test]
fn bpe_files_make_robertas_tokenizer() {
    let files = [("vocab.json", BPE), ("merges.txt", "#version: 0.2\na b\n")];
    assert_eq!(
        ids(&files, Family::Roberta, "abba  <mask>"),
        [0, 6, 5, 4, 7, 2]
    );
    let bundle = collect(dir(&files).path(), Family::Roberta).unwrap();
    assert_eq!(
        bundle.notes,
        ["the vocabulary lacks 254 of 256 bytes: text with those loses them"]
    );
    assert_eq!(bundle.max_length, None);
}

#[test]
fn added_tokens_are_numbered_after_the_vocabulary() {
    let vocab = ("vocab.txt", VOCAB);
    let added = ("added_tokens.json", r#"{"later": 9, "first": 8}"#);
    assert_eq!(
        ids(&[vocab, added], Family::Bert, "later first one"),
        [2, 9, 8, 5, 3]
    );
    let gap = dir(&[vocab, ("added_tokens.json", r#"{"later": 9}"#)]);
    let error = collect(gap.path(), Family::Bert).unwrap_err();
    assert!(
        error.to_string().contains("\"later\" is 8 here, and 9"),
        "{error}"
    );
}

#[test]
fn limits_of_tokenizer_json_are_removed_with_a_note() {
    let plain = collect(dir(&[("vocab.txt", VOCAB)]).path(), Family::Bert).unwrap();
    let mut json: Value = serde_json::from_slice(&plain.json).unwrap();
    json["truncation"] = json!({"max_length": 128, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_id": 0,
        "pad_to_multiple_of": null, "pad_type_id": 0, "pad_token": "[PAD]"});
    let pretty = serde_json::to_string_pretty(&json).unwrap();
    let bundle = collect(dir(&[("tokenizer.json", &pretty)]).path(), Family::Bert).unwrap();
    assert_eq!(bundle.json, plain.json);
    assert_eq!(
        bundle.notes,
        ["tokenizer.json cut texts at 128 tokens and padded to 64: both removed"]
    );
}

#[test]
fn merges_are_stored_as_strings() {
    let files = [("vocab.json", BPE), ("merges.txt", "a b")];
    let plain = collect(dir(&files).path(), Family::Roberta).unwrap();
    let mut json: Value = serde_json::from_slice(&plain.json).unwrap();
    json["model"]["merges"] = json!([["a", "b"]]);
    let lists = json.to_string();
    let bundle = collect(dir(&[("tokenizer.json", &lists)]).path(), Family::Roberta).unwrap();
    assert_eq!(bundle.json, plain.json);
}

#[test]
fn the_smallest_sane_length_counts() {
    let cases = [
        ("{}", None, None),
        (r#"{"model_max_length": 512}"#, None, Some(512)),
        (r#"{"model_max_length": 512.0}"#, None, Some(512)),
        (
            r#"{"model_max_length": 1000000000000000019884624838656}"#,
            None,
            None,
        ),
        (
            r#"{"model_max_length": 1e30}"#,
            Some(r#"{"max_seq_length": 256}"#),
            Some(256),
        ),
        (
            r#"{"model_max_length": 128}"#,
            Some(r#"{"max_seq_length": 256}"#),
            Some(128),
        ),
        (
            r#"{"model_max_length": null}"#,
            Some(r#"{"max_seq_length": null}"#),
            None,
        ),
    ];
    for (config, sentence, expected) in cases {
        let mut files = vec![("vocab.txt", VOCAB), ("tokenizer_config.json", config)];
        files.extend(sentence.map(|s| ("sentence_bert_config.json", s)));
        let bundle = collect(dir(&files).path(), Family::Bert).unwrap();
        assert_eq!(bundle.max_length, expected, "{config} {sentence:?}");
    }
}

/// What sentence-transformers does to texts before a tokenizer sees them.
#[test]
fn settings_of_sentence_transformers_are_not_passed_over() {
    let lower = ("sentence_bert_config.json", r#"{"do_lower_case": true}"#);
    let cased = ("tokenizer_config.json", r#"{"do_lower_case": false}"#);
    let vocab = ("vocab.txt", VOCAB);
    collect(dir(&[vocab, lower]).path(), Family::Bert).unwrap();
    let error = collect(dir(&[vocab, lower, cased]).path(), Family::Bert).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("sentence_bert_config.json: do_lower_case"),
        "{message}"
    );
    let prompts = r#"{"prompts": {"query": "search: "}, "default_prompt_name": "query"}"#;
    let files = [vocab, ("config_sentence_transformers.json", prompts)];
    let notes = collect(dir(&files).path(), Family::Bert).unwrap().notes;
    assert!(
        notes.iter().any(|note| note.contains("\"search: \"")),
        "{notes:?}"
    );
    let none = r#"{"prompts": {"query": "search: "}, "default_prompt_name": null}"#;
    let files = [vocab, ("config_sentence_transformers.json", none)];
    assert!(
        collect(dir(&files).path(), Family::Bert)
            .unwrap()
            .notes
            .is_empty()
    );
}

#[test]
fn errors_name_the_file_and_the_field() {
    let vocab = ("vocab.txt", VOCAB);
    let config = |text| vec![vocab, ("tokenizer_config.json", text)];
    let bert: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![], "neither tokenizer.json nor vocab.txt"),
        (
            vec![("vocab.txt", "a\nb\n")],
            "vocab.txt: no special token \"[UNK]\"",
        ),
        (vec![("tokenizer.json", "{")], "tokenizer.json: bad JSON"),
        (
            vec![("tokenizer.json", "{}")],
            "tokenizer.json: not a tokenizer.json",
        ),
        (
            vec![("tokenizer.json", "[]")],
            "tokenizer.json: expected a JSON object",
        ),
        (config("{"), "tokenizer_config.json: bad JSON"),
        (
            config(r#"{"do_lower_case": "yes"}"#),
            "tokenizer_config.json: do_lower_case: ",
        ),
        (
            config(r#"{"strip_accents": 1}"#),
            "tokenizer_config.json: strip_accents: ",
        ),
        (
            config(r#"{"cls_token": 7}"#),
            "tokenizer_config.json: cls_token: ",
        ),
        (
            config(r#"{"model_max_length": -1}"#),
            "tokenizer_config.json: model_max_length: ",
        ),
        (
            config(r#"{"model_max_length": 2}"#),
            "tokenizer_config.json: model_max_length: ",
        ),
        (
            config(r#"{"model_max_length": 12.5}"#),
            "tokenizer_config.json: model_max_length: ",
        ),
        (
            config(r#"{"model_max_length": "512"}"#),
            "tokenizer_config.json: model_max_length: ",
        ),
        (
            config(r#"{"added_tokens_decoder": {"x": "a"}}"#),
            "added_tokens_decoder.x: ",
        ),
        (
            config(r#"{"added_tokens_decoder": []}"#),
            "added_tokens_decoder: ",
        ),
        (
            vec![
                vocab,
                ("sentence_bert_config.json", r#"{"max_seq_length": []}"#),
            ],
            "sentence_bert_config.json: max_seq_length: ",
        ),
    ];
    let roberta: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![], "neither tokenizer.json nor vocab.json"),
        (vec![("vocab.json", BPE)], "nor merges.txt"),
        (
            vec![("vocab.json", BPE), ("merges.txt", "a b\na\n")],
            "merges.txt: line 2: ",
        ),
        (
            vec![("vocab.json", BPE), ("merges.txt", "a x\n")],
            "vocab.json: tokenizer.json: model.merges[0]",
        ),
        (
            vec![("vocab.json", "{\"a\": 0}"), ("merges.txt", "")],
            "vocab.json: no special token",
        ),
    ];
    for (family, cases) in [(Family::Bert, bert), (Family::Roberta, roberta)] {
        for (files, expected) in cases {
            let error = collect(dir(&files).path(), family).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Tokenizer, "{error}");
            assert!(error.to_string().contains(expected), "{expected}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
    let bad_text = dir(&[]);
    std::fs::write(bad_text.path().join("vocab.txt"), b"[PAD]\n\xff\n").unwrap();
    let error = collect(bad_text.path(), Family::Bert).unwrap_err();
    assert_eq!(error.offset(), Some(6));
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tokenizer.json")).unwrap();
    let error = collect(folder.path(), Family::Bert).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}
