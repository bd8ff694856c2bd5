//! Atomic writing of files, and reading of files and byte ranges.
//!
//! A file is written under a unique temporary name, then renamed. The name identifies the machine
//! and process of its writer, so that files left by a killed process can be told from files that
//! are still being written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{
    MaybeBytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey,
};

use super::Error;
use crate::device::waiting;
use crate::{files, fingerprint};

/// The prefix of the names of temporary files.
const PREFIX: &str = ".voxloom-partial.";
/// A temporary file of this age counts as abandoned, whichever machine wrote it.
const STALE: Duration = Duration::from_hours(1);

/// A location as a path.
pub(super) fn path_of(location: &str) -> Result<PathBuf, Error> {
    let path = location.strip_prefix("file://").unwrap_or(location);
    if let Some((scheme, _)) = path.split_once("://") {
        let message = format!("'{scheme}://' is not a place that this build can reach; use a path");
        return Err(Error::format(location, message));
    }
    if path.is_empty() {
        return Err(Error::format(location, "is an empty location; give a path"));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(PathBuf::from(if trimmed.is_empty() { "/" } else { trimmed }))
}

/// The folder for an array's temporary files: on the array's file system, hidden from listings.
pub(super) fn partial_folder(array: &Path) -> PathBuf {
    array.join(".voxloom").join("partial")
}

/// Identifies this machine by its host name and PID namespace, in which process IDs are unique.
fn machine() -> &'static str {
    static MACHINE: OnceLock<String> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let mut host = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        host.extend(space.as_os_str().as_encoded_bytes());
        fingerprint::of(&host)[..8].to_owned()
    })
}

/// A unique name for a temporary file in `folder`.
pub(super) fn temporary(folder: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let random = &fingerprint::of(&now.as_nanos().to_le_bytes())[..8];
    folder.join(format!("{PREFIX}{}.{}.{count}.{random}", machine(), std::process::id()))
}

/// Writes `target` atomically through a temporary file in `folder`, which must be on the same file
/// system. The data are on disk once [`files::settle`] returns.
///
/// # Errors
/// [`Error::Io`]; `target` is then unchanged.
pub(super) fn write_by_way_of(folder: &Path, target: &Path, bytes: &[u8]) -> Result<(), Error> {
    waiting(|| {
        by_way_of(folder, target, |name| {
            let mut file = files::create_new(name)?;
            let written =
                file.write_all(bytes).and_then(|()| files::write_later(file, name, target));
            // the temporary file is useless, whether or not it can be removed
            written.inspect_err(|_| drop(fs::remove_file(name)))
        })
    })
}

/// Writes `target` atomically and to the disk, through a temporary file in its own folder.
///
/// # Errors
/// As [`write_by_way_of`].
pub(super) fn write_whole(target: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(Path::new("."));
    by_way_of(folder, target, |name| files::write_via(name, target, |file| file.write_all(bytes)))
}

/// Writes under a temporary name; retries once if a sweep on another machine has removed the
/// temporary file as abandoned.
fn by_way_of(
    folder: &Path,
    target: &Path,
    write: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), Error> {
    let written = match write(&temporary(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => write(&temporary(folder)),
        other => other,
    };
    written.map_err(|source| Error::io("write", target, source))
}

/// Removes a file, if it exists.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => {
            path.parent().into_iter().for_each(files::note_folder);
            Ok(())
        }
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(Error::io("write", path, error)),
    }
}

