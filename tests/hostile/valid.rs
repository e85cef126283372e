//! The valid file that the tests damage: a classifier that uses every scheme and every kind of
//! section, with odd sizes so that there are short tiles, short blocks and padding.

use crate::build::{How, Model, ROWS, Record, Section, TILES, Tensor, VECTOR};
use crate::build::{Pq, Scalar, Scheme};

pub const VOCABULARY: u64 = 40;
pub const HIDDEN: u64 = 9;
pub const FFN: u64 = 67;
pub const POSITIONS: u64 = 16;
pub const LABELS: [&str; 3] = ["bad", "so so", "good"];

/// SplitMix64.
#[derive(Clone, Copy)]
pub struct Rng(pub u64);

impl Rng {
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u32) -> u32 {
        (self.u64() % u64::from(bound)) as u32
    }

    /// -1 to 1.
    pub fn float(&mut self) -> f32 {
        (self.u64() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// -127 to 127, as its byte.
    pub fn int8(&mut self) -> u8 {
        (self.below(255) as i32 - 127) as i8 as u8
    }
}

/// The model body, field by field.
#[derive(Clone)]
pub struct Encoder {
    pub family: u32,
    pub vocab_size: u32,
    pub hidden: u32,
    pub layers: u32,
    pub heads: u32,
    pub intermediate: u32,
    pub positions: u32,
    pub position_offset: u32,
    pub type_vocab: u32,
    pub activation: u32,
    pub layer_norm_eps: f64,
    pub max_tokens: u32,
    pub task: u32,
    pub pooling: u32,
    pub normalize: u32,
    pub labels: u32,
    pub problem: u32,
}

impl Encoder {
    /// The body of [`valid`].
    pub fn valid() -> Self {
        Self {
            family: 1,
            vocab_size: VOCABULARY as u32,
            hidden: HIDDEN as u32,
            layers: 2,
            heads: 3,
            intermediate: FFN as u32,
            positions: POSITIONS as u32,
            position_offset: 0,
            type_vocab: 2,
            activation: 1,
            layer_norm_eps: 1e-12,
            max_tokens: POSITIONS as u32,
            task: 2,
            pooling: 0,
            normalize: 0,
            labels: LABELS.len() as u32,
            problem: 1,
        }
    }

    pub fn body(&self) -> Vec<u8> {
        let before = [
            self.family,
            self.vocab_size,
            self.hidden,
            self.layers,
            self.heads,
            self.intermediate,
            self.positions,
            self.position_offset,
            self.type_vocab,
            self.activation,
        ];
        let after = [
            self.max_tokens,
            self.task,
            self.pooling,
            self.normalize,
            self.labels,
            self.problem,
        ];
        let mut body: Vec<u8> = before.iter().flat_map(|v| v.to_le_bytes()).collect();
        body.extend_from_slice(&self.layer_norm_eps.to_le_bytes());
        body.extend(after.iter().flat_map(|v| v.to_le_bytes()));
        body
    }
}

/// A `vec<string>`.
pub fn strings(items: &[&str]) -> Vec<u8> {
    let mut bytes = (items.len() as u64).to_le_bytes().to_vec();
    for item in items {
        bytes.extend_from_slice(&(item.len() as u64).to_le_bytes());
        bytes.extend_from_slice(item.as_bytes());
    }
    bytes
}

/// The body of a provenance record: pairs of strings.
pub fn pairs(items: &[(&str, &str)]) -> Vec<u8> {
    let flat: Vec<&str> = items.iter().flat_map(|&(k, v)| [k, v]).collect();
    let mut bytes = strings(&flat);
    bytes[..8].copy_from_slice(&(items.len() as u64).to_le_bytes());
    bytes
}

/// A WordPiece tokenizer of `size` tokens: five special ones, the letters, and `##` pieces.
pub fn tokenizer(size: u64) -> String {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(String::from);
    let pieces = (0..).map(|i| format!("##{}", (b'a' + (i % 26) as u8) as char).repeat(1 + i / 26));
    let tokens = special.iter().cloned().chain(letters).chain(pieces);
    let vocabulary: Vec<String> = tokens
        .take(size as usize)
        .enumerate()
        .map(|(id, token)| format!("\"{token}\": {id}"))
        .collect();
    let added: Vec<String> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
            format!(
                "{{\"id\": {id}, \"content\": \"{token}\", \"single_word\": false, \
                 \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}}"
            )
        })
        .collect();
    let template = |pair: bool| {
        let mut parts = vec![
            r#"{"SpecialToken": {"id": "[CLS]", "type_id": 0}}"#,
            r#"{"Sequence": {"id": "A", "type_id": 0}}"#,
            r#"{"SpecialToken": {"id": "[SEP]", "type_id": 0}}"#,
        ];
        if pair {
            parts.push(r#"{"Sequence": {"id": "B", "type_id": 1}}"#);
            parts.push(r#"{"SpecialToken": {"id": "[SEP]", "type_id": 1}}"#);
        }
        parts.join(", ")
    };
    format!(
        r###"{{"version": "1.0", "truncation": null, "padding": null,
"added_tokens": [{}],
"normalizer": {{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}},
"pre_tokenizer": {{"type": "BertPreTokenizer"}},
"post_processor": {{"type": "TemplateProcessing", "single": [{}], "pair": [{}],
"special_tokens": {{"[CLS]": {{"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}}, "[SEP]": {{"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}}}}},
"decoder": {{"type": "WordPiece", "prefix": "##", "cleanup": true}},
"model": {{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {{{}}}}}}}
"###,
        added.join(", "),
        template(false),
        template(true),
        vocabulary.join(", ")
    )
}

