//! Volumes on disk: open, create, read a box, write a box.
//!
//! Formats: Zarr v3 and v2 with OME-Zarr 0.5 and 0.4 metadata, N5, TIFF and image stacks, `.npy`.
//! Axis orders and units of the files are converted here: outside this module, volumes have the
//! axes z, y, x, and lengths are in micrometres.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::geom::{Grid, Point};
use crate::quote::shorten;
use crate::store;

mod array;
mod chunk_search;
mod field;
mod formats;
mod masks;
mod named;
mod ngff;
mod node;
mod open;
mod output;
mod output_paths;
mod planes;
mod pyramid;
mod reader;
mod stack;
#[cfg(test)]
mod tests;
mod unfinished;
mod vectors;

use array::{
    block, bounds, cache, calibration, content, dtype, extent, small, source, voxel, watch, writer,
};
use formats::{bits, codecs, flat, n5, npy, png, sections, tiff, zarr};
use ngff::{conventions, ome};

pub use array::{Array, ArrayOutput, ArraySpec, Axis, AxisName};
pub use bounds::Bounds;
pub use content::fingerprint;
pub use dtype::{ByteOrder, Dtype};
pub use field::{FieldFile, FieldOutput, FieldParts, THROUGH};
pub(crate) use masks::cut_out;
pub use masks::{Label, Masks};
pub use named::{check_name, check_zarr_name, other_format};
pub use node::{attributes, is_folder_on_the_web};
pub use output::Output;
pub use planes::{PLANE_FILE_PREFIXES, is_partial_file};
pub use pyramid::{Level, add_level, levels};
pub use reader::Volume;
pub use sections::{ImageRow, ImageTable, is_sections, members, read_images};
pub use small::{read_small_array, write_small_array};
pub use unfinished::{Begin, Unfinished, allow_unfinished};
pub use vectors::{FlatVectors, VectorArray};
pub use voxel::Voxel;
#[doc(hidden)]
pub use voxel::halves;
pub use watch::{Watch, watch};

/// Why a volume could not be opened, read or written.
///
/// Each message names the location, what was found, what was expected, and how to proceed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing exists at the location.
    #[error("{location}: not found; {hint}")]
    NotFound {
        /// The location as given.
        location: String,
        /// A suggestion of what to check.
        hint: String,
    },
    /// The location exists but does not hold what was expected.
    #[error("{location}: {message}")]
    Format {
        /// The location as given.
        location: String,
        /// What was found, what was expected, and how to proceed.
        message: String,
    },
    /// A stored chunk is corrupt.
    #[error("{location}: chunk {chunk} ({file}) is damaged: {message}")]
    Chunk {
        /// The location as given.
        location: String,
        /// The chunk's index.
        chunk: String,
        /// The file that holds it.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// The output exists already.
    #[error(
        "{location} exists already; give --resume to go on with it or --overwrite to replace it"
    )]
    Exists {
        /// The location as given.
        location: String,
    },
    /// Another run has claimed the output.
    #[error("{0}")]
    Claimed(String),
    /// The operating system reported an I/O error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The attempted action, a verb such as "read", "write" or "create".
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The underlying error.
        source: std::io::Error,
    },
}

impl Error {
    fn format(location: impl Display, message: impl Into<String>) -> Self {
        Self::Format { location: location.to_string(), message: message.into() }
    }

    fn missing(location: impl Display, hint: impl Into<String>) -> Self {
        Self::NotFound { location: location.to_string(), hint: hint.into() }
    }

    fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { action, path: path.as_ref().display().to_string(), source }
    }

    fn damaged(location: &str, chunk: &[u64], file: &Path, message: impl Into<String>) -> Self {
        let chunk: Vec<String> = chunk.iter().map(u64::to_string).collect();
        Self::Chunk {
            location: location.to_owned(),
            chunk: chunk.join(","),
            file: file.display().to_string(),
            message: message.into(),
        }
    }

    /// The error for an unsupported element type.
    fn dtype(location: &str, found: &serde_json::Value) -> Self {
        let found = shorten(&found.to_string());
        Self::format(location, format!("has elements of type {found}; {READABLE} can be read"))
    }
}

/// Parses a location, which is a local path or an address that [`store`] supports, such as
/// `s3://bucket/key`.
fn path_of(location: &str) -> Result<PathBuf, Error> {
    store::parse(location).map_err(|message| Error::format(location, message))
}

/// The element types that can be read.
const READABLE: &str = "integers of 8 to 64 bits, bool, float16, bfloat16, float32 and float64";

