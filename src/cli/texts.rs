//! What `classify` and `embed` have in common: flags, and the loop over the input.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use centroid::{Artifact, Options};
use clap::Args;
use serde::Serialize;

use super::Failure;
use super::input::{Input, Item};
use super::options::{ModelArgs, note_cut};
use super::output::{Out, one_line};

#[derive(Args)]
pub struct TextArgs {
    /// The `.centroid` file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Texts (of a model of images: files); without any, or with `-` alone, standard input is read: one
    /// text a line
    #[arg(value_name = "TEXT")]
    texts: Vec<OsString>,
    #[command(flatten)]
    model: ModelArgs,
    /// Each text is a pair, separated by a tab
    #[arg(long)]
    pair: bool,
    /// Print a JSON object a text (JSON Lines)
    #[arg(long)]
    json: bool,
    /// Print token ids, too
    #[arg(long)]
    ids: bool,
}

/// What a pipeline says about a text.
pub struct Answer<T> {
    pub tokens: usize,
    pub truncated: bool,
    pub ids: Vec<u32>,
    pub value: T,
}

/// A pipeline, as the loop sees it.
pub trait Pipeline {
    /// What JSON has beyond text and tokens.
    type Value: Serialize;
    fn open(artifact: Artifact, options: Options) -> centroid::Result<Self>
    where
        Self: Sized;
    fn max_length(&self) -> usize;
    fn texts(&self, texts: &[&str]) -> centroid::Result<Vec<Answer<Self::Value>>>;
    fn pairs(&self, pairs: &[(&str, &str)]) -> centroid::Result<Vec<Answer<Self::Value>>>;
    /// A line for people; `texts` is to follow the values where it helps.
    fn plain(value: &Self::Value, texts: &str) -> String;
}

#[derive(Serialize)]
struct Line<'a, T> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
    tokens: usize,
    truncated: bool,
    #[serde(flatten)]
    value: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<&'a [u32]>,
}

/// The same for pictures.
pub struct Pictures {
    pub files: Vec<OsString>,
    pub options: Options,
    pub json: bool,
}

impl TextArgs {
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The arguments as those of a model of images.
    ///
    /// # Errors
    /// If a flag is for texts, or no picture is named.
    pub fn pictures(self) -> Result<Pictures, Failure> {
        let given = [(self.pair, "--pair"), (self.ids, "--ids")];
        let text = given.into_iter().find(|(given, _)| *given);
        if let Some(flag) = text.map(|(_, flag)| flag).or(self.model.of_texts()) {
            let message = format!("{flag} is for models of texts, and this is one of images");
            return Err(Failure::Usage(message));
        }
        if self.texts.is_empty() || self.texts == ["-"] {
            let message = "a model of images: name the pictures' files";
            return Err(Failure::Usage(message.into()));
        }
        Ok(Pictures {
            files: self.texts,
            options: self.model.options(),
            json: self.json,
        })
    }

    pub fn run<P: Pipeline>(self, prepare: impl Fn(&mut P::Value)) -> Result<(), Failure> {
        let model = P::open(Artifact::open(&self.file)?, self.model.options())?;
        let mut input = Input::new(self.texts, self.pair);
        let mut out = Out::new();
        let mut cut = 0;
        loop {
            let (items, failure) = input.block();
            if items.is_empty() && failure.is_none() {
                break;
            }
            let (answers, failed) = answer(&model, &items);
            for (item, mut answer) in items.iter().zip(answers) {
                cut += usize::from(answer.truncated);
                prepare(&mut answer.value);
                if self.json {
                    out.json_line(&Line {
                        text: &item.text,
                        text_pair: item.pair.as_deref(),
                        tokens: answer.tokens,
                        truncated: answer.truncated,
                        value: &answer.value,
                        ids: self.ids.then_some(&answer.ids),
                    })?;
                } else {
                    let line = plain::<P>(item, &answer, self.ids);
                    out.line(format_args!("{line}"))?;
                }
            }
            out.flush()?;
            if let Some(failure) = failed.or(failure) {
                return Err(failure);
            }
        }
        note_cut(cut, model.max_length());
        Ok(())
    }
}

/// The answers to a block, up to the first text without one.
fn answer<P: Pipeline>(model: &P, items: &[Item]) -> (Vec<Answer<P::Value>>, Option<Failure>) {
    if let Ok(answers) = batch(model, items) {
        return (answers, None);
    }
    // One by one, to tell which text it is and to answer those in front of it. Results do not
    // depend on the batch.
    let mut answers = Vec::new();
    for item in items {
        match batch(model, std::slice::from_ref(item)) {
            Ok(one) => answers.extend(one),
            Err(error) => {
                let message = match error.text() {
                    Some(_) => error.message().to_owned(),
                    None => error.to_string(),
                };
                let failure = Failure::Failed(format!("{}: {message}", item.place));
                return (answers, Some(failure));
            }
        }
    }
    (answers, None)
}

fn batch<P: Pipeline>(model: &P, items: &[Item]) -> centroid::Result<Vec<Answer<P::Value>>> {
    match items.first() {
        Some(Item { pair: Some(_), .. }) => {
            let pairs = items.iter();
            let pairs = pairs.map(|i| (&i.text[..], i.pair.as_deref().unwrap_or_default()));
            model.pairs(&pairs.collect::<Vec<_>>())
        }
        _ => {
            let texts: Vec<&str> = items.iter().map(|item| &item.text[..]).collect();
            model.texts(&texts)
        }
    }
}

fn plain<P: Pipeline>(item: &Item, answer: &Answer<P::Value>, ids: bool) -> String {
    let mut texts = one_line(&item.text);
    if let Some(pair) = &item.pair {
        texts += "\t";
        texts += &one_line(pair);
    }
    let mut line = P::plain(&answer.value, &texts);
    if ids {
        let ids: Vec<String> = answer.ids.iter().map(u32::to_string).collect();
        line += "\t";
        line += &ids.join(" ");
    }
    line
}
