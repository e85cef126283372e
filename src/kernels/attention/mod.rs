//! Attention in `f32`, text by text and head by head.
//!
//! Some queries of a head, a vector or a few of them wide, are transposed and then stand side by side
//! in the lanes of vectors; everything is computed for all of them at once ([`product`]):
//!
//! 1. scores `[key][query]`, and each query's largest one, while keys are read as they lie in memory;
//! 2. `2^(score - largest)` in place, and each query's sum (the scores have the factor `log2 e` from
//!    the queries);
//! 3. the context, values as they lie in memory, divided by the sum.
//!
//! So softmax works on whole vectors without a step across lanes, keys and values need no packing,
//! and a small text costs little more than its arithmetic. With many queries they are copied
//! together once, because rows of a wide matrix lie on pages and cache sets of their own.
//!
//! A query's result is a chain of operations in the order of the keys and columns, in a lane of its
//! own: it does not depend on the other queries, texts and threads.

#[cfg(target_arch = "x86_64")]
mod pairs;
mod product;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;

use super::elementwise::exp2_of_negative;
#[cfg(target_arch = "x86_64")]
use super::pairs::Pairs as _;
use super::shared::Shared;
use super::simd::{Op, Simd};
use super::{Isa, Threads, work};

/// Keys and values of several texts, one after another, each `[rows][hidden]`.
pub(crate) struct Heads<'a> {
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
}

/// Which tokens ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queries {
    /// All: the rows of the queries are those of the keys.
    All,
    /// The first token of each text: there is a row for each text.
    First,
}

impl Queries {
    /// The rows of the queries of text `index`, whose keys are `text`.
    fn of(self, index: usize, text: &Range<usize>) -> Range<usize> {
        match self {
            Queries::All => text.clone(),
            Queries::First => index..index + 1,
        }
    }
}

/// Puts `softmax(q k^T / sqrt(head width)) v` in the place of each query, head by head within each
/// text. `rows` is `[queries][hidden]`; `texts` are rows of the keys. With `rounded`, texts for which that
/// is faster may use 16-bit integers (see `pairs`) where all tokens ask.
pub(crate) fn attention(
    (isa, threads): (Isa, Threads),
    heads: &Heads,
    texts: &[Range<usize>],
    queries: Queries,
    rounded: bool,
    rows: &mut [f32],
) {
    assert_eq!(heads.key.len(), heads.value.len());
    assert_eq!(heads.hidden % heads.heads, 0);
    let products = (texts.iter().enumerate())
        .map(|(i, text)| work([2, queries.of(i, text).len(), text.len(), heads.hidden]));
    let nanoseconds = products.sum::<u64>() / isa.f32_rate() as u64;
    // With few texts and heads, the queries are split too.
    let pairs = texts.len() * heads.heads;
    let parts = match threads.0 {
        1 => 1,
        threads => (4 * threads).div_ceil(pairs.max(1)),
    };
    let rows = Shared::new(rows);
    threads.each_for(pairs * parts, nanoseconds, |item| {
        let (pair, part) = (item / parts, item % parts);
        let (text, head) = (pair / heads.heads, pair % heads.heads);
        SCRATCH.with_borrow_mut(|scratch| {
            let part = Part {
                heads,
                keys: texts[text].clone(),
                queries: queries.of(text, &texts[text]),
                head,
                part: (part, parts),
                rows: &rows,
                scratch,
            };
            part.run(isa, rounded && queries == Queries::All);
        });
    });
}

/// Some queries of one head of a text.
struct Part<'a> {
    heads: &'a Heads<'a>,
    /// Rows of keys and values.
    keys: Range<usize>,
    queries: Range<usize>,
    head: usize,
    /// The number of the part, and how many share the queries.
    part: (usize, usize),
    /// Nothing else is at work on the head's columns of the part's queries.
    rows: &'a Shared<'a, f32>,
    scratch: &'a mut Scratch,
}

