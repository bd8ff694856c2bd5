use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::chain::Body;
use super::header::{self, Header};
use super::keys::ChunkKeys;
use super::shard::{Index, Indices, Shard};
use crate::store::{self, ReadRange};
use crate::volume::block::Block;
use crate::volume::content;
use crate::volume::node::{Container, Node};
use crate::volume::source::{ArrayLayout, Scratch, Source};
use crate::volume::watch::Watch;
use crate::volume::{ByteOrder, Dtype, Error};

/// A Zarr array open for reading.
pub(in crate::volume) struct ZarrSource {
    location: String,
    node: Node,
    header: Header,
    layout: ArrayLayout,
    storage: Storage,
    watch: Arc<Watch>,
}

/// How chunks are stored, and so which parts of them can be read individually.
enum Storage {
    /// Uncompressed: any byte range of a file can be read individually.
    Raw(ByteOrder),
    /// Encoded: a chunk is decoded as a whole.
    Coded,
    /// Inner chunks, decoded individually; shard indices are cached.
    Sharded(Indices),
}

impl ZarrSource {
    pub(in crate::volume) fn open(location: &str, node: Node) -> Result<Self, Error> {
        let header = Header::read(location, &node)?;
        if let ChunkKeys::Other(found) = header.keys.examine(&node.path, header.shape.len()) {
            let wanted = header.keys.path(&node.path, &vec![0; header.shape.len()]);
            let wanted = wanted.strip_prefix(&node.path).unwrap_or(&wanted).display().to_string();
            let message = format!(
                "has no chunk under the names that its metadata give, such as {wanted}, and {found} \
                 in their place; set the separator in its metadata to the one of its files"
            );
            return Err(Error::format(location, message));
        }
        let storage = match (header.chain.raw_order(), header.chain.shard()) {
            (Some(order), _) => Storage::Raw(order),
            (None, Some(_)) => Storage::Sharded(Indices::default()),
            _ => Storage::Coded,
        };
        let order = header.chain.byte_order();
        let mut fill = header.fill.clone();
        if order == ByteOrder::Big {
            fill.reverse();
        }
        let layout = ArrayLayout {
            shape: header.shape.clone(),
            block: header.innermost().1.to_vec(),
            dtype: header.dtype,
            fill,
        };
        let watch = Arc::new(Watch::array(location, &node));
        Ok(Self { location: location.to_owned(), node, header, layout, storage, watch })
    }

    fn path(&self, chunk: &[u64]) -> PathBuf {
        self.header.keys.path(&self.node.path, chunk)
    }

