//! The three similarity measures, which give an energy and a force (its derivative) on each value.

use super::histogram::{Bins, ForceTable, Histogram};
use super::{Error, Image, PairSums, Samples};

/// A similarity measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum SimilarityMeasure {
    /// Normalised correlation: brightness and contrast may differ.
    #[default]
    Correlation,
    /// Mutual information (Mattes): intensities may be related in any way, as in different stains.
    MutualInformation,
    /// Mean squared difference: both volumes must have the same intensities.
    MeanSquares,
}

impl SimilarityMeasure {
    /// The measure as it is reported: correlation and mutual information increase with similarity,
    /// mean squares decrease.
    pub fn shown(self, energy: f64) -> f64 {
        match self {
            Self::Correlation => 1.0 - energy,
            Self::MutualInformation => -energy,
            Self::MeanSquares => energy,
        }
    }

    /// The measure for details, that is, high-pass filtered images: correlation instead of mean
    /// squares, because the mean of a detail is 0 whatever the brightness of the image.
    #[must_use]
    pub fn of_details(self) -> Self {
        match self {
            Self::MutualInformation => Self::MutualInformation,
            Self::Correlation | Self::MeanSquares => Self::Correlation,
        }
    }

    /// The name used in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Correlation => "correlation",
            Self::MutualInformation => "mutual-information",
            Self::MeanSquares => "mean-squares",
        }
    }
}

/// A similarity measure that is prepared for one pair of images.
#[derive(Clone, Debug)]
pub struct Scorer {
    kind: SimilarityMeasure,
    /// Values that are subtracted from `f` and `m` before squares are summed, to avoid
    /// cancellation.
    offset: [f64; 2],
    bins: Option<Bins>,
}

/// Sums over samples that a measure needs. [`Partial::plus`] adds the sums over parts of the
/// samples.
#[derive(Clone, Debug)]
pub enum Partial {
    /// The sums of the values and of their products.
    Moments(PairSums),
    /// The joint histogram.
    Histogram(Histogram),
}

/// An energy, and its derivatives with respect to each value.
#[derive(Clone, Debug)]
pub struct Score {
    /// Smaller is better; see [`SimilarityMeasure::shown`].
    pub energy: f64,
    /// Number of samples that are known in both images.
    pub count: usize,
    /// The force on each sample.
    pub force: Force,
}

/// The force, which is the derivative of the energy with respect to each moving value, and a
/// positive curvature.
#[derive(Clone, Debug)]
pub enum Force {
    /// `gain[0] (f - mean[0]) + gain[1] (m - mean[1])`, with the constant curvature `curvature`.
    Linear {
        /// Factors of the fixed and of the moving value.
        gain: [f64; 2],
        /// The values that are subtracted from the fixed and from the moving value.
        mean: [f64; 2],
        /// The second derivative with respect to one value.
        curvature: f64,
        /// For correlation, the count and the sum of squares of `m - mean[1]`. Brightness and
        /// contrast are free, so that a change of all values by a constant, or in proportion to
        /// `m - mean[1]`, does not count as curvature.
        free: Option<[f64; 2]>,
    },
    /// A table in which force and curvature are looked up for each pair of values.
    Table(Box<ForceTable>),
}

impl Scorer {
    /// Prepares the measure for these samples and this moving image.
    ///
    /// # Errors
    /// [`Error`] if an image is constant or has no usable voxel.
    pub fn new(kind: SimilarityMeasure, samples: &Samples, moving: &Image) -> Result<Self, Error> {
        let fixed_mean = mean(samples.values.iter()).ok_or(Error::Nothing { side: "fixed" })?;
        let moving_mean = mean(moving.voxels.iter()).ok_or(Error::Nothing { side: "moving" })?;
        let span = |range: Option<[f32; 2]>, side| match range {
            None => Err(Error::Nothing { side }),
            Some([low, high]) if low >= high => Err(Error::Constant { side }),
            Some(range) => Ok(range),
        };
        let fixed = |share| super::image::range(samples.values.iter().copied(), share);
        span(fixed(0.0), "fixed")?;
        span(moving.range(0.0), "moving")?;
        let bins = (kind == SimilarityMeasure::MutualInformation).then(|| {
            // a few hot pixels must not stretch the range of the bins
            let robust = |clipped: Option<[f32; 2]>, whole: Option<[f32; 2]>| {
                clipped.filter(|[low, high]| low < high).or(whole).unwrap_or([0.0, 1.0])
            };
            Bins::new(
                robust(fixed(CLIPPED), fixed(0.0)),
                robust(moving.range(CLIPPED), moving.range(0.0)),
            )
        });
        let offset = match kind {
            SimilarityMeasure::MeanSquares => [0.0; 2],
            _ => [fixed_mean, moving_mean],
        };
        Ok(Self { kind, offset, bins })
    }