/// What a thread works in; kept from call to call.
#[derive(Default)]
struct Scratch {
    /// `[tokens][width]`
    keys: Vec<f32>,
    /// `[panels][tokens][panel]`
    values: Vec<f32>,
    /// `[width][lanes]`
    queries: Vec<f32>,
    /// `[keys][lanes]`
    scores: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pairs: pairs::Scratch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Blocks of queries from which copying keys and values pays.
const WORTH_COPYING: usize = 3;

impl<'a> Part<'a> {
    /// In 16-bit integers if they are wanted and faster, which depends on the text alone; else in `f32`.
    #[cfg(target_arch = "x86_64")]
    fn run(self, isa: Isa, rounded: bool) {
        use super::x86::pairs::{Avx2Pairs, Avx512Pairs, VnniPairs};
        let rounded = rounded && (pairs::FEWEST..=pairs::MOST).contains(&self.keys.len());
        match isa {
            Isa::Avx2(token) if rounded => Avx2Pairs(token).run(self),
            Isa::Avx512(token) if rounded => Avx512Pairs(token).run(self),
            Isa::Avx512Vnni(token) if rounded => VnniPairs(token).run(self),
            Isa::Avx512Vbmi(token) if rounded => VnniPairs(token.vnni()).run(self),
            _ => isa.run(self),
        }
    }

    /// In `f32`.
    #[cfg(not(target_arch = "x86_64"))]
    fn run(self, isa: Isa, _rounded: bool) {
        isa.run(self);
    }

    /// Its blocks of `lanes` queries.
    fn blocks(&self, lanes: usize) -> Range<usize> {
        let blocks = self.queries.len().div_ceil(lanes);
        let (part, parts) = self.part;
        part * blocks / parts..(part + 1) * blocks / parts
    }

    fn lines(&self) -> Lines<'a> {
        let width = self.heads.hidden / self.heads.heads;
        Lines {
            rows: self.rows,
            hidden: self.heads.hidden,
            columns: self.head * width..(self.head + 1) * width,
        }
    }
}

impl Op for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let lanes = vectors::<S>() * S::LANES;
        let blocks = self.blocks(lanes);
        if blocks.is_empty() {
            return;
        }
        let lines = self.lines();
        let scratch = self.scratch;
        let places = (&mut scratch.keys, &mut scratch.values);
        let head = Head::new::<S>(self.heads, self.keys, self.head, blocks.len(), places);
        for block in blocks {
            let first = self.queries.start + block * lanes;
            let queries = first..self.queries.end.min(first + lanes);
            let (places, scores) = (&mut scratch.queries, &mut scratch.scores);
            match queries.len().div_ceil(S::LANES) {
                1 => attend::<S, 1>(simd, &head, &lines, queries, places, scores),
                _ => attend::<S, 2>(simd, &head, &lines, queries, places, scores),
            }
        }
    }
}

/// Vectors of queries that are worked on at a time.
const fn vectors<S: Simd>() -> usize {
    if S::REGISTERS >= 16 { 2 } else { 1 }
}

/// Keys and values of a head, wherever they lie.
struct Head<'a> {
    tokens: usize,
    width: usize,
    keys: &'a [f32],
    key_stride: usize,
    /// Panels of a few vectors of columns, one every `panel_step`.
    values: &'a [f32],
    value_stride: usize,
    panel_step: usize,
}

impl<'a> Head<'a> {
    /// Where they lie in the matrices, or copied together if `blocks` of queries make that pay or
    /// the last panel would reach into the next head.
    #[inline(always)]
    fn new<S: Simd>(
        heads: &'a Heads,
        rows: Range<usize>,
        head: usize,
        blocks: usize,
        (keys, values): (&'a mut Vec<f32>, &'a mut Vec<f32>),
    ) -> Self {
        let width = heads.hidden / heads.heads;
        let (tokens, panel) = (rows.len(), product::panel::<S>());
        let start = rows.start * heads.hidden + head * width;
        let (key, value) = (&heads.key[start..], &heads.value[start..]);
        if blocks < WORTH_COPYING && width.is_multiple_of(panel) {
            return Self {
                tokens,
                width,
                keys: key,
                key_stride: heads.hidden,
                values: value,
                value_stride: heads.hidden,
                panel_step: panel,
            };
        }
        let panels = width.div_ceil(panel);
        grow(keys, tokens * width);
        grow(values, tokens * panels * panel);
        for t in 0..tokens {
            keys[t * width..][..width].copy_from_slice(&key[t * heads.hidden..][..width]);
            let value = &value[t * heads.hidden..][..width];
            for (p, columns) in value.chunks(panel).enumerate() {
                let place = &mut values[(p * tokens + t) * panel..][..panel];
                place[..columns.len()].copy_from_slice(columns);
                place[columns.len()..].fill(0.0);
            }
        }
        Self {
            tokens,
            width,
            keys,
            key_stride: width,
            values,
            value_stride: panel,
            panel_step: tokens * panel,
        }
    }
}

