use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::budget::format_memory;
use super::claim::Claim;
use super::fit::{refuse_costly, refuse_many, text};
use super::tasks::{BlockGrid, ListedTask, TaskList, Tasks};
use super::{Budget, Context, Error, Identity, WriteUnit, ledger_folder_of};
use crate::device::{Cost, megabytes};
use crate::geom::Box3;
use crate::store;
use crate::volume::{self, Existing};

/// Target edge of a block, in voxels, if the write unit allows it: large enough that halos cost
/// little, small enough that several blocks fit into memory.
const TARGET_EDGE: usize = 256;
/// Smallest edge, in voxels, of blocks that are made smaller to get more tasks.
const MIN_EDGE: usize = 128;
/// Number of tasks below which blocks are made smaller.
const MIN_TASKS: usize = 64;

/// The tasks of an operation, and the memory that they need.
pub struct Plan {
    /// All tasks, those of other parts included.
    tasks: Tasks,
    /// Peak memory of one task; in a plan made by [`Plan::list`], of the task that needs most.
    pub task: Cost,
    /// Memory of one task, in bytes, while it waits to be computed or written; at most its peak.
    pub waiting: u64,
    /// Memory that the tasks share, such as cached decoded chunks.
    pub shared: Cost,
    /// Memory of each pipeline thread, such as the chunk that it decodes.
    pub each_thread: Cost,
    /// Resident memory before the operation began, if it was recorded.
    pub base: Option<Cost>,
    /// Everything that the result depends on. A ledger with another identity is refused.
    identity: Identity,
    /// This run's claim on the folder of its ledger; empty before [`Plan::claim`] takes it.
    claim: OnceLock<Claim>,
}

/// The attribute of a finished array that stores the identity of the run that made it.
pub const IDENTITY_ATTRIBUTE: &str = "run";

/// The attribute that stores the value of [`Context::results`]: block counts and results.
pub const RESULTS: &str = "results";

impl Plan {
    /// Divides `bounds` into cores of `block` voxels (z, y, x) for the run with this identity;
    /// cores at the upper bounds can be smaller. `task` is the peak memory of one task.
    pub fn tile(
        bounds: Box3,
        block: [usize; 3],
        task: impl Into<Cost>,
        identity: &Identity,
    ) -> Self {
        let task = task.into();
        let tasks = Tasks::BlockGrid(BlockGrid::new(bounds, block, task.total()));
        Self::of(tasks, task, identity)
    }

    /// A plan of given tasks, sorted by wave. A task begins when all tasks of lower waves are done.
    ///
    /// * `largest`: peak memory of the task that needs most
    pub fn list(
        items: impl IntoIterator<Item = ListedTask>,
        largest: impl Into<Cost>,
        identity: &Identity,
    ) -> Self {
        Self::of(Tasks::TaskList(TaskList::new(items)), largest.into(), identity)
    }

    fn of(tasks: Tasks, task: Cost, identity: &Identity) -> Self {
        Self {
            tasks,
            waiting: task.total(),
            task,
            shared: Cost::default(),
            each_thread: Cost::default(),
            base: None,
            identity: identity.clone(),
            claim: OnceLock::new(),
        }
    }

    /// All tasks, those of other parts included.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Whether a run of this plan has finished the array `output`. A finished array has the
    /// attribute [`IDENTITY_ATTRIBUTE`]; an unfinished array has only a ledger in the folder beside
    /// it.
    ///
    /// # Errors
    /// [`Error::Exists`] without `--resume` or `--overwrite`; [`Error::OtherPlan`] if the array
    /// does not belong to this plan; an error if its attributes cannot be read.
    pub fn has_finished(&self, output: &str, ctx: &Context) -> Result<bool, Error> {
        let path = Path::new(output);
        ctx.refuse_existing(path)?;
        if ctx.existing == Existing::Overwrite || !store::exists(path) {
            return Ok(false);
        }
        let (attributes, _) = volume::attributes(output).map_err(Error::Input)?.unwrap_or_default();
        let mark = attributes.get(IDENTITY_ATTRIBUTE).and_then(Identity::from_json);
        if mark.as_ref() == Some(&self.identity) {
            return Ok(true);
        }
        if mark.is_none() && store::exists(&ledger_folder_of(path)) {
            return Ok(false);
        }
        let difference = match mark {
            Some(mark) => mark.difference(&self.identity),
            None => ["by another program or release".to_owned(), "by this one".to_owned()],
        };
        Err(Error::OtherPlan { folder: output.to_owned(), difference })
    }

