//! `centroid bench`

mod measure;
mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use centroid::convert::{Architecture, Conversion, ConvertOptions};
use centroid::{Artifact, Mode, Options, SentenceEmbedder, TextClassifier, Truncation};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::convert::Quantization;
use super::output::Out;
use super::{Failure, values};
use table::{Format, Table};

/// Measure load time, latency, throughput and memory
///
/// Takes a `.centroid` file, or an architecture for which weights are generated: roberta-base,
/// bert-base, minilm-l6 (a file of such a name is given as ./NAME). Each combination of --threads,
/// --batch and --seq is a row. Token ids are drawn from the vocabulary, so tokenizing is not
/// measured.
///
/// Columns: model, size (of the weights), params (of the layers run), kernel, mode, threads, batch,
/// seq, load ms (opening the file and making the pipeline), min ms, p50 ms and p99 ms of a batch,
/// tokens/s (mean and standard deviation over the runs), peak RSS. That is the peak of the whole
/// process since the row began, as Linux accounts for it, and unknown elsewhere.
///
/// With --roofline also: the peak, in 1e9 multiply-accumulates a second, of the multiplying loop alone
/// on data in the first-level cache, measured on one core before the rows and taken once for each
/// thread; what share of it the linear layers reach while they run; and what share the whole forward
/// pass reaches, counting the products of linear layers alone. Codes that share dot products save
/// multiplications, so that a share can be above 100.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid bench roberta-base --seq 128 --batch 1,8 --threads 1,2\n  \
    centroid bench minilm.centroid -o json > minilm.json")]
pub struct Bench {
    /// A `.centroid` file, or roberta-base, bert-base or minilm-l6
    #[arg(value_name = "FILE|ARCH")]
    model: PathBuf,
    /// Tokens of a text, special tokens included
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive,
        default_value = "8,32,128")]
    seq: Vec<usize>,
    /// Texts in a batch
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive,
        default_value = "1,8")]
    batch: Vec<usize>,
    /// Threads to use [default: 1 and as many as the process may run on]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::threads)]
    threads: Vec<usize>,
    /// How linear layers treat their input: rounded to int8, or as it is
    #[arg(long, value_parser = values::mode(), default_value = "int8")]
    mode: Mode,
    /// The least number of runs a row, after one to warm up
    #[arg(long, value_name = "N", value_parser = values::positive, default_value = "10")]
    runs: usize,
    /// The least number of seconds a row
    #[arg(long, value_name = "S", value_parser = values::seconds, default_value = "1")]
    seconds: f64,
    /// Seed of token ids and generated weights
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Also compare with the peak of this processor
    #[arg(long)]
    roofline: bool,
    /// Format of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "md",
        value_parser = PossibleValuesParser::new(["md", "csv", "json"]))]
    output: String,
    #[command(flatten, next_help_heading = "For an architecture")]
    quantization: Quantization,
}

/// A row; JSON and CSV have these names.
#[derive(Serialize, Clone)]
pub struct Row {
    model: String,
    size_bytes: u64,
    params: u64,
    kernel: String,
    mode: &'static str,
    threads: usize,
    batch: usize,
    seq: usize,
    load_ms: f64,
    min_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    tokens_per_s_mean: f64,
    tokens_per_s_sd: f64,
    peak_rss_bytes: Option<u64>,
    #[serde(flatten)]
    roofline: Option<Roofline>,
}

/// The columns of `--roofline`.
#[derive(Serialize, Clone)]
pub struct Roofline {
    /// Multiply-accumulates a second of all threads.
    peak_mac_per_s: f64,
    linear_mac_per_s: f64,
    forward_mac_per_s: f64,
}

/// Either kind of pipeline.
enum Pipeline {
    Classifier(TextClassifier),
    Embedder(SentenceEmbedder),
}

impl Pipeline {
    fn new(artifact: Artifact, options: Options, task: &str) -> centroid::Result<Self> {
        match task {
            "embedding" => SentenceEmbedder::new(artifact, options).map(Self::Embedder),
            _ => TextClassifier::new(artifact, options).map(Self::Classifier),
        }
    }

