//! Rules 42 to 52: tokenizer tables that break one.

use centroid::{Artifact, ErrorKind, Options, TextClassifier};

use crate::encoder::{load, unfit};
use crate::tables::{FIRST, NONE, SECOND, Tables, byte_level, token_bucket, with, wordpiece};
use crate::valid::{Rng, valid};

/// Fails unless these tables, changed so, open as an artifact and not as a model.
fn refused(what: &str, base: &Tables, change: impl Fn(&mut Tables), words: &[&str]) {
    let mut tables = base.clone();
    change(&mut tables);
    let bytes = tables.encode();
    refused_bytes(what, base, bytes, words);
}

fn refused_bytes(what: &str, base: &Tables, bytes: Vec<u8>, words: &[&str]) {
    let words = [&["tokenizer tables: "], words].concat();
    let change = |m: &mut crate::build::Model| m.only(18).bytes = bytes.clone();
    unfit(what, &with(base), change, ErrorKind::Format, &words);
}

fn classifier(tables: &Tables) -> TextClassifier {
    let artifact = Artifact::from_bytes(&with(tables).encode().bytes).unwrap();
    assert_eq!(artifact.tokenizer_kind(), Some("tokenizer tables"));
    assert_eq!(artifact.tokenizer_bytes(), tables.encode().len() as u64);
    TextClassifier::new(artifact, Options::new().threads(1)).unwrap()
}

fn ids(classifier: &TextClassifier, text: &str) -> Vec<u32> {
    classifier.classify(&[text]).unwrap().remove(0).ids
}

#[test]
fn tables_and_json_answer_alike() {
    let artifact = Artifact::from_bytes(&valid().encode().bytes).unwrap();
    assert_eq!(artifact.tokenizer_kind(), Some("tokenizer.json"));
    let json = TextClassifier::new(artifact, Options::new().threads(1)).unwrap();
    let tables = classifier(&wordpiece());
    for text in [
        "",
        "a b",
        "Ab c!",
        "abc zi [SEP][MASK]q",
        "\u{c0}b\u{4f60}c\u{200b}a",
        "a[cls]",
    ] {
        assert_eq!(
            tables.classify(&[text]).unwrap(),
            json.classify(&[text]).unwrap(),
            "{text}"
        );
        assert_eq!(
            tables.classify_pairs(&[(text, "b a")]).unwrap(),
            json.classify_pairs(&[(text, "b a")]).unwrap(),
            "{text}"
        );
    }
}

#[test]
fn byte_level_tables_answer() {
    let classifier = classifier(&byte_level());
    assert_eq!(ids(&classifier, "abc"), [2, 32, 3]);
    assert_eq!(ids(&classifier, "abd[SEP]za"), [2, 31, 8, 3, 30, 5, 3]);
    // Neighbouring unknown bytes of a word are one unknown token.
    assert_eq!(ids(&classifier, "a\u{e9}b  c"), [2, 5, 1, 6, 1, 1, 7, 3]);
}

#[test]
fn tables_of_wrong_length() {
    for base in [wordpiece(), byte_level()] {
        let whole = base.encode();
        let words = ["bytes are not what its head asks for"];
        for length in 64..whole.len() {
            // Every length at the arrays' edges, others now and then.
            if length < 400 || length % 7 == 0 {
                let artifact = with(&base);
                let mut model = artifact.clone();
                model.only(18).bytes.truncate(length);
                let error = load(&model.encode().bytes).expect_err("truncated");
                assert!(error.to_string().contains(words[0]), "{length}: {error}");
            }
        }
        let more = [&whole[..], &[0]].concat();
        refused_bytes("more", &base, more, &words);
        refused_bytes("less", &base, whole[..whole.len() - 1].to_vec(), &words);
        refused_bytes("no arrays", &base, whole[..64].to_vec(), &words);
        refused_bytes(
            "no head",
            &base,
            whole[..63].to_vec(),
            &["63 bytes are too few"],
        );
    }
}

