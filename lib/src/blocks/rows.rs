use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::entries::Entries;
use super::pack::Pack;
use super::{Context, Error, Task, TaskResults, Tasks};
use crate::fingerprint::Fingerprint;
use crate::store::{self, ReadRange};

/// Temporary storage for operations whose tasks produce more than a summary. The rows of a task are
/// any bytes. The rows of all tasks of a process are in one file (in a bucket, in a few objects) in
/// the folder in which [`super::Plan::stream`] keeps its ledger.
///
/// The ledger entry of a task holds the file, the offset, the length and the hash of its rows. When
/// rows are read, they are checked against this entry: missing, truncated or altered rows are an
/// error, never an empty block.
pub struct TaskRows {
    folder: PathBuf,
    /// The file to which this process writes; `None` before the first write.
    pack: Mutex<Option<Arc<Pack>>>,
    /// Tasks whose rows this process has already checked against their hash.
    compared: Mutex<BTreeSet<usize>>,
    /// The bytes that were read last, kept because rows of successive tasks are mostly adjacent.
    window: Mutex<ReadWindow>,
}

/// Length of the pieces that are hashed separately, bytes; the hash depends on it.
const HASH_PIECE: usize = 1 << 18;
/// Number of bytes that are read by one call to be hashed.
const READ_SIZE: usize = 16 * HASH_PIECE;
/// Rows of fewer bytes are read together with the rows that follow them.
const SMALL_ROWS: usize = 1 << 16;
/// Number of bytes that one call reads and keeps for rows of fewer than [`SMALL_ROWS`] bytes.
const WINDOW: usize = 1 << 20;

/// Where the rows of a task are, and their hash, as stored in its ledger entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRows {
    /// The name of the file.
    file: String,
    /// The offset of the first byte in the file.
    start: u64,
    bytes: u64,
    hash: String,
}

impl StoredRows {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }

    /// Whether the file name is that of a [`Pack`], so that a damaged ledger cannot cause other
    /// files to be read.
    fn is_pack_name(&self) -> bool {
        self.file.starts_with("rows-") && !self.file.contains('/')
    }
}

/// Consecutive bytes of a file, and their offset in it.
#[derive(Default)]
struct ReadWindow {
    file: String,
    start: u64,
    bytes: Vec<u8>,
}

/// Why rows cannot be read: they differ from the ledger entry (the text says how), or the system
/// reports an error.
enum RowsError {
    Wrong(String),
    Io(io::Error),
}

