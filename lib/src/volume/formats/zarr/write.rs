use std::borrow::Cow;
use std::path::{Path, PathBuf};

use zarrs::array::codec::api::ArrayToBytesCodecTraits;
use zarrs::array::{Array, ArrayBytes};

use super::folder::FolderStore;
use super::options;
use crate::store;
use crate::volume::Error;
use crate::volume::node::Node;
use crate::volume::output_paths::partial_folder;

/// A Zarr array open for writing, chunk by chunk (shard by shard).
pub(in crate::volume) struct ZarrSink {
    location: String,
    array: Array<FolderStore>,
    path: PathBuf,
    partial: PathBuf,
    fill: Vec<u8>,
}

impl ZarrSink {
    pub(in crate::volume) fn open(location: &str, node: &Node) -> Result<Self, Error> {
        let array = super::array(location, node)?;
        let fill = array.fill_value().as_ne_bytes().to_vec();
        let partial = partial_folder(&node.path);
        Ok(Self { location: location.to_owned(), array, path: node.path.clone(), partial, fill })
    }

    /// The folder of the array.
    pub(in crate::volume) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a chunk's file.
    pub(in crate::volume) fn file(&self, index: &[u64]) -> PathBuf {
        self.array.storage().path(&self.array.chunk_key(index))
    }

    /// Stores one complete chunk (shard), given as elements in C order and native byte order.
    /// Returns whether the chunk is stored: for a chunk that has only the fill value, no file is
    /// written, and an existing file is deleted.
    pub(in crate::volume) fn store(&self, index: &[u64], bytes: &[u8]) -> Result<bool, Error> {
        let path = self.file(index);
        let failed = |source| Error::io("write", &path, source);
        // true if the first element is the fill value and each element equals the one before it
        let size = self.fill.len();
        if bytes.starts_with(&self.fill) && bytes[size..] == bytes[..bytes.len() - size] {
            return store::delete(&path).map(|()| false).map_err(failed);
        }
        let bad = |what: String| Error::format(&self.location, format!("cannot encode: {what}"));
        let shape = self.array.chunk_shape(index).map_err(|error| bad(error.to_string()))?;
        let encoded = self.array.codecs().encode(
            ArrayBytes::Fixed(Cow::Borrowed(bytes)),
            &shape,
            self.array.data_type(),
            self.array.fill_value(),
            &options(),
        );
        let encoded = encoded.map_err(|error| bad(error.to_string()))?;
        store::put_later(&self.partial, &path, &encoded).map(|()| true).map_err(failed)
    }
}
