//! Attention with 16-bit integers: what the mode `int8` uses for long texts, where a processor
//! multiplies pairs of them. Products are twice as many as in `f32`, and sums exact.
//!
//! The steps and the places are those of [`super`], with these differences:
//!
//! - Keys get one scale for all of a head of a text, queries one each, so that the largest value is
//!   [`most`] and no sum of products overflows. Column `i` is paired with column `i + width / 2`.
//! - Weights are divided by their sum before they are rounded, to multiples of 1/32767, and the context by
//!   what they add up to then. Token `2 t` is paired with `2 t + 1`. A sum of weights times values of at most
//!   32767 stays below 2^31 for up to 32768 tokens.
//!
//! With a head of 64 columns a query or key is rounded to multiples of a 5792nd of its largest value,
//! 13 bits and the sign; bfloat16 keeps 8 bits of each value.
//!
//! A value that is not finite makes a scale that is not a number, and so the context of the queries
//! that it would have reached.

use std::ops::Range;

use super::super::elementwise::exp2_of_negative;
use super::super::pairs::{Pairs, PairsOp};
use super::super::simd::Simd;
use super::{Heads, Lines, Part, grow, vectors};

/// Fewest tokens for which it pays: with AVX2, a forward pass of RoBERTa-base took as long as in `f32` at 64
/// tokens, and 7 % less at 512. Not measured with AVX-512.
pub(super) const FEWEST: usize = 96;
/// Most tokens for which a sum of weights times values cannot overflow.
pub(super) const MOST: usize = 1 << 15;
/// Rows, of keys or queries, side by side at most.
const ROWS: usize = 4;
/// The largest weight, and the largest value.
const LARGEST: f32 = 32767.0;

/// The largest integer whose square, `width` times, fits an `i32`.
fn most(width: usize) -> f32 {
    ((i32::MAX as f64 / width as f64).sqrt().floor() as f32).min(LARGEST)
}

/// What a thread works in; kept from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[tokens][half the width]`
    keys: Vec<i32>,
    /// `[panels][half the tokens][panel]`
    values: Vec<i32>,
    /// `[half the width][lanes]`
    queries: Vec<i32>,
    /// `[half the keys][lanes]`
    weights: Vec<i32>,
}

impl PairsOp for Part<'_> {
    #[inline(always)]
    fn eval<P: Pairs>(self, pairs: P) {
        let lanes = vectors::<P::S>() * P::S::LANES;
        let blocks = self.blocks(lanes);
        if blocks.is_empty() {
            return;
        }
        let lines = self.lines();
        let scratch = self.scratch;
        let Scratch {
            keys,
            values,
            queries,
            weights,
        } = &mut scratch.pairs;
        let head = Head::new(pairs, self.heads, self.keys, self.head, (keys, values));
        for block in blocks {
            let first = self.queries.start + block * lanes;
            let rows = first..self.queries.end.min(first + lanes);
            let places = (&mut *queries, &mut *weights, &mut scratch.scores);
            match rows.len().div_ceil(P::S::LANES) {
                1 => attend::<P, 1>(pairs, &head, &lines, rows, places),
                _ => attend::<P, 2>(pairs, &head, &lines, rows, places),
            }
        }
    }
}

/// Keys and values of a head.
struct Head<'a> {
    tokens: usize,
    width: usize,
    keys: &'a [i32],
    /// Of the keys: a value is so many times its integer.
    key_unit: f32,
    values: &'a [i32],
    value_unit: f32,
}

/// Columns of a panel of values.
const fn panel<S: Simd>() -> usize {
    2 * S::LANES
}

