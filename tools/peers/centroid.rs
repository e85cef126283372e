//! This runtime's side of `tools/peers/run` and `tools/peers/networks`, as `peer.py` and `peer_network.py` are
//! that of the others: a process that runs batches of token ids, or images, on request and says how long they
//! took.
//!
//! ```text
//! peers_centroid FILE.centroid MODE THREADS FIRST.json
//! ```
//!
//! A JSON file holds a workload: a list of batches, each a list of texts, each a list of ids; or, of a network
//! of images, `{"images": N}`, which are made up before the clock starts. The
//! model is opened and FIRST is run once; the first line of output says how long that took. Then each
//! line of standard input is a request, `{"work": FILE, "warm": N, "calls": N, "outputs": BOOL}`, and
//! each line of output its answer: the nanoseconds of each call, the peak of resident memory, and,
//! where asked for, the outputs of the last call. A call runs every batch of the workload.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use centroid::{
    Artifact, ImageClassifier, LabelScore, Mode, ModelKind, Options, SentenceEmbedder,
    TextClassifier,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(untagged)]
enum Work {
    /// Batches of texts of token ids.
    Texts(Vec<Vec<Vec<u32>>>),
    Images {
        images: usize,
        #[serde(skip)]
        inputs: Vec<Vec<f32>>,
    },
}

#[derive(Deserialize)]
struct Request {
    work: String,
    #[serde(default)]
    warm: usize,
    calls: usize,
    #[serde(default)]
    outputs: bool,
}

enum Model {
    Classifier(TextClassifier),
    Embedder(SentenceEmbedder),
    Network(ImageClassifier),
}

impl Model {
    fn open(file: &str, mode: Mode, threads: usize) -> centroid::Result<Self> {
        let artifact = Artifact::open(file)?;
        let options = Options::new().mode(mode).threads(threads);
        if artifact.kind()? == ModelKind::EfficientNet {
            return ImageClassifier::new(artifact, options).map(Self::Network);
        }
        match artifact.encoder()?.task {
            "embedding" => SentenceEmbedder::new(artifact, options).map(Self::Embedder),
            _ => TextClassifier::new(artifact, options).map(Self::Classifier),
        }
    }

    fn kernel(&self) -> &'static str {
        match self {
            Self::Classifier(model) => model.isa(),
            Self::Embedder(model) => model.isa(),
            Self::Network(model) => model.isa(),
        }
    }

    /// Makes up images, if that is the work.
    fn prepare(&self, work: Work) -> Work {
        let (Work::Images { images, .. }, Self::Network(model)) = (&work, self) else {
            return work;
        };
        let values = model.size() * model.size() * 3;
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        Work::Images {
            images: *images,
            inputs: (0..*images)
                .map(|_| (0..values).map(|_| next()).collect())
                .collect(),
        }
    }

    /// Embeddings, or logits in the order of the labels.
    fn run(&self, work: &Work) -> centroid::Result<Vec<Vec<f32>>> {
        let batches = match (work, self) {
            (Work::Images { inputs, .. }, Self::Network(model)) => {
                let inputs: Vec<&[f32]> = inputs.iter().map(|input| &input[..]).collect();
                let results = model.classify_inputs(&inputs)?;
                return Ok(results.into_iter().map(|r| logits(r.labels)).collect());
            }
            (Work::Texts(batches), _) => batches,
            (Work::Images { .. }, _) => return Ok(Vec::new()),
        };
        let mut outputs = Vec::new();
        for batch in batches {
            let texts: Vec<&[u32]> = batch.iter().map(|ids| &ids[..]).collect();
            match self {
                Self::Classifier(model) => {
                    let results = model.classify_ids(&texts)?;
                    outputs.extend(results.into_iter().map(|result| logits(result.labels)));
                }
                Self::Embedder(model) => {
                    outputs.extend(model.embed_ids(&texts)?.into_iter().map(|r| r.vector));
                }
                Self::Network(_) => {}
            }
        }
        Ok(outputs)
    }
}

/// In the order of the model's labels.
fn logits(labels: Vec<LabelScore>) -> Vec<f32> {
    let mut logits = vec![0.0; labels.len()];
    for label in labels {
        logits[label.index] = label.logit;
    }
    logits
}

fn read(path: &str) -> Result<Work, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    Ok(serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))?)
}

/// `VmRSS` or `VmHWM`, resident memory now and at its peak, in bytes; null where Linux is not.
fn memory(field: &str) -> Value {
    let bytes = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib: u64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok()?;
        Some(kib * 1024)
    };
    bytes().into()
}

fn say(answer: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush()
}

fn main() {
    if let Err(error) = serve() {
        eprintln!("peers_centroid: {error}");
        std::process::exit(1);
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, mode, threads, first] = &arguments[..] else {
        return Err("usage: peers_centroid FILE.centroid MODE THREADS FIRST.json".into());
    };
    let mode = match &mode[..] {
        "int8" => Mode::Int8,
        "exact" => Mode::Exact,
        _ => return Err(format!("mode {mode:?} is neither int8 nor exact").into()),
    };
    let threads = threads.parse()?;
    let first_work = read(first)?;
    let memory_before = memory("VmRSS");

    let start = Instant::now();
    let model = Model::open(file, mode, threads)?;
    let open = start.elapsed();
    let first_work = model.prepare(first_work);
    model.run(&first_work)?;
    let first_result = start.elapsed();
    say(&json!({
        "open_ns": open.as_nanos() as u64,
        "first_ns": first_result.as_nanos() as u64,
        "import_ns": 0,
        "memory_before": memory_before,
        "memory_peak": memory("VmHWM"),
        "about": {"version": env!("CARGO_PKG_VERSION"), "kernel": model.kernel()},
    }))?;

    let (mut path, mut work) = (first.clone(), first_work);
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        if request.work != path {
            work = model.prepare(read(&request.work)?);
            path = request.work;
        }
        let mut outputs = Vec::new();
        for _ in 0..request.warm {
            model.run(&work)?;
        }
        let mut times = Vec::with_capacity(request.calls);
        for _ in 0..request.calls {
            let start = Instant::now();
            outputs = model.run(&work)?;
            times.push(start.elapsed().as_nanos() as u64);
        }
        let mut answer = json!({"ns": times, "memory_peak": memory("VmHWM")});
        if request.outputs {
            answer["outputs"] = json!(outputs);
        }
        say(&answer)?;
    }
    Ok(())
}
