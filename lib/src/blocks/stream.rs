//! Runs of a plan: remaining tasks of a part are done, finished ones are checked.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::files::output_of;
use super::ledger::{self, Entry, Ledger};
use super::pipeline::{self, Stages};
use super::{Context, Ending, Ends, Error, Moment, Plan, Tally, Task, may_die, rows};
use crate::store;
use crate::volume::Existing;

impl Plan {
    /// Runs the tasks of this part that are not yet in the ledger in `folder`.
    ///
    /// At most `ctx.threads` threads compute at once, including those that decode and encode chunks
    /// and rayon's threads inside `compute`; half as many additional threads read and write
    /// meanwhile. The number of tasks in memory at once is limited by `ctx.memory`. A task is
    /// entered in the ledger after its `write` has returned. If a closure returns an error or
    /// panics, its block has failed: the receipt names it, and the run continues unless the error
    /// is a transient fault of the storage. A resumed run retries failed blocks. With
    /// `ctx.plan_only` nothing runs; with `ctx.finish` it only checks that all parts are done.
    ///
    /// Returns the outcomes of all tasks known to be done, with their summaries.
    ///
    /// # Errors
    /// [`Error::TooManyFailed`] if more than the fraction `ctx.allow_failed` has no result (blocks
    /// with a fallback have one: `cli` counts them at the end); [`Error::Interrupted`],
    /// [`Error::Block`] for a transient fault, [`Error::Missing`], [`Error::OtherPlan`],
    /// [`Error::Exists`], [`Error::Io`].
    pub fn stream<R: Send, W: Send, E: Into<Ending>>(
        &self,
        ctx: &Context,
        folder: &Path,
        read: impl Fn(&Task) -> anyhow::Result<R> + Sync,
        compute: impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
        write: impl Fn(&Task, W) -> anyhow::Result<E> + Sync,
    ) -> Result<Ends, Error> {
        let write = |task: &Task, result: W| write(task, result).map(Into::into);
        self.stream_over(ctx, folder, &Stages { read, compute, write }, &|_, _| false)
    }

    /// Like [`Plan::stream`]; a task is done again if `gone` says that some of its output files are
    /// missing.
    pub(super) fn stream_over<R: Send, W: Send>(
        &self,
        ctx: &Context,
        folder: &Path,
        stages: &Stages<
            impl Fn(&Task) -> anyhow::Result<R> + Sync,
            impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
            impl Fn(&Task, W) -> anyhow::Result<Ending> + Sync,
        >,
        gone: &Gone<'_>,
    ) -> Result<Ends, Error> {
        if self.is_all_asked(ctx)? {
            return Ok(Ends::default());
        }
        if ctx.finish {
            return self.check_finished(ctx, folder, gone);
        }
        let entries = self.run(ctx, folder, ctx.existing, stages, gone)?;
        conclude(ctx, self.share(ctx), &entries)?;
        Ok(Ends::new(folder, entries))
    }

    /// Like [`Plan::stream`], for the second pass of an operation, which needs all blocks of the
    /// first. Call it if [`Context::reaches_second_pass`] is true. It has its own ledger in
    /// `folder`, from which an interrupted run resumes.
    ///
    /// `--finish --part K/N` does that part of its tasks, `--finish` all that remain. Its blocks
    /// are not counted in the receipt; failures are listed there, and none is allowed.
    ///
    /// # Errors
    /// As [`Plan::stream`].
    pub fn stream_second<R: Send, W: Send, E: Into<Ending>>(
        &self,
        ctx: &Context,
        folder: &Path,
        read: impl Fn(&Task) -> anyhow::Result<R> + Sync,
        compute: impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
        write: impl Fn(&Task, W) -> anyhow::Result<E> + Sync,
    ) -> Result<Ends, Error> {
        let write = |task: &Task, result: W| write(task, result).map(Into::into);
        let entries = self.run(
            ctx,
            folder,
            ctx.existing_now(),
            &Stages { read, compute, write },
            &|_, _| false,
        )?;
        if ctx.finish && ctx.gathers() {
            gather(ctx, folder)?;
        }
        let mut tally = Tally::default();
        tally.add(self.share(ctx), &entries);
        ctx.note(|receipt| receipt.blocks.failed.extend(tally.failed.iter().cloned()));
        tally.check(0.0, false)?;
        Ok(Ends::new(folder, entries))
    }

    /// The tasks of this part.
    fn share(&self, ctx: &Context) -> &[Task] {
        &self.tasks[ctx.part.range(self.tasks.len())]
    }

