//! C and C++ programs, built with `cc` and `c++` through `pkg-config` as a user would, alone, under valgrind, and
//! with the address sanitizer. Needs all of these; tools/test-c installs them.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::{Artifact, ImageClassifier, Options, SentenceEmbedder, TextClassifier};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .parent()
        .unwrap()
}

fn model(name: &str) -> String {
    root().join("models").join(name).display().to_string()
}

fn done(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (&output.stdout, &output.stderr);
    let told = || {
        format!(
            "{}{}",
            String::from_utf8_lossy(out),
            String::from_utf8_lossy(err)
        )
    };
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        told()
    );
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

/// What tools/build-c installs, in a directory that stays until the next run.
static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prefix");
    let _ = fs::remove_dir_all(&prefix);
    let mut build = Command::new(root().join("tools/build-c"));
    done(build.args(["--profile", "dev", "--prefix"]).arg(&prefix));
    prefix
});

/// Flags as `pkg-config` gives them.
fn flags(of: &[&str]) -> Vec<String> {
    let mut config = Command::new("pkg-config");
    config.env("PKG_CONFIG_PATH", PREFIX.join("lib/pkgconfig"));
    let told = text(done(config.args(of).arg("centroid")));
    told.split_whitespace().map(str::to_owned).collect()
}

/// How a program is linked.
#[derive(Clone, Copy)]
enum Link {
    Shared,
    Static,
}

/// Compiles a program of the folder `bindings/c`.
fn compiled(source: &str, link: Link, more: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let (compiler, standard) = match source.extension().unwrap().to_str() {
        Some("cpp") => ("c++", "-std=c++17"),
        _ => ("cc", "-std=c11"),
    };
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let kind = match link {
        Link::Shared => "shared",
        Link::Static => "static",
    };
    // One test must not replace the program that another runs.
    static PROGRAMS: AtomicUsize = AtomicUsize::new(0);
    let number = PROGRAMS.fetch_add(1, Ordering::Relaxed);
    let name = format!("{stem}-{kind}-{number}");
    let program = PREFIX.join(name);
    let mut cc = Command::new(compiler);
    cc.args([
        standard,
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-g",
        "-O1",
    ]);
    cc.args(more).arg(&source).args(flags(&["--cflags"]));
    match link {
        Link::Shared => cc.args(flags(&["--libs"])),
        Link::Static => {
            // The archive itself, since beside a shared library the linker would take that one.
            let of = flags(&["--static", "--libs"]);
            cc.arg(PREFIX.join("lib/libcentroid.a"));
            cc.args(of.iter().filter(|flag| *flag != "-lcentroid"))
        }
    };
    done(cc.arg("-pthread").arg("-o").arg(&program));
    program
}

/// A command for a program that finds the shared library.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", PREFIX.join("lib"));
    command
}

fn picture() -> PathBuf {
    // Made here: none ships.
    let path = PREFIX.join("picture.png");
    let pixels =
        image::RgbImage::from_fn(60, 50, |x, y| image::Rgb([x as u8 * 4, y as u8 * 5, 90]));
    pixels.save(&path).unwrap();
    path
}

fn interface(mut command: Command) {
    let models = [
        "sentiment.centroid",
        "minilm-l6.centroid",
        "efficientnet-lite0.centroid",
    ];
    let told = text(done(command.args(models.map(model)).arg(picture())));
    assert_eq!(told, "all right\n");
}

const SANITIZE: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

#[test]
fn header_is_what_cbindgen_makes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = folder.join("include/centroid.h");
    let mut made = Vec::new();
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_crate(folder)
        .with_config(config);
    bindings.generate().unwrap().write(&mut made);
    // Headings are Rust's habit.
    let made = String::from_utf8(made).unwrap();
    let made = made.replace(" * # Safety\n", " * Required:\n");
    if env::var_os("CENTROID_WRITE_HEADER").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == made,
        "include/centroid.h is not up to date: run this test with CENTROID_WRITE_HEADER=1"
    );
    let version = format!("#define CENTROID_VERSION \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(found.contains(&version), "{version}");
}

