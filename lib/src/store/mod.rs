//! Access to bytes by location: get, put, put if absent, list and delete, in a local folder, in a
//! bucket and on a web server.
//!
//! A location is a [`Path`]: that of a local file, or an address such as
//! `s3://bucket/img.zarr/0/c/0/0`. [`Path::join`] works on both kinds; [`parent`] and [`ancestors`]
//! stop at the bucket. Every function here takes both kinds. There is no function to rename, append
//! or lock, because a bucket has no such operation.
//!
//! Guarantees, which `tests::conformance` checks for every back end:
//!
//! * [`put`] is atomic: a reader sees the object before the call or after it, never part of it.
//! * Of several concurrent calls of [`put_if_absent`], exactly one returns `true`.
//! * A missing object is `None`. An object to which access is denied is an error, never `None`.
//! * Temporary faults of the network or the server are retried until a deadline. If they persist,
//!   the kind of the error is one for which the programs exit with code 75.
//! * Bytes that are returned are complete.
//!
//! Locally, [`put`] also syncs the file to the disk; after [`put_later`], the caller must call
//! [`files::sync_pending`](crate::files::sync_pending). An object in a bucket is durable when the
//! call returns.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::device::waiting;

#[cfg(feature = "cloud")]
mod cloud;
pub mod document;
mod local;
mod location;
mod memo;
#[cfg(test)]
mod memory;
mod present;
mod remote;
#[cfg(feature = "cloud")]
mod retry;
#[cfg(test)]
mod tests;

#[cfg(feature = "cloud")]
pub use cloud::{check_endpoint, set_endpoint};
pub use local::{PREFIX, is_missing, replace_folder, sweep, temporary};
pub use location::{ancestors, is_listable, is_remote, is_same_root, parent, parse, resolve};
pub use memo::{forget, remember};
pub use present::present;

/// Maximum number of concurrent requests of one call that accesses several objects.
pub const IN_FLIGHT: usize = 16;

/// The folder in an array that holds the working files of this library.
const OWN_FOLDER: &str = ".voxloom";
/// The name of the file in the folder `.voxloom` by which a run claims the array.
pub const CLAIM: &str = "claim.json";
/// Maximum number of times that [`clear_folder`] lists the objects.
const MAX_LISTINGS: usize = 4;

/// Which bytes of an object to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRange {
    /// All bytes, if there are at most this many.
    Whole(u64),
    /// `length` bytes from `start` on.
    Range {
        /// The offset of the first byte.
        start: u64,
        /// The number of bytes.
        length: usize,
    },
    /// This many bytes at the end of the object.
    End(usize),
}

impl ReadRange {
    /// The range of offsets in an object of `size` bytes; `None` if the object has fewer bytes than
    /// are wanted, or more than are accepted.
    fn within(self, size: u64) -> Option<std::ops::Range<u64>> {
        match self {
            Self::Whole(most) => (size <= most).then_some(0..size),
            Self::Range { start, length } => {
                let end = start.checked_add(length as u64)?;
                (end <= size).then_some(start..end)
            }
            Self::End(length) => Some(size.checked_sub(length as u64)?..size),
        }
    }
}

/// Whether a location holds bytes or other locations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// An object with bytes.
    File,
    /// A folder, or the common prefix of several objects.
    Folder,
}

/// The metadata of a location. If two values for the same location are equal, its content was not
/// replaced in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Whether the location is a file or a folder.
    pub kind: EntryKind,
    /// The length in bytes; 0 for a folder in a bucket.
    pub length: u64,
    /// The time of the last change, if the store states it.
    pub changed: Option<SystemTime>,
    /// The inode of a local file, or the entity tag of an object.
    pub tag: Option<String>,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderEntry {
    /// The name within the folder.
    pub name: String,
    /// Whether the entry is a file or a folder.
    pub kind: EntryKind,
    /// Whether the entry is a symbolic link; `kind` is then that of the target.
    pub is_link: bool,
}

/// Reads bytes of an object into `buffer`, replacing its content. Returns the length of the whole
/// object; `None` if there is no object.
///
/// `buffer` is empty if the object has fewer bytes than are wanted, or more than are accepted. The
/// caller can tell this by the returned length.
///
/// # Errors
/// The system's error; for an address, [`io::ErrorKind::PermissionDenied`] if access is denied,
/// [`io::ErrorKind::TimedOut`] if temporary faults persist until the deadline, or another kind.
pub fn read(at: &Path, wanted: ReadRange, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
    waiting(|| match remote::find(at)? {
        None => local::read(at, wanted, buffer),
        Some((store, key)) => memo::read(at, wanted, buffer, |buffer| {
            buffer.clear();
            store.read(&key, wanted, buffer)
        }),
    })
}

