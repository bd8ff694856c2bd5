//! Volumes that are a single file, TIFF or `.npy`, written plane by plane.
//!
//! Both formats are uncompressed, so the offset of every voxel is known before the first voxel is
//! written. Planes are written directly to their offsets in `<file>.voxloom/partial`, and a list
//! next to that file records which planes are complete. The file gets its final name when the list
//! contains all planes, or earlier if missing planes are accepted. Until then an interrupted run
//! can be resumed, also by several processes at the same time. Creating, replacing and renaming the
//! file must not overlap between processes, so they happen under a lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::{Begin, Error, Existing, Format, Spec, node, npy, tiff, unfinished};
use crate::device::waiting;
use crate::files::{self, SyncStep as _};
use crate::store::{self, ReadRange};

/// A file being written. Planes written by this process are added to the list after they are synced
/// to disk.
pub(super) struct PlaneFile(Arc<PlaneFileState>);

struct PlaneFileState {
    target: PathBuf,
    folder: PathBuf,
    file: File,
    offset: u64,
    plane: u64,
    planes: usize,
    /// Planes that are written but not yet in the list, as half-open ranges: first and end.
    written: Mutex<Vec<[usize; 2]>>,
}

/// The name of the lock file.
const LOCK: &str = "lock";
/// The name of the file until it gets its final name.
const PARTIAL_NAME: &str = "partial";
/// The name of the list of complete planes.
const PLANES: &str = "planes";

/// The name of the JSON file for the volume's attributes.
pub(super) const ATTRIBUTES: &str = "attributes.json";

/// Prefixes of the names of the files in the folder `<file>.voxloom` of a single-file volume,
/// except for the partial file and the ledger.
pub const PLANE_FILE_PREFIXES: [&str; 3] = [PLANES, ATTRIBUTES, LOCK];

/// Whether the single-file volume that is written through `folder` is incomplete: it has no final
/// name yet, or is marked as unfinished.
pub fn is_partial_file(folder: &Path) -> bool {
    let is_marked =
        |attributes: &Map<String, Value>| attributes.contains_key(unfinished::UNFINISHED_ATTRIBUTE);
    let attributes = node::read_object(&folder.join(ATTRIBUTES));
    // if the attributes cannot be read, assume that the volume is incomplete
    folder.join(PARTIAL_NAME).is_file()
        || attributes.map_or(true, |found| found.as_ref().is_some_and(is_marked))
}

/// The folder next to `target` for its partial file, list of planes, lock and ledger.
pub(super) fn folder_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".voxloom");
    target.with_file_name(name)
}

/// The bytes of a file before its first plane.
fn head(spec: &Spec) -> Vec<u8> {
    match spec.format {
        Format::Npy => npy::header(&spec.grid, spec.dtype),
        _ => tiff::Plan::new(&spec.grid, spec.dtype).head,
    }
}

impl PlaneFile {
    pub(super) fn create(
        location: &str,
        target: &Path,
        spec: &Spec,
        run: &impl Begin,
    ) -> Result<Self, Error> {
        let folder = folder_of(target);
        let partial = folder.join(PARTIAL_NAME);
        let head = head(spec);
        let plane = (spec.grid.shape[1] * spec.grid.shape[2] * spec.dtype.size()) as u64;
        let total = head.len() as u64 + plane * spec.grid.shape[0] as u64;
        if target.is_dir() {
            return Err(Error::format(location, "is a folder; give the name of a file"));
        }
        let existing = run.existing(&folder)?;
        if existing == Existing::Refuse && (target.exists() || partial.exists()) {
            return Err(Error::Exists { location: location.to_owned() });
        }
        // check before the first write, so that a refused file is unchanged
        if target.exists() {
            if existing == Existing::Overwrite {
                check_removal(location, target)?;
            } else {
                check(location, target, &head, total)?;
            }
        }
        let lock = PlaneFileLock::take(&folder)?;
        if existing == Existing::Overwrite {
            store::delete(target).map_err(|source| Error::io("write", target, source))?;
            clear(&folder)?;
        }
        let found = [target, &partial].into_iter().find(|path| path.exists()).map(Path::to_owned);
        if let Some(path) = &found {
            check(location, path, &head, total)?;
        } else {
            // if neither file exists, a ledger in the folder describes a file that was deleted
            clear(&folder)?;
        }
        run.claim(&folder)?;
        let path = if let Some(path) = found {
            path
        } else {
            begin(&folder, &partial, &head, total)?;
            partial
        };
        store::sweep(&folder);
        let file = File::options().write(true).open(&path);
        let file = file.map_err(|source| Error::io("write", &path, source))?;
        drop(lock);
        let offset = head.len() as u64;
        let target = target.to_owned();
        let (planes, written) = (spec.grid.shape[0], Mutex::default());
        Ok(Self(Arc::new(PlaneFileState { target, folder, file, offset, plane, planes, written })))
    }

