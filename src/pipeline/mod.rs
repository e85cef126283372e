//! What an app calls: text or images in, labels or vectors out.

#[cfg(feature = "text")]
mod classifier;
#[cfg(feature = "text")]
mod embedder;
#[cfg(feature = "image")]
mod images;
mod labels;
mod options;
#[cfg(feature = "text")]
mod texts;

#[cfg(feature = "text")]
pub use classifier::{Classification, TextClassifier};
#[cfg(feature = "text")]
pub use embedder::{Embedding, EmbeddingMatrix, SentenceEmbedder};
#[cfg(feature = "image")]
pub use images::{ImageClassification, ImageClassifier};
pub use labels::LabelScore;
pub use options::Options;

use std::sync::Arc;

use crate::error::Result;
use crate::kernels::{Isa, Threads};
use crate::nn::Context;

/// Nanoseconds of work from which a call is handed to the pool. That cost 13 us if the pool was in use
/// just before and 20 to 45 us after 1 to 10 ms, where `kernels/threads.rs` was measured.
const WORTH_THE_POOL: u64 = 500_000;

/// What every pipeline runs on.
struct Machine {
    context: Context,
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Machine {
    fn new(options: &Options) -> Result<Self> {
        let isa = match &options.isa {
            Some(name) => Isa::by_name(name)?,
            None => Isa::detect()?,
        };
        let (pool, threads) = options.pool()?;
        Ok(Self {
            context: Context {
                isa,
                threads: Threads(threads),
                mode: options.mode,
            },
            pool,
        })
    }

    /// Calls `f` in the pool, with all threads; on the caller's thread alone where `nanoseconds` of
    /// work are not worth waking another one.
    fn in_pool<T: Send>(&self, nanoseconds: u64, f: impl FnOnce(Context) -> T + Send) -> T {
        match &self.pool {
            Some(pool) if nanoseconds >= WORTH_THE_POOL => pool.install(|| f(self.context)),
            _ => f(Context {
                threads: Threads(1),
                ..self.context
            }),
        }
    }
}
