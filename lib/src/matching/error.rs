use crate::geom::Model;

/// The reason why two volumes could not be matched, or no map could be fitted to the matches.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
    /// The voxel sizes differ, so that contexts cannot be compared voxel by voxel.
    #[error(
        "the voxels differ: {fixed:?} um in the fixed volume, {moving:?} um in the moving one \
         (z, y, x): give levels of equal voxel size, or resample one of them with apply-transform"
    )]
    VoxelSizes {
        /// The spacing of the fixed volume, `[z, y, x]` in micrometres.
        fixed: [f64; 3],
        /// The spacing of the moving volume, `[z, y, x]` in micrometres.
        moving: [f64; 3],
    },
    /// A table of spots has no rows.
    #[error("no spots in the {side} volume: see whether extract-spots found any")]
    NoSpots {
        /// "fixed" or "moving".
        side: &'static str,
    },
    /// No spot is far enough from the faces of the volume for a complete context.
    #[error(
        "none of the {spots} {side} spots has a whole context of --context-radius {radius:?} \
         voxels (z, y, x) around it in a volume of {shape:?}: give a smaller radius along the short axes, \
         such as 2,12,12vox, or more spots"
    )]
    NoContexts {
        /// "fixed" or "moving".
        side: &'static str,
        /// The number of spots given.
        spots: usize,
        /// The half width of a context, voxels along z, y, x.
        radius: [usize; 3],
        /// The shape of the volume, z, y, x.
        shape: [usize; 3],
    },
    /// Neither the volumes nor the contexts fit into memory.
    #[error(
        "the contexts of {spots} spots take {wanted} MB and --memory leaves {found} MB: give more \
         memory, fewer spots or a smaller --context-radius"
    )]
    Memory {
        /// The number of spots of both volumes.
        spots: usize,
        /// The memory needed, megabytes.
        wanted: u64,
        /// The memory available, megabytes.
        found: u64,
    },
    /// An error of the block-wise run.
    #[error(transparent)]
    Blocks(#[from] crate::blocks::Error),
    /// The coordinates of a match are not all finite.
    #[error("match {row} has a position that is not a finite number: correct the table of matches")]
    NotFinite {
        /// The row in the table, counted from 0.
        row: usize,
    },
    /// There are too few matches to fit a map.
    #[error(
        "{found} matches, and at least {wanted} are wanted (--min-matches, and what the {} model \
         needs): lower --match-threshold or find more spots", model.name()
    )]
    TooFewMatches {
        /// The number of matches.
        found: usize,
        /// The minimum number of matches.
        wanted: usize,
        /// The model to be fitted.
        model: Model,
    },
    /// The matches lie on a point, a line or a plane, which does not determine the map.
    #[error(
        "the {what} lie on a {shape} (extents {extents:.3?} um along their main axes), which does \
         not determine the map: take --model {instead}, or find spots elsewhere"
    )]
    Flat {
        /// "matches" or "matches that fit".
        what: &'static str,
        /// "point", "line" or "plane".
        shape: &'static str,
        /// Root mean square extents along the principal axes, largest first, micrometres.
        extents: [f64; 3],
        /// A model that these matches do determine.
        instead: &'static str,
    },
    /// Too few matches agree with the map.
    #[error(
        "the best map fits {found} of {matches} matches, and at least {wanted} are wanted \
         (--min-inliers): raise --align-threshold ({threshold} um) or --match-threshold, or lower \
         --min-inliers"
    )]
    TooFewInliers {
        /// The number of inliers.
        found: usize,
        /// The minimum number of inliers.
        wanted: usize,
        /// The number of matches.
        matches: usize,
        /// The value of `--align-threshold`, micrometres.
        threshold: f64,
    },
    /// Random matches would agree with a map equally well.
    #[error(
        "the best map fits {found} of {matches} matches, and {expected:.1e} maps are expected to fit as many \
         of matches that chance made, more than --max-false-alarms {limit}: do both volumes show the same \
         sample and channel? raise --match-threshold, lower --align-threshold or find more spots"
    )]
    Chance {
        /// The number of inliers.
        found: usize,
        /// The number of matches.
        matches: usize,
        /// The expected number of maps that fit as many matches if the matches are random.
        expected: f64,
        /// The value of `--max-false-alarms`.
        limit: f64,
    },
    /// The map is singular.
    #[error(
        "the map that fits best is singular (determinant {determinant:e}): find more spots, or \
         take --model rigid"
    )]
    Singular {
        /// The determinant of the map.
        determinant: f64,
    },
    /// The map is a reflection.
    #[error(
        "the map that fits best is a reflection (determinant {determinant:.4}): give \
         --allow-reflection if one volume is mirrored, else raise --match-threshold"
    )]
    Reflection {
        /// The determinant of the map.
        determinant: f64,
    },
    /// The map scales too much along some direction.
    #[error(
        "the map that fits best scales by {found:.4} along one direction, beyond --max-scale \
         {limit} (or its inverse): check the voxel sizes, or raise --max-scale"
    )]
    Scale {
        /// The stretch furthest from 1.
        found: f64,
        /// The value of `--max-scale`.
        limit: f64,
    },
    /// The map shears too much.
    #[error(
        "the map that fits best stretches one direction {:.1} % more than another, beyond \
         --max-shear {limit}: raise --max-shear, or take --model similarity", 100.0 * found
    )]
    Shear {
        /// The ratio of the largest to the smallest stretch, minus 1.
        found: f64,
        /// The value of `--max-shear`.
        limit: f64,
    },
}

impl Error {
    /// Whether the error means that no trustworthy map was found, as opposed to a failure of the
    /// run.
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

/// The error for an invalid value of a flag.
pub(super) fn usage(flag: &str, found: &str, wanted: &str) -> Error {
    crate::blocks::Error::Usage(format!("{flag} {found}: {wanted}")).into()
}
