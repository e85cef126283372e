//! A checkpoint of two layers, and sentences that say what they think.

use std::fs;
use std::path::{Path, PathBuf};

const WORDS: [&str; 24] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "some", "film", "plot", "actor",
    "scene", "was", "is", "very", "really", "great", "fine", "lovely", "good", "awful", "poor",
    "dull", "weak",
];
pub const HIDDEN: usize = 64;
const FFN: usize = 128;
const POSITIONS: usize = 16;

/// A directory that is gone when this value is.
pub struct Tiny(tempfile::TempDir);

impl Tiny {
    /// With `model`, a checkpoint of random weights, and `data.tsv`.
    pub fn new() -> Self {
        Self::with_positions(POSITIONS)
    }

    /// A model for so many tokens.
    pub fn with_positions(positions: usize) -> Self {
        let tiny = Self(tempfile::tempdir().unwrap());
        checkpoint(&tiny.path("model"), positions);
        let mut numbers = Numbers(7);
        let mut lines = String::from("text\tlabel\n");
        for _ in 0..600 {
            let mut of = |from: usize, to: usize| WORDS[from + numbers.below(to - from)];
            let good = of(0, 2) == "[PAD]";
            let opinion = if good { of(16, 20) } else { of(20, 24) };
            let words = [of(5, 8), of(8, 12), of(12, 14), of(14, 16), opinion];
            // Not all the same length.
            let from = if of(0, 2) == "[PAD]" { 0 } else { 1 };
            let label = if good { "good" } else { "bad" };
            lines += &format!("{}\t{label}\n", words[from..].join(" "));
        }
        fs::write(tiny.path("data.tsv"), lines).unwrap();
        tiny
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// 16 centroids: a codebook has to have fewer of them than a tiny matrix has blocks.
    pub fn plan(&self) -> String {
        let group = |name: &str| format!("[plan.groups.{name}]\ncentroids = 16\nblock = 4\n");
        ["ffn", "attention", "embedding"].map(group).concat() + "codebooks = 4\n"
    }

    /// Writes a run and returns its path: `keys` come first in the file, `plan` is a table or nothing.
    pub fn recipe(&self, output: &str, keys: &str, plan: &str, stages: &str) -> PathBuf {
        let text = format!(
            "model = \"model\"\noutput = \"{output}\"\nbatch = 16\n{keys}\n[data]\ntrain = \"data.tsv\"\n\
             text = \"text\"\nlabel = \"label\"\n\n{plan}\n{stages}"
        );
        let path = self.path(&format!("{output}.toml"));
        fs::write(&path, text).unwrap();
        path
    }
}

fn checkpoint(directory: &Path, positions: usize) {
    fs::create_dir(directory).unwrap();
    fs::write(directory.join("vocab.txt"), WORDS.join("\n") + "\n").unwrap();
    let config = format!(
        "{{\"model_type\": \"bert\", \"architectures\": [\"BertModel\"], \"vocab_size\": {}, \
         \"hidden_size\": {HIDDEN}, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \
         \"intermediate_size\": {FFN}, \"max_position_embeddings\": {positions}, \"type_vocab_size\": 2, \
         \"hidden_act\": \"gelu\", \"layer_norm_eps\": 1e-12, \"pad_token_id\": 0}}",
        WORDS.len()
    );
    fs::write(directory.join("config.json"), config).unwrap();
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        (
            "embeddings.word_embeddings.weight".into(),
            vec![WORDS.len(), HIDDEN],
        ),
        (
            "embeddings.position_embeddings.weight".into(),
            vec![positions, HIDDEN],
        ),
        (
            "embeddings.token_type_embeddings.weight".into(),
            vec![2, HIDDEN],
        ),
    ];
    let norm = |name: String, tensors: &mut Vec<(String, Vec<usize>)>| {
        tensors.push((format!("{name}.weight"), vec![HIDDEN]));
        tensors.push((format!("{name}.bias"), vec![HIDDEN]));
    };
    norm("embeddings.LayerNorm".into(), &mut tensors);
    for layer in 0..2 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, rows, columns) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", FFN, HIDDEN),
            ("output.dense", HIDDEN, FFN),
        ] {
            tensors.push((format!("{}.weight", name(part)), vec![rows, columns]));
            tensors.push((format!("{}.bias", name(part)), vec![rows]));
        }
        norm(name("attention.output.LayerNorm"), &mut tensors);
        norm(name("output.LayerNorm"), &mut tensors);
    }
    let mut numbers = Numbers(3);
    let values: Vec<(String, Vec<usize>, Vec<u8>)> = (tensors.into_iter())
        .map(|(name, shape)| {
            let len = shape.iter().product();
            let value = |_| match (name.contains("LayerNorm.weight"), shape.len()) {
                (true, _) => 1.0f32,
                (_, 1) => 0.0,
                _ => 0.2 * (numbers.uniform() + numbers.uniform() - 1.0),
            };
            let bytes = (0..len).map(value).flat_map(f32::to_le_bytes).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = values.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name, view.unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(directory.join("model.safetensors"), bytes).unwrap();
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }
}
