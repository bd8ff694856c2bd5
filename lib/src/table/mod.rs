//! Tables: spots, matches, points and block status as CSV with a header, written atomically.
//!
//! Columns are found by name, so extra columns are allowed. Numbers are written with the fewest
//! significant digits that read back as the same double.

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
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed: "read" or "write".
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The content is not a table of the wanted kind.
    #[error("{path}{}: {message}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Format {
        /// The file.
        path: String,
        /// The line, counted from 1, if known.
        line: Option<u64>,
        /// What was found and what was wanted.
        message: String,
    },
}

/// A keypoint: the centre of a blob.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    /// Physical position, micrometres, `[z, y, x]`.
    pub position: Point,
    /// Blob radius in micrometres.
    pub radius: f64,
    /// Response of the blob filter: the scale-normalised Laplacian or difference of Gaussians.
    pub response: f64,
    /// Intensity of the unfiltered image at the nearest voxel.
    pub intensity: f64,
}

/// A pair of corresponding points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// Position in the fixed volume, `[z, y, x]` micrometres.
    pub fixed: Point,
    /// Position in the moving volume, `[z, y, x]` micrometres.
    pub moving: Point,
    /// NCC of the contexts of the two points, -1 to 1; NaN if unknown.
    pub correlation: f64,
    /// Whether the residual under the fitted map is within the threshold.
    pub inlier: bool,
    /// Distance in micrometres between the mapped fixed point and the moving point.
    pub residual: f64,
}
