//! Volumes on disk: open, create, read a box, write a box.
//!
//! Zarr v3 and v2 with OME-Zarr 0.5 and 0.4 metadata, N5, TIFF and image stacks, `.npy`. Whatever
//! the format says in another order or unit is turned here: outside this module axes are z, y, x
//! and lengths micrometres.

use std::path::PathBuf;

use crate::geom::{Grid, Point};

mod dtype;
pub use dtype::{Dtype, Voxel};

/// Why a volume could not be opened, read or written.
///
/// Each message names the location, what was found, what was wanted and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is there.
    #[error("{location}: not found; {hint}")]
    NotFound {
        /// The location as given.
        location: String,
        /// What to look at.
        hint: String,
    },
    /// It is there and is not what was wanted.
    #[error("{location}: {message}")]
    Format {
        /// The location as given.
        location: String,
        /// What was found, what was wanted, the way out.
        message: String,
    },
    /// A stored chunk is damaged.
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
    /// The output is there already.
    #[error(
        "{location} exists already; give --resume to go on with it or --overwrite to replace it"
    )]
    Exists {
        /// The location as given.
        location: String,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The file.
        path: String,
        /// Its refusal.
        source: std::io::Error,
    },
}

/// Which 3-D volume of a location is meant, and what overrides its metadata.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Channel, where there are several.
    pub channel: Option<usize>,
    /// Time point, where there are several.
    pub time: Option<usize>,
    /// `--spacing`, micrometres.
    pub spacing: Option<Point>,
    /// `--origin`, micrometres.
    pub origin: Option<Point>,
}

/// What to do where the output exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Stop with [`Error::Exists`].
    #[default]
    Refuse,
    /// Go on with it, after checking that it is the same kind of thing.
    Resume,
    /// Delete it and start anew.
    Overwrite,
}

/// A format that volumes are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Zarr v3 with OME-Zarr 0.5.
    #[default]
    Zarr3,
    /// Zarr v2 with OME-Zarr 0.4.
    Zarr2,
    /// N5.
    N5,
    /// One TIFF file, a page per plane (BigTIFF where needed).
    Tiff,
    /// One NumPy `.npy` file (no metadata: spacing goes to the receipt).
    Npy,
}

/// How chunks are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// The default: blosc, zstd level 1, byte shuffle (N5: zstd).
    #[default]
    Blosc,
    /// Bytes as they are.
    Raw,
    /// gzip.
    Gzip,
    /// Zstandard alone.
    Zstd,
    /// blosc with lz4.
    Lz4,
}

/// What a volume to be written is like.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Shape, spacing, origin.
    pub grid: Grid,
    /// Element type.
    pub dtype: Dtype,
    /// Chunk shape (of the inner chunks where sharded).
    pub chunk: [usize; 3],
    /// Shard shape, a multiple of `chunk` (Zarr v3 only).
    pub shard: Option<[usize; 3]>,
    /// How chunks are stored.
    pub codec: Codec,
    /// The format.
    pub format: Format,
}

/// A volume open for reading. Reading is thread-safe and positionless.
pub struct Volume {
    location: String,
    grid: Grid,
    dtype: Dtype,
    chunk: [usize; 3],
}

impl Volume {
    /// Opens the volume at `location` (see `docs/formats.md` for what a location can be).
    ///
    /// # Errors
    /// [`Error`]: nothing there, no volume, several channels and none chosen, no voxel size.
    pub fn open(_location: &str, _select: &Select) -> Result<Self, Error> {
        todo!()
    }

    /// The location as it was given.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Shape, spacing (micrometres), origin.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The unit in which it is best read: the chunk.
    pub fn chunk(&self) -> [usize; 3] {
        self.chunk
    }

    /// Reads a box into `out`, C order `(z, y, x)`, converted to `T` (integers rounded half away
    /// from zero and clamped). What lies outside the volume reads as `T::default()`.
    ///
    /// # Errors
    /// [`Error::Chunk`] for a damaged chunk, [`Error::Io`]. A missing chunk is the fill value.
    pub fn read_into<T: Voxel>(
        &self,
        _part: &crate::geom::Box3,
        _out: &mut [T],
    ) -> Result<(), Error> {
        todo!()
    }

    /// [`Volume::read_into`] a fresh vector.
    pub fn read<T: Voxel>(&self, part: &crate::geom::Box3) -> Result<Vec<T>, Error> {
        let mut out = vec![T::default(); part.len()];
        self.read_into(part, &mut out)?;
        Ok(out)
    }
}

/// A volume open for writing. Chunks are written whole, each under a temporary name that is then
/// renamed; a box to be written is a union of whole chunks (shards), cut at the volume's end.
pub struct Output {
    location: String,
}

impl Output {
    /// Creates the volume at `location`.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`], or a `spec` that the format cannot hold.
    pub fn create(_location: &str, _spec: &Spec, _existing: Existing) -> Result<Self, Error> {
        todo!()
    }

    /// The location as it was given.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The shape of what is written at once: a task's core is a multiple of it.
    pub fn unit(&self) -> [usize; 3] {
        todo!()
    }

    /// Writes a box of whole chunks, C order `(z, y, x)`. `T` must be the volume's type.
    pub fn write<T: Voxel>(&self, _part: &crate::geom::Box3, _voxels: &[T]) -> Result<(), Error> {
        todo!()
    }

    /// A folder beside the data, inside the container where it is a folder, for ledgers.
    pub fn ledger_folder(&self) -> PathBuf {
        todo!()
    }

    /// Sets an attribute of the array (JSON), replacing one of that name.
    pub fn set_attribute(&self, _name: &str, _value: serde_json::Value) -> Result<(), Error> {
        todo!()
    }
}
