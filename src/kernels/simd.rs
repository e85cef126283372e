//! Vectors of `f32` as the functions between the products see them, and how code reaches an
//! instruction set.
//!
//! A [`Simd`] value is a token: it exists only where the processor has its instructions. Code
//! written once over the trait is handed to [`Simd::run`] as an [`Op`]; everything in it is
//! inlined into one function that is compiled with those instructions. So each function on the way
//! from `eval` to an instruction must be `#[inline(always)]`: one that is not would be compiled for
//! the baseline, which is correct and many times slower.

/// A computation over whichever instruction set runs it.
pub(crate) trait Op {
    /// What it returns.
    type Output;

    /// The computation; `#[inline(always)]`.
    fn eval<S: Simd>(self, simd: S) -> Self::Output;
}

/// Vectors of [`LANES`](Self::LANES) values, lane by lane as in IEEE 754.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// `f32` lanes.
    type F: Copy;
    /// `i32` lanes.
    type I: Copy;
    /// One truth value a lane.
    type M: Copy;
    /// Lanes of a vector: 4, 8 or 16.
    const LANES: usize;
    /// How many vectors of `f32` the registers hold.
    const REGISTERS: usize;

    /// Runs `op`, compiled for this instruction set.
    fn run<O: Op>(self, op: O) -> O::Output;

    fn splat(self, value: f32) -> Self::F;
    /// The first `LANES` of `values`.
    ///
    /// # Panics
    /// If there are fewer.
    fn load(self, values: &[f32]) -> Self::F;
    /// Fills the first `LANES` of `out`.
    ///
    /// # Panics
    /// If there are fewer.
    fn store(self, vector: Self::F, out: &mut [f32]);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `1 / a` for `a` of 1 to 2^126, relative error at most 2e-7.
    #[inline(always)]
    fn reciprocal(self, a: Self::F) -> Self::F {
        self.div(self.splat(1.0), a)
    }
    /// `a * b + c`, rounded once where there is such an instruction and twice elsewhere.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller one; if either is NaN, any of the two.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger one; if either is NaN, any of the two.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// `a < b`; false for NaN.
    fn less(self, a: Self::F, b: Self::F) -> Self::M;
    /// Whether a lane is NaN.
    fn is_nan(self, a: Self::F) -> Self::M;
    /// `yes` where the mask is true, `no` elsewhere.
    fn select(self, mask: Self::M, yes: Self::F, no: Self::F) -> Self::F;
    /// To the nearest integer, halves to even. For magnitudes below 2^31.
    fn round(self, a: Self::F) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::F;
    /// `2^n` for `n` of -126 to 127.
    fn power_of_two(self, n: Self::I) -> Self::F;
    /// The sum of all integers, wrapping.
    fn sum_int(self, a: Self::I) -> i32;
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn zero_int(self) -> Self::I;
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// The largest of all integers.
    fn largest_int(self, a: Self::I) -> i32;
    /// The bits of the magnitude. As integers they are in the order of the magnitudes, with NaN
    /// above infinity: a maximum of them cannot lose a NaN.
    fn magnitude_bits(self, a: Self::F) -> Self::I;
    /// The same with the low bytes.
    ///
    /// # Panics
    /// If there are fewer.
    fn store_i8(self, a: Self::I, out: &mut [i8]);

    /// Four vectors of them, one after another.
    ///
    /// # Panics
    /// If `out` is too short.
    #[inline(always)]
    fn store_i8_four(self, a: [Self::I; 4], out: &mut [i8]) {
        for (i, a) in a.into_iter().enumerate() {
            self.store_i8(a, &mut out[i * Self::LANES..]);
        }
    }

    /// Up to `LANES` values, filled up with `fill`.
    #[inline(always)]
    fn load_part(self, values: &[f32], fill: f32) -> Self::F {
        if values.len() >= Self::LANES {
            return self.load(values);
        }
        let mut lanes = [fill; 16];
        lanes[..values.len()].copy_from_slice(values);
        self.load(&lanes)
    }

    /// Fills `out`, of up to `LANES` values.
    #[inline(always)]
    fn store_part(self, vector: Self::F, out: &mut [f32]) {
        if out.len() >= Self::LANES {
            return self.store(vector, out);
        }
        let mut lanes = [0.0; 16];
        self.store(vector, &mut lanes);
        match <&mut [f32; 8]>::try_from(&mut *out) {
            // Half a vector is common, and copied without a call.
            Ok(out) => out.copy_from_slice(&lanes[..8]),
            Err(_) => out.copy_from_slice(&lanes[..out.len()]),
        }
    }

    /// The sum of all lanes, halves first: always in the same order.
    #[inline(always)]
    fn sum(self, vector: Self::F) -> f32 {
        self.fold(vector, |a, b| a + b)
    }

    /// Combines the two halves lane by lane until one value is left.
    #[inline(always)]
    fn fold(self, vector: Self::F, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(vector, &mut lanes);
        let mut n = Self::LANES;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                lanes[i] = f(lanes[i], lanes[i + n]);
            }
        }
        lanes[0]
    }
}
