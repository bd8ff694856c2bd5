//! Divides boxes into units that are stored as a whole: chunks, shards, blocks, planes.

use std::cell::RefCell;
use std::path::PathBuf;

use serde_json::Value;

use super::dtype::ByteOrder;
use super::n5::N5Array;
use super::node::{Container, Node};
use super::planes::PlaneFile;
use super::zarr::{self, ZarrSink};
use super::{Dtype, Error, Voxel, content, writes_at_once};
use crate::device::Permits;
use crate::geom::Box3;
use crate::store;

/// The destination of whole units.
enum Sink {
    Zarr(Box<ZarrSink>),
    N5(Box<N5Array>),
    Planes(PlaneFile),
}

thread_local! {
    static UNIT: RefCell<Vec<u8>> = RefCell::default();
}

/// What an array holds at each position (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// One element.
    Voxel,
    /// Several elements, in a dimension before z.
    Channel,
    /// The three components of a vector, in a dimension after x.
    Vector,
}

impl Each {
    /// The number of interleaved elements at a position.
    fn components(self) -> usize {
        if self == Self::Vector { 3 } else { 1 }
    }
}

/// The first number of a list, 1 if there is none.
fn first_of(list: Option<&Value>) -> usize {
    list.and_then(|list| list.get(0)?.as_u64()).map_or(1, |n| n as usize)
}

/// Divides boxes into units and stores them.
pub(super) struct Writer {
    location: String,
    shape: [usize; 3],
    unit: [usize; 3],
    each: Each,
    channels: usize,
    /// Whether the array has no z dimension.
    planar: bool,
    dtype: Dtype,
    sink: Sink,
}

impl Writer {
    /// A writer for an array `(z, y, x)`, `(c, z, y, x)` or `(z, y, x, components)`, or `(y, x)` or
    /// `(c, y, x)` without z.
    pub(super) fn open(location: &str, node: &Node, each: Each) -> Result<Self, Error> {
        let first = usize::from(each == Each::Channel);
        let metadata = &node.metadata;
        let rank = metadata.get("shape").or(metadata.get("dimensions")).and_then(Value::as_array);
        let rank = rank.map_or(0, Vec::len);
        let planar = each != Each::Vector && rank == first + 2;
        let sizes = |value: Option<&Value>| -> Option<[usize; 3]> {
            let list: Option<Vec<usize>> =
                value?.as_array()?.iter().map(|n| Some(n.as_u64()? as usize)).collect();
            let mut list = list?;
            if planar {
                // N5 lists x first
                list.insert(if node.container == Container::N5 { list.len() } else { first }, 1);
            }
            list.get(first..first + 3)?.try_into().ok()
        };
        let (shape, unit, dtype, sink) = if node.container == Container::N5 {
            let array = N5Array::open(location, node)?;
            let reversed = |key| sizes(metadata.get(key)).map(|[x, y, z]| [z, y, x]);
            let dtype = super::source::Source::layout(&array).dtype;
            (reversed("dimensions"), reversed("blockSize"), dtype, Sink::N5(Box::new(array)))
        } else {
            let dtype = zarr::dtype(location, node)?;
            let grid = metadata.get("chunk_grid").and_then(|grid| grid.get("configuration"));
            let unit = grid.and_then(|grid| grid.get("chunk_shape")).or(metadata.get("chunks"));
            let sink = Sink::Zarr(Box::new(ZarrSink::open(location, node)?));
            (sizes(metadata.get("shape")), sizes(unit), dtype, sink)
        };
        let fits = planar || rank == 3 + usize::from(each != Each::Voxel);
        let (Some(shape), Some(unit), true) = (shape, unit, fits) else {
            let message = format!("has {rank} dimensions; only z, y, x can be written");
            return Err(Error::format(location, message));
        };
        let channels = if first == 1 { first_of(metadata.get("shape")) } else { 1 };
        Ok(Self { location: location.to_owned(), shape, unit, each, channels, planar, dtype, sink })
    }

    /// A writer for a file of planes, shape `(z, y, x)`.
    pub(super) fn planes(location: &str, shape: [usize; 3], dtype: Dtype, file: PlaneFile) -> Self {
        let (unit, sink) = ([1, shape[1], shape[2]], Sink::Planes(file));
        let (location, each) = (location.to_owned(), Each::Voxel);
        Self { location, shape, unit, each, channels: 1, planar: false, dtype, sink }
    }

    /// Gives a file of planes its final name although planes are missing.
    pub(super) fn name(&self) -> Result<(), Error> {
        match &self.sink {
            Sink::Planes(file) => file.name(),
            _ => Ok(()),
        }
    }

    /// The shape (z, y, x) of a unit.
    pub(super) fn unit(&self) -> [usize; 3] {
        self.unit
    }

    /// The number of existing files for the units of a box.
    pub(super) fn stored(&self, part: &Box3) -> Result<u64, Error> {
        if matches!(self.sink, Sink::Planes(_)) {
            return Ok(0);
        }
        let tiles = part.tiles(self.unit);
        let paths: Vec<_> = tiles
            .flat_map(|tile| (0..self.channels).map(move |channel| self.file(channel, &tile)))
            .collect();
        let lengths = store::each(&paths, content::length).into_iter();
        lengths.map(|length| Ok(u64::from(length?.is_some()))).sum()
    }

