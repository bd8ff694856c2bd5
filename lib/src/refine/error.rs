use crate::metric;

/// The reason why two images could not be aligned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
    /// A transform could not be read or written.
    #[error(transparent)]
    Transform(#[from] crate::transform::Error),
    /// The run was interrupted, or the output exists.
    #[error(transparent)]
    Blocks(#[from] crate::blocks::Error),
    /// A displacement field of the initial map does not overlap the fixed volume.
    #[error(transparent)]
    Unreached(#[from] crate::geom::UnreachedField),
    /// An image is constant or has no usable voxel.
    #[error(transparent)]
    Metric(#[from] metric::Error),
    /// One input is a plane and the other a volume.
    #[error(
        "{plane} is 2-D and {volume} has {planes} planes: both must be planes, or both volumes; cut the \
         plane out first, or give a stack"
    )]
    Dimensions {
        /// The plane's location.
        plane: String,
        /// The volume's location.
        volume: String,
        /// Number of planes of `volume`.
        planes: usize,
    },
    /// The initial map is singular.
    #[error("--initial {location}: {source}")]
    Singular {
        /// Location of the initial map.
        location: String,
        /// The error, with the determinant of the map.
        source: crate::geom::SingularError,
    },
    /// The initial map takes the fixed volume outside the moving one.
    #[error(
        "the volumes have nothing in common under {initial}: {found} of {of} voxels of the fixed one fall \
         into the moving one; check the direction (fixed to moving) and unit (micrometres) of --initial, \
         or give --search 2000"
    )]
    NoOverlap {
        /// `--initial` and its value, or a note that it is the identity.
        initial: String,
        /// Number of fixed voxels that fall into the moving volume.
        found: usize,
        /// Number of fixed voxels that were tried.
        of: usize,
    },
    /// The mask excludes all voxels.
    #[error("the mask {location} is 0 wherever the {side} volume is: give the mask of this volume")]
    Mask {
        /// Location of the mask.
        location: String,
        /// "fixed" or "moving".
        side: &'static str,
    },
    /// A search needs a matrix as its initial map.
    #[error(
        "--initial {0}: holds a field or local affines, and --search starts from a matrix; leave one out"
    )]
    SearchNeedsMatrix(String),
    /// The search found no map.
    #[error(
        "none of the {starts} starts of --search leads to a common part of both images; try more, a \
         lower --min-overlap, a wider --scale-range or --allow-reflection"
    )]
    NothingFound {
        /// Number of versions tried.
        starts: usize,
    },
    /// `--memory` is too small for any useful resolution.
    #[error(
        "even at {resolution:.1} um the images need --memory {wanted}M, and it is {found} MB; give so much"
    )]
    Memory {
        /// The coarsest resolution tried, micrometres.
        resolution: f64,
        /// `--memory` needed at `resolution`, megabytes.
        wanted: u64,
        /// `--memory` as given, megabytes.
        found: u64,
    },
}

/// The reason why a result was refused. The initial map, if there is one, is returned instead.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The similarity under the result is worse than under the initial map.
    #[error("the measure is worse after refining ({after:.6}) than before ({before:.6})")]
    Worse {
        /// Value of the similarity measure under the initial map.
        before: f64,
        /// Value of the similarity measure under the result.
        after: f64,
    },
    /// The overlap is too small.
    #[error(
        "the volumes overlap by {found:.3} of the smaller one after refining, less than --min-overlap \
         {wanted}"
    )]
    Overlap {
        /// Overlap found, as a fraction of the smaller volume.
        found: f64,
        /// `--min-overlap`.
        wanted: f64,
    },
    /// The refinement changes the scale too much.
    #[error("the refinement scales by {found:.4} along one direction, beyond --max-scale {limit}")]
    Scale {
        /// The most extreme scale along one direction.
        found: f64,
        /// `--max-scale`.
        limit: f64,
    },
    /// The refined map is singular, mirrored or not finite.
    #[error("the refined map is singular (determinant {determinant:e})")]
    Determinant {
        /// The determinant.
        determinant: f64,
    },
    /// The similarity is not sufficiently greater than by chance.
    #[error(
        "the {measure} of the volumes' details is {found:.3} under the map found, and up to {wrong:.3} under \
         {maps} maps turned, mirrored and shifted at random: it stands out by {evidence:.1} standard \
         deviations, less than --min-evidence {wanted}; give an --initial map nearer to the truth, or {way_out}"
    )]
    Chance {
        /// Name of the similarity measure.
        measure: &'static str,
        /// Value of the measure under the map found.
        found: f64,
        /// Greatest value of the measure under a wrong map.
        wrong: f64,
        /// Number of wrong maps.
        maps: usize,
        /// The evidence, in standard deviations.
        evidence: f64,
        /// `--min-evidence`.
        wanted: f64,
        /// Another remedy that the user can try.
        way_out: &'static str,
    },
}
