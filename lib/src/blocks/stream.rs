//! Runs a plan: computes the remaining tasks of a part, and checks that the results of finished
//! tasks still exist.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::entries::Entries;
use super::files::output_of;
use super::ledger::{self, Ledger};
use super::missing_output::Files;
use super::pipeline::{self, Stages, stages};
use super::{
    BlockCounts, Context, Error, KillPoint, Plan, Task, TaskResult, TaskResults, abort_if_selected,
    is_passing, rows,
};
use crate::store;
use crate::volume::Existing;

impl Plan {
    /// Runs the tasks of this part that have no result in the ledger in `folder`.
    ///
    /// At most `ctx.threads` threads compute at the same time, including those that decode and
    /// encode chunks and rayon's threads inside `compute`. Additional threads (`ctx.io_threads`)
    /// read and write meanwhile. The number of tasks in memory is limited by `ctx.memory`. A task
    /// is entered in the ledger after its `write` has returned. If a closure returns an error or
    /// panics, its block has failed: the receipt names the block, and the run continues unless the
    /// error is a transient fault of the storage. A resumed run retries failed blocks. With
    /// `ctx.plan_only`, no task runs; with `ctx.finish`, only the presence of all results is
    /// checked.
    ///
    /// Returns the results of all tasks that have an entry in the ledger.
    ///
    /// # Errors
    /// [`Error::TooManyFailed`] if more than the fraction `ctx.allow_failed` of the blocks has no
    /// result (a fallback is a result here; `cli` checks fallbacks at the end of the program);
    /// [`Error::Interrupted`], [`Error::Block`] for a transient fault, [`Error::Missing`],
    /// [`Error::OtherPlan`], [`Error::Exists`], [`Error::Input`] if an input has changed,
    /// [`Error::Usage`] if not even one task fits into memory, [`Error::Rows`],
    /// [`Error::Threads`], [`Error::Io`].
    pub fn stream<R: Send, W: Send, E: Into<TaskResult>>(
        &self,
        ctx: &Context,
        folder: &Path,
        read: impl Fn(&Task) -> anyhow::Result<R> + Sync,
        compute: impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
        write: impl Fn(&Task, W) -> anyhow::Result<E> + Sync,
    ) -> Result<TaskResults, Error> {
        self.stream_over(ctx, folder, &stages(read, &compute, &write), &|_| Vec::new())
    }

    /// Like [`Plan::stream`], for tasks that need the results of lower waves: `read` gets the
    /// results of all tasks of lower waves.
    ///
    /// A part does those of its tasks whose wave can begin. If a wave needs tasks of other parts
    /// that are not done, the run warns and ends before that wave. Repeat the command later to do
    /// the remaining tasks.
    ///
    /// # Errors
    /// As [`Plan::stream`].
    pub fn stream_waves<R: Send, W: Send, E: Into<TaskResult>>(
        &self,
        ctx: &Context,
        folder: &Path,
        read: impl Fn(&Task, &TaskResults) -> anyhow::Result<R> + Sync,
        compute: impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
        write: impl Fn(&Task, W) -> anyhow::Result<E> + Sync,
    ) -> Result<TaskResults, Error> {
        if self.is_all_asked(ctx)? {
            return Ok(TaskResults::default());
        }
        if ctx.finish {
            return self.check_finished(ctx, folder, &|_| Vec::new());
        }
        let earlier = Mutex::new(Arc::new(TaskResults::default()));
        let lock = || earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |task: &Task| {
            let results = Arc::clone(&lock());
            read(task, &results)
        };
        let stages = stages(read, &compute, &write);
        let begin_wave = |entries: &Entries| {
            *lock() = Arc::new(TaskResults::new(folder, entries.clone()));
        };
        let run = StreamOptions {
            existing: ctx.existing,
            files: &|_| Vec::new(),
            begin_wave: &begin_wave,
        };
        let entries = self.run(ctx, folder, &stages, &run)?;
        conclude(ctx, self.share(ctx), &entries)?;
        Ok(TaskResults::new(folder, entries))
    }

