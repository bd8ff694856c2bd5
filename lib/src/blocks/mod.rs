//! Running an operation block by block: plan, stream, ledger, receipt.
//!
//! A [`Plan`] cuts the output into tasks, each the only writer of its `core`. [`Plan::stream`] owns
//! all threads, queues, memory accounting, progress, cancellation, per-block failures and the
//! ledger; operations give it three closures.

use std::path::Path;
use std::sync::Mutex;

use crate::device::Device;
use crate::geom::Box3;
use crate::volume::Existing;

/// One share of a plan's tasks: the `k`-th of `n`, `k` from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which share, from 1.
    pub k: usize,
    /// Of how many.
    pub n: usize,
}

/// What the shared flags of the command line said; passed to every operation.
pub struct Context {
    /// Worker threads.
    pub threads: usize,
    /// Ceiling of resident memory, bytes.
    pub memory: u64,
    /// Where kernels run.
    pub device: Device,
    /// `--block-size`, voxels.
    pub block_size: Option<[usize; 3]>,
    /// `--part`.
    pub part: Part,
    /// `--finish`: no blocks; check that every part is done, then do what needs all of them.
    pub finish: bool,
    /// `--plan`: print the plan, compute nothing.
    pub plan_only: bool,
    /// `--resume`, `--overwrite`.
    pub existing: Existing,
    /// `--allow-failed`: the fraction of blocks that may fail or fall back.
    pub allow_failed: f64,
    /// `--seed`.
    pub seed: u64,
    /// What has been done so far; written by `cli` at the end.
    pub receipt: Mutex<Receipt>,
}

/// What was done, as JSON at the end (see `docs/formats.md`).
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// Numbers of this program: inliers, residuals, NCC.
    pub results: serde_json::Map<String, serde_json::Value>,
}

impl Context {
    /// Adds a number of this program to the receipt.
    pub fn record(&self, name: &str, value: impl Into<serde_json::Value>) {
        if let Ok(mut receipt) = self.receipt.lock() {
            receipt.results.insert(name.to_owned(), value.into());
        }
    }
}

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

/// Why a run of blocks ended early or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Ctrl-C or a signal: what is done is done.
    #[error("interrupted; run the same command with --resume to go on")]
    Interrupted,
    /// A block failed.
    #[error("block {index:?} failed: {source}")]
    Block {
        /// Its place in the grid of blocks.
        index: [usize; 3],
        /// The cause.
        source: anyhow::Error,
    },
    /// `--finish` found parts missing.
    #[error(
        "{missing} of {total} blocks are not done yet (first: {first}); run their parts, then --finish again"
    )]
    Missing {
        /// Blocks without an entry.
        missing: usize,
        /// Blocks in the plan.
        total: usize,
        /// The first of them.
        first: usize,
    },
    /// A flag does not fit.
    #[error("{0}")]
    Usage(String),
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Its refusal.
        source: std::io::Error,
    },
}

/// The tasks of an operation and what one of them costs.
pub struct Plan {
    /// All tasks, those of other parts too.
    pub tasks: Vec<Task>,
    /// Bytes that one task holds at its peak.
    pub bytes_per_task: u64,
    /// A text that says everything the result depends on: another plan's ledger is not this one's.
    pub fingerprint: String,
}

impl Plan {
    /// Cuts `bounds` into cores of `block` voxels.
    pub fn tile(
        _bounds: Box3,
        _block: [usize; 3],
        _bytes_per_task: u64,
        _fingerprint: String,
    ) -> Self {
        todo!()
    }

    /// Runs the tasks of this part that the ledger in `folder` does not hold yet.
    ///
    /// `read` runs in reader threads, `compute` in `ctx.threads` workers, `write` in writers; a
    /// task is entered in the ledger after its `write` returned. A task whose closure returns an
    /// error is a failed block: named in the receipt, and the run goes on unless the error is a
    /// passing fault of the storage. With `ctx.plan_only` nothing runs; with `ctx.finish` it only
    /// checks that all parts are done.
    pub fn stream<R: Send, W: Send>(
        &self,
        _ctx: &Context,
        _folder: &Path,
        _read: impl Fn(&Task) -> anyhow::Result<R> + Sync,
        _compute: impl Fn(&Task, R) -> anyhow::Result<W> + Sync,
        _write: impl Fn(&Task, W) -> anyhow::Result<Outcome> + Sync,
    ) -> Result<(), Error> {
        todo!()
    }
}
