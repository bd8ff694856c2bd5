//! The interface through which arrays of all formats are read: an array of any rank, divided into
//! blocks.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use crate::geom::Box3;
use crate::volume::block::Block;
use crate::volume::bounds::BoxN;
use crate::volume::cache::{self, Cache, Decoded};
use crate::volume::content::StoredContent;
use crate::volume::dtype::ByteOrder;
use crate::volume::voxel::convert;
use crate::volume::watch::Watch;
use crate::volume::{Dtype, Error, Voxel};

mod concurrent;

/// An array as it is stored. Dimensions are in C order, slowest first.
#[derive(Clone, Debug)]
pub(in crate::volume) struct ArrayLayout {
    /// Elements along each dimension.
    pub(in crate::volume) shape: Vec<u64>,
    /// Elements of a block along each dimension.
    pub(in crate::volume) block: Vec<u64>,
    /// Element type.
    pub(in crate::volume) dtype: Dtype,
    /// The value of missing blocks: one element, little endian.
    pub(in crate::volume) fill: Vec<u8>,
}

/// Buffers that are reused between reads, because allocating new memory costs more than a copy.
#[derive(Default)]
pub(in crate::volume) struct Scratch {
    /// The bytes of a file, still encoded.
    pub(in crate::volume) file: Vec<u8>,
    /// The elements, laid out as [`Block`] describes.
    pub(in crate::volume) data: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// An array open for reading.
pub(in crate::volume) trait Source: Send + Sync {
    /// The array's shape, blocks and element type.
    fn layout(&self) -> &ArrayLayout;

    /// The watch that detects changes of the array; `None` for formats without a metadata file,
    /// whose data files are watched instead.
    fn watch(&self) -> Option<Arc<Watch>> {
        None
    }

    /// Loads block `index` into `scratch.data`; returns `None` if the block is not stored. `wanted`
    /// are the element ranges within the block that will be used. If the block is uncompressed,
    /// elements outside `wanted` need not be loaded.
    fn load(
        &self,
        index: &[u64],
        wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error>;

    /// Bytes of memory that loading a block takes in addition to the stored and the decoded block.
    fn working_bytes(&self) -> u64 {
        0
    }

    /// Whether blocks have to be decoded, so that it is worth caching them.
    fn is_coded(&self) -> bool {
        true
    }

    /// The number of blocks that are worth loading at once: more than one if each takes a request
    /// to a bucket or a web server.
    fn in_flight(&self) -> usize {
        1
    }

    /// The files that hold the array, for its fingerprint.
    fn stored(&self) -> StoredContent<'_>;

    /// Notes on metadata that were ignored, where the format permits it.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// The properties of the format that `inspect` shows.
    fn describe(&self) -> serde_json::Map<String, serde_json::Value>;
}

/// A view of an array with `N` axes: the dimension of the array for each axis, and a fixed index
/// along each other dimension. Volumes have the axes z, y, x.
#[derive(Clone, Debug)]
pub(in crate::volume) struct View<const N: usize = 3> {
    /// The dimension for each axis; `None` if the array lacks the axis, whose size is then 1.
    pub(in crate::volume) axes: [Option<usize>; N],
    /// The index along each dimension of the array; it is ignored for the dimensions in `axes`.
    pub(in crate::volume) fixed: Vec<u64>,
}

impl<const N: usize> View<N> {
    /// Selects the value for each axis from `values`, which has one value per dimension; `missing`
    /// is the value for axes that the array lacks.
    pub(in crate::volume) fn pick<T: Copy>(&self, values: &[T], missing: T) -> [T; N] {
        self.axes.map(|axis| axis.map_or(missing, |d| values[d]))
    }

