use std::borrow::Cow;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use zarrs::array::codec::api::ArrayToBytesCodecTraits;
use zarrs::array::{
    Array, ArrayBytes, ArrayError, ArrayShardedExt, ArrayShardedReadableExt,
    ArrayShardedReadableExtCache,
};

use super::{chunk_error, options};
use crate::volume::block::{Block, c_strides};
use crate::volume::content::Stored;
use crate::volume::dtype::ByteOrder;
use crate::volume::element::Element;
use crate::volume::node::{Container, Node};
use crate::volume::source::{Layout, Scratch, Source};
use crate::volume::store::{self, Folder};
use crate::volume::{Dtype, Error};

/// Shards whose indices are kept; an index of 4096 inner chunks is 64 KiB.
const SHARDS: usize = 1024;

/// A Zarr array open for reading.
pub(in crate::volume) struct ZarrSource {
    location: String,
    node: Node,
    array: Array<Folder>,
    layout: Layout,
    storage: Storage,
}

/// How chunks are got at.
enum Storage {
    /// They are their elements: any range of a file can be read by itself.
    Raw(ByteOrder),
    /// Decoded whole.
    Coded,
    /// Inner chunks, decoded one by one; the indices of shards are kept.
    Sharded(ArrayShardedReadableExtCache),
}

impl ZarrSource {
    pub(in crate::volume) fn open(location: &str, node: Node) -> Result<Self, Error> {
        let dtype = dtype(location, &node)?;
        let array = super::array(location, &node)?;
        let shape = array.shape().to_vec();
        let grid = node.metadata.get("chunk_grid").and_then(|grid| grid.get("name"));
        if grid.is_some_and(|name| name != "regular") {
            let found = grid.map(Value::to_string).unwrap_or_default();
            let message = format!("has the chunk grid {found}; only regular ones can be read");
            return Err(Error::format(location, message));
        }
        let chunk = array.chunk_shape(&vec![0; shape.len()]);
        let chunk = chunk.map_err(|error| Error::format(location, error.to_string()))?;
        let mut block: Vec<u64> = chunk.iter().map(|n| n.get()).collect();
        let mut storage = raw(&node, dtype).map_or(Storage::Coded, Storage::Raw);
        if array.is_exclusively_sharded()
            && let Some(inner) = array.subchunk_shape()
        {
            block = inner.iter().map(|n| n.get()).collect();
            storage = Storage::Sharded(ArrayShardedReadableExtCache::new(&array));
        }
        let mut fill = array.fill_value().as_ne_bytes().to_vec();
        if ByteOrder::NATIVE == ByteOrder::Big {
            fill.reverse();
        }
        let layout = Layout { shape, block, dtype, fill };
        Ok(Self { location: location.to_owned(), node, array, layout, storage })
    }

    fn path(&self, chunk: &[u64]) -> PathBuf {
        self.array.storage().path(&self.array.chunk_key(chunk))
    }

    fn damaged(&self, chunk: &[u64], error: &ArrayError) -> Error {
        chunk_error(&self.location, chunk, &self.path(chunk), error)
    }

    /// Reads from the first to the last wanted element, which leaves out most of a chunk where a
    /// halo touches it.
    fn load_raw(
        &self,
        order: ByteOrder,
        index: &[u64],
        wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let path = self.path(index);
        let mut block = Block::whole(&self.layout.block, order);
        let size = self.layout.dtype.size();
        let offset = |pick: &dyn Fn(&Range<u64>) -> u64| -> usize {
            wanted.iter().zip(&block.strides).map(|(w, s)| pick(w) as usize * s).sum()
        };
        let (first, last) = (offset(&|w| w.start), offset(&|w| w.end - 1));
        let length = (last + 1 - first) * size;
        let read = store::read_range(&path, (first * size) as u64, length, &mut scratch.data);
        match read.map_err(|source| Error::io("read", &path, source))? {
            None => return Ok(None),
            Some(true) => {}
            Some(false) => {
                let whole = self.layout.block.iter().product::<u64>() * size as u64;
                let message = format!("it ends before the {whole} bytes that a chunk has");
                return Err(Error::damaged(&self.location, index, &path, message));
            }
        }
        block.first = first;
        Ok(Some(block))
    }

