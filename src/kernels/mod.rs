//! Matrix products straight from centroids, and the vector functions around them.
//!
//! A linear weight `W[out_features, in_features]` exists only as codes. There are two ways to
//! multiply with it, and neither ever builds `W`:
//!
//! 1. **Tile decode + GEMM** ([`gemm`]): look up the codes of a panel of a few dozen outputs into a
//!    buffer that stays in the L1 or L2 cache, multiply it with all rows, go on to the next panel.
//! 2. **Lookup tables** ([`lut`], for a few rows): for every block of the input, the dot
//!    products with all centroids make a table; an output is a sum of table entries.
//!
//! With `int8` activations every sum is an exact `i32`, so the two ways agree bit for bit and the
//! number of rows may choose between them. With `f32` activations only way 1 is used, every output
//! adds its products in the order of the input, and each row has accumulators of its own: a row's
//! result depends neither on the other rows nor on the number of threads.
//!
//! An instruction set is a token ([`Isa`]) that exists only where the processor has it. Algorithms
//! are written once, over the small [`Micro`] trait; the file of an instruction set only fills that
//! in.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod attention;
mod decode;
pub(crate) mod elementwise;
pub(crate) mod fused;
pub(crate) mod gemm;
mod isa;
pub(crate) mod lut;
mod output;
pub(crate) mod portable;
#[cfg(test)]
mod reference;
pub(crate) mod rows;
mod shared;
pub(crate) mod simd;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod threads;
pub(crate) mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use isa::Isa;
pub(crate) use rows::QuantizedRows;
pub(crate) use threads::Threads;
pub(crate) use weights::{Codebook, Codes, Weights, Zero};

/// Outputs that a microkernel computes side by side.
pub(crate) const LANES: usize = 8;
/// Rows that a microkernel takes at most.
pub(crate) const MAX_ROWS: usize = 4;

/// The inner loops that an instruction set provides.
pub(crate) trait Micro: Copy + Send + Sync {
    /// `acc[r][l] = sum over p of x[r][p] . panel[p * LANES + l]`, where an `i32` holds two `i16`
    /// values and `.` is their dot product. Sums are exact.
    fn int8<const R: usize>(self, panel: &[i32], x: [&[i32]; R]) -> [[i32; LANES]; R];

    /// `acc[r][l] = sum over k of x[r][k] * panel[k * LANES + l]`, in the order of `k`.
    fn f32<const R: usize>(self, panel: &[f32], x: [&[f32]; R]) -> [[f32; LANES]; R];

    /// `table[c] = sum over p of x[p] . by_pair[p * 256 + c]` with pairs as in [`Micro::int8`].
    fn table(self, by_pair: &[i32], x: &[i32], table: &mut [i32; 256]);
}

/// Runs `$body` with `$micro` bound to the instruction set of `$isa`.
macro_rules! dispatch {
    ($isa:expr, $micro:ident => $body:expr) => {
        match $isa {
            // Their own microkernels are not written yet.
            _ => {
                let $micro = $crate::kernels::portable::Portable::new();
                $body
            }
        }
    };
}
pub(crate) use dispatch;

/// `y[m, out_features] = x W^T + bias` with `int8` activations: the `int8` mode's product.
pub(crate) fn linear_int8(
    isa: Isa,
    threads: Threads,
    weights: &Weights,
    x: &QuantizedRows,
    y: &mut [f32],
) {
    assert_eq!(x.columns(), weights.in_features);
    assert_eq!(y.len(), x.rows() * weights.out_features);
    dispatch!(isa, micro => match &weights.codes {
        Codes::Pq { codes, book } if lut::pays(x.rows(), weights, book) => {
            lut::linear(micro, threads, weights, codes, book, x, y)
        }
        _ => gemm::linear_int8(micro, threads, weights, x, y),
    });
}

/// `y[m, out_features] = x W^T + bias` with `f32` activations, for every scheme.
pub(crate) fn linear_f32(isa: Isa, threads: Threads, weights: &Weights, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len() % weights.in_features, 0);
    let m = x.len() / weights.in_features;
    assert_eq!(y.len(), m * weights.out_features);
    dispatch!(isa, micro => gemm::linear_f32(micro, threads, weights, x, y));
}
