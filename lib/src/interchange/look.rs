//! Inspection of transforms of other programs, without writing anything.

use serde_json::Value;

use super::Error;
use super::detect::{self, Source};
use super::pieces::Piece;
use super::reading::{self, Reading};
use crate::geom::{Grid, Transform};
use crate::transform::{self, Direction};

/// A transform as it is interpreted without any flags.
pub struct Look {
    /// Its format and direction, and its own axes, frame and unit.
    pub taken_as: Value,
    /// Its maps in the order of application, from fixed to moving, in `[z, y, x]` micrometres.
    pub steps: Vec<Map>,
}

/// One of the maps of a transform.
pub enum Map {
    /// A matrix, or a native array.
    Ours(Transform),
    /// A spline, which is sampled to become a field.
    Spline,
    /// A vector field on its own samples.
    Field {
        /// The grid of the samples.
        grid: Grid,
        /// "displacements" or "positions".
        holds: &'static str,
        /// Whether its axes are rotated, mirrored or oblique with respect to ours.
        is_turned: bool,
    },
}

/// Whether `location` holds a transform of another program, judged by its content.
///
/// # Errors
/// [`Error`] if it is not a transform, or one whose meaning is not stated.
pub fn is_foreign(location: &str) -> Result<bool, Error> {
    let source = detect::source_of(location)?;
    Ok(!matches!(source, Source::Json | Source::Field | Source::Bigstream))
}

/// Inspects the transform of another program at `location`.
///
/// # Errors
/// Like [`super::transform`] without any options for the source.
pub fn look(location: &str) -> Result<Look, Error> {
    let reading = Reading { is_look: true, ..Reading::default() };
    let imported = reading::read(location, &reading)?;
    let steps = imported.pieces.into_iter().map(|piece| -> Result<Map, Error> {
        Ok(match piece {
            Piece::Affine(map) => Map::Ours(Transform::Affine(map)),
            Piece::Smooth(_) => Map::Spline,
            Piece::Foreign(field) => Map::Field {
                grid: *field.own_grid(),
                holds: field.holds().name(),
                is_turned: !field.is_straight(),
            },
            Piece::Ours(step) => {
                Map::Ours(transform::open_step(location, &step, Direction::FixedToMoving)?)
            }
        })
    });
    Ok(Look { taken_as: imported.taken_as, steps: steps.collect::<Result<_, _>>()? })
}
