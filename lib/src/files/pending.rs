//! The queue of written files that are not yet synced to disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{close, sync, syncs};

/// Number of files synced concurrently: a file system with a journal commits several together.
const CONCURRENT_SYNCS: usize = 4;
/// The number of files, or of bytes, at which a batch is large enough to be synced.
const BATCH_SIZE: (usize, u64) = (64, 64 << 20);
/// Maximum number of open files in the queue; a further write waits until the batch is synced.
const MAX_QUEUED_FILES: usize = 256;

/// A file could not be synced to disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct SyncError {
    /// The file or folder.
    pub path: PathBuf,
    /// The file system's error.
    pub source: io::Error,
}

/// A writer that syncs its own files in a fixed order: data first, then the metadata that refer to
/// them.
pub(crate) trait SyncStep: Send + Sync {
    /// The path, for messages.
    fn path(&self) -> &Path;
    /// Syncs the files; returns the folders that may contain a new entry and must be synced next.
    fn sync_pending(&self) -> io::Result<[PathBuf; 2]>;
}

#[derive(Default)]
struct PendingQueue {
    files: Vec<(File, PathBuf)>,
    /// Folders in which a name was added or removed.
    folders: BTreeSet<PathBuf>,
    steps: Vec<Arc<dyn SyncStep>>,
    bytes: u64,
    /// Number of batches that were started.
    batches: u64,
    /// Failures by the number of their batch.
    failed: BTreeMap<u64, (PathBuf, io::ErrorKind, Option<i32>)>,
}

static QUEUE: Mutex<Option<PendingQueue>> = Mutex::new(None);

/// The mutex is locked while a batch is synced: a thread that finds an empty queue must wait for
/// the thread that took the batch. The set contains the folders whose entry in their parent folder
/// is synced.
static SYNCED_FOLDERS: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// Locks a mutex, even if a thread panicked while it held the lock: its content is still
/// consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn update_queue<T>(change: impl FnOnce(&mut PendingQueue) -> T) -> T {
    change(lock(&QUEUE).get_or_insert_default())
}

/// Queues a file that has its final name; if the queue is then full, syncs all files in it.
pub(super) fn queue_file(file: File, path: &Path, length: u64) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let full = update_queue(|queue| {
        queue.folders.extend(path.parent().map(Path::to_owned));
        queue.files.push((file, path));
        queue.bytes += length;
        queue.files.len() >= MAX_QUEUED_FILES
    });
    if full { sync_pending().map_err(|error| error.source) } else { Ok(()) }
}

/// Records that a name in this folder was added or removed.
pub(crate) fn queue_folder(folder: &Path) {
    if syncs()
        && let Ok(folder) = std::path::absolute(folder)
    {
        update_queue(|queue| queue.folders.insert(folder));
    }
}

/// Adds a [`SyncStep`] to the queue, unless it is already there.
pub(crate) fn queue_step(step: Arc<dyn SyncStep>) {
    update_queue(|queue| {
        if !queue.steps.iter().any(|other| Arc::ptr_eq(other, &step)) {
            queue.steps.push(step);
        }
    });
}

/// Whether the queue is large enough for a batch.
pub(crate) fn is_batch_full() -> bool {
    update_queue(|queue| {
        queue.files.len() + queue.steps.len() >= BATCH_SIZE.0 || queue.bytes >= BATCH_SIZE.1
    })
}

/// Syncs everything written until now: data first, then the metadata that refer to them, then the
/// folders with new entries.
///
/// # Errors
/// [`SyncError`]; data that were written after the previous call can then be lost.
pub fn sync_pending() -> Result<(), SyncError> {
    let mut settled = lock(&SYNCED_FOLDERS);
    let mut batch = update_queue(|queue| {
        let left = PendingQueue { batches: queue.batches + 1, ..PendingQueue::default() };
        let failed = std::mem::take(&mut queue.failed);
        let batch = std::mem::replace(queue, left);
        queue.failed = failed;
        batch
    });
    let number = batch.batches;
    let result = batch.sync_pending(settled.get_or_insert_default());
    if let Err(error) = &result {
        let failure = (error.path.clone(), error.source.kind(), error.source.raw_os_error());
        update_queue(|queue| queue.failed.insert(number, failure));
    }
    result
}

impl PendingQueue {
    fn sync_pending(&mut self, settled: &mut HashSet<PathBuf>) -> Result<(), SyncError> {
        let files = std::mem::take(&mut self.files);
        all(files, |(file, path)| {
            let kept = sync(&file).and_then(|()| close(file));
            kept.map_err(|source| SyncError { path, source })
        })?;
        for step in std::mem::take(&mut self.steps) {
            let failed = |source| SyncError { path: step.path().to_owned(), source };
            for folder in step.sync_pending().map_err(failed)? {
                self.folders.insert(std::path::absolute(folder).map_err(failed)?);
            }
        }
        sync_folders(std::mem::take(&mut self.folders), settled)
    }
}

/// Syncs folders. For each folder and ancestor that is not in `settled` (the folders whose entry in
/// their parent folder is synced), the parent folder is synced, too.
fn sync_folders(
    mut folders: BTreeSet<PathBuf>,
    settled: &mut HashSet<PathBuf>,
) -> Result<(), SyncError> {
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
        sync_folder(&folder).map_err(|source| SyncError { path: folder, source })
    })?;
    settled.extend(above);
    Ok(())
}

/// Syncs the folder of a new file, and so the file's entry in it.
pub(super) fn sync_parent_folder(path: &Path) -> io::Result<()> {
    if !syncs() {
        return Ok(());
    }
    let path = std::path::absolute(path)?;
    let folder = path.parent().map(Path::to_owned).into_iter().collect();
    let mut settled = lock(&SYNCED_FOLDERS);
    sync_folders(folder, settled.get_or_insert_default()).map_err(|error| error.source)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    match File::open(folder) {
        Ok(folder) => sync(&folder),
        // a temporary folder may have been removed already, and a folder that this program lacks
        // permission to open was not created by it
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Applies `work` to all items, a few at once; the first error is returned after all were tried.
fn all<T: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<(), SyncError> + Sync,
) -> Result<(), SyncError> {
    let threads = CONCURRENT_SYNCS.min(items.len());
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

/// A point in time. [`SyncMark::sync_pending`] reports every sync failure after this point,
/// whichever thread detected the failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncMark(u64);

impl SyncMark {
    /// A mark at the start of the process.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "`cli` ends a process"))]
    pub(crate) fn start() -> Self {
        Self(0)
    }

    /// A mark at the present time.
    pub(crate) fn now() -> Self {
        Self(update_queue(|queue| queue.batches))
    }

    /// Calls [`sync_pending`], and checks that all batches since the mark were synced.
    ///
    /// # Errors
    /// As [`sync_pending`].
    pub(crate) fn sync_pending(self) -> Result<(), SyncError> {
        sync_pending()?;
        update_queue(|queue| match queue.failed.range(self.0..).next() {
            None => Ok(()),
            Some((_, (path, kind, code))) => {
                let source = code.map_or_else(|| (*kind).into(), io::Error::from_raw_os_error);
                Err(SyncError { path: path.clone(), source })
            }
        })
    }
}
