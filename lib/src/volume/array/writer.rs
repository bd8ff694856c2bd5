//! Divides boxes into units that are stored as a whole: chunks, shards, blocks, planes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::device::Permits;
use crate::store;
use crate::volume::bounds::{Bounds, BoxN, RANK};
use crate::volume::dtype::ByteOrder;
use crate::volume::n5::N5Array;
use crate::volume::node::{Container, Node};
use crate::volume::planes::PlaneFile;
use crate::volume::source::Source;
use crate::volume::zarr::{self, ZarrSink};
use crate::volume::{Dtype, Error, Voxel, content, writes_at_once};
use crate::with_element;

/// The destination of whole units.
enum Sink {
    Zarr(Box<ZarrSink>),
    N5(Box<N5Array>),
    Planes(PlaneFile),
}

thread_local! {
    static UNIT: RefCell<Vec<u8>> = RefCell::default();
}

/// Divides boxes of an array of rank 1 to 6 into units, and stores the units. Positions are indices
/// along the axes of the array, slowest first, and begin at 0.
pub(in crate::volume) struct Writer {
    location: String,
    shape: Vec<usize>,
    unit: Vec<usize>,
    dtype: Dtype,
    sink: Sink,
    /// Whether each unit that this process has written has a file. [`Writer::stored`] removes the
    /// units that it queries.
    recent: Mutex<HashMap<Vec<u64>, bool>>,
}

/// Maximum number of units in [`Writer::recent`].
const MAX_RECENT: usize = 1 << 16;

/// The sizes in a JSON list of the metadata; `None` if it is not a list of unsigned integers.
fn sizes(list: Option<&Value>) -> Option<Vec<usize>> {
    list?.as_array()?.iter().map(|n| Some(n.as_u64()? as usize)).collect()
}

impl Writer {
    /// A writer for the array in a folder.
    pub(in crate::volume) fn open(location: &str, node: &Node) -> Result<Self, Error> {
        let metadata = &node.metadata;
        let (shape, unit, dtype, sink) = if node.container == Container::N5 {
            let array = N5Array::open(location, node)?;
            let layout = array.layout();
            let whole = |sizes: &[u64]| Some(sizes.iter().map(|n| *n as usize).collect());
            let (shape, block) = (whole(&layout.shape), whole(&layout.block));
            (shape, block, layout.dtype, Sink::N5(Box::new(array)))
        } else {
            let dtype = zarr::dtype(location, node)?;
            let grid = metadata.get("chunk_grid").and_then(|grid| grid.get("configuration"));
            let unit = grid.and_then(|grid| grid.get("chunk_shape")).or(metadata.get("chunks"));
            let sink = Sink::Zarr(Box::new(ZarrSink::open(location, node)?));
            (sizes(metadata.get("shape")), sizes(unit), dtype, sink)
        };
        let same = |unit: &Vec<usize>, shape: &Vec<usize>| {
            (1..=RANK).contains(&shape.len()) && unit.len() == shape.len() && !unit.contains(&0)
        };
        let (Some(shape), Some(unit)) = (shape, unit) else {
            return Err(Error::format(location, "has no lists of sizes in its metadata"));
        };
        if !same(&unit, &shape) {
            let message =
                format!("has the shape {shape:?}; arrays of 1 to {RANK} dimensions can be written");
            return Err(Error::format(location, message));
        }
        let (location, recent) = (location.to_owned(), Mutex::default());
        Ok(Self { location, shape, unit, dtype, sink, recent })
    }

    /// A writer for a TIFF or `.npy` file, which is written plane by plane; `shape` is `(z, y, x)`.
    pub(in crate::volume) fn planes(
        location: &str,
        shape: [usize; 3],
        dtype: Dtype,
        file: PlaneFile,
    ) -> Self {
        let (unit, sink) = (vec![1, shape[1], shape[2]], Sink::Planes(file));
        let (location, recent) = (location.to_owned(), Mutex::default());
        Self { location, shape: shape.to_vec(), unit, dtype, sink, recent }
    }