    /// The index of a unit in the chunk grid, in the array's dimensions.
    fn index(&self, channel: usize, tile: &Box3) -> Vec<u64> {
        let place = (usize::from(self.planar)..3).map(|a| tile.min[a] as u64 / self.unit[a] as u64);
        match self.each {
            Each::Voxel => place.collect(),
            Each::Channel => std::iter::once(channel as u64).chain(place).collect(),
            Each::Vector => place.chain([0]).collect(),
        }
    }

    /// The file of a unit; for planes, the folder of the file that holds them all.
    fn file(&self, channel: usize, tile: &Box3) -> PathBuf {
        let index = self.index(channel, tile);
        match &self.sink {
            Sink::Zarr(array) => array.file(&index),
            Sink::N5(array) => array.file(&index),
            Sink::Planes(file) => file.folder().to_owned(),
        }
    }

    /// Checks that a box is made of whole units and that `voxels` has its size and type.
    pub(super) fn check<T: Voxel>(&self, part: &Box3, voxels: &[T]) -> Result<(), Error> {
        let bad = |message: String| Err(Error::format(&self.location, message));
        if T::DTYPE != self.dtype {
            return bad(format!("holds {}, cannot take {}", self.dtype, T::DTYPE));
        }
        if voxels.len() != part.len() * self.each.components() {
            return bad(format!("cannot take {} elements for the box {part}", voxels.len()));
        }
        let whole = (0..3).all(|a| {
            let (unit, end) = (self.unit[a] as i64, self.shape[a] as i64);
            part.min[a] >= 0
                && part.min[a] % unit == 0
                && part.max[a] <= end
                && (part.max[a] % unit == 0 || part.max[a] == end)
        });
        if !whole {
            return bad(format!("cannot take the box {part}: whole units are {:?}", self.unit));
        }
        Ok(())
    }

    /// Stores the units of a box that passed [`Writer::check`].
    pub(super) fn write<T: Voxel>(
        &self,
        channel: usize,
        part: &Box3,
        voxels: &[T],
    ) -> Result<(), Error> {
        let store = |tile: &Box3| {
            let mut bytes = UNIT.take();
            let result = self.store(channel, part, voxels, tile, &mut bytes);
            UNIT.set(bytes);
            result
        };
        let tiles: Vec<_> = part.tiles(self.unit).collect();
        if self.at_once() > 1 && tiles.len() > 1 {
            // each thread that encodes takes a permit, while this one waits without its own
            let permits = Permits::of_thread();
            store::concurrently(&tiles, self.at_once(), |tile| match &permits {
                Some(permits) => permits.with(1, || store(tile)),
                None => store(tile),
            })
            .into_iter()
            .collect::<Result<(), _>>()?;
        } else {
            tiles.iter().try_for_each(store)?;
        }
        match &self.sink {
            Sink::Planes(file) => file.enter(part.min[0], part.max[0]),
            _ => Ok(()),
        }
    }

    /// The number of units to write at once.
    fn at_once(&self) -> usize {
        match &self.sink {
            Sink::Zarr(array) => writes_at_once(array.path()),
            Sink::N5(array) => writes_at_once(array.path()),
            Sink::Planes(_) => 1,
        }
    }

    /// Stores the unit at `tile`; `bytes` is a buffer.
    fn store<T: Voxel>(
        &self,
        channel: usize,
        part: &Box3,
        voxels: &[T],
        tile: &Box3,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let first = usize::from(self.planar);
        let index = self.index(channel, tile);
        match &self.sink {
            Sink::N5(array) => {
                self.gather(part, voxels, tile, None, ByteOrder::Big, bytes);
                array.store(&index, &tile.shape().map(|n| n as u64)[first..], bytes)
            }
            Sink::Zarr(array) => {
                let padded = Some(self.unit);
                self.gather(part, voxels, tile, padded, ByteOrder::NATIVE, bytes);
                array.store(&index, bytes)
            }
            Sink::Planes(file) => {
                self.gather(part, voxels, tile, None, ByteOrder::Little, bytes);
                file.store(tile.min[0] as u64, bytes)
            }
        }
    }

    /// Copies the elements of a tile to `bytes`, padded with zeros to the shape `padded`.
    fn gather<T: Voxel>(
        &self,
        part: &Box3,
        voxels: &[T],
        tile: &Box3,
        padded: Option<[usize; 3]>,
        order: ByteOrder,
        bytes: &mut Vec<u8>,
    ) {
        let components = self.each.components();
        let size = size_of::<T>() * components;
        let [depth, height, width] = tile.shape();
        let [unit_depth, unit_height, unit_width] = padded.unwrap_or(tile.shape());
        let [_, rows, columns] = part.shape();
        let start: [usize; 3] = std::array::from_fn(|a| (tile.min[a] - part.min[a]) as usize);
        bytes.clear();
        for z in 0..depth {
            for y in 0..height {
                let row = ((start[0] + z) * rows + start[1] + y) * columns + start[2];
                let row = row * components;
                T::put(&voxels[row..row + width * components], order, bytes);
                bytes.resize(bytes.len() + (unit_width - width) * size, 0);
            }
            bytes.resize(bytes.len() + (unit_height - height) * unit_width * size, 0);
        }
        bytes.resize(unit_depth * unit_height * unit_width * size, 0);
    }
}
