//! Labelled texts: divided, tokenized and put into batches.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::encoder::Text;
use super::mix;
use super::recipe::{Data, Part};
use crate::data::{self, Columns, Example};
use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::quant::rng::Rng;
use crate::text::{Tokenizer, Truncation};

/// Batches whose texts are sorted by length together, so that little is padded and batches still differ
/// from epoch to epoch.
const SORTED: usize = 50;

/// Examples by what they are for.
pub(super) struct Division {
    pub(super) train: Vec<Example>,
    pub(super) unlabelled: Vec<Example>,
    pub(super) validation: Vec<Example>,
    pub(super) test: Vec<Example>,
    /// All labels of the training texts, sorted; none if there is no column of labels.
    pub(super) labels: Vec<String>,
    /// Sentences on what was found.
    pub(super) notes: Vec<String>,
    /// SHA-256 of the file; of more than one, of their digests one after the other, in hexadecimal digits: tests,
    /// validation, training, without labels, and behind each file those of its pictures.
    pub(super) digest: String,
}

impl Division {
    pub(super) fn read(data: &Data) -> Result<Self> {
        // Of images the paths are what texts are.
        let column = data.image.as_deref().or(data.text.as_deref());
        let columns = Columns {
            text: column.unwrap_or_default(),
            text_b: data.text_b.as_deref(),
            label: data.label.as_deref(),
        };
        let noun = noun(data);
        let mut notes = Vec::new();
        let mut hashed = Vec::new();
        let mut seen: HashMap<_, String> = HashMap::new();
        // The same to a reader, though not byte by byte: of images by their files' digests.
        let mut alike: HashSet<String> = HashSet::new();
        let mut digests: HashMap<String, String> = HashMap::new();
        // Texts for test come first, so that none of them is trained with.
        let mut load = |path: &Path, what: &str, columns: &Columns| -> Result<Vec<Example>> {
            let bytes = data::bytes(path)?;
            hashed.push(super::digest(&bytes));
            let mut all = data::parse(path, &bytes, columns)?;
            if data.image.is_some() {
                let directory = path.parent().unwrap_or(Path::new(""));
                for example in &mut all {
                    let file = directory.join(&example.text);
                    if !file.is_file() {
                        let message = format!("line {}: there is no such file", example.line);
                        return Err(Error::new(ErrorKind::Input, message).in_file(file));
                    }
                    let bytes = image::read(&file)?;
                    let digest = super::digest(&bytes);
                    hashed.push(digest.clone());
                    example.text = file.to_string_lossy().into_owned();
                    digests.insert(example.text.clone(), digest);
                }
            }
            let before = all.len();
            let key = |example: &Example| (example.text.clone(), example.text_b.clone());
            let folded = |example: &Example| match digests.get(&example.text) {
                Some(digest) => digest.clone(),
                None => {
                    let second = example.text_b.as_deref().unwrap_or_default();
                    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                    // No word holds a line break.
                    format!("{}\n{}", words(&example.text), words(second)).to_lowercase()
                }
            };
            let mut kept = Vec::with_capacity(before);
            let (mut contrary, mut like) = (0, 0);
            for example in all {
                match seen.entry(key(&example)) {
                    Entry::Vacant(entry) => {
                        entry.insert(example.label.clone());
                        like += usize::from(!alike.insert(folded(&example)));
                        kept.push(example);
                    }
                    Entry::Occupied(entry) => {
                        contrary +=
                            usize::from(columns.label.is_some() && *entry.get() != example.label);
                    }
                }
            }
            if kept.len() < before {
                let again = before - kept.len();
                let with = match contrary {
                    0 => String::new(),
                    n => format!(" ({n} of them with another label)"),
                };
                notes.push(format!(
                    "{what}: {again} {noun} were there before{with} and are left out"
                ));
            }
            if like > 0 {
                let how = match data.image {
                    Some(_) => "have the same bytes as an earlier one",
                    None => "are an earlier one but for case and spaces",
                };
                notes.push(format!(
                    "{what}: {like} {noun} {how}: training and test may share them"
                ));
            }
            if kept.is_empty() {
                let message = format!("all {noun} are in the other files, too");
                return Err(Error::new(ErrorKind::Input, message).in_file(path));
            }
            Ok(kept)
        };
        let mut test = match &data.test {
            Part::File(file) => load(file, "test", &columns)?,
            _ => Vec::new(),
        };
        let mut validation = match &data.validation {
            Part::File(file) => load(file, "validation", &columns)?,
            _ => Vec::new(),
        };
        let mut train = load(&data.train, "train", &columns)?;
        let unlabelled = match &data.unlabelled {
            Some(file) => {
                let columns = Columns {
                    label: None,
                    ..columns
                };
                load(file, "unlabelled", &columns)?
            }
            None => Vec::new(),
        };
        shuffle(&mut train, &mut Rng::new(mix(&[data.seed, 1])));
        match &data.test {
            Part::Share(share) => test = train.split_off(train.len() - part(&train, *share)),
            &Part::Fold { of, .. } if of > train.len() => {
                let message = format!("{of} folds of {} {noun}: test may have none", train.len());
                return Err(Error::new(ErrorKind::Input, message).in_file(&data.train));
            }
            &Part::Fold { fold, of } => {
                let start = |fold: usize| fold * train.len() / of;
                let range = start(fold)..start(fold + 1);
                test = train.drain(range).collect();
            }
            Part::File(_) => {}
        }
        if let Part::Share(share) = data.validation {
            validation = train.split_off(train.len() - part(&train, share));
        }
        let mut division = Self {
            labels: Vec::new(),
            digest: match &hashed[..] {
                [only] => only.clone(),
                _ => super::digest(hashed.concat().as_bytes()),
            },
            train,
            unlabelled,
            validation,
            test,
            notes,
        };
        if !division.unlabelled.is_empty() {
            let count = division.unlabelled.len();
            division.notes.push(format!("unlabelled: {count} {noun}"));
        }
        if division.train.is_empty() {
            let message = format!("no {noun} are left to train with");
            return Err(Error::new(ErrorKind::Input, message).in_file(&data.train));
        }
        match data.label {
            Some(_) => division.check(&data.train, noun)?,
            None => division.count(noun),
        }
        Ok(division)
    }

