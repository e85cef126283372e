//! Texts from arguments and from standard input, in blocks of bounded size.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, StdinLock};
use std::vec;

use super::Failure;

/// A longer line is an error: without newlines, an input of any size would be one text.
const MAX_LINE_BYTES: usize = 16 << 20;
const BLOCK_TEXTS: usize = 64;
const BLOCK_BYTES: usize = 1 << 20;

/// A text, or a pair of texts, and where it stood.
pub struct Item {
    pub place: String,
    pub text: String,
    pub pair: Option<String>,
}

/// Lines of bytes. Only `\n` and `\r\n` end one; a last line without either counts.
pub struct Lines<R> {
    reader: BufReader<R>,
    number: usize,
}

impl<R: Read> Lines<R> {
    pub fn new(reader: R) -> Self {
        Self {
            // More than the buffer that standard input has of its own, which is thereby skipped.
            reader: BufReader::with_capacity(1 << 16, reader),
            number: 0,
        }
    }

    /// The next line and its number from 1.
    pub fn next(&mut self) -> Option<(usize, Result<String, String>)> {
        self.number += 1;
        let mut line = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line);
        let text = match read {
            Ok(0) => return None,
            Err(error) => Err(format!("reading failed: {error}")),
            Ok(_) => {
                if line.pop_if(|last| *last == b'\n').is_some() {
                    line.pop_if(|last| *last == b'\r');
                }
                match line.len() {
                    0..=MAX_LINE_BYTES => utf8(line),
                    _ => Err(format!("the line is longer than {MAX_LINE_BYTES} bytes")),
                }
            }
        };
        Some((self.number, text))
    }

    /// Whether a whole line has arrived: the next one can be had without waiting.
    fn ready(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!(
            "invalid UTF-8 at byte {at} (0x{:02x})",
            error.as_bytes()[at]
        )
    })
}

enum Source {
    Arguments(vec::IntoIter<OsString>, usize),
    Lines(Lines<StdinLock<'static>>),
}

/// The texts to work on.
pub struct Input {
    source: Source,
    pairs: bool,
}

impl Input {
    /// The arguments; standard input if there are none, or if `-` is the only one.
    pub fn new(arguments: Vec<OsString>, pairs: bool) -> Self {
        let source = match &arguments[..] {
            [] => Source::Lines(Lines::new(io::stdin().lock())),
            [only] if only == "-" => Source::Lines(Lines::new(io::stdin().lock())),
            _ => Source::Arguments(arguments.into_iter(), 0),
        };
        Self { source, pairs }
    }

    /// The next texts, none at the end, and the failure that stands behind them.
    ///
    /// A block ends where the next line would have to be waited for, so that a program that writes
    /// a line and reads its result is served at once.
    pub fn block(&mut self) -> (Vec<Item>, Option<Failure>) {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < BLOCK_TEXTS && bytes < BLOCK_BYTES {
            match self.item() {
                None => break,
                Some(Err(message)) => return (items, Some(Failure::Failed(message))),
                Some(Ok(item)) => {
                    bytes += item.text.len() + item.pair.as_ref().map_or(0, String::len);
                    items.push(item);
                }
            }
            if let Source::Lines(lines) = &self.source
                && !lines.ready()
            {
                break;
            }
        }
        (items, None)
    }

    fn item(&mut self) -> Option<Result<Item, String>> {
        let (place, text) = match &mut self.source {
            Source::Arguments(arguments, number) => {
                let argument = arguments.next()?;
                *number += 1;
                let text = utf8(argument.into_encoded_bytes());
                (format!("argument {number}"), text)
            }
            Source::Lines(lines) => {
                let (number, text) = lines.next()?;
                (format!("line {number}"), text)
            }
        };
        let item = text.and_then(|text| self.split(text));
        Some(match item {
            Ok((text, pair)) => Ok(Item { place, text, pair }),
            Err(message) => Err(format!("{place}: {message}")),
        })
    }

    fn split(&self, mut text: String) -> Result<(String, Option<String>), String> {
        if !self.pairs {
            return Ok((text, None));
        }
        match text.matches('\t').count() {
            1 => {
                let second = text.split_off(text.find('\t').unwrap_or_default());
                Ok((text, Some(second[1..].to_owned())))
            }
            n => Err(format!("{n} tabs where a pair of texts has one")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Result<String, String>> {
        let mut lines = Lines::new(bytes);
        std::iter::from_fn(|| lines.next())
            .map(|(_, l)| l)
            .collect()
    }

    #[test]
    fn only_newlines_end_lines() {
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"\n\n"), [Ok("".into()), Ok("".into())]);
        let odd = "a\rb\u{2028}c\u{b}d\u{85}e\u{c}\r\r\nlast\r";
        let expected = ["a\rb\u{2028}c\u{b}d\u{85}e\u{c}\r", "last\r"];
        assert_eq!(lines(odd.as_bytes()), expected.map(|s| Ok(s.to_owned())));
    }

    #[test]
    fn lines_have_a_limit() {
        let mut longest = vec![b'x'; MAX_LINE_BYTES];
        assert!(lines(&longest)[0].is_ok());
        longest.extend(b"\r\n");
        assert_eq!(lines(&longest).len(), 1);
        assert!(lines(&longest)[0].is_ok());
        longest.insert(0, b'x');
        assert!(lines(&longest)[0].as_ref().unwrap_err().contains("longer"));
    }
}
