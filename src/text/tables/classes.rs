//! Classes of characters, as the regular expressions of the `tokenizers` crate see them.
//!
//! ASCII is decided at once; other characters are looked up in ranges of `regex-syntax`, which is
//! where that crate's expressions get theirs. The ranges are made at the first such character.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

/// What GPT-2's expression for words tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    Other,
}

const ASCII: [Class; 128] = {
    let mut table = [Class::Other; 128];
    let mut at = 0u8;
    while at < 128 {
        table[at as usize] = match at {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b'\t'..=b'\r' | b' ' => Class::Space,
            _ => Class::Other,
        };
        at += 1;
    }
    table
};

/// Sorted, inclusive ranges of characters.
struct Ranges(Vec<(char, char)>);

static LETTERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{L}"));
static NUMBERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{N}"));
static WORDS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\w"));

impl Ranges {
    fn of(class: &str) -> Self {
        let parsed = regex_syntax::parse(class).expect("a constant and valid expression");
        match parsed.kind() {
            HirKind::Class(HirClass::Unicode(class)) => {
                Self(class.iter().map(|r| (r.start(), r.end())).collect())
            }
            _ => unreachable!("a Unicode class"),
        }
    }

    fn contains(&self, c: char) -> bool {
        let after = self.0.partition_point(|&(start, _)| start <= c);
        after > 0 && c <= self.0[after - 1].1
    }
}

pub(super) fn class(c: char) -> Class {
    match ASCII.get(c as usize) {
        Some(&class) => class,
        None if LETTERS.contains(c) => Class::Letter,
        None if c.is_whitespace() => Class::Space,
        None if NUMBERS.contains(c) => Class::Number,
        None => Class::Other,
    }
}

/// `\w`
pub(super) fn is_word(c: char) -> bool {
    match c {
        '\0'..='\x7f' => c.is_ascii_alphanumeric() || c == '_',
        _ => WORDS.contains(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the Unicode version that the ranges are of.
    #[test]
    fn classes_are_disjoint_and_ascii_is_right() {
        let (mut letters, mut numbers, mut spaces) = (0, 0, 0);
        for c in '\0'..=char::MAX {
            let found = [LETTERS.contains(c), NUMBERS.contains(c), c.is_whitespace()];
            assert!(found.iter().filter(|&&f| f).count() <= 1, "{c:?}");
            let expected = match found {
                [true, ..] => Class::Letter,
                [_, true, _] => Class::Number,
                [.., true] => Class::Space,
                _ => Class::Other,
            };
            assert_eq!(class(c), expected, "{c:?}");
            assert_eq!(is_word(c), WORDS.contains(c), "{c:?}");
            letters += usize::from(found[0]);
            numbers += usize::from(found[1]);
            spaces += usize::from(found[2]);
        }
        assert!(letters > 130_000 && numbers > 1_500 && spaces == 25);
    }

    /// The expressions themselves, on every character alone and between others.
    #[cfg(feature = "tokenizers")]
    #[test]
    fn classes_are_those_of_the_expressions() {
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

        let splitter = ByteLevel::new(false, false, true);
        let every: Vec<char> = ('\0'..=char::MAX).collect();
        for chunk in every.chunks(4096) {
            // A letter, a digit and a dot before each character tell its class by what it joins.
            let text: String = chunk
                .iter()
                .flat_map(|&c| ['a', c, '1', c, '.', c, 'a'])
                .collect();
            let mut expected: PreTokenizedString = (&*text).into();
            splitter.pre_tokenize(&mut expected).unwrap();
            let expected = expected.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let mut found = Vec::new();
            super::super::byte_level::split(&text, |piece| found.push(piece.to_owned()));
            let pieces: Vec<&str> = expected
                .iter()
                .map(|(_, (a, b), _)| &text[*a..*b])
                .collect();
            assert_eq!(found, pieces);
        }
    }
}
