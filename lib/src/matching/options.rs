//! The options of matching and of the fit, as command-line flags.

use std::fmt;
use std::str::FromStr;

use crate::geom::{Grid, Model, Point, defaults};

/// Half the side of a context.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub enum ContextRadius {
    /// Voxels along z, y, x.
    Voxels([usize; 3]),
    /// Micrometres, rounded to the nearest number of voxels along each axis, at least 1.
    Micrometres(f64),
}

impl ContextRadius {
    /// The half width in voxels along z, y, x for this spacing (micrometres).
    pub fn voxels(self, spacing: Point) -> [usize; 3] {
        match self {
            Self::Voxels(voxels) => voxels,
            Self::Micrometres(length) => spacing.map(|s| (length / s).round().max(1.0) as usize),
        }
    }
}

impl fmt::Display for ContextRadius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Voxels([z, y, x]) => write!(f, "{z},{y},{x}vox"),
            Self::Micrometres(length) => write!(f, "{length}"),
        }
    }
}

impl FromStr for ContextRadius {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is neither a length above 0 um, such as 8, nor voxels, such as 12vox or along z,y,x \
                 6,12,12vox"
            )
        };
        if let Some(voxels) = text.strip_suffix("vox") {
            let numbers: Result<Vec<usize>, _> =
                voxels.split(',').map(|part| part.trim().parse()).collect();
            return match numbers.as_deref() {
                Ok(&[r]) if r <= MAX_VOXELS => Ok(Self::Voxels([r; 3])),
                Ok(&[z, y, x]) if z.max(y).max(x) <= MAX_VOXELS => Ok(Self::Voxels([z, y, x])),
                _ => Err(wrong()),
            };
        }
        let length: Option<f64> = text.strip_suffix("um").unwrap_or(text).trim().parse().ok();
        let length = length.filter(|l| *l > 0.0 && *l <= MAX_LENGTH).ok_or_else(wrong)?;
        Ok(Self::Micrometres(length))
    }
}

/// The upper limit for half the side of a context in a flag, voxels; matching has a stricter limit.
const MAX_VOXELS: usize = 1_000_000;
/// The upper limit for half the side of a context in a flag, micrometres.
const MAX_LENGTH: f64 = 1e9;

/// The default for half the side of a context, voxels.
const HALF_CONTEXT: usize = 12;

/// How contexts are compared and matched.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[cfg_attr(feature = "cli", command(next_help_heading = "Matching"))]
pub struct MatchOptions {
    /// Two spots match only if the cubes of voxels around them correlate by more than this
    #[cfg_attr(feature = "cli", arg(long, value_name = "R", default_value_t = 0.7))]
    pub match_threshold: f64,

    /// Half the side of the cubes that are compared: micrometres, or voxels as 12vox or 6,12,12vox
    /// [default: 12vox, fewer along axes that are short or have large voxels]
    #[cfg_attr(feature = "cli", arg(long, value_name = "UM"))]
    pub context_radius: Option<ContextRadius>,

    /// Match only spots that are at most this far apart before alignment, micrometres
    #[cfg_attr(feature = "cli", arg(long, value_name = "UM"))]
    pub max_distance: Option<f64>,

    /// Keep a match only if each spot is the other's best [default: true, with --exact false]
    #[cfg_attr(feature = "cli", arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set))]
    pub mutual: Option<bool>,

    /// Find moving points with sub-voxel precision [default: true, with --exact false]
    #[cfg_attr(feature = "cli", arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set))]
    pub subvoxel: Option<bool>,

    /// Match as BigStream does: positions truncated to voxels, one direction, whole voxels
    #[cfg_attr(feature = "cli", arg(long))]
    pub exact: bool,
}

impl Default for MatchOptions {
    fn default() -> Self {
        Self {
            match_threshold: 0.7,
            context_radius: None,
            max_distance: None,
            mutual: None,
            subvoxel: None,
            exact: false,
        }
    }
}

impl MatchOptions {
    /// Whether a match requires that each spot is the best partner of the other.
    pub fn mutual(&self) -> bool {
        self.mutual.unwrap_or(!self.exact)
    }

    /// Half the side of a context in voxels along z, y, x, for two volumes of equal spacing. It is
    /// 0 along axes of one voxel, so that single planes have contexts too.
    pub fn radius(&self, grids: [&Grid; 2]) -> [usize; 3] {
        let radius = match self.context_radius {
            Some(radius) => radius.voxels(grids[0].spacing),
            None if self.exact => [HALF_CONTEXT; 3],
            None => defaults::context(HALF_CONTEXT, grids),
        };
        std::array::from_fn(
            |a| {
                if grids.iter().any(|grid| grid.shape[a] == 1) { 0 } else { radius[a] }
            },
        )
    }

    /// Whether matches are refined to sub-voxel positions.
    pub fn subvoxel(&self) -> bool {
        self.subvoxel.unwrap_or(!self.exact)
    }
}

/// An estimator whose results are reproduced bit for bit or nearly so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Compat {
    /// OpenCV's `estimateAffine3D`: its random numbers, at most 1000 samples, no refinement.
    Opencv,
}

