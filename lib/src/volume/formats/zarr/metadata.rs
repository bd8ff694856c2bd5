use serde_json::{Map, Value, json};

use crate::volume::node::Container;
use crate::volume::{Codec, Dtype};

/// An array to be written, of any rank.
#[derive(Clone, Debug)]
pub(in crate::volume) struct ArraySpec {
    /// Version 3 or 2.
    pub(in crate::volume) container: Container,
    /// Elements along each dimension.
    pub(in crate::volume) shape: Vec<u64>,
    /// Elements of a chunk along each dimension.
    pub(in crate::volume) chunk: Vec<u64>,
    /// Elements of a shard along each dimension, with sharding.
    pub(in crate::volume) shard: Option<Vec<u64>>,
    /// Element type.
    pub(in crate::volume) dtype: Dtype,
    /// How chunks are compressed.
    pub(in crate::volume) codec: Codec,
    /// The value of chunks that are not stored, as JSON in Zarr's spelling, such as 0 or `"NaN"`.
    pub(in crate::volume) fill: Value,
    /// The names of the dimensions (version 3).
    pub(in crate::volume) names: Vec<String>,
}

/// The fill value 0 of a type.
pub(in crate::volume) fn zero(dtype: Dtype) -> Value {
    match dtype {
        Dtype::Bool => json!(false),
        dtype if dtype.is_integer() => json!(0),
        _ => json!(0.0),
    }
}

/// The metadata of an array: `zarr.json` without its attributes, or `.zarray`.
pub(in crate::volume) fn metadata(spec: &ArraySpec) -> Map<String, Value> {
    let value = if spec.container == Container::Zarr2 { version2(spec) } else { version3(spec) };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn version3(spec: &ArraySpec) -> Value {
    let mut codecs = vec![json!({"name": "bytes", "configuration": {"endian": "little"}})];
    let blosc = |name: &str, level: u8| {
        json!({"name": "blosc", "configuration": {
            "cname": name, "clevel": level, "shuffle": "shuffle",
            "typesize": spec.dtype.size(), "blocksize": 0
        }})
    };
    codecs.extend(match spec.codec {
        Codec::Raw => None,
        Codec::Blosc => Some(blosc("zstd", 1)),
        Codec::Lz4 => Some(blosc("lz4", 5)),
        Codec::Gzip => Some(json!({"name": "gzip", "configuration": {"level": 5}})),
        Codec::Zstd => {
            Some(json!({"name": "zstd", "configuration": {"level": 1, "checksum": false}}))
        }
    });
    let mut outer = &spec.chunk;
    if let Some(shard) = &spec.shard {
        outer = shard;
        codecs = vec![json!({"name": "sharding_indexed", "configuration": {
            "chunk_shape": spec.chunk,
            "codecs": codecs,
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"}
            ],
            "index_location": "end"
        }})];
    }
    json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": spec.shape,
        "data_type": spec.dtype.name(),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": spec.fill,
        "codecs": codecs,
        "dimension_names": spec.names,
    })
}

fn version2(spec: &ArraySpec) -> Value {
    let blosc = |name: &str, level: u8| json!({"id": "blosc", "cname": name, "clevel": level, "shuffle": 1, "blocksize": 0});
    let compressor = match spec.codec {
        Codec::Raw => Value::Null,
        Codec::Blosc => blosc("zstd", 1),
        Codec::Lz4 => blosc("lz4", 5),
        Codec::Gzip => json!({"id": "gzip", "level": 5}),
        Codec::Zstd => json!({"id": "zstd", "level": 1}),
    };
    json!({
        "zarr_format": 2,
        "shape": spec.shape,
        "chunks": spec.chunk,
        "dtype": spec.dtype.descr(),
        "compressor": compressor,
        "fill_value": spec.fill,
        "order": "C",
        "filters": null,
        "dimension_separator": "/",
    })
}
