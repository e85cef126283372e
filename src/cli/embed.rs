//! `centroid embed`

use centroid::{Artifact, Embedding, Options, SentenceEmbedder};
use clap::Args;
use serde::Serialize;

use super::Failure;
use super::texts::{Answer, Pipeline, TextArgs};

/// Turn texts into vectors
///
/// Prints a line a text, in the order of the input: its values, separated by spaces, each with as
/// many digits as its 32 bits need. With `--json`, a line is
/// {"text", "tokens", "truncated", "embedding": [...]}, with `--pair` also "text_pair", with
/// `--ids` also "ids".
///
/// Lines of standard input end with \n or \r\n and nothing else; an empty line is an empty text. A
/// text with too many tokens, or that is not UTF-8, is an error that names its line; the results
/// of the lines before it are printed.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid embed minilm.centroid 'a query'\n  \
    centroid embed minilm.centroid --json --truncate < passages.txt > vectors.jsonl\n\n\
    A text that starts with - goes after --.")]
pub struct Embed {
    #[command(flatten)]
    texts: TextArgs,
}

impl Embed {
    pub fn run(self) -> Result<(), Failure> {
        self.texts.run::<SentenceEmbedder>(|_| ())
    }
}

#[derive(Serialize)]
pub struct Vector {
    embedding: Vec<f32>,
}

impl Pipeline for SentenceEmbedder {
    type Value = Vector;

    fn open(artifact: Artifact, options: Options) -> centroid::Result<Self> {
        Self::new(artifact, options)
    }

    fn max_length(&self) -> usize {
        self.max_length()
    }

    fn texts(&self, texts: &[&str]) -> centroid::Result<Vec<Answer<Vector>>> {
        Ok(self.embed(texts)?.into_iter().map(answer).collect())
    }

    fn pairs(&self, pairs: &[(&str, &str)]) -> centroid::Result<Vec<Answer<Vector>>> {
        let results = self.embed_pairs(pairs)?;
        Ok(results.into_iter().map(answer).collect())
    }

    fn plain(value: &Vector, _: &str) -> String {
        let values: Vec<String> = value.embedding.iter().map(f32::to_string).collect();
        values.join(" ")
    }
}

fn answer(result: Embedding) -> Answer<Vector> {
    Answer {
        tokens: result.tokens,
        truncated: result.truncated,
        ids: result.ids,
        value: Vector {
            embedding: result.vector,
        },
    }
}
