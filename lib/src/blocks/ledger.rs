//! The ledger records which tasks of a plan are done. Each process appends lines to a file of its
//! own (in a bucket, it writes several objects); the state of the plan is the union of all lines.
//!
//! The line of a task is written after the result of the task is synced to disk
//! ([`Ledger::sync_pending`]), and is never changed. A killed process or a power failure therefore
//! costs the tasks in progress and at most about the last second of work (five seconds in a
//! bucket). Two processes can run the same part, because each has its own file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::claim;
use super::entries::Entries;
use super::files::unique;
use super::rows::StoredRows;
use super::{Context, Error, Identity, Outcome, Plan, TaskResult};
use crate::volume::{self, Existing};
use crate::{files, store};

/// Maximum time that a line is held back before the next sync.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// [`SYNC_INTERVAL`] for a bucket, where each sync takes a request and creates an object.
const BUCKET_SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// The ledger entry of a task: a result or a failure.
#[derive(Clone, Debug, PartialEq)]
pub enum LedgerEntry {
    /// The result of the task is written.
    Ended(TaskResult),
    /// The task failed; the text is the reason.
    Failed(String),
}

/// The first line of a ledger file.
#[derive(Serialize, Deserialize)]
struct LedgerHeader {
    ledger: u32,
    run: Value,
}

/// Version of the ledger format.
const VERSION: u32 = 3;

/// A line after the first one of a ledger file: the entry of a task.
#[derive(Serialize, Deserialize)]
struct Line {
    task: usize,
    end: EndStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<StoredRows>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EndStatus {
    Done,
    Empty,
    Fallback,
    Failed,
}

impl Line {
    fn new(task: usize, entry: &LedgerEntry) -> Self {
        let result = match entry {
            LedgerEntry::Ended(result) => result,
            LedgerEntry::Failed(reason) => {
                let reason = Some(reason.clone());
                let (rows, summary, files) = (None, None, None);
                return Self { task, end: EndStatus::Failed, reason, rows, summary, files };
            }
        };
        let TaskResult { rows, summary, files, .. } = result.clone();
        let (end, reason) = match &result.outcome {
            Outcome::Done => (EndStatus::Done, None),
            Outcome::Empty => (EndStatus::Empty, None),
            Outcome::Fallback(reason) => (EndStatus::Fallback, Some(reason.clone())),
        };
        Self { task, end, reason, rows, summary, files }
    }

    fn entry(self) -> LedgerEntry {
        let reason = self.reason.unwrap_or_default();
        let outcome = match self.end {
            EndStatus::Done => Outcome::Done,
            EndStatus::Empty => Outcome::Empty,
            EndStatus::Fallback => Outcome::Fallback(reason),
            EndStatus::Failed => return LedgerEntry::Failed(reason),
        };
        let Self { summary, rows, files, .. } = self;
        LedgerEntry::Ended(TaskResult { outcome, summary, rows, files })
    }
}

/// The ledger of this process: a file that grows, or in a bucket, where nothing can be appended,
/// one object after another.
pub(super) struct Ledger {
    path: PathBuf,
    log: Mutex<Log>,
    every: Duration,
}

struct Log {
    to: LogTarget,
    /// Lines of tasks whose results are not yet synced to disk.
    held: Vec<u8>,
    settled: Instant,
    /// The start of this run. This run fails if the sync of a file that was written later fails.
    since: files::SyncMark,
}

/// Where lines are written.
enum LogTarget {
    /// A local file.
    File(File),
    /// Objects in a bucket: `count` is their number so far, and each begins with the line `head`.
    /// If an object is lost, its tasks are done again.
    Segments { count: usize, head: Vec<u8> },
}

impl Ledger {
    /// Creates a ledger for this process in `folder`.
    pub(super) fn create(folder: &Path, plan: &Plan, ctx: &Context) -> Result<Self, Error> {
        let run = plan.agreement();
        let (k, n) = (ctx.part.k, ctx.part.n);
        let name = format!("ledger-{}-{k}of{n}-{}.jsonl", &run.hex()[..16], unique());
        let path = folder.join(name);
        let head = line(&path, &LedgerHeader { ledger: VERSION, run: run.to_json() })?;
        let is_remote = store::is_remote(folder);
        let to = if is_remote {
            LogTarget::Segments { count: 0, head: head.clone() }
        } else {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            LogTarget::File(File::create_new(&path).map_err(Error::io("create", &path))?)
        };
        let (held, settled, since) = (Vec::new(), Instant::now(), files::SyncMark::now());
        let log = Mutex::new(Log { to, held, settled, since });
        let ledger =
            Self { path, log, every: if is_remote { BUCKET_SYNC_INTERVAL } else { SYNC_INTERVAL } };
        if !is_remote {
            ledger.write(&mut ledger.lock(), &head)?;
            files::queue_folder(folder);
        }
        Ok(ledger)
    }