impl<'a> Head<'a> {
    #[inline(always)]
    fn new<P: Pairs>(
        pairs: P,
        heads: &Heads,
        rows: Range<usize>,
        head: usize,
        (keys, values): (&'a mut Vec<i32>, &'a mut Vec<i32>),
    ) -> Self {
        let simd = pairs.simd();
        let lanes = P::S::LANES;
        let width = heads.hidden / heads.heads;
        let tokens = rows.len();
        let half = width.div_ceil(2);
        let (key_unit, key_scale) =
            units(largest(simd, heads.key, heads, &rows, head), most(width));
        // The last vector of a token reaches into the next one's place, which comes later.
        grow(keys, tokens * half + lanes);
        for token in 0..tokens {
            let start = (rows.start + token) * heads.hidden + head * width;
            let key = &heads.key[start..start + width];
            for i in (0..half).step_by(lanes) {
                let place = &mut keys[token * half + i..];
                pairs.store(paired(pairs, key, i, key_scale), place);
            }
        }
        let (value_unit, value_scale) =
            units(largest(simd, heads.value, heads, &rows, head), LARGEST);
        let (panel, steps) = (panel::<P::S>(), tokens.div_ceil(2));
        grow(values, width.div_ceil(panel) * steps * panel);
        for step in 0..steps {
            let start = (rows.start + 2 * step) * heads.hidden + head * width;
            let low = &heads.value[start..start + width];
            let high = match 2 * step + 1 < tokens {
                true => &heads.value[start + heads.hidden..][..width],
                false => &[][..],
            };
            for (p, first) in (0..width).step_by(panel).enumerate() {
                for c in (0..panel).step_by(lanes) {
                    let of = |row: &[f32]| {
                        let row = &row[row.len().min(first + c)..row.len().min(first + c + lanes)];
                        let v = simd.load_part(row, 0.0);
                        simd.round(simd.mul(v, simd.splat(value_scale)))
                    };
                    let place = (p * steps + step) * panel + c;
                    pairs.store(pairs.pair(of(low), of(high)), &mut values[place..]);
                }
            }
        }
        Self {
            tokens,
            width,
            keys,
            key_unit,
            values,
            value_unit,
        }
    }
}

/// The largest magnitude of a head's columns in some rows of a matrix; NaN if there is one.
#[inline(always)]
fn largest<S: Simd>(simd: S, of: &[f32], heads: &Heads, rows: &Range<usize>, head: usize) -> f32 {
    let width = heads.hidden / heads.heads;
    let mut most = simd.zero_int();
    for row in rows.clone() {
        let start = row * heads.hidden + head * width;
        for values in of[start..start + width].chunks(S::LANES) {
            most = simd.max_int(most, simd.magnitude_bits(simd.load_part(values, 0.0)));
        }
    }
    f32::from_bits(simd.largest_int(most) as u32)
}

/// Columns `i` and after of a row, rounded, each with that half the width further on.
#[inline(always)]
fn paired<P: Pairs>(pairs: P, row: &[f32], i: usize, scale: f32) -> <P::S as Simd>::I {
    let simd = pairs.simd();
    let half = row.len().div_ceil(2);
    let (low, high) = row.split_at(half);
    let of = |part: &[f32]| {
        let part = &part[i.min(part.len())..part.len().min(i + P::S::LANES)];
        simd.round(simd.mul(simd.load_part(part, 0.0), simd.splat(scale)))
    };
    pairs.pair(of(low), of(high))
}

/// The value of an integer, and its inverse, where `largest` becomes `most`. The first is not a number
/// if `largest` is not finite.
fn units(largest: f32, most: f32) -> (f32, f32) {
    if !largest.is_finite() {
        return (f32::NAN, 0.0);
    }
    let unit = largest / most;
    // Of values so small, nothing is left.
    if unit < f32::MIN_POSITIVE {
        return (0.0, 0.0);
    }
    (unit, most / largest)
}