    /// Copies the counts and results of the finished array `output` into this run's receipt. Call
    /// it if [`Plan::has_finished`] is true.
    ///
    /// # Errors
    /// If the array's attributes cannot be read.
    pub fn restore_receipt(&self, output: &str, ctx: &Context) -> Result<(), Error> {
        ctx.output_done(Path::new(output));
        let (attributes, _) = volume::attributes(output).map_err(Error::Input)?.unwrap_or_default();
        if let Some(results) = attributes.get(RESULTS) {
            let unread = Error::io("read the receipt in", Path::new(output));
            ctx.restore(results).map_err(|error| unread(error.into()))?;
        }
        Ok(())
    }

    /// Sets the memory that is needed in addition to that of the tasks: the memory of the process
    /// when `budget` was made, `shared` for all tasks together, and `each_thread` for each thread
    /// of the pipeline.
    #[must_use]
    pub fn with_overhead(mut self, budget: &Budget, shared: Cost, each_thread: Cost) -> Self {
        (self.shared, self.each_thread) = (shared, each_thread);
        self.base = Some(budget.base());
        self
    }

    /// Sets the memory of a task while it waits to be computed or written.
    #[must_use]
    pub fn waiting(mut self, cost: &Cost) -> Self {
        self.waiting = cost.total().min(self.task.total());
        self
    }

    /// Chooses the block of a task (z, y, x): `--block-size`, or about 256 voxels along each axis.
    /// The block is smaller if there would be fewer than 64 tasks, or if two tasks would not fit
    /// into memory.
    ///
    /// * `unit`: the write unit; a block is a multiple of it
    /// * `cost`: peak memory of a task with the given block
    ///
    /// The choice depends neither on threads nor on parts, so that all parts use the same blocks.
    ///
    /// # Errors
    /// [`Error::Usage`] if `--block-size` is not a multiple of the unit, if the block does not fit
    /// into memory ([`super::refuse_large`]), or if there are too many blocks
    /// ([`super::refuse_many`]).
    pub fn choose_block<C: Into<Cost>>(
        bounds: Box3,
        unit: impl Into<WriteUnit>,
        cost: impl Fn([usize; 3]) -> C,
        ctx: &Context,
    ) -> Result<[usize; 3], Error> {
        let unit: WriteUnit = unit.into();
        let cost: &dyn Fn([usize; 3]) -> Cost = &|block| cost(block).into();
        let block = propose(bounds, unit.shape, cost, ctx)?;
        refuse_costly(block, bounds, unit, cost, ctx)?;
        refuse_many(block, bounds)?;
        Ok(block)
    }

    /// With `--plan`, records this plan for printing and returns true: the operation then returns
    /// before it creates anything.
    ///
    /// # Errors
    /// [`Error::Usage`] if not even one task fits into `--memory`.
    pub fn is_all_asked(&self, ctx: &Context) -> Result<bool, Error> {
        let needed = self.needed(ctx, 1);
        if needed.total() > ctx.memory && !ctx.finish {
            return Err(Error::Usage(format!(
                "a block of {} voxels needs {needed}, and --memory allows {}; give --memory {}, or smaller \
                 blocks by --block-size, or by --chunk where chunks are as large",
                text(self.block()),
                megabytes(ctx.memory),
                format_memory(needed.total()),
            )));
        }
        if ctx.plan_only {
            let plan = self.describe(ctx);
            ctx.update_receipt(|receipt| receipt.plans.push(plan));
        }
        Ok(ctx.plan_only)
    }