    /// Adds the entry of a task that failed or whose result is written.
    pub(super) fn enter(&self, task: usize, entry: &LedgerEntry) -> Result<(), Error> {
        let line = line(&self.path, &Line::new(task, entry))?;
        let mut log = self.lock();
        if !files::syncs() && matches!(log.to, LogTarget::File(_)) {
            return self.write(&mut log, &line);
        }
        log.held.extend(line);
        Ok(())
    }

    /// Whether lines are held back and the interval has passed or (for a file) a full batch waits.
    pub(super) fn is_due(&self) -> bool {
        let log = self.lock();
        let is_batch_full = matches!(log.to, LogTarget::File(_)) && files::is_batch_full();
        !log.held.is_empty() && (log.settled.elapsed() >= self.every || is_batch_full)
    }

    /// Syncs the results to disk, then writes the lines that record them.
    pub(super) fn sync_pending(&self) -> Result<(), Error> {
        let (held, since) = {
            let mut log = self.lock();
            log.settled = Instant::now();
            (std::mem::take(&mut log.held), log.since)
        };
        since.sync_pending().map_err(|error| Error::io("write", &error.path)(error.source))?;
        if held.is_empty() { Ok(()) } else { self.write(&mut self.lock(), &held) }
    }

    /// Removes all entries of this process from the ledger, so that their tasks are done again.
    pub(super) fn withdraw(&self) {
        let mut log = self.lock();
        log.held.clear();
        let paths = match log.to {
            LogTarget::File(_) => vec![self.path.clone()],
            LogTarget::Segments { count, .. } => (0..count).map(|i| self.segment(i)).collect(),
        };
        for path in paths {
            if let Err(error) = store::delete(&path) {
                tracing::warn!(
                    "cannot remove {}: {error}; what it names was made of an input that has changed: do not \
                     use --resume, but --overwrite",
                    path.display()
                );
            }
        }
    }

    /// Writes all lines in one call, so that other processes read whole lines unless this process
    /// is killed during the call.
    fn write(&self, log: &mut Log, lines: &[u8]) -> Result<(), Error> {
        match &mut log.to {
            LogTarget::File(file) => {
                let written = file.write_all(lines).and_then(|()| files::sync(file));
                written.map_err(Error::io("write", &self.path))
            }
            LogTarget::Segments { count, head } => {
                let path = self.segment(*count);
                let text = [head, lines].concat();
                store::put(&path, &text).map_err(Error::io("write", &path))?;
                *count += 1;
                Ok(())
            }
        }
    }

