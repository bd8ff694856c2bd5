//! Mutual information, for images whose contrasts need not match.

/// Half-width of the Parzen window, bins.
const REACH: usize = 3;

/// Mutual information of two images, and its derivative with respect to each moving intensity.
///
/// The joint density is a histogram smoothed by a Gaussian of one bin (Parzen). The score of a pair
/// is the derivative of `log(p(f, m) / p(m))` with respect to `m` (Viola and Wells, IJCV 24, 1997;
/// Hermosillo et al., IJCV 50, 2002).
pub(super) struct Score {
    bins: usize,
    /// Lowest intensity, and bins per unit of intensity, of the fixed and of the moving image.
    scales: [[f32; 2]; 2],
    /// Score by bins; the fixed bin varies slowest.
    table: Vec<f32>,
    /// Mean square score over all pairs.
    pub(super) information: f32,
    /// The mutual information, in nats.
    pub(super) information_shared: f64,
    /// Number of pairs that are known in both images.
    pub(super) pairs: usize,
}

impl Score {
    pub(super) fn of(fixed: &[f32], moving: &[f32], bins: usize) -> Self {
        let pairs = || fixed.iter().zip(moving).filter(|(f, m)| f.is_finite() && m.is_finite());
        let range = |pick: fn((&f32, &f32)) -> f32| {
            let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
            for v in pairs().map(pick) {
                low = low.min(v);
                high = high.max(v);
            }
            let usable = high > low;
            [
                if usable { low } else { 0.0 },
                if usable { (bins - 1) as f32 / (high - low) } else { 0.0 },
            ]
        };
        let scales = [range(|(f, _)| *f), range(|(_, m)| *m)];
        let mut score = Self {
            bins,
            scales,
            table: Vec::new(),
            information: 0.0,
            information_shared: 0.0,
            pairs: 0,
        };
        let mut joint = vec![0.0f64; bins * bins];
        for (&f, &m) in pairs() {
            joint[score.bin(0, f) * bins + score.bin(1, m)] += 1.0;
            score.pairs += 1;
        }
        let joint = smooth(&joint, bins);
        score.fill(&joint, score.pairs as f64);
        let mut squares = 0.0;
        for (&f, &m) in pairs() {
            squares += f64::from(score.at(f, m)).powi(2);
        }
        score.information = (squares / score.pairs.max(1) as f64) as f32;
        score
    }

    fn fill(&mut self, joint: &[f64], total: f64) {
        let n = self.bins;
        let total = total.max(1.0);
        // a small probability is added to every bin, so that the logarithm of empty bins is finite
        let floor = 1e-6;
        let p = |f: usize, m: usize| joint[f * n + m] / total + floor / (n * n) as f64;
        let of_fixed: Vec<f64> = (0..n).map(|f| (0..n).map(|m| p(f, m)).sum()).collect();
        let of_moving: Vec<f64> = (0..n).map(|m| (0..n).map(|f| p(f, m)).sum()).collect();
        let ratio = |f: usize, m: usize| (p(f, m) / of_moving[m]).ln();
        self.table = vec![0.0; n * n];
        for f in 0..n {
            for m in 0..n {
                let (low, high) = (m.saturating_sub(1), (m + 1).min(n - 1));
                let slope = (ratio(f, high) - ratio(f, low)) / (high - low).max(1) as f64;
                self.table[f * n + m] = slope as f32 * self.scales[1][1];
                self.information_shared += p(f, m) * (ratio(f, m) - of_fixed[f].ln());
            }
        }
    }

    /// Effective degrees of freedom of a histogram of `bins` by `bins` bins. The Parzen window
    /// averages over `2 sqrt(pi)` bins along each axis.
    pub(super) fn freedom(bins: usize) -> f64 {
        (bins as f64 / (2.0 * std::f64::consts::PI.sqrt())).powi(2)
    }

    fn bin(&self, image: usize, v: f32) -> usize {
        let [first, scale] = self.scales[image];
        (((v - first) * scale).round().max(0.0) as usize).min(self.bins - 1)
    }

    /// The score of a pair; 0 if either value is unknown.
    pub(super) fn at(&self, fixed: f32, moving: f32) -> f32 {
        if !(fixed.is_finite() && moving.is_finite()) {
            return 0.0;
        }
        self.table[self.bin(0, fixed) * self.bins + self.bin(1, moving)]
    }
}

/// Smooths a square histogram by a Gaussian of one bin along both axes.
fn smooth(joint: &[f64], n: usize) -> Vec<f64> {
    let weights: Vec<f64> = (0..=REACH).map(|k| (-0.5 * (k * k) as f64).exp()).collect();
    let total = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    let along = |image: &[f64], stride: usize, across: usize| {
        let mut out = vec![0.0; n * n];
        for line in 0..n {
            for i in 0..n {
                let value = image[line * across + i * stride] / total;
                for k in i.saturating_sub(REACH)..=(i + REACH).min(n - 1) {
                    out[line * across + k * stride] += value * weights[k.abs_diff(i)];
                }
            }
        }
        out
    };
    along(&along(joint, 1, n), n, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_tells_all_about_its_negative_and_nothing_about_noise() {
        let hash = |i: u32| (i.wrapping_mul(0x9e37_79b9) ^ 0x5bd1).wrapping_mul(0x85eb_ca6b) >> 8;
        let image: Vec<f32> = (0..65_536).map(|i| hash(i) as f32).collect();
        let negative: Vec<f32> = image.iter().map(|v| 1e7 - v).collect();
        let other: Vec<f32> = (0..65_536).map(|i| hash(hash(i) + 17) as f32).collect();
        let near = Score::of(&image, &negative, 32).information_shared;
        let far = Score::of(&image, &other, 32).information_shared;
        assert!(near > 1.5 && far < 0.05, "{near} {far}");
    }

    #[test]
    fn a_score_points_to_the_likelier_intensity() {
        let image: Vec<f32> = (0..10_000).map(|i| (i % 100) as f32).collect();
        let negative: Vec<f32> = image.iter().map(|v| 100.0 - v).collect();
        let score = Score::of(&image, &negative, 32);
        assert!(score.at(30.0, 66.0) > 0.0 && score.at(30.0, 74.0) < 0.0);
        assert_eq!(score.at(f32::NAN, 3.0), 0.0);
    }
}
