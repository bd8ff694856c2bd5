//! Shards: files of inner chunks with an index (sharding codec, version 1.0).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::chain::{Chain, each_row};
use crate::volume::block::c_strides;
use crate::volume::codecs::{self, Size, Step};
use crate::volume::dtype::ByteOrder;

/// Both numbers of the index entry of an inner chunk that is not stored.
const MISSING: u64 = u64::MAX;
/// The number of cached index entries, 16 bytes each, above which the cache is emptied.
const MAX_CACHED_ENTRIES: usize = 1 << 20;

/// The configuration of the sharding codec.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    /// The shape of inner chunks.
    pub(super) chunk: Vec<u64>,
    /// The codec chain of inner chunks.
    pub(super) chain: Chain,
    /// The byte order of the index.
    pub(super) order: ByteOrder,
    /// The codecs of the index: only checksums, so that its size is known.
    pub(super) steps: Vec<Step>,
    /// Whether the index is at the end of the shard.
    pub(super) at_end: bool,
}

/// The index of a shard.
#[derive(Debug)]
pub(super) struct Index {
    /// Offset and length of each inner chunk, in C order.
    pub(super) entries: Vec<(u64, u64)>,
    /// The length of the shard in bytes.
    pub(super) length: u64,
}

impl Shard {
    /// The number of inner chunks along each dimension of a shard of `shape`.
    pub(super) fn counts(&self, shape: &[u64]) -> Vec<u64> {
        shape.iter().zip(&self.chunk).map(|(outer, inner)| outer / inner).collect()
    }

    /// The number of inner chunks of a shard of `shape`.
    pub(super) fn count(&self, shape: &[u64]) -> u64 {
        self.counts(shape).iter().product()
    }

    /// The size in bytes of the index of a shard of `shape`.
    pub(super) fn index_bytes(&self, shape: &[u64]) -> usize {
        let plain = Size::Exactly(self.count(shape) as usize * 16);
        codecs::encoded(&self.steps, plain).max()
    }

    /// The byte offset and the size of the index in a shard of `length` bytes.
    ///
    /// # Errors
    /// A shard that is shorter than its index.
    pub(super) fn index_range(&self, shape: &[u64], length: u64) -> Result<(u64, usize), String> {
        let size = self.index_bytes(shape);
        match length.checked_sub(size as u64) {
            Some(start) => Ok((if self.at_end { start } else { 0 }, size)),
            None => Err(format!("its {length} bytes are fewer than the {size} of its index")),
        }
    }

    /// Parses the index of a shard of `shape` from the bytes at [`Shard::index_range`].
    ///
    /// # Errors
    /// A wrong checksum, or a wrong number of bytes.
    pub(super) fn index(&self, bytes: &[u8], shape: &[u64]) -> Result<Vec<(u64, u64)>, String> {
        let mut plain = Vec::new();
        let size = Size::Exactly(self.count(shape) as usize * 16);
        let undone = codecs::decode(&self.steps, bytes, size, &mut plain);
        undone.map_err(|error| format!("in its shard's index {error}"))?;
        let number = |bytes: &[u8; 8]| match self.order {
            ByteOrder::Little => u64::from_le_bytes(*bytes),
            ByteOrder::Big => u64::from_be_bytes(*bytes),
        };
        let (numbers, _) = plain.as_chunks::<8>();
        Ok(numbers.chunks_exact(2).map(|pair| (number(&pair[0]), number(&pair[1]))).collect())
    }

    /// The byte offset and length of inner chunk `i` in a shard with this index, for elements of
    /// `size` bytes; `None` if it is not stored.
    ///
    /// # Errors
    /// An entry that exceeds the shard or the possible size of an inner chunk.
    pub(super) fn entry(
        &self,
        index: &Index,
        i: usize,
        size: usize,
    ) -> Result<Option<(u64, usize)>, String> {
        let Index { entries, length } = index;
        let (start, bytes) = *entries.get(i).ok_or("its shard's index is too short")?;
        if (start, bytes) == (MISSING, MISSING) {
            return Ok(None);
        }
        if start.checked_add(bytes).is_none_or(|end| end > *length) {
            return Err(format!(
                "its shard's index places {bytes} bytes at {start}, and the shard has {length}"
            ));
        }
        let most = self.chain.encoded(&self.chunk, size).max();
        if bytes > most as u64 {
            return Err(format!("its shard's index gives it {bytes} bytes, it has {most} at most"));
        }
        Ok(Some((start, bytes as usize)))
    }

    /// Decodes a complete shard of `shape` into `out`, in C order; missing inner chunks get `fill`.
    ///
    /// # Errors
    /// A message about what is invalid in `file`.
    pub(super) fn decode(
        &self,
        file: &[u8],
        shape: &[u64],
        fill: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let length = file.len() as u64;
        let (start, bytes) = self.index_range(shape, length)?;
        let entries = self.index(&file[start as usize..start as usize + bytes], shape)?;
        let index = Index { entries, length };
        let size = fill.len();
        out.clear();
        out.extend(fill.iter().cycle().take(shape.iter().product::<u64>() as usize * size));
        let counts = self.counts(shape);
        let (outer, inner) = (c_strides(shape), c_strides(&self.chunk));
        let mut chunk = Vec::new();
        let mut at = vec![0; shape.len()];
        let first = vec![0; shape.len()];
        for i in 0..index.entries.len() {
            let mut rest = i as u64;
            for d in (0..counts.len()).rev() {
                at[d] = rest % counts[d] * self.chunk[d];
                rest /= counts[d];
            }
            let Some((start, bytes)) = self.entry(&index, i, size)? else { continue };
            let bytes = &file[start as usize..start as usize + bytes];
            self.chain.decode(bytes, &self.chunk, fill, &mut chunk)?;
            each_row(&self.chunk, |row, count| {
                let place = |strides: &[usize], base: &[u64]| -> usize {
                    let sum = (0..row.len()).map(|d| (base[d] + row[d]) as usize * strides[d]);
                    sum.sum::<usize>() * size
                };
                let (to, from) = (place(&outer, &at), place(&inner, &first));
                let bytes = count * size;
                out[to..to + bytes].copy_from_slice(&chunk[from..from + bytes]);
            });
        }
        Ok(())
    }
}

/// A cache of shard indices, by position and nesting depth of the shard.
#[derive(Debug, Default)]
pub(super) struct Indices {
    known: Mutex<IndexCache>,
}

#[derive(Debug, Default)]
struct IndexCache {
    indices: HashMap<Vec<u64>, Arc<Index>>,
    /// The number of cached entries, plus 8 for each index to account for its overhead.
    entries: usize,
}

impl Indices {
    /// Returns the index of a shard, and calls `read` if the index is not cached. The result is
    /// `None` if the shard is not stored; `None` is not cached.
    pub(super) fn get<E>(
        &self,
        key: Vec<u64>,
        read: impl FnOnce() -> Result<Option<Index>, E>,
    ) -> Result<Option<Arc<Index>>, E> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known().indices.get(&key) {
            return Ok(Some(Arc::clone(index)));
        }
        let Some(index) = read()? else { return Ok(None) };
        let index = Arc::new(index);
        let mut known = known();
        if known.entries > MAX_CACHED_ENTRIES {
            *known = IndexCache::default();
        }
        known.entries += index.entries.len() + 8;
        known.indices.insert(key, Arc::clone(&index));
        Ok(Some(index))
    }
}