    /// The path of the object with this number, from 0.
    fn segment(&self, number: usize) -> PathBuf {
        self.path.with_extension(format!("{number}.jsonl"))
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims `folder` for a run that begins, and returns the entries of earlier work in it. With
/// [`Existing::Overwrite`], earlier work is removed first; with [`Existing::Refuse`], it is an
/// error. If this run has already claimed the output, or another run is active in the folder
/// (`is_concurrent`), the earlier work must belong to an equal run, and is used.
pub(super) fn begin(
    folder: &Path,
    plan: &Plan,
    existing: Existing,
    is_concurrent: bool,
) -> Result<Entries, Error> {
    // if this run has claimed the output, it applied `existing` when it created the output; the
    // work that is there now was written by an equal run
    let is_decided = plan.is_claimed() || is_concurrent;
    if existing == Existing::Overwrite && is_concurrent && plan.is_claimed_in(folder) == Some(false)
    {
        return Err(Error::AtWork { folder: folder.display().to_string() });
    }
    if existing == Existing::Overwrite && !is_decided {
        clear(folder)?;
    }
    plan.claim(folder)?;
    let known = load(folder, plan)?;
    if existing == Existing::Refuse && !known.is_empty() && !is_decided {
        return Err(Error::Exists { path: folder.display().to_string() });
    }
    Ok(known)
}

/// Serialises `line` as JSON, followed by a line break. An error names `path`.
fn line(path: &Path, line: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec(line).map_err(|e| Error::io("write", path)(e.into()))?;
    text.push(b'\n');
    Ok(text)
}

/// The union of the ledger files in `folder`. A result of a task takes precedence over a failure,
/// in whichever order they were written, because a failed task may have been retried.
pub(super) fn load(folder: &Path, plan: &Plan) -> Result<Entries, Error> {
    let (run, tasks) = (plan.agreement(), plan.tasks().len());
    let mut known = Entries::default();
    let paths = files(folder, "ledger-")?;
    for (path, text) in paths.iter().zip(store::get_several(&paths)) {
        // another process may have removed the file after it was listed, when it finished
        let Some(text) = text.map_err(Error::io("read", path))? else { continue };
        let mut lines = whole_lines(&text);
        let Some(head) = lines.next() else {
            continue; // the process was killed before the line was complete
        };
        check_head(head, &run, folder)?;
        for line in lines {
            let Ok(line) = serde_json::from_slice::<Line>(line) else {
                tracing::warn!("{}: a damaged line is ignored", path.display());
                continue;
            };
            let (task, entry) = (line.task, line.entry());
            let better = matches!(entry, LedgerEntry::Ended(_)) || !known.contains(task);
            if better && task < tasks {
                known.insert(task, entry);
            }
        }
    }
    Ok(known)
}

/// Refuses the ledger of a different run, or of a release with another ledger format.
fn check_head(line: &[u8], run: &Identity, folder: &Path) -> Result<(), Error> {
    let head =
        serde_json::from_slice::<LedgerHeader>(line).ok().filter(|head| head.ledger == VERSION);
    let begun = head.and_then(|head| Identity::from_json(&head.run));
    let difference = match begun {
        Some(begun) if begun == *run => return Ok(()),
        Some(begun) => begun.difference(run),
        None => ["by another release".to_owned(), "by this one".to_owned()],
    };
    Err(Error::OtherPlan { folder: folder.display().to_string(), difference })
}

/// The complete lines; an unterminated last line is dropped.
fn whole_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

/// The files in `folder` whose names begin with `prefix`, sorted; empty if there is no folder.
pub(super) fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, Error> {
    let entries = store::list(folder).map_err(Error::io("read", folder))?;
    let named = entries.into_iter().filter(|entry| entry.name.starts_with(prefix));
    let mut paths: Vec<_> = named.map(|entry| folder.join(entry.name)).collect();
    paths.sort();
    Ok(paths)
}

/// Removes the files in `folder` that block-wise runs write, such as ledgers, and no others.
pub(super) fn clear(folder: &Path) -> Result<(), Error> {
    let ours = ["ledger-", "rows-", "receipt-", claim::NAME, store::PREFIX];
    for prefix in ours.into_iter().chain(volume::PLANE_FILE_PREFIXES) {
        let paths = files(folder, prefix)?;
        for (path, deleted) in paths.iter().zip(store::each(&paths, store::delete)) {
            deleted.map_err(Error::io("remove", path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::Box3;

    fn plan(what: &str) -> Plan {
        let identity = Identity::of("test").with("radius", what);
        Plan::tile(Box3::of_shape([4, 1, 1]), [1; 3], 1_u64, &identity)
    }

    fn create(folder: &Path, plan: &Plan) -> Ledger {
        Ledger::create(folder, plan, &Context::default()).unwrap()
    }

    fn keys(entries: &Entries) -> Vec<usize> {
        (0..4).filter(|task| entries.contains(*task)).collect()
    }

    fn done() -> LedgerEntry {
        LedgerEntry::Ended(Outcome::Done.into())
    }

    fn begin(folder: &Path, plan: &Plan, existing: Existing) -> Result<Entries, Error> {
        super::begin(folder, plan, existing, false)
    }

    #[test]
    fn what_is_entered_is_read_back_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("radius=1");
        let ledger = create(folder.path(), &plan);
        let entries = [
            done(),
            LedgerEntry::Ended(Outcome::Empty.into()),
            LedgerEntry::Ended(Outcome::Fallback("no match".into()).into()),
            LedgerEntry::Failed("chunk \"3\"\nis damaged".into()),
        ];
        let fallback = Outcome::Fallback("no match".into());
        let outcomes = [
            Ok(&Outcome::Done),
            Ok(&Outcome::Empty),
            Ok(&fallback),
            Err("chunk \"3\"\nis damaged"),
        ];
        for (task, entry) in entries.iter().enumerate() {
            ledger.enter(task, entry).unwrap();
        }
        // lines are written only after the data that they record are on the disk
        assert!(load(folder.path(), &plan).unwrap().is_empty());
        ledger.sync_pending().unwrap();
        let known = load(folder.path(), &plan).unwrap();
        assert_eq!(known.outcomes().collect::<Vec<_>>(), outcomes);
    }

    #[test]
    fn a_torn_line_is_as_if_it_had_not_been_written() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("");
        let ledger = create(folder.path(), &plan);
        ledger.enter(0, &done()).unwrap();
        ledger.enter(1, &done()).unwrap();
        ledger.sync_pending().unwrap();
        let path = &files(folder.path(), "ledger-").unwrap()[0];
        let text = fs::read(path).unwrap();
        let mut seen = Vec::new();
        for length in (0..=text.len()).rev() {
            fs::write(path, &text[..length]).unwrap();
            seen.push(load(folder.path(), &plan).unwrap().len());
        }
        assert_eq!((seen[0], seen[1], seen[text.len()]), (2, 1, 0));
        assert!(seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
        // after a power failure, a file can contain zeros followed by valid lines
        let mut damaged = text.clone();
        let end = text.iter().position(|b| *b == b'\n').unwrap() + 1;
        damaged[end..end + 4].fill(0);
        fs::write(path, &damaged).unwrap();
        assert_eq!(keys(&load(folder.path(), &plan).unwrap()), [1]);
    }

    #[test]
    fn in_a_bucket_a_lost_object_costs_its_tasks_and_no_others() {
        let folder = Path::new("memory://ledgers/out.zarr/.voxloom");
        let plan = plan("");
        let ledger = create(folder, &plan);
        assert!(files(folder, "ledger-").unwrap().is_empty());
        for task in 0..3 {
            ledger.enter(task, &done()).unwrap();
            assert!(!ledger.is_due(), "objects are written every few seconds");
            ledger.sync_pending().unwrap();
        }
        ledger.sync_pending().unwrap();
        let objects = files(folder, "ledger-").unwrap();
        assert_eq!((objects.len(), load(folder, &plan).unwrap().len()), (3, 3));
        let other = load(folder, &self::plan("other")).unwrap_err();
        assert!(matches!(other, Error::OtherPlan { .. }));
        store::delete(&objects[1]).unwrap();
        assert_eq!(keys(&load(folder, &plan).unwrap()), [0, 2]);
        ledger.withdraw();
        assert!(load(folder, &plan).unwrap().is_empty());
    }

    #[test]
    fn two_writers_of_one_part_are_united_and_a_result_counts_more_than_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("");
        let one = create(folder.path(), &plan);
        let two = create(folder.path(), &plan);
        one.enter(0, &done()).unwrap();
        two.enter(0, &LedgerEntry::Failed("late".into())).unwrap();
        one.enter(1, &LedgerEntry::Failed("early".into())).unwrap();
        two.enter(1, &done()).unwrap();
        two.enter(2, &done()).unwrap();
        one.sync_pending().unwrap();
        two.sync_pending().unwrap();
        let known = load(folder.path(), &plan).unwrap();
        assert_eq!((known.len(), (0..3).all(|task| known.has_ended(task))), (3, true));
    }

    #[test]
    fn the_ledger_of_other_parameters_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), &plan("1..4"));
        let other = plan("1..5");
        let message = begin(folder.path(), &other, Existing::Resume).unwrap_err().to_string();
        assert!(message.contains("radius \"1..4\"") && message.contains("1..5"), "{message}");
        let identity = Identity::of("test").with("radius", "1..4");
        let other = Plan::tile(Box3::of_shape([3, 1, 1]), [1; 3], 1_u64, &identity);
        let message = load(folder.path(), &other).unwrap_err().to_string();
        assert!(
            message.contains("bounds \"0..4") && message.contains("bounds \"0..3"),
            "{message}"
        );
    }

    #[test]
    fn the_ledger_of_another_release_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let old =
            "{\"ledger\":1,\"plan\":\"radius=1;bounds=0..4\"}\n{\"task\":0,\"end\":\"done\"}\n";
        fs::write(folder.path().join("ledger-0-1of1-x.jsonl"), old).unwrap();
        let message = load(folder.path(), &plan("1")).unwrap_err().to_string();
        assert!(
            message.contains("another release") && message.contains("--overwrite"),
            "{message}"
        );
    }

    #[test]
    fn earlier_work_is_refused_resumed_or_removed_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let begun = plan("a");
        let ledger = create(folder.path(), &begun);
        ledger.enter(0, &done()).unwrap();
        ledger.sync_pending().unwrap();
        fs::write(folder.path().join("mine.txt"), "kept").unwrap();
        let refused = begin(folder.path(), &begun, Existing::Refuse);
        assert!(matches!(refused, Err(Error::Exists { .. })));
        assert_eq!(begin(folder.path(), &begun, Existing::Resume).unwrap().len(), 1);
        let overwritten = begin(folder.path(), &plan("b"), Existing::Overwrite).unwrap();
        assert!(overwritten.is_empty());
        assert!(folder.path().join("mine.txt").exists());
    }
}
