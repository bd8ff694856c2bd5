use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::live::Lives;
use super::receipt::{Input, Receipt, Sink, receipt_beside};
use super::{Budget, Cancel, Error, Progress};
use crate::device::{Cost, Device};
use crate::files;
use crate::volume::{self, Existing, Output, Volume};

/// One share of a plan's tasks: the `k`-th of `n`, `k` from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which share, from 1.
    pub k: usize,
    /// Of how many.
    pub n: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self { k: 1, n: 1 }
    }
}

impl Part {
    /// Its share of `count` tasks: contiguous, and equal to within one.
    pub fn range(self, count: usize) -> std::ops::Range<usize> {
        let n = self.n.max(1);
        let k = self.k.clamp(1, n);
        count * (k - 1) / n..count * k / n
    }
}

/// Where the receipt of a file goes; beside standard output there is no place.
fn beside(path: &Path) -> Option<Sink> {
    (!files::is_stream(path)).then(|| Sink::Beside(path.to_path_buf()))
}

/// What the shared flags of the command line said; passed to every operation.
///
/// The default is a quiet run of everything with one thread, for tests and for use as a library.
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
    /// Whether `--part` was given, be it 1/1: what needs all parts is then left to `--finish`.
    pub scattered: bool,
    /// `--finish`: no blocks of the first pass; check that every part is done, then do what needs all of
    /// them. With `part`, only that share of the second pass.
    pub finish: bool,
    /// `--plan`: print the plan, compute nothing.
    pub plan_only: bool,
    /// `--resume`, `--overwrite`.
    pub existing: Existing,
    /// `--allow-failed`: the fraction of blocks that may fail or fall back.
    pub allow_failed: f64,
    /// `--seed`.
    pub seed: u64,
    /// `--progress`.
    pub progress: Progress,
    /// Whether a signal came.
    pub cancel: Cancel,
    /// What has been done so far; written by `cli` at the end.
    pub receipt: Mutex<Receipt>,
    /// Where this run is at work.
    pub lives: Lives,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            threads: 1,
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
            lives: Lives::default(),
        }
    }
}

impl Context {
    /// Whether this run does what needs all blocks: it does them all itself, or all parts are done.
    pub fn gathers(&self) -> bool {
        !self.plan_only && !self.is_share()
    }

    /// Whether this run does tasks of a second pass: all blocks of the first are done.
    pub fn reaches_second_pass(&self) -> bool {
        !self.plan_only && (self.finish || !self.is_share())
    }

    fn is_share(&self) -> bool {
        self.scattered || self.part.n > 1
    }

    /// What becomes of an output once it is decided that this run makes it: what has appeared since then is
    /// another run's of the same plan, and is shared with it.
    pub fn existing_now(&self) -> Existing {
        match self.existing {
            Existing::Overwrite if !self.is_in_company() => Existing::Overwrite,
            _ => Existing::Resume,
        }
    }

    /// Refuses what a program without tasks holds at its peak, where it does not fit into `--memory`, and notes
    /// it where `--plan` was given: the program then ends before it creates anything.
    ///
    /// # Errors
    /// [`Error::Usage`] with the bytes needed.
    pub fn is_plan_asked(&self, what: &str, budget: &Budget, cost: &Cost) -> Result<bool, Error> {
        budget.admit(what, cost)?;
        Ok(self.notes_plan(what, budget, cost))
    }

    /// As [`Context::is_plan_asked`], for what a program has fitted into `--memory` itself.
    pub fn notes_plan(&self, what: &str, budget: &Budget, cost: &Cost) -> bool {
        if self.plan_only {
            let plan = budget.describe(what, cost);
            self.note(|receipt| receipt.plans.push(plan));
        }
        self.plan_only
    }

    /// Adds a number of this program to the receipt.
    pub fn record(&self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        self.note(|receipt| {
            receipt.results.insert(name.to_owned(), value);
        });
    }