/// Selects one 3-D volume at a location, and overrides its metadata.
///
/// ```
/// use voxloom::volume::{Select, Volume};
///
/// // the third channel of an image, whose voxel size is not in its metadata
/// let select = Select { channel: Some(2), spacing: Some([1.0, 0.2, 0.2]), ..Select::default() };
/// assert!(Volume::open("nowhere.ome.tif", &select).is_err());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// `--image`: the image of a file that holds several, by number (from 0), name or `ID`.
    pub image: Option<String>,
    /// Channel index, from 0; required if there are several channels.
    pub channel: Option<usize>,
    /// Index of the time point, from 0; required if there are several time points.
    pub time: Option<usize>,
    /// `--spacing` along z, y, x, micrometres; NaN along z for a single plane without thickness.
    pub spacing: Option<Point>,
    /// `--origin` along z, y, x, micrometres.
    pub origin: Option<Point>,
    /// The prefix of these flags in a program that reads two volumes, `fixed-` or `moving-`, for
    /// messages.
    pub prefix: &'static str,
}

impl Select {
    /// The names of the flags that are given.
    #[must_use]
    pub fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("image", self.image.is_some()),
            ("channel", self.channel.is_some()),
            ("time", self.time.is_some()),
            ("spacing", self.spacing.is_some()),
            ("origin", self.origin.is_some()),
        ];
        flags.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

/// What to do if the output exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Stop with [`Error::Exists`].
    #[default]
    Refuse,
    /// Resume it, after checking that its metadata and grid are those of the new output.
    Resume,
    /// Delete it and start over.
    Overwrite,
}

/// The file formats that volumes are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Format {
    /// Zarr v3 with OME-Zarr 0.5.
    #[default]
    Zarr3,
    /// Zarr v2 with OME-Zarr 0.4.
    Zarr2,
    /// N5.
    N5,
    /// One TIFF file, one page per plane (`BigTIFF` where needed).
    Tiff,
    /// One NumPy `.npy` file (no metadata: spacing goes to the receipt).
    Npy,
}

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Codec {
    /// The default: blosc, zstd level 1, byte shuffle (N5: zstd).
    #[default]
    Blosc,
    /// Uncompressed.
    Raw,
    /// gzip.
    Gzip,
    /// Zstandard without blosc.
    Zstd,
    /// blosc with lz4.
    Lz4,
}

/// The properties of a volume to be written.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Spec {
    /// Shape, spacing and origin along z, y, x.
    pub grid: Grid,
    /// Element type.
    pub dtype: Dtype,
    /// Chunk shape (z, y, x); with shards, the shape of the inner chunks.
    pub chunk: [usize; 3],
    /// Shard shape (z, y, x), a multiple of `chunk` (Zarr v3 only).
    pub shard: Option<[usize; 3]>,
    /// How chunks are compressed.
    pub codec: Codec,
    /// The format.
    pub format: Format,
}

/// Bytes that the encoder of one thread holds besides chunks. Without this term, `downsample` with
/// three threads and chunks of 32 voxels a side used 2.3 MB more than its memory plan; this
/// term is about a third of that.
const ENCODER: u64 = 768 << 10;

/// The number of units of an array that one thread writes at once: several in a bucket, where each
/// takes a request.
fn writes_at_once(location: &Path) -> usize {
    if store::is_remote(location) { store::IN_FLIGHT / 2 } else { 1 }
}

impl Spec {
    /// Bytes that each thread holds while it writes to `location`: one unit (a chunk, shard or
    /// plane), or several units in a bucket, in up to three forms: as voxels, as stored bytes, and
    /// in the encoder's working buffer.
    pub fn writing_bytes(&self, location: &str) -> u64 {
        let plane = matches!(self.format, Format::Tiff | Format::Npy);
        let unit = if plane {
            [1, self.grid.shape[1], self.grid.shape[2]]
        } else {
            self.shard.unwrap_or(self.chunk)
        };
        let voxels = unit.iter().fold(1, |product: u64, n| product.saturating_mul(*n as u64));
        let (forms, tables) = match (plane, self.codec) {
            (true, _) => (1, 0),
            (false, Codec::Raw) => (2, 0),
            (false, _) => (3, ENCODER),
        };
        let one = voxels.saturating_mul(forms * self.dtype.size() as u64).saturating_add(tables);
        one.saturating_mul(writes_at_once(Path::new(location)) as u64)
    }
}
