//! N5 arrays: blocks with a header, big-endian, x fastest, truncated at the array's end.
//!
//! Specification: N5 repository (<https://github.com/saalfeldlab/n5>, "File-system specification",
//! version 2.5.1). Dimensions in `attributes.json` and in block headers are listed fastest first;
//! in reverse, they are those of a C-order array.

mod compression;
mod lz4;
#[cfg(test)]
mod oracle;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

pub(in crate::volume) use compression::Compression;

use crate::geom::Grid;
use crate::store::{self, ReadRange};
use crate::volume::block::Block;
use crate::volume::content::StoredContent;
use crate::volume::dtype::ByteOrder;
use crate::volume::node::Node;
use crate::volume::output_paths::partial_folder;
use crate::volume::source::{ArrayLayout, Scratch, Source};
use crate::volume::watch::Watch;
use crate::volume::{Codec, Dtype, Error, Format, Spec, chunk_search, conventions, extent};

/// An N5 array, for reading and for writing.
#[derive(Debug)]
pub(in crate::volume) struct N5Array {
    location: String,
    path: PathBuf,
    layout: ArrayLayout,
    compression: Compression,
    metadata: Map<String, Value>,
    watch: Arc<Watch>,
}

impl N5Array {
    pub(in crate::volume) fn open(location: &str, node: &Node) -> Result<Self, Error> {
        let sizes = |name: &str| -> Result<Vec<u64>, Error> {
            let list = node.metadata.get(name).and_then(Value::as_array);
            let sizes = list.and_then(|list| list.iter().map(Value::as_u64).collect());
            let sizes: Option<Vec<u64>> = sizes;
            let mut sizes = sizes.ok_or_else(|| {
                let message = format!("its attributes.json has no list of sizes '{name}'");
                Error::format(location, message)
            })?;
            sizes.reverse();
            Ok(sizes)
        };
        let (shape, block) = (sizes("dimensions")?, sizes("blockSize")?);
        let name = node.metadata.get("dataType").unwrap_or(&Value::Null);
        let dtype = name.as_str().and_then(Dtype::from_name).filter(|dtype| dtype.fits(Format::N5));
        let dtype = dtype.ok_or_else(|| Error::dtype(location, name))?;
        extent::check(location, &shape, &block, dtype.size(), true)?;
        let compression = Compression::from_attributes(location, &node.metadata)?;
        refuse_elsewhere(location, &node.path, shape.len())?;
        let layout = ArrayLayout { shape, block, dtype, fill: vec![0; dtype.size()] };
        Ok(Self {
            location: location.to_owned(),
            path: node.path.clone(),
            layout,
            compression,
            metadata: node.metadata.clone(),
            watch: Arc::new(Watch::array(location, node)),
        })
    }

    /// The folder of the array.
    pub(in crate::volume) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a block. The path has one component per dimension of its index, fastest first.
    pub(in crate::volume) fn file(&self, index: &[u64]) -> PathBuf {
        index.iter().rev().fold(self.path.clone(), |path, i| path.join(i.to_string()))
    }

    /// Stores one block without padding: `extent` elements along each dimension, slowest first, big
    /// endian. Returns whether the block is stored: for a block of zeros, no file is written, and
    /// an existing file is deleted.
    pub(in crate::volume) fn store(
        &self,
        index: &[u64],
        extent: &[u64],
        bytes: &[u8],
    ) -> Result<bool, Error> {
        let path = self.file(index);
        let failed = |source| Error::io("write", &path, source);
        if bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1] {
            return store::delete(&path).map(|()| false).map_err(failed);
        }
        let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
        out.extend(0u16.to_be_bytes());
        out.extend((extent.len() as u16).to_be_bytes());
        for size in extent.iter().rev() {
            out.extend((*size as u32).to_be_bytes());
        }
        self.compression
            .encode(bytes, self.layout.dtype.size(), &mut out)
            .map_err(|error| Error::format(&self.location, format!("cannot encode: {error}")))?;
        store::put_later(&partial_folder(&self.path), &path, &out).map(|()| true).map_err(failed)
    }
}

