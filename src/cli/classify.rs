//! `centroid classify`

use centroid::{
    Artifact, Classification, ImageClassifier, LabelScore, ModelKind, Options, TextClassifier,
};
use clap::Args;
use serde::Serialize;

use super::output::{Out, one_line};
use super::texts::{Answer, Pictures, Pipeline, TextArgs};
use super::{Failure, values};

/// Label texts, or pictures
///
/// Prints a line a text, in the order of the input: labels and scores, the best first, then the
/// text with control characters escaped, separated by tabs. With `--json`, a line is
/// {"text", "tokens", "truncated", "labels": [{"label", "score", "logit"}, ...]}, with `--pair`
/// also "text_pair", with `--ids` also "ids".
///
/// Lines of standard input end with \n or \r\n and nothing else; an empty line is an empty text. A
/// text with too many tokens, or that is not UTF-8, is an error that names its line; the results
/// of the lines before it are printed.
///
/// With a model of images the arguments are files (JPEG, PNG, WebP). A line is the best five labels and
/// the file's name, or {"file", "labels"}.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid classify sentiment.centroid 'what a film' 'what a mess'\n  \
    centroid classify sentiment.centroid --json --truncate < reviews.txt\n  \
    printf 'premise\\thypothesis\\n' | centroid classify nli.centroid --pair --top-k 1\n  \
    centroid classify efficientnet.centroid holiday/*.jpg\n\n\
    A text that starts with - goes after --.")]
pub struct Classify {
    #[command(flatten)]
    texts: TextArgs,
    /// Print only the best N labels [default: all; of pictures 5]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    top_k: Option<usize>,
}

impl Classify {
    pub fn run(self) -> Result<(), Failure> {
        let artifact = Artifact::open(self.texts.file())?;
        if artifact.kind()? == ModelKind::EfficientNet {
            return images(artifact, self.texts.pictures()?, self.top_k.unwrap_or(5));
        }
        let most = self.top_k.unwrap_or(usize::MAX);
        self.texts
            .run::<TextClassifier>(|labels| labels.labels.truncate(most))
    }
}

/// Labels pictures, one after another.
fn images(artifact: Artifact, pictures: Pictures, most: usize) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Line<'a> {
        file: &'a str,
        #[serde(flatten)]
        labels: Labels,
    }

    let model = ImageClassifier::new(artifact, pictures.options)?;
    let mut out = Out::new();
    for file in &pictures.files {
        let result = model
            .classify(std::slice::from_ref(file))
            .map(|mut found| found.remove(0));
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                out.flush()?;
                return Err(error.into());
            }
        };
        let labels = labels(result.labels.into_iter().take(most));
        let name = file.to_string_lossy();
        if pictures.json {
            out.json_line(&Line {
                file: &name,
                labels,
            })?;
        } else {
            let line = TextClassifier::plain(&labels, &one_line(&name));
            out.line(format_args!("{line}"))?;
        }
    }
    out.flush()
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

fn labels(scores: impl Iterator<Item = LabelScore>) -> Labels {
    let labels = scores.map(|label| Label {
        label: label.label,
        score: label.score,
        logit: label.logit,
    });
    Labels {
        labels: labels.collect(),
    }
}

fn answer(result: Classification) -> Answer<Labels> {
    Answer {
        tokens: result.tokens,
        truncated: result.truncated,
        ids: result.ids,
        value: labels(result.labels.into_iter()),
    }
}
