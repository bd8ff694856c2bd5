//! The distribution of the values of a sample.

/// The distinct finite values of a sample in ascending order, each with its count, and the number
/// of values that are not finite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    values: Vec<(f64, u64)>,
    total: u64,
    /// Number of NaN values.
    pub nan: u64,
    /// Number of infinite values.
    pub infinite: u64,
}

impl Distribution {
    /// The distribution of values in any order.
    pub fn of_values(values: impl IntoIterator<Item = f64>) -> Self {
        let mut this = Self::default();
        let mut finite = Vec::new();
        for value in values {
            if value.is_finite() {
                finite.push(value);
            } else if value.is_nan() {
                this.nan += 1;
            } else {
                this.infinite += 1;
            }
        }
        finite.sort_unstable_by(f64::total_cmp);
        for chunk in finite.chunk_by(|a, b| a == b) {
            this.values.push((chunk[0], chunk.len() as u64));
        }
        this.total = finite.len() as u64;
        this
    }

    /// The distribution of a histogram of integers: `counts[i]` voxels have the value `first + i`.
    pub fn of_counts(first: i64, counts: &[u64]) -> Self {
        let present = (first..).zip(counts).filter(|(_, count)| **count > 0);
        let values: Vec<_> = present.map(|(value, &count)| (value as f64, count)).collect();
        Self { total: counts.iter().sum(), values, ..Self::default() }
    }

    /// The number of finite values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest finite value.
    pub fn min(&self) -> Option<f64> {
        self.values.first().map(|v| v.0)
    }

    /// The largest finite value.
    pub fn max(&self) -> Option<f64> {
        self.values.last().map(|v| v.0)
    }

    /// The smallest value such that at least `percent` per cent of the finite values are less than
    /// or equal to it.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.values
            .iter()
            .find(|(_, count)| {
                seen += count;
                seen >= rank
            })
            .map(|v| v.0)
    }

    /// The threshold that splits the values into two classes of the smallest variance within the
    /// classes (Otsu 1979), and the fraction of values above it. `None` if all values are equal.
    ///
    /// Values above the 99.9th percentile are clamped to it, so that a few hot pixels do not form a
    /// class.
    pub fn otsu(&self) -> Option<(f64, f64)> {
        let top = self.percentile(99.9)?;
        let clamped = || self.values.iter().map(|&(v, n)| (v.min(top), n as f64));
        let total = self.total as f64;
        // sums are taken relative to the mean, so that a large offset does not cost precision
        let mean = clamped().map(|(v, n)| v * n).sum::<f64>() / total;
        let (mut below, mut sum, mut best) = (0.0, 0.0, (0.0, None));
        for (v, n) in clamped() {
            below += n;
            sum += (v - mean) * n;
            let above = total - below;
            let between = if above > 0.0 { sum * sum / (below * above) } else { 0.0 };
            if between > best.0 {
                best = (between, Some((v, above / total)));
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_values(values in prop::collection::vec(-9..9i32, 1..60),
                                                      percent in 0.0..100.0f64) {
            let distribution = Distribution::of_values(values.iter().map(|&v| f64::from(v)));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
            prop_assert_eq!(distribution.percentile(percent), Some(f64::from(sorted[rank - 1])));
        }

        #[test]
        fn counts_and_values_give_the_same_distribution(values in prop::collection::vec(0..9usize, 1..60)) {
            let mut counts = [0; 9];
            for &v in &values {
                counts[v] += 1;
            }
            prop_assert_eq!(Distribution::of_counts(0, &counts),
                            Distribution::of_values(values.iter().map(|&v| v as f64)));
        }
    }

    #[test]
    fn otsu_parts_two_heaps_between_them() {
        let values = (0..90).map(|i| 100.0 + f64::from(i % 3)).chain((0..10).map(|_| 200.0));
        let (threshold, fraction) = Distribution::of_values(values).otsu().unwrap();
        assert_eq!((threshold, fraction), (102.0, 0.1));
    }

    #[test]
    fn constant_and_absent_values_have_no_threshold() {
        assert_eq!(Distribution::of_values([5.0; 10]).otsu(), None);
        let lost = Distribution::of_values([f64::NAN, f64::INFINITY, f64::NAN]);
        assert_eq!((lost.nan, lost.infinite, lost.total()), (2, 1, 0));
        assert_eq!((lost.otsu(), lost.min(), lost.percentile(50.0)), (None, None, None));
    }
}