    /// Reads bytes of a chunk or shard into `buffer`. Returns the length of the file, as
    /// [`store::read`] does; if the file does not exist, checks that the array still exists and is
    /// unchanged, and returns `None`.
    fn bytes(
        &self,
        path: &Path,
        wanted: ReadRange,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<u64>, Error> {
        let read = store::read(path, wanted, buffer);
        let length = read.map_err(|source| Error::io("read", path, source))?;
        if length.is_some() {
            self.watch.found(path);
        } else {
            self.watch.check_periodically()?;
        }
        Ok(length)
    }

    fn damaged(&self, index: &[u64], file: &[u64], message: impl Into<String>) -> Error {
        Error::damaged(&self.location, index, &self.path(file), message)
    }

    /// Describes the block of decoded elements.
    fn block(&self) -> Block {
        Block::whole(&self.layout.block, self.header.chain.byte_order())
    }

    /// Reads only the bytes from the first to the last wanted element. If only the halo of a box
    /// intersects a chunk, most of the chunk is therefore not read.
    fn load_raw(
        &self,
        order: ByteOrder,
        index: &[u64],
        wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let path = self.path(index);
        let mut block = Block::whole(&self.layout.block, order);
        let size = self.header.dtype.size();
        let offset = |pick: &dyn Fn(&Range<u64>) -> u64| -> usize {
            wanted.iter().zip(&block.strides).map(|(w, s)| pick(w) as usize * s).sum()
        };
        let (first, last) = (offset(&|w| w.start), offset(&|w| w.end - 1));
        let whole = self.layout.block.iter().product::<u64>() * size as u64;
        let wanted =
            ReadRange::Range { start: (first * size) as u64, length: (last + 1 - first) * size };
        let Some(length) = self.bytes(&path, wanted, &mut scratch.data)? else { return Ok(None) };
        if length != whole {
            let message = format!("it has {length} bytes, a chunk has {whole}");
            return Err(self.damaged(index, index, message));
        }
        block.first = first;
        Ok(Some(block))
    }

    fn load_coded(&self, index: &[u64], scratch: &mut Scratch) -> Result<Option<Block>, Error> {
        let (chain, chunk, fill) = (&self.header.chain, &self.header.chunk, &self.header.fill);
        let most = chain.encoded(chunk, fill.len()).max() as u64;
        let length = self.bytes(&self.path(index), ReadRange::Whole(most), &mut scratch.file)?;
        let Some(length) = length else { return Ok(None) };
        if length > most {
            let message = format!("it has {length} bytes, a chunk has {most} at most");
            return Err(self.damaged(index, index, message));
        }
        let decoded = chain.decode(&scratch.file, chunk, fill, &mut scratch.data);
        decoded.map_err(|message| self.damaged(index, index, message))?;
        Ok(Some(self.block()))
    }

    fn load_sharded(
        &self,
        indices: &Indices,
        index: &[u64],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        // the position in the array of the block's first element; divided by the shape of a shard,
        // it gives the index of the shard
        let first: Vec<u64> = index.iter().zip(&self.layout.block).map(|(i, n)| i * n).collect();
        let within = |shape: &[u64]| -> Vec<u64> {
            first.iter().zip(shape).map(|(first, n)| first / n).collect()
        };
        let shard_file = within(&self.header.chunk);
        let damaged = |message: String| self.damaged(index, &shard_file, message);
        let path = self.path(&shard_file);
        let size = self.header.dtype.size();
        // offset and length in the file of the current layer's shard; `None` for the outermost
        // shard, which is the whole file
        let mut part = None;
        for (depth, (shape, shard)) in
            header::layers(&self.header.chunk, &self.header.chain).into_iter().enumerate()
        {
            let mut key = within(shape);
            key.push(depth as u64);
            let known = indices.get(key, || {
                let Some(length) = self.index_bytes(&path, shard, shape, part, scratch)? else {
                    return Ok(None);
                };
                shard.index_range(shape, length).map_err(&damaged)?;
                let entries = shard.index(&scratch.file, shape).map_err(&damaged)?;
                Ok(Some(Index { entries, length }))
            })?;
            let Some(known) = known else { return Ok(None) };
            let inner: Vec<u64> =
                (0..first.len()).map(|d| first[d] % shape[d] / shard.chunk[d]).collect();
            let i = (inner.iter().zip(shard.counts(shape))).fold(0, |i, (at, n)| i * n + at);
            let entry = shard.entry(&known, i as usize, size).map_err(&damaged)?;
            let Some((offset, bytes)) = entry else { return Ok(None) };
            part = Some((part.map_or(0, |(start, _)| start) + offset, bytes));
        }
        let (start, length) = part.unwrap_or_default();
        let wanted = ReadRange::Range { start, length };
        let Some(whole) = self.bytes(&path, wanted, &mut scratch.file)? else { return Ok(None) };
        if scratch.file.len() != length {
            return Err(damaged(format!("its shard has {whole} bytes now, and had more before")));
        }
        let (chain, chunk) = self.header.innermost();
        chain
            .decode(&scratch.file, chunk, &self.header.fill, &mut scratch.data)
            .map_err(damaged)?;
        Ok(Some(self.block()))
    }

    /// Reads the index of a shard into `scratch.file`, in one request. `part` is the offset and
    /// length of the shard within the file, or `None` if the shard is the whole file. Returns the
    /// length of the shard in bytes, or `None` if the file does not exist. `scratch.file` is empty
    /// if the shard is shorter than its index.
    fn index_bytes(
        &self,
        path: &Path,
        shard: &Shard,
        shape: &[u64],
        part: Option<(u64, usize)>,
        scratch: &mut Scratch,
    ) -> Result<Option<u64>, Error> {
        let bytes = shard.index_bytes(shape);
        let Some((start, length)) = part else {
            let wanted = if shard.at_end {
                ReadRange::End(bytes)
            } else {
                ReadRange::Range { start: 0, length: bytes }
            };
            return self.bytes(path, wanted, &mut scratch.file);
        };
        let Some(rest) = length.checked_sub(bytes) else {
            scratch.file.clear();
            return Ok(Some(length as u64));
        };
        let start = if shard.at_end { start + rest as u64 } else { start };
        let wanted = ReadRange::Range { start, length: bytes };
        Ok(self.bytes(path, wanted, &mut scratch.file)?.map(|_| length as u64))
    }

    /// The shape of a shard; `None` without sharding.
    fn shard(&self) -> Option<&[u64]> {
        matches!(self.header.chain.body, Body::Shard(_)).then_some(&*self.header.chunk)
    }
}

impl Source for ZarrSource {
    fn layout(&self) -> &ArrayLayout {
        &self.layout
    }

