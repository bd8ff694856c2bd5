//! Runs tasks in three stages: read, compute, write. Each thread takes a job of the latest stage
//! that has one, so that tasks in memory are completed before further tasks are read.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::entries::Entries;
use super::kill::is_selected;
use super::ledger::{Ledger, LedgerEntry};
use super::progress::ProgressMeter;
use super::{
    Budget, Context, Error, KillPoint, Plan, Task, TaskResult, Tasks, abort_if_selected,
    is_passing, sentence,
};
use crate::device::Permits;

/// Interval at which signals are polled and progress is shown.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long an interrupted run waits for blocks that are being computed. The time is short because
/// batch systems kill a run soon after they interrupt it.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// A plan whose tasks are to be run, and the ledger that records them.
pub(super) struct PlannedRun<'a> {
    pub(super) ctx: &'a Context,
    pub(super) plan: &'a Plan,
    pub(super) folder: &'a Path,
    pub(super) ledger: &'a Ledger,
}

/// The results of running tasks.
pub(super) struct PipelineResult {
    /// The entries of all tasks, those of earlier runs included.
    pub(super) entries: Entries,
    /// The number of tasks that ended in this run.
    pub(super) ended: usize,
    /// The error that stopped the run, if any.
    pub(super) fault: Option<Error>,
}

impl PlannedRun<'_> {
    /// Runs the tasks `todo`; `all` are the tasks of this part, and `entries` holds the ledger
    /// entries of earlier runs.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system cannot start the threads.
    pub(super) fn run(
        &self,
        stages: &Stages<'_>,
        todo: &[usize],
        all: &[usize],
        entries: Entries,
    ) -> Result<PipelineResult, Error> {
        let Self { ctx, plan, folder, ledger } = *self;
        let admission = Admission::new(plan, ctx);
        plan.warn_if_tight(ctx, admission.usual);
        let before = all.iter().filter(|task| entries.has_ended(**task)).count();
        let computing = ComputePools::new(ctx.threads, admission.usual.min(todo.len()))?;
        let pipeline = Pipeline {
            ctx,
            plan,
            folder,
            ledger,
            admission,
            computing: &computing,
            seconds: [const { AtomicU64::new(0) }; 3],
            state: Mutex::new(PipelineState::new(todo, entries, computing.pools.len())),
            changed: Condvar::new(),
        };
        let meter = ProgressMeter::new(ctx.progress, all.len(), before);
        pipeline.work(stages, todo.len(), meter);
        pipeline.count_seconds();
        let state = pipeline.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let PipelineState { entries, ended, fault, .. } = state;
        Ok(PipelineResult { entries, ended, fault })
    }
}

/// Limits on the tasks that are in memory at the same time.
struct Admission {
    /// The number of tasks that usually fit into memory: computed from the maximum memory of a task
    /// for a block grid, and from the mean memory for a list.
    usual: usize,
    /// The maximum number of tasks in memory.
    most: usize,
    /// The memory, in bytes, that all tasks can use together. It is unlimited for a block grid,
    /// whose tasks all need the same memory, so that `most` suffices as a limit.
    room: u64,
}

impl Admission {
    fn new(plan: &Plan, ctx: &Context) -> Self {
        match plan.tasks() {
            Tasks::BlockGrid(_) => {
                let most = plan.in_flight(ctx);
                Self { usual: most, most, room: u64::MAX }
            }
            Tasks::TaskList(_) => {
                let (most, room) = (Budget::of(ctx).workers(), plan.room(ctx));
                let usual = room / plan.tasks().mean_memory().max(1);
                Self { usual: (usual as usize).clamp(1, most), most, room }
            }
        }
    }
}

/// The thread pools that compute tasks. They divide the threads evenly, so that parallel work
/// within a task uses only the task's own threads.
struct ComputePools {
    /// One pool for each task that is computed concurrently.
    pools: Vec<ThreadPool>,
    /// Number of threads of each pool.
    width: usize,
    /// One permit for each compute thread; threads that read or write take permits too.
    permits: Arc<Permits>,
}

impl ComputePools {
    /// Pools for up to `tasks` concurrent tasks.
    fn new(threads: usize, tasks: usize) -> Result<Self, Error> {
        let threads = threads.max(1);
        let width = threads / tasks.clamp(1, threads);
        let permits = Permits::new(threads);
        let pool = |_| {
            let permits = Arc::clone(&permits);
            let builder = ThreadPoolBuilder::new().num_threads(width);
            builder.start_handler(move |_| permits.join()).build()
        };
        let pools = (0..threads / width).map(pool).collect::<Result<_, _>>();
        let pools = pools.map_err(|source| Error::Threads { threads, source })?;
        Ok(Self { pools, width, permits })
    }
}

