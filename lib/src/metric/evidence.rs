//! The evidence of a similarity: by how much it exceeds the similarities that occur by chance.
//!
//! Any two images agree a little under some maps, and a registration finds the best of these.
//! Therefore a similarity is compared with those of the same images at wrong positions after the
//! same optimisation: an empirical null distribution, as of phase-randomised or shifted surrogates
//! (Theiler et al., Physica D 58, 1992).

/// If the best wrong map has more than this fraction of the result's significance, the result is
/// ambiguous.
const RIVAL_FRACTION: f64 = 0.9;

/// The correlation of `n` samples after Fisher's transform, in units of its standard deviation for
/// independent samples.
#[must_use]
pub fn of_correlation(correlation: f64, n: usize) -> f64 {
    correlation.clamp(-0.999_999, 0.999_999).atanh() * (n as f64).sqrt()
}

/// The mutual information, in nats, of `n` samples in the units of [`of_correlation`]; their
/// histogram has `k` degrees of freedom. For independent samples, `2 n I` follows a chi-squared
/// distribution.
#[must_use]
pub fn of_information(information: f64, n: usize, k: f64) -> f64 {
    deviations(2.0 * n as f64 * information, k)
}

/// The number of standard deviations by which the significance `found` exceeds the mean of
/// `others`. The best of `others` is left out, because a symmetric specimen has a second map that
/// is nearly right. If the best of `others` exceeds `found` times `RIVAL_FRACTION`, the result is
/// 0.
///
/// * `found`, `others`: values of [`of_correlation`] or [`of_information`]
#[must_use]
pub fn beyond(found: f64, mut others: Vec<f64>) -> f64 {
    others.sort_by(f64::total_cmp);
    let rival = others.pop().unwrap_or(0.0);
    if rival > RIVAL_FRACTION * found {
        return 0.0;
    }
    let n = others.len() as f64;
    let mean = others.iter().sum::<f64>() / n;
    let variance = others.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    // the standard deviation is at least 1, that of independent samples
    ((found - mean) / variance.sqrt().max(1.0)).max(0.0)
}

/// A chi-squared value of `k` degrees of freedom as a standard normal deviate (Fisher, "Statistical
/// methods for research workers", 1925, section 20).
fn deviations(chi_squared: f64, k: f64) -> f64 {
    (2.0 * chi_squared).max(0.0).sqrt() - (2.0 * k - 1.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::{hash, unit};
    use super::*;

    #[test]
    fn evidence_counts_deviations_and_forgives_one_better_map_but_no_rival() {
        let others = || vec![-2.0, 2.0, -2.0, 2.0, -2.0, 2.0, -2.0, 2.0, 5.0];
        let deviation = (8.0f64 * 4.0 / 7.0).sqrt();
        assert!((beyond(20.0, others()) - 20.0 / deviation).abs() < 1e-9);
        assert_eq!(beyond(5.0, others()), 0.0);
        assert_eq!(beyond(-9.0, others()), 0.0);
    }

    #[test]
    fn chi_squared_values_have_standard_deviates() {
        let normal = |seed: u64| {
            let radius = (-2.0 * (1.0 - unit(hash(seed, 1), 0)).ln()).sqrt();
            radius * (std::f64::consts::TAU * unit(hash(seed, 2), 0)).cos()
        };
        let k = 806u64;
        let sum_of_squares = |i: u64| (0..k).map(|j| normal(i * k + j).powi(2)).sum::<f64>();
        let n = 400u64;
        let values: Vec<f64> = (0..n).map(|i| deviations(sum_of_squares(i), k as f64)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.2 && (variance - 1.0).abs() < 0.3, "{mean}, {variance}");
    }
}