impl TaskRows {
    /// The rows in this folder, which need not exist yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            pack: Mutex::default(),
            compared: Mutex::default(),
            window: Mutex::default(),
        }
    }

    /// Writes the rows of a task. The caller must add the returned value to the task's
    /// [`TaskResult`](super::TaskResult); otherwise the rows are not read back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, bytes: &[u8]) -> Result<StoredRows, Error> {
        let pack = {
            let mut pack = self.pack.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pack.get_or_insert_with(|| Arc::new(Pack::new(&self.folder))))
        };
        let (file, start) = pack.append(bytes).map_err(Error::io("write", pack.path()))?;
        let mut hash = Fingerprint::default();
        bytes.chunks(HASH_PIECE).for_each(|piece| {
            hash.add(piece);
        });
        Ok(StoredRows { file, start, bytes: bytes.len() as u64, hash: hash.hex() })
    }

    /// The rows of a task; `None` if the task wrote no rows, failed, or is not done.
    ///
    /// # Errors
    /// [`Error::Rows`] if the rows differ from what the task wrote; [`Error::Io`].
    pub fn read(&self, task: &Task, results: &TaskResults) -> Result<Option<Vec<u8>>, Error> {
        let Some(stored) = results.entries.rows(task.id) else { return Ok(None) };
        self.read_part(task, results, 0..stored.bytes)
    }

    /// The rows of a task, deserialized from JSON; `None` as in [`TaskRows::read`].
    ///
    /// # Errors
    /// As [`TaskRows::read`]; [`Error::Io`] if the rows do not deserialize to `T`.
    pub fn read_json<T: DeserializeOwned>(
        &self,
        task: &Task,
        results: &TaskResults,
    ) -> Result<Option<T>, Error> {
        let Some(bytes) = self.read(task, results)? else { return Ok(None) };
        let unread = Error::io("read the rows in", &self.folder);
        serde_json::from_slice(&bytes).map(Some).map_err(|error| unread(error.into()))
    }

    /// The error for a task that has no rows in its ledger entry although it must have written
    /// some.
    pub fn unrecorded(&self, task: &Task) -> Error {
        let path = self.folder.display().to_string();
        let (found, wanted) = ("without an entry for them".to_owned(), "rows".to_owned());
        Error::Rows { key: task.key.clone(), path, found, wanted }
    }

    /// A byte range of the rows of a task; `None` as in [`TaskRows::read`]. The first read of a
    /// task's rows checks all of them against their hash.
    ///
    /// # Errors
    /// As [`TaskRows::read`].
    pub fn read_part(
        &self,
        task: &Task,
        results: &TaskResults,
        range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(stored) = results.entries.rows(task.id) else { return Ok(None) };
        let to_error = |fault| match fault {
            RowsError::Wrong(found) => wrong(task, &self.folder, found, stored),
            RowsError::Io(source) => Error::io("read", &self.folder.join(&stored.file))(source),
        };
        self.compare(task, stored).map_err(to_error)?;
        let end = range.end.min(stored.bytes);
        let at = |offset: u64| stored.start.saturating_add(offset);
        let range = at(range.start.min(end))..at(end);
        self.bytes(&stored.file, range).map(Some).map_err(to_error)
    }

    /// Checks the rows of a task against their length and hash, unless this was done before.
    fn compare(&self, task: &Task, stored: &StoredRows) -> Result<(), RowsError> {
        let lock = || self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().contains(&task.id) {
            return Ok(());
        }
        if !stored.is_pack_name() {
            return Err(RowsError::Wrong("not named as ours".to_owned()));
        }
        let (mut hash, mut start) = (Fingerprint::default(), stored.start);
        while start < stored.end() {
            let end = stored.end().min(start.saturating_add(READ_SIZE as u64));
            self.bytes(&stored.file, start..end)?.chunks(HASH_PIECE).for_each(|piece| {
                hash.add(piece);
            });
            start = end;
        }
        if hash.hex() != stored.hash {
            return Err(RowsError::Wrong("altered".to_owned()));
        }
        lock().insert(task.id);
        Ok(())
    }

    /// Reads bytes of a file. A short range is read together with the bytes that follow it, which
    /// are kept for the next call.
    fn bytes(&self, file: &str, range: Range<u64>) -> Result<Vec<u8>, RowsError> {
        let path = self.folder.join(file);
        let length = (range.end - range.start) as usize;
        if length >= SMALL_ROWS {
            let mut bytes = Vec::new();
            return match fetch(&path, range.start, length, &mut bytes)? {
                Ok(()) => Ok(bytes),
                Err(all) => Err(RowsError::Wrong(format!("{all} bytes long"))),
            };
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |window: &ReadWindow| {
            let from = range.start.checked_sub(window.start)? as usize;
            if window.file == file { window.bytes.get(from..from + length) } else { None }
                .map(<[u8]>::to_vec)
        };
        if let Some(bytes) = at(&window) {
            return Ok(bytes);
        }
        window.file = String::new();
        if let Err(all) = fetch(&path, range.start, WINDOW, &mut window.bytes)? {
            let left = all.saturating_sub(range.start) as usize;
            if left < length {
                return Err(RowsError::Wrong(format!("{all} bytes long")));
            }
            if let Err(all) = fetch(&path, range.start, left, &mut window.bytes)? {
                return Err(RowsError::Wrong(format!("{all} bytes long")));
            }
        }
        (window.file, window.start) = (file.to_owned(), range.start);
        at(&window).ok_or_else(|| RowsError::Wrong("cut off".to_owned()))
    }

    /// Schedules the removal of rows and ledger by [`Context::sweep`], which is called after the
    /// receipt is written; the folder is removed too if it is then empty. With `--finish` they are
    /// kept, so that the command can be repeated; they are also kept while another run uses them.
    pub fn remove(self, ctx: &Context) {
        if !ctx.finish {
            ctx.sweep_later(&self.folder);
        }
    }

    /// Removes rows and ledger immediately (except with `--finish`), for a run without a result.
    /// The rows are of no use to a new attempt, because it needs other options.
    pub fn discard(self, ctx: &Context) {
        self.remove(ctx);
        ctx.sweep();
    }

    /// Schedules the removal of the rows and the ledger in `folder`, which exist if an earlier run
    /// was interrupted after it had written its result and before it removed them.
    pub fn sweep(folder: &Path, ctx: &Context) {
        if ctx.gathers() && store::exists(folder) {
            Self::new(folder).remove(ctx);
        }
    }
}

/// Reads bytes of a file; if the file has fewer bytes, the inner error is its length.
fn fetch(
    path: &Path,
    start: u64,
    length: usize,
    bytes: &mut Vec<u8>,
) -> Result<Result<(), u64>, RowsError> {
    let found =
        store::read(path, ReadRange::Range { start, length }, bytes).map_err(RowsError::Io)?;
    let Some(all) = found else { return Err(RowsError::Wrong("missing".to_owned())) };
    Ok(if bytes.len() == length { Ok(()) } else { Err(all) })
}

