//! What an encoder looks like.

use crate::artifact::v1::ids;
use crate::kernels::elementwise::Activation;

ids! {
    /// Which of the two families of encoders.
    Family {
        /// Positions count from 0.
        Bert = 1, "bert";
        /// Positions count from `pad_token_id + 1`.
        Roberta = 2, "roberta";
    }
}

ids! {
    /// The activation between the two feed-forward layers, by its name in `config.json`.
    HiddenAct {
        /// By erf.
        Gelu = 1, "gelu";
        /// By tanh.
        GeluNew = 2, "gelu_new";
        /// By tanh.
        GeluPytorchTanh = 3, "gelu_pytorch_tanh";
        /// Rectified linear.
        Relu = 4, "relu";
        /// x times its sigmoid.
        Silu = 5, "silu";
    }
}

impl HiddenAct {
    pub(crate) fn function(self) -> Activation {
        match self {
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::GeluNew | HiddenAct::GeluPytorchTanh => Activation::GeluTanh,
            HiddenAct::Relu => Activation::Relu,
            HiddenAct::Silu => Activation::Silu,
        }
    }
}

ids! {
    /// How token vectors become one vector.
    Pooling {
        /// The mean of all tokens.
        Mean = 1, "mean";
        /// The first token.
        Cls = 2, "cls";
        /// The largest value of each column.
        Max = 3, "max";
    }
}

ids! {
    /// What the logits of a classifier mean.
    Problem {
        /// One label applies: the score is the softmax.
        SingleLabel = 1, "single_label_classification";
        /// Any number of labels apply: the score is the sigmoid.
        MultiLabel = 2, "multi_label_classification";
        /// A number: the score is the logit.
        Regression = 3, "regression";
    }
}

/// What an encoder is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    Embedding { pooling: Pooling, normalize: bool },
    Classification { labels: usize, problem: Problem },
}

/// The shape of an encoder. `format-spec.md` ("Encoder") describes the fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) family: Family,
    pub(crate) vocab_size: usize,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) positions: usize,
    pub(crate) position_offset: usize,
    pub(crate) type_vocab: usize,
    pub(crate) activation: HiddenAct,
    pub(crate) layer_norm_eps: f64,
    pub(crate) max_tokens: usize,
    pub(crate) task: Task,
}
