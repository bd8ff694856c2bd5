//! Where work is done: on the calling thread alone, or on the threads of the current pool.

use rayon::prelude::*;

/// The choice of threads. Both choices give the same results in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threading {
    /// The calling thread only: for blocks that are themselves distributed over threads.
    Alone,
    /// The threads of the pool in which the caller runs.
    Pool,
}

impl Threading {
    /// Applies `work` to every index below `count`, with scratch memory from `scratch`; returns the
    /// results in order.
    pub(super) fn map<S, R: Send>(
        self,
        count: usize,
        scratch: impl Fn() -> S + Sync + Send,
        work: impl Fn(&mut S, usize) -> R + Sync + Send,
    ) -> Vec<R> {
        match self {
            Self::Alone => {
                let mut scratch = scratch();
                (0..count).map(|i| work(&mut scratch, i)).collect()
            }
            Self::Pool => (0..count).into_par_iter().map_init(scratch, work).collect(),
        }
    }
}
