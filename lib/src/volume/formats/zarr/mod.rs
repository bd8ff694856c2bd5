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

pub(in crate::volume) use metadata::{ArraySpec, metadata, zero};
pub(in crate::volume) use read::{ZarrSource, dtype};
pub(in crate::volume) use write::ZarrSink;

use std::sync::Arc;

use zarrs::array::codec::api::CodecOptions;
use zarrs::array::{Array, ArrayMetadata};

use crate::volume::Error;
use crate::volume::node::{Container, Node};
use folder::FolderStore;

/// Options for `zarrs` without its own parallelism: callers already run in parallel.
fn options() -> CodecOptions {
    CodecOptions::default().with_concurrent_target(1)
}

/// The `zarrs` array for a node's metadata, for writing.
fn array(location: &str, node: &Node) -> Result<Array<FolderStore>, Error> {
    let bad = |what: String| Error::format(location, format!("cannot be written as Zarr: {what}"));
    let value = serde_json::Value::Object(node.metadata.clone());
    let metadata = match node.container {
        Container::Zarr2 => serde_json::from_value(value).map(ArrayMetadata::V2),
        _ => serde_json::from_value(value).map(ArrayMetadata::V3),
    };
    let metadata = metadata.map_err(|error| bad(error.to_string()))?;
    let store = Arc::new(FolderStore::new(&node.path));
    Array::new_with_metadata(store, "/", metadata).map_err(|error| bad(error.to_string()))
}