    /// Like [`Plan::stream`]; `files` returns the output files of a task. The task is done again if
    /// some of these files have been removed.
    pub(super) fn stream_over(
        &self,
        ctx: &Context,
        folder: &Path,
        stages: &Stages<'_>,
        files: &Files<'_>,
    ) -> Result<TaskResults, Error> {
        if self.is_all_asked(ctx)? {
            return Ok(TaskResults::default());
        }
        if ctx.finish {
            return self.check_finished(ctx, folder, files);
        }
        let run = StreamOptions { existing: ctx.existing, files, begin_wave: &|_| {} };
        let entries = self.run(ctx, folder, stages, &run)?;
        conclude(ctx, self.share(ctx), &entries)?;
        Ok(TaskResults::new(folder, entries))
    }

    /// Like [`Plan::stream`], for the second pass of an operation, which needs all blocks of the
    /// first pass. Call it if [`Context::reaches_second_pass`] is true. The second pass has its own
    /// ledger in `folder`, from which an interrupted run resumes.
    ///
    /// With `--finish --part K/N`, the run does that part of the tasks; with `--finish` alone, it
    /// does all that remain. The receipt does not count the blocks of this pass, but lists those
    /// that failed. A single failure makes the run fail.
    ///
    /// # Errors
    /// As [`Plan::stream`].
    pub fn stream_second<R: Send, W: Send, E: Into<TaskResult>>(
        &self,
        ctx: &Context,
        folder: &Path,
        read: impl Fn(&Task) -> anyhow::Result<R> + Sync,
        compute: impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
        write: impl Fn(&Task, W) -> anyhow::Result<E> + Sync,
    ) -> Result<TaskResults, Error> {
        self.run_second(ctx, folder, &stages(read, &compute, &write))
    }

    fn run_second(
        &self,
        ctx: &Context,
        folder: &Path,
        stages: &Stages<'_>,
    ) -> Result<TaskResults, Error> {
        let existing = ctx.existing_now();
        let run = StreamOptions { existing, files: &|_| Vec::new(), begin_wave: &|_| {} };
        let entries = self.run(ctx, folder, stages, &run)?;
        if ctx.finish && ctx.gathers() {
            gather(ctx, folder)?;
        }
        let mut tally = BlockCounts::default();
        tally.add(self.share(ctx), &entries);
        ctx.update_receipt(|receipt| receipt.blocks.failed.extend(tally.failed.iter().cloned()));
        tally.check(0.0, false)?;
        Ok(TaskResults::new(folder, entries))
    }

