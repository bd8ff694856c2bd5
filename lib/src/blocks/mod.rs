//! Running an operation block by block: plan, stream, ledger, receipt.
//!
//! A [`Plan`] cuts the output into tasks, each the only writer of its `core`. [`Plan::stream`] owns
//! all threads, queues, memory accounting, progress, cancellation, per-block failures and the
//! ledger; operations give it three closures. An operation that writes a volume reads like this:
//!
//! ```text
//! let budget = Budget::of(ctx);
//! let block = Plan::choose_block(bounds, WriteUnit::of(&spec), |block| cost_of(block), ctx)?;
//! let shared = budget.caches(&[(Reads::Volume(&moving), useful)], &cost_of(block));
//! let identity = Identity::of("smooth").with_volume("moving", &moving)?.with("options", options);
//! let plan = Plan::tile(bounds, block, cost_of(block), &identity).beside(&budget, shared, each_thread);
//! if plan.is_all_asked(ctx)? { return Ok(()) }            // --plan: nothing may be created
//! let out = Arc::new(Output::create(location, &spec, ctx.existing)?);
//! ctx.input(&moving);
//! ctx.output_array(&out);
//! let ends = plan.stream(ctx, &out.ledger_folder(), read, compute, write)?;
//! if ctx.gathers() { /* what needs all blocks: metadata, numbers reduced from ends.summaries() */ }
//! ```
//!
//! One that makes a table puts each task's rows into [`Rows`] and reads them back in task order. One whose
//! blocks overlap and must agree has a second plan, run by [`Plan::stream_second`] where
//! [`Context::reaches_second_pass`].

mod begin;
mod budget;
mod cancel;
mod claim;
mod context;
mod ending;
mod error;
mod files;
mod fit;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod kill;
mod ledger;
mod live;
mod pipeline;
mod plan;
mod pool;
mod process;
mod progress;
mod receipt;
mod rows;
mod stream;
mod talk;
mod whole;

pub use budget::{Budget, Reads, worth_keeping};
pub use cancel::Cancel;
pub use context::{Context, Part};
pub use ending::{Ending, Ends};
pub use error::{Error, Verdict, is_passing, sentence};
pub use files::{folder_beside, remove_folder_of_stream, write_whole};
pub use fit::{WriteUnit, refuse_large, refuse_many, warn_of_halo};
pub use identity::Identity;
pub use ledger::Entry;
pub use live::Lives;
pub use plan::{MARK, Plan, RESULTS};
pub use pool::Pool;
pub use process::memory_allowed;
pub use progress::{Progress, above_bar};
pub use receipt::{Failure, Receipt, Tally, receipt_beside};
pub use rows::{Rows, Stored};
pub use talk::{finish_talk, say, shorten};

pub(crate) use kill::{Moment, may_die};

use crate::geom::Box3;

/// One block of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its number in the plan, from 0; the same for every part.
    pub id: usize,
    /// Its place in the grid of blocks.
    pub index: [usize; 3],
    /// The output box that it alone writes.
    pub core: Box3,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// There was nothing to do (no data in reach): a defined result was written.
    Empty,
    /// The stated rule replaced a result that could not be had, for this reason.
    Fallback(String),
}
