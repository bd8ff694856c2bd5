//! Which tasks of a plan are done: append-only logs, one file per process, their union what is true.
//!
//! A line is written after the task's result is on the disk, and is never changed; so a process that
//! dies, or a machine that loses power, loses at most the work of the last second or so, and two
//! processes on one part do no harm. Lines are held back until [`Ledger::settle`] has brought to the
//! disk what they speak of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::claim;
use super::files::unique;
use super::rows::Stored;
use super::{Context, Ending, Error, Identity, Outcome, Plan};
use crate::files;
use crate::volume::{self, Existing};

/// How long lines are held back at most, where a batch is not worth its while earlier.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// How a task ended, or that it did not end well.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Its result is written.
    Ended(Ending),
    /// It has no result, for this reason.
    Failed(String),
}

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Head {
    ledger: u32,
    run: Value,
}

/// The version of these files.
const VERSION: u32 = 2;

/// Any other line.
#[derive(Serialize, Deserialize)]
struct Line {
    task: usize,
    end: End,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<Stored>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    Done,
    Empty,
    Fallback,
    Failed,
}

impl Line {
    fn new(task: usize, entry: &Entry) -> Self {
        let ending = match entry {
            Entry::Ended(ending) => ending,
            Entry::Failed(reason) => {
                let reason = Some(reason.clone());
                let (rows, summary, files) = (None, None, None);
                return Self { task, end: End::Failed, reason, rows, summary, files };
            }
        };
        let Ending { rows, summary, files, .. } = ending.clone();
        let (end, reason) = match &ending.outcome {
            Outcome::Done => (End::Done, None),
            Outcome::Empty => (End::Empty, None),
            Outcome::Fallback(reason) => (End::Fallback, Some(reason.clone())),
        };
        Self { task, end, reason, rows, summary, files }
    }

    fn entry(self) -> Entry {
        let reason = self.reason.unwrap_or_default();
        let outcome = match self.end {
            End::Done => Outcome::Done,
            End::Empty => Outcome::Empty,
            End::Fallback => Outcome::Fallback(reason),
            End::Failed => return Entry::Failed(reason),
        };
        let Self { summary, rows, files, .. } = self;
        Entry::Ended(Ending { outcome, summary, rows, files })
    }
}

/// The file of this process.
pub(super) struct Ledger {
    path: PathBuf,
    log: Mutex<Log>,
}

struct Log {
    file: File,
    /// Lines that wait for what they speak of to be on the disk.
    held: Vec<u8>,
    settled: Instant,
    /// What was written since then and did not reach the disk is our loss.
    since: files::Mark,
}

