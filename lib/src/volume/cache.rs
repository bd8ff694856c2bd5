//! Decoded blocks that are likely to be wanted again.
//!
//! Neighbouring boxes with halos meet in the same chunks: without a memory of what was decoded
//! last, a chunk is decoded up to 27 times. Blocks are given up in the order in which they came,
//! those that were wanted meanwhile one round later ("clock"). Threads that want the same block at
//! once wait for the first of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::block::Block;

/// What a volume keeps unless it is told otherwise, bytes.
pub(super) const LIMIT: usize = 64 << 20;

/// A decoded block; none where it is not stored.
pub(super) struct Decoded {
    pub(super) block: Option<Block>,
    pub(super) data: Vec<u8>,
}

#[derive(Default)]
struct Slot {
    wanted: AtomicBool,
    content: Mutex<Option<Arc<Decoded>>>,
}

#[derive(Default)]
struct State {
    slots: HashMap<Vec<u64>, Arc<Slot>>,
    queue: VecDeque<Vec<u64>>,
    bytes: usize,
}

/// The blocks kept for one volume.
pub(super) struct Cache {
    limit: AtomicUsize,
    state: Mutex<State>,
}

impl Cache {
    /// Keeps up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.into(), state: Mutex::default() }
    }

    /// How much it keeps at most.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Keeps no more than `bytes` from now on; a limit that is lower stays.
    pub(super) fn keep_at_most(&self, bytes: usize) {
        self.limit.fetch_min(bytes, Ordering::Relaxed);
    }

    /// Bytes that it may come to keep of so many beside those that it keeps.
    pub(super) fn room(&self, of: usize) -> usize {
        let held = self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        self.limit().min(of).saturating_sub(held)
    }

    /// Whether blocks of this size are kept: a few at least must fit.
    pub(super) fn keeps(&self, bytes: usize) -> bool {
        bytes.saturating_mul(4) <= self.limit()
    }

    /// The block `index`, decoded by `decode` where it is not known. A failure is not kept.
    pub(super) fn get(
        &self,
        index: &[u64],
        decode: impl FnOnce(Vec<u8>) -> Result<Decoded, Error>,
    ) -> Result<Arc<Decoded>, Error> {
        let slot = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = state.slots.get(index) {
                slot.wanted.store(true, Ordering::Relaxed);
                Arc::clone(slot)
            } else {
                let slot = Arc::<Slot>::default();
                state.slots.insert(index.to_vec(), Arc::clone(&slot));
                state.queue.push_back(index.to_vec());
                slot
            }
        };
        let mut content = slot.content.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*content {
            return Ok(Arc::clone(known));
        }
        let decoded = Arc::new(decode(self.make_room())?);
        *content = Some(Arc::clone(&decoded));
        drop(content);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // given up while it was being decoded: then it belongs to whoever wanted it alone
        if state.slots.get(index).is_some_and(|known| Arc::ptr_eq(known, &slot)) {
            state.bytes += decoded.data.capacity();
        }
        Ok(decoded)
    }

    /// Gives blocks up until the limit is kept; one of their buffers is returned for the next one.
    fn make_room(&self) -> Vec<u8> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spare = Vec::new();
        let mut rounds = 2 * state.queue.len();
        while state.bytes > self.limit() && rounds > 0 {
            rounds -= 1;
            let Some(index) = state.queue.pop_front() else { break };
            let Some(slot) = state.slots.get(&index) else { continue };
            // being decoded right now, or wanted since it came
            let busy = slot.content.try_lock().map_or(true, |content| content.is_none());
            if busy || slot.wanted.swap(false, Ordering::Relaxed) {
                state.queue.push_back(index);
                continue;
            }
            let Some(slot) = state.slots.remove(&index) else { continue };
            let content = slot.content.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(content) = content else { continue };
            state.bytes = state.bytes.saturating_sub(content.data.capacity());
            if let Some(content) = Arc::into_inner(content) {
                spare = content.data;
            }
        }
        spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(byte: u8) -> Decoded {
        Decoded { block: None, data: vec![byte; 100] }
    }

    #[test]
    fn a_block_is_decoded_once_until_others_push_it_out() {
        let cache = Cache::new(1000);
        let mut count = 0;
        for index in [0, 1, 0, 1, 0] {
            let found = cache.get(&[index], |_| {
                count += 1;
                Ok(decoded(index as u8))
            });
            assert_eq!(found.unwrap().data[0], index as u8);
        }
        assert_eq!(count, 2);
        for index in 2..40 {
            cache.get(&[index], |_| Ok(decoded(0))).unwrap();
        }
        assert!(cache.state.lock().unwrap().bytes <= 1100);
        cache
            .get(&[1], |_| {
                count += 1;
                Ok(decoded(1))
            })
            .unwrap();
        assert_eq!(count, 3);
    }

    #[test]
    fn a_failure_is_tried_again() {
        let cache = Cache::new(1000);
        assert!(cache.get(&[0], |_| Err(Error::missing("a", "b"))).is_err());
        assert!(cache.get(&[0], |_| Ok(decoded(1))).is_ok());
    }

    #[test]
    fn threads_that_want_one_block_share_its_decoding() {
        let cache = Cache::new(1000);
        let count = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for index in 0..5 {
                        let found = cache.get(&[index], |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                            Ok(decoded(index as u8))
                        });
                        assert_eq!(found.unwrap().data, vec![index as u8; 100]);
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 5);
    }
}
