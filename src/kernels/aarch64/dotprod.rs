//! NEON with `sdot`: sums of four `int8` products in one instruction (Neoverse N1, Cortex-A76 and
//! Apple M1, and later).

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::Neon;
use super::neon_dot::{add_to, twice, two_outputs};
use crate::kernels::dot::{Dot, DotOp};

/// A processor with NEON and its dot products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeonDotprod(Neon);

impl NeonDotprod {
    /// The token, if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let neon = Neon::new()?;
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(neon))
    }

    /// What it has besides.
    pub(crate) fn neon(self) -> Neon {
        self.0
    }
}

/// Calls instructions.
macro_rules! dotprod {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has NEON and its dot products; what
        // touches memory is given enough of it by the caller's contract.
        unsafe { $instructions }
    }};
}

/// `int8` values as they are.
#[derive(Clone, Copy)]
pub(crate) struct DotprodInt8(pub(crate) NeonDotprod);

impl Dot for DotprodInt8 {
    type Entry = i8;
    type Cell = i8;
    type Act = i8;
    type Source = i8;
    type Sum = i32;
    /// Two outputs, one in each half.
    type W = int8x16_t;
    /// The row's step in both halves.
    type X = int8x16_t;
    /// Two partial sums of each of two outputs.
    type Acc = int32x4_t;
    const OUTPUTS: usize = 2;
    const ROWS: usize = 6;
    const VECTORS: usize = 4;
    const STEPS: usize = 96;
    const PANEL: usize = 32;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "neon,dotprod")]
        fn inner<O: DotOp<DotprodInt8>>(dot: DotprodInt8, op: O) {
            op.eval(dot)
        }
        dotprod!(inner(self, op))
    }

    #[inline(always)]
    fn act(value: i8) -> i8 {
        value
    }

    #[inline(always)]
    fn cell(entry: i8) -> i8 {
        entry
    }

    #[inline(always)]
    fn zero(self) -> int32x4_t {
        dotprod!(vdupq_n_s32(0))
    }

    /// In assembly, as the compiler has no stable function for it.
    #[inline(always)]
    fn dot(self, mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        dotprod!(asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        ));
        acc
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [int32x4_t; V], _: usize, out: &mut [i32]) {
        for v in (0..V).step_by(2) {
            let sums = dotprod!(vpaddq_s32(acc[v], acc[v + 1]));
            add_to(&mut out[v * 2..], sums);
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i8) -> int8x16_t {
        dotprod!(vld1q_s8(cells))
    }

    #[inline(always)]
    unsafe fn store(self, w: int8x16_t, cells: *mut i8) {
        dotprod!(vst1q_s8(cells, w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const i8, _: *const i8) -> int8x16_t {
        dotprod!(twice(first))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> int8x16_t {
        dotprod!(vld1q_s8(entries))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> int8x16_t {
        dotprod!(two_outputs::<P>(at))
    }
}
