//! Attention in `f32`, by the same microkernel as the linear layers.
//!
//! For one head of one text, the keys are packed once as `[group of 8 tokens][width][8]` and the
//! values as `[group of 8 columns][tokens][8]`; scores and context are then panel products over
//! up to [`MAX_ROWS`] queries at a time.

use std::cell::RefCell;
use std::ops::Range;

use super::elementwise::softmax;
use super::output::Output;
use super::{Isa, Threads};

const LANES: usize = 8;
const MAX_ROWS: usize = 4;

trait Micro: Copy {
    fn f32<const R: usize>(self, panel: &[f32], x: [&[f32]; R]) -> [[f32; LANES]; R] {
        let mut sums = [wide::f32x8::ZERO; R];
        let panel = panel.as_chunks::<LANES>().0;
        let x = x.map(|x| &x[..panel.len()]);
        for (k, weights) in panel.iter().enumerate() {
            let weights = wide::f32x8::from(*weights);
            for r in 0..R {
                sums[r] += weights * wide::f32x8::splat(x[r][k]);
            }
        }
        sums.map(wide::f32x8::to_array)
    }
}
impl Micro for () {}

/// Projected inputs, each `[rows][hidden]`.
pub(crate) struct Heads<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
}

#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Fills `out` (`[rows][hidden]`) for the rows of every text.
pub(crate) fn attention(
    isa: Isa,
    threads: Threads,
    heads: &Heads,
    texts: &[Range<usize>],
    out: &mut [f32],
) {
    let output = Output::new(out, heads.hidden);
    let work = texts.iter().map(|t| 2 * t.len() * t.len() * heads.hidden);
    threads.each(texts.len() * heads.heads, work.sum(), |index| {
        let (text, head) = (&texts[index / heads.heads], index % heads.heads);
        SCRATCH.with_borrow_mut(|scratch| {
            let _ = isa;
            one_head((), heads, text.clone(), head, scratch, &output);
        });
    });
}

fn one_head<M: Micro>(
    micro: M,
    heads: &Heads,
    text: Range<usize>,
    head: usize,
    scratch: &mut Scratch,
    output: &Output,
) {
    let (tokens, width) = (text.len(), heads.hidden / heads.heads);
    let column = head * width;
    let row = |token: usize| {
        let start = (text.start + token) * heads.hidden + column;
        start..start + width
    };
    // Rounded up to whole groups; the lanes beyond are computed and dropped.
    let padded = tokens.next_multiple_of(LANES);
    scratch.keys.clear();
    scratch.keys.resize(padded * width, 0.0);
    scratch.values.clear();
    scratch
        .values
        .resize(width.next_multiple_of(LANES) * tokens, 0.0);
    scratch.scores.resize(MAX_ROWS * padded, 0.0);
    for t in 0..tokens {
        let (group, lane) = (t / LANES, t % LANES);
        for (i, &k) in heads.key[row(t)].iter().enumerate() {
            scratch.keys[(group * width + i) * LANES + lane] = k;
        }
        for (i, &v) in heads.value[row(t)].iter().enumerate() {
            scratch.values[((i / LANES) * tokens + t) * LANES + i % LANES] = v;
        }
    }
    let scale = 1.0 / (width as f32).sqrt();
    for first in (0..tokens).step_by(MAX_ROWS) {
        let rows = MAX_ROWS.min(tokens - first);
        let query = |r: usize| &heads.query[row(first + r)];
        let queries = [0, 1, 2, 3].map(|r| query(r.min(rows - 1)));
        panel_rows(micro, &scratch.keys, queries, rows, |r, group, sums| {
            scratch.scores[r * padded + group * LANES..][..LANES].copy_from_slice(sums);
        });
        for scores in scratch.scores.chunks_exact_mut(padded).take(rows) {
            softmax(&mut scores[..tokens], scale);
        }
        let scores = |r: usize| &scratch.scores[r.min(rows - 1) * padded..][..tokens];
        let weights = [0, 1, 2, 3].map(scores);
        panel_rows(micro, &scratch.values, weights, rows, |r, group, sums| {
            let first_column = column + group * LANES;
            let n = LANES.min(width - group * LANES);
            // SAFETY: a text and head is handed to one thread; its rows and columns are its own.
            let out = unsafe { output.block(text.start + first + r, first_column, n) };
            out.copy_from_slice(&sums[..n]);
        });
    }
}

/// The panel product of the first `rows` of `x`, group by group.
fn panel_rows<M: Micro>(
    micro: M,
    panel: &[f32],
    x: [&[f32]; MAX_ROWS],
    rows: usize,
    mut put: impl FnMut(usize, usize, &[f32; LANES]),
) {
    for (group, panel) in panel.chunks_exact(x[0].len() * LANES).enumerate() {
        let mut each = |sums: &[[f32; LANES]]| {
            for (r, sums) in sums.iter().enumerate() {
                put(r, group, sums);
            }
        };
        match rows {
            1 => each(&micro.f32(panel, [x[0]])),
            2 => each(&micro.f32(panel, [x[0], x[1]])),
            3 => each(&micro.f32(panel, [x[0], x[1], x[2]])),
            _ => each(&micro.f32(panel, x)),
        }
    }
}
