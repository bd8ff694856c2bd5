//! Streams of random numbers. Each stream depends only on the seed and on a purpose or a cell, so
//! that blocks can be generated independently and in any order, with the same result.

/// A stream of random numbers, by splitmix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The stream for `purpose` that starts from `seed`.
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(seed ^ mix(purpose)))
    }

    /// The stream for the cell with index `cell` of a lattice.
    pub(super) fn of_cell(seed: u64, cell: [i64; 3]) -> Self {
        Self(cell.iter().fold(mix(seed), |state, &v| mix(state ^ v as u64)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number with uniform distribution in `[low, high)`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `true` with probability `probability`.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.between(0.0, 1.0) < probability
    }

    /// -1 or 1 with equal probability.
    pub(super) fn sign(&mut self) -> f64 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// A number with normal distribution, mean 0 and variance 1.
    pub(super) fn normal(&mut self) -> f64 {
        f64::from(normal_of(self.next(), self.next()))
    }

    /// A point with uniform distribution on the unit sphere.
    pub(super) fn direction(&mut self) -> [f64; 3] {
        let z = self.between(-1.0, 1.0);
        let (sin, cos) = self.between(0.0, std::f64::consts::TAU).sin_cos();
        let rim = (1.0 - z * z).sqrt();
        [z, rim * sin, rim * cos]
    }

    /// A point with uniform distribution in the unit ball.
    pub(super) fn in_ball(&mut self) -> [f64; 3] {
        let radius = self.between(0.0, 1.0).cbrt();
        self.direction().map(|v| v * radius)
    }
}

/// The finaliser of splitmix64: each bit of the result depends on each bit of `value`.
#[inline]
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Converts 128 random bits to an approximately standard normal number: the sum of eight 16-bit
/// uniforms has variance 8/12 (Irwin-Hall). The tails are accurate to about 4 standard deviations,
/// and no logarithm is needed.
#[inline]
pub(super) fn normal_of(a: u64, b: u64) -> f32 {
    let sum = |v: u64| (v & 0xFFFF) + (v >> 16 & 0xFFFF) + (v >> 32 & 0xFFFF) + (v >> 48);
    let centred = (sum(a) + sum(b)) as f32 / 65_536.0 - 3.999_94;
    centred * 1.224_744_9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut random = Random::new(7, 1);
        let values: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.015, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.02, "variance {variance}");
    }

    #[test]
    fn streams_of_different_purpose_or_place_differ() {
        let first = |mut r: Random| r.between(0.0, 1.0);
        assert_ne!(first(Random::new(1, 1)), first(Random::new(1, 2)));
        assert_ne!(first(Random::of_cell(1, [0, 0, 1])), first(Random::of_cell(1, [0, 1, 0])));
        assert_eq!(first(Random::of_cell(1, [-3, 0, 1])), first(Random::of_cell(1, [-3, 0, 1])));
    }
}
