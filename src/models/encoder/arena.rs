//! The memory of forward passes, kept from one to the next.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Config, Positions};
use crate::kernels::QuantizedRows;

/// Texts for a forward pass and everything that it computes in between.
///
/// A token takes `4 * (hidden + max(3 * hidden, hidden + intermediate))` bytes of `f32`, and a byte
/// for each value of a quantized row: 21 kB in RoBERTa-base.
#[derive(Default)]
pub(crate) struct Arena {
    pub(super) batch: Batch,
    /// `[tokens][hidden]`
    pub(super) x: Vec<f32>,
    /// Query, key and value; then the wide rows and what is added to `x`.
    pub(super) work: Vec<f32>,
    pub(super) quantized: QuantizedRows,
    /// `[texts][values]`
    pub(super) results: Vec<f32>,
}

/// Tokens of several texts, one after another.
#[derive(Default)]
pub(super) struct Batch {
    /// Token, type and position.
    pub(super) tokens: Vec<[u32; 3]>,
    pub(super) texts: Vec<Range<usize>>,
}

/// What a token takes in the vectors of an [`Arena`].
#[derive(Clone, Copy)]
pub(super) struct Widths {
    x: usize,
    work: usize,
    quantized: usize,
}

impl Widths {
    pub(super) fn new(config: &Config) -> Self {
        let (hidden, ffn) = (config.hidden, config.intermediate);
        Self {
            x: hidden,
            work: (3 * hidden).max(hidden + ffn),
            quantized: hidden.max(ffn),
        }
    }
}

impl Arena {
    /// Forgets the texts.
    pub(crate) fn clear(&mut self) {
        self.batch.tokens.clear();
        self.batch.texts.clear();
    }

    /// Adds a text that [`check`](super::Encoder::check) admits, of at least one token.
    pub(crate) fn push(&mut self, config: &Config, ids: &[u32], type_ids: &[u32]) {
        let start = self.batch.tokens.len();
        let mut positions = Positions::new(config);
        let tokens = ids.iter().zip(type_ids);
        let tokens = tokens.map(|(&id, &type_id)| [id, type_id, positions.next(id)]);
        self.batch.tokens.extend(tokens);
        self.batch.texts.push(start..self.batch.tokens.len());
    }

    /// Makes room for the tokens of the texts.
    pub(super) fn fit(&mut self, widths: Widths) {
        let tokens = self.batch.tokens.len();
        for (values, width) in [(&mut self.x, widths.x), (&mut self.work, widths.work)] {
            if values.len() < tokens * width {
                // Nothing in there is worth copying.
                values.clear();
                values.reserve_exact(tokens * width);
                values.resize(tokens * width, 0.0);
            }
        }
    }

    /// Gives back memory beyond twice what `tokens` tokens need.
    fn shrink(&mut self, widths: Widths, tokens: usize) {
        if self.x.capacity() <= 2 * tokens * widths.x {
            return;
        }
        for (values, width) in [(&mut self.x, widths.x), (&mut self.work, widths.work)] {
            values.truncate(tokens * width);
            values.shrink_to(tokens * width);
        }
        self.quantized.shrink(tokens, widths.quantized);
        self.clear();
        self.batch.tokens.shrink_to(tokens);
        self.batch.texts.shrink_to(tokens);
    }
}

/// Arenas that no call is using.
///
/// A call takes one, or makes one if there is none, so there are as many as calls at a time. What
/// [`WINDOW`] calls in a row did not need is given back: arenas that stayed idle, and memory beyond
/// twice what the largest of those forward passes took.
#[derive(Default)]
pub(super) struct Arenas(Mutex<Pool>);

const WINDOW: usize = 64;

#[derive(Default)]
struct Pool {
    idle: Vec<Arena>,
    /// Of this window: calls that have ended, ...
    calls: usize,
    /// ... tokens of the largest forward pass, ...
    most_tokens: usize,
    /// ... and idle arenas when the fewest were.
    fewest_idle: Option<usize>,
}

impl Arenas {
    /// An arena without texts.
    pub(super) fn take(&self, widths: Widths) -> Lent<'_> {
        let mut pool = self.pool();
        let arena = pool.idle.pop();
        let left = pool.idle.len();
        pool.fewest_idle = Some(pool.fewest_idle.map_or(left, |fewest| fewest.min(left)));
        drop(pool);
        let mut arena = arena.unwrap_or_default();
        arena.clear();
        Lent {
            arenas: self,
            widths,
            arena,
            most_tokens: 0,
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic cannot leave it half changed in a way that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An arena in use.
pub(crate) struct Lent<'a> {
    arenas: &'a Arenas,
    widths: Widths,
    arena: Arena,
    /// Of all forward passes so far.
    pub(super) most_tokens: usize,
}

impl Deref for Lent<'_> {
    type Target = Arena;

    fn deref(&self) -> &Arena {
        &self.arena
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self.arenas.pool();
        pool.idle.push(std::mem::take(&mut self.arena));
        pool.calls += 1;
        pool.most_tokens = pool.most_tokens.max(self.most_tokens);
        if pool.calls < WINDOW {
            return;
        }
        let pool = &mut *pool;
        let unused = pool.fewest_idle.unwrap_or(0).min(pool.idle.len());
        // The last ones are taken first, so these were not used.
        pool.idle.drain(..unused);
        for arena in &mut pool.idle {
            arena.shrink(self.widths, pool.most_tokens);
        }
        (pool.calls, pool.most_tokens, pool.fewest_idle) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: Widths = Widths {
        x: 4,
        work: 12,
        quantized: 8,
    };

    fn call(arenas: &Arenas, tokens: usize) {
        let mut arena = arenas.take(WIDTHS);
        arena.batch.tokens.resize(tokens, [0; 3]);
        arena.fit(WIDTHS);
        arena.most_tokens = tokens;
    }

    fn sizes(arenas: &Arenas) -> Vec<usize> {
        let pool = arenas.pool();
        pool.idle.iter().map(|arena| arena.x.capacity()).collect()
    }

    #[test]
    fn memory_that_is_not_needed_is_given_back() {
        let arenas = Arenas::default();
        call(&arenas, 100);
        assert_eq!(sizes(&arenas), [400]);
        // The first window saw the large call.
        (1..WINDOW).for_each(|_| call(&arenas, 10));
        assert_eq!(sizes(&arenas), [400]);
        (0..WINDOW).for_each(|_| call(&arenas, 10));
        assert_eq!(sizes(&arenas), [40]);
        // Within twice the need nothing changes.
        (0..3 * WINDOW).for_each(|i| call(&arenas, 6 + i % 5));
        (0..3 * WINDOW).for_each(|_| call(&arenas, 5));
        assert_eq!(sizes(&arenas), [40]);
    }

    #[test]
    fn arenas_of_calls_at_the_same_time_are_kept_while_they_are_needed() {
        let arenas = Arenas::default();
        let three = || {
            let _a = arenas.take(WIDTHS);
            let _b = arenas.take(WIDTHS);
            call(&arenas, 1);
        };
        (0..WINDOW).for_each(|_| three());
        assert_eq!(sizes(&arenas).len(), 3);
        (0..2 * WINDOW).for_each(|_| call(&arenas, 1));
        assert_eq!(sizes(&arenas).len(), 1);
    }
}
