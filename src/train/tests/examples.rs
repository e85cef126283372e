use std::collections::HashSet;

use super::*;

fn division(train: &str, change: impl FnOnce(&mut Data)) -> Result<Division> {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut data = Data {
        train: write("train.tsv", train),
        text: Some("text".into()),
        image: None,
        augment: None,
        text_b: None,
        label: Some("label".into()),
        unlabelled: None,
        validation: Part::Share(0.25),
        test: Part::Share(0.2),
        seed: 3,
        max_tokens: None,
    };
    write("test.tsv", "text\tlabel\ntext 3\tb\nother\ta\n");
    write("same.tsv", train);
    write("more.tsv", "text\ntext 0\nmore\nmore\nstill more\n");
    change(&mut data);
    if let Some(file) = &mut data.unlabelled {
        *file = directory.path().join(&*file);
    }
    for part in [&mut data.test, &mut data.validation] {
        if let Part::File(file) = part {
            *file = directory.path().join(&*file);
        }
    }
    Division::read(&data)
}

fn texts(n: usize) -> String {
    let lines = (0..n).map(|i| format!("text {i}\t{}\n", if i % 2 == 0 { "a" } else { "b" }));
    "text\tlabel\n".to_owned() + &lines.collect::<String>()
}

fn names(examples: &[Example]) -> HashSet<&str> {
    examples.iter().map(|e| &*e.text).collect()
}

#[test]
fn parts_do_not_overlap_and_repetitions_go() {
    let twice = texts(100) + "text 0\tb\ntext 1\tb\n";
    let division = division(&twice, |_| ()).unwrap();
    let sizes = [&division.train, &division.validation, &division.test].map(Vec::len);
    assert_eq!(sizes, [60, 20, 20]);
    let mut all = names(&division.train);
    all.extend(names(&division.validation));
    all.extend(names(&division.test));
    assert_eq!(all.len(), 100);
    assert_eq!(division.labels, ["a", "b"]);
    assert!(
        division.notes[0].contains("2 texts were there before (1 of them with another label) and"),
        "{:?}",
        division.notes
    );
    assert!(
        division
            .notes
            .iter()
            .any(|n| n.starts_with("test: 20 texts (a "))
    );
}

/// Whether they are the same depends on the model: they are told.
#[test]
fn texts_that_are_nearly_the_same_are_counted() {
    let alike = texts(100) + "Text  7\ta\n TEXT 8 \tb\ntext 7 8\ta\n";
    let division = division(&alike, |_| ()).unwrap();
    let all = division.train.len() + division.validation.len() + division.test.len();
    assert_eq!(all, 103);
    let note = &division.notes[0];
    assert!(
        note.starts_with("train: 2 texts are an earlier one but"),
        "{note}"
    );
}

#[test]
fn folds_cover_everything_once() {
    let mut all = HashSet::new();
    for fold in 0..3 {
        let division = division(&texts(50), |data| data.test = Part::Fold { fold, of: 3 }).unwrap();
        assert!(names(&division.train).is_disjoint(&names(&division.test)));
        for example in division.test {
            assert!(all.insert(example.text));
        }
    }
    assert_eq!(all.len(), 50);
    let error = division(&texts(50), |data| {
        data.test = Part::Fold { fold: 9, of: 51 }
    });
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("51 folds of 50 texts"), "{error}");
}

#[test]
fn texts_of_the_test_file_are_not_trained_with() {
    let division = division(&texts(40), |data| data.test = Part::File("test.tsv".into())).unwrap();
    assert_eq!(division.test.len(), 2);
    assert!(!names(&division.train).contains("text 3"));
    assert!(!names(&division.validation).contains("text 3"));
    assert_eq!(division.train.len() + division.validation.len(), 39);
}

#[test]
fn the_seed_decides() {
    let with = |seed| division(&texts(40), |data| data.seed = seed).unwrap();
    assert_eq!(with(1).train, with(1).train);
    assert_ne!(names(&with(1).test), names(&with(2).test));
}

#[test]
fn what_cannot_be_learnt_is_an_error() {
    let one_class = "text\tlabel\nx\ta\ny\ta\n";
    for (text, change, expected) in [
        (one_class, (|_| ()) as fn(&mut Data), "have the label \"a\""),
        ("text\tlabel\n", |_| (), "there are no examples"),
        (
            "text\tlabel\nx\ta\n",
            |data| data.label = Some("lable".into()),
            "no column \"lable\"",
        ),
        (
            "text\tlabel\nx\ta\nz\tc\n",
            |data| data.test = Part::File("test.tsv".into()),
            "\"b\" (line 2 of test)",
        ),
        (
            one_class,
            |data| data.test = Part::File("same.tsv".into()),
            "all texts are in the other",
        ),
        (
            one_class,
            |data| data.test = Part::File("none.tsv".into()),
            "none.tsv",
        ),
    ] {
        let error = division(text, |data| {
            data.validation = Part::Share(0.0);
            data.test = Part::Share(0.0);
            change(data);
        });
        let error = error.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn batches_hold_each_text_once_and_differ_by_seed() {
    let text = |n: usize| Text {
        ids: vec![0; n % 17 + 1],
        types: Vec::new(),
        label: 0,
    };
    let texts: Vec<Text> = (0..1000).map(text).collect();
    let flat = |seed| batches(&texts, |text| text.ids.len(), 8, seed).concat();
    let mut sorted = flat(1);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    assert_eq!(flat(1), flat(1));
    assert_ne!(flat(1), flat(2));
    // Sorted within windows of 400, a batch has texts of one or two lengths.
    let spread = |batch: &Vec<usize>| {
        let lengths = batch.iter().map(|&text| texts[text].ids.len());
        lengths.clone().max().unwrap() - lengths.min().unwrap()
    };
    assert!(
        batches(&texts, |text| text.ids.len(), 8, 1)
            .iter()
            .all(|batch| spread(batch) <= 2)
    );
}

#[test]
fn texts_without_labels_are_new_ones() {
    let more = |data: &mut Data| data.unlabelled = Some("more.tsv".into());
    let with = division(&texts(100), more).unwrap();
    assert_eq!(names(&with.unlabelled), ["more", "still more"].into());
    let note = with
        .notes
        .iter()
        .find(|n| n.starts_with("unlabelled: 2 texts were"));
    assert!(note.is_some(), "{:?}", with.notes);
    let without = division(&texts(100), |_| ()).unwrap();
    assert_eq!(names(&with.train), names(&without.train));
    assert_ne!(with.digest, without.digest);
}

#[test]
fn a_spliced_text_has_a_beginning_and_an_end() {
    let text = |ids: &[u32], of_type: u32| Text {
        ids: ids.to_vec(),
        types: vec![of_type; ids.len()],
        label: 1,
    };
    let (a, b) = (text(&[1, 2, 3, 4], 0), text(&[10, 11, 12, 13, 14, 15], 1));
    for (share, ids, types) in [
        (0.0, &[10, 11, 12, 13, 14, 15][..], &[1, 1, 1, 1, 1, 1][..]),
        (0.5, &[1, 2, 13, 14, 15], &[0, 0, 1, 1, 1]),
        (0.99, &[1, 2, 3, 15], &[0, 0, 0, 1]),
    ] {
        let spliced = a.spliced(&b, share);
        assert_eq!((&spliced.ids[..], &spliced.types[..]), (ids, types));
    }
}