impl Source for N5Array {
    fn layout(&self) -> &ArrayLayout {
        &self.layout
    }

    fn stored(&self) -> StoredContent<'_> {
        let deciding = ["dataType", "compression", "dimensions", "blockSize"];
        let form = json!(deciding.map(|key| self.metadata.get(key))).to_string();
        let ArrayLayout { shape, block, .. } = &self.layout;
        StoredContent::in_chunks(form, shape, block, |index| self.file(index))
    }

    fn in_flight(&self) -> usize {
        if store::is_remote(&self.path) { store::IN_FLIGHT } else { 1 }
    }

    fn watch(&self) -> Option<Arc<Watch>> {
        Some(Arc::clone(&self.watch))
    }

    fn load(
        &self,
        index: &[u64],
        _wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let path = self.file(index);
        let damaged = |message: String| Error::damaged(&self.location, index, &path, message);
        let rank = self.layout.shape.len();
        let size = self.layout.dtype.size();
        let bytes = |sizes: &[u64]| sizes.iter().product::<u64>() as usize * size;
        let most = (self.compression.encoded(bytes(&self.layout.block)) + 8 + 4 * rank) as u64;
        let read = store::read(&path, ReadRange::Whole(most), &mut scratch.file);
        let Some(found) = read.map_err(|source| Error::io("read", &path, source))? else {
            self.watch.check_periodically()?;
            return Ok(None);
        };
        self.watch.found(&path);
        if found > most {
            return Err(damaged(format!("it has {found} bytes, a block has {most} at most")));
        }
        let (extent, payload) = header(&scratch.file, &self.layout.block).map_err(damaged)?;
        let decoded = self.compression.decode(payload, bytes(&extent), &mut scratch.data);
        decoded.map_err(damaged)?;
        Ok(Some(Block::whole(&extent, ByteOrder::Big)))
    }

    fn describe(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("format".into(), "n5".into());
        facts.insert("codecs".into(), json!([self.compression.name()]));
        if let Some(compression) = self.metadata.get("compression") {
            facts.insert("compression".into(), compression.clone());
        }
        facts
    }
}

/// Refuses an array that has no block at the paths that N5 prescribes, but has other files that
/// look like blocks.
fn refuse_elsewhere(location: &str, folder: &Path, rank: usize) -> Result<(), Error> {
    let is_there = || chunk_search::nested(folder, rank);
    if is_there() {
        return Ok(());
    }
    match chunk_search::other(folder) {
        None => Ok(()),
        // another run may have written the first block after the first search
        Some(_) if is_there() => Ok(()),
        Some(found) => {
            let message = format!(
                "has no block in folders of {rank} numbers, where N5 has them, and {found} in their \
                 place"
            );
            Err(Error::format(location, message))
        }
    }
}

/// Parses the header of a block: returns the block's shape, slowest dimension first, and the
/// payload.
///
/// Mode 0 is the default; mode 1 adds the number of elements; mode 2, a serialised Java object, is
/// refused.
fn header<'a>(file: &'a [u8], block: &[u64]) -> Result<(Vec<u64>, &'a [u8]), String> {
    let rank = block.len();
    let short = || "it ends within its header".to_owned();
    let (start, rest) = file.split_first_chunk::<4>().ok_or_else(short)?;
    let mode = u16::from_be_bytes([start[0], start[1]]);
    let found = usize::from(u16::from_be_bytes([start[2], start[3]]));
    if mode > 1 {
        return Err(format!("its header has the mode {mode}; 0 and 1 can be read"));
    }
    if found != rank {
        return Err(format!("its header says {found} dimensions, the array has {rank}"));
    }
    let (sizes, rest) = rest.split_at_checked(4 * rank).ok_or_else(short)?;
    let (sizes, _) = sizes.as_chunks::<4>();
    let extent: Vec<u64> = sizes.iter().rev().map(|s| u64::from(u32::from_be_bytes(*s))).collect();
    // an invalid size in a header must not lead to a large allocation
    if extent.iter().zip(block).any(|(extent, block)| extent > block || *extent == 0) {
        return Err(format!("its header says {extent:?}, and a block is {block:?}"));
    }
    if mode == 0 {
        return Ok((extent, rest));
    }
    let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let count = u64::from(u32::from_be_bytes(*count));
    if count != extent.iter().product::<u64>() {
        return Err(format!("its header says {count} elements in a block of {extent:?}"));
    }
    Ok((extent, rest))
}