/// Reads the input of a task, and returns the closure that computes the task. The types of inputs
/// and results are erased here, so that the pipeline is not compiled again for each operation and
/// voxel type.
pub(super) type Stages<'s> = dyn Fn(&Task) -> anyhow::Result<ComputeStep<'s>> + Sync + 's;
/// Computes a task whose input was read, and returns the closure that writes its result.
pub(super) type ComputeStep<'s> =
    Box<dyn FnOnce(&Task) -> anyhow::Result<WriteStep<'s>> + Send + 's>;
/// Writes the result of a task.
pub(super) type WriteStep<'s> = Box<dyn FnOnce(&Task) -> anyhow::Result<TaskResult> + Send + 's>;

/// The stages of an operation as one closure.
pub(super) fn stages<'s, R: Send + 's, W: Send + 's, E: Into<TaskResult>>(
    read: impl Fn(&Task) -> anyhow::Result<R> + Sync + 's,
    compute: &'s (impl Fn(&Task, R) -> anyhow::Result<W> + Sync),
    write: &'s (impl Fn(&Task, W) -> anyhow::Result<E> + Sync),
) -> impl Fn(&Task) -> anyhow::Result<ComputeStep<'s>> + Sync + 's {
    move |task| {
        let input = read(task)?;
        Ok(Box::new(move |task| {
            let result = compute(task, input)?;
            Ok(Box::new(move |task| write(task, result).map(Into::into)))
        }))
    }
}

struct Pipeline<'a, 's> {
    ctx: &'a Context,
    plan: &'a Plan,
    folder: &'a Path,
    ledger: &'a Ledger,
    computing: &'a ComputePools,
    admission: Admission,
    /// Nanoseconds spent in the read, compute and write stage, summed over threads.
    seconds: [AtomicU64; 3],
    state: Mutex<PipelineState<'s>>,
    changed: Condvar,
}

struct PipelineState<'s> {
    todo: VecDeque<usize>,
    /// Tasks that are read but not yet computed.
    read: VecDeque<(Task, ComputeStep<'s>)>,
    /// Tasks that are computed but not yet written.
    computed: VecDeque<(Task, WriteStep<'s>)>,
    /// Number of tasks that have begun and not ended.
    held: usize,
    /// The memory of the tasks that `held` counts, bytes.
    held_bytes: u64,
    /// Indices of pools that are idle.
    free: Vec<usize>,
    ended: usize,
    entries: Entries,
    fault: Option<Error>,
    workers: usize,
}

impl PipelineState<'_> {
    fn new(todo: &[usize], entries: Entries, pools: usize) -> Self {
        Self {
            todo: todo.iter().copied().collect(),
            read: VecDeque::new(),
            computed: VecDeque::new(),
            held: 0,
            held_bytes: 0,
            free: (0..pools).collect(),
            ended: 0,
            entries,
            fault: None,
            workers: 0,
        }
    }
}

