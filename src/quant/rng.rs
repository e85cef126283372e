//! A small random generator whose numbers never change between versions: quantizing with a seed
//! must give the same artifact for ever. xoshiro256++ (Blackman and Vigna), seeded by SplitMix64.

#[derive(Debug, Clone)]
pub(crate) struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator of `seed`; equal seeds give equal numbers.
    pub(crate) fn new(seed: u64) -> Self {
        let mut x = seed;
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state }
    }

    /// 64 uniform bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0..n` (`n > 0`), by multiplying: the bias is below n / 2^64.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)` with 53 bits.
    pub(crate) fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[0, 1)` with 24 bits.
    #[allow(dead_code)]
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// Standard normal: the sum of 12 uniform numbers less 6. Tails end at +-6; no logarithm, so
    /// that every platform's libm gives the same bits.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| self.uniform_f64()).sum();
        (sum - 6.0) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_are_fixed() {
        // SplitMix64's published first output for seed 0 is the first word of the state.
        assert_eq!(Rng::new(0).state[0], 0xe220_a839_7b1d_cdaf);
        let mut a = Rng::new(7);
        let mut b = Rng::new(7);
        let mut c = Rng::new(8);
        let first: Vec<u64> = (0..8).map(|_| a.next_u64()).collect();
        assert!(first.iter().all(|&x| x == b.next_u64()));
        assert!(first.iter().any(|&x| x != c.next_u64()));
    }

    #[test]
    fn moments_and_ranges() {
        let mut rng = Rng::new(1);
        let n = 100_000;
        let (mut sum, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = f64::from(rng.normal());
            sum += x;
            square += x * x;
            let u = rng.uniform();
            assert!((0.0..1.0).contains(&u));
            uniform += f64::from(u);
            assert!(rng.below(3) < 3);
        }
        let n = f64::from(n);
        assert!((sum / n).abs() < 0.02);
        assert!((square / n - 1.0).abs() < 0.02);
        assert!((uniform / n - 0.5).abs() < 0.01);
    }
}