/// All bytes of an object; `None` if there is no object.
///
/// # Errors
/// As [`read`].
pub fn get(at: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    Ok(read(at, ReadRange::Whole(u64::MAX), &mut bytes)?.map(|_| bytes))
}

/// As [`get`] for several objects, which are fetched concurrently from a bucket.
pub fn get_several(at: &[PathBuf]) -> Vec<io::Result<Option<Vec<u8>>>> {
    each(at, get)
}

/// Applies `work` to all locations, concurrently if they are in a bucket; the results are in the
/// order of the locations.
pub fn each<T: Send>(at: &[PathBuf], work: impl Fn(&Path) -> T + Sync) -> Vec<T> {
    let threads = if at.iter().any(|at| is_remote(at)) { IN_FLIGHT } else { 1 };
    concurrently(at, threads, |at| work(at))
}

/// Applies `work` to all items on up to `threads` threads; the results are in the order of the
/// items.
pub fn concurrently<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let threads = threads.min(items.len());
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match items.get(i) {
                Some(item) => done.push((i, work(item))),
                None => return done,
            }
        }
    };
    let mut done = waiting(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let joined = threads.into_iter().flat_map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Vec<_>>()
        })
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Writes an object atomically and durably, replacing any object of that name.
///
/// # Errors
/// The system's error; the object is then unchanged, or has the new content.
pub fn put(at: &Path, bytes: &[u8]) -> io::Result<()> {
    waiting(|| match remote::find(at)? {
        None => local::put(at, bytes),
        Some((store, key)) => {
            memo::forget();
            store.put(&key, bytes)
        }
    })
}

/// As [`put`], but a local file is on the disk only after
/// [`files::sync_pending`](crate::files::sync_pending). `staging` is a local folder for the
/// temporary file, on the same file system.
///
/// # Errors
/// As [`put`].
pub fn put_later(staging: &Path, at: &Path, bytes: &[u8]) -> io::Result<()> {
    waiting(|| match remote::find(at)? {
        None => local::put_later(staging, at, bytes),
        Some((store, key)) => {
            memo::forget();
            store.put(&key, bytes)
        }
    })
}

/// Writes an object atomically if no object has that name; returns whether it was written.
///
/// # Errors
/// As [`put`].
pub fn put_if_absent(at: &Path, bytes: &[u8]) -> io::Result<bool> {
    waiting(|| match remote::find(at)? {
        None => local::put_if_absent(at, bytes),
        Some((store, key)) => {
            memo::forget();
            store.put_if_absent(&key, bytes)
        }
    })
}

/// Removes an object, if it exists.
///
/// # Errors
/// The system's error.
pub fn delete(at: &Path) -> io::Result<()> {
    delete_several(&[at.to_owned()])
}

/// Removes several local files, or several objects of one bucket; those that do not exist are
/// ignored. In a bucket, one request removes many objects.
///
/// # Errors
/// The system's error.
pub fn delete_several(at: &[PathBuf]) -> io::Result<()> {
    let Some(first) = at.first() else { return Ok(()) };
    if is_remote(first) {
        memo::forget();
    }
    waiting(|| {
        let Some((store, _)) = remote::find(first)? else {
            return at.iter().try_for_each(|at| local::delete(at));
        };
        let mut keys = Vec::with_capacity(at.len());
        for at in at {
            keys.extend(remote::find(at)?.map(|(_, key)| key));
        }
        let batches: Vec<_> = keys.chunks(remote::MOST_DELETED).collect();
        let deleted = concurrently(&batches, IN_FLIGHT, |keys| store.delete(keys));
        deleted.into_iter().collect()
    })
}

/// Removes a folder with everything in it, if it exists. A local folder is renamed first, so that
/// an interrupted removal leaves no partial folder under its name; a folder in a bucket is removed
/// as by [`clear_folder`].
///
/// # Errors
/// The system's error.
pub fn delete_folder(folder: &Path) -> io::Result<()> {
    if is_remote(folder) { clear_folder(folder, None) } else { local::delete_folder(folder) }
}