    fn isa(&self) -> &'static str {
        match self {
            Self::Classifier(model) => model.isa(),
            Self::Embedder(model) => model.isa(),
        }
    }

    /// Ids of the special tokens around a text.
    fn special_ids(&self) -> centroid::Result<Vec<u32>> {
        let ids = match self {
            Self::Classifier(model) => model.classify(&[""])?.pop().map(|result| result.ids),
            Self::Embedder(model) => model.embed(&[""])?.pop().map(|result| result.ids),
        };
        Ok(ids.unwrap_or_default())
    }

    fn run(&self, texts: &[&[u32]]) -> centroid::Result<()> {
        match self {
            Self::Classifier(model) => model.classify_ids(texts).map(drop),
            Self::Embedder(model) => model.embed_ids(texts).map(drop),
        }
    }
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        let name = self.model.to_string_lossy().into_owned();
        match Architecture::by_name(&name) {
            Ok(_) if name.starts_with("efficientnet") => Err(Failure::Usage(format!(
                "{name} takes images; bench is for models of texts so far"
            ))),
            Ok(architecture) => {
                let file = self.generate(architecture)?;
                self.measure(&file.0, &name)
            }
            Err(_) => {
                let Quantization {
                    scheme,
                    block,
                    share,
                } = &self.quantization;
                if scheme.is_some() || block.is_some() || share.is_some() {
                    return Err(Failure::Usage(
                        "--scheme, --block and --share are for an architecture, not for a file"
                            .into(),
                    ));
                }
                let name = self.model.file_name().unwrap_or(self.model.as_os_str());
                self.measure(&self.model, &name.to_string_lossy())
            }
        }
    }

    /// Writes an artifact to be mapped like any other, so that memory is what it would be.
    fn generate(&self, architecture: Architecture) -> Result<Temporary, Failure> {
        let mut plan = self.quantization.plan(Some(architecture), None)?;
        plan.seed = self.seed;
        let options = ConvertOptions {
            plan,
            share: self.quantization.share.unwrap_or(0),
            ..Default::default()
        };
        let conversion = Conversion::random(architecture, &options)?;
        let file = Temporary::new()?;
        conversion.write(&file.0, false, &|_| ())?;
        Ok(file)
    }

    fn measure(&self, file: &Path, name: &str) -> Result<(), Failure> {
        let artifact = Artifact::open(file)?;
        let encoder = artifact.encoder()?;
        if let Some(seq) = self.seq.iter().find(|&&seq| seq > encoder.max_tokens) {
            return Err(Failure::Failed(format!(
                "--seq {seq}: the model takes at most {} tokens",
                encoder.max_tokens
            )));
        }
        let params = artifact.tensors().map(|t| t.parameters()).sum();
        let size_bytes = artifact.weight_bytes();
        drop(artifact);
        let mut out = Out::new();
        let mut table = Table::new(match &self.output[..] {
            "csv" => Format::Csv,
            "json" => Format::Json,
            _ => Format::Markdown,
        });
        for threads in self.thread_counts() {
            let options = Options::new()
                .mode(self.mode)
                .threads(threads)
                .truncation(Truncation::Truncate);
            let start = Instant::now();
            let pipeline = Pipeline::new(Artifact::open(file)?, options, encoder.task)?;
            let load_ms = start.elapsed().as_secs_f64() * 1e3;
            let specials = pipeline.special_ids()?;
            let peak = match self.roofline {
                true => Some(centroid::bench::peak(pipeline.isa(), self.mode)?),
                false => None,
            };
            for &batch in &self.batch {
                for &seq in &self.seq {
                    let ids = measure::Ids::new(self.seed, encoder.vocab_size, &specials);
                    let texts = ids.texts(batch, seq);
                    measure::reset_peak();
                    let times = measure::times(&pipeline, &texts, self.runs, self.seconds)?;
                    let peak_rss_bytes = measure::peak();
                    let roofline = match peak {
                        Some(peak) => Some(measure::roofline(
                            &pipeline,
                            &texts,
                            self.runs,
                            peak * threads as f64,
                        )?),
                        None => None,
                    };
                    let tokens = (batch * seq) as f64;
                    let (mean, sd) = times.rate(tokens);
                    table.row(
                        &mut out,
                        Row {
                            model: name.to_owned(),
                            size_bytes,
                            params,
                            kernel: pipeline.isa().to_owned(),
                            mode: self.mode.name(),
                            threads,
                            batch,
                            seq,
                            load_ms,
                            min_ms: times.quantile(0.0),
                            p50_ms: times.quantile(0.5),
                            p99_ms: times.quantile(0.99),
                            tokens_per_s_mean: mean,
                            tokens_per_s_sd: sd,
                            peak_rss_bytes,
                            roofline,
                        },
                    )?;
                }
            }
        }
        table.finish(&mut out)
    }

    fn thread_counts(&self) -> Vec<usize> {
        if !self.threads.is_empty() {
            return self.threads.clone();
        }
        match std::thread::available_parallelism().map_or(1, usize::from) {
            1 => vec![1],
            n => vec![1, n],
        }
    }
}

/// A file in a directory of its own, both removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        for attempt in 0.. {
            let directory = base.join(format!("centroid-bench-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&directory) {
                Ok(()) => return Ok(Self(directory.join("random.centroid"))),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 100 => {}
                Err(e) => return Err(Failure::Failed(format!("{}: {e}", directory.display()))),
            }
        }
        unreachable!("the loop ends by returning")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        if let Some(directory) = self.0.parent() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}
