//! Block-wise execution of an operation: plan, streaming, ledger and receipt.
//!
//! A [`Plan`] divides the output into tasks, each of which is the only writer of its `core` box:
//! the blocks of a grid ([`Plan::tile`]), or a list of boxes of any sizes ([`Plan::list`]).
//! [`Plan::stream`] owns all threads, queues, memory accounting, progress, cancellation, per-block
//! failures and the ledger; an operation supplies three closures (read, compute, write). An
//! operation that writes a volume has this form:
//!
//! ```text
//! let budget = Budget::of(ctx);
//! let block = Plan::choose_block(bounds, WriteUnit::of(&spec), |block| cost_of(block), ctx)?;
//! let shared = budget.caches(&[(Reads::Volume(&moving), useful)], &cost_of(block));
//! let identity = Identity::of("smooth").with_volume("moving", &moving)?.with("options", options);
//! let plan = Plan::tile(bounds, block, cost_of(block), &identity);
//! let plan = plan.with_overhead(&budget, shared, each_thread);
//! if plan.is_all_asked(ctx)? { return Ok(()) }            // --plan: nothing may be created
//! let out = Arc::new(Output::begin(location, &spec, 1, &plan.as_run(ctx))?);
//! ctx.input(&moving);
//! ctx.output_array(&out);
//! let results = plan.stream_to::<_, _, _, Error>(ctx, &*out, read, compute, write)?;
//! if ctx.gathers() { /* work that needs all blocks: metadata, reductions of results.summaries() */ }
//! ```
//!
//! An operation that produces a table stores the rows of each task in [`TaskRows`] and reads them
//! back in task order. If blocks overlap and their results must be combined, the operation has a
//! second plan, which [`Plan::stream_second`] runs if [`Context::reaches_second_pass`] is true.

mod active_runs;
mod begin;
mod budget;
mod cancel;
mod claim;
mod context;
mod counts;
mod entries;
mod error;
mod files;
mod fit;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod kill;
mod ledger;
mod missing_output;
mod pack;
mod pipeline;
mod plan;
mod pool;
mod process;
mod progress;
mod receipt;
mod rows;
mod stderr;
mod stream;
mod task_result;
mod tasks;
mod whole;

pub use active_runs::ActiveRuns;
pub use budget::{Budget, Reads, useful_cache_bytes};
pub use cancel::Cancel;
pub use context::{Context, Part};
pub use counts::{BlockCounts, FailedBlock};
pub use error::{Error, ExitReason, is_passing, sentence};
pub use files::{ledger_folder_of, remove_folder_of_stream, write_whole};
pub use fit::{WriteUnit, refuse_large, refuse_many, warn_of_halo};
pub use identity::Identity;
pub use ledger::LedgerEntry;
pub use plan::{IDENTITY_ATTRIBUTE, Plan, RESULTS};
pub use pool::Pool;
pub use process::memory_allowed;
pub use progress::{Progress, above_bar};
pub use receipt::{Receipt, receipt_path};
pub use rows::{StoredRows, TaskRows};
pub use stderr::{flush_stderr, shorten, write_stderr};
pub use task_result::{TaskResult, TaskResults};
pub use tasks::{Key, ListedTask, Task, Tasks};

pub(crate) use kill::{KillPoint, abort_if_selected};

/// How a task that produced a result ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The computed result was written.
    Done,
    /// The input of the task contains no data; the operation's defined empty result was written.
    Empty,
    /// The result could not be computed, for this reason; the operation's documented replacement
    /// was written.
    Fallback(String),
}
