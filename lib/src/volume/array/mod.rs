//! Arrays of rank 1 to 6 with named axes. Volumes and fields are views of arrays.

pub(in crate::volume) mod block;
pub(in crate::volume) mod bounds;
pub(in crate::volume) mod cache;
pub(in crate::volume) mod calibration;
pub(in crate::volume) mod content;
pub(in crate::volume) mod dtype;
pub(in crate::volume) mod extent;
pub(in crate::volume) mod output;
pub(in crate::volume) mod small;
pub(in crate::volume) mod source;
pub(in crate::volume) mod voxel;
pub(in crate::volume) mod watch;
pub(in crate::volume) mod writer;

pub use output::{ArrayOutput, ArraySpec};

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use self::cache::Cache;
use self::source::{Scratch, Source, View};
use crate::geom::Point;
use crate::volume::bounds::{Bounds, RANK};
use crate::volume::calibration::Calibration;
use crate::volume::node::{Container, Node};
use crate::volume::open::{self, OpenedArray};
use crate::volume::watch::Watch;
use crate::volume::zarr::ZarrSource;
use crate::volume::{Dtype, Error, Format, Voxel, unfinished};

/// The name of the attribute that holds the index of the first element along each axis. The
/// attribute is absent if all indices are 0.
pub(in crate::volume) const FIRST: &str = "first";

/// The maximum number of elements of an array that [`Array::read_all`] reads.
const MAX_ELEMENTS: u64 = 1 << 27;
/// If an array has more elements than this, [`Array::read_all`] checks that its first and its last
/// chunk are stored before it allocates memory.
const MAX_UNBACKED_ELEMENTS: u64 = 1 << 16;

/// The meaning of an axis of an array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AxisName {
    /// Time points.
    T,
    /// Channels.
    C,
    /// Planes.
    Z,
    /// Rows.
    Y,
    /// Columns.
    X,
    /// The components of vectors, and quality channels after them.
    Component,
    /// Any other axis, with its name in the file.
    Other(String),
}

impl From<&str> for AxisName {
    fn from(name: &str) -> Self {
        match name {
            "t" | "time" => Self::T,
            "c" | "channel" => Self::C,
            "z" => Self::Z,
            "y" => Self::Y,
            "x" => Self::X,
            "component" => Self::Component,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for AxisName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::T => "t",
            Self::C => "c",
            Self::Z => "z",
            Self::Y => "y",
            Self::X => "x",
            Self::Component => "component",
            Self::Other(name) => name,
        })
    }
}

/// An axis of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The meaning of the axis.
    pub name: AxisName,
    /// The number of elements along it.
    pub size: usize,
    /// The index of the first element, which can be negative: element `i` of the file has the index
    /// `first + i`.
    pub first: i64,
}

impl Axis {
    /// An axis whose first element has the index 0.
    pub fn new(name: AxisName, size: usize) -> Self {
        Self { name, size, first: 0 }
    }
}

/// An array open for reading: named axes, slowest first, and elements of any type. Reads are
/// thread-safe and have no file position.
///
/// [`Volume`](crate::volume::Volume) and [`FieldFile`](crate::volume::FieldFile) are views of an
/// array: one channel and time point of it along z, y, x, or its vectors.
pub struct Array {
    pub(in crate::volume) location: String,
    pub(in crate::volume) source: Box<dyn Source>,
    pub(in crate::volume) names: Vec<String>,
    pub(in crate::volume) calibration: Calibration,
    pub(in crate::volume) path: PathBuf,
    pub(in crate::volume) format: Format,
    pub(in crate::volume) attributes: Map<String, Value>,
    pub(in crate::volume) notes: Vec<String>,
    pub(in crate::volume) cache: Cache,
    /// The fingerprint of the content; empty until it is computed for the first time.
    content: OnceLock<String>,
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = self.source.layout();
        write!(f, "Array({}, {:?} {})", self.location, layout.shape, layout.dtype)
    }
}

impl Array {
    /// Opens the array at `location` (see `docs/formats.md` for what a location can be).
    ///
    /// # Errors
    /// [`Error`] if there is no array of rank 1 to 6 at `location`, or the array is unfinished.
    pub fn open(location: &str) -> Result<Self, Error> {
        let mut array = Self::of(location, open::find(location)?);
        unfinished::check(location, &array.attributes)?;
        let rank = array.names.len();
        if let Some(names) = array.listed_names() {
            array.names = names;
        }
        if rank > RANK {
            let message = format!("has {rank} dimensions; arrays of 1 to {RANK} can be read");
            return Err(Error::format(location, message));
        }
        Ok(array)
    }

