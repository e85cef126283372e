//! The runtime against `transformers`: the golden answers in `tests/data/checkpoints` were computed
//! in f64 by `tools/goldens/checkpoints.py`, one text at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use centroid::convert::{Conversion, ConvertOptions, Plan, Pooling};
use centroid::{Artifact, Mode, Options, Scheme, SentenceEmbedder, TextClassifier, Truncation};
use serde::Deserialize;

/// Largest absolute error of mode `exact` on f32 artifacts.
const EXACT_BUDGET: f32 = 1e-4;
/// Largest difference between mode `int8` and mode `exact` on the same int8 artifact, as a share of
/// the largest logit. 8-bit activations have a step of 1/127 of a row's largest value, and these
/// random weights, far larger than trained ones, amplify it: 0.071 was measured at worst.
const INT8_BUDGET: f32 = 0.1;

#[derive(Deserialize)]
struct Golden {
    kind: String,
    inputs: Vec<GoldenInput>,
    #[serde(flatten)]
    outputs: HashMap<String, Vec<Vec<f32>>>,
}

#[derive(Deserialize)]
struct GoldenInput {
    text: String,
    pair: Option<String>,
    ids: Vec<u32>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints")
}

fn checkpoints() -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.json").exists())
        .collect();
    found.sort();
    assert_eq!(found.len(), 21);
    found
}

