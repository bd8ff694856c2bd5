//! The store interface of `zarrs` over [`store`].

use std::io;
use std::path::{Path, PathBuf};

use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{
    MaybeBytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey,
};

use crate::store::{self, ReadRange};

/// A folder as a read-only Zarr store; writes go through [`store::put_later`].
#[derive(Debug)]
pub(super) struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// The store at `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The file of a key.
    pub(super) fn path(&self, key: &StoreKey) -> PathBuf {
        self.root.join(key.as_str())
    }
}

fn storage(error: io::Error) -> StorageError {
    StorageError::IOError(std::sync::Arc::new(error))
}

impl ReadableStorageTraits for FolderStore {
    fn get(&self, key: &StoreKey) -> Result<MaybeBytes, StorageError> {
        Ok(store::get(&self.path(key)).map_err(storage)?.map(Into::into))
    }

    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let path = self.path(key);
        let Some(size) = self.size_key(key)? else { return Ok(None) };
        Ok(Some(Box::new(byte_ranges.map(move |range| {
            let wanted = match range {
                ByteRange::FromStart(start, None) => {
                    let length = size.saturating_sub(start) as usize;
                    ReadRange::Range { start, length }
                }
                ByteRange::FromStart(start, Some(length)) => {
                    ReadRange::Range { start, length: length as usize }
                }
                ByteRange::Suffix(length) => ReadRange::End(length as usize),
            };
            let mut bytes = Vec::new();
            store::read(&path, wanted, &mut bytes).map_err(storage)?;
            // the ranges in a corrupt shard index can be arbitrary
            if bytes.len() as u64 != range.length(size) {
                let what = format!("it has {size} bytes, wanted are those of {range}");
                return Err(StorageError::Other(what));
            }
            Ok(bytes.into())
        }))))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        Ok(store::stat_file(&self.path(key)).map_err(storage)?.map(|about| about.length))
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}
