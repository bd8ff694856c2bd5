//! File writes that are atomic and durable, also across a power failure.
//!
//! `write_via` writes a small file under a temporary name, syncs it, renames it, and syncs the
//! folder. This is too slow for chunks: `write_later` renames them without syncing and queues them,
//! and [`sync_pending`] syncs everything in the queue. Code that reports work as done, in a
//! ledger, a receipt or an exit code, calls [`sync_pending`] first. `--no-sync` disables syncing
//! ([`set_sync`]); errors that the system reports when a file is closed are detected in any case.
//!
//! A text that is read or written as a whole can also be standard input or output ([`is_stream`]);
//! a text that is read can come from a named pipe ([`is_pipe`]).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod pending;
mod stream;

pub use pending::{SyncError, sync_pending};
pub(crate) use pending::{SyncMark, SyncStep, is_batch_full, queue_folder, queue_step};
pub(crate) use stream::read_pipe;
pub use stream::{ReaderGone, is_pipe, is_reader_gone, is_stream, write_out};

static SYNC: AtomicBool = AtomicBool::new(true);

/// Sets whether files are synced to disk (the default) or left to the system's cache.
pub fn set_sync(sync: bool) {
    SYNC.store(sync, Ordering::SeqCst);
}

/// Whether files are synced to disk, as set by [`set_sync`].
pub(crate) fn syncs() -> bool {
    SYNC.load(Ordering::SeqCst)
}

/// Writes a file atomically and syncs it: the closure `fill` writes the content to a temporary file
/// in the same folder, which is then renamed. Parent folders are created. If two processes write at
/// once, the file of one of them remains.
///
/// # Errors
/// The errors of the closure and of the file system. `path` is then unchanged, unless the error
/// occurred after the rename, when the folder was synced.
pub(crate) fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    write_via(&temporary_path(path)?, path, fill)
}

/// Like [`write_with`], with a temporary name given by the caller, on the same file system as `path`.
///
/// # Errors
/// As [`write_with`].
pub(crate) fn write_via(
    temporary: &Path,
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let written = create_new(temporary).and_then(|mut file| {
        fill(&mut file)?;
        finish(file)?;
        rename(temporary, path)
    });
    if written.is_err() {
        // the first error is the one to report
        let _ = fs::remove_file(temporary);
        return written;
    }
    pending::sync_parent_folder(path)
}

/// Renames a file that was written under the name `from`, and queues it for [`sync_pending`].
///
/// # Errors
/// If the file cannot be renamed, or if the queue is full and cannot be synced.
pub(crate) fn write_later(file: File, from: &Path, target: &Path) -> io::Result<()> {
    if !syncs() {
        close(file)?;
        return rename(from, target);
    }
    let length = file.metadata()?.len();
    rename(from, target)?;
    pending::queue_file(file, target, length)
}

/// Whether there is a regular file at `path`, after links. A path that cannot exist is no file.
///
/// # Errors
/// The system's error if it cannot tell, as with a network file system whose server is gone.
pub(crate) fn is_file(path: &Path) -> io::Result<bool> {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    match fs::metadata(path) {
        Ok(about) => Ok(about.is_file()),
        Err(error)
            if matches!(
                error.kind(),
                NotFound | NotADirectory | InvalidFilename | InvalidInput
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Creates a file that must not exist, and its folder if needed.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let create = || File::options().write(true).create_new(true).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder_of(path)?;
            create()
        }
        other => other,
    }
}

/// Renames a file, and creates the folder of the new name if needed.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder_of(to)?;
            fs::rename(from, to)
        }
        other => other,
    }
}

fn make_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::create_dir_all(folder),
        _ => Ok(()),
    }
}

/// Syncs the file to disk and closes it.
///
/// # Errors
/// Errors that the file system reports only at this point: a failed delayed write, an exceeded
/// quota, or a server that cannot be reached.
pub(crate) fn finish(file: File) -> io::Result<()> {
    if syncs() {
        sync(&file)?;
    }
    close(file)
}

/// Syncs the data of an open file to disk; with `--no-sync`, only checks for pending errors.
///
/// # Errors
/// As [`finish`].
pub(crate) fn sync(file: &File) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, Unsupported};
    if !syncs() {
        return close(file.try_clone()?);
    }
    match file.sync_data() {
        // some network and user-space file systems do not support syncing
        Err(e) if matches!(e.kind(), InvalidInput | Unsupported) => Ok(()),
        result => result,
    }
}

/// Closes a file and returns the error, which a drop would ignore; network file systems report
/// failed writes at this point.
fn close(file: File) -> io::Result<()> {
    match nix::unistd::close(file) {
        // on Linux the descriptor is closed even after EINTR, and nothing is lost
        Err(nix::errno::Errno::EINTR) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A unique temporary name in the folder of `path`.
fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // processes on two machines may have the same process id
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().subsec_nanos();
    temporary.push(format!(".{}-{count}-{now:x}.tmp", std::process::id()));
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
        write_with(path, |file| file.write_all(bytes))
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/down/a.txt");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"x").unwrap();
        assert!(write_whole(&path, b"text").is_err());
        assert!(write_with(&folder.path().join("b"), |_| Err(io::Error::other("no"))).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_written_for_later_is_there_at_once_and_settles() {
        let folder = tempfile::tempdir().unwrap();
        let mark = SyncMark::now();
        for number in 0..600 {
            let (from, to) = (folder.path().join("partial/x"), folder.path().join("c/0"));
            let to = to.join(number.to_string());
            let mut file = create_new(&from).unwrap();
            file.write_all(b"chunk").unwrap();
            write_later(file, &from, &to).unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"chunk");
        }
        mark.sync_pending().unwrap();
        sync_pending().unwrap();
        assert_eq!(fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
    }
}
