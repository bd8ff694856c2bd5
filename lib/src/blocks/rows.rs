use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::files::write_rows;
use super::ledger::Entry;
use super::{Context, Ending, Ends, Error, Task};
use crate::fingerprint::Fingerprint;
use crate::store::{self, Wanted};

/// Temporary storage for operations whose tasks produce more than a summary: one file per task,
/// written atomically, in the folder in which [`super::Plan::stream`] keeps its ledger.
///
/// The ledger entry of a task holds the length and the hash of its rows, and rows that are read are
/// checked against them: missing, truncated or altered rows are an error, never an empty block.
pub struct Rows {
    folder: PathBuf,
    /// Tasks whose rows this process has already checked against their hash.
    compared: Mutex<BTreeSet<usize>>,
}

/// Bytes that are hashed at once, which the hash depends on.
const PIECE: usize = 1 << 18;
/// Bytes that are read at once.
const READ: usize = 16 * PIECE;

/// The length and the hash of a task's rows, as stored in its ledger entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    bytes: u64,
    hash: String,
}

impl Rows {
    /// The rows in this folder, which need not exist yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), compared: Mutex::default() }
    }

    /// Writes the rows of a task and replaces those of an earlier attempt. The returned value must
    /// be added to the task's [`Ending`]; otherwise the rows are not read back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, task: &Task, bytes: &[u8]) -> Result<Stored, Error> {
        write_rows(&path(&self.folder, task), bytes)?;
        let mut hash = Fingerprint::default();
        bytes.chunks(PIECE).for_each(|piece| {
            hash.add(piece);
        });
        Ok(Stored { bytes: bytes.len() as u64, hash: hash.hex() })
    }

    /// The rows of a task; `None` if it has none, failed, or is not done.
    ///
    /// # Errors
    /// [`Error::Rows`] if they differ from what the task wrote; [`Error::Io`].
    pub fn read(&self, task: &Task, ends: &Ends) -> Result<Option<Vec<u8>>, Error> {
        let Some(stored) = stored(task, &ends.entries) else { return Ok(None) };
        self.read_part(task, ends, 0..stored.bytes)
    }

    /// A byte range of the rows of a task; `None` as in [`Rows::read`]. The first read of a task's
    /// rows checks all of them against their hash.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn read_part(
        &self,
        task: &Task,
        ends: &Ends,
        range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(stored) = stored(task, &ends.entries) else { return Ok(None) };
        let path = path(&self.folder, task);
        let wrong = |found: String| wrong(task, &path, found, stored);
        let unread = |source| Error::io("read", &path)(source);
        let is_new = |set: &BTreeSet<usize>| !set.contains(&task.id);
        if is_new(&self.compared.lock().unwrap_or_else(PoisonError::into_inner)) {
            let Some((bytes, hash)) = measure(&path, stored.bytes).map_err(unread)? else {
                return Err(wrong("missing".to_owned()));
            };
            if bytes != stored.bytes {
                return Err(wrong(format!("{bytes} bytes long")));
            }
            if hash != stored.hash {
                return Err(wrong("altered".to_owned()));
            }
            self.compared.lock().unwrap_or_else(PoisonError::into_inner).insert(task.id);
        }
        let (mut part, length) = (Vec::new(), (range.end - range.start) as usize);
        let wanted = Wanted::Range { start: range.start, length };
        match store::read(&path, wanted, &mut part).map_err(unread)? {
            None => Err(wrong("missing".to_owned())),
            Some(_) if part.len() != length => Err(wrong("cut off".to_owned())),
            Some(_) => Ok(Some(part)),
        }
    }

    /// Removes rows and ledger after the receipt is written, and the folder if it is then empty.
    /// They are kept after `--finish`, so that it can be repeated, and while another run uses them.
    pub fn remove(self, ctx: &Context) {
        if !ctx.finish {
            ctx.sweep_later(&self.folder);
        }
    }

    /// Removes rows and ledger at once: the run had no result, and a run with other options has a
    /// ledger of its own.
    pub fn discard(self, ctx: &Context) {
        self.remove(ctx);
        ctx.sweep();
    }

    /// Removes what a finished run has left in `folder` if it was interrupted before its last step.
    pub fn sweep(folder: &Path, ctx: &Context) {
        if ctx.gathers() && store::exists(folder) {
            Self::new(folder).remove(ctx);
        }
    }
}

fn path(folder: &Path, task: &Task) -> PathBuf {
    folder.join(format!("rows-{:08}", task.id))
}

fn stored<'a>(task: &Task, entries: &'a BTreeMap<usize, Entry>) -> Option<&'a Stored> {
    match entries.get(&task.id) {
        Some(Entry::Ended(Ending { rows, .. })) => rows.as_ref(),
        _ => None,
    }
}

fn wrong(task: &Task, path: &Path, found: String, stored: &Stored) -> Error {
    let wanted = format!("{} bytes with the hash {}", stored.bytes, stored.hash);
    Error::Rows { index: task.index, path: path.display().to_string(), found, wanted }
}

