//! Mutual information from a joint histogram with B-spline windows (Mattes et al., IEEE TMI 22,
//! 2003).

/// Number of bins along each axis.
const BINS: usize = 32;
/// Number of bins beyond each end of the moving range, into which the window of an extreme value
/// reaches.
const PAD: usize = 2;

/// The mapping from values to bins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bins {
    fixed: [f32; 2],
    moving: [f32; 2],
}

/// Joint histogram of pairs of values: rows are fixed bins, columns are moving bins.
#[derive(Clone, Debug)]
pub struct Histogram {
    pairs: Vec<f64>,
    count: usize,
}

/// Table from which the force on each pair of values is computed.
#[derive(Clone, Debug)]
pub struct ForceTable {
    bins: Bins,
    /// `ln(p(f, m) / p(m))`.
    log_ratio: Vec<f32>,
    per_sample: f32,
}

impl Bins {
    /// Bins for values within these ranges; values outside are clamped to them.
    pub(super) fn new(fixed: [f32; 2], moving: [f32; 2]) -> Self {
        // the index of a bin is `(value - low) * factor`
        let scale = |[low, high]: [f32; 2], bins: usize| [low, bins as f32 / (high - low)];
        Self { fixed: scale(fixed, BINS), moving: scale(moving, BINS - 2 * PAD - 1) }
    }

    #[inline]
    fn row(&self, f: f32) -> usize {
        ((f - self.fixed[0]) * self.fixed[1]).clamp(0.0, (BINS - 1) as f32) as usize
    }

    /// The first of the four bins of a moving value, the fractional position of the value within
    /// its bin, and whether it lies within the range.
    #[inline]
    fn column(&self, m: f32) -> (usize, f32, bool) {
        let last = (BINS - 2 * PAD - 1) as f32;
        let at = (m - self.moving[0]) * self.moving[1];
        let inside = (0.0..=last).contains(&at);
        let at = at.clamp(0.0, last) + PAD as f32;
        let low = at as usize;
        (low - 1, at - low as f32, inside)
    }

    /// Counts pairs of values; pairs with a NaN moving value are ignored.
    pub(super) fn count(&self, fixed: &[f32], moving: &[f32]) -> Histogram {
        let mut pairs = vec![0.0; BINS * BINS];
        let mut count = 0;
        for (&f, &m) in fixed.iter().zip(moving) {
            if m.is_nan() {
                continue;
            }
            let (first, t, _) = self.column(m);
            let at = self.row(f) * BINS + first;
            for (bin, weight) in pairs[at..at + 4].iter_mut().zip(window(t)) {
                *bin += f64::from(weight);
            }
            count += 1;
        }
        Histogram { pairs, count }
    }

    /// The mutual information (nats) and the table of forces; `None` for fewer than two samples.
    pub(super) fn conclude(self, histogram: &Histogram) -> Option<(f64, ForceTable)> {
        if histogram.count < 2 {
            return None;
        }
        let n = histogram.count as f64;
        let row = |i: usize| &histogram.pairs[i * BINS..(i + 1) * BINS];
        let fixed: Vec<f64> = (0..BINS).map(|i| row(i).iter().sum::<f64>() / n).collect();
        let moving: Vec<f64> =
            (0..BINS).map(|j| (0..BINS).map(|i| row(i)[j]).sum::<f64>() / n).collect();
        let (mut information, mut log_ratio) = (0.0, vec![0.0; BINS * BINS]);
        for i in 0..BINS {
            for j in 0..BINS {
                let p = row(i)[j] / n;
                if p > 0.0 && fixed[i] > 0.0 && moving[j] > 0.0 {
                    let ratio = (p / moving[j]).ln();
                    information += p * (ratio - fixed[i].ln());
                    log_ratio[i * BINS + j] = ratio as f32;
                }
            }
        }
        Some((information, ForceTable { bins: self, log_ratio, per_sample: (1.0 / n) as f32 }))
    }
}

impl Histogram {
    /// Number of pairs counted.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.pairs.iter_mut().zip(&other.pairs).for_each(|(sum, more)| *sum += more);
        self.count += other.count;
    }
}

impl ForceTable {
    /// The derivative of the energy with respect to the moving value, and a curvature. The
    /// curvature is the square of the score, whose mean is the Fisher information of a likelihood
    /// (the estimate of Berndt, Hall, Hall and Hausman 1974). The true second derivative is not
    /// used because it can be negative.
    #[inline]
    pub(super) fn at(&self, fixed: f32, moving: f32) -> (f32, f32) {
        let (first, t, inside) = self.bins.column(moving);
        if !inside || moving.is_nan() {
            return (0.0, 0.0);
        }
        let at = self.bins.row(fixed) * BINS + first;
        let ratios = &self.log_ratio[at..at + 4];
        let slope: f32 = ratios.iter().zip(window_slope(t)).map(|(l, w)| l * w).sum();
        let score = slope * self.bins.moving[1];
        (-score * self.per_sample, score * score * self.per_sample)
    }
}

/// The four weights of a cubic B-spline at the fractional position `t`.
#[inline]
fn window(t: f32) -> [f32; 4] {
    let u = 1.0 - t;
    let sixth = 1.0 / 6.0;
    [
        u * u * u * sixth,
        (4.0 + t * t * (3.0 * t - 6.0)) * sixth,
        (4.0 + u * u * (3.0 * u - 6.0)) * sixth,
        t * t * t * sixth,
    ]
}

/// The derivatives of the weights of [`window`] with respect to `t`.
#[inline]
fn window_slope(t: f32) -> [f32; 4] {
    let u = 1.0 - t;
    [-0.5 * u * u, t * (1.5 * t - 2.0), -u * (1.5 * u - 2.0), 0.5 * t * t]
}
