//! The two products of attention.

use super::{Head, Lines};
use crate::kernels::simd::Simd;

/// Rows of the context that are computed side by side at most.
pub(super) const MOST_ROWS: usize = 6;

/// The same for an instruction set.
pub(super) const fn most_rows<S: Simd>() -> usize {
    if S::REGISTERS >= 16 { MOST_ROWS } else { 4 }
}

/// Columns of a panel of values: two vectors, or one where registers are scarce.
pub(super) const fn panel<S: Simd>() -> usize {
    if S::REGISTERS >= 16 {
        2 * S::LANES
    } else {
        S::LANES
    }
}

/// Fills `[key][V vectors]` with the products of keys and queries (`[width][V vectors]`), each added
/// up in the order of the columns. Returns the largest score of each query; if one is NaN, any.
#[inline(always)]
pub(super) fn scores<S: Simd, const V: usize>(
    simd: S,
    head: &Head,
    queries: &[f32],
    out: &mut [f32],
) -> [S::F; V] {
    let lanes = V * S::LANES;
    assert!(head.tokens > 0 && head.keys.len() >= (head.tokens - 1) * head.key_stride + head.width);
    assert!(queries.len() >= head.width * lanes && out.len() >= head.tokens * lanes);
    let mut largest = [simd.splat(f32::NEG_INFINITY); V];
    let mut key = 0;
    // As many keys at a time as leave registers for a vector of each query and one key.
    macro_rules! keys {
        ($rows:literal) => {
            while head.tokens - key >= $rows {
                // SAFETY: asserted above; there are `$rows` keys from `key` on.
                unsafe { keys::<S, V, $rows>(simd, head, key, queries, out, &mut largest) };
                key += $rows;
            }
        };
    }
    match (S::REGISTERS, V) {
        (..16, _) => keys!(4),
        (_, 1) => keys!(8),
        _ => keys!(6),
    }
    keys!(4);
    keys!(2);
    keys!(1);
    largest
}

/// `R` keys from number `key` on.
///
/// # Safety
/// - There are that many keys, and as many places in `out`.
/// - `queries` has `V` vectors for each column.
#[inline(always)]
unsafe fn keys<S: Simd, const V: usize, const R: usize>(
    simd: S,
    head: &Head,
    key: usize,
    queries: &[f32],
    out: &mut [f32],
    largest: &mut [S::F; V],
) {
    let lanes = V * S::LANES;
    let mut sums = [[simd.splat(0.0); V]; R];
    let mut query = queries.as_ptr();
    // SAFETY: the first is the caller's duty; the others stay within the same keys.
    let key_rows = unsafe { head.keys.as_ptr().add(key * head.key_stride) };
    for i in 0..head.width {
        let mut q = [simd.splat(0.0); V];
        for (v, q) in q.iter_mut().enumerate() {
            // SAFETY: `query` points to the vectors of column `i`.
            *q = unsafe { load(simd, query.add(v * S::LANES)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: column `i` of one of the keys.
            let k = simd.splat(unsafe { *key_rows.add(r * head.key_stride + i) });
            for v in 0..V {
                sums[v] = simd.mul_add(k, q[v], sums[v]);
            }
        }
        // SAFETY: at most one past the end.
        query = unsafe { query.add(lanes) };
    }
    let out = &mut out[key * lanes..][..R * lanes];
    for r in 0..R {
        for v in 0..V {
            largest[v] = simd.max(largest[v], sums[r][v]);
            simd.store(sums[r][v], &mut out[r * lanes + v * S::LANES..]);
        }
    }
}

/// Fills rows `first..first + R` of the context: `weights[token * stride + r]` times the values, added
/// up in the order of the tokens, times `factor[r]`.
#[inline(always)]
pub(super) fn context<S: Simd, const R: usize>(
    simd: S,
    head: &Head,
    weights: &[f32],
    stride: usize,
    factor: [f32; MOST_ROWS],
    lines: &Lines,
    first: usize,
) {
    let panel = panel::<S>();
    assert!(head.tokens > 0 && weights.len() >= (head.tokens - 1) * stride + R);
    for (p, start) in (0..head.width).step_by(panel).enumerate() {
        let values = &head.values[p * head.panel_step..];
        assert!(values.len() >= (head.tokens - 1) * head.value_stride + panel);
        let mut rows = [[0.0; 32]; R];
        // SAFETY: asserted above.
        unsafe {
            match panel / S::LANES {
                1 => weighted::<S, R, 1>(simd, head, values, weights, stride, &mut rows),
                _ => weighted::<S, R, 2>(simd, head, values, weights, stride, &mut rows),
            }
        }
        for r in 0..R {
            // SAFETY: nothing else is at work on this row; the borrow ends here.
            let row = unsafe { lines.row(first + r) };
            for (place, value) in row[start..].iter_mut().zip(&rows[r][..panel]) {
                *place = value * factor[r];
            }
        }
    }
}

/// # Safety
/// - There are `C` vectors of values and `R` weights for every token.
#[inline(always)]
unsafe fn weighted<S: Simd, const R: usize, const C: usize>(
    simd: S,
    head: &Head,
    values: &[f32],
    weights: &[f32],
    stride: usize,
    rows: &mut [[f32; 32]; R],
) {
    let mut sums = [[simd.splat(0.0); C]; R];
    let (mut value, mut weight) = (values.as_ptr(), weights.as_ptr());
    for _ in 0..head.tokens {
        let mut v = [simd.splat(0.0); C];
        for (c, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's duty.
            *v = unsafe { load(simd, value.add(c * S::LANES)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's duty.
            let w = simd.splat(unsafe { *weight.add(r) });
            for c in 0..C {
                sums[c] = simd.mul_add(w, v[c], sums[c]);
            }
        }
        value = value.wrapping_add(head.value_stride);
        weight = weight.wrapping_add(stride);
    }
    for r in 0..R {
        for c in 0..C {
            simd.store(sums[r][c], &mut rows[r][c * S::LANES..]);
        }
    }
}

/// # Safety
/// - `values` points to a vector of values.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, values: *const f32) -> S::F {
    // SAFETY: the caller's duty.
    simd.load(unsafe { std::slice::from_raw_parts(values, S::LANES) })
}