    /// The plan as `--plan` prints it: tasks, parts, block, memory by terms, and the number of
    /// threads that the memory admits.
    pub fn describe(&self, ctx: &Context) -> Value {
        let waves: Vec<usize> = self.tasks.waves().iter().map(ExactSizeIterator::len).collect();
        let parts = self.tasks.share(ctx.part);
        let first = parts.iter().find(|part| !part.is_empty()).or(parts.first());
        let tasks: usize = parts.iter().map(ExactSizeIterator::len).sum();
        let in_flight = self.in_flight(ctx);
        let needed = self.needed(ctx, in_flight.min(tasks));
        let mut plan = json!({
            "tasks": self.tasks.len(),
            "part": {
                "k": ctx.part.k,
                "n": ctx.part.n,
                "first": first.map_or(0, |part| part.start),
                "tasks": tasks,
            },
            "block": self.block(),
            "grid": self.tasks.grid(),
            "bytes_per_task": self.task.total(),
            "task": self.task.to_json(),
            "memory": {
                "allowed": ctx.memory,
                "needed": needed.total(),
                "terms": needed.to_json(),
            },
            "tasks_in_flight": in_flight,
            "threads": in_flight.min(ctx.threads),
        });
        if waves.len() > 1 {
            plan["waves"] = waves.into();
        }
        plan
    }

    /// How many tasks fit into `--memory` at once, beside the fixed memory; at least 1. Each task
    /// is assumed to need as much memory as the largest.
    pub(super) fn in_flight(&self, ctx: &Context) -> usize {
        // at most one for each thread of the pipeline: reading further ahead would only cost memory
        let workers = Budget::of(ctx).workers();
        let fits = |tasks: &usize| {
            let needed = self.needed(ctx, *tasks).total();
            // a sixteenth is added for fragmentation in the allocator, which is unknown
            needed.saturating_add(needed / 16) <= ctx.memory
        };
        (2..=workers).take_while(fits).last().unwrap_or(1)
    }

    /// The memory, in bytes, that the tasks of a list can use together: 15/16 of `--memory`, less
    /// the fixed memory if each thread of the pipeline holds a task.
    pub(super) fn room(&self, ctx: &Context) -> u64 {
        let fixed = self.fixed(ctx, Budget::of(ctx).workers()).total();
        (ctx.memory - ctx.memory / 16).saturating_sub(fixed)
    }

    /// Memory of the process if it holds `tasks` tasks: as many as there are compute threads are
    /// being computed, and the others wait.
    fn needed(&self, ctx: &Context, tasks: usize) -> Cost {
        let computed = tasks.min(ctx.threads.max(1));
        let waiting = (tasks - computed) as u64 * self.waiting;
        self.fixed(ctx, tasks)
            + self.task.clone() * computed as u64
            + Cost::bytes("tasks that wait", waiting)
    }

    /// Memory of the process except that of its tasks, if it holds `tasks` tasks.
    fn fixed(&self, ctx: &Context, tasks: usize) -> Cost {
        self.base.clone().unwrap_or_else(|| Budget::of(ctx).base())
            + self.shared.clone()
            + Budget::of_threads(tasks)
            + self.each_thread.clone() * tasks as u64
    }

    /// The identity of the run to which the plan belongs.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Claims the output whose ledger is in `folder` for this run, before any part of the output is
    /// written.
    ///
    /// # Errors
    /// [`Error::OtherPlan`] if a run with another identity has claimed it; [`Error::Io`].
    pub fn claim(&self, folder: &Path) -> Result<(), Error> {
        if let Some(claim) = self.claim.get() {
            return claim.verify();
        }
        let claim = Claim::take(folder, self.agreement())?;
        // if another thread has set it meanwhile, its claim is equivalent
        let _ = self.claim.set(claim);
        Ok(())
    }

    /// Replaces any claim on the output whose ledger is in `folder` with that of this run. Call it
    /// before the output is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn replace_claim(&self, folder: &Path) -> Result<(), Error> {
        Claim::replace_claim(folder, self.agreement())
    }

    /// Whether the output whose ledger is in `folder` is claimed by this run or an equal run;
    /// `None` if it is not claimed.
    pub(super) fn is_claimed_in(&self, folder: &Path) -> Option<bool> {
        Claim::owner(folder).map(|owner| owner == self.agreement())
    }

    /// Whether [`Plan::claim`] has succeeded.
    pub(super) fn is_claimed(&self) -> bool {
        self.claim.get().is_some()
    }

    /// The identity, extended by the division into tasks. All ledgers of a run have this identity.
    pub(super) fn agreement(&self) -> Identity {
        self.tasks.agreement(self.identity.clone())
    }

    fn block(&self) -> [usize; 3] {
        self.tasks.block()
    }
}