fn golden(dir: &Path) -> Golden {
    let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn artifact(dir: &Path, options: &ConvertOptions) -> Artifact {
    let conversion = Conversion::from_directory(dir, options).unwrap();
    Artifact::from_bytes(&conversion.to_bytes(&|_| ()).unwrap().0).unwrap()
}

fn plan(scheme: Scheme) -> ConvertOptions {
    ConvertOptions {
        plan: Plan::new(scheme),
        ..Default::default()
    }
}

fn options(mode: Mode, threads: usize) -> Options {
    Options::new()
        .mode(mode)
        .threads(threads)
        .truncation(Truncation::Truncate)
}

/// A pipeline of either kind, as a function from texts to plain rows of values.
enum Pipeline {
    Classifier(TextClassifier),
    Embedder(SentenceEmbedder),
}

struct Output {
    ids: Vec<u32>,
    values: Vec<f32>,
}

impl Pipeline {
    fn new(artifact: Artifact, options: Options) -> Self {
        match artifact.labels() {
            Some(_) => Self::Classifier(TextClassifier::new(artifact, options).unwrap()),
            None => Self::Embedder(SentenceEmbedder::new(artifact, options).unwrap()),
        }
    }

    /// Texts and pairs must not be mixed in one call.
    fn run(&self, inputs: &[&GoldenInput]) -> Vec<Output> {
        let texts: Vec<&str> = inputs.iter().map(|i| &i.text[..]).collect();
        let pairs: Option<Vec<(&str, &str)>> = (inputs.iter())
            .map(|i| Some((&i.text[..], i.pair.as_deref()?)))
            .collect();
        match self {
            Self::Classifier(classifier) => match pairs {
                Some(pairs) => classifier.classify_pairs(&pairs),
                None => classifier.classify(&texts),
            }
            .unwrap()
            .into_iter()
            .map(|result| {
                let mut labels = result.labels;
                labels.sort_by_key(|label| label.index);
                Output {
                    ids: result.ids,
                    values: labels.iter().map(|label| label.logit).collect(),
                }
            })
            .collect(),
            Self::Embedder(embedder) => match pairs {
                Some(pairs) => embedder.embed_pairs(&pairs),
                None => embedder.embed(&texts),
            }
            .unwrap()
            .into_iter()
            .map(|result| Output {
                ids: result.ids,
                values: result.vector,
            })
            .collect(),
        }
    }

    fn run_alone(&self, golden: &Golden) -> Vec<Output> {
        (golden.inputs.iter())
            .map(|input| self.run(&[input]).remove(0))
            .collect()
    }
}

fn error(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

fn largest(rows: &[Vec<f32>]) -> f32 {
    rows.iter().flatten().fold(0.0, |m, v| m.max(v.abs()))
}

/// Compares with the golden output `key`; returns the largest error.
fn compare(name: &str, key: &str, outputs: &[Output], golden: &Golden) -> f32 {
    let expected = &golden.outputs[key];
    assert_eq!(outputs.len(), expected.len());
    let mut worst = 0f32;
    for ((output, expected), input) in outputs.iter().zip(expected).zip(&golden.inputs) {
        assert_eq!(output.ids, input.ids, "{name}: ids of {:?}", input.text);
        worst = worst.max(error(&output.values, expected));
    }
    worst
}

#[test]
fn f32_artifacts_equal_transformers_in_exact_mode() {
    for dir in checkpoints() {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let golden = golden(&dir);
        let check = |key: &str, options: &ConvertOptions| {
            let pipeline = Pipeline::new(artifact(&dir, options), self::options(Mode::Exact, 1));
            let worst = compare(&name, key, &pipeline.run_alone(&golden), &golden);
            println!(
                "{name} {key}: {worst:e} of {}",
                largest(&golden.outputs[key])
            );
            assert!(worst < EXACT_BUDGET, "{name} {key}: {worst:e}");
        };
        if golden.kind == "classifier" {
            check("logits", &plan(Scheme::F32));
            continue;
        }
        if golden.outputs.contains_key("embedding") {
            check("embedding", &plan(Scheme::F32));
            continue;
        }
        for (pooling, key) in [
            (Pooling::Mean, "last_hidden_mean"),
            (Pooling::Cls, "last_hidden_cls"),
            (Pooling::Max, "last_hidden_max"),
        ] {
            let options = ConvertOptions {
                pooling: Some(pooling),
                ..plan(Scheme::F32)
            };
            check(key, &options);
        }
    }
}

#[test]
fn int8_mode_stays_within_its_budget_of_exact_mode() {
    for dir in checkpoints() {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let golden = golden(&dir);
        let artifact = artifact(&dir, &plan(Scheme::Int8));
        let exact = Pipeline::new(artifact.clone(), options(Mode::Exact, 1)).run_alone(&golden);
        let int8 = Pipeline::new(artifact, options(Mode::Int8, 1)).run_alone(&golden);
        let scale = exact
            .iter()
            .flat_map(|o| &o.values)
            .fold(0f32, |m, v| m.max(v.abs()));
        let worst =
            (exact.iter().zip(&int8)).fold(0f32, |m, (a, b)| m.max(error(&a.values, &b.values)));
        println!("{name}: {:.4}", worst / scale);
        assert!(worst > 0.0, "{name}: int8 mode did nothing");
        assert!(worst / scale < INT8_BUDGET, "{name}: {}", worst / scale);
    }
}

/// Small enough codebooks for the small matrices of the test checkpoints.
fn small_pq() -> ConvertOptions {
    let mut plan = Plan::new(Scheme::Pq);
    plan.set_all(|group| group.centroids = 16).unwrap();
    ConvertOptions {
        plan,
        ..Default::default()
    }
}

#[test]
fn results_do_not_depend_on_batch_order_or_threads() {
    for dir in checkpoints() {
        let golden = golden(&dir);
        for options_of in [plan(Scheme::F32), plan(Scheme::Int4), small_pq()] {
            let artifact = artifact(&dir, &options_of);
            for mode in [Mode::Exact, Mode::Int8] {
                let alone = Pipeline::new(artifact.clone(), options(mode, 1)).run_alone(&golden);
                for threads in [1, 2] {
                    let pipeline = Pipeline::new(artifact.clone(), options(mode, threads));
                    for pairs in [false, true] {
                        let members: Vec<usize> = (0..golden.inputs.len())
                            .filter(|&i| golden.inputs[i].pair.is_some() == pairs)
                            .collect();
                        let reversed = members.iter().rev().copied().collect::<Vec<_>>();
                        let twice = [&members[..], &reversed[..]].concat();
                        for order in [members, reversed, twice] {
                            let inputs: Vec<_> = order.iter().map(|&i| &golden.inputs[i]).collect();
                            if inputs.is_empty() {
                                continue;
                            }
                            for (output, &i) in pipeline.run(&inputs).iter().zip(&order) {
                                let bits = |v: &[f32]| -> Vec<u32> {
                                    v.iter().map(|v| v.to_bits()).collect()
                                };
                                assert_eq!(bits(&output.values), bits(&alone[i].values), "{dir:?}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// From a number of threads and texts to the bits of their results.
type Run<'a> = dyn Fn(usize, &[&[u32]]) -> Vec<Vec<u32>> + 'a;

/// More tokens than a forward pass takes, in texts of all lengths: they are sorted, shared out and put
/// back in order.
#[test]
fn a_large_job_equals_its_texts_one_by_one() {
    for name in ["bert-gelu", "roberta-seq", "sbert", "sbert-cls"] {
        let artifact = artifact(&data().join(name), &plan(Scheme::Int8));
        for mode in [Mode::Exact, Mode::Int8] {
            let run: Box<Run> = match artifact.labels() {
                Some(_) => Box::new(|threads, texts| {
                    let options = options(mode, threads);
                    let pipeline = TextClassifier::new(artifact.clone(), options).unwrap();
                    let results = pipeline.classify_ids(texts).unwrap();
                    results
                        .into_iter()
                        .map(|mut result| {
                            result.labels.sort_by_key(|label| label.index);
                            result.labels.iter().map(|l| l.logit.to_bits()).collect()
                        })
                        .collect()
                }),
                None => Box::new(|threads, texts| {
                    let options = options(mode, threads);
                    let pipeline = SentenceEmbedder::new(artifact.clone(), options).unwrap();
                    let results = pipeline.embed_ids(texts).unwrap();
                    results
                        .into_iter()
                        .map(|result| result.vector.iter().map(|v| v.to_bits()).collect())
                        .collect()
                }),
            };
            let texts: Vec<Vec<u32>> = (0..200)
                .map(|i| {
                    (0..i * 7 % 23 + 1)
                        .map(|t| (i * 31 + t * 13) as u32 % 290 + 5)
                        .collect()
                })
                .collect();
            let texts: Vec<&[u32]> = texts.iter().map(|ids| &ids[..]).collect();
            let together = run(1, &texts);
            assert_eq!(together, run(2, &texts), "{name} {mode:?}");
            for (text, together) in texts.iter().zip(&together).step_by(9) {
                assert_eq!(run(1, &[text])[0], *together, "{name} {mode:?}");
            }
        }
    }
}
