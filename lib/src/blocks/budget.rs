use serde_json::{Value, json};

use super::{Context, Error, process};
use crate::device::{Cost, megabytes};
use crate::geom::FieldSource;
use crate::volume::Volume;

/// Bytes that blocks are chosen for beside what the tasks hold: the program and its tables. A number and not
/// what is measured, so that all parts of a run cut alike.
const PROGRAM: u64 = 20 << 20;

/// What one more thread costs beside its buffers: its stack, and what the allocator keeps for it.
const THREAD: u64 = 256 << 10;

/// What a run may use at once: threads that compute, threads that read and write, bytes of memory.
///
/// `--threads` is the number of threads that compute at any moment. Half as many more exist, so that files
/// are read and written meanwhile; while these wait for a file they do not compute, and when they decode
/// they take one of the places of those that compute.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    threads: usize,
    memory: u64,
    base: u64,
}

/// Something that keeps decoded chunks between reads.
#[derive(Clone, Copy)]
pub enum Reads<'a> {
    /// A volume.
    Volume(&'a Volume),
    /// A displacement field.
    Field(&'a dyn FieldSource),
}

impl Reads<'_> {
    fn keep(self, bytes: u64) {
        match self {
            Self::Volume(volume) => volume.keep(bytes),
            Self::Field(field) => field.keep(bytes),
        }
    }

    fn kept_bytes(self) -> u64 {
        match self {
            Self::Volume(volume) => volume.kept_bytes(),
            Self::Field(field) => field.kept_bytes(),
        }
    }

    fn scratch_bytes(self) -> u64 {
        match self {
            Self::Volume(volume) => volume.scratch_bytes(),
            Self::Field(field) => field.scratch_bytes(),
        }
    }
}

impl Budget {
    /// What the flags allow. It is to be made before an operation holds anything: what the process holds now
    /// counts as what it holds anyway.
    pub fn of(ctx: &Context) -> Self {
        let (threads, memory) = (ctx.threads.max(1), ctx.memory);
        Self { threads, memory, base: process::resident_memory() }
    }

    /// Threads that compute at any moment.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Threads that a pipeline has: those that compute, and half as many more that read and write meanwhile.
    pub fn workers(&self) -> usize {
        self.threads + self.threads.div_ceil(2)
    }

    /// `--memory`.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// What the process held before the operation began.
    pub(super) fn base(&self) -> Cost {
        Cost::bytes("program", self.base)
    }

    /// What a block is chosen for: what `--memory` leaves beside the program. It depends on `--memory` alone.
    pub(super) fn room(memory: u64) -> u64 {
        memory - PROGRAM.min(memory / 4)
    }

    /// A `--memory` of which so many bytes are the room, and the program has what it needs.
    pub(super) fn memory_for(room: u64) -> u64 {
        room.saturating_add(PROGRAM)
    }

    /// The share of `--memory` that decoded chunks may take in any case.
    fn least_share(&self) -> u64 {
        self.memory / 8
    }