    /// The folder for ledgers.
    pub(super) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Writes plane `z`, given in little-endian byte order, at its offset.
    pub(super) fn store(&self, z: u64, bytes: &[u8]) -> Result<(), Error> {
        let PlaneFileState { file, offset, plane, target, .. } = &*self.0;
        let written = waiting(|| file.write_all_at(bytes, offset + z * plane));
        written.map_err(|source| Error::io("write", target, source))
    }

    /// Records planes `first..end` as written, and renames the file when all planes are complete.
    pub(super) fn enter(&self, first: i64, end: i64) -> Result<(), Error> {
        let work = &self.0;
        work.written().push([first, end].map(|z| z as usize));
        let listed = work.listed().map_err(|source| work.failed(source))?;
        let mut known = listed.into_iter().chain(work.written().clone());
        if files::syncs() && !work.are_all(&mut known) {
            files::queue_step(Arc::clone(work) as Arc<dyn files::SyncStep>);
            return Ok(());
        }
        let folders = work.sync_pending().map_err(|source| work.failed(source))?;
        folders.iter().for_each(|folder| files::queue_folder(folder));
        Ok(())
    }

    /// Gives the file its final name even if planes are missing; missing planes read as 0.
    pub(super) fn name(&self) -> Result<(), Error> {
        let work = &self.0;
        let named = work.sync_pending().and_then(|folders| work.name().map(|()| folders));
        let folders = named.map_err(|source| work.failed(source))?;
        folders.iter().for_each(|folder| files::queue_folder(folder));
        Ok(())
    }
}

impl Drop for PlaneFile {
    fn drop(&mut self) {
        // a run has synced its files before this; for other callers an error can only be logged
        if let Err(error) = self.0.sync_pending() {
            tracing::warn!("{}", self.0.failed(error));
        }
    }
}

impl PlaneFileState {
    fn written(&self) -> MutexGuard<'_, Vec<[usize; 2]>> {
        // a panic in another thread cannot leave the list half changed
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io("write", &self.target, source)
    }

    fn list(&self) -> PathBuf {
        self.folder.join(PLANES)
    }

    /// The ranges of planes in the list on disk, as first plane and end.
    fn listed(&self) -> io::Result<Vec<[usize; 2]>> {
        let text = match fs::read_to_string(self.list()) {
            Err(error) if store::is_missing(&error) => String::new(),
            other => other?,
        };
        let range = |line: &str| {
            let (first, end) = line.split_once(' ')?;
            Some([first.parse().ok()?, end.parse().ok()?])
        };
        Ok(text.lines().filter_map(range).collect())
    }

    fn name(&self) -> io::Result<()> {
        let _lock = PlaneFileLock::take(&self.folder).map_err(io::Error::other)?;
        match fs::rename(self.folder.join(PARTIAL_NAME), &self.target) {
            // another process or an earlier run has renamed it
            Err(error) if store::is_missing(&error) && self.target.exists() => Ok(()),
            other => other,
        }
    }

    fn are_all(&self, ranges: &mut dyn Iterator<Item = [usize; 2]>) -> bool {
        let mut done = vec![false; self.planes];
        for [first, end] in ranges {
            if let Some(done) = done.get_mut(first..end) {
                done.fill(true);
            }
        }
        !done.contains(&false)
    }
}

