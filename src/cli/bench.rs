//! `centroid bench`

mod inputs;
mod measure;
mod pipeline;
mod table;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use centroid::convert::{Architecture, Conversion, ConvertOptions};
use centroid::{Artifact, Mode, Options, Truncation};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::convert::Quantization;
use super::output::Out;
use super::{Failure, values};
use pipeline::{Inputs, Kind, Pipeline};
use table::{Format, Table};

/// Measure load time, latency, throughput and memory
///
/// Takes a `.centroid` file, or an architecture for which weights are generated: those of
/// convert --random, as roberta-base or efficientnet-b3 (a file of such a name is given as ./NAME).
/// Each combination of --threads, --batch and, for models of texts, --seq is a row. Token ids are
/// drawn from the vocabulary, so tokenizing is not measured; nor is decoding pictures: networks get
/// generated inputs of their size, the images of a batch one after another.
///
/// Columns: model, size (of the weights), params (of the layers run), kernel, mode, threads, batch,
/// seq (texts), load ms (opening the file and making the pipeline), min ms, p50 ms and p99 ms of a
/// batch, tokens/s or images/s (mean and standard deviation over the runs), peak RSS. That is the
/// peak of the whole process since the row began, as Linux accounts for it, and unknown elsewhere.
///
/// With --roofline also: the peak, in 1e9 multiply-accumulates a second, of the multiplying loop alone
/// on data in the first-level cache, measured on one core before the rows and taken once for each
/// thread; what share of it the linear layers reach while they run; and what share the whole forward
/// pass reaches, counting the products of linear layers alone. Codes that share dot products save
/// multiplications, so that a share can be above 100.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    centroid bench roberta-base --seq 128 --batch 1,8 --threads 1,2\n  \
    centroid bench efficientnet-b3 --mode exact\n  \
    centroid bench minilm.centroid -o json > minilm.json")]
pub struct Bench {
    /// A `.centroid` file, or an architecture
    #[arg(value_name = "FILE|ARCH")]
    model: PathBuf,
    /// Tokens of a text, special tokens included [default: 8,32,128]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive)]
    seq: Vec<usize>,
    /// Texts or images in a batch
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
    /// Seed of inputs and generated weights
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

/// A row; JSON and CSV have these names, those of the other kind of model left out.
#[derive(Serialize, Clone)]
pub struct Row {
    model: String,
    size_bytes: u64,
    params: u64,
    kernel: String,
    mode: &'static str,
    threads: usize,
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<usize>,
    load_ms: f64,
    min_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    #[serde(flatten)]
    rate: Rate,
    peak_rss_bytes: Option<u64>,
    #[serde(flatten)]
    roofline: Option<Roofline>,
}

/// What a model takes a second, mean and standard deviation over the runs.
#[derive(Serialize, Clone, Copy)]
#[serde(untagged)]
pub enum Rate {
    Texts {
        tokens_per_s_mean: f64,
        tokens_per_s_sd: f64,
    },
    Images {
        images_per_s_mean: f64,
        images_per_s_sd: f64,
    },
}

impl Rate {
    fn new(kind: &Kind, (mean, sd): (f64, f64)) -> Self {
        match kind {
            Kind::Texts(_) => Self::Texts {
                tokens_per_s_mean: mean,
                tokens_per_s_sd: sd,
            },
            Kind::Images => Self::Images {
                images_per_s_mean: mean,
                images_per_s_sd: sd,
            },
        }
    }