/// Removes all objects of a folder in a bucket except the claim in the folder `keep`. The metadata
/// files of arrays and groups are removed first, so that readers find no partial array. The working
/// files of this library are removed last, so that a folder left by an interrupted removal can be
/// recognised. Objects that another process writes meanwhile are removed too.
///
/// # Errors
/// The system's error.
pub fn clear_folder(folder: &Path, keep: Option<&Path>) -> io::Result<()> {
    let kept = keep.map(|keep| keep.join(CLAIM));
    for _ in 0..MAX_LISTINGS {
        let mut files = Vec::new();
        visit_below(folder, &mut |entry| {
            files.push(folder.join(entry.name));
            ControlFlow::Continue(())
        })?;
        files.retain(|file| Some(file) != kept.as_ref());
        if files.is_empty() {
            return Ok(());
        }
        let is_ours = |file: &PathBuf| file.iter().any(|part| part == OWN_FOLDER);
        let is_metadata = |file: &PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(".z") || matches!(name, "zarr.json" | "attributes.json")
        };
        let (last, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_ours);
        let (first, middle): (Vec<_>, Vec<_>) = others.into_iter().partition(is_metadata);
        [first, middle, last].iter().try_for_each(|files| delete_several(files))?;
    }
    Ok(())
}

/// The kind, length and version of a location; `None` if nothing is there.
///
/// # Errors
/// As [`read`].
pub fn stat(at: &Path) -> io::Result<Option<Stat>> {
    waiting(|| match remote::find(at)? {
        None => local::stat(at),
        Some((store, key)) => match memo::stat(at, || store.stat(&key))? {
            Some(stat) => Ok(Some(stat)),
            None if !is_listable(at)
                || !memo::is_prefix(at, || Ok(!store.page(&key, 1, None)?.0.is_empty()))? =>
            {
                Ok(None)
            }
            None => Ok(Some(Stat { kind: EntryKind::Folder, length: 0, changed: None, tag: None })),
        },
    })
}

/// As [`stat`], for a file or a single object. A folder in a bucket is not found, which saves a
/// request.
///
/// # Errors
/// As [`read`].
pub fn stat_file(at: &Path) -> io::Result<Option<Stat>> {
    waiting(|| match remote::find(at)? {
        None => local::stat(at),
        Some((store, key)) => memo::stat(at, || store.stat(&key)),
    })
}

/// Whether a location exists. A location that cannot be examined counts as existing.
pub fn exists(at: &Path) -> bool {
    stat(at).map_or(true, |stat| stat.is_some())
}

/// Whether a location is a folder.
pub fn is_folder(at: &Path) -> bool {
    stat(at).is_ok_and(|stat| stat.is_some_and(|stat| stat.kind == EntryKind::Folder))
}

/// Calls `see` for each entry of a folder, in any order, until `see` returns `Break`. If the folder
/// does not exist, `see` is not called.
///
/// # Errors
/// The system's error; [`io::ErrorKind::Unsupported`] for a web server.
pub fn visit(folder: &Path, see: &mut dyn FnMut(FolderEntry) -> ControlFlow<()>) -> io::Result<()> {
    waiting(|| {
        let Some((store, key)) = remote::find(folder)? else { return local::visit(folder, see) };
        let mut token = None;
        loop {
            let (entries, next) = memo::page(folder, token.as_deref(), || {
                store.page(&key, usize::MAX, token.clone())
            })?;
            if entries.into_iter().any(|entry| see(entry).is_break()) || next.is_none() {
                return Ok(());
            }
            token = next;
        }
    })
}

/// Calls `see` for each file below a folder, at any depth and in any order, until `see` returns
/// `Break`. The name of the entry is its path below the folder. In a local folder, `see` is also
/// called for each subfolder, before its content, and symbolic links are not followed; a bucket has
/// no folders.
///
/// # Errors
/// As [`visit`].
pub fn visit_below(
    folder: &Path,
    see: &mut dyn FnMut(FolderEntry) -> ControlFlow<()>,
) -> io::Result<()> {
    waiting(|| {
        let Some((store, key)) = remote::find(folder)? else {
            return local::visit_below(folder, "", see).map(drop);
        };
        let mut token = None;
        loop {
            let (names, next) = memo::page_below(folder, token.as_deref(), || {
                store.page_below(&key, token.clone())
            })?;
            let mut entries = names.into_iter().map(|name| FolderEntry {
                name,
                kind: EntryKind::File,
                is_link: false,
            });
            if entries.any(|entry| see(entry).is_break()) || next.is_none() {
                return Ok(());
            }
            token = next;
        }
    })
}

/// All entries of a folder, in any order; an empty list if the folder does not exist.
///
/// # Errors
/// As [`visit`].
pub fn list(folder: &Path) -> io::Result<Vec<FolderEntry>> {
    let mut entries = Vec::new();
    visit(folder, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}
