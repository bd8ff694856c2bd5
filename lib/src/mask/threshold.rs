//! The least contrast of tissue, from the contrasts of some planes of a stack.

/// The bins of a histogram of contrasts: an eighth of an octave each, from 2^-10 on.
const PER_OCTAVE: f64 = 8.0;
const FIRST: f64 = -10.0;
const BINS: usize = 240;
/// The standard deviation of the Gaussian that smooths the histogram, bins.
const BLUR: f64 = 2.0;
/// Two maxima are those of tissue and of what is no tissue if they are this many octaves apart...
const APART: f64 = 1.5;
/// ... and the histogram between them falls below this fraction of the lower one.
const VALLEY: f64 = 0.6;
/// If there are no two maxima, what has less contrast than most of the tissue by this many octaves is
/// no tissue.
const BELOW: f64 = 3.0;

/// A histogram of contrasts on a logarithmic scale.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    counts: Vec<f64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0.0; BINS] }
    }
}

impl Histogram {
    /// Adds contrasts; those that are not known, and those of constant planes, do not count.
    pub(super) fn add(&mut self, contrasts: &[f32]) {
        for contrast in contrasts.iter().filter(|c| **c > 0.0 && c.is_finite()) {
            let bin = (f64::from(*contrast).log2() - FIRST) * PER_OCTAVE;
            self.counts[bin.clamp(0.0, BINS as f64 - 1.0) as usize] += 1.0;
        }
    }

    /// The contrast that divides tissue from what is no tissue; 0 if nothing was added.
    ///
    /// The two classes are those of Otsu (IEEE Trans. Systems, Man and Cybernetics 9, 1979); the
    /// threshold is where the histogram between their maxima is least. If there is one maximum only,
    /// the planes are full of tissue, and the threshold lies well below it.
    pub(super) fn threshold(&self) -> f64 {
        let smooth = self.smoothed();
        let highest = |range: std::ops::Range<usize>| {
            range.reduce(|a, b| if smooth[b] > smooth[a] { b } else { a })
        };
        let Some(mode) = highest(0..BINS).filter(|mode| smooth[*mode] > 0.0) else { return 0.0 };
        let split = self.split();
        if let (Some(low), Some(high)) = (highest(0..split), highest(split..BINS)) {
            let least = (low..=high).reduce(|a, b| if smooth[b] < smooth[a] { b } else { a });
            let valley = least.unwrap_or(low);
            let is_deep = smooth[valley] < VALLEY * smooth[low].min(smooth[high]);
            if is_deep && (high - low) as f64 >= APART * PER_OCTAVE {
                return contrast_of(valley);
            }
        }
        contrast_of(mode) / BELOW.exp2()
    }

    fn smoothed(&self) -> Vec<f64> {
        let reach = (4.0 * BLUR) as isize;
        let weights: Vec<f64> =
            (-reach..=reach).map(|k| (-0.5 * (k as f64 / BLUR).powi(2)).exp()).collect();
        (0..BINS)
            .map(|i| {
                let near = weights.iter().enumerate().filter_map(|(k, weight)| {
                    let at = i.checked_add_signed(k as isize - reach)?;
                    Some(weight * self.counts.get(at)?)
                });
                near.sum()
            })
            .collect()
    }

    /// The first bin of the upper of the two classes with the greatest variance between them.
    fn split(&self) -> usize {
        let total: f64 = self.counts.iter().sum();
        let moment: f64 = self.counts.iter().enumerate().map(|(i, n)| i as f64 * n).sum();
        let (mut below, mut of_below) = (0.0, 0.0);
        let (mut split, mut best) = (0, -1.0);
        for i in 0..BINS {
            if below > 0.0 && below < total {
                let means = [of_below / below, (moment - of_below) / (total - below)];
                let between = below * (total - below) * (means[1] - means[0]).powi(2);
                if between > best {
                    (split, best) = (i, between);
                }
            }
            below += self.counts[i];
            of_below += i as f64 * self.counts[i];
        }
        split
    }
}

/// The contrast in the middle of a bin.
fn contrast_of(bin: usize) -> f64 {
    ((bin as f64 + 0.5) / PER_OCTAVE + FIRST).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrasts around `middle`, spread by a factor of 1.5 or so.
    fn around(middle: f32, count: usize) -> Vec<f32> {
        (0..count).map(|i| middle * 1.5_f32.powf((i as f32 * 0.7).sin())).collect()
    }

    #[test]
    fn resin_and_tissue_are_divided_at_the_valley() {
        let mut histogram = Histogram::default();
        histogram.add(&around(0.5, 1000));
        histogram.add(&around(12.0, 9000));
        let threshold = histogram.threshold();
        assert!(threshold > 0.76 && threshold < 7.9, "{threshold}");
    }

    #[test]
    fn planes_full_of_tissue_keep_it() {
        let mut histogram = Histogram::default();
        histogram.add(&around(12.0, 9000));
        histogram.add(&[f32::NAN, 0.0]);
        let threshold = histogram.threshold();
        assert!(threshold > 0.9 && threshold < 2.4, "{threshold}");
    }

    #[test]
    fn constant_planes_have_no_threshold() {
        assert_eq!(Histogram::default().threshold(), 0.0);
    }
}