    fn load_coded(&self, index: &[u64], scratch: &mut Scratch) -> Result<Option<Block>, Error> {
        let path = self.path(index);
        if !store::read_file(&path, &mut scratch.file)? {
            return Ok(None);
        }
        let shape: Vec<NonZeroU64> =
            self.array.chunk_shape(index).map_err(|error| self.damaged(index, &error))?;
        let decoded = self.array.codecs().decode(
            Cow::Borrowed(&scratch.file),
            &shape,
            self.array.data_type(),
            self.array.fill_value(),
            &options(),
        );
        let decoded = decoded.map_err(|error| self.damaged(index, &error.into()))?;
        self.take(index, decoded, &mut scratch.data)
    }

    fn load_sharded(
        &self,
        cache: &ArrayShardedReadableExtCache,
        index: &[u64],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        if cache.len() > SHARDS {
            cache.clear();
        }
        let decoded = self.array.retrieve_subchunk_opt::<ArrayBytes>(cache, index, &options());
        let decoded = decoded.map_err(|error| {
            let outer = self.array.chunk_shape(&vec![0; index.len()]).unwrap_or_default();
            let shard: Vec<u64> = (index.iter().zip(&self.layout.block).zip(&outer))
                .map(|((i, inner), outer)| i * inner / outer.get())
                .collect();
            chunk_error(&self.location, index, &self.path(&shard), &error)
        })?;
        self.take(index, decoded, &mut scratch.data)
    }

    /// Moves decoded elements to where [`Block`] says that they are, after counting them.
    fn take(
        &self,
        index: &[u64],
        decoded: ArrayBytes,
        data: &mut Vec<u8>,
    ) -> Result<Option<Block>, Error> {
        let bytes = decoded.into_fixed().map_err(|error| self.damaged(index, &error.into()))?;
        let expected =
            self.layout.block.iter().product::<u64>() as usize * self.layout.dtype.size();
        if bytes.len() != expected {
            let error = ArrayError::UnexpectedChunkDecodedSize(bytes.len(), expected);
            return Err(self.damaged(index, &error));
        }
        let known = data.capacity();
        match bytes {
            // a fresh buffer in the place of one that has been kept, time and again, would leave holes
            // in memory that nothing else fits into
            Cow::Owned(bytes) if known >= expected && known <= expected + expected / 8 => {
                data.clear();
                data.extend_from_slice(&bytes);
            }
            Cow::Owned(mut bytes) => {
                // some decoders grow their buffer by doubling: it may be kept for long
                if bytes.capacity() > bytes.len() + bytes.len() / 8 {
                    bytes.shrink_to_fit();
                }
                *data = bytes;
            }
            Cow::Borrowed(bytes) => {
                data.clear();
                data.extend_from_slice(bytes);
            }
        }
        Ok(Some(Block {
            first: 0,
            strides: c_strides(&self.layout.block),
            extent: self.layout.block.clone(),
            order: ByteOrder::NATIVE,
        }))
    }
}

impl Source for ZarrSource {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn load(
        &self,
        index: &[u64],
        wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        match &self.storage {
            Storage::Raw(order) => self.load_raw(*order, index, wanted, scratch),
            Storage::Coded => self.load_coded(index, scratch),
            Storage::Sharded(cache) => self.load_sharded(cache, index, scratch),
        }
    }

    fn is_coded(&self) -> bool {
        !matches!(self.storage, Storage::Raw(_))
    }

