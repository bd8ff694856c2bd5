use crate::geom::Model;

/// Why two volumes could not be matched, or no map could be fitted to the matches.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
    /// Contexts are compared voxel by voxel, and the voxels differ.
    #[error(
        "the voxels differ: {fixed:?} um in the fixed volume, {moving:?} um in the moving one \
         (z, y, x): give levels of equal voxel size, or resample one of them with apply-transform"
    )]
    VoxelSizes {
        /// Spacing of the fixed volume.
        fixed: [f64; 3],
        /// Spacing of the moving volume.
        moving: [f64; 3],
    },
    /// A table without rows.
    #[error("no spots in the {side} volume: see whether extract-spots found any")]
    NoSpots {
        /// "fixed" or "moving".
        side: &'static str,
    },
    /// No spot is far enough inside.
    #[error(
        "none of the {spots} {side} spots has a whole context of --context-radius {radius:?} \
         voxels (z, y, x) around it in a volume of {shape:?}: give a smaller radius along the short axes, \
         such as 2,12,12vox, or more spots"
    )]
    NoContexts {
        /// "fixed" or "moving".
        side: &'static str,
        /// Spots given.
        spots: usize,
        /// Half width of a context.
        radius: [usize; 3],
        /// Voxels of the volume.
        shape: [usize; 3],
    },
    /// Neither the volumes nor the contexts fit.
    #[error(
        "the contexts of {spots} spots take {wanted} MB and --memory leaves {found} MB: give more \
         memory, fewer spots or a smaller --context-radius"
    )]
    Memory {
        /// Spots of both volumes.
        spots: usize,
        /// Megabytes needed.
        wanted: u64,
        /// Megabytes there.
        found: u64,
    },
    /// The run's error.
    #[error(transparent)]
    Blocks(#[from] crate::blocks::Error),
    /// A match is not made of numbers.
    #[error("match {row} has a position that is not a finite number: correct the table of matches")]
    NotFinite {
        /// Which, from 0.
        row: usize,
    },
    /// Too few matches to begin with.
    #[error(
        "{found} matches, and at least {wanted} are wanted (--min-matches, and what the {} model \
         needs): lower --match-threshold or find more spots", model.name()
    )]
    TooFewMatches {
        /// Matches.
        found: usize,
        /// The least.
        wanted: usize,
        /// The model to fit.
        model: Model,
    },
    /// The matches do not fill space.
    #[error(
        "the {what} lie on a {shape} (extents {extents:.3?} um along their main axes), which does \
         not determine the map: take --model {instead}, or find spots elsewhere"
    )]
    Flat {
        /// "matches" or "matches that fit".
        what: &'static str,
        /// "point", "line" or "plane".
        shape: &'static str,
        /// Root mean square extents along the main axes, largest first.
        extents: [f64; 3],
        /// A model that they determine.
        instead: &'static str,
    },
    /// Too few matches agree.
    #[error(
        "the best map fits {found} of {matches} matches, and at least {wanted} are wanted \
         (--min-inliers): raise --align-threshold ({threshold} um) or --match-threshold, or lower \
         --min-inliers"
    )]
    TooFewInliers {
        /// Matches that fit.
        found: usize,
        /// The least.
        wanted: usize,
        /// Matches.
        matches: usize,
        /// `--align-threshold`.
        threshold: f64,
    },
    /// Matches of chance would agree as well.
    #[error(
        "the best map fits {found} of {matches} matches, and {expected:.1e} maps are expected to fit as many \
         of matches that chance made, more than --max-false-alarms {limit}: do both volumes show the same \
         sample and channel? raise --match-threshold, lower --align-threshold or find more spots"
    )]
    Chance {
        /// Matches that fit.
        found: usize,
        /// Matches.
        matches: usize,
        /// Maps that are expected by chance.
        expected: f64,
        /// `--max-false-alarms`.
        limit: f64,
    },
    /// The map flattens space.
    #[error(
        "the map that fits best is singular (determinant {determinant:e}): find more spots, or \
         take --model rigid"
    )]
    Singular {
        /// Its determinant.
        determinant: f64,
    },
    /// The map mirrors.
    #[error(
        "the map that fits best is a reflection (determinant {determinant:.4}): give \
         --allow-reflection if one volume is mirrored, else raise --match-threshold"
    )]
    Reflection {
        /// Its determinant.
        determinant: f64,
    },
    /// The map stretches too much.
    #[error(
        "the map that fits best scales by {found:.4} along one direction, beyond --max-scale \
         {limit} (or its inverse): check the voxel sizes, or raise --max-scale"
    )]
    Scale {
        /// The worst stretch.
        found: f64,
        /// `--max-scale`.
        limit: f64,
    },
    /// The map shears too much.
    #[error(
        "the map that fits best stretches one direction {:.1} % more than another, beyond \
         --max-shear {limit}: raise --max-shear, or take --model similarity", 100.0 * found
    )]
    Shear {
        /// Ratio of the largest to the smallest stretch, less 1.
        found: f64,
        /// `--max-shear`.
        limit: f64,
    },
}

impl Error {
    /// Whether it says that no map is to be believed, and not that something could not be done.
    pub fn is_doubt(&self) -> bool {
        matches!(
            self,
            Self::TooFewMatches { .. }
                | Self::Flat { .. }
                | Self::TooFewInliers { .. }
                | Self::Chance { .. }
                | Self::Singular { .. }
                | Self::Reflection { .. }
                | Self::Scale { .. }
                | Self::Shear { .. }
        )
    }
}

/// A flag has a value that makes no sense.
pub(super) fn usage(flag: &str, found: &str, wanted: &str) -> Error {
    crate::blocks::Error::Usage(format!("{flag} {found}: {wanted}")).into()
}