/// Counts whose sizes would wrap around at 32 bits, or at 64.
#[test]
fn tables_counts_overflow() {
    let fields = [16, 20, 24, 28, 32, 36, 40, 44, 48];
    for base in [wordpiece(), byte_level()] {
        for field in fields {
            let largest = [u32::MAX, 1 << 31, 1 << 30, 1 << 26, 1 << 24, 0x2000_0001];
            for value in largest.into_iter().chain((2..16).map(|n| 1 << n)) {
                let mut bytes = base.encode();
                if bytes[field..field + 4] != value.to_le_bytes() {
                    bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
                    refused_bytes("count", &base, bytes, &[]);
                }
            }
        }
    }
}

#[test]
fn tables_unknown_model() {
    for model in [0, 3, u32::MAX] {
        let mut tables = wordpiece();
        tables.model = model;
        let bytes = tables.encode();
        let change = |m: &mut crate::build::Model| m.only(18).bytes = bytes.clone();
        let words = format!("tokenizer tables: unknown model {model}");
        unfit(
            "model",
            &with(&wordpiece()),
            change,
            ErrorKind::Unsupported,
            &[&words],
        );
    }
}

#[test]
fn tables_reserved_set() {
    for bit in 0..32 {
        for (base, own) in [(wordpiece(), 0..4), (byte_level(), 4..7)] {
            if !own.contains(&bit) {
                let change = |t: &mut Tables| t.flags |= 1 << bit;
                refused("flag", &base, change, &["reserved flag bits"]);
            }
        }
    }
    for word in 0..2 {
        let change = |t: &mut Tables| t.tail[word] = 1;
        refused("tail", &wordpiece(), change, &["reserved bytes"]);
    }
    let words = ["fields of WordPiece"];
    refused("chars", &byte_level(), |t| t.max_chars = 1, &words);
    refused("prefix", &byte_level(), |t| t.prefix = vec![b'#'], &words);
    refused("tokens", &byte_level(), |t| t.tokens = vec![b'a'], &words);
}

#[test]
fn tables_ids_too_large() {
    let words = ["ids are less than 40"];
    let changes: [fn(&mut Tables); 5] = [
        |t| t.unknown = 40,
        |t| t.single[0][0] = 40,
        |t| t.pair[4][0] = SECOND - 1,
        |t| t.tokens_added[4][0] = 40,
        |t| t.tokens_added[0][0] = NONE,
    ];
    for change in changes {
        refused("both", &wordpiece(), change, &words);
        refused("both", &byte_level(), change, &words);
    }
    refused("token", &wordpiece(), |t| t.ids[39] = 40, &words);
    refused("token", &wordpiece(), |t| t.ids[0] = 65_535, &words);
    refused("byte", &byte_level(), |t| t.bytes[255] = 40, &words);
    refused("byte", &byte_level(), |t| t.bytes[0] = SECOND, &words);
    for field in 0..3 {
        let change = |t: &mut Tables| t.merges[8][field] = 40;
        refused("merge", &byte_level(), change, &words);
    }
    let limits = ["id_limit", "the limits are 1 and 1073741824"];
    for limit in [0, (1 << 30) + 1, u32::MAX] {
        refused("limit", &wordpiece(), |t| t.id_limit = limit, &limits);
    }
    // The model has 40 embeddings; an id that it lacks is refused although no table holds it.
    let change = |m: &mut crate::build::Model| {
        m.only(18).bytes = Tables {
            id_limit: 41,
            ..wordpiece()
        }
        .encode();
    };
    let words = ["the tokenizer gives ids up to 40"];
    unfit(
        "vocabulary",
        &with(&wordpiece()),
        change,
        ErrorKind::Format,
        &words,
    );
}

#[test]
fn tables_without_unknown() {
    let words = ["the unknown token", "ids are less than 40"];
    refused("wordpiece", &wordpiece(), |t| t.unknown = NONE, &words);
    refused("fused", &byte_level(), |t| t.unknown = NONE, &words);
    // Without fusing, a byte-level model may do without: such bytes are dropped.
    let mut tables = byte_level();
    (tables.unknown, tables.flags) = (NONE, 1 << 5);
    assert_eq!(ids(&classifier(&tables), "a\u{e9}b"), [2, 31, 3]);
}