    /// The tasks of this part.
    fn share(&self, ctx: &Context) -> impl Iterator<Item = Task> + use<'_> {
        self.tasks().share(ctx.part).into_iter().flatten().map(|id| self.tasks().get(id))
    }

    fn check_finished(
        &self,
        ctx: &Context,
        folder: &Path,
        files: &Files<'_>,
    ) -> Result<TaskResults, Error> {
        if store::exists(folder) {
            ctx.enter(folder)?;
        }
        let mut entries = ledger::load(folder, self)?;
        let total = self.tasks().len();
        let all: Vec<usize> = (0..total).collect();
        self.remove_missing(&all, &mut entries, files);
        let mut missing = all.iter().filter(|task| !entries.contains(**task));
        if let Some(&first) = missing.next() {
            return Err(Error::Missing { missing: missing.count() + 1, total, first });
        }
        rows::check_lengths(folder, self.tasks(), &entries)?;
        if ctx.gathers() {
            gather(ctx, folder)?;
            conclude(ctx, self.tasks().iter(), &entries)?;
        }
        Ok(TaskResults::new(folder, entries))
    }

    fn run(
        &self,
        ctx: &Context,
        folder: &Path,
        stages: &Stages<'_>,
        run: &StreamOptions<'_>,
    ) -> Result<Entries, Error> {
        store::forget();
        let is_concurrent = ctx.enter(folder)?;
        let mut entries = ledger::begin(folder, self, run.existing, is_concurrent)?;
        ctx.update_receipt(|receipt| receipt.folders.push(folder.to_path_buf()));
        let parts = self.tasks().share(ctx.part);
        let tasks: Vec<usize> = parts.iter().cloned().flatten().collect();
        rows::remove_damaged(folder, self.tasks(), &tasks, &mut entries);
        self.remove_missing(&tasks, &mut entries, run.files);
        if tasks.iter().all(|task| entries.has_ended(*task)) {
            let (output, count) = (output_of(folder), tasks.len());
            match count {
                0 => tracing::info!("{output}: this part has no blocks"),
                1 => tracing::info!("{output}: its only block was done by an earlier run"),
                _ => tracing::info!("{output}: all {count} blocks were done by an earlier run"),
            }
            abort_if_selected(KillPoint::Plan);
            return Ok(entries);
        }
        let ledger = Ledger::create(folder, self, ctx)?;
        let work = pipeline::PlannedRun { ctx, plan: self, folder, ledger: &ledger };
        for (wave, part) in self.tasks().waves().into_iter().zip(parts) {
            if wave.start > 0 && !self.can_begin(&wave, &part, &mut entries, ctx, folder)? {
                break;
            }
            (run.begin_wave)(&entries);
            let todo: Vec<usize> = part.filter(|task| !entries.has_ended(*task)).collect();
            let done = work.run(stages, &todo, &tasks, entries)?;
            let unchanged = ctx.check_inputs();
            if unchanged.as_ref().is_err_and(|error| !is_passing(error)) {
                // results that were computed from the changed inputs may be wrong
                ledger.withdraw();
            }
            let closed = ledger.sync_pending();
            if let Some(fault) = done.fault {
                return Err(fault);
            }
            unchanged.and(closed)?;
            if let Some(signal) = ctx.cancel.signal()
                && done.ended < todo.len()
            {
                return Err(Error::Interrupted { signal });
            }
            entries = done.entries;
        }
        abort_if_selected(KillPoint::Plan);
        Ok(entries)
    }

    /// Whether all tasks of lower waves are done, with no more failures than are allowed. If
    /// entries are missing, the ledgers are read again, because other parts may have added them.
    fn can_begin(
        &self,
        wave: &Range<usize>,
        part: &Range<usize>,
        entries: &mut Entries,
        ctx: &Context,
        folder: &Path,
    ) -> Result<bool, Error> {
        let lower = 0..wave.start;
        if !lower.clone().all(|task| entries.contains(task)) {
            *entries = ledger::load(folder, self)?;
        }
        let missing = lower.clone().filter(|task| !entries.contains(*task)).count();
        if missing > 0 && !part.is_empty() {
            tracing::warn!(
                "{}: {} blocks of this part need {missing} blocks of other parts that are not done; run this \
                 part again when they are",
                output_of(folder),
                part.len()
            );
        }
        let failed = lower.clone().filter(|task| matches!(entries.outcome(*task), Some(Err(_))));
        let accepted = failed.count() as f64 <= ctx.allow_failed * lower.len() as f64;
        Ok(missing == 0 && accepted)
    }
}

/// The options in which [`Plan::stream`], [`Plan::stream_waves`] and [`Plan::stream_second`]
/// differ.
struct StreamOptions<'a> {
    /// How to treat earlier work.
    existing: Existing,
    files: &'a Files<'a>,
    /// Called before each wave with the entries of the lower waves.
    begin_wave: &'a (dyn Fn(&Entries) + Sync),
}

/// Adds the resources used by the parts to the receipt.
fn gather(ctx: &Context, folder: &Path) -> Result<(), Error> {
    let mut gathered = Ok(());
    ctx.update_receipt(|receipt| gathered = receipt.gather(folder));
    gathered
}

/// Adds the blocks to the receipt, and refuses a run in which too many blocks have no result.
fn conclude(
    ctx: &Context,
    tasks: impl Iterator<Item = Task>,
    entries: &Entries,
) -> Result<(), Error> {
    let mut tally = BlockCounts::default();
    tally.add(tasks, entries);
    let verdict = tally.check(ctx.allow_failed, false);
    ctx.update_receipt(|receipt| receipt.blocks.extend(tally));
    verdict
}

#[cfg(test)]
mod tests;