    /// Opens the Zarr array in the folder of `node`, with this `calibration`. Its axes are named by
    /// the metadata key `dimension_names`, or else `dimension 0` and so on.
    pub(in crate::volume) fn of_node(
        location: &str,
        node: Node,
        calibration: Calibration,
    ) -> Result<Self, Error> {
        let source = Box::new(ZarrSource::open(location, node.clone())?);
        let rank = source.layout().shape.len();
        let listed = node.metadata.get("dimension_names").and_then(Value::as_array);
        let names = (0..rank).map(|d| {
            let name = listed.and_then(|names| names.get(d)?.as_str());
            name.map_or_else(|| format!("dimension {d}"), str::to_owned)
        });
        let format = match node.container {
            Container::Zarr2 => Format::Zarr2,
            _ => Format::Zarr3,
        };
        let found = OpenedArray {
            source,
            names: names.collect(),
            calibration,
            path: node.path,
            format,
            attributes: node.attributes,
            notes: Vec::new(),
        };
        Ok(Self::of(location, found))
    }

    /// The array that `open::find` has found, with an empty cache of the default limit.
    pub(in crate::volume) fn of(location: &str, found: OpenedArray) -> Self {
        let OpenedArray { source, names, calibration, path, format, attributes, notes } = found;
        Self {
            location: location.to_owned(),
            source,
            names,
            calibration,
            path,
            format,
            attributes,
            notes,
            cache: Cache::new(cache::LIMIT),
            content: OnceLock::new(),
        }
    }

    /// The axis names in the attribute `axes`, which need not contain x and y; slowest first.
    /// `None` if the attribute is absent, or its length is not the number of axes.
    fn listed_names(&self) -> Option<Vec<String>> {
        let names: Vec<String> =
            serde_json::from_value(self.attributes.get("axes")?.clone()).ok()?;
        let names =
            if self.format == Format::N5 { names.into_iter().rev().collect() } else { names };
        Some(names).filter(|names| names.len() == self.names.len())
    }

    /// The location as given.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The axes, slowest first.
    pub fn axes(&self) -> Vec<Axis> {
        let (shape, first) = (&self.source.layout().shape, self.first());
        let axes = self.names.iter().zip(shape).zip(first);
        axes.map(|((name, size), first)| {
            let name = AxisName::from(name.as_str());
            Axis { name, size: *size as usize, first }
        })
        .collect()
    }

    /// The index of the first element along each axis.
    fn first(&self) -> Vec<i64> {
        let rank = self.names.len();
        let listed = self.attributes.get(FIRST).and_then(Value::as_array);
        let listed: Option<Vec<i64>> =
            listed.and_then(|list| list.iter().map(Value::as_i64).collect());
        if let Some(listed) = listed.filter(|listed| listed.len() == rank) {
            return listed;
        }
        let [z, y, x] = self.calibration.first.map(|v| v as i64);
        let of = |name: &String| match name.as_str() {
            "z" => z,
            "y" => y,
            "x" => x,
            _ => 0,
        };
        self.names.iter().map(of).collect()
    }

    /// The box of all elements. Along each axis, it begins at the index of the first element.
    pub fn bounds(&self) -> Bounds {
        let axes = self.axes();
        let end = |axis: &Axis| axis.first + axis.size as i64;
        Bounds { min: axes.iter().map(|a| a.first).collect(), max: axes.iter().map(end).collect() }
    }

    /// The type of the stored elements.
    pub fn dtype(&self) -> Dtype {
        self.source.layout().dtype
    }

    /// The chunk shape along the axes, the unit in which reading is most efficient.
    pub fn chunk(&self) -> Vec<usize> {
        self.source.layout().block.iter().map(|n| *n as usize).collect()
    }

    /// The distance between neighbouring elements along z, y, x in micrometres; `None` if the
    /// metadata do not state it.
    pub fn spacing(&self) -> Option<Point> {
        self.calibration.spacing
    }

    /// The centre of the first element along z, y, x in micrometres; `None` if the metadata do not
    /// state it.
    pub fn origin(&self) -> Option<Point> {
        match self.calibration.spacing {
            Some(spacing) => self.calibration.origin_for(spacing, false),
            None => self.calibration.origin,
        }
    }