#[test]
fn tables_templates_incomplete() {
    type Change = fn(&mut Tables);
    let changes: [(Change, &str); 7] = [
        (
            |t| t.single[1][0] = 4,
            "the template single holds text 0 0 times",
        ),
        (
            |t| t.single.push([FIRST, 0]),
            "the template single holds text 0 2 times",
        ),
        (
            |t| t.single.push([SECOND, 0]),
            "the template single holds text 1 1 times",
        ),
        (
            |t| t.pair[1][0] = SECOND,
            "the template pair holds text 0 0 times",
        ),
        (
            |t| t.pair.push([FIRST, 0]),
            "the template pair holds text 0 2 times",
        ),
        (|t| t.single.clear(), "single 0; the limits are 1 and 256"),
        (
            |t| t.pair.resize(257, [2, 0]),
            "pair 257; the limits are 2 and 256",
        ),
    ];
    for (change, words) in changes {
        refused("template", &wordpiece(), change, &[words]);
        refused("template", &byte_level(), change, &[words]);
    }
}

#[test]
fn tables_added_unsorted() {
    let words = ["is not greater than the one before it"];
    let swap = |t: &mut Tables| t.contents[..5].copy_from_slice(b"[NLS]");
    refused("order", &wordpiece(), swap, &["added token 1", words[0]]);
    let same = |t: &mut Tables| {
        t.contents = b"[CLS][CLS][PAD][SEP][UNK]".to_vec();
        for (i, token) in t.tokens_added.iter_mut().enumerate() {
            token[1] = 5 * (i as u32 + 1);
        }
    };
    refused("twice", &wordpiece(), same, &["added token 1", words[0]]);
    // The second kind starts anew.
    let mut tables = wordpiece();
    tables.added = [4, 1];
    tables.contents[21..].copy_from_slice(b"[ABC]");
    assert_eq!(
        ids(&classifier(&tables), "a[abc][ABC]"),
        ids(&classifier(&wordpiece()), "a[abc][abc]")
    );
    tables.contents[21..].copy_from_slice(b"[abc]");
    assert_eq!(
        ids(&classifier(&tables), "a[abc]z[ABC]"),
        [2, 5, 1, 30, 1, 3]
    );
}

#[test]
fn tables_added_bytes() {
    let words = ["added token", "are not 1 to 256 bytes of UTF-8"];
    for base in [wordpiece(), byte_level()] {
        refused("empty", &base, |t| t.tokens_added[1][1] = 5, &words);
        refused("descend", &base, |t| t.tokens_added[1][1] = 4, &words);
        refused("beyond", &base, |t| t.tokens_added[4][1] += 1, &words);
        refused("huge", &base, |t| t.tokens_added[4][1] = u32::MAX, &words);
        refused("no text", &base, |t| t.contents[2] = 0xff, &words);
        let long = |t: &mut Tables| {
            t.contents.resize(21 + 257, b'a');
            t.tokens_added[4][1] = 21 + 257;
        };
        refused("long", &base, long, &words);
        // A character that two tokens share.
        let shared = |t: &mut Tables| {
            t.contents[4..6].copy_from_slice("\u{e9}".as_bytes());
        };
        refused("cut", &base, shared, &words);
        let more = ["1 bytes after the last added token"];
        refused("more", &base, |t| t.contents.push(b'a'), &more);
    }
}

#[test]
fn tables_added_flags() {
    for bit in 3..32 {
        let change = |t: &mut Tables| t.tokens_added[2][2] = 1 << bit;
        refused(
            "flag",
            &wordpiece(),
            change,
            &["added token 2", "reserved flag bits"],
        );
    }
}