/// Up to `V` vectors of queries.
#[inline(always)]
fn attend<P: Pairs, const V: usize>(
    pairs: P,
    head: &Head,
    lines: &Lines,
    rows: Range<usize>,
    (queries, weights, scores): (&mut Vec<i32>, &mut Vec<i32>, &mut Vec<f32>),
) {
    let simd = pairs.simd();
    let lanes = V * P::S::LANES;
    let (half, steps) = (head.width.div_ceil(2), head.tokens.div_ceil(2));
    grow(queries, half * lanes);
    grow(weights, steps * lanes);
    grow(scores, 2 * steps * lanes);
    // The factor of a query's sums: those of an absent one are 0.
    let mut factors = [[0.0; 16]; V];
    queries[..half * lanes].fill(0);
    let score_unit = head.key_unit * std::f32::consts::LOG2_E / (head.width as f32).sqrt();
    for (lane, row) in rows.clone().enumerate() {
        // SAFETY: nothing else is at work on this row, and the borrow ends here.
        let query = unsafe { lines.row(row) };
        let mut bits = simd.zero_int();
        for q in query.chunks(P::S::LANES) {
            bits = simd.max_int(bits, simd.magnitude_bits(simd.load_part(q, 0.0)));
        }
        let largest = f32::from_bits(simd.largest_int(bits) as u32);
        let (unit, scale) = units(largest, most(head.width));
        factors[lane / P::S::LANES][lane % P::S::LANES] = unit * score_unit;
        for i in (0..half).step_by(P::S::LANES) {
            let mut columns = [0; 16];
            pairs.store(paired(pairs, query, i, scale), &mut columns);
            let places = queries[i * lanes..half * lanes].chunks_exact_mut(lanes);
            for (place, pair) in places.zip(&columns[..P::S::LANES]) {
                place[lane] = *pair;
            }
        }
    }
    let largest = score::<P, V>(pairs, head, queries, &factors, scores);
    let mut sums = [simd.splat(0.0); V];
    for scores in scores.chunks_exact_mut(lanes).take(head.tokens) {
        let mut x = largest;
        for v in 0..V {
            x[v] = simd.sub(simd.load(&scores[v * P::S::LANES..]), largest[v]);
        }
        let x = exp2_of_negative(simd, x);
        for v in 0..V {
            simd.store(x[v], &mut scores[v * P::S::LANES..]);
            sums[v] = simd.add(sums[v], x[v]);
        }
    }
    if head.tokens % 2 == 1 {
        scores[head.tokens * lanes..][..lanes].fill(0.0);
    }
    let scales = sums.map(|sum| simd.div(simd.splat(LARGEST), sum));
    // Of many weights that are alike, all may be rounded up, or all down: what they add up to is not `LARGEST`.
    let mut totals = [simd.zero_int(); V];
    let places = weights.chunks_exact_mut(lanes);
    for (place, scores) in places.zip(scores.chunks_exact(2 * lanes)).take(steps) {
        for v in 0..V {
            let of = |at: usize| {
                simd.round(simd.mul(simd.load(&scores[at + v * P::S::LANES..]), scales[v]))
            };
            let (low, high) = (of(0), of(lanes));
            totals[v] = simd.add_int(totals[v], simd.add_int(low, high));
            pairs.store(pairs.pair(low, high), &mut place[v * P::S::LANES..]);
        }
    }
    // A sum that is not a number has lost its weights to the rounding.
    let mut units = [[0.0; 16]; V];
    for v in 0..V {
        let unit = simd.div(simd.splat(head.value_unit), simd.to_float(totals[v]));
        let zero = simd.mul(sums[v], simd.splat(0.0));
        simd.store(simd.add(unit, zero), &mut units[v]);
    }
    let n = rows.len();
    let groups = n.div_ceil(ROWS);
    for group in 0..groups {
        let part = group * n / groups..(group + 1) * n / groups;
        let mut unit = [0.0; ROWS];
        for (lane, unit) in part.clone().zip(&mut unit) {
            *unit = units[lane / P::S::LANES][lane % P::S::LANES];
        }
        let first = rows.start + part.start;
        let weights = &weights[part.start..];
        match part.len() {
            1 => context::<P, 1>(pairs, head, weights, lanes, unit, lines, first),
            2 => context::<P, 2>(pairs, head, weights, lanes, unit, lines, first),
            3 => context::<P, 3>(pairs, head, weights, lanes, unit, lines, first),
            _ => context::<P, 4>(pairs, head, weights, lanes, unit, lines, first),
        }
    }
}

/// Fills `[key][V vectors]`; returns the largest score of each query.
#[inline(always)]
fn score<P: Pairs, const V: usize>(
    pairs: P,
    head: &Head,
    queries: &[i32],
    factors: &[[f32; 16]; V],
    out: &mut [f32],
) -> [<P::S as Simd>::F; V] {
    let simd = pairs.simd();
    let mut largest = [simd.splat(f32::NEG_INFINITY); V];
    let mut key = 0;
    let half = head.width.div_ceil(2);
    assert!(head.keys.len() >= head.tokens * half && queries.len() >= half * V * P::S::LANES);
    macro_rules! keys {
        ($rows:literal) => {
            while head.tokens - key >= $rows {
                // SAFETY: asserted above; there are `$rows` keys from `key` on.
                unsafe {
                    keys::<P, V, $rows>(pairs, head, key, queries, factors, out, &mut largest);
                }
                key += $rows;
            }
        };
    }
    keys!(4);
    keys!(1);
    largest
}

