use std::sync::{Mutex, PoisonError};

/// Buffers that are used again: fresh memory costs a page fault per 4 KiB, seven times the cost of
/// filling memory that is there already.
///
/// A buffer that grows leaves a hole behind, which the allocator may keep for long: a pool that knows the
/// greatest length makes no others.
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
    /// A pool whose buffers have this length, or more where more is asked for. What is not used of one
    /// takes no memory.
    pub fn of(usual: usize) -> Self {
        Self { usual, ..Self::default() }
    }

    /// A buffer of at least `len`, with whatever was left in it.
    pub fn take(&self, len: usize) -> Vec<T> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match free {
            Some(buffer) if buffer.len() >= len => buffer,
            too_small => {
                drop(too_small);
                // where the greatest length is not known, the next is likely to be much like this one
                let length = if self.usual == 0 { len + len / 4 } else { len.max(self.usual) };
                vec![T::default(); length]
            }
        }
    }

    /// Takes a buffer back for later.
    pub fn give_back(&self, buffer: Vec<T>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
