//! A forward pass allocates nothing once its buffers are there.
//!
//! What a call may allocate is the answer and its bookkeeping: for each text its ids, its token types
//! and its values (for a classifier also the labels and their scores), and for the call a few vectors
//! with an entry for each text. Buffers of the forward pass have a row of `hidden` values for each
//! token, and more than one of them would not fit into the bounds here.

use std::path::Path;

use centroid::convert::{Architecture, Conversion, ConvertOptions, Plan};
use centroid::{
    Artifact, ImageClassifier, Mode, Options, Scheme, SentenceEmbedder, TextClassifier,
};

/// Allocations of `call` on this thread, and their bytes.
fn allocations(call: impl FnOnce()) -> [usize; 2] {
    let info = allocation_counter::measure(call);
    [info.count_total as usize, info.bytes_total as usize]
}

fn path(part: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(part)
}

fn texts(count: usize, tokens: usize) -> Vec<Vec<u32>> {
    (0..count)
        .map(|text| {
            (0..tokens)
                .map(|t| (t * 7 + text) as u32 % 90 + 5)
                .collect()
        })
        .collect()
}

/// Calls of any size up to the largest so far. `per_text` are the allocations of an answer, and
/// `bytes_per_text` their bytes without the ids and types.
fn check(
    run: impl Fn(&[&[u32]]),
    sizes: &[(usize, usize)],
    per_text: usize,
    bytes_per_text: usize,
) {
    let run = |(count, tokens)| {
        let texts = texts(count, tokens);
        let texts: Vec<&[u32]> = texts.iter().map(|ids| &ids[..]).collect();
        allocations(|| run(&texts))
    };
    sizes.iter().for_each(|&size| {
        run(size);
    });
    for &(count, tokens) in sizes {
        for _ in 0..3 {
            let [calls, bytes] = run((count, tokens));
            let most = per_text * count + 6;
            assert!(calls <= most, "{count} x {tokens}: {calls} > {most}");
            let most = count * (8 * tokens + bytes_per_text) + 1000;
            assert!(bytes <= most, "{count} x {tokens}: {bytes} bytes > {most}");
        }
    }
}

const SIZES: [(usize, usize); 5] = [(8, 60), (1, 60), (1, 1), (3, 17), (8, 60)];

fn check_mode(mode: Mode) {
    let options = || Options::new().mode(mode).threads(1);
    let artifact = Artifact::open(path("models/minilm-l6.centroid")).unwrap();
    let embedder = SentenceEmbedder::new(artifact, options()).unwrap();
    let answer = 4 * embedder.dimensions() + 300;
    let run = |texts: &[&[u32]]| drop(embedder.embed_ids(texts).unwrap());
    check(run, &SIZES, 3, answer);

    let scheme = match mode {
        Mode::Exact => Scheme::F32,
        _ => Scheme::Int8,
    };
    let conversion = Conversion::from_directory(
        path("tests/data/checkpoints/bert-gelu"),
        &ConvertOptions {
            plan: Plan::new(scheme),
            ..Default::default()
        },
    );
    let bytes = conversion.unwrap().to_bytes(&|_| ()).unwrap().0;
    let artifact = Artifact::from_bytes(&bytes).unwrap();
    let classifier = TextClassifier::new(artifact, options()).unwrap();
    let labels = classifier.labels().len();
    let sizes = SIZES.map(|(count, tokens)| (count, tokens.min(classifier.max_length())));
    let run = |texts: &[&[u32]]| drop(classifier.classify_ids(texts).unwrap());
    check(run, &sizes, 5 + labels, 300 + 100 * labels);
}

/// An image's answer has a name for each label; what a block computes would be megabytes.
fn check_network(architecture: Architecture, mode: Mode) {
    let options = ConvertOptions {
        plan: architecture.default_plan(Scheme::Pq),
        ..Default::default()
    };
    let conversion = Conversion::random(architecture, &options).unwrap();
    let artifact = Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap();
    let options = Options::new().mode(mode).threads(1);
    let classifier = ImageClassifier::new(artifact, options).unwrap();
    let labels = classifier.labels().len();
    let image = vec![0.5; classifier.size() * classifier.size() * 3];
    for count in [2, 1, 2, 2] {
        let images = vec![&image[..]; count];
        let run = || drop(classifier.classify_inputs(&images).unwrap());
        run();
        let [calls, bytes] = allocations(run);
        let most = count * (labels + 4) + 4;
        assert!(calls <= most, "{count} images: {calls} > {most}");
        let most = count * labels * 100 + 1000;
        assert!(bytes <= most, "{count} images: {bytes} bytes > {most}");
    }
}

#[test]
fn networks_allocate_answers_alone() {
    for mode in [Mode::Exact, Mode::Int8] {
        check_network(Architecture::EfficientNetB0, mode);
        check_network(Architecture::EfficientNetLite0, mode);
    }
}

#[test]
fn exact_mode_allocates_answers_alone() {
    check_mode(Mode::Exact);
}

#[test]
fn int8_mode_allocates_answers_alone() {
    check_mode(Mode::Int8);
}
