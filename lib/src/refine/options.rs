//! What can be asked of an intensity-based alignment.

use crate::geom::Model;
use crate::metric::Kind;

/// How an affine is found from intensities.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The measure.
    pub metric: Kind,
    /// Which changes of the initial map are considered.
    pub model: Model,
    /// Resolutions, each twice the one before, that are worked through from coarse to fine.
    pub levels: usize,
    /// The finest resolution that is looked at, micrometres of the fixed space.
    pub resolution: Option<f64>,
    /// Samples at most; all where none.
    pub samples: Option<usize>,
    /// Steps per level at most.
    pub iterations: usize,
    /// Least overlap, as a share of the smaller image.
    pub min_overlap: f64,
    /// The refinement may stretch no direction by more than this factor.
    pub max_scale: f64,
    /// Standard deviations by which the similarity must exceed that under wrong maps; 0 accepts any map.
    pub min_evidence: f64,
    /// Where there is no good initial map.
    pub search: Option<Search>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metric: Kind::Correlation,
            model: Model::Affine,
            levels: 3,
            resolution: None,
            samples: Some(1_000_000),
            iterations: 60,
            min_overlap: 0.2,
            max_scale: 1.5,
            min_evidence: 12.0,
            search: None,
        }
    }
}

/// A search over starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// How many turned, scaled and mirrored versions are tried.
    pub starts: usize,
    /// Rotations by up to this, radians.
    pub max_rotation: f64,
    /// Shifts of the middle by up to this along each axis, micrometres.
    pub max_translation: Option<f64>,
    /// Scales of the map, moving lengths by fixed lengths.
    pub scale_range: [f64; 2],
    /// Also mirrored.
    pub allow_reflection: bool,
    /// Starts that are refined.
    pub keep: usize,
}