/// The file's contents; its bytes are `tests/data/golden/v1-every-scheme.centroid`.
pub fn valid() -> Model {
    let mut model = Model {
        kind: 1,
        body: Encoder::valid().body(),
        tensors: Vec::new(),
        sections: Vec::new(),
        records: Vec::new(),
        tail: Vec::new(),
        rng: Rng(1),
    };
    let (h, f) = (HIDDEN, FFN);
    let (ffn, attention, embedding, position, head, other) = (1, 2, 3, 4, 5, 6);
    let pq = |block, centroids, f16, row_scale| How::Pq {
        block,
        centroids,
        f16,
        row_scale,
    };
    let int8 = |row_scale, row_zero| How::Int8 {
        row_scale,
        row_zero,
    };
    let int4 = |row_scale, row_zero| How::Int4 {
        row_scale,
        row_zero,
    };
    let norm = |model: &mut Model, name: &str| {
        model.add(
            &format!("{name}.weight"),
            other,
            VECTOR,
            &[h],
            1.0,
            How::F32,
        );
        model.add(&format!("{name}.bias"), other, VECTOR, &[h], 0.0, How::F16);
    };
    let linear = |model: &mut Model, name: &str, group: u32, out: u64, columns: u64, how: How| {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        model.add(&weight, group, TILES, &[out, columns], 0.0, how);
        model.add(&bias, other, VECTOR, &[out], 0.0, How::F32);
    };

    let m = &mut model;
    let table = pq(4, 16, true, false);
    m.add(
        "embeddings.token",
        embedding,
        ROWS,
        &[VOCABULARY, h],
        0.0,
        table,
    );
    let table = int4(true, true);
    m.add(
        "embeddings.position",
        position,
        ROWS,
        &[POSITIONS, h],
        0.0,
        table,
    );
    m.add(
        "embeddings.type",
        other,
        ROWS,
        &[2, h],
        0.0,
        int8(false, false),
    );
    norm(m, "embeddings.norm");

    let layer = "layers.0.attention";
    let square = [
        ("query", pq(4, 256, false, true)),
        ("key", pq(3, 7, false, false)),
        ("value", int8(false, false)),
        ("output", int8(true, true)),
    ];
    for (part, how) in square {
        linear(m, &format!("{layer}.{part}"), attention, h, h, how);
    }
    norm(m, "layers.0.attention.norm");
    linear(m, "layers.0.ffn.up", ffn, f, h, pq(2, 256, true, true));
    linear(m, "layers.0.ffn.down", ffn, h, f, int4(false, false));
    norm(m, "layers.0.ffn.norm");

    let layer = "layers.1.attention";
    let square = [
        ("query", How::F32),
        ("key", How::F16),
        ("value", int4(false, true)),
        ("output", int4(true, false)),
    ];
    for (part, how) in square {
        linear(m, &format!("{layer}.{part}"), attention, h, h, how);
    }
    norm(m, "layers.1.attention.norm");
    linear(m, "layers.1.ffn.up", ffn, f, h, int8(false, false));
    linear(m, "layers.1.ffn.down", ffn, h, f, pq(64, 16, false, false));
    // Two layers may share a tensor.
    for part in ["weight", "bias"] {
        let mut shared = m.tensor(&format!("layers.0.ffn.norm.{part}")).clone();
        shared.name = format!("layers.1.ffn.norm.{part}");
        m.tensors.push(shared);
    }

    linear(m, "head.dense", head, h, h, pq(5, 32, false, true));
    linear(m, "head.labels", other, LABELS.len() as u64, h, How::F32);

    m.section(16, tokenizer(VOCABULARY).into_bytes());
    m.sections.push(Section {
        kind: 4000,
        flags: 1,
        bytes: b"from a later version".to_vec(),
    });
    m.section(17, strings(&LABELS));
    m.records.push(Record {
        id: 1,
        flags: 0,
        body: pairs(&[("tool", "by hand"), ("seed", "1")]),
    });
    m.records.push(Record {
        id: 4000,
        flags: 1,
        body: b"from a later version".to_vec(),
    });
    model
}

