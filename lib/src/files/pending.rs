//! The queue of written files that are not yet synced to disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{close, sync, syncs};

/// Number of files synced concurrently: a journal commits several of them together.
const AT_ONCE: usize = 4;
/// A batch is worth syncing at this many files or bytes.
const MANY: (usize, u64) = (64, 64 << 20);
/// Maximum number of open files in the queue; a further write waits until the batch is synced.
const MOST: usize = 256;

/// A file could not be synced to disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct Unwritten {
    /// The file or folder.
    pub path: PathBuf,
    /// The file system's error.
    pub source: io::Error,
}

/// Syncing in a fixed order of its own: data first, then the metadata that refer to them.
pub(crate) trait Settle: Send + Sync {
    /// The path, for messages.
    fn path(&self) -> &Path;
    /// Syncs; returns the folders that may contain a new name.
    fn settle(&self) -> io::Result<[PathBuf; 2]>;
}

#[derive(Default)]
struct Noted {
    files: Vec<(File, PathBuf)>,
    /// Folders in which a name was added or removed.
    folders: BTreeSet<PathBuf>,
    steps: Vec<Arc<dyn Settle>>,
    bytes: u64,
    /// Number of batches that were started.
    batches: u64,
    /// Failures by the number of their batch.
    failed: BTreeMap<u64, (PathBuf, io::ErrorKind, Option<i32>)>,
}

static NOTED: Mutex<Option<Noted>> = Mutex::new(None);

/// Held while a batch is synced: a thread that finds an empty queue must wait for the thread that
/// took the batch. Contains the folders whose own names are synced.
static SETTLED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// The lock of a mutex; a panic elsewhere leaves its contents consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note<T>(change: impl FnOnce(&mut Noted) -> T) -> T {
    change(lock(&NOTED).get_or_insert_default())
}

/// Queues a file that has its final name; if the queue is full, waits for it to be synced.
pub(super) fn note_file(file: File, path: &Path, length: u64) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let full = note(|noted| {
        noted.folders.extend(path.parent().map(Path::to_owned));
        noted.files.push((file, path));
        noted.bytes += length;
        noted.files.len() >= MOST
    });
    if full { settle().map_err(|error| error.source) } else { Ok(()) }
}

/// Records that a name in this folder was added or removed.
pub(crate) fn note_folder(folder: &Path) {
    if syncs()
        && let Ok(folder) = std::path::absolute(folder)
    {
        note(|noted| noted.folders.insert(folder));
    }
}

/// Queues a [`Settle`] step, once.
pub(crate) fn note_step(step: Arc<dyn Settle>) {
    note(|noted| {
        if !noted.steps.iter().any(|other| Arc::ptr_eq(other, &step)) {
            noted.steps.push(step);
        }
    });
}

/// Whether the queue is large enough for a batch.
pub(crate) fn is_heavy() -> bool {
    note(|noted| noted.files.len() + noted.steps.len() >= MANY.0 || noted.bytes >= MANY.1)
}

/// Syncs everything written until now: data first, then the metadata that refer to them, then
/// names.
///
/// # Errors
/// [`Unwritten`]: what was written since the last call may be lost.
pub fn settle() -> Result<(), Unwritten> {
    let mut settled = lock(&SETTLED);
    let mut batch = note(|noted| {
        let left = Noted { batches: noted.batches + 1, ..Noted::default() };
        let failed = std::mem::take(&mut noted.failed);
        let batch = std::mem::replace(noted, left);
        noted.failed = failed;
        batch
    });
    let number = batch.batches;
    let result = batch.settle(settled.get_or_insert_default());
    if let Err(error) = &result {
        let said = (error.path.clone(), error.source.kind(), error.source.raw_os_error());
        note(|noted| noted.failed.insert(number, said));
    }
    result
}

impl Noted {
    fn settle(&mut self, settled: &mut HashSet<PathBuf>) -> Result<(), Unwritten> {
        let files = std::mem::take(&mut self.files);
        all(files, |(file, path)| {
            let kept = sync(&file).and_then(|()| close(file));
            kept.map_err(|source| Unwritten { path, source })
        })?;
        for step in std::mem::take(&mut self.steps) {
            let failed = |source| Unwritten { path: step.path().to_owned(), source };
            for folder in step.settle().map_err(failed)? {
                self.folders.insert(std::path::absolute(folder).map_err(failed)?);
            }
        }
        settle_folders(std::mem::take(&mut self.folders), settled)
    }
}

/// Syncs folders, and the names of their ancestors that are not known to be synced.
fn settle_folders(
    mut folders: BTreeSet<PathBuf>,
    settled: &mut HashSet<PathBuf>,
) -> Result<(), Unwritten> {
    if !syncs() {
        return Ok(());
    }
    let mut above = HashSet::new();
    for folder in folders.clone() {
        for name in folder.ancestors() {
            let Some(parent) = name.parent() else { break };
            if settled.contains(name) || !above.insert(name.to_owned()) {
                break;
            }
            folders.insert(parent.to_owned());
        }
    }
    all(folders.into_iter().collect(), |folder| {
        sync_folder(&folder).map_err(|source| Unwritten { path: folder, source })
    })?;
    settled.extend(above);
    Ok(())
}

/// Syncs the new name of a file.
pub(super) fn settle_folder_of(path: &Path) -> io::Result<()> {
    if !syncs() {
        return Ok(());
    }
    let path = std::path::absolute(path)?;
    let folder = path.parent().map(Path::to_owned).into_iter().collect();
    let mut settled = lock(&SETTLED);
    settle_folders(folder, settled.get_or_insert_default()).map_err(|error| error.source)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    match File::open(folder) {
        Ok(folder) => sync(&folder),
        // a temporary folder may have been removed, and an unlistable folder is not ours
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Applies `work` to all items, a few at once; the first error is returned after all were tried.
fn all<T: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<(), Unwritten> + Sync,
) -> Result<(), Unwritten> {
    let threads = AT_ONCE.min(items.len());
    let items = Mutex::new(items.into_iter());
    let failed = Mutex::new(None);
    let some = || {
        loop {
            let Some(item) = lock(&items).next() else { return };
            if let Err(error) = work(item) {
                lock(&failed).get_or_insert(error);
            }
        }
    };
    if threads < 2 {
        some();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(some);
            }
        });
    }
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// A point in time. Every sync failure after it is reported to its holder, whichever thread has
/// detected the failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

impl Mark {
    /// The start of the process.
    pub(crate) fn start() -> Self {
        Self(0)
    }

    /// The present.
    pub(crate) fn now() -> Self {
        Self(note(|noted| noted.batches))
    }

    /// Calls [`settle`], and checks that all batches since the mark were synced.
    ///
    /// # Errors
    /// As [`settle`].
    pub(crate) fn settle(self) -> Result<(), Unwritten> {
        settle()?;
        note(|noted| match noted.failed.range(self.0..).next() {
            None => Ok(()),
            Some((_, (path, kind, code))) => {
                let source = code.map_or_else(|| (*kind).into(), io::Error::from_raw_os_error);
                Err(Unwritten { path: path.clone(), source })
            }
        })
    }
}
