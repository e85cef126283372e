//! `centroid inspect`

use std::collections::BTreeMap;
use std::path::PathBuf;

use centroid::{
    Artifact, EncoderInfo, Group, ImageClassifier, ModelKind, NetworkInfo, Options,
    SentenceEmbedder, TensorInfo, TextClassifier, ZeroPointInfo,
};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Failure;
use super::output::{Out, count, one_line, size};

/// Show what a `.centroid` file holds, and check it
///
/// Verifies every checksum, shape and value. Parameters are those of the layers run: a layer whose
/// weights are shared counts each time. `weight_bytes` is everything that a forward pass needs,
/// shared weights once; bits per weight are 8 * weight_bytes / parameters, and the compression
/// ratio is that to f32 weights, 4 * parameters / weight_bytes.
#[derive(Args)]
pub struct Inspect {
    /// The `.centroid` file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
}

#[derive(Serialize)]
struct Summary<'a> {
    file: String,
    format_version: u32,
    kind: &'static str,
    checksums: &'static str,
    parameters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distinct_layers: Option<usize>,
    weight_bytes: u64,
    tokenizer_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer_kind: Option<&'static str>,
    file_bytes: u64,
    bits_per_weight: f64,
    compression_ratio: f64,
    config: Config,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [String]>,
    groups: Vec<GroupSize>,
    provenance: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<Tensor>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Config {
    Encoder(Encoder),
    Network(Network),
}

#[derive(Serialize)]
struct Network {
    activation: &'static str,
    padding: &'static str,
    blocks: usize,
    stem: usize,
    features: usize,
    size: usize,
    resize: usize,
    crop: &'static str,
    filter: &'static str,
    mean: [f64; 3],
    std: [f64; 3],
}

impl From<NetworkInfo> for Network {
    fn from(info: NetworkInfo) -> Self {
        Self {
            activation: info.activation,
            padding: info.padding,
            blocks: info.blocks,
            stem: info.stem,
            features: info.features,
            size: info.size,
            resize: info.resize,
            crop: info.crop,
            filter: info.filter,
            mean: info.mean,
            std: info.std,
        }
    }
}

#[derive(Serialize)]
struct Encoder {
    family: &'static str,
    task: &'static str,
    hidden: usize,
    heads: usize,
    intermediate: usize,
    activation: &'static str,
    vocab_size: usize,
    positions: usize,
    token_types: usize,
    max_tokens: usize,
    layer_norm_eps: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pooling: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    normalize: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

impl From<&EncoderInfo> for Encoder {
    fn from(encoder: &EncoderInfo) -> Self {
        Self {
            family: encoder.family,
            task: encoder.task,
            hidden: encoder.hidden,
            heads: encoder.heads,
            intermediate: encoder.intermediate,
            activation: encoder.activation,
            vocab_size: encoder.vocab_size,
            positions: encoder.positions,
            token_types: encoder.token_types,
            max_tokens: encoder.max_tokens,
            layer_norm_eps: encoder.layer_norm_eps,
            pooling: encoder.pooling,
            normalize: encoder.pooling.map(|_| encoder.normalize),
            problem: encoder.problem,
        }
    }
}

#[derive(Serialize)]
struct GroupSize {
    group: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    group: &'static str,
    shape: Vec<usize>,
    layout: &'static str,
    scheme: &'static str,
    block: Option<usize>,
    last_block: Option<usize>,
    codes_per_row: Option<usize>,
    codebooks: Option<usize>,
    centroids: Option<usize>,
    centroid_type: Option<&'static str>,
    row_scale: bool,
    /// `null`, a number, or `"row"`.
    zero_point: Value,
    bytes: u64,
    shared_with: Option<String>,
}

/// Whether a pipeline can be made of it: all tensors are there and fit, and so does the tokenizer.
fn usable(artifact: Artifact) -> Result<(), Failure> {
    let options = Options::new().threads(1);
    match artifact.kind()? {
        ModelKind::EfficientNet => drop(ImageClassifier::new(artifact, options)?),
        _ if artifact.encoder()?.task == "embedding" => {
            drop(SentenceEmbedder::new(artifact, options)?)
        }
        _ => drop(TextClassifier::new(artifact, options)?),
    }
    Ok(())
}

impl Inspect {
    pub fn run(self) -> Result<(), Failure> {
        let artifact = Artifact::open(&self.file)?;
        let summary = self.summary(&artifact)?;
        let mut out = Out::new();
        if self.json {
            out.json(&summary)?;
        } else {
            print(&mut out, &summary)?;
        }
        out.flush()?;
        // What is shown may be all right, and the model not whole.
        usable(artifact)
    }

