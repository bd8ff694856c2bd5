//! How the work is shared out: on this thread alone, or over the threads of the current pool.

use rayon::prelude::*;

/// Who does the work. Both give the same results in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// The calling thread: for blocks, which are themselves shared out.
    Alone,
    /// The threads of the pool that the caller runs in.
    Pool,
}

impl Share {
    /// `work` on the numbers below `count`, with scratch memory from `scratch`; results in order.
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