    /// Renames an incomplete TIFF or `.npy` file to its final name; missing planes read as 0. Does
    /// nothing for chunked arrays.
    pub(in crate::volume) fn name(&self) -> Result<(), Error> {
        match &self.sink {
            Sink::Planes(file) => file.name(),
            _ => Ok(()),
        }
    }

    /// The size of the array along each axis.
    pub(in crate::volume) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The size of a unit along each axis.
    pub(in crate::volume) fn unit(&self) -> &[usize] {
        &self.unit
    }

    /// The number of existing files for the units of a box; 0 for planes.
    pub(in crate::volume) fn stored(&self, part: &Bounds) -> Result<u64, Error> {
        if matches!(self.sink, Sink::Planes(_)) {
            return Ok(0);
        }
        let (mut known, mut others) = (0, Vec::new());
        {
            // a query of a file in a bucket takes a request: skip it for recently written units
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            for index in self.units(part).map(|tile| self.index(&tile)) {
                match recent.remove(&index) {
                    Some(is_stored) => known += u64::from(is_stored),
                    None => others.push(self.file(&index)),
                }
            }
        }
        let lengths = store::each(&others, content::length).into_iter();
        let others: u64 =
            lengths.map(|length| Ok(u64::from(length?.is_some()))).sum::<Result<_, Error>>()?;
        Ok(known + others)
    }

    /// The files for the units of a box; empty for planes.
    pub(in crate::volume) fn files(&self, part: &Bounds) -> Vec<PathBuf> {
        if matches!(self.sink, Sink::Planes(_)) {
            return Vec::new();
        }
        self.units(part).map(|tile| self.file(&self.index(&tile))).collect()
    }

    /// The size of a unit, padded to the maximum rank with leading axes of one element.
    fn padded_unit(&self) -> [usize; RANK] {
        let mut unit = [1; RANK];
        unit[RANK - self.unit.len()..].copy_from_slice(&self.unit);
        unit
    }

    /// The units of a box, in C order; those at the array's end are clipped.
    fn units(&self, part: &Bounds) -> impl Iterator<Item = BoxN<RANK>> + use<> {
        let (part, unit): (BoxN<RANK>, _) = (part.padded(), self.padded_unit().map(|n| n as i64));
        let counts: [usize; RANK] =
            std::array::from_fn(|a| part.shape()[a].div_ceil(unit[a] as usize));
        BoxN::of_shape(counts).positions().map(move |at| {
            let min = std::array::from_fn(|a| part.min[a] + at[a] * unit[a]);
            BoxN { min, max: std::array::from_fn(|a| (min[a] + unit[a]).min(part.max[a])) }
        })
    }

    /// The index of a unit in the chunk grid.
    fn index(&self, tile: &BoxN<RANK>) -> Vec<u64> {
        let first = RANK - self.unit.len();
        (0..self.unit.len()).map(|d| tile.min[first + d] as u64 / self.unit[d] as u64).collect()
    }

    /// The file that holds the write unit (chunk or shard) at `index`. Planes are one file for all
    /// units; for them, the folder for ledgers next to that file.
    fn file(&self, index: &[u64]) -> PathBuf {
        match &self.sink {
            Sink::Zarr(array) => array.file(index),
            Sink::N5(array) => array.file(index),
            Sink::Planes(file) => file.folder().to_owned(),
        }
    }