    fn watch(&self) -> Option<Arc<Watch>> {
        Some(Arc::clone(&self.watch))
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
            Storage::Sharded(indices) => self.load_sharded(indices, index, scratch),
        }
    }

    fn in_flight(&self) -> usize {
        if store::is_remote(&self.node.path) { store::IN_FLIGHT } else { 1 }
    }

    fn is_coded(&self) -> bool {
        !matches!(self.storage, Storage::Raw(_))
    }

    fn stored(&self) -> content::StoredContent<'_> {
        let form = Value::Object(self.node.metadata.clone()).to_string();
        let (shape, outer) = (&self.header.shape, &self.header.chunk);
        content::StoredContent::in_chunks(form, shape, outer, |index| self.path(index))
    }

    fn notes(&self) -> Vec<String> {
        self.header.notes.clone()
    }

    fn describe(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        let version = if self.node.container == Container::Zarr3 { 3 } else { 2 };
        facts.insert("format".into(), "zarr".into());
        facts.insert("version".into(), version.into());
        if let Some(shard) = self.shard() {
            facts.insert("shard".into(), json!(shard));
        }
        let codecs = if version == 3 {
            json!(codec_names(self.node.metadata.get("codecs")))
        } else {
            let filters = self.node.metadata.get("filters").and_then(Value::as_array);
            let names = filters.into_iter().flatten().chain(self.node.metadata.get("compressor"));
            json!(names.filter_map(|codec| codec_name(codec, "id")).collect::<Vec<_>>())
        };
        facts.insert("codecs".into(), codecs);
        if self.layout.dtype.read_as() != self.layout.dtype {
            facts.insert("stored_dtype".into(), self.layout.dtype.name().into());
        }
        let fill = self.node.metadata.get("fill_value").cloned().unwrap_or_default();
        facts.insert("fill_value".into(), fill);
        facts
    }
}

/// The name of a codec; for blosc, followed by the name of its compressor.
fn codec_name(codec: &Value, key: &str) -> Option<String> {
    let name = codec.get(key).and_then(Value::as_str).or(codec.as_str())?;
    let inner = codec.get("configuration").unwrap_or(codec).get("cname").and_then(Value::as_str);
    Some(inner.map_or(name.to_owned(), |inner| format!("{name}:{inner}")))
}

/// The names of the codecs in a v3 chain; those of inner chunks follow the sharding codec.
fn codec_names(codecs: Option<&Value>) -> Vec<String> {
    let mut names = Vec::new();
    for codec in codecs.and_then(Value::as_array).into_iter().flatten() {
        names.extend(codec_name(codec, "name"));
        let inner = codec.get("configuration").and_then(|c| c.get("codecs"));
        names.extend(codec_names(inner));
    }
    names
}

/// The element type of an array.
pub(in crate::volume) fn dtype(location: &str, node: &Node) -> Result<Dtype, Error> {
    Ok(header::dtype(location, node)?.0)
}
