//! Artifacts of well-known shapes with generated weights, to see size and speed without a
//! checkpoint.

use half::f16;

use super::encode::NewTensor;
use super::random_tokenizer;
use super::{
    Conversion, ConvertOptions, GroupPlan, Model, Plan, PlannedTensor, Source, TextModel,
    efficientnet, hf, plan, tokenizer,
};
use crate::artifact::{Bits, Group, NewCodebook, NewValues, NewZero, Scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::models::encoder::{Config, Family, HiddenAct, Pooling, Problem, Task};
use crate::quant::CentroidType;
use crate::quant::rng::Rng;

/// An architecture that can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// 12 layers, 768 wide, 50,265 tokens, a head of 3 labels.
    RobertaBase,
    /// 12 layers, 768 wide, 30,522 tokens, a head of 3 labels.
    BertBase,
    /// 6 layers, 384 wide, 30,522 tokens, mean pooling and L2 norm.
    MinilmL6,
    /// Images of 224 x 224, 1,000 labels, 5.3 million weights.
    EfficientNetB0,
    /// Images of 240 x 240, 1,000 labels, 7.8 million weights.
    EfficientNetB1,
    /// Images of 260 x 260, 1,000 labels, 9.1 million weights.
    EfficientNetB2,
    /// Images of 300 x 300, 1,000 labels, 12.2 million weights.
    EfficientNetB3,
    /// Images of 224 x 224, 1,000 labels, 4.7 million weights, ReLU6 and no squeeze-and-excitation.
    EfficientNetLite0,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RobertaBase,
        Self::BertBase,
        Self::MinilmL6,
        Self::EfficientNetB0,
        Self::EfficientNetB1,
        Self::EfficientNetB2,
        Self::EfficientNetB3,
        Self::EfficientNetLite0,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RobertaBase => "roberta-base",
            Self::BertBase => "bert-base",
            Self::MinilmL6 => "minilm-l6",
            Self::EfficientNetB0 => "efficientnet-b0",
            Self::EfficientNetB1 => "efficientnet-b1",
            Self::EfficientNetB2 => "efficientnet-b2",
            Self::EfficientNetB3 => "efficientnet-b3",
            Self::EfficientNetLite0 => "efficientnet-lite0",
        }
    }

    /// The architecture called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn by_name(name: &str) -> Result<Self> {
        (Self::ALL.into_iter())
            .find(|architecture| architecture.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                Error::new(
                    ErrorKind::Config,
                    format!("architecture {name:?} is unknown; known: {known}"),
                )
            })
    }

    /// The plan that its figures are given for. RoBERTa-base has blocks 8/8/16 for
    /// ffn/attention/embedding: all 12 layers distinct in 13.8 MB.
    pub fn default_plan(self, scheme: Scheme) -> Plan {
        let mut plan = Plan::new(scheme);
        if self == Self::RobertaBase {
            for (group, block) in [(Group::Attention, 8), (Group::Embedding, 16)] {
                if let Some(group) = plan.group_mut(group) {
                    group.block = block;
                }
            }
        }
        plan
    }

    /// Whether it takes images.
    pub fn of_images(self) -> bool {
        self.name().starts_with("efficientnet")
    }

    fn config(self) -> Config {
        let (hidden, layers, heads) = match self {
            Self::MinilmL6 => (384, 6, 12),
            _ => (768, 12, 12),
        };
        let roberta = self == Self::RobertaBase;
        Config {
            family: if roberta {
                Family::Roberta
            } else {
                Family::Bert
            },
            vocab_size: if roberta {
                random_tokenizer::ROBERTA_SIZE
            } else {
                random_tokenizer::BERT_SIZE
            },
            hidden,
            layers,
            heads,
            intermediate: 4 * hidden,
            positions: if roberta { 514 } else { 512 },
            position_offset: if roberta { 2 } else { 0 },
            type_vocab: if roberta { 1 } else { 2 },
            activation: HiddenAct::Gelu,
            layer_norm_eps: if roberta { 1e-5 } else { 1e-12 },
            max_tokens: 512,
            task: match self {
                Self::MinilmL6 => Task::Embedding {
                    pooling: Pooling::Mean,
                    normalize: true,
                },
                _ => Task::Classification {
                    labels: 3,
                    problem: Problem::SingleLabel,
                },
            },
        }
    }
}