    /// Checks that a box consists of whole units, that `elements` has the length of the box, and
    /// that `T` is the element type of the array or the wider type that [`Dtype::read_as`] gives
    /// for it.
    fn check<T: Voxel>(&self, part: &Bounds, elements: &[T]) -> Result<(), Error> {
        let bad = |message: String| Err(Error::format(&self.location, message));
        if T::DTYPE != self.dtype && T::DTYPE != self.dtype.read_as() {
            return bad(format!("holds {}, cannot take {}", self.dtype, T::DTYPE));
        }
        if part.rank() != self.shape.len() || elements.len() != part.len() {
            return bad(format!("cannot take {} elements for the box {part}", elements.len()));
        }
        let whole = (0..self.shape.len()).all(|a| {
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

    /// Stores the units of the box `part`, whose `elements` are in C order.
    ///
    /// # Errors
    /// [`Error::Format`] for a box that is not a union of whole units, or if `T` is another type;
    /// [`Error::Io`].
    pub(in crate::volume) fn write<T: Voxel>(
        &self,
        part: &Bounds,
        elements: &[T],
    ) -> Result<(), Error> {
        self.check(part, elements)?;
        let whole: BoxN<RANK> = part.padded();
        let store = |tile: &BoxN<RANK>| {
            let mut bytes = UNIT.take();
            let result = self.store(&whole, elements, tile, &mut bytes);
            UNIT.set(bytes);
            result
        };
        let tiles: Vec<_> = self.units(part).collect();
        if self.at_once() > 1 && tiles.len() > 1 {
            // each encoding thread takes a permit; the calling thread releases its own while it
            // waits
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

    /// Stores the unit `tile` of the box `part`, which holds `elements`. `bytes` is a buffer for
    /// reuse.
    fn store<T: Voxel>(
        &self,
        part: &BoxN<RANK>,
        elements: &[T],
        tile: &BoxN<RANK>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (index, shape) = (self.index(tile), tile.shape());
        let is_stored = match &self.sink {
            Sink::N5(array) => {
                self.gather(part, elements, tile, shape, ByteOrder::Big, bytes);
                let extent = shape[RANK - index.len()..].iter().map(|n| *n as u64);
                array.store(&index, &extent.collect::<Vec<_>>(), bytes)?
            }
            Sink::Zarr(array) => {
                self.gather(part, elements, tile, self.padded_unit(), ByteOrder::NATIVE, bytes);
                array.store(&index, bytes)?
            }
            Sink::Planes(file) => {
                self.gather(part, elements, tile, shape, ByteOrder::Little, bytes);
                return file.store(index[0], bytes);
            }
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= MAX_RECENT {
            recent.clear();
        }
        recent.insert(index, is_stored);
        Ok(())
    }

    /// Appends elements to `bytes`, converted to the stored element type and byte order.
    fn put<T: Voxel>(&self, elements: &[T], order: ByteOrder, bytes: &mut Vec<u8>) {
        if T::DTYPE == self.dtype {
            T::put(elements, order, bytes);
            return;
        }
        with_element!(self.dtype, S => {
            let stored: Vec<S> = elements.iter().map(|v| S::from_f64(v.to_f64())).collect();
            S::put(&stored, order, bytes);
        });
    }

    /// Copies the elements of a tile to `bytes`, padded with zeros to the shape `padded`.
    fn gather<T: Voxel>(
        &self,
        part: &BoxN<RANK>,
        elements: &[T],
        tile: &BoxN<RANK>,
        padded: [usize; RANK],
        order: ByteOrder,
        bytes: &mut Vec<u8>,
    ) {
        let size = self.dtype.size();
        let (shape, whole) = (tile.shape(), part.shape());
        // trailing axes along which `tile` has the full size of `padded` and of `part` are
        // contiguous in all three boxes: together with the axis before them, they are copied as one
        // row
        let mut last = RANK - 1;
        while last > 0 && shape[last] == padded[last] && shape[last] == whole[last] {
            last -= 1;
        }
        let width: usize = shape[last..].iter().product();
        let row: usize = padded[last..].iter().product();
        bytes.clear();
        let mut rows = *tile;
        for a in 0..RANK {
            let count = if a < last { padded[a] } else { 1 };
            rows.max[a] = rows.min[a] + count as i64;
        }
        for at in rows.positions() {
            let mut left = row;
            if (0..last).all(|a| at[a] < tile.max[a]) {
                let from = part.offset(at);
                self.put(&elements[from..from + width], order, bytes);
                left -= width;
            }
            bytes.resize(bytes.len() + left * size, 0);
        }
    }
}
