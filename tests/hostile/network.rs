//! Rules 53 to 56: files whose every part is in order and whose parts do not make an EfficientNet.

use centroid::{Artifact, Error, ErrorKind, ImageClassifier, Options};

use crate::build::{How, Model, ROWS, TILES, VECTOR};
use crate::check::{refuse, says};
use crate::valid::{LABELS, Rng, strings};

const SIZE: u32 = 9;

/// The model body, field by field.
#[derive(Clone)]
struct Network {
    activation: u32,
    padding: u32,
    stem: u32,
    /// Kernel, stride, expanded, squeezed, channels.
    blocks: Vec<[u32; 5]>,
    features: u32,
    labels: u32,
    size: u32,
    resize: u32,
    crop: u32,
    filter: u32,
    mean: [f32; 3],
    deviation: [f32; 3],
}

impl Network {
    fn valid() -> Self {
        Self {
            activation: 2,
            padding: 1,
            stem: 5,
            blocks: vec![[3, 1, 5, 2, 5], [5, 2, 12, 0, 7]],
            features: 11,
            labels: LABELS.len() as u32,
            size: SIZE,
            resize: 12,
            crop: 1,
            filter: 2,
            mean: [127.0; 3],
            deviation: [128.0; 3],
        }
    }

    fn body(&self) -> Vec<u8> {
        let bytes =
            |values: &[u32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let mut body = bytes(&[self.activation, self.padding, self.stem]);
        body.extend((self.blocks.len() as u64).to_le_bytes());
        body.extend(self.blocks.iter().flat_map(|block| bytes(block)));
        body.extend(bytes(&[self.features, self.labels, self.size, self.resize]));
        body.extend(bytes(&[self.crop, self.filter]));
        let floats = self.mean.iter().chain(&self.deviation);
        body.extend(floats.flat_map(|v| v.to_le_bytes()));
        body
    }
}

/// A network of every scheme, with odd sizes.
fn valid() -> Model {
    let mut model = Model {
        kind: 2,
        body: Network::valid().body(),
        tensors: Vec::new(),
        sections: Vec::new(),
        records: Vec::new(),
        tail: Vec::new(),
        rng: Rng(2),
    };
    let (pointwise, depthwise, squeeze, stem, classifier, other) = (7, 8, 9, 10, 11, 6);
    let pq = |block, centroids, row_scale| How::Pq {
        block,
        centroids,
        f16: false,
        row_scale,
    };
    let int8 = How::Int8 {
        row_scale: true,
        row_zero: false,
    };
    let int4 = How::Int4 {
        row_scale: false,
        row_zero: true,
    };
    let layers = [
        ("stem", stem, TILES, [5, 27], How::F16),
        (
            "blocks.0.depthwise",
            depthwise,
            ROWS,
            [5, 9],
            pq(9, 4, true),
        ),
        ("blocks.0.squeeze", squeeze, TILES, [2, 5], How::F32),
        ("blocks.0.excite", squeeze, TILES, [5, 2], pq(2, 3, false)),
        ("blocks.0.project", pointwise, TILES, [5, 5], pq(4, 6, true)),
        ("blocks.1.expand", pointwise, TILES, [12, 5], int4),
        ("blocks.1.depthwise", depthwise, ROWS, [12, 25], int8),
        (
            "blocks.1.project",
            pointwise,
            TILES,
            [7, 12],
            pq(4, 16, true),
        ),
        ("features", pointwise, TILES, [11, 7], pq(3, 8, false)),
        (
            "classifier",
            classifier,
            TILES,
            [LABELS.len() as u64, 11],
            How::F16,
        ),
    ];
    for (name, group, layout, shape, how) in layers {
        model.add(&format!("{name}.weight"), group, layout, &shape, 0.0, how);
        model.add(
            &format!("{name}.bias"),
            other,
            VECTOR,
            &shape[..1],
            0.0,
            How::F32,
        );
    }
    model.section(17, strings(&LABELS));
    model
}

/// From the bytes to a first answer.
fn load(bytes: &[u8]) -> Result<(), Error> {
    let artifact = Artifact::from_bytes(bytes)?;
    let classifier = ImageClassifier::new(artifact, Options::new().threads(1))?;
    let image = vec![0.5; classifier.size() * classifier.size() * 3];
    classifier.classify_inputs(&[&image]).map(drop)
}

/// Fails unless the changed file opens as an artifact, but not as a network, and by its checksums not even as
/// an artifact.
fn unfit(what: &str, change: impl Fn(&mut Model), kind: ErrorKind, words: &[&str]) {
    let base = valid();
    let mut model = base.clone();
    change(&mut model);
    let damaged = model.damaged(&base.encode());
    refuse(
        what,
        &damaged,
        ErrorKind::Checksum,
        &["does not match its checksum"],
    );
    let bytes = model.encode().bytes;
    Artifact::from_bytes(&bytes).unwrap_or_else(|e| panic!("{what}: refused too early: {e}"));
    let error = load(&bytes).expect_err(what);
    says(what, &error, kind, words);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("unfit.centroid");
    std::fs::write(&path, &bytes).unwrap();
    let named = ImageClassifier::open(&path).err().unwrap();
    assert_eq!(
        named.to_string(),
        format!("{}: {error}", path.display()),
        "{what}"
    );
}

fn body(change: impl Fn(&mut Network), kind: ErrorKind, words: &str) {
    let mut network = Network::valid();
    change(&mut network);
    unfit(words, |model| model.body = network.body(), kind, &[words]);
}

#[test]
fn a_network_of_every_scheme_answers() {
    load(&valid().encode().bytes).unwrap();
}

#[test]
fn network_body_wrong_length() {
    let cannot = ["the network's config cannot be decoded"];
    for len in [0, 3, 12, 20, 59, 60, Network::valid().body().len() - 1] {
        unfit(
            "short",
            |m| m.body.truncate(len),
            ErrorKind::Format,
            &cannot,
        );
    }
    unfit(
        "long",
        |m| m.body.push(0),
        ErrorKind::Format,
        &["the network's config"],
    );
    // A count of blocks that nothing could hold.
    let change = |m: &mut Model| m.body[12..20].fill(0xff);
    unfit("blocks", change, ErrorKind::Format, &cannot);
}

#[test]
fn network_sizes() {
    let format = ErrorKind::Format;
    body(
        |n| n.blocks.clear(),
        format,
        "0 blocks; the limits are 1 and 1024",
    );
    body(
        |n| n.blocks = vec![n.blocks[0]; 1025],
        format,
        "1025 blocks",
    );
    type Field = fn(&mut Network) -> &mut u32;
    let fields: [(&str, u32, Field); 9] = [
        ("stem", 16_384, |n| &mut n.stem),
        ("features", 16_384, |n| &mut n.features),
        ("labels", 65_536, |n| &mut n.labels),
        ("size", 4_096, |n| &mut n.size),
        ("resize", 8_192, |n| &mut n.resize),
        ("block 1: kernel", 7, |n| &mut n.blocks[1][0]),
        ("block 1: stride", 2, |n| &mut n.blocks[1][1]),
        ("block 1: expanded", 16_384, |n| &mut n.blocks[1][2]),
        ("block 1: channels", 16_384, |n| &mut n.blocks[1][4]),
    ];
    for (name, most, field) in fields {
        for value in [0, most + 1, u32::MAX] {
            let words = format!("the network's {name} is {value}; the limits are 1 and {most}");
            body(|n| *field(n) = value, format, &words);
        }
    }
    body(
        |n| n.blocks[0][3] = 16_385,
        format,
        "block 0: squeezed is 16385",
    );
    for kernel in [2, 4, 6] {
        let words = format!("block 0: kernel {kernel} is even");
        body(|n| n.blocks[0][0] = kernel, format, &words);
    }
    body(
        |n| n.resize = SIZE - 1,
        format,
        "resize 8 is less than the size 9",
    );
    body(
        |n| n.crop = 3,
        format,
        "resize 12 is not the size 9, though nothing is cut off",
    );
}

#[test]
fn network_enumerations() {
    type Field = fn(&mut Network) -> &mut u32;
    let fields: [(&str, u32, Field); 4] = [
        ("activation", 2, |n| &mut n.activation),
        ("padding", 2, |n| &mut n.padding),
        ("crop", 3, |n| &mut n.crop),
        ("filter", 2, |n| &mut n.filter),
    ];
    for (name, known, field) in fields {
        for value in [0, known + 1, u32::MAX] {
            let words = format!("the network's {name} {value} is unknown");
            body(|n| *field(n) = value, ErrorKind::Unsupported, &words);
        }
    }
}

#[test]
fn network_means() {
    let words = "a mean is not finite, or a deviation not above 0";
    for bad in [f32::NAN, f32::INFINITY] {
        body(|n| n.mean[1] = bad, ErrorKind::Format, words);
        body(|n| n.deviation[2] = bad, ErrorKind::Format, words);
    }
    for bad in [0.0, -1.0, 1e-40] {
        body(|n| n.deviation[0] = bad, ErrorKind::Format, words);
    }
}

#[test]
fn network_too_large() {
    let words = "a layer gives 150994944 values; the limit is 134217728";
    let change = |n: &mut Network| {
        (n.size, n.resize) = (3072, 3072);
        n.blocks[0][2] = 64;
    };
    body(change, ErrorKind::Format, words);
    // Whatever is asked for, nothing overflows.
    let change = |n: &mut Network| {
        (n.size, n.resize, n.stem, n.features) = (4096, 4096, 16_384, 16_384);
        n.blocks = vec![[7, 1, 16_384, 16_384, 16_384]; 1024];
    };
    body(change, ErrorKind::Format, "the limit is 134217728");
}

#[test]
fn network_tensors() {
    let missing = |name: &str| {
        let words = [&*format!("tensor {name}: missing")];
        unfit(
            name,
            |m| m.tensor(name).name = "x".into(),
            ErrorKind::Format,
            &words,
        );
    };
    for name in [
        "stem.weight",
        "blocks.0.squeeze.weight",
        "blocks.1.expand.bias",
        "classifier.bias",
    ] {
        missing(name);
    }
    let asks = "where the model's config asks for";
    let shape = |name: &str, shape: &[u64]| {
        let words = [&*format!("tensor {name}"), asks];
        unfit(
            name,
            |m| m.tensor(name).shape = shape.to_vec(),
            ErrorKind::Format,
            &words,
        );
    };
    shape("classifier.weight", &[11, 3]);
    let change = |m: &mut Model| m.tensor("blocks.0.depthwise.weight").layout.0 = 3;
    unfit(
        "layout",
        change,
        ErrorKind::Format,
        &["tensor blocks.0.depthwise.weight", asks],
    );
    body(
        |n| n.blocks[0][0] = 5,
        ErrorKind::Format,
        "rows of shape [5, 25]",
    );
    // Another width: what was a block without expansion needs one, and one with squeeze has none.
    body(|n| n.stem = 4, ErrorKind::Format, "tensor stem.weight");
    body(
        |n| n.blocks[0][3] = 0,
        ErrorKind::Format,
        "tensor blocks.0.squeeze.weight: the model has no such tensor",
    );
    body(
        |n| n.blocks[1][3] = 3,
        ErrorKind::Format,
        "tensor blocks.1.squeeze.weight: missing",
    );
    body(
        |n| n.blocks.truncate(1),
        ErrorKind::Format,
        "tensor features.weight",
    );
}

#[test]
fn network_labels() {
    body(
        |n| n.labels = 4,
        ErrorKind::Format,
        "3 labels are stored for 4 logits",
    );
    let change = |m: &mut Model| m.sections.retain(|section| section.kind != 17);
    unfit(
        "labels",
        change,
        ErrorKind::Format,
        &["the labels of the classifier are missing"],
    );
}
