//! Zarr arrays, versions 3 and 2, through `zarrs`; axes and voxel sizes from their metadata.

mod metadata;
mod read;
mod write;

pub(super) use metadata::{ArraySpec, metadata};
pub(super) use read::{ZarrSource, dtype};
pub(super) use write::ZarrSink;

use std::io;
use std::path::Path;
use std::sync::Arc;

use zarrs::array::codec::api::CodecOptions;
use zarrs::array::{Array, ArrayError, ArrayMetadata};
use zarrs::storage::StorageError;

use super::Error;
use super::node::{Container, Node};
use super::store::Folder;

/// Our own loop is the parallel one.
fn options() -> CodecOptions {
    CodecOptions::default().with_concurrent_target(1)
}

/// The array that `zarrs` makes of a node's metadata.
fn array(location: &str, node: &Node) -> Result<Array<Folder>, Error> {
    let bad = |what: String| Error::format(location, format!("cannot be read as Zarr: {what}"));
    let value = serde_json::Value::Object(node.metadata.clone());
    let metadata = match node.container {
        Container::Zarr2 => serde_json::from_value(value).map(ArrayMetadata::V2),
        _ => serde_json::from_value(value).map(ArrayMetadata::V3),
    };
    let metadata = metadata.map_err(|error| bad(error.to_string()))?;
    let store = Arc::new(Folder::new(&node.path));
    Array::new_with_metadata(store, "/", metadata).map_err(|error| bad(error.to_string()))
}

/// The file system's part in an error, where it has one.
fn refusal(error: &ArrayError) -> Option<io::Error> {
    use zarrs::array::codec::api::CodecError;
    let (ArrayError::StorageError(StorageError::IOError(io))
    | ArrayError::CodecError(
        CodecError::IOError(io) | CodecError::StorageError(StorageError::IOError(io)),
    )) = error
    else {
        return None;
    };
    // decoders report damaged data as I/O errors of their own making: those have no number
    io.raw_os_error().map(io::Error::from_raw_os_error)
}

/// An error for a chunk: the file system's, or damage.
fn chunk_error(location: &str, index: &[u64], file: &Path, error: &ArrayError) -> Error {
    match refusal(error) {
        Some(source) => Error::io("read", file, source),
        None => Error::damaged(location, index, file, error.to_string()),
    }
}

/// Reads a whole array of doubles, with its shape.
pub(super) fn read_all(location: &str, node: &Node) -> Result<(Vec<u64>, Vec<f64>), Error> {
    let array = array(location, node)?;
    let data = array.retrieve_array_subset_opt(&array.subset_all(), &options());
    let data = data.map_err(|error| chunk_error(location, &[0], &node.path, &error))?;
    Ok((array.shape().to_vec(), data))
}
