use std::sync::{Mutex, PoisonError};

/// A pool of reusable buffers. Fresh memory costs a page fault per 4 KiB, which takes seven times
/// as long as filling 4 KiB of memory that is already mapped.
///
/// When a buffer grows, its old memory is freed, but the allocator can hold it for a long time. A
/// pool that knows the maximum length therefore allocates all buffers with that length.
pub struct Pool<T> {
    free: Mutex<Vec<Vec<T>>>,
    usual: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { free: Mutex::default(), usual: 0 }
    }
}

impl<T: Copy + Default> Pool<T> {
    /// A pool whose buffers have `usual` elements, or more if a caller of [`Pool::take`] needs
    /// more. The unused pages of a buffer occupy no memory.
    pub fn of(usual: usize) -> Self {
        Self { usual, ..Self::default() }
    }

    /// A buffer of at least `len` elements; its contents are unspecified.
    pub fn take(&self, len: usize) -> Vec<T> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match free {
            Some(buffer) if buffer.len() >= len => buffer,
            too_small => {
                drop(too_small);
                // without a known maximum, the next request is likely to be slightly larger than
                // this one
                let length = if self.usual == 0 { len + len / 4 } else { len.max(self.usual) };
                vec![T::default(); length]
            }
        }
    }

    /// Returns a buffer to the pool.
    pub fn give_back(&self, buffer: Vec<T>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
