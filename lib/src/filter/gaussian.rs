/// The maximum mass of a discrete Gaussian that is cut off, in both tails together.
///
/// A normal density has about this mass beyond 3.5 sigma. The remaining weights are scaled so that
/// their sum is 1.
const CUT_OFF_MASS: f64 = 5e-4;

/// One half of a symmetric kernel: weight `k` belongs to the offsets `k` and `-k`.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    weights: Vec<f32>,
}

impl Kernel {
    /// The identity kernel.
    pub fn identity() -> Self {
        Self { weights: vec![1.0] }
    }

    /// The mean of `2 * radius + 1` voxels.
    pub fn uniform(radius: usize) -> Self {
        Self { weights: vec![1.0 / (2 * radius + 1) as f32; radius + 1] }
    }

    /// The discrete analogue of a Gaussian, `exp(-t) I_n(t)`, where `t` is `variance` in voxels
    /// squared.
    ///
    /// Unlike for a sampled Gaussian, the variance of this kernel is `t` even if `t` is small,
    /// except for the effect of the tails that are cut off. Successive smoothings therefore equal
    /// one smoothing with the sum of their variances (Lindeberg, IEEE PAMI 12, 1990).
    pub fn discrete(variance: f64) -> Self {
        if variance < 1e-9 {
            return Self::identity();
        }
        // Miller's backward recurrence I_(n-1) = I_(n+1) + 2n/t I_n, begun well beyond the tail
        let last = (8.0 * variance.sqrt() + 24.0).ceil() as usize;
        let mut weights = vec![0.0_f64; last + 2];
        weights[last] = f64::MIN_POSITIVE;
        for n in (1..=last).rev() {
            weights[n - 1] = weights[n + 1] + 2.0 * n as f64 / variance * weights[n];
            if weights[n - 1] > 1e200 {
                weights.iter_mut().for_each(|w| *w *= 1e-200);
            }
        }
        let total = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
        let mut kept = weights[0] / total;
        let mut radius = 0;
        while 1.0 - kept > CUT_OFF_MASS && radius < last {
            radius += 1;
            kept += 2.0 * weights[radius] / total;
        }
        Self::normalised(&weights[..=radius])
    }

    /// A Gaussian of `sigma` voxels sampled at whole voxels up to `int(4 sigma + 0.5)`, with sum 1,
    /// as in SciPy's `gaussian_filter1d`.
    pub fn sampled(sigma: f64) -> Self {
        Self::normalised(&sampled_weights(sigma))
    }

    /// The second derivative of [`Kernel::sampled`]: its weights times `(x^2/s^2 - 1)/s^2`, where
    /// `s` is `sigma`.
    ///
    /// As in SciPy, the product is not normalised again: a constant does not give exactly 0.
    pub fn sampled_second_derivative(sigma: f64) -> Self {
        let weights = sampled_weights(sigma);
        let total = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
        let square = sigma * sigma;
        let derived = weights
            .iter()
            .enumerate()
            .map(|(x, weight)| (weight / total * ((x * x) as f64 / square - 1.0) / square) as f32);
        Self { weights: derived.collect() }
    }

    fn normalised(half: &[f64]) -> Self {
        let total = half[0] + 2.0 * half[1..].iter().sum::<f64>();
        Self { weights: half.iter().map(|weight| (weight / total) as f32).collect() }
    }

    /// The largest offset that has a weight, voxels.
    pub fn radius(&self) -> usize {
        self.weights.len() - 1
    }

    /// The weights from offset 0 to [`Kernel::radius`].
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }
}

fn sampled_weights(sigma: f64) -> Vec<f64> {
    let radius = (4.0 * sigma + 0.5) as usize;
    (0..=radius).map(|x| (-0.5 * (x as f64 / sigma).powi(2)).exp()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variance(kernel: &Kernel) -> f64 {
        let weights = kernel.weights().iter().enumerate();
        2.0 * weights.map(|(x, &w)| (x * x) as f64 * f64::from(w)).sum::<f64>()
    }

    #[test]
    fn a_discrete_gaussian_has_sum_one_and_the_variance_asked_for() {
        for wanted in [1e-12, 0.01, 0.2, 1.0, 7.7, 200.0, 4e4] {
            let kernel = Kernel::discrete(wanted);
            let weights = kernel.weights();
            let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
            assert!((sum - 1.0).abs() < 1e-5, "{wanted}: sum {sum}");
            let found = variance(&kernel);
            assert!((found - wanted).abs() < 0.02 * wanted + 1e-6, "{wanted}: {found}");
        }
    }

    #[test]
    fn a_sampled_second_derivative_measures_a_parabola() {
        let kernel = Kernel::sampled_second_derivative(3.0);
        let parabola: f64 = variance(&kernel);
        assert!((parabola - 2.0).abs() < 0.02, "{parabola}");
        assert_eq!(kernel.radius(), 12);
    }
}