    fn summary<'a>(&self, artifact: &'a Artifact) -> Result<Summary<'a>, Failure> {
        let (config, layers) = match artifact.kind()? {
            ModelKind::EfficientNet => (Config::Network(artifact.network()?.into()), None),
            _ => {
                let encoder = artifact.encoder()?;
                let layers = (encoder.layers, encoder.distinct_layers);
                (Config::Encoder((&encoder).into()), Some(layers))
            }
        };
        let tensors: Vec<TensorInfo> = artifact.tensors().collect();
        let parameters: u64 = tensors.iter().map(TensorInfo::parameters).sum();
        let weight_bytes = artifact.weight_bytes();
        let mut groups: BTreeMap<Group, GroupSize> = BTreeMap::new();
        for tensor in &tensors {
            let group = groups.entry(tensor.group).or_insert(GroupSize {
                group: tensor.group.name(),
                tensors: 0,
                parameters: 0,
                bytes: 0,
            });
            group.tensors += 1;
            group.parameters += tensor.parameters();
            group.bytes += tensor.own_bytes;
        }
        let provenance = artifact.provenance().iter();
        Ok(Summary {
            file: self.file.display().to_string(),
            format_version: artifact.format_version(),
            kind: artifact.kind()?.name(),
            // `Artifact::open` fails otherwise.
            checksums: "verified",
            parameters,
            layers: layers.map(|(all, _)| all),
            distinct_layers: layers.map(|(_, distinct)| distinct),
            weight_bytes,
            tokenizer_bytes: artifact.tokenizer_bytes(),
            tokenizer_kind: artifact.tokenizer_kind(),
            file_bytes: artifact.file_bytes(),
            bits_per_weight: 8.0 * weight_bytes as f64 / parameters as f64,
            compression_ratio: 4.0 * parameters as f64 / weight_bytes as f64,
            config,
            labels: artifact.labels(),
            groups: groups.into_values().collect(),
            provenance: provenance
                .map(|(key, value)| (key.clone(), Value::from(value.clone())))
                .collect(),
            tensors: (self.tensors).then(|| tensors.into_iter().map(tensor).collect()),
        })
    }
}

fn tensor(info: TensorInfo) -> Tensor {
    Tensor {
        group: info.group.name(),
        layout: info.layout.name(),
        scheme: info.scheme.name(),
        block: info.pq.map(|pq| pq.block),
        last_block: info.pq.map(|pq| pq.last_block),
        codes_per_row: info.pq.map(|pq| pq.codes_per_row),
        codebooks: info.pq.map(|pq| pq.codebooks),
        centroids: info.pq.map(|pq| pq.centroids),
        centroid_type: info.pq.map(|pq| pq.codebook.name()),
        row_scale: info.row_scale,
        zero_point: match info.zero_point {
            ZeroPointInfo::Tensor(zero) => zero.into(),
            ZeroPointInfo::Row => "row".into(),
            _ => Value::Null,
        },
        bytes: info.bytes,
        name: info.name,
        shape: info.shape,
        shared_with: info.shared_with,
    }
}