/// `--block-size`, or the block that [`Plan::choose_block`] describes, without checking that it
/// fits.
fn propose(
    bounds: Box3,
    unit: [usize; 3],
    cost: &dyn Fn([usize; 3]) -> Cost,
    ctx: &Context,
) -> Result<[usize; 3], Error> {
    let shape = bounds.shape();
    let units: [usize; 3] = std::array::from_fn(|a| shape[a].div_ceil(unit[a]).max(1));
    if let Some(block) = ctx.block_size {
        return fit_block(block, unit, units);
    }
    let mut count: [usize; 3] =
        std::array::from_fn(|a| (TARGET_EDGE / unit[a]).max(1).min(units[a]));
    let block = |count: [usize; 3]| std::array::from_fn(|a| count[a] * unit[a]);
    let tasks = |count: [usize; 3]| (0..3).map(|a| units[a].div_ceil(count[a])).product::<usize>();
    let halve = |count: &mut [usize; 3], least: usize| {
        let axis = (0..3)
            .filter(|&a| count[a] > 1 && count[a].div_ceil(2) * unit[a] >= least)
            .max_by_key(|&a| (count[a] * unit[a], 3 - a));
        if let Some(a) = axis {
            count[a] = count[a].div_ceil(2);
        }
        axis.is_some()
    };
    while tasks(count) < MIN_TASKS && halve(&mut count, MIN_EDGE) {}
    // two tasks must fit at once, so that one can be read while the other is computed; a quarter of
    // the memory is reserved for what the tasks share
    let room = Budget::room(ctx.memory) / 4 * 3;
    while cost(block(count)).total().saturating_mul(2) > room && halve(&mut count, 1) {}
    Ok(block(count))
}