    /// The shape of the view.
    pub(in crate::volume) fn shape(&self, layout: &ArrayLayout) -> [usize; N] {
        self.pick(&layout.shape, 1).map(|n| n as usize)
    }
}

/// Bytes of one decoded block.
fn block_bytes(layout: &ArrayLayout) -> u64 {
    let elements = layout.block.iter().fold(1, |product: u64, n| product.saturating_mul(*n));
    elements.saturating_mul(layout.dtype.size() as u64)
}

/// Bytes that further reading can add to `cache`.
pub(in crate::volume) fn kept_bytes(source: &dyn Source, cache: &Cache) -> u64 {
    let layout = source.layout();
    let block = block_bytes(layout);
    if !source.is_coded() || !cache.keeps(block as usize) {
        return 0;
    }
    let counts = layout.shape.iter().zip(&layout.block).map(|(n, block)| n.div_ceil(*block));
    let blocks = counts.fold(1, |product: u64, n| product.saturating_mul(n));
    cache.room(blocks.saturating_mul(block + cache::ENTRY))
}

/// Bytes of all blocks that intersect a box, decoded and cached; 0 for uncompressed blocks, which
/// are not cached.
pub(in crate::volume) fn decoded_bytes(source: &dyn Source, view: &View, part: &Box3) -> u64 {
    let layout = source.layout();
    let part = part.intersect(&Box3::of_shape(view.shape(layout)));
    if part.is_empty() || !source.is_coded() {
        return 0;
    }
    let size = view.pick(&layout.block, 1).map(|n| n as i64);
    let count = |a: usize| ((part.max[a] - 1) / size[a] - part.min[a] / size[a] + 1) as u64;
    (0..3).map(count).fold(block_bytes(layout) + cache::ENTRY, u64::saturating_mul)
}

/// Bytes that each reading thread holds besides the cache, for all blocks in flight. A coded block
/// is held as stored, as decoded, and in the decoder's working buffer; an uncompressed block is
/// held once.
pub(in crate::volume) fn scratch_bytes(source: &dyn Source) -> u64 {
    let block = block_bytes(source.layout());
    let one = if source.is_coded() { block.saturating_mul(3) } else { block };
    one.saturating_add(source.working_bytes()).saturating_mul(source.in_flight() as u64)
}

/// The linear index of a block in the grid of blocks, in C order; `None` if it overflows.
fn number(layout: &ArrayLayout, index: &[u64]) -> Option<u64> {
    let counts = layout.shape.iter().zip(&layout.block).map(|(n, block)| n.div_ceil(*block).max(1));
    index.iter().zip(counts).try_fold(0, |sum: u64, (i, n)| sum.checked_mul(n)?.checked_add(*i))
}

/// Reads the box `part` of a view into `out`, in C order. Elements outside the array read as
/// `T::default()`.
pub(in crate::volume) fn read<const N: usize, T: Voxel>(
    source: &dyn Source,
    cache: &Cache,
    view: &View<N>,
    part: impl Into<BoxN<N>>,
    out: &mut [T],
) -> Result<(), Error> {
    let (layout, part) = (source.layout(), &part.into());
    let inside = part.intersect(&BoxN::of_shape(view.shape(layout)));
    if inside != *part {
        out.fill(T::default());
    }
    if inside.is_empty() {
        return Ok(());
    }
    let size = view.pick(&layout.block, 1).map(|n| n as i64);
    let low: [i64; N] = std::array::from_fn(|a| inside.min[a] / size[a]);
    let high: [i64; N] = std::array::from_fn(|a| (inside.max[a] - 1) / size[a] + 1);
    let target = |at: [i64; N]| {
        let min = std::array::from_fn(|a| at[a] * size[a]);
        let block = BoxN { min, max: std::array::from_fn(|a| min[a] + size[a]) };
        BlockRead { part, overlap: inside.intersect(&block), block, at }
    };
    let blocks = BoxN { min: low, max: high };
    if source.in_flight() > 1 && blocks.len() > 1 {
        let targets: Vec<_> = blocks.positions().map(target).collect();
        return concurrent::read(source, cache, view, &targets, out);
    }
    // the buffers are taken out of the thread-local, so that a source can call this function for
    // another source
    let mut scratch = SCRATCH.take();
    let result = blocks
        .positions()
        .try_for_each(|at| read_block(source, cache, view, &target(at), &mut scratch, out));
    SCRATCH.set(scratch);
    result
}

/// A block to be read: the requested box `part`, the `block`, the `overlap` of the two boxes within
/// the array, and the index `at` of the block along each axis.
struct BlockRead<'a, const N: usize> {
    part: &'a BoxN<N>,
    block: BoxN<N>,
    overlap: BoxN<N>,
    at: [i64; N],
}

/// A loaded block.
enum Loaded {
    /// A block in the cache.
    Kept(Arc<Decoded>),
    /// A block with its elements in [`Scratch::data`]; `None` if it is not stored.
    InScratch(Option<Block>),
}

/// Loads a block, through the cache if the block is coded and fits into it. Also returns the wanted
/// ranges of elements within the block.
fn load<const N: usize>(
    source: &dyn Source,
    cache: &Cache,
    view: &View<N>,
    target: &BlockRead<N>,
    scratch: &mut Scratch,
) -> Result<(Loaded, Vec<Range<u64>>), Error> {
    let layout = source.layout();
    let mut index: Vec<u64> = view.fixed.iter().zip(&layout.block).map(|(f, b)| f / b).collect();
    let mut wanted: Vec<Range<u64>> =
        view.fixed.iter().zip(&layout.block).map(|(f, b)| f % b..f % b + 1).collect();
    let overlap = target.overlap;
    for a in 0..N {
        if let Some(d) = view.axes[a] {
            index[d] = target.at[a] as u64;
            let local = |v: i64| (v - target.block.min[a]) as u64;
            wanted[d] = local(overlap.min[a])..local(overlap.max[a]);
        }
    }
    let bytes = block_bytes(layout) as usize;
    let kept = match number(layout, &index) {
        Some(number) if source.is_coded() && cache.keeps(bytes) => {
            cache.get(number, bytes, |spare| {
                scratch.data = spare;
                let block = source.load(&index, &wanted, scratch)?;
                let data = block.as_ref().map(|_| std::mem::take(&mut scratch.data));
                Ok(Decoded { block, data: data.unwrap_or_default() })
            })?
        }
        _ => None,
    };
    let loaded = match kept {
        Some(kept) => Loaded::Kept(kept),
        None => Loaded::InScratch(source.load(&index, &wanted, scratch)?),
    };
    Ok((loaded, wanted))
}

fn read_block<const N: usize, T: Voxel>(
    source: &dyn Source,
    cache: &Cache,
    view: &View<N>,
    target: &BlockRead<N>,
    scratch: &mut Scratch,
    out: &mut [T],
) -> Result<(), Error> {
    let layout = source.layout();
    let (loaded, wanted) = load(source, cache, view, target, scratch)?;
    match &loaded {
        Loaded::Kept(kept) => {
            copy_overlap(layout, view, &wanted, kept.block.as_ref(), target, &kept.data, out);
        }
        Loaded::InScratch(block) => {
            copy_overlap(layout, view, &wanted, block.as_ref(), target, &scratch.data, out);
        }
    }
    Ok(())
}

/// Copies the stored part of the overlap to the output, and sets the rest to the fill value.
fn copy_overlap<const N: usize, T: Voxel>(
    layout: &ArrayLayout,
    view: &View<N>,
    wanted: &[Range<u64>],
    block: Option<&Block>,
    target: &BlockRead<N>,
    data: &[u8],
    out: &mut [T],
) {
    let overlap = target.overlap;
    let mut stored = overlap;
    if let Some(block) = block {
        for (d, extent) in block.extent.iter().enumerate() {
            match view.axes.iter().position(|axis| *axis == Some(d)) {
                Some(a) => {
                    let end = (target.block.min[a] + *extent as i64).max(stored.min[a]);
                    stored.max[a] = stored.max[a].min(end);
                }
                None if wanted[d].start >= *extent => stored.max = stored.min,
                None => {}
            }
        }
    } else {
        stored.max = stored.min;
    }
    if stored != overlap {
        fill(layout, target, out);
    }
    if let Some(block) = block
        && !stored.is_empty()
    {
        copy(layout, view, wanted, block, &stored, target, data, out);
    }
}

/// Sets the overlap to the fill value.
fn fill<const N: usize, T: Voxel>(layout: &ArrayLayout, target: &BlockRead<N>, out: &mut [T]) {
    let mut value = [T::default()];
    convert(&layout.fill, 1, layout.dtype, ByteOrder::Little, &mut value);
    let width = target.overlap.shape()[N - 1];
    target.overlap.rows().for_each(|at| {
        let row = target.part.offset(at);
        out[row..row + width].fill(value[0]);
    });
}

/// Copies the rows of `stored` out of the loaded block.
fn copy<const N: usize, T: Voxel>(
    layout: &ArrayLayout,
    view: &View<N>,
    wanted: &[Range<u64>],
    block: &Block,
    stored: &BoxN<N>,
    target: &BlockRead<N>,
    data: &[u8],
    out: &mut [T],
) {
    let size = layout.dtype.size();
    let strides = view.pick(&block.strides, 0);
    let base: usize = (0..wanted.len())
        .filter(|d| !view.axes.contains(&Some(*d)))
        .map(|d| wanted[d].start as usize * block.strides[d])
        .sum();
    let mut width = stored.shape()[N - 1];
    let mut rows = *stored;
    // if the last two axes are contiguous in the block and in the output, as with the components of
    // vectors, copy each plane of these two axes as one row
    if N > 1
        && strides[N - 1] == 1
        && strides[N - 2] == width
        && width == target.part.shape()[N - 1]
    {
        rows.max[N - 2] = rows.min[N - 2] + 1;
        width *= stored.shape()[N - 2];
    }
    rows.rows().for_each(|at| {
        let element: usize =
            (0..N).map(|a| (at[a] - target.block.min[a]) as usize * strides[a]).sum::<usize>()
                + base
                - block.first;
        let row = target.part.offset(at);
        let out = &mut out[row..row + width];
        convert(&data[element * size..], strides[N - 1].max(1), layout.dtype, block.order, out);
    });
}