impl Ledger {
    /// Makes a file of its own in `folder`.
    pub(super) fn create(folder: &Path, plan: &Plan, ctx: &Context) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let run = plan.agreement();
        let (k, n) = (ctx.part.k, ctx.part.n);
        let name = format!("ledger-{}-{k}of{n}-{}.jsonl", &run.hex()[..16], unique());
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let held = line(&path, &Head { ledger: VERSION, run: run.to_json() })?;
        let log = Log { file, held, settled: Instant::now(), since: files::Mark::now() };
        let ledger = Self { path, log: Mutex::new(log) };
        ledger.write(|log| std::mem::take(&mut log.held))?;
        files::note_folder(folder);
        Ok(ledger)
    }

    /// Enters a task whose result is written, or that failed.
    pub(super) fn enter(&self, task: usize, entry: &Entry) -> Result<(), Error> {
        let line = line(&self.path, &Line::new(task, entry))?;
        if !files::syncs() {
            return self.write(|_| line);
        }
        self.lock().held.extend(line);
        Ok(())
    }

    /// Whether lines have waited for long, or for much.
    pub(super) fn is_due(&self) -> bool {
        let log = self.lock();
        !log.held.is_empty() && (log.settled.elapsed() >= SETTLE_EVERY || files::is_heavy())
    }

    /// Brings to the disk what was written, then the lines that say so.
    pub(super) fn settle(&self) -> Result<(), Error> {
        let (held, since) = {
            let mut log = self.lock();
            log.settled = Instant::now();
            (std::mem::take(&mut log.held), log.since)
        };
        since.settle().map_err(|error| Error::io("write", &error.path)(error.source))?;
        if !held.is_empty() {
            self.write(|_| held)?;
        }
        Ok(())
    }

    /// Takes back all that this process has entered: its tasks are to be done again.
    pub(super) fn forget(&self) {
        self.lock().held.clear();
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}; remove it yourself", self.path.display());
        }
        files::note_folder(self.path.parent().unwrap_or(Path::new("")));
    }

    /// One call for all lines: what others read ends at a line's end unless this process is killed
    /// in it.
    fn write(&self, lines: impl FnOnce(&mut Log) -> Vec<u8>) -> Result<(), Error> {
        let mut log = self.lock();
        let lines = lines(&mut log);
        let written = log.file.write_all(&lines).and_then(|()| files::sync(&log.file));
        written.map_err(Error::io("write", &self.path))
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known in `folder` as a run begins: nothing where it starts anew. Work that another run of this
/// plan is still doing (`in_company`) is shared with it, and neither refused nor removed.
pub(super) fn begin(
    folder: &Path,
    plan: &Plan,
    existing: Existing,
    in_company: bool,
) -> Result<BTreeMap<usize, Entry>, Error> {
    // an output that this run has created was decided on then; what is there since is an equal run's
    let is_decided = plan.is_claimed() || in_company;
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

/// A line as it is written.
fn line(path: &Path, line: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec(line).map_err(|e| Error::io("write", path)(e.into()))?;
    text.push(b'\n');
    Ok(text)
}

/// What the files in `folder` say, together. A result counts more than a failure, whichever came
/// first: a task that failed may have been tried again.
pub(super) fn load(folder: &Path, plan: &Plan) -> Result<BTreeMap<usize, Entry>, Error> {
    let run = plan.agreement();
    let mut known = BTreeMap::new();
    for path in files(folder, "ledger-")? {
        let text = match fs::read(&path) {
            Ok(text) => text,
            // removed by a finishing process since it was listed
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        let mut lines = whole_lines(&text);
        let Some(head) = lines.next() else {
            continue; // killed while it wrote its first line
        };
        check_head(head, &run, folder)?;
        for line in lines {
            let Ok(line) = serde_json::from_slice::<Line>(line) else {
                tracing::warn!("{}: a damaged line is ignored", path.display());
                continue;
            };
            let (task, entry) = (line.task, line.entry());
            let better = matches!(entry, Entry::Ended(_)) || !known.contains_key(&task);
            if better && task < plan.tasks.len() {
                known.insert(task, entry);
            }
        }
    }
    Ok(known)
}

/// Refuses a ledger of another run, or of a release that wrote it otherwise.
fn check_head(line: &[u8], run: &Identity, folder: &Path) -> Result<(), Error> {
    let head = serde_json::from_slice::<Head>(line).ok().filter(|head| head.ledger == VERSION);
    let begun = head.and_then(|head| Identity::from_json(&head.run));
    let difference = match begun {
        Some(begun) if begun == *run => return Ok(()),
        Some(begun) => begun.difference(run),
        None => ["by another release".to_owned(), "by this one".to_owned()],
    };
    Err(Error::OtherPlan { folder: folder.display().to_string(), difference })
}

/// The lines that end; the rest is torn.
fn whole_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

/// The files in `folder` of this beginning, in the order of their names; none where it is absent.
pub(super) fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, Error> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", folder)(e)),
    };
    let mut paths = Vec::new();
    for file in listing {
        let file = file.map_err(Error::io("read", folder))?;
        if file.file_name().to_string_lossy().starts_with(prefix) {
            paths.push(file.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Removes what blocks keep in `folder`, and nothing else that may be there.
pub(super) fn clear(folder: &Path) -> Result<(), Error> {
    let ours = ["ledger-", "rows-", "receipt-", ".rows-", ".receipt-", claim::NAME, ".claim-"];
    for prefix in ours.into_iter().chain(volume::BESIDE_A_FILE) {
        for path in files(folder, prefix)? {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(e));
                }
                _ => {}
            }
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

    fn done() -> Entry {
        Entry::Ended(Outcome::Done.into())
    }

    fn begin(
        folder: &Path,
        plan: &Plan,
        existing: Existing,
    ) -> Result<BTreeMap<usize, Entry>, Error> {
        super::begin(folder, plan, existing, false)
    }

    #[test]
    fn what_is_entered_is_read_back_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("radius=1");
        let ledger = create(folder.path(), &plan);
        let entries = [
            done(),
            Entry::Ended(Outcome::Empty.into()),
            Entry::Ended(Outcome::Fallback("no match".into()).into()),
            Entry::Failed("chunk \"3\"\nis damaged".into()),
        ];
        for (task, entry) in entries.iter().enumerate() {
            ledger.enter(task, entry).unwrap();
        }
        // lines are written only after the data that they name are on the disk
        assert!(load(folder.path(), &plan).unwrap().is_empty());
        ledger.settle().unwrap();
        let known = load(folder.path(), &plan).unwrap();
        assert_eq!(known.into_values().collect::<Vec<_>>(), entries);
    }

    #[test]
    fn a_torn_line_is_as_if_it_had_not_been_written() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("");
        let ledger = create(folder.path(), &plan);
        ledger.enter(0, &done()).unwrap();
        ledger.enter(1, &done()).unwrap();
        ledger.settle().unwrap();
        let path = &files(folder.path(), "ledger-").unwrap()[0];
        let text = fs::read(path).unwrap();
        let mut seen = Vec::new();
        for length in (0..=text.len()).rev() {
            fs::write(path, &text[..length]).unwrap();
            seen.push(load(folder.path(), &plan).unwrap().len());
        }
        assert_eq!((seen[0], seen[1], seen[text.len()]), (2, 1, 0));
        assert!(seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
        // a machine that lost power can leave zeros, and lines after them that are good
        let mut damaged = text.clone();
        let end = text.iter().position(|b| *b == b'\n').unwrap() + 1;
        damaged[end..end + 4].fill(0);
        fs::write(path, &damaged).unwrap();
        assert_eq!(load(folder.path(), &plan).unwrap().into_keys().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn two_writers_of_one_part_are_united_and_a_result_counts_more_than_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("");
        let one = create(folder.path(), &plan);
        let two = create(folder.path(), &plan);
        one.enter(0, &done()).unwrap();
        two.enter(0, &Entry::Failed("late".into())).unwrap();
        one.enter(1, &Entry::Failed("early".into())).unwrap();
        two.enter(1, &done()).unwrap();
        two.enter(2, &done()).unwrap();
        one.settle().unwrap();
        two.settle().unwrap();
        let known = load(folder.path(), &plan).unwrap();
        assert_eq!(known, (0..3).map(|task| (task, done())).collect());
    }

    #[test]
    fn the_ledger_of_other_parameters_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), &plan("1..4"));
        let other = plan("1..5");
        let message = begin(folder.path(), &other, Existing::Resume).unwrap_err().to_string();
        assert!(message.contains("radius \"1..4\"") && message.contains("1..5"), "{message}");
        let mut other = plan("1..4");
        other.tasks.pop();
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
        ledger.settle().unwrap();
        fs::write(folder.path().join("mine.txt"), "kept").unwrap();
        let refused = begin(folder.path(), &begun, Existing::Refuse);
        assert!(matches!(refused, Err(Error::Exists { .. })));
        assert_eq!(begin(folder.path(), &begun, Existing::Resume).unwrap().len(), 1);
        let overwritten = begin(folder.path(), &plan("b"), Existing::Overwrite).unwrap();
        assert!(overwritten.is_empty());
        assert!(folder.path().join("mine.txt").exists());
    }
}
