//! The metadata of an array: `.zarray` (Zarr v2) and `zarr.json` (v3, core 3.1).
//!
//! Unsupported features are refused by name. Those with `"must_understand": false`, which readers
//! are allowed to ignore, lead to a note instead.

use serde_json::{Map, Value};

use super::chain::{Body, Chain};
use super::keys::Keys;
use super::shard::Shard;
use super::{codecs3, fill};
use crate::volume::codecs::{self, Step};
use crate::volume::node::{Container, Node};
use crate::volume::{ByteOrder, Dtype, Error, extent, shorten};

/// The parsed metadata of an array.
pub(super) struct Header {
    /// Elements along each dimension.
    pub(super) shape: Vec<u64>,
    /// Elements of a chunk along each dimension; with sharding, of a shard.
    pub(super) chunk: Vec<u64>,
    /// The stored element type.
    pub(super) dtype: Dtype,
    /// The fill value as a stored element, in the byte order of `chain`.
    pub(super) fill: Vec<u8>,
    /// The naming of chunk files.
    pub(super) keys: Keys,
    /// The codec chain of chunks.
    pub(super) chain: Chain,
    /// Notes about features that are ignored, as the metadata allow.
    pub(super) notes: Vec<String>,
}

impl Header {
    /// Reads the metadata of the array `node`.
    ///
    /// # Errors
    /// [`Error::Format`] if the metadata are incomplete or invalid, or need an unsupported feature.
    pub(super) fn read(location: &str, node: &Node) -> Result<Self, Error> {
        let bad = |message: String| Error::format(location, message);
        let metadata = &node.metadata;
        let version = if node.container == Container::Zarr2 { 2 } else { 3 };
        let found = metadata.get("zarr_format").unwrap_or(&Value::Null);
        if found.as_u64() != Some(version) {
            let found = shorten(&found.to_string());
            return Err(bad(format!("has the zarr_format {found}; 2 and 3 can be read")));
        }
        let shape = sizes(metadata.get("shape")).ok_or_else(|| bad(no_sizes("shape")))?;
        let (dtype, order) = dtype(location, node)?;
        let chunk = match version {
            2 => sizes(metadata.get("chunks")).ok_or_else(|| bad(no_sizes("chunks")))?,
            _ => grid(metadata.get("chunk_grid")).map_err(bad)?,
        };
        extent::check(location, &shape, &chunk, dtype.size(), false)?;
        let mut notes = Vec::new();
        let (chain, keys) = if version == 2 {
            let separator = metadata.get("dimension_separator");
            let keys = Keys::of_version2(separator, &node.path, shape.len());
            (version2(metadata, order, shape.len()).map_err(bad)?, keys.map_err(bad)?)
        } else {
            extensions(metadata, &mut notes).map_err(bad)?;
            let list = metadata.get("codecs");
            let chain = codecs3::chain(list, &chunk, dtype, &mut notes).map_err(bad)?;
            let keys = Keys::of_version3(metadata.get("chunk_key_encoding"));
            (chain, keys.map_err(bad)?)
        };
        if chain.raw_order().is_none() {
            let (_, inner) = innermost(&chunk, &chain);
            extent::check(location, &shape, inner, dtype.size(), true)?;
        }
        let fill = metadata.get("fill_value");
        let fill = fill::fill(fill, dtype, chain.byte_order()).map_err(bad)?;
        Ok(Self { shape, chunk, dtype, fill, keys, chain, notes })
    }

    /// The codec chain and the shape of the innermost chunks that can be read individually.
    pub(super) fn innermost(&self) -> (&Chain, &[u64]) {
        innermost(&self.chunk, &self.chain)
    }
}

fn innermost<'a>(chunk: &'a [u64], chain: &'a Chain) -> (&'a Chain, &'a [u64]) {
    match chain.shard() {
        Some(shard) => innermost(&shard.chunk, &shard.chain),
        None => (chain, chunk),
    }
}

fn no_sizes(name: &str) -> String {
    format!("has no list of sizes '{name}' in its metadata")
}

/// The sizes in a JSON array; `None` if it is absent or contains anything else.
pub(super) fn sizes(value: Option<&Value>) -> Option<Vec<u64>> {
    value?.as_array()?.iter().map(Value::as_u64).collect()
}