#[test]
fn tables_buckets_descend() {
    for base in [wordpiece(), byte_level()] {
        let start = ["bucket 0 starts at 1"];
        refused("start", &base, |t| t.buckets[0] = 1, &start);
        refused(
            "descend",
            &base,
            |t| t.buckets[7] = u32::MAX,
            &["bucket 7 starts at"],
        );
        let change = |t: &mut Tables| {
            let last = t.buckets.len() - 1;
            t.buckets[last - 1] = t.buckets[last] + 1;
        };
        refused("back", &base, change, &["bucket 16 starts at"]);
        let change = |t: &mut Tables| *t.buckets.last_mut().unwrap() += 1;
        refused("end", &base, change, &["the buckets hold", "entries"]);
        let change = |t: &mut Tables| t.buckets.fill(0);
        refused("none", &base, change, &["the buckets hold 0 of"]);
    }
}

/// Merges enough to fill a bucket, all of one hash.
#[test]
fn tables_bucket_too_large() {
    let crowded = |count: usize| {
        let mut tables = byte_level();
        tables.bits = 1;
        tables.id_limit = 40;
        let pairs = (0..40).flat_map(|a| (0..40).map(move |b| (a, b)));
        let key = |a: u32, b: u32| {
            (u64::from(a) << 32 | u64::from(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63
        };
        let low = pairs.filter(|&(a, b)| key(a, b) == 0).take(count);
        tables.merges = low
            .zip(0..)
            .map(|((a, b), rank)| [a, b, 39, rank])
            .collect();
        tables.entries = count as u32;
        tables.buckets = vec![0, count as u32, count as u32];
        tables
    };
    load(&with(&crowded(64)).encode().bytes).unwrap();
    let bytes = crowded(65).encode();
    refused_bytes("65", &byte_level(), bytes, &["have at most 64 entries"]);
}

#[test]
fn tables_wrong_bucket() {
    for (base, what) in [(wordpiece(), "token"), (byte_level(), "merge")] {
        // The first entry moves to the bucket before or after its own.
        let change = |t: &mut Tables| {
            let first = t.buckets.iter().rposition(|&start| start == 0).unwrap();
            match first {
                0 => t.buckets[1] -= 1,
                _ => t.buckets[first] += 1,
            }
        };
        refused(
            "moved",
            &base,
            change,
            &[what, "is not in the bucket of its hash"],
        );
    }
    let change = |t: &mut Tables| t.merges[0][1] ^= 1;
    refused(
        "changed",
        &byte_level(),
        change,
        &["merge 0 is not in the bucket"],
    );
    let change = |t: &mut Tables| {
        let token = &mut t.tokens[..t.ends[0] as usize];
        let own = token_bucket(token, 4);
        while token_bucket(token, 4) == own {
            token[0] += 1;
        }
    };
    refused(
        "changed",
        &wordpiece(),
        change,
        &["token 0 is not in the bucket"],
    );
}

#[test]
fn tables_entries_unsorted() {
    let words = ["is not greater than the one before it"];
    // The same merge twice, in two ranks.
    let change = |t: &mut Tables| {
        let at = t.buckets.iter().rposition(|&start| start == 0).unwrap();
        let again = t.merges[0];
        t.merges.insert(1, [again[0], again[1], again[2], 9]);
        t.entries = 10;
        t.buckets[at + 1..].iter_mut().for_each(|start| *start += 1);
    };
    refused("merge", &byte_level(), change, &["merge 1", words[0]]);
    let change = |t: &mut Tables| {
        let bucket = t.buckets.windows(2).position(|b| b[1] - b[0] >= 2).unwrap();
        t.merges
            .swap(t.buckets[bucket] as usize, t.buckets[bucket] as usize + 1);
    };
    refused("order", &byte_level(), change, &words);
    let change = |t: &mut Tables| {
        let at = t.buckets.iter().rposition(|&start| start == 0).unwrap();
        let first = t.tokens[..t.ends[0] as usize].to_vec();
        t.tokens.splice(..0, first.iter().copied());
        t.ends.iter_mut().for_each(|end| *end += first.len() as u32);
        t.ends.insert(0, first.len() as u32);
        t.ids.insert(0, 0);
        t.entries += 1;
        t.buckets[at + 1..].iter_mut().for_each(|start| *start += 1);
    };
    refused("token", &wordpiece(), change, &["token 1", words[0]]);
}

#[test]
fn tables_ranks_repeat() {
    for (at, rank) in [(0, 9), (3, 65_535), (8, 40)] {
        let words = format!("merge {at} has the rank {rank}");
        refused("rank", &byte_level(), |t| t.merges[at][3] = rank, &[&words]);
    }
    let change = |t: &mut Tables| t.merges[5][3] = t.merges[4][3];
    refused("twice", &byte_level(), change, &["merge 5 has the rank"]);
}

#[test]
fn tables_token_bytes() {
    let words = ["are not 1 to 256 bytes"];
    refused(
        "empty",
        &wordpiece(),
        |t| t.ends[3] = t.ends[2],
        &["token 3", words[0]],
    );
    refused(
        "back",
        &wordpiece(),
        |t| t.ends[3] = t.ends[2] - 1,
        &["token 3", words[0]],
    );
    refused(
        "beyond",
        &wordpiece(),
        |t| t.ends[39] += 1,
        &["token 39", words[0]],
    );
    refused(
        "huge",
        &wordpiece(),
        |t| t.ends[0] = u32::MAX,
        &["token 0", words[0]],
    );
    let more = ["1 bytes after the last token"];
    refused("more", &wordpiece(), |t| t.tokens.push(b'a'), &more);
    let long = |t: &mut Tables| {
        t.tokens.resize(t.tokens.len() + 300, b'a');
        t.ends[39] += 300;
    };
    refused("long", &wordpiece(), long, &["token 39", words[0]]);
}

#[test]
fn tables_limits() {
    let limits = |name: &str, most: &str| format!("{name}; the limits are {most}");
    for bits in [0, 25, 64, u32::MAX] {
        let words = limits(&format!("bucket_bits {bits}"), "1 and 24");
        refused("bits", &wordpiece(), |t| t.bits = bits, &[&words]);
    }
    for chars in [0, 1025, u32::MAX] {
        let words = limits(&format!("max_chars {chars}"), "1 and 1024");
        refused("chars", &wordpiece(), |t| t.max_chars = chars, &[&words]);
    }
    let words = limits("prefix_bytes 256", "0 and 255");
    refused(
        "prefix",
        &wordpiece(),
        |t| t.prefix = vec![b'#'; 256],
        &[&words],
    );
    let words = limits("entries 0", "1 and 67108864");
    refused("entries", &wordpiece(), |t| t.entries = 0, &[&words]);
    let words = limits("entries 67108865", "0 and 67108864");
    refused(
        "entries",
        &byte_level(),
        |t| t.entries = 67_108_865,
        &[&words],
    );
}

/// Damage anywhere in the tables is an error or another tokenizer, never a panic or a hang.
#[test]
fn random_changes_of_the_tables() {
    let mut rng = Rng(7);
    let texts = [
        "abcdefgh [SEP]ab [mask]",
        "A\u{e9}\u{4f60}\0 b",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    let mut accepted = 0;
    for round in 0..3000 {
        let base = if round % 2 == 0 {
            wordpiece()
        } else {
            byte_level()
        };
        let mut model = with(&base);
        let section = &mut model.only(18).bytes;
        for _ in 0..1 + round % 3 {
            let at = rng.below(section.len() as u32) as usize;
            section[at] = match rng.below(4) {
                0 => 0,
                1 => 0xff,
                2 => section[at] ^ 1 << rng.below(8),
                _ => rng.u64() as u8,
            };
        }
        let artifact = Artifact::from_bytes(&model.encode().bytes).unwrap();
        match TextClassifier::new(artifact, Options::new().threads(1)) {
            Ok(classifier) => {
                accepted += 1;
                for text in texts {
                    // A changed type is found here, and is an error.
                    let _ = classifier.classify(&[text]);
                }
            }
            Err(error) => assert_eq!(error.to_string().lines().count(), 1),
        }
    }
    assert!((20..2000).contains(&accepted), "{accepted} of 3000");
}
