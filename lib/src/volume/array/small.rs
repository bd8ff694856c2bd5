//! Arrays of `f64` of any rank that fit in memory, such as local affine transforms.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::volume::array::Array;
use crate::volume::calibration::Calibration;
use crate::volume::node::{Container, Node};
use crate::volume::output_paths::OutputPaths;
use crate::volume::zarr::{self, ArraySpec, ZarrSink};
use crate::volume::{Codec, Dtype, Error, Existing, check_zarr_name, output, path_of};
use crate::{files, store};

/// Writes a Zarr array of one chunk, replacing an existing array. The write is atomic: an
/// interrupted run leaves only a temporary folder, which readers ignore. In a bucket, where nothing
/// can be renamed, the old array is removed first, and the metadata are written last: an
/// interrupted run leaves a chunk without metadata, which readers ignore.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if `data` is empty or does not have as many elements as an
/// array of this `shape`, or for an existing folder that is not an array.
pub fn write_small_array(
    location: &str,
    shape: &[u64],
    data: &[f64],
    attributes: Map<String, Value>,
) -> Result<(), Error> {
    if shape.iter().product::<u64>() != data.len() as u64 || data.is_empty() {
        let message = format!("cannot hold {} numbers in the shape {shape:?}", data.len());
        return Err(Error::format(location, message));
    }
    check_zarr_name(location)?;
    let path = path_of(location)?;
    let place = OutputPaths::of_array(location, &path, Container::Zarr3)?;
    place.check(location, Existing::Overwrite)?;
    let metadata = zarr::metadata(&spec(shape));
    if Node::read(&path)?.is_some_and(|old| !old.is_array) {
        let message = "is a group; it is not replaced by an array, give another name";
        return Err(Error::format(location, message));
    }
    let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let node = |path| Node {
        path,
        container: Container::Zarr3,
        is_array: true,
        metadata: metadata.clone(),
        attributes: Map::new(),
    };
    let first = vec![0; shape.len()];
    if store::is_remote(&path) {
        place.remove(&Existing::Overwrite)?;
        place.make_groups()?;
        ZarrSink::open(location, &node(path.clone()))?.store(&first, &bytes)?;
        return output::write_metadata(&path, Container::Zarr3, metadata, attributes);
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    store::sweep(parent);
    let node = node(store::temporary(parent));
    place.make_groups()?;
    // create the folder explicitly: a chunk of fill values is not stored, so that an array of zeros
    // would otherwise have no folder
    fs::create_dir_all(&node.path).map_err(|source| Error::io("create", &node.path, source))?;
    ZarrSink::open(location, &node)?.store(&first, &bytes)?;
    output::write_metadata(&node.path, Container::Zarr3, metadata, attributes)?;
    // sync the data before the rename, so that the final name never refers to incomplete data
    let failed = |source| Error::io("write", &path, source);
    files::sync_pending().map_err(|error| failed(error.source))?;
    store::replace_folder(&node.path, &path).map_err(failed)?;
    files::queue_folder(parent);
    files::sync_pending().map_err(|error| failed(error.source))
}

/// The properties of a compressed `float64` array that consists of one chunk.
fn spec(shape: &[u64]) -> ArraySpec {
    ArraySpec {
        container: Container::Zarr3,
        shape: shape.to_vec(),
        chunk: shape.to_vec(),
        shard: None,
        dtype: Dtype::F64,
        codec: Codec::Zstd,
        fill: json!(0.0),
        names: (0..shape.len()).map(|d| format!("dim_{d}")).collect(),
    }
}

/// Reads a Zarr array of `float64`, and returns its shape, its elements in C order, and its
/// attributes.
///
/// # Errors
/// [`Error`] if nothing exists at `location`, or it is not a Zarr array of `float64`, or it cannot
/// be read.
pub fn read_small_array(location: &str) -> Result<(Vec<u64>, Vec<f64>, Map<String, Value>), Error> {
    let path = path_of(location)?;
    let Some(node) = Node::read(&path)? else {
        return Err(Error::missing(location, "a Zarr array of float64 is wanted"));
    };
    if !node.is_array || node.container == Container::N5 {
        return Err(Error::format(location, "is no Zarr array; one of float64 is wanted"));
    }
    let dtype = zarr::dtype(location, &node)?;
    if dtype != Dtype::F64 {
        return Err(Error::format(location, format!("holds {dtype}; float64 is wanted")));
    }
    let attributes = node.attributes.clone();
    let array = Array::of_node(location, node, Calibration::default())?;
    let (shape, data) = array.read_all()?;
    Ok((shape, data, attributes))
}