/// The stored element type and, in version 2, its byte order (little endian in version 3).
pub(super) fn dtype(location: &str, node: &Node) -> Result<(Dtype, ByteOrder), Error> {
    let version2 = node.container == Container::Zarr2;
    let found = node.metadata.get(if version2 { "dtype" } else { "data_type" });
    let found = found.unwrap_or(&Value::Null);
    let dtype = if version2 {
        found.as_str().and_then(Dtype::from_descr)
    } else {
        let name = found.as_str().or_else(|| found.get("name")?.as_str());
        name.and_then(Dtype::from_name).map(|dtype| (dtype, ByteOrder::Little))
    };
    dtype.ok_or_else(|| Error::dtype(location, found))
}

/// The chunk shape of a regular grid.
fn grid(grid: Option<&Value>) -> Result<Vec<u64>, String> {
    let name = grid.and_then(|grid| grid.get("name"));
    if name.is_none_or(|name| name != "regular") {
        let found = shorten(&grid.unwrap_or(&Value::Null).to_string());
        return Err(format!("has the chunk grid {found}; only regular ones can be read"));
    }
    let shape = grid.and_then(|grid| grid.get("configuration")?.get("chunk_shape"));
    sizes(shape).ok_or_else(|| no_sizes("chunk_shape"))
}

/// Whether the metadata allow readers to ignore an extension (`must_understand` is false).
pub(super) fn may_be_ignored(extension: &Value) -> bool {
    extension.get("must_understand") == Some(&Value::Bool(false))
}

/// Refuses unknown members of version 3 metadata, and all storage transformers, because no storage
/// transformer is specified. A member or transformer that [`may_be_ignored`] is listed in `notes`
/// instead.
fn extensions(metadata: &Map<String, Value>, notes: &mut Vec<String>) -> Result<(), String> {
    const KNOWN_KEYS: [&str; 11] = [
        "zarr_format",
        "node_type",
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "fill_value",
        "codecs",
        "attributes",
        "storage_transformers",
        "dimension_names",
    ];
    let transformers = metadata.get("storage_transformers").and_then(Value::as_array);
    let transformers = transformers.into_iter().flatten();
    let transformers = transformers.map(|value| {
        let name = value.get("name").and_then(Value::as_str).or(value.as_str());
        (format!("storage transformer '{}'", shorten(name.unwrap_or("without a name"))), value)
    });
    let members = metadata.iter().filter(|(name, _)| !KNOWN_KEYS.contains(&name.as_str()));
    let members = members.map(|(name, value)| (format!("extension '{}'", shorten(name)), value));
    for (what, value) in transformers.chain(members) {
        if !may_be_ignored(value) {
            return Err(format!("needs the {what}, which is not supported"));
        }
        notes.push(format!("its {what} is ignored, as its metadata allow"));
    }
    Ok(())
}

/// The codec chain of version 2: order, filters and compressor.
fn version2(metadata: &Map<String, Value>, bytes: ByteOrder, rank: usize) -> Result<Chain, String> {
    let order = match metadata.get("order").map(|order| order.as_str()) {
        None | Some(Some("C")) => None,
        Some(Some("F")) => Some((0..rank).rev().collect()),
        Some(_) => {
            let found = shorten(&metadata["order"].to_string());
            return Err(format!("has the order {found}; C and F are known"));
        }
    };
    let filters = match metadata.get("filters") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(filters)) => filters,
        Some(other) => {
            return Err(format!("has the filters {}, no list", shorten(&other.to_string())));
        }
    };
    let compressor = metadata.get("compressor").filter(|value| !value.is_null());
    let mut steps = Vec::new();
    for config in filters.iter().chain(compressor) {
        let name = config.get("id").and_then(Value::as_str);
        let name = name.ok_or_else(|| {
            format!("has a filter or compressor without 'id': {}", shorten(&config.to_string()))
        })?;
        steps.push(Step::parse(name, config)?.ok_or_else(|| unknown(name))?);
    }
    Ok(Chain { order, body: Body::Elements(bytes), steps })
}

/// The error message for an unsupported codec.
pub(super) fn unknown(name: &str) -> String {
    let name = shorten(name);
    format!("is stored with the codec '{name}', which is not supported; {} are", codecs::KNOWN)
}

/// The nested shards of a chain whose inner chunks are read individually, outermost first: the
/// shape of a shard, and its codec.
pub(super) fn layers<'a>(chunk: &'a [u64], chain: &'a Chain) -> Vec<(&'a [u64], &'a Shard)> {
    let mut layers = Vec::new();
    let (mut chunk, mut chain) = (chunk, chain);
    while let Some(shard) = chain.shard() {
        layers.push((chunk, shard));
        (chunk, chain) = (&shard.chunk, &shard.chain);
    }
    layers
}