/// Makes room for `n` values; those that are there stay, whatever they are.
fn grow<T: Copy + Default>(values: &mut Vec<T>, n: usize) {
    if values.len() < n {
        values.resize(n, T::default());
    }
}

/// The columns of a head in the rows of queries, which become those of the context.
struct Lines<'a> {
    rows: &'a Shared<'a, f32>,
    hidden: usize,
    columns: Range<usize>,
}

impl Lines<'_> {
    /// # Safety
    /// - While the result is alive, no other call may have handed out the same row.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    unsafe fn row(&self, row: usize) -> &mut [f32] {
        let start = row * self.hidden;
        // SAFETY: the caller's duty.
        unsafe {
            self.rows
                .part(start + self.columns.start..start + self.columns.end)
        }
    }
}

/// Up to `V` vectors of queries.
#[inline(always)]
fn attend<S: Simd, const V: usize>(
    simd: S,
    head: &Head,
    lines: &Lines,
    rows: Range<usize>,
    queries: &mut Vec<f32>,
    scores: &mut Vec<f32>,
) {
    let lanes = V * S::LANES;
    grow(queries, head.width * lanes);
    grow(scores, head.tokens * lanes);
    let scale = std::f32::consts::LOG2_E / (head.width as f32).sqrt();
    for (lane, row) in rows.clone().enumerate() {
        // SAFETY: nothing else is at work on this row, and the borrow ends here.
        let query = unsafe { lines.row(row) };
        for (place, q) in queries.chunks_exact_mut(lanes).zip(query) {
            place[lane] = *q * scale;
        }
    }
    if rows.len() < lanes {
        for place in queries.chunks_exact_mut(lanes).take(head.width) {
            place[rows.len()..].fill(0.0);
        }
    }
    let largest = product::scores::<S, V>(simd, head, queries, scores);
    let mut sums = [simd.splat(0.0); V];
    for scores in scores.chunks_exact_mut(lanes).take(head.tokens) {
        let mut x = largest;
        for v in 0..V {
            x[v] = simd.sub(simd.load(&scores[v * S::LANES..]), largest[v]);
        }
        let x = exp2_of_negative(simd, x);
        for v in 0..V {
            simd.store(x[v], &mut scores[v * S::LANES..]);
            sums[v] = simd.add(sums[v], x[v]);
        }
    }
    let mut factors = [[0.0; 16]; V];
    for v in 0..V {
        simd.store(simd.div(simd.splat(1.0), sums[v]), &mut factors[v]);
    }
    // Shared out evenly: 8 queries as 4 and 4.
    let n = rows.len();
    let groups = n.div_ceil(product::most_rows::<S>());
    for group in 0..groups {
        let part = group * n / groups..(group + 1) * n / groups;
        let mut factor = [0.0; product::MOST_ROWS];
        for (lane, factor) in part.clone().zip(&mut factor) {
            *factor = factors[lane / S::LANES][lane % S::LANES];
        }
        let first = rows.start + part.start;
        let scores = &scores[part.start..];
        match part.len() {
            1 => product::context::<S, 1>(simd, head, scores, lanes, factor, lines, first),
            2 => product::context::<S, 2>(simd, head, scores, lanes, factor, lines, first),
            3 => product::context::<S, 3>(simd, head, scores, lanes, factor, lines, first),
            4 => product::context::<S, 4>(simd, head, scores, lanes, factor, lines, first),
            5 => product::context::<S, 5>(simd, head, scores, lanes, factor, lines, first),
            _ => product::context::<S, 6>(simd, head, scores, lanes, factor, lines, first),
        }
    }
}