    /// Shares memory out for decoded chunks: what is left when as many tasks are held as there are threads
    /// for, an eighth of `--memory` at least, and no more than is of use.
    ///
    /// * `sources`: each with the bytes of chunks that are worth keeping
    /// * `task`: what one task holds at its peak
    ///
    /// Returns what they will come to hold.
    pub fn caches(&self, sources: &[(Reads<'_>, u64)], task: &Cost) -> Cost {
        let scratch: u64 = sources.iter().map(|(source, _)| source.scratch_bytes()).sum();
        let workers = self.workers() as u64;
        let each = task.total().saturating_add(scratch).saturating_add(THREAD);
        let held = self.base.saturating_add(workers.saturating_mul(each));
        // a tenth is for what the allocator keeps in its holes
        let left = (self.memory - self.memory / 10).saturating_sub(held);
        let share = left.max(self.least_share());
        let wanted: Vec<u64> = sources
            .iter()
            .map(|(source, useful)| {
                source.keep(*useful);
                source.kept_bytes()
            })
            .collect();
        let all = wanted.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        for ((source, _), wanted) in sources.iter().zip(&wanted) {
            if all > share {
                source.keep((u128::from(share) * u128::from(*wanted) / u128::from(all)) as u64);
            }
        }
        let held = sources.iter().map(|(source, _)| source.kept_bytes()).sum();
        Cost::bytes("decoded chunks", held)
    }

    /// What each thread of a pipeline holds that reads from `sources`, one after the other, and writes units
    /// that take `writing` bytes.
    pub fn each_thread(sources: &[Reads<'_>], writing: u64) -> Cost {
        let most = sources.iter().map(|source| source.scratch_bytes()).max();
        Cost::bytes("chunk being read", most.unwrap_or(0))
            + Cost::bytes("chunk being written", writing)
    }

    /// Runs `work` where rayon has as many threads as compute: in the current pool where it has, else in one
    /// of its own.
    ///
    /// # Errors
    /// [`Error::Threads`] where the system starts no more threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let threads = self.threads;
        if rayon::current_num_threads() == threads {
            return Ok(work());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        Ok(pool.map_err(|source| Error::Threads { threads, source })?.install(work))
    }

    /// What `threads` hold beside their buffers.
    pub(super) fn of_threads(threads: usize) -> Cost {
        Cost::bytes("threads", threads as u64 * THREAD)
    }

    /// Refuses what a program holds at its peak, all blocks and threads together, where it does not fit.
    ///
    /// # Errors
    /// [`Error::Usage`] with both numbers.
    pub fn admit(&self, what: &str, cost: &Cost) -> Result<(), Error> {
        let needed = self.base() + cost.clone();
        if needed.total() <= self.memory {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{what} needs {needed}, and --memory allows {}; give --memory {}",
            megabytes(self.memory),
            said(needed.total()),
        )))
    }
}

impl Budget {
    /// What a program without tasks holds, as `--plan` prints it.
    pub(super) fn describe(&self, what: &str, cost: &Cost) -> Value {
        let needed = self.base() + cost.clone();
        json!({
            "tasks": 0,
            "what": what,
            "memory": {"allowed": self.memory, "needed": needed.total(), "terms": needed.to_json()},
            "threads": self.threads,
        })
    }
}

/// Bytes of decoded chunks that are worth keeping where tasks read `volume` in blocks of `block` voxels and
/// `halo` around them, in the order of the plan: the chunks that are wanted again before those of a whole
/// layer of tasks have been read.
pub fn worth_keeping(volume: &Volume, block: [usize; 3], halo: [usize; 3]) -> u64 {
    let (chunk, shape) = (volume.chunk(), volume.grid().shape);
    // along such an axis no chunk is wanted by two neighbours
    let apart =
        |a: usize| block[a] >= shape[a] || halo[a] == 0 && block[a].is_multiple_of(chunk[a].max(1));
    let Some(first) = (0..3).find(|&a| !apart(a)) else { return 0 };
    let mut part = volume.grid().bounds();
    for a in 0..=first {
        let deep = (block[a] + 2 * halo[a]) as i64;
        // what two neighbours share, and what the next one brings
        let more = if a == first { (chunk[a] + halo[a]) as i64 } else { 0 };
        part.max[a] = part.max[a].min(deep + more);
    }
    volume.decoded_bytes(&part)
}

/// A number of bytes as `--memory` takes it, rounded up.
pub(super) fn said(bytes: u64) -> String {
    if bytes < 10_000_000_000 {
        format!("{}M", bytes.div_ceil(1_000_000))
    } else {
        format!("{}G", bytes.div_ceil(1_000_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_read_are_counted_apart_from_those_that_compute() {
        let budget = Budget::of(&Context { threads: 4, ..Context::default() });
        assert_eq!((budget.threads(), budget.workers()), (4, 6));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers_and_the_way_out() {
        let budget = Budget { threads: 1, memory: 100_000_000, base: 10_000_000 };
        budget.admit("matching", &Cost::bytes("contexts", 90_000_000)).unwrap();
        let cost = Cost::bytes("contexts", 90_000_000) + Cost::bytes("spots", 5_500_000);
        let message = budget.admit("matching", &cost).unwrap_err().to_string();
        for part in ["needs 106 MB (program 10.0 MB, contexts 90.0 MB, ", "100 MB", "--memory 106M"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn what_runs_in_parallel_has_the_threads_of_the_budget() {
        for threads in [1, 3] {
            let budget = Budget::of(&Context { threads, ..Context::default() });
            assert_eq!(budget.install(rayon::current_num_threads).unwrap(), threads);
            // a pool within a pool of as many threads is that pool
            let nested = || {
                let outer = rayon::current_thread_index();
                (outer, budget.install(rayon::current_thread_index).unwrap())
            };
            let (outer, inner) = budget.install(nested).unwrap();
            assert_eq!(outer, inner);
        }
    }

    #[test]
    fn a_size_is_said_so_that_the_flag_takes_it() {
        assert_eq!(said(1), "1M");
        assert_eq!(said(1_500_000_000), "1500M");
        assert_eq!(said(12_300_000_000), "13G");
    }
}
