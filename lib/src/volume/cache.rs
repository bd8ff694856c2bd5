//! Decoded blocks that are likely to be wanted again.
//!
//! Neighbouring boxes with halos meet in the same chunks: without a memory of what was decoded
//! last, a chunk is decoded up to 27 times. Blocks are given up in the order in which they came,
//! those that were wanted meanwhile one round later ("clock"). Threads that want the same block at
//! once wait for the first of them.
//!
//! The limit holds for all that the cache takes: voxels, and what the allocator and the tables take for
//! each entry, so that millions of small or missing chunks count for what they are. Room is made before a
//! block is decoded; where none can be made, the block is not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Error;
use super::block::Block;
use crate::device::waiting;

/// What a volume keeps unless it is told otherwise, bytes.
pub(super) const LIMIT: u64 = 64 << 20;

/// Bytes of an entry beside its voxels. Measured by `tests::entries_take_what_is_counted_for_them`: the slot
/// of the table (at three quarters full, and its copy while it grows), the number in the queue, the
/// allocations for slot, content, strides and extent, each with the allocator's head.
pub(super) const ENTRY: u64 = 400;
/// The same for a chunk that is not stored, which has no content.
const MISSING: u64 = 168;

/// A decoded block; none where it is not stored.
#[derive(Default)]
pub(super) struct Decoded {
    pub(super) block: Option<Block>,
    pub(super) data: Vec<u8>,
}

impl Decoded {
    /// Bytes that it takes in the cache.
    fn bytes(&self) -> u64 {
        if self.block.is_none() && self.data.capacity() == 0 {
            MISSING
        } else {
            ENTRY + self.data.capacity() as u64
        }
    }
}

#[derive(Default)]
struct Slot {
    wanted: AtomicBool,
    content: Mutex<Option<Arc<Decoded>>>,
}

impl Slot {
    /// Its content; a thread that waits for another to decode it does not compute.
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
struct State {
    slots: HashMap<u64, Arc<Slot>>,
    queue: VecDeque<u64>,
    /// Taken by all entries, with what those that are being decoded will take.
    bytes: u64,
    /// The most that it has been.
    most: u64,
}

/// The blocks kept for one volume.
pub(super) struct Cache {
    limit: AtomicU64,
    state: Mutex<State>,
    /// The content of every chunk that is not stored.
    missing: Arc<Decoded>,
}

impl Cache {
    /// Keeps up to `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit: limit.into(), state: Mutex::default(), missing: Arc::default() }
    }

    /// How much it keeps at most.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Keeps no more than `bytes` from now on.
    pub(super) fn keep(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that it may come to take of so many beside those that it takes already.
    pub(super) fn room(&self, of: u64) -> u64 {
        self.limit().min(of).saturating_sub(self.lock().bytes)
    }

    /// Whether a block of so many voxel bytes can be kept.
    pub(super) fn keeps(&self, bytes: usize) -> bool {
        ENTRY + bytes as u64 <= self.limit()
    }

    /// The block `number`, decoded by `decode` where it is not known, of `expected` bytes. A failure is not
    /// kept. `None` where it is neither known nor could be kept: `decode` has then not been called.
    pub(super) fn get(
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
                let slot = Arc::<Slot>::default();
                state.slots.insert(number, Arc::clone(&slot));
                state.queue.push_back(number);
                state.bytes += reserved;
                state.most = state.most.max(state.bytes);
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
        // an earlier failure has taken it out: then it belongs to whoever waited for it alone
        if state.slots.get(&number).is_some_and(|known| Arc::ptr_eq(known, &slot)) {
            state.bytes = (state.bytes + decoded.bytes()).saturating_sub(reserved);
            state.most = state.most.max(state.bytes);
        }
        Ok(Some(decoded))
    }

    /// Takes out an entry that could not be decoded.
    fn forget(&self, number: u64, slot: &Arc<Slot>, reserved: u64) {
        let mut state = self.lock();
        if state.slots.get(&number).is_some_and(|known| Arc::ptr_eq(known, slot)) {
            state.slots.remove(&number);
            state.bytes = state.bytes.saturating_sub(reserved);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives blocks up until `more` bytes have room; the buffer of one of them is returned for the next.
    /// `None` where there is no room.
    fn make_room(&mut self, more: u64, limit: u64) -> Option<Vec<u8>> {
        let mut spare = Vec::new();
        let mut rounds = 2 * self.queue.len();
        while self.bytes.saturating_add(more) > limit {
            rounds = rounds.checked_sub(1)?;
            let number = self.queue.pop_front()?;
            let Some(slot) = self.slots.get(&number) else { continue };
            // being decoded or read right now, or wanted since it came
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
