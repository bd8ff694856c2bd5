use std::sync::{Mutex, PoisonError};

/// Buffers that are used again: fresh memory costs a page fault per 4 KiB, seven times the cost of
/// filling memory that is there already.
pub struct Pool<T> {
    free: Mutex<Vec<Vec<T>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { free: Mutex::default() }
    }
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer of at least `len`, with whatever was left in it.
    pub fn take(&self, len: usize) -> Vec<T> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = free.unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, T::default());
        }
        buffer
    }

    /// Takes a buffer back for later.
    pub fn give_back(&self, buffer: Vec<T>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
