//! Labelled texts: reading them from files with named columns, and counting right answers.
//!
//! Three formats, told apart by the end of a file's name:
//!
//! | name | format |
//! |---|---|
//! | `.tsv` | a header, then fields separated by tabs; quotation marks are text like any other |
//! | `.csv` | a header, then fields separated by commas, quoted as in RFC 4180 where they need it |
//! | `.jsonl`, `.ndjson` | JSON Lines: an object a line |
//!
//! Files are UTF-8, with or without a byte order mark.

mod scores;

use std::io::Read;
use std::path::Path;

pub use scores::{LabelScores, Scores};

use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// A byte order mark, in UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();
/// Bytes of the longest file: it is read whole.
const LIMIT: u64 = 4 << 30;

/// The names of the columns (or JSON keys) to read.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// The text.
    pub text: &'a str,
    /// The second text, where examples are pairs.
    pub text_b: Option<&'a str>,
    /// The label, where examples have one.
    pub label: Option<&'a str>,
}

/// A text and, where columns were given one, its label.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Example {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_b: Option<String>,
    /// The label: empty only if none was asked for.
    pub label: String,
    /// The line of the file on which the example starts, from 1.
    pub line: u64,
}

/// All examples of a file, in its order.
///
/// In JSON Lines a text is a string, and a label a string, an integer or a boolean. Empty lines are
/// skipped; other columns are not looked at.
///
/// # Errors
/// [`ErrorKind::Io`] if the file cannot be read or is no regular one, [`ErrorKind::Input`] if it has more
/// than 4 GiB, its name has another ending, a column is missing, there twice or asked for twice, a line has too few or too
/// many fields, is not UTF-8 or not JSON, or has no label, or if there are no examples. Errors name the file
/// and the line.
///
/// ```
/// use centroid::data::{Columns, read};
/// # let directory = std::env::temp_dir().join(format!("centroid-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let file = directory.join("reviews.tsv");
/// std::fs::write(&file, "sentence\tlabel\na joy\tpositive\n")?;
/// let columns = Columns { text: "sentence", text_b: None, label: Some("label") };
/// let examples = read(&file, &columns)?;
/// assert_eq!(examples[0].text, "a joy");
/// assert_eq!((&*examples[0].label, examples[0].line), ("positive", 2));
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read(path: impl AsRef<Path>, columns: &Columns) -> Result<Vec<Example>> {
    let path = path.as_ref();
    parse(path, &bytes(path)?, columns)
}

/// The bytes of a file of examples.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    files::regular(path, LIMIT)
}

/// All examples in a file's bytes.
pub(crate) fn parse(path: &Path, bytes: &[u8], columns: &Columns) -> Result<Vec<Example>> {
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let Columns {
        text,
        text_b,
        label,
    } = *columns;
    if text_b == Some(text) || label == Some(text) || (label.is_some() && label == text_b) {
        let message = "the texts and the label are to be in columns of their own";
        return Err(input(message).in_file(path));
    }
    let examples = match path.extension().and_then(|end| end.to_str()) {
        Some("tsv") => separated(bytes, columns, b'\t'),
        Some("csv") => separated(bytes, columns, b','),
        Some("jsonl" | "ndjson") => json_lines(bytes, columns),
        _ => Err(input(
            "the name ends in none of .tsv, .csv, .jsonl, .ndjson",
        )),
    };
    let examples = examples.map_err(|error| error.in_file(path))?;
    if examples.is_empty() {
        return Err(input("there are no examples").in_file(path));
    }
    Ok(examples)
}

fn input(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Input, message)
}

fn on(line: u64, message: impl std::fmt::Display) -> Error {
    input(format!("line {line}: {message}"))
}

impl Columns<'_> {
    fn example(&self, line: u64, mut value: impl FnMut(&str) -> Result<String>) -> Result<Example> {
        let label = self.label.map(&mut value).transpose()?;
        if label.as_deref() == Some("") {
            return Err(on(line, "the label is empty"));
        }
        Ok(Example {
            text: value(self.text)?,
            text_b: self.text_b.map(value).transpose()?,
            label: label.unwrap_or_default(),
            line,
        })
    }
}

