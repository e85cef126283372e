//! NEON with `smmla`: two rows by two outputs in one instruction (Neoverse V1, Cortex-A510 and
//! Apple M2, and later).

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::Neon;
use super::neon_dot::{add_to, two_outputs};
use crate::kernels::dot::{Dot, DotOp};

/// A processor with NEON and its `int8` matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeonI8mm(Neon);

impl NeonI8mm {
    /// The token, if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let neon = Neon::new()?;
        std::arch::is_aarch64_feature_detected!("i8mm").then_some(Self(neon))
    }

    /// What it has besides.
    pub(crate) fn neon(self) -> Neon {
        self.0
    }
}

/// Calls instructions.
macro_rules! i8mm {
    ($instructions:expr) => {{
        // SAFETY: methods of a token run where the processor has NEON and its matrix products; what
        // touches memory is given enough of it by the caller's contract.
        unsafe { $instructions }
    }};
}

/// `int8` values as they are.
#[derive(Clone, Copy)]
pub(crate) struct I8mmInt8(pub(crate) NeonI8mm);

impl Dot for I8mmInt8 {
    type Entry = i8;
    type Cell = i8;
    type Act = i8;
    type Source = i8;
    type Sum = i32;
    /// Two outputs, one in each half.
    type W = int8x16_t;
    /// Two rows, one in each half.
    type X = int8x16_t;
    /// The sums of the first row with two outputs, then those of the second row.
    type Acc = int32x4_t;
    const OUTPUTS: usize = 2;
    const PAIR: usize = 2;
    const ROWS: usize = 6;
    const VECTORS: usize = 4;
    const STEPS: usize = 96;
    const PANEL: usize = 32;

    #[inline]
    fn run<O: DotOp<Self>>(self, op: O) {
        #[target_feature(enable = "neon,i8mm")]
        fn inner<O: DotOp<I8mmInt8>>(dot: I8mmInt8, op: O) {
            op.eval(dot)
        }
        i8mm!(inner(self, op))
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
        i8mm!(vdupq_n_s32(0))
    }

    /// In assembly, as the compiler has no stable function for it.
    #[inline(always)]
    fn dot(self, mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        i8mm!(asm!(
            "smmla {acc:v}.4s, {x:v}.16b, {w:v}.16b",
            acc = inout(vreg) acc,
            x = in(vreg) x,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        ));
        acc
    }

    #[inline(always)]
    fn reduce<const V: usize>(self, acc: [int32x4_t; V], row: usize, out: &mut [i32]) {
        for v in (0..V).step_by(2) {
            let sums = i8mm!({
                let (a, b) = (
                    vreinterpretq_s64_s32(acc[v]),
                    vreinterpretq_s64_s32(acc[v + 1]),
                );
                vreinterpretq_s32_s64(match row {
                    0 => vtrn1q_s64(a, b),
                    _ => vtrn2q_s64(a, b),
                })
            });
            add_to(&mut out[v * 2..], sums);
        }
    }

    #[inline(always)]
    unsafe fn load(self, cells: *const i8) -> int8x16_t {
        i8mm!(vld1q_s8(cells))
    }

    #[inline(always)]
    unsafe fn store(self, w: int8x16_t, cells: *mut i8) {
        i8mm!(vst1q_s8(cells, w))
    }

    #[inline(always)]
    unsafe fn activations(self, first: *const i8, second: *const i8) -> int8x16_t {
        i8mm!(vcombine_s8(vld1_s8(first), vld1_s8(second)))
    }

    #[inline(always)]
    unsafe fn expand(self, entries: *const i8) -> int8x16_t {
        i8mm!(vld1q_s8(entries))
    }

    #[inline(always)]
    unsafe fn gather<const P: usize>(self, at: impl Fn(usize, usize) -> *const i8) -> int8x16_t {
        i8mm!(two_outputs::<P>(at))
    }
}