    /// The similarity measure that is computed.
    pub fn kind(&self) -> SimilarityMeasure {
        self.kind
    }

    /// The sums over some samples; samples with a NaN moving value are ignored.
    pub fn gather(&self, fixed: &[f32], moving: &[f32]) -> Partial {
        if let Some(bins) = &self.bins {
            return Partial::Histogram(bins.count(fixed, moving));
        }
        let mut sums = PairSums::default();
        for (&f, &m) in fixed.iter().zip(moving) {
            if m.is_nan() {
                continue;
            }
            sums.add(f64::from(f) - self.offset[0], f64::from(m) - self.offset[1]);
        }
        Partial::Moments(sums)
    }

    /// The energy of all samples; `None` if too few samples are known or an image is constant.
    pub fn conclude(&self, whole: &Partial) -> Option<Score> {
        match (whole, &self.bins) {
            (Partial::Histogram(histogram), Some(bins)) => {
                let (information, table) = bins.conclude(histogram)?;
                let force = Force::Table(Box::new(table));
                Some(Score { energy: -information, count: histogram.count(), force })
            }
            (Partial::Moments(sums), _) => match self.kind {
                SimilarityMeasure::MeanSquares => mean_squares(sums),
                _ => self.correlation(sums),
            },
            (Partial::Histogram(_), None) => None,
        }
    }

    /// The energy `1 - r`, with `r` the correlation. It is half the squared distance between the
    /// normalised images; the curvature is therefore that of least squares (Evangelidis and
    /// Psarakis, IEEE PAMI 30, 2008).
    fn correlation(&self, sums: &PairSums) -> Option<Score> {
        let PairSums { n, f, m, .. } = *sums;
        if n < 2.0 {
            return None;
        }
        let [ff, mm, fm] = sums.centred();
        // rounding errors of a constant image are not contrast
        let floor = |offset: f64| 1e-12 * n * offset * offset;
        if !(ff > floor(self.offset[0]) && mm > floor(self.offset[1])) {
            return None;
        }
        let r = fm / (ff * mm).sqrt();
        Some(Score {
            energy: 1.0 - r,
            count: n as usize,
            force: Force::Linear {
                gain: [-1.0 / (ff * mm).sqrt(), r / mm],
                mean: [f / n + self.offset[0], m / n + self.offset[1]],
                curvature: 1.0 / mm,
                free: Some([n, mm]),
            },
        })
    }
}

/// The fraction of voxels at each end of the intensity range that are clamped to the outermost bins
/// of a histogram.
const CLIPPED: f64 = 0.001;

fn mean_squares(&PairSums { n, ff, mm, fm, .. }: &PairSums) -> Option<Score> {
    (n >= 1.0).then(|| Score {
        energy: (ff + mm - 2.0 * fm) / n,
        count: n as usize,
        force: Force::Linear {
            gain: [-2.0 / n, 2.0 / n],
            mean: [0.0; 2],
            curvature: 2.0 / n,
            free: None,
        },
    })
}

fn mean<'a>(values: impl Iterator<Item = &'a f32>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for &v in values.filter(|v| v.is_finite()) {
        sum += f64::from(v);
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

impl Partial {
    /// Adds the sums over other samples.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        match (&mut self, other) {
            (Self::Moments(sums), Self::Moments(more)) => sums.merge(more),
            (Self::Histogram(sums), Self::Histogram(more)) => sums.add(more),
            _ => {}
        }
        self
    }
}

impl Force {
    /// The derivative with respect to a moving value, and the curvature.
    #[inline]
    pub fn at(&self, fixed: f32, moving: f32) -> (f32, f32) {
        match self {
            Self::Linear { gain, mean, curvature, .. } => {
                let force = gain[0] * (f64::from(fixed) - mean[0])
                    + gain[1] * (f64::from(moving) - mean[1]);
                (force as f32, *curvature as f32)
            }
            Self::Table(table) => table.at(fixed, moving),
        }
    }
}