fn separated(bytes: &[u8], columns: &Columns, delimiter: u8) -> Result<Vec<Example>> {
    if bytes.trim_ascii().is_empty() {
        return Err(input("the file is empty"));
    }
    let mut options = csv::ReaderBuilder::new();
    options.delimiter(delimiter).quoting(delimiter == b',');
    let header = (options.from_reader(bytes))
        .headers()
        .map_err(|e| failure(e, 1))?
        .clone();
    let place = |name: &str| {
        let mut places = (0..header.len()).filter(|&at| &header[at] == name);
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(place),
            (Some(_), Some(_)) => Err(input(format!("column {name:?} is there twice"))),
            (None, _) => {
                let names: Vec<_> = header.iter().map(|name| format!("{name:?}")).collect();
                let names = names.join(", ");
                Err(input(format!(
                    "there is no column {name:?}; there are: {names}"
                )))
            }
        }
    };
    let wanted = [Some(columns.text), columns.text_b, columns.label];
    for name in wanted.into_iter().flatten() {
        place(name)?;
    }
    // A last record of our own: a quoted field that never ends would swallow it.
    let end = format!(
        "\n{}\n",
        vec!["end"; header.len()].join(&char::from(delimiter).to_string())
    );
    let mut lines = Lines {
        bytes,
        at: 0,
        line: 1,
    };
    let mut reader = options.from_reader(bytes.chain(end.as_bytes()));
    let mut examples = Vec::new();
    let (mut ended, mut last) = (false, 1);
    for record in reader.byte_records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(last, |at| lines.of(at.byte()));
            failure(error, line)
        })?;
        let at = record.position().map_or(0, csv::Position::byte);
        last = lines.of(at);
        let record = csv::StringRecord::from_byte_record(record).map_err(|error| {
            let error = error.utf8_error();
            let (field, at) = (error.field() + 1, error.valid_up_to());
            let message = format!("field {field} is not UTF-8 from its byte {at} on");
            on(last, message)
        })?;
        ended = lines.is_end(at) && record.iter().all(|field| field == "end");
        if !ended {
            let value = |name: &str| Ok(record[place(name)?].to_owned());
            examples.push(columns.example(last, value)?);
        }
    }
    if !ended {
        return Err(on(
            last,
            "a field is quoted and has no closing quotation mark",
        ));
    }
    Ok(examples)
}

/// Counts lines: the csv crate loses count where it skips empty ones.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first record at byte `from` or after, which never goes back.
    fn of(&mut self, from: u64) -> u64 {
        let from = usize::try_from(from)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        while self.at < self.bytes.len()
            && (self.at < from || matches!(self.bytes[self.at], b'\n' | b'\r'))
        {
            self.line += u64::from(self.bytes[self.at] == b'\n');
            self.at += 1;
        }
        self.line
    }

    /// Whether no record is at byte `from` or after.
    fn is_end(&self, from: u64) -> bool {
        let from = usize::try_from(from)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        self.bytes[from..]
            .iter()
            .all(|byte| matches!(byte, b'\n' | b'\r'))
    }
}

fn failure(error: csv::Error, line: u64) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Utf8 { err, .. } => {
            let (field, at) = (err.field() + 1, err.valid_up_to());
            on(
                line,
                format!("field {field} is not UTF-8 from its byte {at} on"),
            )
        }
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => on(
            line,
            format!("{len} fields where the header has {expected_len}"),
        ),
        other => on(line, format!("{other:?}")),
    }
}

/// An object each of whose keys is there once: which of two values is meant, nobody knows.
struct Once(serde_json::Map<String, serde_json::Value>);

impl<'de> serde::Deserialize<'de> for Once {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Keys;

        impl<'de> serde::de::Visitor<'de> for Keys {
            type Value = Once;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut pairs: A,
            ) -> std::result::Result<Once, A::Error> {
                let mut object = serde_json::Map::new();
                while let Some((key, value)) = pairs.next_entry::<String, _>()? {
                    if object.contains_key(&key) {
                        let message = format!("the key {key:?} is there twice");
                        return Err(serde::de::Error::custom(message));
                    }
                    object.insert(key, value);
                }
                Ok(Once(object))
            }
        }

        from.deserialize_map(Keys)
    }
}

fn json_lines(bytes: &[u8], columns: &Columns) -> Result<Vec<Example>> {
    use serde_json::Value;
    let mut examples = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let Once(object) = serde_json::from_slice(text).map_err(|error| {
            // Its own line is always the first.
            let (message, column) = (error.to_string(), error.column());
            let message = message.replace(&format!(" at line 1 column {column}"), "");
            on(line, format!("{message} at column {column}"))
        })?;
        let value = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Bool(label)) if Some(name) == columns.label => Ok(label.to_string()),
            Some(Value::Number(label)) if Some(name) == columns.label && !label.is_f64() => {
                Ok(label.to_string())
            }
            Some(_) if Some(name) == columns.label => Err(on(
                line,
                format!("{name:?} is not a string, an integer or a boolean"),
            )),
            Some(_) => Err(on(line, format!("{name:?} is not a string"))),
            None => Err(on(line, format!("there is no key {name:?}"))),
        };
        examples.push(columns.example(line, value)?);
    }
    Ok(examples)
}

#[cfg(test)]
mod tests;
