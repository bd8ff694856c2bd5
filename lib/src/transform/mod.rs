//! Transforms on disk: chains as JSON after OME-NGFF's coordinate transformations, BigStream's 4x4
//! text, displacement fields and local affines as Zarr arrays.

use std::path::Path;

use crate::geom::Chain;

/// Why a transform could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a transform that we know, or not in the direction wanted.
    #[error("{location}: {message}")]
    Format {
        /// The file or array.
        location: String,
        /// What was found, what was wanted, the way out.
        message: String,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Its refusal.
        source: std::io::Error,
    },
    /// A volume's error.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
}

/// Reads one chain from several locations, in the order in which they are applied.
pub fn read_chain(_locations: &[String]) -> Result<Chain, Error> {
    todo!()
}

/// Writes a chain of affines as JSON, whole or not at all.
pub fn write_chain(_path: &Path, _chain: &Chain) -> Result<(), Error> {
    todo!()
}