/// `symbols.txt` has every symbol and the version that it came with; a symbol never goes within a minor version.
#[test]
fn symbols_are_those_of_the_list() {
    let list =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("symbols.txt")).unwrap();
    let listed = list.lines().filter(|line| !line.starts_with('#'));
    let listed: BTreeSet<(String, String)> = listed
        .map(|line| line.split_once(' ').unwrap())
        .map(|(symbol, version)| (symbol.into(), version.into()))
        .collect();
    let library = PREFIX.join("lib/libcentroid.so");
    let told = text(done(
        Command::new("nm")
            .args(["-D", "--defined-only", "--format=posix"])
            .arg(&library),
    ));
    let exported: BTreeSet<String> = told
        .lines()
        .map(|line| line.split(' ').next().unwrap().into())
        .collect();
    let names: BTreeSet<String> = listed.iter().map(|(symbol, _)| symbol.clone()).collect();
    assert_eq!(exported, names);
    // The header says the same of each.
    let header = fs::read_to_string(PREFIX.join("include/centroid.h")).unwrap();
    for (symbol, version) in &listed {
        let declared =
            |line: &&str| !line.starts_with(" *") && line.contains(&format!("{symbol}("));
        let line = (header.lines().find(declared)).unwrap_or_else(|| panic!("{symbol}"));
        let at = header.find(line).unwrap();
        let comment = &header[header[..at].rfind("/*").unwrap()..at];
        assert!(
            comment.contains(&format!("Since {version}.")),
            "{symbol}: {comment}"
        );
    }
    let told = text(done(Command::new("objdump").arg("-p").arg(&library)));
    let name = told.lines().find(|line| line.contains("SONAME")).unwrap();
    assert!(name.ends_with("libcentroid.so.0.1"), "{name}");
}

#[test]
fn every_function_does_what_the_header_says() {
    for link in [Link::Shared, Link::Static] {
        interface(command(&compiled("tests/interface.c", link, &[])));
    }
}

#[test]
fn nothing_is_found_by_valgrind() {
    let program = compiled("tests/interface.c", Link::Shared, &[]);
    let mut valgrind = command(Path::new("valgrind"));
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    valgrind
        .args([
            "--errors-for-leak-kinds=definite,indirect",
            "--fair-sched=yes",
        ])
        .arg(program);
    interface(valgrind);
}

#[test]
fn nothing_is_found_by_the_sanitizers() {
    for link in [Link::Shared, Link::Static] {
        interface(command(&compiled("tests/interface.c", link, &SANITIZE)));
    }
    for (source, name) in [
        ("programs/classify.c", "sentiment.centroid"),
        ("programs/nearest.cpp", "minilm-l6.centroid"),
    ] {
        let program = compiled(source, Link::Shared, &SANITIZE);
        done(
            command(&program)
                .arg(model(name))
                .args(["one text", "another", "a third"]),
        );
    }
}

/// The examples, and bit for bit what Rust gives.
#[test]
fn examples_give_the_scores_of_rust() {
    const TEXTS: [&str; 3] = [
        "a moving, funny film",
        "two hours too long",
        "it is what it is \u{1f3ac}",
    ];
    let program = compiled("programs/classify.c", Link::Shared, &[]);
    let path = model("sentiment.centroid");
    let told = text(done(command(&program).arg(&path).args(TEXTS)));
    let classifier = TextClassifier::open(&path).unwrap();
    let expected: String = (classifier.classify(&TEXTS).unwrap().iter().zip(TEXTS))
        .map(|(of, text)| {
            let score = told.lines().find(|line| line.ends_with(text)).unwrap();
            // Nine digits are enough for any f32.
            let score: f32 = score.split('\t').nth(1).unwrap().parse().unwrap();
            assert_eq!(score.to_bits(), of.labels[0].score.to_bits(), "{text}");
            format!("{}\t{text}\n", of.labels[0].label)
        })
        .collect();
    let without: String = told
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|parts| format!("{}\t{}\n", parts[0], parts[2]))
        .collect();
    assert_eq!(without, expected);

    let program = compiled("programs/nearest.cpp", Link::Static, &[]);
    let path = model("minilm-l6.centroid");
    let told = text(done(command(&program).arg(&path).args(TEXTS)));
    let embedder = SentenceEmbedder::open(&path).unwrap();
    let vectors = embedder.embed(&TEXTS).unwrap();
    let cosine = |i: usize| -> f64 {
        let pairs = vectors[0].vector.iter().zip(&vectors[i].vector);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let expected: String = (1..3)
        .map(|i| format!("{:.6}\t{}\n", cosine(i), TEXTS[i]))
        .collect();
    assert_eq!(told, expected);

    let program = compiled("programs/picture.c", Link::Shared, &[]);
    let path = model("efficientnet-lite0.centroid");
    let told = text(done(command(&program).arg(&path).arg(picture())));
    let artifact = Artifact::open(&path).unwrap();
    let classifier = ImageClassifier::new(artifact, Options::new()).unwrap();
    let found = classifier.classify(&[picture()]).unwrap().remove(0);
    assert_eq!(told.lines().count(), 5);
    for (line, of) in told.lines().zip(&found.labels) {
        let (label, score) = line.split_once('\t').unwrap();
        assert_eq!(label, of.label);
        assert_eq!(score.parse::<f32>().unwrap().to_bits(), of.score.to_bits());
    }
}

#[test]
fn examples_tell_what_is_wrong() {
    let program = compiled("programs/classify.c", Link::Shared, &[]);
    let output = command(&program)
        .args(["no/such.centroid", "text"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("cannot open the model: no/such.centroid: "),
        "{told}"
    );
    assert_eq!(command(&program).output().unwrap().status.code(), Some(2));
}
