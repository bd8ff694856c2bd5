//! Rows on disk: spots, matches and block status as CSV with a header, written whole or not at all.
//!
//! Columns are found by name, so extra columns pass through reading unharmed. Numbers are written as
//! the shortest text that reads back as the same double.

use crate::geom::Point;

mod block_rows;
mod matches;
mod points;
mod rows;
mod spots;

pub use block_rows::{BlockRow, Status, read_blocks, write_blocks};
pub use matches::{read_matches, write_matches};
pub use points::{Points, read_points, write_points};
pub use rows::{Table, number};
pub use spots::{read_spots, write_spots};

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried: "read", "write".
        action: &'static str,
        /// The file.
        path: String,
        /// Its refusal.
        source: std::io::Error,
    },
    /// The text is not such a table.
    #[error("{path}{}: {message}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Format {
        /// The file.
        path: String,
        /// The line, counted from 1, where it is known.
        line: Option<u64>,
        /// What was found and what was wanted.
        message: String,
    },
}

/// A key point: the centre of a blob.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    /// Physical position, micrometres, `[z, y, x]`.
    pub position: Point,
    /// Blob radius in micrometres.
    pub radius: f64,
    /// Scale-normalised filter response.
    pub response: f64,
    /// Intensity of the unfiltered image at the nearest voxel.
    pub intensity: f64,
}

/// A pair of points that show the same thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// In the fixed volume, micrometres.
    pub fixed: Point,
    /// In the moving volume, micrometres.
    pub moving: Point,
    /// Correlation of the two neighbourhoods, -1 to 1.
    pub correlation: f64,
    /// Whether the fitted map takes one to the other within the threshold.
    pub inlier: bool,
    /// Distance in micrometres between the mapped fixed point and the moving point.
    pub residual: f64,
}