impl files::SyncStep for PlaneFileState {
    fn path(&self) -> &Path {
        &self.target
    }

    /// Syncs the data first, then appends to the list, then renames the file if the list contains
    /// all planes.
    fn sync_pending(&self) -> io::Result<[PathBuf; 2]> {
        let above = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folders = [self.folder.clone(), above.unwrap_or(Path::new(".")).to_owned()];
        let mut written = self.written();
        if written.is_empty() {
            return Ok(folders);
        }
        files::sync(&self.file)?;
        let line = |[first, end]: &[usize; 2]| format!("{first} {end}\n");
        let text = written.iter().map(line).collect::<Vec<_>>().concat();
        let mut list = File::options().append(true).create(true).open(self.list())?;
        // a single short append is not interleaved with those of other processes
        list.write_all(text.as_bytes())?;
        files::finish(list)?;
        written.clear();
        if self.are_all(&mut self.listed()?.into_iter()) {
            self.name()?;
        }
        Ok(folders)
    }
}

/// A lock against other processes that create, replace or rename the file. Planes are written
/// without it.
struct PlaneFileLock(#[expect(dead_code, reason = "held, not read")] File);

impl PlaneFileLock {
    fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(LOCK);
        let take = || -> io::Result<File> {
            fs::create_dir_all(folder)?;
            let file = File::options().append(true).create(true).open(&path)?;
            match file.lock() {
                // the file system has no locks: simultaneous creation cannot be prevented
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                taken => taken?,
            }
            Ok(file)
        };
        take().map(Self).map_err(|source| Error::io("lock", &path, source))
    }
}

/// Creates the file at its full length.
fn begin(folder: &Path, partial: &Path, head: &[u8], total: u64) -> Result<(), Error> {
    let name = store::temporary(folder);
    let make = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(&name)?;
        file.write_all(head)?;
        file.set_len(total)?;
        files::finish(file)?;
        fs::rename(&name, partial)?;
        files::queue_folder(folder);
        Ok(())
    };
    make().map_err(|source| {
        let _ = fs::remove_file(&name);
        Error::io("create", partial, source)
    })
}

/// Checks that an existing file has the wanted header and length.
fn check(location: &str, path: &Path, head: &[u8], total: u64) -> Result<(), Error> {
    let mut found = Vec::new();
    let wanted = ReadRange::Range { start: 0, length: head.len() };
    let read = store::read(path, wanted, &mut found);
    let size = read.map_err(|source| Error::io("read", path, source))?;
    if size == Some(total) && found == head {
        return Ok(());
    }
    let message = "cannot be resumed: what is there has another shape, type or voxel size; give \
                   --overwrite to replace it";
    Err(Error::format(location, message))
}

/// Checks that an existing file may be replaced: only TIFF and `.npy` files may.
fn check_removal(location: &str, target: &Path) -> Result<(), Error> {
    let mut start = Vec::new();
    match store::read(target, ReadRange::Range { start: 0, length: 6 }, &mut start) {
        Ok(None) => Ok(()),
        Ok(Some(_)) if start.starts_with(npy::MAGIC) || tiff::is_tiff(&start) => Ok(()),
        Ok(_) => {
            let message = "is a file that is neither TIFF nor .npy; it is not replaced, give \
                           another name";
            Err(Error::format(location, message))
        }
        Err(source) => Err(Error::io("read", target, source)),
    }
}

/// Empties the folder, except for the lock file, which other processes may be waiting for.
fn clear(folder: &Path) -> Result<(), Error> {
    let failed = |source| Error::io("write", folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.ends_with(LOCK) {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(failed)?;
        } else {
            store::delete(&path).map_err(failed)?;
        }
    }
    Ok(())
}
