//! The baseline of every target, by the `wide` crate, which picks SSE2, NEON or simd128 when the
//! crate is compiled.

use bytemuck::cast;
use wide::{f32x8, i16x16, i32x8};

use super::{LANES, Micro};

/// The portable instruction set: there is always one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portable(());

impl Portable {
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Micro for Portable {
    #[inline]
    fn int8<const R: usize>(self, panel: &[i32], x: [&[i32]; R]) -> [[i32; LANES]; R] {
        let mut sums = [i32x8::ZERO; R];
        let panel = panel.as_chunks::<LANES>().0;
        let x = x.map(|x| &x[..panel.len()]);
        for (p, weights) in panel.iter().enumerate() {
            let weights: i16x16 = cast(*weights);
            for r in 0..R {
                sums[r] += weights.dot(cast(i32x8::splat(x[r][p])));
            }
        }
        sums.map(i32x8::to_array)
    }

    #[inline]
    fn f32<const R: usize>(self, panel: &[f32], x: [&[f32]; R]) -> [[f32; LANES]; R] {
        let mut sums = [f32x8::ZERO; R];
        let panel = panel.as_chunks::<LANES>().0;
        let x = x.map(|x| &x[..panel.len()]);
        for (k, weights) in panel.iter().enumerate() {
            let weights = f32x8::from(*weights);
            for r in 0..R {
                sums[r] += weights * f32x8::splat(x[r][k]);
            }
        }
        sums.map(f32x8::to_array)
    }

    #[inline]
    fn table(self, by_pair: &[i32], x: &[i32], table: &mut [i32; 256]) {
        for (first, entries) in table.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut sums = i32x8::ZERO;
            for (pair, &x) in by_pair.as_chunks::<256>().0.iter().zip(x) {
                let weights: i16x16 = cast(pair.as_chunks::<LANES>().0[first]);
                sums += weights.dot(cast(i32x8::splat(x)));
            }
            *entries = sums.to_array();
        }
    }
}
