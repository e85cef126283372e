//! Matrix products straight from centroids, and the vector functions around them.
//!
//! A linear weight `W[out_features, in_features]` exists only as codes, and `W` is never built. The
//! microkernel ([`micro`]) copies centroids from the codebook straight into registers and multiplies
//! them with a few rows; where there are more rows, it leaves a small panel of what it looked up in
//! the first-level cache for them ([`gemm`]). Where it is faster, groups of rows add up dot products
//! out of tables that all outputs share ([`lut16`]), and where bytes can be looked up fast enough, so
//! do a few rows (`lut`).
//!
//! With `int8` activations every sum is an exact `i32`. With `f32` activations an output adds its
//! products in an order that depends on the instruction set alone. Either way a row has sums of
//! its own: its result depends neither on the other rows nor on the number of threads.
//!
//! An instruction set is a token ([`Isa`]) that exists only where the processor has it. Algorithms
//! are written once, over the small traits [`dot::Dot`] (products) and [`simd::Simd`] (all between
//! them); the file of an instruction set only fills those in.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod attention;
mod baseline;
mod buffer;
mod dot;
pub(crate) mod elementwise;
mod entry;
mod finish;
pub(crate) mod fused;
pub(crate) mod gemm;
mod isa;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lut;
mod lut16;
mod micro;
#[cfg(feature = "convert")]
pub(crate) mod nearest;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod portable;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable_dot;
mod prefetch;
#[cfg(test)]
mod reference;
pub(crate) mod rows;
mod shared;
pub(crate) mod simd;
mod source;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod threads;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
pub(crate) mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use buffer::Buffer;
pub(crate) use isa::Isa;
pub(crate) use rows::QuantizedRows;
pub(crate) use threads::{Threads, work};
pub(crate) use weights::{Codebook, Codes, Offsets, Weights, Zero};

/// Runs `$body` with `$dot` bound to the `int8` dot products of `$isa`, for a codebook with `$room`
/// ([`Codebook::room`]).
macro_rules! dispatch_int8 {
    ($isa:expr, $room:expr, $dot:ident => $body:expr) => {{
        use $crate::kernels::{Isa, baseline};
        // Only AVX2 asks for it.
        let _: u32 = $room;
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) if $room >= 2 => {
                let $dot = $crate::kernels::x86::avx2_dot::Avx2Narrower(token);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) if $room == 1 => {
                let $dot = $crate::kernels::x86::avx2_dot::Avx2Narrow(token);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => {
                let $dot = $crate::kernels::x86::avx2_dot::Avx2Int8(token);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => {
                let $dot = $crate::kernels::x86::avx512_dot::Avx512Int8(token);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(token) => {
                let $dot = $crate::kernels::x86::vnni::VnniInt8(token);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vbmi(token) => {
                let $dot = $crate::kernels::x86::vnni::VnniInt8(token.vnni());
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => {
                let $dot = $crate::kernels::aarch64::neon_dot::NeonInt8(token);
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(token) => {
                let $dot = $crate::kernels::aarch64::dotprod::DotprodInt8(token);
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(token) => {
                let $dot = $crate::kernels::aarch64::i8mm::I8mmInt8(token);
                $body
            }
            Isa::Portable(_) => {
                let $dot = baseline::Int8;
                $body
            }
        }
    }};
}

/// Runs `$body` with `$dot` bound to the `f32` dot products of `$isa`.
macro_rules! dispatch_f32 {
    ($isa:expr, $dot:ident => $body:expr) => {{
        use $crate::kernels::{Isa, baseline};
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => {
                let $dot = $crate::kernels::x86::avx2_dot::Avx2F32(token);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => {
                let $dot = $crate::kernels::x86::avx512_dot::Avx512F32(token);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(token) => {
                let $dot = $crate::kernels::x86::avx512_dot::Avx512F32(token.avx512());
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vbmi(token) => {
                let $dot = $crate::kernels::x86::avx512_dot::Avx512F32(token.vnni().avx512());
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => {
                let $dot = $crate::kernels::aarch64::neon_dot::NeonF32(token);
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(token) => {
                let $dot = $crate::kernels::aarch64::neon_dot::NeonF32(token.neon());
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(token) => {
                let $dot = $crate::kernels::aarch64::neon_dot::NeonF32(token.neon());
                $body
            }
            Isa::Portable(_) => {
                let $dot = baseline::F32;
                $body
            }
        }
    }};
}

// Below the macros that they use.
pub(crate) mod conv;
pub(crate) mod peak;
pub(crate) mod pointwise;

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
    let threads = (threads, isa.int8_rate());
    // The first rows by tables, the last ones by tables of another kind, and those between straight from
    // centroids.
    let first = lut16::linear(isa, threads, weights, x, y);
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
    let mut end = x.rows();
    #[cfg(target_arch = "x86_64")]
    if let Isa::Avx512Vbmi(token) = isa {
        end -= lut::rows(weights, end - first);
        lut::linear(token, threads, weights, x, end, y);
    }
    if first == end {
        return;
    }
    let y = &mut y[first * weights.out_features..end * weights.out_features];
    let input = gemm::Input {
        values: &x.values()[first * x.columns()..end * x.columns()],
        rows: end - first,
        stride: x.columns(),
    };
    let finish = finish::Int8::new(x, first);
    let few = if weights.offsets.is_some() { 1 } else { 4 };
    let room = match weights.codes {
        // A row of zeros more, every time, is a large part of a few rows.
        Codes::Pq { book, .. } if book.looks_up() && input.rows >= few => {
            // Two steps at once need the registers that few rows spend on more outputs.
            book.room.min(if input.rows >= 3 { 2 } else { 1 })
        }
        _ => 0,
    };
    dispatch_int8!(isa, room, dot => gemm::linear(dot, threads, weights, &input, &finish, y));
}

/// `y[m, out_features] = x W^T + bias` with `f32` activations, for every scheme.
pub(crate) fn linear_f32(isa: Isa, threads: Threads, weights: &Weights, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len() % weights.in_features, 0);
    let input = gemm::Input {
        values: x,
        rows: x.len() / weights.in_features,
        stride: weights.in_features,
    };
    assert_eq!(y.len(), input.rows * weights.out_features);
    let threads = (threads, isa.f32_rate());
    dispatch_f32!(isa, dot => gemm::linear(dot, threads, weights, &input, &finish::F32, y));
}
