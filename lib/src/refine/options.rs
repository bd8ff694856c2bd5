//! Options of an intensity-based alignment.

use crate::geom::Model;
use crate::metric::SimilarityMeasure;

/// The parameters of an intensity-based alignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The similarity measure.
    pub metric: SimilarityMeasure,
    /// The changes of the initial map that are allowed.
    pub model: Model,
    /// Number of resolutions, from coarse to fine; each is twice as fine as the one before.
    pub levels: usize,
    /// The finest resolution used, micrometres of the fixed space; `None` for the resolution of the
    /// images.
    pub resolution: Option<f64>,
    /// Maximum number of samples; `None` for all voxels.
    pub samples: Option<usize>,
    /// Maximum number of steps per level.
    pub iterations: usize,
    /// Minimum overlap, as a fraction of the smaller image.
    pub min_overlap: f64,
    /// Maximum factor by which the refinement is allowed to stretch or shrink any direction.
    pub max_scale: f64,
    /// Minimum number of standard deviations by which the similarity exceeds that under wrong maps;
    /// 0 accepts any map.
    pub min_evidence: f64,
    /// The global search for a start; `None` if the initial map is good enough to be refined
    /// directly.
    pub search: Option<SearchOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metric: SimilarityMeasure::Correlation,
            model: Model::Affine,
            levels: 3,
            resolution: None,
            samples: Some(1_000_000),
            iterations: 60,
            min_overlap: 0.2,
            max_scale: 1.5,
            min_evidence: Self::min_evidence_of(SimilarityMeasure::Correlation),
            search: None,
        }
    }
}

impl Options {
    /// The default minimum of the evidence, in standard deviations. Mutual information has more
    /// outliers under wrong maps than the other measures. Among 20 pairs of unrelated volumes, the
    /// largest evidence was 12.8; under right maps, it was 103 or more (`bench/believe.py`). The
    /// minimum lies between these values.
    #[must_use]
    pub fn min_evidence_of(metric: SimilarityMeasure) -> f64 {
        match metric {
            SimilarityMeasure::MutualInformation => 30.0,
            _ => 12.0,
        }
    }
}

/// A global search over initial candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// Number of rotated, scaled and mirrored versions that are tried.
    pub starts: usize,
    /// Largest rotation, radians.
    pub max_rotation: f64,
    /// Largest shift of the centre along each axis, micrometres; `None` for no limit.
    pub max_translation: Option<f64>,
    /// Range of the map's scale, moving lengths divided by fixed lengths.
    pub scale_range: [f64; 2],
    /// Whether mirror images are tried, too.
    pub allow_reflection: bool,
    /// Number of candidates that are refined.
    pub keep: usize,
}