    fn check_finished(&self, ctx: &Context, folder: &Path, gone: &Gone<'_>) -> Result<Ends, Error> {
        if store::exists(folder) {
            ctx.enter(folder)?;
        }
        let mut entries = ledger::load(folder, self)?;
        forget_gone(&self.tasks, &mut entries, gone);
        let missing = self.tasks.iter().filter(|task| !entries.contains_key(&task.id));
        let missing: Vec<usize> = missing.map(|task| task.id).collect();
        if let Some(&first) = missing.first() {
            let total = self.tasks.len();
            return Err(Error::Missing { missing: missing.len(), total, first });
        }
        for task in &self.tasks {
            rows::check_length(folder, task, &entries)?;
        }
        if ctx.gathers() {
            gather(ctx, folder)?;
            conclude(ctx, &self.tasks, &entries)?;
        }
        Ok(Ends::new(folder, entries))
    }

    fn run<R: Send, W: Send>(
        &self,
        ctx: &Context,
        folder: &Path,
        existing: Existing,
        stages: &Stages<
            impl Fn(&Task) -> anyhow::Result<R> + Sync,
            impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
            impl Fn(&Task, W) -> anyhow::Result<Ending> + Sync,
        >,
        gone: &Gone<'_>,
    ) -> Result<BTreeMap<usize, Entry>, Error> {
        let in_company = ctx.enter(folder)?;
        let mut entries = ledger::begin(folder, self, existing, in_company)?;
        ctx.note(|receipt| receipt.folders.push(folder.to_path_buf()));
        let tasks = self.share(ctx);
        rows::forget_damaged(folder, tasks, &mut entries);
        forget_gone(tasks, &mut entries, gone);
        let ended = |task: &&Task| matches!(entries.get(&task.id), Some(Entry::Ended(_)));
        let todo: Vec<&Task> = tasks.iter().filter(|task| !ended(task)).collect();
        if todo.is_empty() {
            let (output, count) = (output_of(folder), tasks.len());
            match count {
                0 => tracing::info!("{output}: this part has no blocks"),
                1 => tracing::info!("{output}: its only block was done by an earlier run"),
                _ => tracing::info!("{output}: all {count} blocks were done by an earlier run"),
            }
            may_die(Moment::Plan);
            return Ok(entries);
        }
        let ledger = Ledger::create(folder, self, ctx)?;
        let work = pipeline::Work { ctx, plan: self, folder, ledger: &ledger };
        let done = work.run(stages, &todo, tasks.len(), entries)?;
        let unchanged = ctx.check_inputs();
        if unchanged.is_err() {
            // what was read in the meantime may be wrong
            ledger.forget();
        }
        let closed = ledger.settle();
        if let Some(fault) = done.fault {
            return Err(fault);
        }
        unchanged.and(closed)?;
        if let Some(signal) = ctx.cancel.signal()
            && done.ended < todo.len()
        {
            return Err(Error::Interrupted { signal });
        }
        may_die(Moment::Plan);
        Ok(done.entries)
    }
}

/// Adds the resources used by the parts to the receipt.
fn gather(ctx: &Context, folder: &Path) -> Result<(), Error> {
    let mut gathered = Ok(());
    ctx.note(|receipt| gathered = receipt.gather(folder));
    gathered
}

/// Adds the blocks to the receipt and refuses a run in which too many have no result.
fn conclude(ctx: &Context, tasks: &[Task], entries: &BTreeMap<usize, Entry>) -> Result<(), Error> {
    let mut tally = Tally::default();
    tally.add(tasks, entries);
    ctx.note(|receipt| receipt.blocks.add(tasks, entries));
    tally.check(ctx.allow_failed, false)
}

/// Whether fewer than this number of files hold the result of a task.
type Gone<'a> = dyn Fn(&Task, u64) -> bool + Sync + 'a;

/// Removes tasks whose output files are missing from `known`, so that they are done again.
fn forget_gone(tasks: &[Task], known: &mut BTreeMap<usize, Entry>, gone: &Gone<'_>) {
    let files = |task: &Task| match known.get(&task.id) {
        Some(Entry::Ended(ending)) => ending.files.filter(|files| *files > 0),
        _ => None,
    };
    let lost = |task: &&Task| files(task).is_some_and(|files| gone(task, files));
    let lost: Vec<usize> = tasks.par_iter().filter(lost).map(|task| task.id).collect();
    if let Some(first) = lost.first() {
        tracing::warn!(
            "chunks of {} blocks are gone, of block {first} first: these blocks are not done",
            lost.len()
        );
    }
    for task in lost {
        known.remove(&task);
    }
}

#[cfg(test)]
mod tests;
