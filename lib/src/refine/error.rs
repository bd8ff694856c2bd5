use crate::metric;

/// Why two images could not be aligned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
    /// A transform could not be read or written.
    #[error(transparent)]
    Transform(#[from] crate::transform::Error),
    /// Interrupted, or an output that exists.
    #[error(transparent)]
    Blocks(#[from] crate::blocks::Error),
    /// An image that says nothing.
    #[error(transparent)]
    Metric(#[from] metric::Error),
    /// A plane and a volume.
    #[error(
        "{plane} is 2-D and {volume} has {planes} planes: both must be planes, or both volumes; cut the \
         plane out first, or give a stack"
    )]
    Dimensions {
        /// The plane's location.
        plane: String,
        /// The volume's location.
        volume: String,
        /// Its planes.
        planes: usize,
    },
    /// The initial map flattens space.
    #[error("--initial {location}: {source}")]
    Singular {
        /// Where it is.
        location: String,
        /// What is wrong.
        source: crate::geom::SingularError,
    },
    /// The initial map takes the fixed volume past the moving one.
    #[error(
        "the volumes have nothing in common under {initial}: {found} of {of} voxels of the fixed one fall \
         into the moving one; check the direction (fixed to moving) and unit (micrometres) of --initial, \
         or give --search 2000"
    )]
    NoOverlap {
        /// `--initial` and what follows it, or that it is the identity.
        initial: String,
        /// Voxels that do.
        found: usize,
        /// Voxels that were tried.
        of: usize,
    },
    /// A mask leaves nothing.
    #[error("the mask {location} is 0 wherever the {side} volume is: give the mask of this volume")]
    Mask {
        /// The mask.
        location: String,
        /// "fixed" or "moving".
        side: &'static str,
    },
    /// A search needs a matrix to start from.
    #[error(
        "--initial {0}: holds a field or local affines, and --search starts from a matrix; leave one out"
    )]
    SearchNeedsMatrix(String),
    /// A search found nothing.
    #[error(
        "none of the {starts} starts of --search leads to a common part of both images; try more, a \
         lower --min-overlap, a wider --scale-range or --allow-reflection"
    )]
    NothingFound {
        /// Starts tried.
        starts: usize,
    },
    /// Too little memory for any useful resolution.
    #[error(
        "even at {resolution:.1} um the images need --memory {wanted}M, and it is {found} MB; give so much"
    )]
    Memory {
        /// The coarsest resolution tried.
        resolution: f64,
        /// Megabytes of `--memory` needed there.
        wanted: u64,
        /// Megabytes of `--memory`.
        found: u64,
    },
}

/// Why a result was not believed and the initial map returned in its place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The measure got worse.
    #[error("the measure is worse after refining ({after:.6}) than before ({before:.6})")]
    Worse {
        /// Measure of the initial map.
        before: f64,
        /// Measure of the result.
        after: f64,
    },
    /// Too little overlap.
    #[error(
        "the volumes overlap by {found:.3} of the smaller one after refining, less than --min-overlap \
         {wanted}"
    )]
    Overlap {
        /// What was found.
        found: f64,
        /// `--min-overlap`.
        wanted: f64,
    },
    /// Too much scale.
    #[error("the refinement scales by {found:.4} along one direction, beyond --max-scale {limit}")]
    Scale {
        /// The worst stretch.
        found: f64,
        /// `--max-scale`.
        limit: f64,
    },
    /// A determinant that no sound map has.
    #[error("the refined map is singular (determinant {determinant:e})")]
    Determinant {
        /// The determinant.
        determinant: f64,
    },
    /// No better than chance.
    #[error(
        "the {measure} of the volumes' details is {found:.3} under the map found, and up to {wrong:.3} under \
         {maps} maps turned, mirrored and shifted at random: it stands out by {evidence:.1} standard \
         deviations, less than --min-evidence {wanted}; give an --initial map nearer to the truth, or {way_out}"
    )]
    Chance {
        /// What was measured.
        measure: &'static str,
        /// Under the map found.
        found: f64,
        /// The greatest under wrong maps.
        wrong: f64,
        /// Wrong maps.
        maps: usize,
        /// By how much it stands out.
        evidence: f64,
        /// `--min-evidence`.
        wanted: f64,
        /// What else can be tried.
        way_out: &'static str,
    },
    /// The search left its range.
    #[error("the map found scales by {found:.4}, outside --scale-range {least}..{most}")]
    Range {
        /// The scale.
        found: f64,
        /// The least.
        least: f64,
        /// The greatest.
        most: f64,
    },
}