fn print(out: &mut Out, summary: &Summary) -> Result<(), Failure> {
    let mut row =
        |name: &str, value: String| out.line(format_args!("{name:<14} {}", one_line(&value)));
    row("file", summary.file.clone())?;
    match &summary.config {
        Config::Encoder(c) => {
            let kind = format!("{} ({}, {})", summary.kind, c.family, c.task);
            row("kind", kind)?;
        }
        Config::Network(_) => row("kind", format!("{} (classification)", summary.kind))?,
    }
    row(
        "format",
        format!("version {}, checksums verified", summary.format_version),
    )?;
    match &summary.config {
        Config::Encoder(c) => {
            if let (Some(layers), Some(distinct)) = (summary.layers, summary.distinct_layers) {
                row("layers", format!("{layers} ({distinct} distinct)"))?;
            }
            row(
                "shape",
                format!(
                    "hidden {}, {} heads, feed-forward {} ({}), layer norm eps {:e}",
                    c.hidden, c.heads, c.intermediate, c.activation, c.layer_norm_eps
                ),
            )?;
            row(
                "input",
                format!(
                    "vocabulary {}, at most {} tokens ({} positions), {} token types",
                    c.vocab_size, c.max_tokens, c.positions, c.token_types
                ),
            )?;
            if let (Some(pooling), Some(normalize)) = (c.pooling, c.normalize) {
                let norm = if normalize { ", L2 norm 1" } else { "" };
                row("pooling", format!("{pooling}{norm}"))?;
            }
            if let (Some(labels), Some(problem)) = (summary.labels, c.problem) {
                row("labels", format!("{} ({problem})", labels.join(", ")))?;
            }
        }
        Config::Network(c) => {
            row(
                "shape",
                format!(
                    "{} blocks, {} to {} channels ({}, padding {})",
                    c.blocks, c.stem, c.features, c.activation, c.padding
                ),
            )?;
            row(
                "input",
                format!(
                    "{} x {} pixels, cut out of {} {} ({})",
                    c.size, c.size, c.resize, c.crop, c.filter
                ),
            )?;
            let [mean, std] = [c.mean, c.std].map(|[r, g, b]| format!("{r},{g},{b}"));
            row("colours", format!("mean {mean}, std {std}"))?;
            let labels = summary.labels.unwrap_or_default();
            let few = labels.iter().take(5).map(String::as_str);
            let rest = if labels.len() > 5 { ", ..." } else { "" };
            let few = few.collect::<Vec<_>>().join(", ");
            row("labels", format!("{}: {few}{rest}", labels.len()))?;
        }
    }
    row(
        "parameters",
        format!("{} ({})", count(summary.parameters), summary.parameters),
    )?;
    row(
        "weights",
        format!(
            "{} ({} bytes), {:.2} bits a weight, {:.1} times smaller than f32",
            size(summary.weight_bytes),
            summary.weight_bytes,
            summary.bits_per_weight,
            summary.compression_ratio
        ),
    )?;
    for group in &summary.groups {
        row(
            &format!("  {}", group.group),
            format!(
                "{:>10}  {:>9} parameters in {} tensors",
                size(group.bytes),
                count(group.parameters),
                group.tensors
            ),
        )?;
    }
    let kind = match summary.tokenizer_kind {
        // In the name of the row already.
        Some("tokenizer tables") => " as tables, used in place",
        Some(_) => " as tokenizer.json, read at opening",
        None => "",
    };
    row(
        "tokenizer",
        format!("{}{kind}", size(summary.tokenizer_bytes)),
    )?;
    row(
        "file size",
        format!(
            "{} ({} bytes)",
            size(summary.file_bytes),
            summary.file_bytes
        ),
    )?;
    for (key, value) in &summary.provenance {
        row(
            &one_line(key),
            value.as_str().unwrap_or_default().to_owned(),
        )?;
    }
    for tensor in summary.tensors.iter().flatten() {
        out.line(format_args!("{}", one_line(&describe(tensor))))?;
    }
    Ok(())
}

/// A tensor in a line.
fn describe(tensor: &Tensor) -> String {
    let mut line = format!(
        "{:<40} {:<9} {:<14} {:>10} B  {}",
        tensor.name,
        tensor.group,
        format!("{:?}", tensor.shape),
        tensor.bytes,
        tensor.scheme
    );
    if let (Some(block), Some(last), Some(codes), Some(centroids), Some(kind)) = (
        tensor.block,
        tensor.last_block,
        tensor.codes_per_row,
        tensor.centroids,
        tensor.centroid_type,
    ) {
        line += &format!(" block {block} x {centroids} {kind} centroids");
        if let Some(codebooks) = tensor.codebooks.filter(|&codebooks| codebooks > 1) {
            line += &format!(" in each of {codebooks} codebooks");
        }
        line += &format!(", {codes} codes a row");
        if last != block {
            line += &format!(", last block {last}");
        }
    }
    if tensor.row_scale {
        line += ", row scales";
    }
    match &tensor.zero_point {
        Value::Null => {}
        Value::Number(zero) => line += &format!(", zero point {zero}"),
        _ => line += ", zero points",
    }
    if let Some(other) = &tensor.shared_with {
        line += &format!(", shared with {other}");
    }
    line
}