    /// What is counted, its mean and its standard deviation.
    fn parts(self) -> (&'static str, f64, f64) {
        match self {
            Self::Texts {
                tokens_per_s_mean: mean,
                tokens_per_s_sd: sd,
            } => ("tokens", mean, sd),
            Self::Images {
                images_per_s_mean: mean,
                images_per_s_sd: sd,
            } => ("images", mean, sd),
        }
    }
}

/// The columns of `--roofline`.
#[derive(Serialize, Clone)]
pub struct Roofline {
    /// Multiply-accumulates a second of all threads.
    peak_mac_per_s: f64,
    linear_mac_per_s: f64,
    forward_mac_per_s: f64,
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        let name = self.model.to_string_lossy().into_owned();
        match Architecture::by_name(&name) {
            Ok(architecture) => {
                let file = self.generate(architecture)?;
                let file = file.unnamed()?;
                self.measure(&file.path, &name)
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
        self.quantization.check_kind(architecture.of_images())?;
        let mut plan = self.quantization.plan(Some(architecture), None)?;
        plan.seed = self.seed;
        let options = ConvertOptions {
            plan,
            share: self.quantization.share.unwrap_or(0),
            ..Default::default()
        };
        let conversion = Conversion::random(architecture, &options)?;
        // Before there is a file that whoever stops the process would leave behind.
        let (bytes, _) = conversion.to_bytes(&|_| ())?;
        let file = Temporary::new()?;
        match std::fs::write(&file.path, bytes) {
            Ok(()) => Ok(file),
            Err(e) => Err(Failure::Failed(format!("{}: {e}", file.path.display()))),
        }
    }

    fn measure(&self, file: &Path, name: &str) -> Result<(), Failure> {
        let artifact = Artifact::open(file)?;
        let kind = Kind::of(&artifact)?;
        let lengths = self.lengths(&kind, name)?;
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
            let pipeline = Pipeline::new(Artifact::open(file)?, options, &kind)?;
            let load_ms = start.elapsed().as_secs_f64() * 1e3;
            let specials = pipeline.special_ids()?;
            let peak = match self.roofline {
                true => Some(centroid::bench::peak(pipeline.isa(), self.mode)?),
                false => None,
            };
            for &batch in &self.batch {
                for &seq in &lengths {
                    let inputs = Inputs::new(&pipeline, self.seed, &specials, (batch, seq));
                    let run = || pipeline.run(&inputs);
                    measure::reset_peak();
                    let times = measure::times(run, self.runs, self.seconds)?;
                    let peak_rss_bytes = measure::peak();
                    let roofline = match peak {
                        Some(peak) => {
                            Some(measure::roofline(run, self.runs, peak * threads as f64)?)
                        }
                        None => None,
                    };
                    let count = (batch * seq.unwrap_or(1)) as f64;
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
                            rate: Rate::new(&kind, times.rate(count)),
                            peak_rss_bytes,
                            roofline,
                        },
                    )?;
                }
            }
        }
        table.finish(&mut out)
    }

    /// The lengths of texts; a single `None` for images.
    fn lengths(&self, kind: &Kind, name: &str) -> Result<Vec<Option<usize>>, Failure> {
        let encoder = match kind {
            Kind::Texts(encoder) => encoder,
            Kind::Images if self.seq.is_empty() => return Ok(vec![None]),
            Kind::Images => {
                let message = format!("--seq is for models of texts, and {name} takes images");
                return Err(Failure::Usage(message));
            }
        };
        let lengths = match &self.seq[..] {
            [] => &[8, 32, 128],
            given => given,
        };
        match lengths.iter().find(|&&seq| seq > encoder.max_tokens) {
            Some(seq) => Err(Failure::Failed(format!(
                "--seq {seq}: the model takes at most {} tokens",
                encoder.max_tokens
            ))),
            None => Ok(lengths.iter().copied().map(Some).collect()),
        }
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
struct Temporary {
    path: PathBuf,
    /// Keeps a file that has no name any more.
    nameless: Option<File>,
}

impl Temporary {
    fn new() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        for attempt in 0.. {
            let directory = base.join(format!("centroid-bench-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&directory) {
                Ok(()) => {
                    return Ok(Self {
                        path: directory.join("random.centroid"),
                        nameless: None,
                    });
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 100 => {}
                Err(e) => return Err(Failure::Failed(format!("{}: {e}", directory.display()))),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Where that is possible (on Linux), the file goes on without a name: nothing of it is left, whoever ends
    /// the process.
    fn unnamed(self) -> Result<Self, Failure> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let fail = |e| Failure::Failed(format!("{}: {e}", self.path.display()));
            let file = File::open(&self.path).map_err(fail)?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            if path.exists() {
                drop(self);
                return Ok(Self {
                    path,
                    nameless: Some(file),
                });
            }
        }
        Ok(self)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.nameless.is_some() {
            return;
        }
        let _ = std::fs::remove_file(&self.path);
        if let Some(directory) = self.path.parent() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}
