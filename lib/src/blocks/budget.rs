use serde_json::{Value, json};

use super::{Context, Error, process};
use crate::device::{Cost, megabytes};
use crate::geom::FieldSource;
use crate::volume::Volume;

/// Bytes reserved for the program and its tables when the block size is chosen. It is a constant,
/// not a measurement, so that all parts of a run use the same blocks.
const PROGRAM: u64 = 20 << 20;

/// Bytes per thread in addition to its buffers: the stack and the allocator's per-thread memory.
const THREAD_BYTES: u64 = 256 << 10;

/// The resources of a run: compute threads, I/O threads and bytes of memory.
///
/// `--threads` is the number of threads that compute at any moment. Additional threads exist for
/// reading and writing ([`Context::io_threads`]); while they wait for a file they do not compute, and
/// while they decode they occupy one of the `--threads` permits.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    threads: usize,
    io_threads: usize,
    memory: u64,
    base: u64,
}

/// A source that caches decoded chunks between reads.
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
    /// The budget given by the flags. Create it before an operation allocates memory, because the
    /// present resident memory of the process counts as the memory of the program.
    pub fn of(ctx: &Context) -> Self {
        let (threads, memory) = (ctx.threads.max(1), ctx.memory);
        let io_threads = ctx.io_threads.unwrap_or(threads.div_ceil(2));
        Self { threads, io_threads, memory, base: process::resident_memory() }
    }

    /// Number of threads that compute at any moment.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Number of threads of a pipeline: the compute threads, and those for reading and writing.
    pub fn workers(&self) -> usize {
        self.threads + self.io_threads
    }

    /// `--memory`, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Resident memory of the process before the operation began.
    pub(super) fn base(&self) -> Cost {
        Cost::bytes("program", self.base)
    }

    /// Bytes available for blocks: `memory` (`--memory`) less the memory of the program. The result
    /// depends on nothing else.
    pub(super) fn room(memory: u64) -> u64 {
        memory - PROGRAM.min(memory / 4)
    }

    /// The value of `--memory`, in bytes, at which [`Budget::room`] is at least `room`.
    pub(super) fn memory_for(room: u64) -> u64 {
        room.saturating_add(PROGRAM)
    }

    /// The part of `--memory`, in bytes, that the caches of decoded chunks get in any case.
    fn min_cache_bytes(&self) -> u64 {
        self.memory / 8
    }

    /// Distributes memory among the caches of decoded chunks. Together they get the memory that
    /// remains when each thread of the pipeline holds one task, but at least an eighth of
    /// `--memory`, and no more than is useful.
    ///
    /// * `sources`: each source with the bytes of chunks that are worth keeping
    /// * `task`: peak memory of one task
    ///
    /// Returns the memory that the caches will occupy.
    pub fn caches(&self, sources: &[(Reads<'_>, u64)], task: &Cost) -> Cost {
        let scratch: u64 = sources.iter().map(|(source, _)| source.scratch_bytes()).sum();
        let workers = self.workers() as u64;
        let each = task.total().saturating_add(scratch).saturating_add(THREAD_BYTES);
        let held = self.base.saturating_add(workers.saturating_mul(each));
        // a tenth is reserved for fragmentation in the allocator
        let left = (self.memory - self.memory / 10).saturating_sub(held);
        let share = left.max(self.min_cache_bytes());
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

    /// Memory of each pipeline thread that reads from `sources` one after the other and writes
    /// units of `writing` bytes.
    pub fn each_thread(sources: &[Reads<'_>], writing: u64) -> Cost {
        let most = sources.iter().map(|source| source.scratch_bytes()).max();
        Cost::bytes("chunk being read", most.unwrap_or(0))
            + Cost::bytes("chunk being written", writing)
    }

    /// Runs `work` in a rayon pool of [`Budget::threads`] threads: the current pool if it has that
    /// size, otherwise a new one.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system cannot start the threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let threads = self.threads;
        if rayon::current_num_threads() == threads {
            return Ok(work());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        Ok(pool.map_err(|source| Error::Threads { threads, source })?.install(work))
    }

    /// Memory of `threads` threads without their buffers.
    pub(super) fn of_threads(threads: usize) -> Cost {
        Cost::bytes("threads", threads as u64 * THREAD_BYTES)
    }

    /// Refuses an operation that is not divided into tasks if its peak memory, together with the
    /// overhead of the process, exceeds `--memory`.
    ///
    /// # Errors
    /// [`Error::Usage`], which states the bytes needed and the bytes allowed.
    pub fn admit(&self, what: &str, cost: &Cost) -> Result<(), Error> {
        let needed = self.base() + cost.clone();
        if needed.total() <= self.memory {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{what} needs {needed}, and --memory allows {}; give --memory {}",
            megabytes(self.memory),
            format_memory(needed.total()),
        )))
    }
}

impl Budget {
    /// The memory of an operation that is not divided into tasks, as `--plan` prints it.
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

/// Bytes of decoded chunks that are worth keeping if tasks read `volume` in plan order, in blocks
/// of `block` voxels plus `halo` voxels on each side (both z, y, x). The cache should keep the
/// chunks that are read between a task and its neighbour along the first of the axes z, y, x on
/// which neighbouring tasks have chunks in common. If there is no such axis, the result is 0.
pub fn useful_cache_bytes(volume: &Volume, block: [usize; 3], halo: [usize; 3]) -> u64 {
    let (chunk, shape) = (volume.chunk(), volume.grid().shape);
    // along an aligned axis, neighbouring tasks have no chunk in common
    let is_aligned =
        |a: usize| block[a] >= shape[a] || halo[a] == 0 && block[a].is_multiple_of(chunk[a].max(1));
    let Some(first) = (0..3).find(|&a| !is_aligned(a)) else { return 0 };
    let mut part = volume.grid().bounds();
    for a in 0..=first {
        let deep = (block[a] + 2 * halo[a]) as i64;
        // along the first shared axis, room is added for the chunks that the next task reads
        let more = if a == first { (chunk[a] + halo[a]) as i64 } else { 0 };
        part.max[a] = part.max[a].min(deep + more);
    }
    volume.decoded_bytes(&part)
}

/// A number of bytes in the format of `--memory`, rounded up.
pub(super) fn format_memory(bytes: u64) -> String {
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
        let ctx = Context { threads: 4, io_threads: Some(8), ..Context::default() };
        assert_eq!(Budget::of(&ctx).workers(), 12);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers_and_the_way_out() {
        let budget = Budget { threads: 1, io_threads: 1, memory: 100_000_000, base: 10_000_000 };
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
            // installing a pool inside a pool of the same size reuses the outer one
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
        assert_eq!(format_memory(1), "1M");
        assert_eq!(format_memory(1_500_000_000), "1500M");
        assert_eq!(format_memory(12_300_000_000), "13G");
    }
}
