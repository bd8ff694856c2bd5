//! What a transform of another program is, without anything that is written.

use serde_json::Value;

use super::Error;
use super::detect::{self, Source};
use super::pieces::Piece;
use super::reading::{self, Reading};
use crate::geom::{Grid, Transform};
use crate::transform::{self, Direction};

/// A transform as it is read where no flag says otherwise.
pub struct Look {
    /// Its format and direction, its own axes, frame and unit.
    pub taken_as: Value,
    /// Its maps in the order in which they are applied, from fixed to moving, in `[z, y, x]` micrometres.
    pub steps: Vec<Map>,
}

/// One of the maps of a transform.
pub enum Map {
    /// A matrix, or an array of ours.
    Ours(Transform),
    /// A spline, which becomes a field once it is sampled.
    Spline,
    /// A vector field with samples of its own.
    Field {
        /// Where they are.
        grid: Grid,
        /// Displacements, or positions.
        holds: &'static str,
        /// Whether its axes are turned against ours.
        is_turned: bool,
    },
}

/// Whether what is at `location` is a transform of another program, told by its content.
///
/// # Errors
/// [`Error`]: it is no transform, or one that does not say what it means.
pub fn is_foreign(location: &str) -> Result<bool, Error> {
    let source = detect::source_of(location)?;
    Ok(!matches!(source, Source::Json | Source::Field | Source::Bigstream))
}

/// Looks at the transform of another program at `location`.
///
/// # Errors
/// As [`super::transform`] where nothing is said of the source.
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