/// The length and the hash of rows, read in pieces; the hash is empty if they are not `wanted` bytes
/// long. `None` if they are missing.
fn measure(path: &Path, wanted: u64) -> std::io::Result<Option<(u64, String)>> {
    let (mut hash, mut start) = (Fingerprint::default(), 0);
    let mut bytes = Vec::new();
    loop {
        let length = (wanted - start).min(READ as u64) as usize;
        let found = store::read(path, Wanted::Range { start, length }, &mut bytes)?;
        let Some(found) = found else { return Ok(None) };
        if found != wanted {
            return Ok(Some((found, String::new())));
        }
        bytes.chunks(PIECE).for_each(|piece| {
            hash.add(piece);
        });
        start += length as u64;
        if start == wanted {
            return Ok(Some((found, hash.hex())));
        }
    }
}

/// Checks that the rows of a task exist and have the recorded length.
pub(super) fn check_length(
    folder: &Path,
    task: &Task,
    entries: &BTreeMap<usize, Entry>,
) -> Result<(), Error> {
    let Some(stored) = stored(task, entries) else { return Ok(()) };
    let path = path(folder, task);
    match store::about_file(&path).map_err(Error::io("read", &path))? {
        None => Err(wrong(task, &path, "missing".to_owned(), stored)),
        Some(there) if there.length != stored.bytes => {
            Err(wrong(task, &path, format!("{} bytes long", there.length), stored))
        }
        Some(_) => Ok(()),
    }
}

/// Removes tasks whose rows are missing or truncated from `known`, so that they are done again.
pub(super) fn forget_damaged(folder: &Path, tasks: &[Task], known: &mut BTreeMap<usize, Entry>) {
    for task in tasks {
        if let Err(error) = check_length(folder, task, known) {
            tracing::warn!("{error}; the block is done again");
            known.remove(&task.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Identity, Outcome, Part, Plan};
    use super::*;
    use crate::geom::Box3;
    use crate::volume::Existing;

    fn plan() -> Plan {
        Plan::tile(Box3::of_shape([6, 1, 1]), [1; 3], 1_u64, &Identity::of("rows"))
    }

    fn run(folder: &Path, ctx: &Context) -> Result<Ends, Error> {
        let rows = Rows::new(folder);
        let write = |task: &Task, text: String| {
            if task.id == 4 {
                return Ok(Outcome::Empty.into());
            }
            Ok(Ending::from(Outcome::Done).with_rows(rows.write(task, text.as_bytes())?))
        };
        plan().stream(ctx, folder, |task| Ok(task.id), |_, id| Ok(format!("{id}\n")), write)
    }

    fn part(k: usize, n: usize) -> Context {
        Context { part: Part { k, n }, existing: Existing::Resume, ..Context::default() }
    }

    fn finish() -> Context {
        Context { finish: true, ..Context::default() }
    }

    fn read_all(folder: &Path, ends: &Ends) -> Result<Vec<u8>, Error> {
        let rows = Rows::new(folder);
        let all: Result<Vec<_>, _> =
            plan().tasks.iter().map(|task| rows.read(task, ends)).collect();
        Ok(all?.into_iter().flatten().flatten().collect())
    }

    #[test]
    fn rows_of_all_parts_come_back_in_task_order_and_then_go() {
        let parent = tempfile::tempdir().unwrap();
        let folder = super::super::folder_beside(&parent.path().join("spots.csv"));
        run(&folder, &part(2, 2)).unwrap();
        let missing = run(&folder, &finish());
        assert!(matches!(missing, Err(Error::Missing { missing: 3, total: 6, first: 0 })));
        run(&folder, &part(1, 2)).unwrap();
        let ends = run(&folder, &finish()).unwrap();
        assert_eq!(read_all(&folder, &ends).unwrap(), b"0\n1\n2\n3\n5\n");
        Rows::new(&folder).discard(&finish());
        assert!(read_all(&folder, &ends).is_ok(), "a second finish finds them");
        let whole = part(1, 1);
        Rows::new(&folder).remove(&whole);
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
        let ends = run(folder, &finish()).unwrap();
        assert_eq!(read_all(folder, &ends).unwrap(), b"0\n1\n2\n3\n5\n");
        store::put(&path(folder, &plan().tasks[2]), b"3\n").unwrap();
        let message = read_all(folder, &ends).unwrap_err().to_string();
        assert!(message.contains("altered"), "{message}");
    }

    #[test]
    fn rows_that_are_gone_cut_off_or_altered_are_an_error_that_names_them() {
        for (damage, found) in
            [(None, "missing"), (Some("2"), "1 bytes long"), (Some("3\n"), "altered")]
        {
            let folder = tempfile::tempdir().unwrap();
            let before = run(folder.path(), &part(1, 1)).unwrap();
            let path = path(folder.path(), &plan().tasks[2]);
            match damage {
                None => fs::remove_file(&path).unwrap(),
                Some(text) => fs::write(&path, text).unwrap(),
            }
            let message = read_all(folder.path(), &before).unwrap_err().to_string();
            assert!(message.contains(found) && message.contains("2,0,0"), "{message}");
            let finished = run(folder.path(), &finish()).and_then(|e| read_all(folder.path(), &e));
            assert!(matches!(finished, Err(Error::Rows { index: [2, 0, 0], .. })), "{finished:?}");
            // the way out that the message names works
            fs::remove_file(&path).ok();
            let again = run(folder.path(), &part(1, 1)).unwrap();
            assert_eq!(read_all(folder.path(), &again).unwrap(), b"0\n1\n2\n3\n5\n");
        }
    }
}
