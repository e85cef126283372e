//! Values of flags: what clap checks before a verb starts.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use centroid::convert::{Architecture, Conversion, Crop, Pooling};
use centroid::quant::CentroidType;
use centroid::{Group, Mode, Scheme};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::Failure;

/// Bytes of a file of labels: as many labels as a model can have, of 256 bytes each.
const MAX_LABELS_FILE: u64 = 1 << 24;

/// A value out of a list of named ones, which `--help` shows.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    known: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(known.map(|(name, _)| name)).map(move |given| {
        let found = known.iter().find(|(name, _)| *name == given);
        found.map_or(known[0].1, |(_, value)| *value)
    })
}

pub fn scheme() -> impl TypedValueParser<Value = Scheme> {
    use Scheme::{F16, F32, Int4, Int8, Pq};
    one_of([Pq, Int8, Int4, F16, F32].map(|scheme| (scheme.name(), scheme)))
}

pub fn centroid_type() -> impl TypedValueParser<Value = CentroidType> {
    one_of([("int8", CentroidType::Int8), ("f16", CentroidType::F16)])
}

pub fn pooling() -> impl TypedValueParser<Value = Pooling> {
    one_of([
        ("mean", Pooling::Mean),
        ("cls", Pooling::Cls),
        ("max", Pooling::Max),
    ])
}

pub fn crop() -> impl TypedValueParser<Value = Crop> {
    one_of([
        ("after-resize", Crop::AfterResize),
        ("before-resize", Crop::BeforeResize),
        ("whole", Crop::Whole),
    ])
}

pub fn mode() -> impl TypedValueParser<Value = Mode> {
    one_of([Mode::Int8, Mode::Exact].map(|mode| (mode.name(), mode)))
}

pub fn architecture() -> impl TypedValueParser<Value = Architecture> {
    one_of(Architecture::ALL.map(|architecture| (architecture.name(), architecture)))
}

/// A count of at least 1.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("0 is less than 1".into()),
        Ok(n) => Ok(n as usize),
        Err(_) => Err("not a count".into()),
    }
}

/// Threads that can be had at all.
pub fn threads(text: &str) -> Result<usize, String> {
    match positive(text)? {
        n if n > 1024 => Err("more than 1024".into()),
        n => Ok(n),
    }
}

pub fn centroids(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (2..=256).contains(&n) => Ok(n),
        Ok(_) => Err("not 2 to 256".into()),
        Err(_) => Err("not a count".into()),
    }
}

pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=3600.0).contains(&s) => Ok(s),
        Ok(_) => Err("not 0 to 3600".into()),
        Err(_) => Err("not a number".into()),
    }
}

/// The groups of models of texts.
pub const OF_TEXTS: [Group; 5] = [
    Group::Ffn,
    Group::Attention,
    Group::Embedding,
    Group::Position,
    Group::Head,
];

/// The groups of networks of images.
pub const OF_IMAGES: [Group; 5] = [
    Group::Stem,
    Group::Pointwise,
    Group::Depthwise,
    Group::Squeeze,
    Group::Classifier,
];

/// Block sizes of groups, each one named once.
#[derive(Clone)]
pub struct Blocks(pub Vec<(Group, usize)>);

/// `GROUP=N,...`
pub fn blocks(text: &str) -> Result<Blocks, String> {
    let mut blocks: Vec<(Group, usize)> = Vec::new();
    for part in text.split(',') {
        let (name, size) =
            (part.split_once('=')).ok_or_else(|| format!("{part:?} is not of the form GROUP=N"))?;
        let group = (OF_TEXTS.into_iter().chain(OF_IMAGES))
            .find(|group| group.name() == name)
            .ok_or_else(|| {
                let groups = OF_TEXTS.into_iter().chain(OF_IMAGES).map(Group::name);
                let known = groups.collect::<Vec<_>>().join(", ");
                format!("group {name:?} is unknown; known: {known}")
            })?;
        if blocks.iter().any(|(other, _)| *other == group) {
            return Err(format!("{name} is there twice"));
        }
        match size.parse() {
            Ok(size) if (1..=64).contains(&size) => blocks.push((group, size)),
            _ => return Err(format!("{name}: block size {size:?} is not 1 to 64")),
        }
    }
    Ok(Blocks(blocks))
}

/// Layer numbers, ascending.
#[derive(Clone)]
pub struct Layers(pub Vec<usize>);

pub fn layers(text: &str) -> Result<Layers, String> {
    let number = |part: &str| {
        part.parse::<usize>()
            .map_err(|_| format!("{part:?} is not a layer's number"))
    };
    let layers = text.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
    match layers.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(format!(
            "{} and {} are not in ascending order",
            pair[0], pair[1]
        )),
        None => Ok(Layers(layers)),
    }
}

/// Red, green and blue.
pub fn colors(text: &str) -> Result<[f64; 3], String> {
    let number = |part: &str| {
        let number = part.trim().parse().ok().filter(|v: &f64| v.abs() < 1e30);
        number.ok_or_else(|| format!("{part:?} is not a finite number"))
    };
    let numbers = text.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
    numbers.try_into().map_err(|_| "not three numbers".into())
}

/// The same, to divide by.
pub fn deviations(text: &str) -> Result<[f64; 3], String> {
    let colors = colors(text)?;
    match colors.iter().find(|&&v| v < 1e-30) {
        Some(v) => Err(format!("{v} is not above 0")),
        None => Ok(colors),
    }
}

/// A network of images.
pub fn network(text: &str) -> Result<String, String> {
    Conversion::check_network(text).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

/// Labels, none empty and no two equal.
#[derive(Clone)]
pub struct Labels(pub Vec<String>);

pub fn labels(text: &str) -> Result<Labels, String> {
    let labels: Vec<String> = text.split(',').map(str::to_owned).collect();
    match mistaken(&labels) {
        None => Ok(Labels(labels)),
        Some((_, message)) => Err(message),
    }
}

/// The labels in a file, one a line.
pub fn labels_of(file: &Path) -> Result<Vec<String>, Failure> {
    let fail = |message: String| Failure::Failed(format!("{}: {message}", file.display()));
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(|e| fail(e.to_string()))?;
    let read = opened.take(MAX_LABELS_FILE + 1).read_to_end(&mut bytes);
    if read.map_err(|e| fail(e.to_string()))? as u64 > MAX_LABELS_FILE {
        return Err(fail(format!("more than {MAX_LABELS_FILE} bytes of labels")));
    }
    let text = String::from_utf8(bytes).map_err(|e| fail(e.to_string()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let labels: Vec<String> = text.lines().map(str::to_owned).collect();
    match mistaken(&labels) {
        _ if labels.is_empty() => Err(fail("line 1: the file is empty".into())),
        None => Ok(labels),
        Some((index, message)) => Err(fail(format!("line {}: {message}", index + 1))),
    }
}

/// The first label that is empty, or there before, and what is wrong with it.
fn mistaken(labels: &[String]) -> Option<(usize, String)> {
    let mut seen = HashSet::new();
    labels.iter().enumerate().find_map(|(index, label)| {
        if label.trim().is_empty() {
            return Some((index, format!("label {} is empty", index + 1)));
        }
        let message = || (index, format!("{label:?} is there twice"));
        (!seen.insert(label)).then(message)
    })
}
