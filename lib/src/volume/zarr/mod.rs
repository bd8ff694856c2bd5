//! Zarr arrays, versions 3 and 2: read by decoders of this library, which bound their memory, and
//! written through `zarrs`, which the tests also use as the reference for reading.

mod chain;
mod codecs3;
mod fill;
mod folder;
mod header;
mod keys;
mod metadata;
mod read;
mod shard;
mod write;

pub(super) use metadata::{ArraySpec, metadata};
pub(super) use read::{ZarrSource, dtype};
pub(super) use write::ZarrSink;

use std::ops::Range;
use std::sync::Arc;

use zarrs::array::codec::api::CodecOptions;
use zarrs::array::{Array, ArrayMetadata};

use super::Error;
use super::block::c_strides;
use super::dtype::{ByteOrder, convert};
use super::node::{Container, Node};
use super::source::{Scratch, Source};
use folder::Folder;

/// The maximum number of elements of an array that is read at once.
const SMALL: u64 = 1 << 27;
/// For more elements than this, the first and the last chunk must exist before memory is allocated.
const UNBACKED: u64 = 1 << 16;

/// Options for `zarrs` without its own parallelism: callers already run in parallel.
fn options() -> CodecOptions {
    CodecOptions::default().with_concurrent_target(1)
}

/// The `zarrs` array for a node's metadata, for writing.
fn array(location: &str, node: &Node) -> Result<Array<Folder>, Error> {
    let bad = |what: String| Error::format(location, format!("cannot be written as Zarr: {what}"));
    let value = serde_json::Value::Object(node.metadata.clone());
    let metadata = match node.container {
        Container::Zarr2 => serde_json::from_value(value).map(ArrayMetadata::V2),
        _ => serde_json::from_value(value).map(ArrayMetadata::V3),
    };
    let metadata = metadata.map_err(|error| bad(error.to_string()))?;
    let store = Arc::new(Folder::new(&node.path));
    Array::new_with_metadata(store, "/", metadata).map_err(|error| bad(error.to_string()))
}

/// Reads a whole array as `f64`: its shape, and its elements in C order.
pub(super) fn read_all(location: &str, node: &Node) -> Result<(Vec<u64>, Vec<f64>), Error> {
    let source = ZarrSource::open(location, node.clone())?;
    let layout = source.layout();
    let count: u64 = layout.shape.iter().product();
    if count > SMALL {
        let message = format!("has {count} elements; up to {SMALL} are read at once");
        return Err(Error::format(location, message));
    }
    let counts: Vec<u64> =
        layout.shape.iter().zip(&layout.block).map(|(n, b)| n.div_ceil(*b)).collect();
    if count > UNBACKED {
        check_backing(location, &source, &counts)?;
    }
    let mut fill = [0.0];
    convert(&layout.fill, 1, layout.dtype, ByteOrder::Little, &mut fill);
    let mut data = vec![fill[0]; count as usize];
    let strides = c_strides(&layout.shape);
    let mut scratch = Scratch::default();
    let mut failed = Ok(());
    chain::each_row(&counts, |first, along| {
        let mut index = first.to_vec();
        for last in 0..along as u64 {
            index[first.len() - 1] = last;
            if failed.is_ok() {
                failed = read_block(&source, &index, &strides, &mut scratch, &mut data);
            }
        }
    });
    failed?;
    Ok((layout.shape.clone(), data))
}

/// Refuses a shape that the stored chunks do not back: a complete array has its first and last
/// chunk.
fn check_backing(location: &str, source: &ZarrSource, counts: &[u64]) -> Result<(), Error> {
    let last: Vec<u64> = counts.iter().map(|n| n - 1).collect();
    for index in [vec![0; counts.len()], last] {
        let one: Vec<Range<u64>> = index.iter().map(|_| 0..1).collect();
        if source.load(&index, &one, &mut Scratch::default())?.is_none() {
            let shape = &source.layout().shape;
            let message = format!(
                "says that it has the shape {shape:?}, and chunk {index:?} is not there; copy it again"
            );
            return Err(Error::format(location, message));
        }
    }
    Ok(())
}

/// Copies the part of a block that lies inside the array to its position in `data`.
fn read_block(
    source: &ZarrSource,
    index: &[u64],
    strides: &[usize],
    scratch: &mut Scratch,
    data: &mut [f64],
) -> Result<(), Error> {
    let layout = source.layout();
    let start: Vec<u64> = index.iter().zip(&layout.block).map(|(i, n)| i * n).collect();
    let extent: Vec<u64> =
        (0..start.len()).map(|d| layout.block[d].min(layout.shape[d] - start[d])).collect();
    let wanted: Vec<Range<u64>> = extent.iter().map(|n| 0..*n).collect();
    let Some(block) = source.load(index, &wanted, scratch)? else { return Ok(()) };
    let size = layout.dtype.size();
    chain::each_row(&extent, |at, length| {
        let sum = |strides: &[usize], first: &dyn Fn(usize) -> u64| -> usize {
            (0..at.len()).map(|d| (first(d) + at[d]) as usize * strides[d]).sum()
        };
        let from = (sum(&block.strides, &|_| 0) - block.first) * size;
        let to = sum(strides, &|d| start[d]);
        let row = &mut data[to..to + length];
        convert(&scratch.data[from..], 1, layout.dtype, block.order, row);
    });
    Ok(())
}
