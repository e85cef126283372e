//! Damage by the thousand, and the check that every rule has its tests.

use std::collections::BTreeSet;
use std::path::Path;

use crate::build::{ALIGN, File};
use crate::check::open;
use crate::valid::{Rng, valid};

#[test]
fn the_valid_file_opens() {
    open(&valid().encode().bytes).unwrap();
}

#[test]
fn every_bit_flip_of_preamble_and_header() {
    let mut bytes = valid().encode().bytes;
    let head = ALIGN + valid().encode().header;
    for bit in 0..8 * head {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&bytes).is_err(), "bit {bit}: accepted");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Opens the file with `changes` bytes of `range` changed and the checksums made right.
fn mangled(file: &File, rng: &mut Rng, changes: u32, range: std::ops::Range<usize>) -> bool {
    let mut file = file.clone();
    for _ in 0..changes {
        let at = range.start + rng.below(range.len() as u32) as usize;
        // Small numbers and extremes get further than noise.
        let byte = file.bytes[at];
        file.bytes[at] = match rng.below(6) {
            0 => 0,
            1 => 0xff,
            2 => byte.wrapping_add(1),
            3 => byte.wrapping_sub(1),
            4 => byte ^ 1 << rng.below(8),
            _ => rng.u64() as u8,
        };
    }
    file.repair();
    // Accepted or not: it must neither panic nor allocate much, and say it in one line.
    match open(&file.bytes) {
        Ok(artifact) => {
            let _ = (artifact.kind(), artifact.weight_bytes());
            true
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() < 1000, "{message}");
            assert_eq!(message.lines().count(), 1, "{message:?}");
            false
        }
    }
}

#[test]
fn random_changes_of_the_header() {
    let file = valid().encode();
    let (mut rng, mut accepted) = (Rng(2), 0);
    for round in 0..6000 {
        let head = ALIGN..ALIGN + file.header;
        accepted += usize::from(mangled(&file, &mut rng, 1 + round % 4, head));
    }
    // Scales, group ids and unknown records may change; nearly everything else may not.
    assert!((10..2000).contains(&accepted), "{accepted} of 6000");
}

#[test]
fn random_changes_anywhere() {
    let file = valid().encode();
    let (mut rng, mut accepted) = (Rng(3), 0);
    for round in 0..4000 {
        let all = ALIGN..file.bytes.len();
        accepted += usize::from(mangled(&file, &mut rng, 1 + round % 16, all));
    }
    assert!((100..3000).contains(&accepted), "{accepted} of 4000");
}

/// Names of the test functions in these sources.
fn tests_in(paths: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    let mut pending: Vec<_> = paths.iter().map(|path| root.join(path)).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            for (attribute, line) in source.lines().zip(source.lines().skip(1)) {
                let name = line
                    .trim()
                    .strip_prefix("fn ")
                    .and_then(|l| l.split_once("()"));
                if let ("#[test]", Some((name, _))) = (attribute.trim(), name) {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    names
}

/// `format-spec.md` promises a test for every numbered rule, by name.
#[test]
fn every_rule_names_its_tests() {
    let here = tests_in(&["tests/hostile.rs", "tests/hostile"]);
    let unit = tests_in(&["src"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("format-spec.md")).unwrap();
    let (mut rules, mut missing, mut untested) = (0, Vec::new(), Vec::new());
    for line in text.lines() {
        let number = line.split_once(". ").map(|(n, _)| n.parse::<u32>());
        let Some(Ok(number)) = number else { continue };
        rules += 1;
        assert_eq!(number, rules, "rules are numbered one after another");
        // The names follow the last full stop or colon of the rule's text.
        let tail = line.rsplit_once(". ").map_or("", |(_, tail)| tail);
        let spans: Vec<&str> = tail.split('`').collect();
        let names: Vec<&str> = spans.iter().skip(1).step_by(2).copied().collect();
        if names.is_empty() {
            untested.push(number);
        }
        let known = if tail.starts_with("*unit*") {
            &unit
        } else {
            &here
        };
        missing.extend(
            names
                .iter()
                .filter(|name| !known.contains(**name))
                .map(|n| n.to_string()),
        );
    }
    assert!(rules >= 41, "{rules} rules");
    assert!(untested.is_empty(), "rules without a test: {untested:?}");
    assert!(missing.is_empty(), "named but not there: {missing:?}");
    assert!(here.contains("every_bit_flip_of_preamble_and_header"));
}
