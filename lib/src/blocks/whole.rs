use super::ledger;
use super::pipeline::{Stages, stages};
use super::{Context, Error, Plan, Task, TaskResult, TaskResults};
use crate::device::megabytes;
use crate::volume::{self, Unfinished};

impl Plan {
    /// Like [`Plan::stream`], for tasks that write into `output`. When all tasks of the plan are
    /// done or failed, the metadata of `output` record the number of blocks without a result.
    ///
    /// # Errors
    /// As [`Plan::stream`]; [`volume::Error`] if the metadata cannot be written.
    pub fn stream_to<
        R: Send,
        W: Send,
        N: Into<TaskResult>,
        E: From<Error> + From<volume::Error>,
    >(
        &self,
        ctx: &Context,
        output: &(impl Unfinished + Sync),
        read: impl Fn(&Task) -> anyhow::Result<R> + Sync,
        compute: impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
        write: impl Fn(&Task, W) -> anyhow::Result<N> + Sync,
    ) -> Result<TaskResults, E> {
        let write = |task: &Task, result: W| {
            let mut result: TaskResult = write(task, result)?.into();
            result.files = Some(output.stored(&task.core)?);
            Ok(result)
        };
        self.stream_into(ctx, output, &stages(read, &compute, &write))
    }

    fn stream_into<E: From<Error> + From<volume::Error>>(
        &self,
        ctx: &Context,
        output: &(dyn Unfinished + Sync),
        stages: &Stages<'_>,
    ) -> Result<TaskResults, E> {
        let folder = output.ledger_folder();
        let files = |task: &Task| output.files(&task.core);
        let streamed = self.stream_over(ctx, &folder, stages, &files);
        let ended = matches!(streamed, Ok(_) | Err(Error::TooManyFailed { .. }));
        if ended && !ctx.plan_only {
            let read;
            let entries = match &streamed {
                Ok(results) if results.entries.len() == self.tasks().len() => &results.entries,
                // other parts may have added entries to the ledger meanwhile
                _ => {
                    read = ledger::load(&folder, self)?;
                    &read
                }
            };
            let failed = entries.outcomes().filter(Result::is_err).count();
            // while some tasks have no entry, the output keeps its mark as unfinished
            if entries.len() == self.tasks().len() {
                let lacking = (failed > 0).then_some([failed, self.tasks().len()]);
                output.set_missing_blocks(lacking, streamed.is_ok())?;
            }
        }
        Ok(streamed?)
    }

    /// Warns if the memory limit leaves threads idle.
    pub(super) fn warn_if_tight(&self, ctx: &Context, in_flight: usize) {
        if in_flight < ctx.threads.min(self.tasks().len()) {
            tracing::warn!(
                "--memory {} admits {in_flight} blocks at once for {} threads, as each needs {}; a smaller \
                 --block-size admits more",
                megabytes(ctx.memory),
                ctx.threads,
                self.task
            );
        }
    }
}