    /// An attribute of the array.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name)
    }

    /// Reads the box `part` into `out`, in C order of the axes, converted to `T` (for integer
    /// types, values are rounded half away from zero and clamped). Elements outside the array read
    /// as `T::default()`.
    ///
    /// # Errors
    /// [`Error::Chunk`] for a corrupt chunk; [`Error::Io`]; [`Error::Format`] if `part` does not
    /// have the rank of the array, or `out` not the length of `part`. A missing chunk is no error
    /// and reads as the fill value.
    pub fn read_into<T: Voxel>(&self, part: &Bounds, out: &mut [T]) -> Result<(), Error> {
        let rank = self.names.len();
        if part.rank() != rank || rank > RANK || out.len() != part.len() {
            let message = format!(
                "has {rank} dimensions; the box {part} with {} elements was asked for",
                out.len()
            );
            return Err(Error::format(&self.location, message));
        }
        let back: Vec<i64> = self.first().iter().map(|v| -v).collect();
        let axes = std::array::from_fn(|a| (a + rank).checked_sub(RANK));
        let view = View::<RANK> { axes, fixed: vec![0; rank] };
        let part = part.shift(&back).padded();
        source::read(&*self.source, &self.cache, &view, part, out)
    }

    /// As [`Array::read_into`], into a new vector.
    ///
    /// # Errors
    /// As [`Array::read_into`].
    pub fn read<T: Voxel>(&self, part: &Bounds) -> Result<Vec<T>, Error> {
        let mut out = vec![T::default(); part.len()];
        self.read_into(part, &mut out)?;
        Ok(out)
    }

    /// Reads the whole array, and returns its shape and its elements in C order. For more than 2^16
    /// elements, it checks that the first and the last chunk are stored before it allocates memory.
    ///
    /// # Errors
    /// As [`Array::read_into`], and [`Error::Format`] for an array of more than 2^27 elements, or
    /// of more than 2^16 elements whose first or last chunk is missing.
    pub(in crate::volume) fn read_all<T: Voxel>(&self) -> Result<(Vec<u64>, Vec<T>), Error> {
        let shape = self.source.layout().shape.clone();
        let count = shape.iter().fold(1u64, |product, n| product.saturating_mul(*n));
        if count > MAX_ELEMENTS {
            let message = format!("has {count} elements; up to {MAX_ELEMENTS} are read at once");
            return Err(Error::format(&self.location, message));
        }
        if count > MAX_UNBACKED_ELEMENTS {
            self.check_backing()?;
        }
        Ok((shape, self.read(&self.bounds())?))
    }

    /// Returns an error if the first or the last chunk is not stored, because the metadata may then
    /// state a shape that is too large.
    fn check_backing(&self) -> Result<(), Error> {
        let layout = self.source.layout();
        let chunks = layout.shape.iter().zip(&layout.block);
        let last: Vec<u64> = chunks.map(|(n, block)| n.div_ceil(*block) - 1).collect();
        for index in [vec![0; last.len()], last] {
            let one: Vec<_> = index.iter().map(|_| 0..1).collect();
            if self.source.load(&index, &one, &mut Scratch::default())?.is_none() {
                let shape = &layout.shape;
                let message = format!(
                    "says that it has the shape {shape:?}, and chunk {index:?} is not there; copy it \
                     again"
                );
                return Err(Error::format(&self.location, message));
            }
        }
        Ok(())
    }

    /// Caches up to `bytes` of decoded chunks from now on, instead of 64 MiB; 0 disables caching.
    pub fn keep(&self, bytes: u64) {
        self.cache.keep(bytes);
    }

    /// Bytes of decoded chunks that further reading can add to the cache.
    pub fn kept_bytes(&self) -> u64 {
        source::kept_bytes(&*self.source, &self.cache)
    }

    /// Bytes that each thread holds while it reads.
    pub fn scratch_bytes(&self) -> u64 {
        source::scratch_bytes(&*self.source)
    }

    /// The fingerprint of the content; the location is not part of it.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read.
    pub fn fingerprint(&self) -> Result<String, Error> {
        if let Some(content) = self.content.get() {
            return Ok(content.clone());
        }
        let content = self.source.stored().fingerprint()?;
        Ok(self.content.get_or_init(|| content).clone())
    }

    /// Returns a watch with which the caller can check later whether the array still exists and is
    /// unchanged. Call this before reading.
    pub fn watch(&self) -> Arc<Watch> {
        Watch::of(&self.location, &self.path, &*self.source)
    }
}