fn wrong(task: &Task, folder: &Path, found: String, stored: &StoredRows) -> Error {
    let StoredRows { file, start, bytes, hash } = stored;
    let wanted = format!("from byte {start} on, {bytes} bytes with the hash {hash}");
    let path = folder.join(file).display().to_string();
    Error::Rows { key: task.key.clone(), path, found, wanted }
}

/// A cache of the lengths of the files that hold rows.
struct Lengths<'a> {
    folder: &'a Path,
    known: BTreeMap<&'a str, Option<u64>>,
}

impl<'a> Lengths<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, known: BTreeMap::new() }
    }

    /// Checks that the file of a task's rows is long enough.
    fn check(&mut self, task: &Task, stored: &'a StoredRows) -> Result<(), Error> {
        let length = match self.known.get(stored.file.as_str()) {
            Some(length) => *length,
            None if !stored.is_pack_name() => None,
            None => {
                let path = self.folder.join(&stored.file);
                let there = store::stat_file(&path).map_err(Error::io("read", &path))?;
                let length = there.map(|there| there.length);
                self.known.insert(&stored.file, length);
                length
            }
        };
        let found = match length {
            None => "missing".to_owned(),
            Some(length) if length < stored.end() => format!("{length} bytes long"),
            Some(_) => return Ok(()),
        };
        Err(wrong(task, self.folder, found, stored))
    }
}

/// Checks that no file of rows of any task is missing or truncated.
pub(super) fn check_lengths(folder: &Path, tasks: &Tasks, entries: &Entries) -> Result<(), Error> {
    let mut lengths = Lengths::new(folder);
    for id in 0..tasks.len() {
        if let Some(stored) = entries.rows(id) {
            lengths.check(&tasks.get(id), stored)?;
        }
    }
    Ok(())
}

