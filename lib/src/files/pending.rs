//! What was written and is not known to be on the disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{close, sync, syncs};

/// Files that are brought to the disk at once: a journal commits those of several callers together.
const AT_ONCE: usize = 4;
/// When a batch is worth its while: so many files or bytes.
const MANY: (usize, u64) = (64, 64 << 20);
/// More files than this are not held open: who writes another one waits for the batch.
const MOST: usize = 256;

/// A file could not be brought to the disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct Unwritten {
    /// The file or folder.
    pub path: PathBuf,
    /// What the file system said.
    pub source: io::Error,
}

/// Something whose own order of steps is to be kept: sync its data, then say that they are there.
pub(crate) trait Settle: Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;
    /// Does it; tells the folders in which a name may be new.
    fn settle(&self) -> io::Result<[PathBuf; 2]>;
}

#[derive(Default)]
struct Noted {
    files: Vec<(File, PathBuf)>,
    /// Folders with a new name or without an old one.
    folders: BTreeSet<PathBuf>,
    steps: Vec<Arc<dyn Settle>>,
    bytes: u64,
    /// Batches that were begun.
    batches: u64,
    /// Failures, each with the batch that it was in.
    failed: BTreeMap<u64, (PathBuf, io::ErrorKind, Option<i32>)>,
}

static NOTED: Mutex<Option<Noted>> = Mutex::new(None);

/// Held while a batch is brought to the disk: who finds nothing noted must wait for the one that
/// took it. In it, the folders whose own names are on the disk.
static SETTLED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// A panic elsewhere leaves both lists whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note<T>(change: impl FnOnce(&mut Noted) -> T) -> T {
    change(lock(&NOTED).get_or_insert_default())
}

/// Notes a file that has its name, and waits where too many are noted.
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

/// Notes that a name in this folder is new, or gone.
pub(crate) fn note_folder(folder: &Path) {
    if syncs()
        && let Ok(folder) = std::path::absolute(folder)
    {
        note(|noted| noted.folders.insert(folder));
    }
}

/// Notes a step.
pub(crate) fn note_step(step: Arc<dyn Settle>) {
    note(|noted| {
        if !noted.steps.iter().any(|other| Arc::ptr_eq(other, &step)) {
            noted.steps.push(step);
        }
    });
}

/// Whether so much is noted that a batch is worth its while.
pub(crate) fn is_heavy() -> bool {
    note(|noted| noted.files.len() + noted.steps.len() >= MANY.0 || noted.bytes >= MANY.1)
}

/// Brings all that was written until now to the disk: data first, then what says that they are
/// there, then names.
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

/// Brings folders to the disk, and the names of those above them that are not known to be there.
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

/// Brings the new name of a file to the disk.
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
        // what was scratch may be gone, and what may not be listed is not ours
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Does the same to all, a few at once; the first error is told after all were tried.
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

/// A moment: what fails to reach the disk after it is a failure of who took it, whoever finds out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

impl Mark {
    /// Before all.
    pub(crate) fn start() -> Self {
        Self(0)
    }

    /// Now.
    pub(crate) fn now() -> Self {
        Self(note(|noted| noted.batches))
    }

    /// [`settle`], and whether all batches since the mark reached the disk.
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
