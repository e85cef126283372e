//! `centroid classify`

use centroid::{Artifact, Classification, Options, TextClassifier};
use clap::Args;
use serde::Serialize;

use super::output::one_line;
use super::texts::{Answer, Pipeline, TextArgs};
use super::{Failure, values};

/// Label texts
///
/// Prints a line a text, in the order of the input: labels and scores, the best first, then the
/// text with control characters escaped, separated by tabs. With `--json`, a line is
/// {"text", "tokens", "truncated", "labels": [{"label", "score", "logit"}, ...]}, with `--pair`
/// also "text_pair", with `--ids` also "ids".
///
/// Lines of standard input end with \n or \r\n and nothing else; an empty line is an empty text. A
/// text with too many tokens, or that is not UTF-8, is an error that names its line; the results
/// of the lines before it are printed.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid classify sentiment.centroid 'what a film' 'what a mess'\n  \
    centroid classify sentiment.centroid --json --truncate < reviews.txt\n  \
    printf 'premise\\thypothesis\\n' | centroid classify nli.centroid --pair --top-k 1\n\n\
    A text that starts with - goes after --.")]
pub struct Classify {
    #[command(flatten)]
    texts: TextArgs,
    /// Print only the best N labels [default: all]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    top_k: Option<usize>,
}

impl Classify {
    pub fn run(self) -> Result<(), Failure> {
        let most = self.top_k.unwrap_or(usize::MAX);
        self.texts
            .run::<TextClassifier>(|labels| labels.labels.truncate(most))
    }
}

#[derive(Serialize)]
pub struct Labels {
    labels: Vec<Label>,
}

#[derive(Serialize)]
struct Label {
    label: String,
    score: f32,
    logit: f32,
}

impl Pipeline for TextClassifier {
    type Value = Labels;

    fn open(artifact: Artifact, options: Options) -> centroid::Result<Self> {
        Self::new(artifact, options)
    }

    fn max_length(&self) -> usize {
        self.max_length()
    }

    fn texts(&self, texts: &[&str]) -> centroid::Result<Vec<Answer<Labels>>> {
        Ok(self.classify(texts)?.into_iter().map(answer).collect())
    }

    fn pairs(&self, pairs: &[(&str, &str)]) -> centroid::Result<Vec<Answer<Labels>>> {
        let results = self.classify_pairs(pairs)?;
        Ok(results.into_iter().map(answer).collect())
    }

    fn plain(value: &Labels, texts: &str) -> String {
        let labels = value.labels.iter();
        let labels = labels.map(|l| format!("{} {:.3}", one_line(&l.label), l.score));
        format!("{}\t{texts}", labels.collect::<Vec<_>>().join("  "))
    }
}

fn answer(result: Classification) -> Answer<Labels> {
    let labels = result.labels.into_iter().map(|label| Label {
        label: label.label,
        score: label.score,
        logit: label.logit,
    });
    Answer {
        tokens: result.tokens,
        truncated: result.truncated,
        ids: result.ids,
        value: Labels {
            labels: labels.collect(),
        },
    }
}