/// Removes from `known` the tasks among `ids` whose rows are missing or truncated, so that they are
/// done again.
pub(super) fn remove_damaged(folder: &Path, tasks: &Tasks, ids: &[usize], known: &mut Entries) {
    let mut damaged = Vec::new();
    let mut lengths = Lengths::new(folder);
    for &id in ids {
        if let Some(stored) = known.rows(id)
            && let Err(error) = lengths.check(&tasks.get(id), stored)
        {
            if damaged.is_empty() {
                tracing::warn!("{error}");
            }
            damaged.push(id);
        }
    }
    if !damaged.is_empty() {
        let folder = folder.display();
        tracing::warn!("{folder}: {} blocks are done again, as their rows are lost", damaged.len());
    }
    for id in damaged {
        known.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::{Identity, Key, Outcome, Part, Plan, TaskResult};
    use super::*;
    use crate::geom::Box3;
    use crate::volume::Existing;

    fn plan() -> Plan {
        Plan::tile(Box3::of_shape([6, 1, 1]), [1; 3], 1_u64, &Identity::of("rows"))
    }

    fn run(folder: &Path, ctx: &Context) -> Result<TaskResults, Error> {
        let rows = TaskRows::new(folder);
        let write = |task: &Task, text: String| {
            if task.id == 4 {
                return Ok(Outcome::Empty.into());
            }
            Ok(TaskResult::from(Outcome::Done).with_rows(rows.write(text.as_bytes())?))
        };
        plan().stream(ctx, folder, |task| Ok(task.id), |_, id| Ok(format!("{id}\n")), write)
    }

    fn part(k: usize, n: usize) -> Context {
        Context { part: Part { k, n }, existing: Existing::Resume, ..Context::default() }
    }

    fn finish() -> Context {
        Context { finish: true, ..Context::default() }
    }

    fn read_all(folder: &Path, results: &TaskResults) -> Result<Vec<u8>, Error> {
        let rows = TaskRows::new(folder);
        let all: Result<Vec<_>, _> =
            plan().tasks().iter().map(|task| rows.read(&task, results)).collect();
        Ok(all?.into_iter().flatten().flatten().collect())
    }

    #[test]
    fn rows_of_all_parts_come_back_in_task_order_and_then_go() {
        let parent = tempfile::tempdir().unwrap();
        let folder = super::super::ledger_folder_of(&parent.path().join("spots.csv"));
        run(&folder, &part(2, 2)).unwrap();
        let missing = run(&folder, &finish());
        assert!(matches!(missing, Err(Error::Missing { missing: 3, total: 6, first: 0 })));
        run(&folder, &part(1, 2)).unwrap();
        let results = run(&folder, &finish()).unwrap();
        assert_eq!(read_all(&folder, &results).unwrap(), b"0\n1\n2\n3\n5\n");
        TaskRows::new(&folder).discard(&finish());
        assert!(read_all(&folder, &results).is_ok(), "a second finish finds them");
        let whole = part(1, 1);
        TaskRows::new(&folder).remove(&whole);
        assert!(folder.exists(), "the receipt is yet to be written");
        whole.sweep();
        assert!(!folder.exists());
    }

    #[test]
    fn rows_are_kept_in_a_bucket_as_well() {
        let folder = Path::new("memory://rows/spots.csv.voxloom");
        run(folder, &part(1, 2)).unwrap();
        assert!(matches!(run(folder, &finish()), Err(Error::Missing { missing: 3, .. })));
        run(folder, &part(2, 2)).unwrap();
        let results = run(folder, &finish()).unwrap();
        assert_eq!(read_all(folder, &results).unwrap(), b"0\n1\n2\n3\n5\n");
        // two parts have written at least an object each
        let all = store::list(folder).unwrap();
        let objects: Vec<_> = all.iter().filter(|entry| entry.name.starts_with("rows-")).collect();
        assert!((2..=5).contains(&objects.len()), "{objects:?}");
        for object in objects {
            store::put(&folder.join(&object.name), b"7\n8\n9\n").unwrap();
        }
        let message = read_all(folder, &results).unwrap_err().to_string();
        assert!(message.contains("altered"), "{message}");
    }

    #[test]
    fn rows_that_are_gone_cut_off_or_altered_are_an_error_that_names_them() {
        // the rows of blocks that are computed at the same time may be in any order
        let altered = |bytes: &[u8]| [&bytes[..4], b"9", &bytes[5..]].concat();
        let cut_off = |bytes: &[u8]| bytes[..4].to_vec();
        let damages: [(Option<&dyn Fn(&[u8]) -> Vec<u8>>, &str); 3] =
            [(None, "missing"), (Some(&cut_off), "4 bytes long"), (Some(&altered), "altered")];
        for (damage, found) in damages {
            let folder = tempfile::tempdir().unwrap();
            let before = run(folder.path(), &part(1, 1)).unwrap();
            let path = super::super::ledger::files(folder.path(), "rows-").unwrap().remove(0);
            match damage {
                None => fs::remove_file(&path).unwrap(),
                Some(damage) => fs::write(&path, damage(&fs::read(&path).unwrap())).unwrap(),
            }
            let message = read_all(folder.path(), &before).unwrap_err().to_string();
            assert!(message.contains(found), "{message}");
            let finished = run(folder.path(), &finish()).and_then(|e| read_all(folder.path(), &e));
            let Err(Error::Rows { key: Key::Block([block, 0, 0]), .. }) = finished else {
                panic!("{finished:?}")
            };
            assert!(message.contains(&format!("block {block},0,0")), "{message}");
            // the remedy that the message suggests works
            fs::remove_file(&path).ok();
            let again = run(folder.path(), &part(1, 1)).unwrap();
            assert_eq!(read_all(folder.path(), &again).unwrap(), b"0\n1\n2\n3\n5\n");
        }
    }

    proptest! {
        #[test]
        fn any_part_of_any_rows_is_what_was_written(
            lengths in prop::collection::vec(prop_oneof![0_usize..200, 60_000_usize..70_000], 6),
            cuts in prop::collection::vec((0_usize..70_000, 0_usize..70_000), 6),
            is_remote in any::<bool>(),
        ) {
            let local = tempfile::tempdir().unwrap();
            let name = local.path().file_name().unwrap().to_string_lossy().into_owned();
            let bucket = format!("memory://rows-{name}/x.voxloom");
            let folder = if is_remote { Path::new(&bucket) } else { local.path() };
            let text = |id: usize| -> Vec<u8> { (0..lengths[id]).map(|i| (i * 7 + id) as u8).collect() };
            let rows = TaskRows::new(folder);
            let write = |_: &Task, id| {
                Ok(TaskResult::from(Outcome::Done).with_rows(rows.write(&text(id))?))
            };
            let results =
                plan().stream(&part(1, 1), folder, |task| Ok(task.id), |_, id| Ok(id), write).unwrap();
            for (task, (a, b)) in plan().tasks().iter().zip(cuts).chain(plan().tasks().iter().map(|t| (t, (0, 70_000)))) {
                let (whole, rows) = (text(task.id), TaskRows::new(folder));
                let (a, b) = (a.min(b).min(whole.len()), a.max(b).min(whole.len()));
                let part = rows.read_part(&task, &results, a as u64..b as u64).unwrap().unwrap();
                prop_assert!(part == whole[a..b]);
            }
        }
    }
}