    fn stored(&self) -> Stored<'_> {
        let form = Value::Object(self.node.metadata.clone()).to_string();
        let shape = &self.layout.shape;
        let outer = self.array.chunk_shape(&vec![0; shape.len()]);
        let outer =
            outer.map_or(vec![1; shape.len()], |chunk| chunk.iter().map(|n| n.get()).collect());
        Stored::in_chunks(form, shape, &outer, |index| self.path(index))
    }

    fn describe(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        let version = if self.node.container == Container::Zarr3 { 3 } else { 2 };
        facts.insert("format".into(), "zarr".into());
        facts.insert("version".into(), version.into());
        if let Storage::Sharded(_) = self.storage {
            let shard = self.array.chunk_shape(&vec![0; self.layout.shape.len()]);
            let shard: Vec<u64> =
                shard.map(|s| s.iter().map(|n| n.get()).collect()).unwrap_or_default();
            facts.insert("shard".into(), shard.into());
        }
        let codecs = if version == 3 {
            json!(codec_names(self.node.metadata.get("codecs")))
        } else {
            let filters = self.node.metadata.get("filters").and_then(Value::as_array);
            let names = filters.into_iter().flatten().chain(self.node.metadata.get("compressor"));
            json!(names.filter_map(|codec| codec_name(codec, "id")).collect::<Vec<_>>())
        };
        facts.insert("codecs".into(), codecs);
        let fill = self.node.metadata.get("fill_value").cloned().unwrap_or_default();
        facts.insert("fill_value".into(), fill);
        facts
    }
}

/// A codec's name, and blosc's compressor with it.
fn codec_name(codec: &Value, key: &str) -> Option<String> {
    let name = codec.get(key).and_then(Value::as_str).or(codec.as_str())?;
    let inner = codec.get("configuration").unwrap_or(codec).get("cname").and_then(Value::as_str);
    Some(inner.map_or(name.to_owned(), |inner| format!("{name}:{inner}")))
}

/// The names of a v3 codec chain; those within shards follow their shard's.
fn codec_names(codecs: Option<&Value>) -> Vec<String> {
    let mut names = Vec::new();
    for codec in codecs.and_then(Value::as_array).into_iter().flatten() {
        names.extend(codec_name(codec, "name"));
        let inner = codec.get("configuration").and_then(|c| c.get("codecs"));
        names.extend(codec_names(inner));
    }
    names
}

/// The element type.
pub(in crate::volume) fn dtype(location: &str, node: &Node) -> Result<Dtype, Error> {
    let value = node.metadata.get("data_type").or(node.metadata.get("dtype"));
    let name = value.and_then(Value::as_str).unwrap_or_default();
    let element = match node.container {
        Container::Zarr2 => Element::from_descr(name).map(|(element, _)| element),
        _ => Element::from_name(name),
    };
    let dtype = match element {
        Some(Element::As(dtype)) => Some(dtype),
        _ => None,
    };
    dtype.ok_or_else(|| Error::dtype(location, value.unwrap_or(&Value::Null)))
}

/// The byte order of chunks that are stored as they are; `None` for those that are coded.
fn raw(node: &Node, dtype: Dtype) -> Option<ByteOrder> {
    let metadata = &node.metadata;
    if node.container == Container::Zarr2 {
        let none = |name: &str| match metadata.get(name) {
            None | Some(Value::Null) => true,
            Some(value) => value.as_array().is_some_and(Vec::is_empty),
        };
        let c_order = metadata.get("order").and_then(Value::as_str) == Some("C");
        let big = metadata.get("dtype")?.as_str()?.starts_with('>');
        return (none("filters") && none("compressor") && c_order).then_some(if big {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        });
    }
    let codecs = metadata.get("codecs")?.as_array()?;
    if !matches!(metadata.get("storage_transformers"), None | Some(Value::Null))
        && metadata["storage_transformers"].as_array().is_some_and(|list| !list.is_empty())
    {
        return None;
    }
    let [codec] = codecs.as_slice() else { return None };
    let name = codec.get("name").and_then(Value::as_str).or(codec.as_str());
    if name != Some("bytes") {
        return None;
    }
    let endian = codec.get("configuration").and_then(|c| c.get("endian")).and_then(Value::as_str);
    match endian {
        Some("little") => Some(ByteOrder::Little),
        Some("big") => Some(ByteOrder::Big),
        _ if dtype.size() == 1 => Some(ByteOrder::Little),
        _ => None,
    }
}