/// The next job of a thread.
enum ThreadJob<'s> {
    Read(Task),
    Compute(Task, ComputeStep<'s>, usize),
    Write(Task, WriteStep<'s>),
}

impl<'s> Pipeline<'_, 's> {
    /// Runs the pipeline until all tasks are done, a fault stops it, or a signal was received and
    /// all computed results are written.
    fn work(&self, stages: &Stages<'s>, tasks: usize, mut meter: ProgressMeter) {
        let _guard = self.ctx.cancel.catch_signals();
        let workers = Budget::of(self.ctx).workers().min(self.admission.most).min(tasks);
        self.lock().workers = workers;
        let before = meter.before();
        let mut asked: Option<Instant> = None;
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(job) = self.next() {
                        self.perform(stages, job);
                    }
                    self.lock().workers -= 1;
                    self.changed.notify_all();
                });
            }
            scope.spawn(|| self.sync_in_background());
            let mut state = self.lock();
            while state.workers > 0 {
                let waited = self.changed.wait_timeout(state, POLL_INTERVAL);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                meter.tick(before + state.ended);
                if self.ctx.cancel.signal().is_some() {
                    self.changed.notify_all();
                    if asked.get_or_insert_with(Instant::now).elapsed() > ABORT_TIMEOUT {
                        drop(state);
                        // an error is ignored: tasks without a ledger line are done again on
                        // resuming
                        let _ = self.ledger.sync_pending();
                        self.ctx.cancel.exit_if_signalled();
                        state = self.lock();
                    }
                }
            }
        });
        meter.end(before + self.lock().ended);
    }

    /// Adds the time of each stage to the receipt.
    fn count_seconds(&self) {
        let spent = self.seconds.each_ref().map(|ns| ns.load(Ordering::Relaxed) as f64 / 1e9);
        self.ctx.update_receipt(|receipt| {
            for (sum, spent) in receipt.stages.iter_mut().zip(spent) {
                *sum += spent;
            }
        });
    }

    /// Syncs results, then writes their ledger lines, in a thread of its own so that no worker
    /// waits for the disk. Returns when all workers have ended.
    fn sync_in_background(&self) {
        let mut state = self.lock();
        while state.workers > 0 && state.fault.is_none() {
            let waited = self.changed.wait_timeout(state, POLL_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if self.ledger.is_due() {
                drop(state);
                if let Err(error) = self.ledger.sync_pending() {
                    self.stop(error);
                    self.changed.notify_all();
                }
                state = self.lock();
            }
        }
    }

    /// Waits for a job, and takes one of the latest stage that has any; `None` if none will follow.
    fn next(&self) -> Option<ThreadJob<'s>> {
        let mut state = self.lock();
        loop {
            if state.fault.is_some() {
                return None;
            }
            if let Some((task, write)) = state.computed.pop_front() {
                return Some(ThreadJob::Write(task, write));
            }
            if self.ctx.cancel.signal().is_some() {
                return None;
            }
            if let Some(&pool) = state.free.last()
                && let Some((task, compute)) = state.read.pop_front()
            {
                state.free.pop();
                return Some(ThreadJob::Compute(task, compute, pool));
            }
            if let Some(task) = state.todo.front().map(|id| self.plan.tasks().get(*id))
                && self.admits(&state, &task)
            {
                state.todo.pop_front();
                state.held += 1;
                state.held_bytes = state.held_bytes.saturating_add(task.memory);
                return Some(ThreadJob::Read(task));
            }
            if state.held == 0 && state.todo.is_empty() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether `task` is admitted: there is memory for the task, or no other task is in memory.
    fn admits(&self, state: &PipelineState<'_>, task: &Task) -> bool {
        let needed = state.held_bytes.saturating_add(task.memory);
        state.held == 0 || state.held < self.admission.most && needed <= self.admission.room
    }

    fn perform(&self, stages: &Stages<'s>, job: ThreadJob<'s>) {
        match job {
            ThreadJob::Read(task) => match self.guard(0, || stages(&task)) {
                Ok(compute) => self.lock().read.push_back((task, compute)),
                Err(error) => self.fail(&task, error),
            },
            ThreadJob::Compute(task, compute, pool) => {
                let compute = || self.guard(1, || compute(&task));
                let result = self.computing.pools[pool].install(compute);
                self.lock().free.push(pool);
                match result {
                    Ok(write) => self.lock().computed.push_back((task, write)),
                    Err(error) => self.fail(&task, error),
                }
            }
            ThreadJob::Write(task, write) => {
                // another run may have replaced the output in the meantime
                match self.plan.claim(self.folder) {
                    Err(fault) => self.stop(fault),
                    Ok(()) => match self.guard(2, || write(&task)) {
                        Ok(result) => self.end(&task, LedgerEntry::Ended(result)),
                        Err(error) => self.fail(&task, error),
                    },
                }
            }
        }
        self.changed.notify_all();
    }

    /// Runs a closure with one compute permit, or with the permits of a whole pool in the compute
    /// stage. A panic becomes an error, and the time is counted.
    fn guard<T>(
        &self,
        stage: usize,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let places = if stage == 1 { self.computing.width } else { 1 };
        self.computing.permits.with(places, || self.timed(stage, work))
    }

    fn timed<T>(
        &self,
        stage: usize,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        // unwind safety: data that the closure shares with other threads is `Sync`; any other state
        // that a panic leaves inconsistent belongs to the closure alone
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            Err(anyhow::anyhow!("it panicked: {}", panic_message(&*panic)))
        });
        self.seconds[stage].fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    fn fail(&self, task: &Task, error: anyhow::Error) {
        if is_passing(error.as_ref()) {
            return self.stop(Error::Block { key: task.key.clone(), source: error });
        }
        let reason = sentence(error.as_ref());
        tracing::warn!("{} failed: {reason}", task.key);
        self.end(task, LedgerEntry::Failed(reason));
    }

    fn end(&self, task: &Task, entry: LedgerEntry) {
        abort_if_selected(KillPoint::Unentered);
        let entered = self.ledger.enter(task.id, &entry).and_then(|()| {
            if is_selected(KillPoint::After) { self.ledger.sync_pending() } else { Ok(()) }
        });
        if let Err(error) = entered {
            return self.stop(error);
        }
        abort_if_selected(KillPoint::After);
        let mut state = self.lock();
        state.entries.insert(task.id, entry);
        state.held -= 1;
        state.held_bytes -= task.memory.min(state.held_bytes);
        state.ended += 1;
    }

    fn stop(&self, fault: Error) {
        self.lock().fault.get_or_insert(fault);
    }

    fn lock(&self) -> MutexGuard<'_, PipelineState<'s>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
