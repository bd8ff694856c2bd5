//! Local folders: atomic writes under a temporary name, and reads of byte ranges.
//!
//! The temporary name identifies the machine and process of its writer, so that files left by a
//! killed process can be told from files that are still being written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{EntryKind, FolderEntry, ReadRange, Stat};
use crate::{files, fingerprint};

/// The prefix of the names of temporary files.
pub const PREFIX: &str = ".voxloom-partial.";
/// A temporary file of this age counts as abandoned, whichever machine wrote it.
const STALE_AGE: Duration = Duration::from_hours(1);

/// Whether an error means that the path does not exist, or that a file is in place of a folder.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Turns the error of a missing path into `None`.
fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if is_missing(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// As [`super::read`].
pub(super) fn read(at: &Path, wanted: ReadRange, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let Some(file) = none_if_missing(File::open(at))? else { return Ok(None) };
    let size = file.metadata()?.len();
    let Some(range) = wanted.within(size) else {
        buffer.clear();
        return Ok(Some(size));
    };
    // most chunks have the length that `buffer` has already: `resize` then does nothing
    buffer.resize((range.end - range.start) as usize, 0);
    file.read_exact_at(buffer, range.start)?;
    Ok(Some(size))
}

/// As [`super::put`].
pub(super) fn put(at: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = |name: &Path| files::write_via(name, at, |file| file.write_all(bytes));
    via_temporary(folder_of(at), write)
}

/// As [`super::put_later`].
pub(super) fn put_later(staging: &Path, at: &Path, bytes: &[u8]) -> io::Result<()> {
    via_temporary(staging, |name| {
        let mut file = files::create_new(name)?;
        let written = file.write_all(bytes).and_then(|()| files::write_later(file, name, at));
        // an error of the removal is ignored, because the error of the write is returned
        written.inspect_err(|_| drop(fs::remove_file(name)))
    })
}

/// As [`super::put_if_absent`]. The file is created as a hard link to a complete temporary file,
/// because a rename would replace an existing file.
pub(super) fn put_if_absent(at: &Path, bytes: &[u8]) -> io::Result<bool> {
    let folder = folder_of(at);
    fs::create_dir_all(folder)?;
    let name = temporary(folder);
    let linked = files::create_new(&name).and_then(|mut file| {
        file.write_all(bytes)?;
        files::finish(file)?;
        fs::hard_link(&name, at)
    });
    let removed = fs::remove_file(&name);
    let is_ours = match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        // some file systems do not support hard links
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            match File::create_new(at).and_then(|mut file| file.write_all(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                written => written.map(|()| true)?,
            }
        }
        linked => linked.map(|()| true)?,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => files::queue_folder(folder),
    }
    Ok(is_ours)
}

/// As [`super::delete`].
pub(super) fn delete(at: &Path) -> io::Result<()> {
    if none_if_missing(fs::remove_file(at))?.is_some() {
        at.parent().into_iter().for_each(files::queue_folder);
    }
    Ok(())
}

/// As [`super::stat`].
pub(super) fn stat(at: &Path) -> io::Result<Option<Stat>> {
    let Some(stat) = none_if_missing(fs::metadata(at))? else { return Ok(None) };
    Ok(Some(Stat {
        kind: if stat.is_dir() { EntryKind::Folder } else { EntryKind::File },
        length: stat.len(),
        changed: stat.modified().ok(),
        tag: Some(stat.ino().to_string()),
    }))
}

/// As [`super::visit`].
pub(super) fn visit(
    folder: &Path,
    see: &mut dyn FnMut(FolderEntry) -> ControlFlow<()>,
) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Some(entries) = none_if_missing(fs::read_dir(folder))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let (is_folder, is_link) = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => (entry.path().is_dir(), true),
            Ok(kind) => (kind.is_dir(), false),
            // another process has removed the entry
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(error),
        };
        let kind = if is_folder { EntryKind::Folder } else { EntryKind::File };
        let name = entry.file_name().to_string_lossy().into_owned();
        if see(FolderEntry { name, kind, is_link }).is_break() {
            break;
        }
    }
    Ok(())
}

/// As [`super::visit_below`]; `prefix` is put before the names.
pub(super) fn visit_below(
    folder: &Path,
    prefix: &str,
    see: &mut dyn FnMut(FolderEntry) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut entries = Vec::new();
    visit(folder, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    for entry in entries {
        let below = (entry.kind == EntryKind::Folder && !entry.is_link)
            .then(|| (folder.join(&entry.name), format!("{prefix}{}/", entry.name)));
        let name = format!("{prefix}{}", entry.name);
        let mut flow = see(FolderEntry { name, ..entry });
        if let (ControlFlow::Continue(()), Some((folder, prefix))) = (flow, below) {
            flow = visit_below(&folder, &prefix, see)?;
        }
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The folder of a file.
fn folder_of(at: &Path) -> &Path {
    match at.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes under a temporary name; retries once if a sweep on another machine has removed the
/// temporary file as abandoned.
fn via_temporary(folder: &Path, write: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match write(&temporary(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => write(&temporary(folder)),
        other => other,
    }
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

/// A unique name for a temporary file or folder in `folder`.
pub fn temporary(folder: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let random = &fingerprint::of(&now.as_nanos().to_le_bytes())[..8];
    folder.join(format!("{PREFIX}{}.{}.{count}.{random}", machine(), std::process::id()))
}

/// As [`super::delete_folder`].
pub(super) fn delete_folder(target: &Path) -> io::Result<()> {
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

/// Renames the local folder `made` to `target`, replacing an existing folder of that name. If
/// several processes do so at the same time, the folder of one of them remains.
///
/// # Errors
/// The system's error.
pub fn replace_folder(made: &Path, target: &Path) -> io::Result<()> {
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

/// Removes abandoned temporary files and folders from a local folder: those of processes of this
/// machine that have ended, and those older than an hour. In a bucket there are no temporary files.
pub fn sweep(folder: &Path) {
    if super::is_remote(folder) {
        return;
    }
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
        let old = age.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > STALE_AGE);
        if (here && dead) || old {
            let path = entry.path();
            tracing::debug!(file = %path.display(), "removing a stale temporary file");
            // another sweep may have removed it first
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
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
                        put_later(partial, target, &[writer; 10_000]).unwrap();
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
