use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::active_runs::ActiveRuns;
use super::receipt::{InputRecord, Receipt, ReceiptSink, receipt_path};
use super::{Budget, Cancel, Error, Progress};
use crate::device::{Cost, Device};
use crate::volume::{self, Existing, Output, Volume};
use crate::{files, store};

/// One part of a plan's tasks: the `k`-th of `n`, `k` from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The number of this part, from 1.
    pub k: usize,
    /// The number of parts.
    pub n: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self { k: 1, n: 1 }
    }
}

/// Where the receipt of an output file is written: beside it, or nowhere for standard output.
fn receipt_sink(path: &Path) -> Option<ReceiptSink> {
    (!files::is_stream(path)).then(|| ReceiptSink::File(path.to_path_buf()))
}

/// The values of the command-line flags that all operations share; passed to every operation.
///
/// The default is a quiet run of all tasks with one thread, for tests and for use as a library.
pub struct Context {
    /// Number of compute threads.
    pub threads: usize,
    /// Number of additional threads that read and write; if `None`, half of `threads`. More are
    /// useful if each access takes long, as in a bucket.
    pub io_threads: Option<usize>,
    /// Maximum resident memory, bytes.
    pub memory: u64,
    /// The device on which kernels run.
    pub device: Device,
    /// `--block-size`, voxels (z, y, x).
    pub block_size: Option<[usize; 3]>,
    /// `--part`: the part of the tasks that this run does; 1/1 if the flag is not given.
    pub part: Part,
    /// Whether `--part` was given, even as 1/1: work that needs all parts is then left to
    /// `--finish`.
    pub scattered: bool,
    /// `--finish`: skip the blocks of the first pass, check that every part is done, then do the
    /// work that needs all parts. With `part`, only that part of the second pass is done.
    pub finish: bool,
    /// `--plan`: print the plan and compute nothing.
    pub plan_only: bool,
    /// How to treat an existing output: `--resume`, `--overwrite`, or refuse it (the default).
    pub existing: Existing,
    /// `--allow-failed`: the maximum fraction of blocks that may fail or use the fallback result.
    pub allow_failed: f64,
    /// `--seed`: the seed of the random numbers.
    pub seed: u64,
    /// `--progress`: how progress is shown.
    pub progress: Progress,
    /// Tells whether a signal asked the run to stop.
    pub cancel: Cancel,
    /// The record of this run so far; `cli` writes it at the end.
    pub receipt: Mutex<Receipt>,
    /// The folders in which this run is active.
    pub active_runs: ActiveRuns,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            threads: 1,
            io_threads: None,
            memory: 4 << 30,
            device: Device::default(),
            block_size: None,
            part: Part::default(),
            scattered: false,
            finish: false,
            plan_only: false,
            existing: Existing::default(),
            allow_failed: 0.0,
            seed: 0,
            progress: Progress::None,
            cancel: Cancel::default(),
            receipt: Mutex::default(),
            active_runs: ActiveRuns::default(),
        }
    }
}

impl Context {
    /// Whether this run does the work that needs all blocks: it runs all of them itself, or
    /// `--finish` was given without `--part`.
    pub fn gathers(&self) -> bool {
        !self.plan_only && !self.is_share()
    }

    /// Whether this run does tasks of a second pass: it does if it runs all blocks of the first
    /// pass itself, or with `--finish`.
    pub fn reaches_second_pass(&self) -> bool {
        !self.plan_only && (self.finish || !self.is_share())
    }

    fn is_share(&self) -> bool {
        self.scattered || self.part.n > 1
    }

    /// How to treat an output that has appeared between the check at the start of this run and its
    /// creation. The result is [`Existing::Overwrite`] if `--overwrite` is given and no other run
    /// was active when this run entered its folders. Otherwise it is [`Existing::Resume`], because
    /// the output belongs to a run of the same plan, and both runs share it.
    pub fn existing_now(&self) -> Existing {
        match self.existing {
            Existing::Overwrite if !self.has_concurrent_runs() => Existing::Overwrite,
            _ => Existing::Resume,
        }
    }

    /// Refuses an operation without tasks if its peak memory exceeds `--memory`. With `--plan`,
    /// records the required memory and returns true; the caller must then return before it creates
    /// anything.
    ///
    /// # Errors
    /// [`Error::Usage`], which states the bytes needed.
    pub fn is_plan_asked(&self, what: &str, budget: &Budget, cost: &Cost) -> Result<bool, Error> {
        budget.admit(what, cost)?;
        Ok(self.notes_plan(what, budget, cost))
    }

    /// Like [`Context::is_plan_asked`], but memory is not checked: for an operation that limits its
    /// own memory to `--memory`.
    pub fn notes_plan(&self, what: &str, budget: &Budget, cost: &Cost) -> bool {
        if self.plan_only {
            let plan = budget.describe(what, cost);
            self.update_receipt(|receipt| receipt.plans.push(plan));
        }
        self.plan_only
    }

    /// Adds a named result of this program to the receipt.
    pub fn record(&self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        self.update_receipt(|receipt| {
            receipt.results.insert(name.to_owned(), value);
        });
    }

