//! Interchange of transforms between the native format and those of BigStream, ITK and ANTs,
//! greedy, elastix, BigWarp and OME-NGFF.
//!
//! A transform of another program is read as a list of pieces: matrices, splines, and vector fields
//! on their own samples. Each reader converts axes, frames and units to `[z, y, x]` micrometres,
//! and the writers start from these pieces.

use crate::blocks::{self, Context};
use crate::files;
use crate::geom::SourceError;
use crate::transform::AxisOrder;
use crate::volume;

mod bigwarp;
mod bspline;
mod control;
mod detect;
mod dfield;
mod elastix;
mod export;
mod fields;
#[cfg(feature = "cli")]
mod flags;
mod flat;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hdf5;
mod itk;
mod map_steps;
mod matlab;
mod matrices;
mod metaimage;
mod models;
mod ngff;
mod nifti;
mod nrrd;
mod read_error;
mod reading;
mod summary;
mod target;
mod tps;
mod unpack;
mod world;

pub use bigwarp::LandmarkModel;
pub use detect::SourceFormat;
#[cfg(feature = "cli")]
pub use flags::Flags;
pub use reading::Reading;
pub use summary::{StepSummary, TransformSummary, is_foreign, summarise};
pub use target::TargetFormat;
pub use world::{AnatomicalFrame, Unit};

/// Why a transform could not be read, converted or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the run, such as an output that exists or a wrong option.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A native transform could not be read or written.
    #[error(transparent)]
    Transform(#[from] crate::transform::Error),
    /// A displacement field could not be read.
    #[error("the displacement field cannot be read: {0}")]
    Field(#[source] SourceError),
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Every vector that was written is NaN.
    #[error("{location}: every vector is NaN; look at where the field comes from")]
    Unknown {
        /// The field that was written.
        location: String,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
    /// The source cannot be read, or cannot be converted as requested.
    #[error("{location}: {message}")]
    Unfit {
        /// The source, or the output if its format cannot hold the result.
        location: String,
        /// What was found, what was wanted and how to proceed.
        message: String,
        /// The cause, if reading the source failed.
        #[source]
        source: Option<SourceError>,
    },
}

/// Parses the name of an axis order.
///
/// # Errors
/// A sentence that lists the names.
pub fn parse_axes(text: &str) -> Result<AxisOrder, String> {
    match text {
        "zyx" => Ok(AxisOrder::Zyx),
        "xyz" => Ok(AxisOrder::Xyz),
        _ => Err(format!("'{text}' is neither zyx nor xyz")),
    }
}

/// The target format that the name `output` implies for the volume or transform at `source`. `from`
/// is the format of the source, if the user states it; the source is then taken as a transform.
///
/// # Errors
/// [`blocks::Error::Usage`] with the possible formats if the name does not determine one.
pub fn target_of(
    output: &str,
    source: &str,
    from: Option<SourceFormat>,
) -> Result<TargetFormat, Error> {
    if files::is_stream(output) {
        let texts = TargetFormat::NAMES.into_iter().filter(|(_, target)| target.is_one_text());
        let message = format!(
            "standard output has no name that tells the format; say one with --to: {}",
            texts.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
        );
        return Err(blocks::Error::Usage(message).into());
    }
    let is_transform = || from.is_some() || detect::is_transform(source);
    let message = match target::of_name(output, is_transform).as_slice() {
        [one] => return Ok(*one),
        [] => format!(
            "the name {output} does not tell the format{}; say one with --to: {}",
            if output.to_lowercase().ends_with(".png") {
                " (PNG is read and not written)"
            } else {
                ""
            },
            TargetFormat::NAMES.map(|(name, _)| name).join(", ")
        ),
        several => format!(
            "the name {output} may mean several formats; say with --to which one: {}",
            several.iter().map(|target| target.name()).collect::<Vec<_>>().join(", ")
        ),
    };
    Err(blocks::Error::Usage(message).into())
}

/// Reads the transform at `source`, which is native or of another program, and writes it to
/// `destination` as `target`. Lengths are written in `to_unit` if the target allows a choice.
///
/// The interpretation of the source (direction, axes, LPS or RAS, unit) is logged and recorded in
/// the receipt. Splines can be written as fields only if `reading.onto` is a grid. With a grid, the
/// whole map is sampled on it for every target that holds fields: the result is one displacement
/// field that is exact at the voxels of the grid. In JSON and OME-NGFF, a matrix follows the field
/// and extrapolates outside the grid. A single matrix and landmarks are computed without sampling.
///
/// # Errors
/// [`Error`] if the source cannot be read, does not fit the flags, or cannot be expressed in the
/// target's format.
pub fn transform(
    source: &str,
    reading: &Reading,
    destination: &str,
    target: TargetFormat,
    to_unit: Option<Unit>,
    ctx: &Context,
) -> Result<(), Error> {
    export::transform(source, reading, destination, target, to_unit, ctx)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