/// Removes a folder, if it exists. It is renamed first, so that an interrupted removal leaves no
/// partial folder under its name.
pub(super) fn remove_folder(target: &Path) -> io::Result<()> {
    let old = temporary(target.parent().unwrap_or(Path::new("")));
    let removed = match fs::rename(target, &old) {
        Ok(()) => fs::remove_dir_all(&old),
        Err(error) if is_missing(&error) => Ok(()),
        // the folder is a mount point, or the rename is not permitted
        Err(_) => fs::remove_dir_all(target),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames the folder `made` to `target`, replacing an existing folder of that name. If several
/// processes do so at once, the folder of one of them remains.
pub(super) fn replace_folder(made: &Path, target: &Path) -> io::Result<()> {
    loop {
        match fs::rename(made, target) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => return other,
        }
        let old = temporary(target.parent().unwrap_or(Path::new("")));
        match fs::rename(target, &old) {
            Ok(()) => fs::remove_dir_all(&old)?,
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes the temporary files and folders in `folder` whose writers no longer run on this machine,
/// or which are older than `STALE`.
pub(super) fn sweep(folder: &Path) {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        let mut fields = owner.split('.');
        let here = fields.next() == Some(machine());
        let dead = fields.next().is_some_and(|pid| {
            Path::new("/proc/self").exists() && !Path::new("/proc").join(pid).exists()
        });
        let age = entry.metadata().and_then(|meta| meta.modified()).ok();
        let old = age.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > STALE);
        if (here && dead) || old {
            let path = entry.path();
            tracing::debug!(file = %path.display(), "removing a stale temporary file");
            // another sweep may have removed it first
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// A file open for reading, with the length that it had when it was opened.
pub(super) struct SizedFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl SizedFile {
    /// Opens a file; `None` if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let open = || -> io::Result<Option<Self>> {
            let file = match File::open(path) {
                Err(error) if is_missing(&error) => return Ok(None),
                other => other?,
            };
            let length = file.metadata()?.len();
            Ok(Some(Self { path: path.to_owned(), file, length }))
        };
        waiting(open).map_err(|source| Error::io("read", path, source))
    }

    /// The length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads `length` bytes at offset `start` into `buffer`, replacing its content. The caller must
    /// have checked the range against [`SizedFile::length`].
    pub(super) fn read(
        &self,
        start: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        // most chunks are as long as the previous one: then nothing is cleared or allocated
        buffer.resize(length, 0);
        let read = waiting(|| self.file.read_exact_at(buffer, start));
        read.map_err(|source| Error::io("read", &self.path, source))
    }
}

/// Whether an error means that the path does not exist, or that a file is in place of a folder.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Reads the file range `start..start + length` into `buffer`. Returns `None` if the file does not
/// exist, otherwise whether it contains the whole range.
pub(super) fn read_range(
    path: &Path,
    start: u64,
    length: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<bool>> {
    let mut read = || {
        let file = match File::open(path) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        buffer.resize(length, 0);
        match file.read_exact_at(buffer, start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(false)),
            other => other.map(|()| Some(true)),
        }
    };
    waiting(&mut read)
}

/// A folder as a read-only Zarr store; writes go through [`write_by_way_of`].
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The store at `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The file of a key.
    pub(super) fn path(&self, key: &StoreKey) -> PathBuf {
        self.root.join(key.as_str())
    }
}

fn storage(error: io::Error) -> StorageError {
    StorageError::IOError(std::sync::Arc::new(error))
}

impl ReadableStorageTraits for Folder {
    fn get(&self, key: &StoreKey) -> Result<MaybeBytes, StorageError> {
        match fs::read(self.path(key)) {
            Err(error) if is_missing(&error) => Ok(None),
            other => Ok(Some(other.map_err(storage)?.into())),
        }
    }

    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let file = match File::open(self.path(key)) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other.map_err(storage)?,
        };
        let size = file.metadata().map_err(storage)?.len();
        Ok(Some(Box::new(byte_ranges.map(move |range| {
            // the ranges in a corrupt shard index can be arbitrary
            let bounds = match range {
                ByteRange::FromStart(start, None) => (start <= size).then_some((start, size)),
                ByteRange::FromStart(start, Some(length)) => {
                    start.checked_add(length).filter(|end| *end <= size).map(|end| (start, end))
                }
                ByteRange::Suffix(length) => size.checked_sub(length).map(|start| (start, size)),
            };
            let Some((start, end)) = bounds else {
                let what = format!("it has {size} bytes, wanted are those of {range}");
                return Err(StorageError::Other(what));
            };
            let mut bytes = vec![0; (end - start) as usize];
            file.read_exact_at(&mut bytes, start).map_err(storage)?;
            Ok(bytes.into())
        }))))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        match fs::metadata(self.path(key)) {
            Err(error) if is_missing(&error) => Ok(None),
            other => Ok(Some(other.map_err(storage)?.len())),
        }
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_what_the_dead_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: String| folder.path().join(name);
        let dead = at(format!("{PREFIX}{}.4194999.0.0", machine()));
        let alive = temporary(folder.path());
        let elsewhere = at(format!("{PREFIX}00000000.4194999.0.0"));
        let data = at("0".into());
        for path in [&dead, &alive, &elsewhere, &data] {
            fs::write(path, "x").unwrap();
        }
        let dead_folder = at(format!("{PREFIX}{}.4194999.1.0", machine()));
        fs::create_dir_all(dead_folder.join("c")).unwrap();
        sweep(folder.path());
        assert!(!dead.exists() && !dead_folder.exists());
        assert!(alive.exists() && elsewhere.exists() && data.exists());
    }

    #[test]
    fn many_writers_of_one_file_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("partial");
        let target = folder.path().join("c/0/0");
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let (partial, target) = (&partial, &target);
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_by_way_of(partial, target, &[writer; 10_000]).unwrap();
                        let read = fs::read(target).unwrap();
                        assert_eq!(read.len(), 10_000);
                        assert!(read.iter().all(|byte| *byte == read[0]));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&partial).unwrap().count(), 0);
    }
}
