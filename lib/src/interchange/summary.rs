//! Inspection of transforms of other programs, without writing anything.

use serde_json::Value;

use super::Error;
use super::detect::{self, SourceFormat};
use super::map_steps::MapStep;
use super::reading::{self, Reading};
use crate::geom::{Grid, Transform};
use crate::transform::{self, Direction};

/// A transform as it is interpreted without any flags.
pub struct TransformSummary {
    /// The format and direction of the transform, and the axes, frame and unit in its file.
    pub taken_as: Value,
    /// The maps in the order of application, from fixed to moving, in `[z, y, x]` micrometres.
    pub steps: Vec<StepSummary>,
}

/// One of the maps of a transform.
pub enum StepSummary {
    /// A matrix, or a native array.
    Native(Transform),
    /// A spline, which is sampled to become a field.
    Spline,
    /// A vector field on its own samples.
    Field {
        /// The grid of the samples.
        grid: Grid,
        /// "displacements" or "positions".
        holds: &'static str,
        /// Whether the axes of the grid are rotated, mirrored or oblique in voxloom's frame.
        is_turned: bool,
    },
}

/// Whether `location` holds a transform of another program, judged by its content.
///
/// # Errors
/// [`Error`] if `location` holds no transform, or a transform whose meaning is not stated.
pub fn is_foreign(location: &str) -> Result<bool, Error> {
    let source = detect::source_of(location)?;
    Ok(!matches!(source, SourceFormat::Json | SourceFormat::Field | SourceFormat::Bigstream))
}

/// Inspects the transform of another program at `location`.
///
/// # Errors
/// Like [`super::transform`] without any options for the source.
pub fn summarise(location: &str) -> Result<TransformSummary, Error> {
    let reading = Reading { is_summary: true, ..Reading::default() };
    let imported = reading::read(location, &reading)?;
    let steps = imported.pieces.into_iter().map(|piece| -> Result<StepSummary, Error> {
        Ok(match piece {
            MapStep::Affine(map) => StepSummary::Native(Transform::Affine(map)),
            MapStep::Smooth(_) => StepSummary::Spline,
            MapStep::ForeignField(field) => StepSummary::Field {
                grid: *field.own_grid(),
                holds: field.holds().name(),
                is_turned: !field.is_straight(),
            },
            MapStep::Native(step) => StepSummary::Native(transform::open_step(
                location,
                &step,
                Direction::FixedToMoving,
            )?),
        })
    });
    Ok(TransformSummary { taken_as: imported.taken_as, steps: steps.collect::<Result<_, _>>()? })
}
