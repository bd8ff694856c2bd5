//! A cache of decoded blocks.
//!
//! Neighbouring boxes with halos share chunks: without a cache, a chunk is decoded up to 27 times.
//! Blocks are evicted first in, first out, except that a block that was used after it was added
//! gets a second chance (the "clock" algorithm). Threads that want the same block at the same time
//! wait for the first of them to decode it.
//!
//! The limit covers all memory of the cache: voxels, and what the allocator and the tables need for
//! each entry, so that millions of small or missing chunks are counted correctly. Room is made
//! before a block is decoded; if no room can be made, the block is not cached.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::device::waiting;
use crate::volume::Error;
use crate::volume::block::Block;

/// The default limit of a cache, bytes.
pub(in crate::volume) const LIMIT: u64 = 64 << 20;

/// Bytes of an entry besides its voxels, checked by `tests::entries_take_what_is_counted_for_them`:
/// the slot in the hash table (at three quarters full, with its copy while the table grows), the
/// number in the queue, and the allocations of slot, content, strides and extent with the
/// allocator's headers.
pub(in crate::volume) const ENTRY: u64 = 400;
/// The same for a chunk that is not stored and so has no content.
const MISSING: u64 = 168;

/// A decoded block; `block` is `None` if it is not stored.
#[derive(Default)]
pub(in crate::volume) struct Decoded {
    pub(in crate::volume) block: Option<Block>,
    pub(in crate::volume) data: Vec<u8>,
}

impl Decoded {
    /// Bytes that the block occupies in the cache: its voxels and the overhead of its entry.
    fn bytes(&self) -> u64 {
        if self.block.is_none() && self.data.capacity() == 0 {
            MISSING
        } else {
            ENTRY + self.data.capacity() as u64
        }
    }
}

#[derive(Default)]
struct CacheSlot {
    wanted: AtomicBool,
    content: Mutex<Option<Arc<Decoded>>>,
}

impl CacheSlot {
    /// Locks the content. While a thread waits here for another thread to decode the block, its
    /// compute permit is released.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Decoded>>> {
        match self.content.try_lock() {
            Ok(content) => content,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                waiting(|| self.content.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

#[derive(Default)]
struct CacheState {
    slots: HashMap<u64, Arc<CacheSlot>>,
    queue: VecDeque<u64>,
    /// Bytes of all entries, including those reserved for blocks that are being decoded.
    bytes: u64,
    /// The maximum of `bytes` so far.
    peak: u64,
}

/// The cached blocks of one volume.
pub(in crate::volume) struct Cache {
    limit: AtomicU64,
    state: Mutex<CacheState>,
    /// The content shared by all chunks that are not stored.
    missing: Arc<Decoded>,
}

impl Cache {
    /// Creates a cache of up to `limit` bytes.
    pub(in crate::volume) fn new(limit: u64) -> Self {
        Self { limit: limit.into(), state: Mutex::default(), missing: Arc::default() }
    }

    /// The limit in bytes.
    pub(in crate::volume) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the limit in bytes.
    pub(in crate::volume) fn keep(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes by which the cache can still grow, up to the smaller of its limit and `of`, the bytes
    /// of all blocks that could be cached.
    pub(in crate::volume) fn room(&self, of: u64) -> u64 {
        self.limit().min(of).saturating_sub(self.lock().bytes)
    }

    /// Whether a block with this many bytes of voxels fits into the cache.
    pub(in crate::volume) fn keeps(&self, bytes: usize) -> bool {
        ENTRY + bytes as u64 <= self.limit()
    }

    /// Returns block `number`, which has `expected` bytes. If the block is not cached, calls
    /// `decode` with a buffer that `decode` can reuse. Errors are not cached. Returns `None`,
    /// without calling `decode`, if the block is not cached and there is no room for it.
    pub(in crate::volume) fn get(
        &self,
        number: u64,
        expected: usize,
        decode: impl FnOnce(Vec<u8>) -> Result<Decoded, Error>,
    ) -> Result<Option<Arc<Decoded>>, Error> {
        let reserved = ENTRY + expected as u64;
        let (slot, spare) = {
            let mut state = self.lock();
            if let Some(slot) = state.slots.get(&number) {
                slot.wanted.store(true, Ordering::Relaxed);
                (Arc::clone(slot), None)
            } else {
                let Some(spare) = state.make_room(reserved, self.limit()) else { return Ok(None) };
                let slot = Arc::<CacheSlot>::default();
                state.slots.insert(number, Arc::clone(&slot));
                state.queue.push_back(number);
                state.bytes += reserved;
                state.peak = state.peak.max(state.bytes);
                (slot, Some(spare))
            }
        };
        let mut content = slot.lock();
        if let Some(known) = &*content {
            return Ok(Some(Arc::clone(known)));
        }
        let decoded = match decode(spare.unwrap_or_default()) {
            Ok(decoded) if decoded.bytes() == MISSING => Arc::clone(&self.missing),
            Ok(decoded) => Arc::new(decoded),
            Err(error) => {
                drop(content);
                self.forget(number, &slot, reserved);
                return Err(error);
            }
        };
        *content = Some(Arc::clone(&decoded));
        drop(content);
        let mut state = self.lock();
        // if another thread failed to decode this slot, the slot is no longer in the table: only
        // the threads that waited for it still hold it
        if state.slots.get(&number).is_some_and(|known| Arc::ptr_eq(known, &slot)) {
            state.bytes = (state.bytes + decoded.bytes()).saturating_sub(reserved);
            state.peak = state.peak.max(state.bytes);
        }
        Ok(Some(decoded))
    }

    /// Removes an entry that could not be decoded.
    fn forget(&self, number: u64, slot: &Arc<CacheSlot>, reserved: u64) {
        let mut state = self.lock();
        if state.slots.get(&number).is_some_and(|known| Arc::ptr_eq(known, slot)) {
            state.slots.remove(&number);
            state.bytes = state.bytes.saturating_sub(reserved);
        }
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheState {
    /// Evicts blocks until there is room for `more` bytes. Returns the buffer of an evicted block
    /// for reuse, or an empty buffer; `None` if there is no room.
    fn make_room(&mut self, more: u64, limit: u64) -> Option<Vec<u8>> {
        let mut spare = Vec::new();
        let mut rounds = 2 * self.queue.len();
        while self.bytes.saturating_add(more) > limit {
            rounds = rounds.checked_sub(1)?;
            let number = self.queue.pop_front()?;
            let Some(slot) = self.slots.get(&number) else { continue };
            // keep blocks that are being decoded or are in use by a reader
            let busy = slot.content.try_lock().map_or(true, |content| match &*content {
                Some(known) => known.block.is_some() && Arc::strong_count(known) > 1,
                None => true,
            });
            if busy || slot.wanted.swap(false, Ordering::Relaxed) {
                self.queue.push_back(number);
                continue;
            }
            let Some(slot) = self.slots.remove(&number) else { continue };
            let content = slot.content.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(content) = content else { continue };
            self.bytes = self.bytes.saturating_sub(content.bytes());
            if let Some(content) = Arc::into_inner(content) {
                spare = content.data;
            }
        }
        Some(spare)
    }
}

#[cfg(test)]
mod tests;