    /// Adds an input volume to the receipt.
    pub fn input(&self, volume: &Volume) {
        let grid = volume.grid();
        self.update_receipt(|receipt| {
            receipt.watched.push(volume.watch());
            receipt.inputs.push(InputRecord {
                shape: Some(grid.shape),
                dtype: Some(volume.dtype().name()),
                spacing: Some(grid.spacing),
                location: volume.location().to_owned(),
                fingerprint: volume
                    .identity()
                    .ok()
                    .map(|known| known["content"].clone())
                    .and_then(|v| v.as_str().map(str::to_owned)),
            });
        });
    }

    /// Registers the array in an input folder, such as a displacement field, for
    /// [`Context::check_inputs`]. Any other location is ignored.
    pub fn watch(&self, location: &str) {
        self.update_receipt(|receipt| receipt.watched.extend(volume::watch(location)));
    }

    /// Checks that the volumes and fields that were read have not changed. [`Plan::stream`] calls
    /// it; an operation that reads a volume without [`Plan::stream`] calls it before it writes.
    ///
    /// [`Plan::stream`]: super::Plan::stream
    ///
    /// # Errors
    /// [`Error::Input`] if an input has changed.
    pub fn check_inputs(&self) -> Result<(), Error> {
        let mut watched = Vec::new();
        self.update_receipt(|receipt| watched.clone_from(&receipt.watched));
        watched.iter().try_for_each(|watch| watch.check()).map_err(Error::Input)
    }

    /// Adds an input table, transform or other file to the receipt.
    pub fn input_file(&self, location: &str) {
        let input = InputRecord::new(location);
        self.watch(location);
        self.update_receipt(|receipt| receipt.inputs.push(input));
    }

    /// Adds an output file or folder to the receipt, which is written beside it.
    pub fn output_file(&self, path: &Path) {
        self.update_receipt(|receipt| {
            receipt.outputs.push(path.display().to_string());
            receipt.sinks.extend(receipt_sink(path));
        });
    }

    /// Like [`Context::output_file`], for an output that an earlier run has finished. An existing
    /// receipt is kept.
    pub fn output_done(&self, path: &Path) {
        self.update_receipt(|receipt| {
            receipt.outputs.push(path.display().to_string());
            if !store::exists(&receipt_path(path)) {
                receipt.sinks.extend(receipt_sink(path));
            }
        });
    }

    /// Returns the error (exit code 3) for a result that must not be trusted; the caller must not
    /// write `output`. An existing file that `--overwrite` was to replace is removed (an array in a
    /// folder is kept), and the receipt beside `output` will state the reason. If the removal
    /// fails, the error is [`Error::Io`].
    pub fn reject_result(&self, output: &Path, reason: &str) -> Error {
        if self.existing == Existing::Overwrite
            && !files::is_stream(output)
            && !store::is_folder(output)
            && let Err(error) = store::delete(output)
        {
            return Error::io("remove", output)(error);
        }
        self.update_receipt(|receipt| receipt.sinks.extend(receipt_sink(output)));
        self.record("believed", false);
        self.record("refusal", reason);
        Error::Rejected(reason.to_owned())
    }

    /// Adds an output volume to the receipt. The receipt is stored in the array's attributes, or
    /// beside a single-file output. The ledger of a single-file output is removed after all its
    /// blocks are done.
    pub fn output_array(&self, output: &Arc<Output>) {
        let path = Path::new(output.location());
        if output.is_file() {
            if self.gathers() {
                self.sweep_later(&output.ledger_folder());
            }
            return self.output_file(path);
        }
        let array = Arc::clone(output);
        let set = move |value| array.set_attribute("voxloom", value).map_err(Error::Input);
        self.update_receipt(|receipt| {
            receipt.outputs.push(output.location().to_owned());
            receipt.sinks.push(ReceiptSink::Attribute(Arc::new(set)));
        });
    }

    /// Refuses an output file that exists, unless `--resume` or `--overwrite` is given.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub fn refuse_existing(&self, path: &Path) -> Result<(), Error> {
        if self.existing != Existing::Refuse || files::is_stream(path) {
            return Ok(());
        }
        match store::stat(path).map_err(Error::io("read", path))? {
            Some(_) => Err(Error::Exists { path: path.display().to_string() }),
            None => Ok(()),
        }
    }

    /// Refuses to replace the document that describes an output, or removes it with `--overwrite`: it
    /// must not be taken for that of the new output if the run does not end.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Io`] if it cannot be removed.
    pub fn replace_document(&self, document: &Path) -> Result<(), Error> {
        self.refuse_existing(document)?;
        if self.existing == Existing::Overwrite && !self.finish && store::exists(document) {
            store::delete(document).map_err(Error::io("remove", document))?;
        }
        Ok(())
    }

    /// Adds to the bytes read in the receipt. If an operation never adds any, the receipt states
    /// the count of the operating system.
    pub fn add_bytes_read(&self, bytes: u64) {
        self.update_receipt(|receipt| receipt.bytes[0] += bytes);
    }

    /// Adds to the bytes written in the receipt. If an operation never adds any, the receipt states
    /// the count of the operating system.
    pub fn add_bytes_written(&self, bytes: u64) {
        self.update_receipt(|receipt| receipt.bytes[1] += bytes);
    }

    /// Modifies the receipt.
    pub(super) fn update_receipt(&self, change: impl FnOnce(&mut Receipt)) {
        // the receipt is consistent even if a thread panicked while it held the lock
        let mut receipt = self.receipt.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut receipt);
    }
}