    /// Adds a volume that is read to the receipt.
    pub fn input(&self, volume: &Volume) {
        let grid = volume.grid();
        self.note(|receipt| {
            receipt.watched.push(volume.watch());
            receipt.inputs.push(Input {
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

    /// Sees to it that a folder that is read, such as that of a field, is still there at the end.
    pub fn watch(&self, location: &str) {
        self.note(|receipt| receipt.watched.extend(volume::watch(location)));
    }

    /// Whether the volumes and fields that were read are still what they were. [`Plan::stream`] asks; what
    /// reads a volume without it asks before it writes.
    ///
    /// [`Plan::stream`]: super::Plan::stream
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn check_inputs(&self) -> Result<(), Error> {
        let mut watched = Vec::new();
        self.note(|receipt| watched.clone_from(&receipt.watched));
        watched.iter().try_for_each(|watch| watch.check()).map_err(Error::Input)
    }

    /// Adds a table, a transform or another file that is read to the receipt.
    pub fn input_file(&self, location: &str) {
        let input = Input::new(location);
        self.watch(location);
        self.note(|receipt| receipt.inputs.push(input));
    }

    /// Adds a file or a folder that is written to the receipt, which goes beside it.
    pub fn output_file(&self, path: &Path) {
        self.note(|receipt| {
            receipt.outputs.push(path.display().to_string());
            receipt.sinks.extend(beside(path));
        });
    }

    /// As [`Context::output_file`], of an output that an earlier run has finished: its receipt stays where
    /// there is one.
    pub fn output_done(&self, path: &Path) {
        self.note(|receipt| {
            receipt.outputs.push(path.display().to_string());
            if !receipt_beside(path).exists() {
                receipt.sinks.extend(beside(path));
            }
        });
    }

    /// Ends a run whose result is not to be believed, with exit code 3: `output` is not written, what
    /// `--overwrite` was to replace there is removed, and the receipt, which goes beside it, says why.
    pub fn disbelieve(&self, output: &Path, reason: &str) -> anyhow::Error {
        if self.existing == Existing::Overwrite
            && !files::is_stream(output)
            && let Err(error) = std::fs::remove_file(output)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Error::io("remove", output)(error).into();
        }
        self.note(|receipt| receipt.sinks.extend(beside(output)));
        self.record("believed", false);
        self.record("refusal", reason);
        anyhow::Error::new(super::Verdict::TooManyFailed).context(reason.to_owned())
    }

    /// Adds a volume that is written to the receipt, which goes into its attributes, or beside it where it
    /// is one file; of that nothing else stays once all its blocks are there.
    pub fn output_array(&self, output: &Arc<Output>) {
        let path = Path::new(output.location());
        if output.is_file() {
            if self.gathers() {
                self.sweep_later(&output.ledger_folder());
            }
            return self.output_file(path);
        }
        let array = Arc::clone(output);
        let set = move |value| Ok(array.set_attribute("voxloom", value)?);
        self.note(|receipt| {
            receipt.outputs.push(output.location().to_owned());
            receipt.sinks.push(Sink::Attribute(Arc::new(set)));
        });
    }

    /// Stops where a file to be written exists and neither `--resume` nor `--overwrite` is given.
    pub fn refuse_existing(&self, path: &Path) -> Result<(), Error> {
        if self.existing == Existing::Refuse && path.exists() && !files::is_stream(path) {
            return Err(Error::Exists { path: path.display().to_string() });
        }
        Ok(())
    }

    /// Adds to the bytes read; where nothing is added, what the system counted is reported.
    pub fn add_bytes_read(&self, bytes: u64) {
        self.note(|receipt| receipt.bytes[0] += bytes);
    }

    /// Adds to the bytes written; where nothing is added, what the system counted is reported.
    pub fn add_bytes_written(&self, bytes: u64) {
        self.note(|receipt| receipt.bytes[1] += bytes);
    }

    /// Changes the receipt.
    pub(super) fn note(&self, change: impl FnOnce(&mut Receipt)) {
        // a panic elsewhere while it was locked leaves a receipt that is still whole
        let mut receipt = self.receipt.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut receipt);
    }
}