/// The metadata of an array to be written, without calibration; sizes are slowest first.
pub(in crate::volume) fn metadata(
    shape: &[u64],
    chunk: &[u64],
    dtype: Dtype,
    codec: Codec,
) -> Map<String, Value> {
    let reversed = |sizes: &[u64]| -> Value { sizes.iter().rev().copied().collect() };
    let mut metadata = Map::new();
    metadata.insert("dimensions".into(), reversed(shape));
    metadata.insert("blockSize".into(), reversed(chunk));
    metadata.insert("dataType".into(), dtype.name().into());
    metadata.insert("compression".into(), Compression::of(codec).to_json());
    metadata
}

/// The attributes of an array to be written. `factors` are the downsampling factors of its level,
/// z, y, x.
pub(in crate::volume) fn attributes(spec: &Spec, factors: [f64; 3]) -> Map<String, Value> {
    let wide = |sizes: [usize; 3]| -> Vec<u64> {
        spec.grid.axes(&sizes).iter().map(|n| *n as u64).collect()
    };
    let (shape, chunk) = (wide(spec.grid.shape), wide(spec.chunk));
    let mut attributes = metadata(&shape, &chunk, spec.dtype, spec.codec);
    calibrate(&mut attributes, &spec.grid, factors);
    attributes
}

/// Sets the calibration in the conventions that N5 tools read: `pixelResolution` times
/// `downsamplingFactors`, and COSEM's `transform`, which alone contains an origin.
pub(in crate::volume) fn calibrate(
    attributes: &mut Map<String, Value>,
    grid: &Grid,
    factors: [f64; 3],
) {
    let whole = factors.iter().all(|f| f.fract() == 0.0);
    let listed: Value = if whole {
        grid.axes(&factors).iter().rev().map(|f| *f as u64).collect::<Vec<_>>().into()
    } else {
        grid.axes(&factors).iter().rev().copied().collect::<Vec<_>>().into()
    };
    let base = std::array::from_fn(|a| grid.spacing[a] / factors[a]);
    let base: Vec<f64> = grid.axes(&base).iter().rev().copied().collect();
    attributes.insert("pixelResolution".into(), base.into());
    attributes.insert("downsamplingFactors".into(), listed);
    attributes.insert(
        "transform".into(),
        json!({
            "axes": grid.axes(&["z", "y", "x"]),
            "units": grid.axes(&["um"; 3]),
            "scale": grid.axes(&grid.spacing),
            "translate": grid.axes(&grid.origin)
        }),
    );
}

/// The downsampling factors (z, y, x) of a level with this grid, relative to the level `s0` of the
/// same image. All are 1 if the name of the array is not that of a level, or if there is no level
/// `s0` with a known spacing.
pub(in crate::volume) fn factors(array: &Path, grid: &Grid) -> Result<[f64; 3], Error> {
    let Some(finest) = array.parent().map(|parent| parent.join("s0")) else {
        return Ok([1.0; 3]);
    };
    let known = match Node::read(&finest)? {
        Some(node) if node.is_array => {
            let known = conventions::of(&node)?.calibration;
            known.spacing.or(known.pixel.map(|[y, x]| [grid.spacing[0], y, x]))
        }
        _ => None,
    };
    let is_level =
        array.file_name().and_then(|n| n.to_str()).is_some_and(crate::volume::ome::is_level_name);
    Ok(match known {
        Some(finest) if is_level => std::array::from_fn(|a| {
            let factor = grid.spacing[a] / finest[a];
            // avoid factors such as 2.0000000000000004
            if (factor - factor.round()).abs() < 1e-9 { factor.round() } else { factor }
        }),
        _ => [1.0; 3],
    })
}