impl Model {
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|t| t.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn pq(&mut self, name: &str) -> &mut Pq {
        match &mut self.tensor(name).scheme {
            Scheme::Pq(pq) => pq,
            _ => panic!("{name} is not stored as pq"),
        }
    }

    pub fn scalar(&mut self, name: &str) -> &mut Scalar {
        match &mut self.tensor(name).scheme {
            Scheme::Scalar(scalar) => scalar,
            _ => panic!("{name} is not stored as int8 or int4"),
        }
    }

    pub fn bytes(&mut self, section: u32) -> &mut Vec<u8> {
        &mut self.sections[section as usize].bytes
    }

    /// The values or codes of a tensor.
    pub fn values(&mut self, name: &str) -> &mut Vec<u8> {
        let section = self.tensor(name).scheme.values();
        self.bytes(section)
    }

    /// The only section of this kind.
    pub fn only(&mut self, kind: u32) -> &mut Section {
        let found = self.sections.iter_mut().find(|s| s.kind == kind);
        found.unwrap_or_else(|| panic!("no section of kind {kind}"))
    }
}

/// One tensor of every way to store one.
pub mod names {
    pub const F32: &str = "layers.1.attention.query.weight";
    pub const F16: &str = "layers.1.attention.key.weight";
    /// 256 centroids of 4 values, `int8`, with row scales.
    pub const PQ: &str = "layers.0.attention.query.weight";
    /// 7 centroids of 3 values, `int8`.
    pub const PQ_SMALL: &str = "layers.0.attention.key.weight";
    /// 16 centroids of 4 values, `f16`, in rows.
    pub const PQ_ROWS: &str = "embeddings.token";
    pub const INT8: &str = "layers.0.attention.value.weight";
    pub const INT8_ROWS: &str = "embeddings.type";
    /// With row scales and zero points.
    pub const INT8_FULL: &str = "layers.0.attention.output.weight";
    pub const INT4: &str = "layers.0.ffn.down.weight";
    /// In rows, with row scales and zero points.
    pub const INT4_FULL: &str = "embeddings.position";
    pub const BIAS: &str = "layers.0.attention.query.bias";
}

/// How a message about a tensor starts.
pub fn named(tensor: &str) -> String {
    format!("tensor {tensor}: ")
}
