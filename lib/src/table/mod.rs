//! Rows on disk: spots, matches and block status as CSV with a header, written whole or not at all.
//!
//! Columns are found by name, so extra columns pass through reading unharmed.

use std::path::Path;

use crate::geom::Point;

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

/// Columns: `z_um,y_um,x_um,radius_um,response,intensity`.
pub fn write_spots(_path: &Path, _spots: &[Spot]) -> Result<(), Error> {
    todo!()
}

/// Reads what [`write_spots`] wrote; only the three positions must be there.
pub fn read_spots(_path: &Path) -> Result<Vec<Spot>, Error> {
    todo!()
}

/// Columns: `fixed_z_um,..,moving_x_um,correlation,inlier,residual_um`.
pub fn write_matches(_path: &Path, _matches: &[Match]) -> Result<(), Error> {
    todo!()
}

/// Reads what [`write_matches`] wrote.
pub fn read_matches(_path: &Path) -> Result<Vec<Match>, Error> {
    todo!()
}