/// How a map is fitted to matches.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[cfg_attr(feature = "cli", command(next_help_heading = "Fit"))]
pub struct EstimateOptions {
    /// Kind of map that is fitted
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value = "affine"))]
    pub model: Model,

    /// Allow maps that mirror
    #[cfg_attr(feature = "cli", arg(long))]
    pub allow_reflection: bool,

    /// A match is an inlier if the map takes its fixed point this close to its moving point,
    /// micrometres [default: 1.2 voxels]
    #[cfg_attr(feature = "cli", arg(long, value_name = "UM"))]
    pub align_threshold: Option<f64>,

    /// Stop sampling when one of the samples is free of outliers with this probability
    #[cfg_attr(feature = "cli", arg(long, value_name = "P", default_value_t = 0.999))]
    pub confidence: f64,

    /// Maximum number of random samples
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 20_000))]
    pub max_iterations: usize,

    /// Minimum number of matches; with fewer, no map is written
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 12))]
    pub min_matches: usize,

    /// Minimum number of inliers; a map with fewer is rejected
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 8))]
    pub min_inliers: usize,

    /// Reject a map if more than this number of maps would be expected to fit as many matches by
    /// chance
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 1e-4))]
    pub max_false_alarms: f64,

    /// Reject a map that stretches or shrinks any direction by more than this factor
    #[cfg_attr(feature = "cli", arg(long, value_name = "FACTOR", default_value_t = 2.0))]
    pub max_scale: f64,

    /// Reject a map whose largest stretch exceeds its smallest by more than this fraction
    #[cfg_attr(feature = "cli", arg(long, value_name = "FRACTION", default_value_t = 0.5))]
    pub max_shear: f64,

    /// Reproduce the results of another estimator
    #[cfg_attr(feature = "cli", arg(long, value_enum, value_name = "ESTIMATOR"))]
    pub compat: Option<Compat>,
}

impl Default for EstimateOptions {
    fn default() -> Self {
        Self {
            model: Model::Affine,
            allow_reflection: false,
            align_threshold: None,
            confidence: 0.999,
            max_iterations: 20_000,
            min_matches: 12,
            min_inliers: 8,
            max_false_alarms: 1e-4,
            max_scale: 2.0,
            max_shear: 0.5,
            compat: None,
        }
    }
}

impl EstimateOptions {
    /// Sets the inlier threshold to the default for these volumes if none is given.
    #[must_use]
    pub fn for_pair(self, fixed: &Grid, moving: &Grid) -> Self {
        let threshold = || match self.compat {
            Some(Compat::Opencv) => 2.0, // the threshold of BigStream
            None => defaults::align_threshold(fixed, moving),
        };
        Self { align_threshold: Some(self.align_threshold.unwrap_or_else(threshold)), ..self }
    }

    /// The inlier threshold, micrometres. If it is not set, it is 1.2, for points in units of
    /// voxels.
    pub fn threshold(&self) -> f64 {
        self.align_threshold.unwrap_or(1.2)
    }
}

#[cfg(test)]
#[cfg(feature = "cli")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        matching: MatchOptions,
        #[command(flatten)]
        estimate: EstimateOptions,
    }

    #[test]
    fn no_flags_mean_the_defaults() {
        let flags = Flags::try_parse_from(["test"]).unwrap();
        assert_eq!(flags.matching, MatchOptions::default());
        assert_eq!(flags.estimate, EstimateOptions::default());
    }

    #[test]
    fn a_radius_in_micrometres_is_balanced_over_uneven_voxels() {
        let radius: ContextRadius = "8.1".parse().unwrap();
        assert_eq!(radius.voxels([2.0, 0.5, 0.5]), [4, 16, 16]);
        assert_eq!(radius.voxels([50.0, 4.0, 4.0]), [1, 2, 2]);
        let shown: ContextRadius = "6,12,12vox".parse().unwrap();
        assert_eq!(shown.to_string().parse(), Ok(shown));
    }

    #[test]
    fn flags_say_what_they_mean() {
        let flags = Flags::try_parse_from(
            "test --exact --mutual --context-radius 6,12,12vox --model rigid --compat opencv"
                .split(' '),
        )
        .unwrap();
        assert_eq!(flags.matching.context_radius, Some(ContextRadius::Voxels([6, 12, 12])));
        assert!(flags.matching.mutual() && !flags.matching.subvoxel());
        assert_eq!(flags.estimate.model, Model::Rigid);
        assert_eq!(flags.estimate.compat, Some(Compat::Opencv));
        let list = "6,12,12".parse::<ContextRadius>().unwrap_err(); // no unit, as in a YAML list
        assert!(list.contains("along z,y,x 6,12,12vox"), "{list}");
        for bad in ["3,4vox", "0", "-1um", "inf", "12 pixels"] {
            assert!(Flags::try_parse_from(["test", "--context-radius", bad]).is_err(), "{bad}");
        }
        assert!(!Flags::try_parse_from(["test", "--mutual=false"]).unwrap().matching.mutual());
    }
}
