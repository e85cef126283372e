//! How a pipeline runs.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::nn::Mode;
#[cfg(feature = "text")]
use crate::text::Truncation;

/// Threads of a pipeline's own pool.
const MAX_THREADS: usize = 1024;

/// Options of a pipeline.
///
#[cfg_attr(feature = "text", doc = "```")]
#[cfg_attr(not(feature = "text"), doc = "```ignore")]
/// use centroid::{Mode, Options, Truncation};
/// let options = Options::new()
///     .threads(2)
///     .mode(Mode::Exact)
///     .truncation(Truncation::Truncate);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    threads: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
    pub(super) mode: Mode,
    #[cfg(feature = "text")]
    pub(super) max_length: Option<usize>,
    #[cfg(feature = "text")]
    pub(super) truncation: Truncation,
    pub(super) isa: Option<String>,
}

impl Options {
    /// One thread a processor, mode [`Mode::Int8`], the fastest instruction set; for texts the model's
    /// own limit of tokens, and an error beyond it.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many threads a call may use; 0, the default, is as many as the process may run on (its
    /// affinity and the quota of its control group). Results do not depend on it. More than 1,024 are an error
    /// when the pipeline is made.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Runs in this pool instead of one of the pipeline's own; its size replaces
    /// [`threads`](Self::threads).
    pub fn thread_pool(mut self, pool: Arc<rayon::ThreadPool>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// How linear layers treat their input.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The most tokens of a text, special tokens included. More than the model has is an error
    /// when the pipeline is made.
    #[cfg(feature = "text")]
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.max_length = Some(tokens);
        self
    }

    /// What happens to texts with more tokens.
    #[cfg(feature = "text")]
    pub fn truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = truncation;
        self
    }

    /// The instruction set by name, over the environment variable `CENTROID_ISA`.
    pub fn isa(mut self, name: impl Into<String>) -> Self {
        self.isa = Some(name.into());
        self
    }

    /// The pool to run in, if more than one thread is to, and the number of threads.
    pub(super) fn pool(&self) -> Result<(Option<Arc<rayon::ThreadPool>>, usize)> {
        if let Some(pool) = &self.pool {
            return Ok((Some(pool.clone()), pool.current_num_threads()));
        }
        let threads = match self.threads {
            0 => {
                std::thread::available_parallelism().map_or(1, |n| usize::from(n).min(MAX_THREADS))
            }
            n => n,
        };
        if threads > MAX_THREADS {
            let message = format!("{threads} threads; the limit is {MAX_THREADS}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        if threads == 1 {
            return Ok((None, 1));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("centroid-{i}"))
            .build()
            .map_err(|e| {
                Error::new(
                    ErrorKind::Config,
                    format!("{threads} threads cannot be started: {e}"),
                )
            })?;
        Ok((Some(Arc::new(pool)), threads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_a_limit() {
        for threads in [1025, usize::MAX] {
            let error = Options::new().threads(threads).pool().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(
                error.to_string().ends_with("threads; the limit is 1024"),
                "{error}"
            );
        }
        let (pool, threads) = Options::new().threads(2).pool().unwrap();
        assert_eq!(
            (pool.map(|pool| pool.current_num_threads()), threads),
            (Some(2), 2)
        );
    }
}