pub(super) fn prepare(architecture: Architecture, options: &ConvertOptions) -> Result<Conversion> {
    if architecture.of_images() {
        return efficientnet::random(architecture.name(), options);
    }
    options.refuse_of_images()?;
    let mut config = architecture.config();
    let kept = plan::kept_layers(options, config.layers)?;
    config.layers = kept.len();
    let layer_of = plan::layer_of(config.layers, options.share)?;
    let mut labels = None;
    let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
    match &mut config.task {
        Task::Classification { labels: count, .. } => {
            if options.pooling.is_some() || options.normalize {
                return wrong("--pooling and --normalize are for embedding models".into());
            }
            let given = options.labels.clone();
            let names = given.unwrap_or((0..*count).map(|i| format!("LABEL_{i}")).collect());
            *count = names.len();
            labels = Some(names);
        }
        Task::Embedding { pooling, .. } => {
            if options.labels.is_some() {
                return wrong("--labels is for classifiers".into());
            }
            if let Some(given) = options.pooling {
                *pooling = given.into();
            }
        }
    }
    let mut tensors = hf::tensor_table(&config);
    tensors.retain(|tensor| tensor.layer.is_none_or(|layer| layer_of[layer] == layer));
    let planned = options.planned(&tensors)?;
    let json = match config.family {
        Family::Roberta => random_tokenizer::byte_level_bpe(config.vocab_size)?,
        Family::Bert => random_tokenizer::wordpiece(config.vocab_size)?,
    };
    let mut notes =
        vec!["the weights are generated: size and speed are real, answers are not".into()];
    let tokenizer = tokenizer::stored(json, &mut notes)?;
    Ok(Conversion {
        model: Model::Text(TextModel {
            config,
            tokenizer,
            layer_of,
            #[cfg(feature = "train")]
            config_json: serde_json::Map::new(),
        }),
        labels,
        source: Source::Random,
        tensors,
        plan: options.plan.clone(),
        planned,
        calibration: Vec::new(),
        pictures: Vec::new(),
        notes,
        provenance: vec![("source".into(), format!("random {}", architecture.name()))],
    })
}

/// Draws stored values directly: no K-means, since there is nothing to approximate.
pub(super) struct Weights {
    rng: Rng,
}