/// `R` keys from number `key` on.
///
/// # Safety
/// - There are that many keys.
/// - `queries` has `V` vectors for each pair of columns.
#[inline(always)]
unsafe fn keys<P: Pairs, const V: usize, const R: usize>(
    pairs: P,
    head: &Head,
    key: usize,
    queries: &[i32],
    factors: &[[f32; 16]; V],
    out: &mut [f32],
    largest: &mut [<P::S as Simd>::F; V],
) {
    let simd = pairs.simd();
    let lanes = V * P::S::LANES;
    let half = head.width.div_ceil(2);
    // SAFETY: the caller's duty.
    let rows = unsafe { head.keys.as_ptr().add(key * half) };
    let mut query = queries.as_ptr();
    let mut sums = [[simd.zero_int(); V]; R];
    for i in 0..half {
        let mut q = [simd.zero_int(); V];
        for (v, q) in q.iter_mut().enumerate() {
            // SAFETY: `query` points to the vectors of pair `i`.
            *q = unsafe { load(pairs, query.add(v * P::S::LANES)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: pair `i` of one of the keys.
            let k = pairs.splat(unsafe { *rows.add(r * half + i) });
            for v in 0..V {
                sums[v] = pairs.dot(sums[v], k, q[v]);
            }
        }
        query = query.wrapping_add(lanes);
    }
    let out = &mut out[key * lanes..][..R * lanes];
    for r in 0..R {
        for v in 0..V {
            let score = simd.mul(simd.to_float(sums[r][v]), simd.load(&factors[v]));
            largest[v] = simd.max(largest[v], score);
            simd.store(score, &mut out[r * lanes + v * P::S::LANES..]);
        }
    }
}

/// Fills rows `first..first + R` of the context.
#[inline(always)]
fn context<P: Pairs, const R: usize>(
    pairs: P,
    head: &Head,
    weights: &[i32],
    stride: usize,
    unit: [f32; ROWS],
    lines: &Lines,
    first: usize,
) {
    const C: usize = 2;
    let simd = pairs.simd();
    let (panel, steps) = (panel::<P::S>(), head.tokens.div_ceil(2));
    assert!(weights.len() >= (steps - 1) * stride + R);
    for (p, start) in (0..head.width).step_by(panel).enumerate() {
        let values = &head.values[p * steps * panel..][..steps * panel];
        let mut sums = [[simd.zero_int(); C]; R];
        let (mut value, mut weight) = (values.as_ptr(), weights.as_ptr());
        for _ in 0..steps {
            let mut v = [simd.zero_int(); C];
            for (c, v) in v.iter_mut().enumerate() {
                // SAFETY: `value` points to a panel of one of the steps.
                *v = unsafe { load(pairs, value.add(c * P::S::LANES)) };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `weight` points to `R` weights of that step, as asserted above.
                let w = pairs.splat(unsafe { *weight.add(r) });
                for c in 0..C {
                    sums[c] = pairs.dot(sums[c], w, v[c]);
                }
            }
            value = value.wrapping_add(panel);
            weight = weight.wrapping_add(stride);
        }
        for r in 0..R {
            let mut row = [0.0; 32];
            for c in 0..C {
                let value = simd.mul(simd.to_float(sums[r][c]), simd.splat(unit[r]));
                simd.store(value, &mut row[c * P::S::LANES..]);
            }
            // SAFETY: nothing else is at work on this row; the borrow ends here.
            let out = unsafe { lines.row(first + r) };
            for (place, value) in out[start..].iter_mut().zip(&row[..panel]) {
                *place = *value;
            }
        }
    }
}

/// # Safety
/// - `values` points to a vector of pairs.
#[inline(always)]
unsafe fn load<P: Pairs>(pairs: P, values: *const i32) -> <P::S as Simd>::I {
    // SAFETY: the caller's duty.
    pairs.load(unsafe { std::slice::from_raw_parts(values, P::S::LANES) })
}