    /// Notes how many examples there are, without labels.
    fn count(&mut self, noun: &str) {
        for (name, examples) in [
            ("train", &self.train),
            ("validation", &self.validation),
            ("test", &self.test),
        ] {
            self.notes
                .push(format!("{name}: {} {noun}", examples.len()));
        }
    }

    /// Settles labels; each must be learnt, and there must be two.
    fn check(&mut self, file: &Path, noun: &str) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Input, message).in_file(file));
        self.labels = counts(&self.train).into_keys().map(str::to_owned).collect();
        if let [only] = &self.labels[..] {
            return wrong(format!("all training {noun} have the label {only:?}"));
        }
        for (name, examples) in [("validation", &self.validation), ("test", &self.test)] {
            let known = |example: &&Example| self.labels.binary_search(&example.label).is_err();
            if let Some(example) = examples.iter().find(known) {
                return wrong(format!(
                    "the label {:?} (line {} of {name}) is in no training {}",
                    example.label,
                    example.line,
                    noun.trim_end_matches('s')
                ));
            }
        }
        for (name, examples) in [
            ("train", &self.train),
            ("validation", &self.validation),
            ("test", &self.test),
        ] {
            let counts = counts(examples);
            let most = counts.values().max().copied().unwrap_or(0);
            let shares: Vec<String> = (counts.iter())
                .map(|(label, count)| format!("{label} {count}"))
                .collect();
            self.notes.push(format!(
                "{name}: {} {noun} ({}); always the same answer would be right in {:.1} %",
                examples.len(),
                shares.join(", "),
                100.0 * most as f64 / examples.len().max(1) as f64
            ));
        }
        Ok(())
    }
}

/// What examples are.
fn noun(data: &Data) -> &'static str {
    match data.image {
        None => "texts",
        Some(_) => "images",
    }
}

fn counts(examples: &[Example]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for example in examples {
        *counts.entry(&*example.label).or_insert(0) += 1;
    }
    counts
}

fn part(examples: &[Example], share: f64) -> usize {
    (examples.len() as f64 * share).round() as usize
}

fn shuffle<T>(values: &mut [T], rng: &mut Rng) {
    for i in (1..values.len()).rev() {
        values.swap(i, rng.below(i + 1));
    }
}

/// Token ids of examples, and how many texts were cut. Without labels their numbers are 0, and mean nothing.
pub(super) fn tokenize(
    examples: &[Example],
    tokenizer: &Tokenizer,
    labels: &[String],
    limit: usize,
) -> Result<(Vec<Text>, usize)> {
    let numbers: HashMap<&str, i64> = labels.iter().map(String::as_str).zip(0..).collect();
    let mut cut = 0;
    let texts = examples.iter().map(|example| {
        let pair = example.text_b.as_deref();
        let encoded = tokenizer
            .encode(&example.text, pair, limit, Truncation::Truncate)
            .map_err(|e| Error::new(e.kind(), format!("line {}: {}", example.line, e.message())))?;
        cut += usize::from(encoded.truncated);
        Ok(Text {
            ids: encoded.ids,
            types: encoded.type_ids,
            label: numbers.get(&*example.label).copied().unwrap_or(0),
        })
    });
    let texts: Result<Vec<Text>> = texts.collect();
    Ok((texts?, cut))
}

/// Numbers of the examples of each batch of an epoch; the last one may be smaller.
pub(super) fn batches<E>(
    examples: &[E],
    length: fn(&E) -> usize,
    size: usize,
    seed: u64,
) -> Vec<Vec<usize>> {
    let mut rng = Rng::new(seed);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    shuffle(&mut order, &mut rng);
    for window in order.chunks_mut(size * SORTED) {
        window.sort_by_key(|&number| length(&examples[number]));
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
    shuffle(&mut batches, &mut rng);
    batches
}

/// Numbers of examples in batches by length, for evaluation.
pub(super) fn by_length<E>(
    examples: &[E],
    length: fn(&E) -> usize,
    size: usize,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&number| length(&examples[number]));
    order.chunks(size).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
#[path = "tests/examples.rs"]
mod tests;
