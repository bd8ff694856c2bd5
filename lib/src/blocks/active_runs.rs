//! Marks the folders in which runs are active, so that no run removes files that another run still
//! reads.
//!
//! Each run holds a shared lock on the file `live` of every folder in which it keeps a ledger. The
//! last run to finish can lock this file exclusively, and then removes the files that are no longer
//! needed. On a file system without locks and in a bucket, runs do not detect each other, and
//! nothing is removed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Context, Error, ledger};
use crate::{store, volume};

/// The name of the lock file.
pub(super) const NAME: &str = "live";

/// The folders in which a run is active.
#[derive(Default)]
pub struct ActiveRuns(Mutex<Vec<ActiveRun>>);

impl ActiveRuns {
    fn lock(&self) -> MutexGuard<'_, Vec<ActiveRun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a run as active in a folder until this value is dropped.
struct ActiveRun {
    folder: PathBuf,
    /// `None` if the file system has no locks.
    _lock: Option<File>,
    /// Whether another run was already active in the folder when this run was marked.
    is_concurrent: bool,
}

impl ActiveRun {
    /// Marks this run as active in `folder`, which is created if absent.
    fn enter(folder: &Path) -> Result<Self, Error> {
        if store::is_remote(folder) {
            return Ok(Self::unlocked(folder));
        }
        let path = folder.join(NAME);
        let failed = |source| Error::io("write", &path)(source);
        loop {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            let open =
                File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let file = match open {
                // another run has just finished and removed the folder
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            let is_concurrent = match file.try_lock() {
                Ok(()) => {
                    file.unlock().map_err(failed)?;
                    false
                }
                Err(TryLockError::WouldBlock) => true,
                Err(TryLockError::Error(_)) => return Ok(Self::unlocked(folder)),
            };
            if file.lock_shared().is_err() {
                return Ok(Self::unlocked(folder));
            }
            // another run may have removed the file after it was opened here; a lock on a removed
            // file would not exclude other runs
            if is_at(&file, &path) {
                return Ok(Self { folder: folder.to_path_buf(), _lock: Some(file), is_concurrent });
            }
        }
    }

    fn unlocked(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), _lock: None, is_concurrent: false }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => place(held) == place(there),
        _ => false,
    }
}

/// Whether a run is active in a folder; nothing is created there.
pub(super) fn is_active(folder: &Path) -> bool {
    if store::is_remote(folder) {
        return false;
    }
    let open = File::options().read(true).write(true).open(folder.join(NAME));
    open.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Removes the files of block-wise runs in `folder`, and the folder if it is then empty. Nothing is
/// removed in a bucket, while a run is active in the folder, or if the folder belongs to an
/// unfinished single-file volume.
fn clear_if_unused(folder: &Path) -> Result<(), Error> {
    if store::is_remote(folder) {
        return Ok(());
    }
    let path = folder.join(NAME);
    let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let file = match open {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(Error::io("read", &path))?,
    };
    if file.try_lock().is_err() || volume::is_partial_file(folder) {
        return Ok(());
    }
    ledger::clear(folder)?;
    let gone = |result: io::Result<()>, path: &Path| match result {
        Err(e)
            if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) =>
        {
            Err(Error::io("remove", path)(e))
        }
        _ => Ok(()),
    };
    gone(fs::remove_file(&path), &path)?;
    gone(fs::remove_dir(folder), folder)
}

impl Context {
    /// Marks this run as active in `folder`; returns whether another run was already active there.
    pub(super) fn enter(&self, folder: &Path) -> Result<bool, Error> {
        let mut live = self.active_runs.lock();
        if let Some(live) = live.iter().find(|live| live.folder == folder) {
            return Ok(live.is_concurrent);
        }
        let entered = ActiveRun::enter(folder)?;
        let is_concurrent = entered.is_concurrent;
        live.push(entered);
        Ok(is_concurrent)
    }

    /// Whether another run was already active in one of this run's folders when this run entered
    /// it.
    pub(super) fn has_concurrent_runs(&self) -> bool {
        self.active_runs.lock().iter().any(|live| live.is_concurrent)
    }

    /// Schedules the removal of the ledger and the rows in `folder` by [`Context::sweep`], which is
    /// called after the receipt is written. Until then an interrupted run can be resumed and
    /// produces the same receipt.
    pub(super) fn sweep_later(&self, folder: &Path) {
        self.update_receipt(|receipt| receipt.sweeps.push(folder.to_path_buf()));
    }

    /// Removes the ledgers and rows that are no longer needed, unless another run still uses them.
    /// Call it after the results and the receipt are written.
    pub fn sweep(&self) {
        let mut folders = Vec::new();
        self.update_receipt(|receipt| folders.append(&mut receipt.sweeps));
        for folder in folders {
            self.active_runs.lock().retain(|live| live.folder != folder);
            if let Err(error) = clear_if_unused(&folder) {
                tracing::warn!("{error}; all else is done");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_to_go_removes_what_is_left() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("spots.csv.voxloom");
        let [one, two] = [Context::default(), Context::default()];
        assert!(!one.enter(&folder).unwrap());
        assert!(two.enter(&folder).unwrap() && !one.enter(&folder).unwrap());
        fs::write(folder.join("rows-00000000"), "kept").unwrap();
        one.sweep_later(&folder);
        one.sweep();
        assert!(folder.join("rows-00000000").exists(), "the other run still reads it");
        two.sweep_later(&folder);
        two.sweep();
        assert!(!folder.exists());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = Context::default();
        ctx.enter(folder.path()).unwrap();
        fs::write(folder.path().join("mine.txt"), "kept").unwrap();
        ctx.sweep_later(folder.path());
        ctx.sweep();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
    }
}