impl Weights {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
        }
    }

    /// Weights of standard deviation 0.02, as BERT is initialised; norms near 1.
    pub(super) fn draw(&mut self, tensor: &NewTensor, planned: &PlannedTensor) -> NewValues {
        const DEVIATION: f32 = 0.02;
        /// Standard deviation of int8 centroids.
        const NARROW: f32 = 10.0;
        let (rows, columns) = tensor.matrix();
        let n = rows * columns;
        let plan: &GroupPlan = &planned.plan;
        let center = if tensor.name.ends_with("norm.weight") {
            1.0
        } else {
            0.0
        };
        let rng = &mut self.rng;
        let row_scale = |rng: &mut Rng| -> Option<Vec<f16>> {
            let one = |_| f16::from_f32(0.75 + 0.5 * rng.uniform());
            plan.row_scale.then(|| (0..rows).map(one).collect())
        };
        match plan.scheme {
            Scheme::F32 => {
                NewValues::F32((0..n).map(|_| center + DEVIATION * rng.normal()).collect())
            }
            Scheme::F16 => NewValues::F16(
                (0..n)
                    .map(|_| f16::from_f32(center + DEVIATION * rng.normal()))
                    .collect(),
            ),
            Scheme::Pq => {
                let codes = rows * columns.div_ceil(plan.block);
                let mut bytes = Vec::with_capacity(codes + 8);
                while bytes.len() < codes {
                    bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
                }
                bytes.truncate(codes);
                if plan.centroids < 256 {
                    let k = plan.centroids as u16;
                    bytes
                        .iter_mut()
                        .for_each(|b| *b = (u16::from(*b) * k / 256) as u8);
                }
                let entries = plan.codebooks * plan.centroids * plan.block;
                // As narrow as the converter would make it.
                let mut int8 = |_| (rng.normal() * NARROW).clamp(-16.0, 16.0) as i8;
                let codebook = match plan.centroid_type {
                    CentroidType::F16 => NewCodebook::F16(
                        (0..entries)
                            .map(|_| f16::from_f32(DEVIATION * rng.normal()))
                            .collect(),
                    ),
                    _ => NewCodebook::Int8 {
                        values: (0..entries).map(&mut int8).collect(),
                        scale: DEVIATION / NARROW,
                    },
                };
                NewValues::Pq {
                    block: plan.block,
                    codebooks: plan.codebooks,
                    centroids: plan.centroids,
                    codes: bytes,
                    codebook,
                    row_scale: row_scale(rng),
                }
            }
            Scheme::Int8 | Scheme::Int4 => {
                let int4 = plan.scheme == Scheme::Int4;
                let (deviation, low, high) = if int4 {
                    (2.5, 1.0, 15.0)
                } else {
                    (42.0, -127.0, 127.0)
                };
                let middle = if int4 { 8.0 } else { 0.0 };
                let values = (0..n)
                    .map(|_| (middle + deviation * rng.normal()).round().clamp(low, high) as i8)
                    .collect();
                let per_row = plan.row_scale && plan.zero_point;
                let zero = middle as i8;
                NewValues::Scalar {
                    bits: if int4 { Bits::Four } else { Bits::Eight },
                    values,
                    scale: DEVIATION / deviation,
                    row_scale: row_scale(rng),
                    zero: if per_row {
                        NewZero::Row(vec![zero; rows])
                    } else {
                        NewZero::Tensor(zero)
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Layout;

    #[test]
    fn roberta_base_fits_its_budget() {
        let options = ConvertOptions {
            plan: Architecture::RobertaBase.default_plan(Scheme::Pq),
            ..Default::default()
        };
        let conversion = Conversion::random(Architecture::RobertaBase, &options).unwrap();
        let (bytes, report) = conversion.to_bytes(&|_| ()).unwrap();
        assert_eq!(bytes.len() as u64, report.file_bytes);
        let planned: u64 = conversion.plan().iter().map(|t| t.bytes).sum();
        assert_eq!(report.weight_bytes, planned);
        assert!(report.weight_bytes <= 14_200_000, "{}", report.weight_bytes);
        // Linear layers, embeddings, head, norms and biases of RobertaForSequenceClassification.
        assert_eq!(report.parameters, 124_647_939);
        let layout = |t: &NewTensor| t.layout == Layout::Tiles;
        assert_eq!(
            conversion.tensors.iter().filter(|t| layout(t)).count(),
            12 * 6 + 2
        );
    }

    /// The paper's 3.3 MB, every byte counted.
    #[test]
    fn efficientnets_fit_their_budgets() {
        for (architecture, parameters, most) in [
            (Architecture::EfficientNetB0, 5_267_540, 1_600_000),
            (Architecture::EfficientNetB3, 12_188_592, 3_460_300),
            (Architecture::EfficientNetLite0, 4_631_000, 1_300_000),
        ] {
            let options = ConvertOptions::default();
            let conversion = Conversion::random(architecture, &options).unwrap();
            let (_, report) = conversion.to_bytes(&|_| ()).unwrap();
            let planned: u64 = conversion.plan().iter().map(|t| t.bytes).sum();
            assert_eq!(report.weight_bytes, planned);
            println!(
                "{}: {} {}",
                architecture.name(),
                report.parameters,
                report.weight_bytes
            );
            assert!(
                report.parameters.abs_diff(parameters) < 30_000,
                "{}",
                report.parameters
            );
            assert!(report.weight_bytes <= most, "{}", report.weight_bytes);
        }
        let wrong = ConvertOptions {
            share: 2,
            ..ConvertOptions::default()
        };
        assert!(Conversion::random(Architecture::EfficientNetB0, &wrong).is_err());
    }

    #[test]
    fn tables_may_have_several_codebooks() {
        let convert = |text: &str| {
            let mut options = ConvertOptions::default();
            options.plan.apply_toml(text, None).unwrap();
            options.layers = Some(vec![0]);
            Conversion::random(Architecture::MinilmL6, &options)
        };
        let conversion = convert("[groups.embedding]\ncodebooks = 48\nrow-scale = true").unwrap();
        let (bytes, report) = conversion.to_bytes(&|_| ()).unwrap();
        let planned: u64 = conversion.plan().iter().map(|t| t.bytes).sum();
        assert_eq!(report.weight_bytes, planned);
        let artifact = crate::Artifact::from_bytes(&bytes).unwrap();
        let info = artifact.tensors().find(|t| t.name == "embeddings.token");
        assert_eq!(info.unwrap().pq.unwrap().codebooks, 48);
        for (text, expected) in [
            (
                "groups.embedding.codebooks = 5",
                "do not divide the 48 blocks",
            ),
            (
                "groups.embedding.codebooks = 0",
                "do not divide the 48 blocks",
            ),
            ("groups.ffn.codebooks = 2", "for tables of embeddings"),
        ] {
            let error = convert(text).err().unwrap();
            assert_eq!(error.kind(), crate::ErrorKind::Config);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let make = |seed| {
            let mut options = ConvertOptions::default();
            options.plan.seed = seed;
            options.layers = Some(vec![0]);
            let conversion = Conversion::random(Architecture::MinilmL6, &options).unwrap();
            conversion.to_bytes(&|_| ()).unwrap().0
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