/// `--block-size`, if along each axis it is a multiple of the write unit or covers the whole axis,
/// rounded up to whole units. `units` is the number of write units along each axis.
fn fit_block(block: [usize; 3], unit: [usize; 3], units: [usize; 3]) -> Result<[usize; 3], Error> {
    let fits = |a: usize| block[a].is_multiple_of(unit[a]) || block[a] >= units[a] * unit[a];
    if (0..3).all(fits) {
        return Ok(std::array::from_fn(|a| block[a].div_ceil(unit[a]) * unit[a]));
    }
    let below: [usize; 3] = std::array::from_fn(|a| (block[a] / unit[a]).max(1) * unit[a]);
    let above: [usize; 3] = std::array::from_fn(|a| block[a].div_ceil(unit[a]) * unit[a]);
    let text = |[z, y, x]: [usize; 3]| format!("{z},{y},{x}");
    let nearest =
        if below == above { text(above) } else { format!("{} and {}", text(below), text(above)) };
    Err(Error::Usage(format!(
        "--block-size {} is no multiple of {}, the chunks that are written whole; the nearest are \
         {nearest}",
        text(block),
        text(unit),
    )))
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Part};
    use super::*;

    #[test]
    fn tasks_know_their_place_in_bounds_that_do_not_start_at_zero() {
        let plan =
            Plan::tile(Box3::new([-4, 2, 0], [4, 7, 3]), [4, 3, 3], 1_u64, &Identity::of("test"));
        assert_eq!(plan.tasks().len(), 4);
        let last = plan.tasks().get(3);
        assert_eq!((last.id, last.key), (3, Key::Block([1, 1, 0])));
        assert_eq!(last.core, Box3::new([0, 5, 0], [4, 7, 3]));
    }

    #[test]
    fn a_chosen_block_is_a_multiple_of_the_unit_and_fits_memory() {
        let bounds = Box3::of_shape([1000, 2000, 900]);
        let bytes = |b: [usize; 3]| 8 * b.iter().product::<usize>() as u64;
        let ctx = |memory| Context { memory, ..Context::default() };
        let roomy = Plan::choose_block(bounds, [64; 3], bytes, &ctx(16 << 30)).unwrap();
        assert_eq!(roomy, [256; 3]);
        let tight = Plan::choose_block(bounds, [64; 3], bytes, &ctx(32 << 20)).unwrap();
        assert!(bytes(tight) * 2 <= 24 << 20 && tight.iter().all(|n| n % 64 == 0), "{tight:?}");
        let tiny = Plan::choose_block(bounds, [100, 50, 300], bytes, &ctx(17 << 20)).unwrap();
        assert_eq!(tiny, [100, 50, 300]);
        let refused = Plan::choose_block(bounds, [100, 50, 300], bytes, &ctx(13 << 20));
        assert!(refused.unwrap_err().to_string().contains("--memory"));
    }

    #[test]
    fn a_small_volume_is_cut_into_more_blocks_and_a_thin_one_is_not_padded() {
        let bytes = |b: [usize; 3]| b.iter().product::<usize>() as u64;
        let ctx = Context::default();
        let bounds = Box3::of_shape([256, 512, 512]);
        assert_eq!(Plan::choose_block(bounds, [64; 3], bytes, &ctx).unwrap(), [128; 3]);
        let bounds = Box3::of_shape([1, 9000, 9000]);
        assert_eq!(Plan::choose_block(bounds, [1, 64, 64], bytes, &ctx).unwrap(), [1, 256, 256]);
    }

    #[test]
    fn a_block_size_that_is_no_multiple_is_refused_with_the_nearest() {
        let bounds = Box3::of_shape([1000; 3]);
        let choose = |block| {
            let ctx = Context { block_size: Some(block), ..Context::default() };
            Plan::choose_block(bounds, [64; 3], |_| 1_u64, &ctx)
        };
        assert_eq!(choose([128, 64, 192]).unwrap(), [128, 64, 192]);
        assert_eq!(choose([2000, 64, 64]).unwrap(), [2048, 64, 64], "covers the axis");
        let message = choose([100, 64, 64]).unwrap_err().to_string();
        for part in ["100,64,64", "64,64,64", "128,64,64"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_description_says_what_memory_admits() {
        let plan =
            Plan::tile(Box3::of_shape([4, 4, 40]), [4, 4, 4], 1_u64 << 40, &Identity::of("test"));
        let ctx = Context { threads: 8, part: Part { k: 2, n: 4 }, ..Context::default() };
        let described = plan.describe(&ctx);
        assert_eq!(described["tasks"], 10);
        assert_eq!(described["part"]["tasks"], 3);
        assert_eq!(described["threads"], 1);
        assert_eq!(described["grid"], json!([1, 1, 10]));
    }

    #[test]
    fn what_is_needed_counts_those_computed_at_their_peak_and_the_others_as_they_wait() {
        let ctx = Context { threads: 2, memory: 10_000_000_000, ..Context::default() };
        let task = Cost::bytes("read", 1_000_000_000) + Cost::bytes("pyramid", 1_000_000_000);
        let plan = Plan::tile(Box3::of_shape([4, 4, 40]), [4, 4, 4], task, &Identity::of("test"));
        let base = Budget::of(&ctx);
        let plan = plan.waiting(&Cost::bytes("read", 1_000_000_000)).with_overhead(
            &base,
            Cost::bytes("decoded chunks", 500_000_000),
            Cost::default(),
        );
        let terms = plan.describe(&ctx)["memory"]["terms"].clone();
        assert_eq!(plan.in_flight(&ctx), 3);
        assert_eq!(
            (&terms["read"], &terms["pyramid"]),
            (&json!(2_000_000_000_u64), &json!(2_000_000_000_u64))
        );
        assert_eq!(
            (&terms["tasks that wait"], &terms["decoded chunks"]),
            (&json!(1_000_000_000), &json!(500_000_000))
        );
        let tight = Context { memory: 4_000_000_000, ..ctx };
        assert_eq!(plan.in_flight(&tight), 1);
        assert!(!plan.is_all_asked(&tight).unwrap());
        let small = Context { memory: 2_400_000_000, ..tight };
        let message = plan.is_all_asked(&small).unwrap_err().to_string();
        assert!(
            message.contains("decoded chunks 500 MB") && message.contains("--memory"),
            "{message}"
        );
    }
}
