//! Volumes that are one file, TIFF or `.npy`, written plane by plane.
//!
//! Both are uncompressed, so that the place of every voxel is known before the first is written:
//! planes go straight to their places in `<file>.voxloom/partial`, and a list beside it says which
//! are there. The file takes its name when the list is full, so that a file of that name is whole;
//! until then a killed run is resumed, also by several processes at once. What must not happen twice at
//! once, to begin, to replace and to name the file, is done under a lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::{Begin, Error, Existing, Format, Spec, node, npy, store, tiff, unfinished};
use crate::device::waiting;
use crate::files::{self, Settle as _};

/// A file being written. The list gets what this process has written once it is on the disk.
pub(super) struct PlaneFile(Arc<Work>);

struct Work {
    target: PathBuf,
    folder: PathBuf,
    file: File,
    offset: u64,
    plane: u64,
    planes: usize,
    /// Planes that are written and not in the list yet, from the first to before the second.
    written: Mutex<Vec<[usize; 2]>>,
}

/// The name of the file that is locked.
const LOCK: &str = "lock";
/// The name of the file while it lacks planes.
const PARTIAL: &str = "partial";
/// The name of the list of planes that are written.
const PLANES: &str = "planes";

/// The name of the attributes of the file.
pub(super) const ATTRIBUTES: &str = "attributes.json";

/// What is kept beside a file of planes for as long as it lacks some, by the beginnings of the names.
pub const BESIDE_A_FILE: [&str; 3] = [PLANES, ATTRIBUTES, LOCK];

/// Whether the file whose planes are written by way of `folder` lacks some: it has no name yet, or is marked.
pub fn is_of_half_a_file(folder: &Path) -> bool {
    let is_marked = |attributes: &Map<String, Value>| attributes.contains_key(unfinished::MARK);
    let attributes = node::read_object(&folder.join(ATTRIBUTES));
    // what cannot be read is kept
    folder.join(PARTIAL).is_file()
        || attributes.map_or(true, |found| found.as_ref().is_some_and(is_marked))
}

/// Where the work on a file is kept.
pub(super) fn folder_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".voxloom");
    target.with_file_name(name)
}

/// What a file of this kind begins with, up to its first plane.
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
        let partial = folder.join(PARTIAL);
        let head = head(spec);
        let plane = (spec.grid.shape[1] * spec.grid.shape[2] * spec.dtype.size()) as u64;
        let total = head.len() as u64 + plane * spec.grid.shape[0] as u64;
        if target.is_dir() {
            return Err(Error::format(location, "is a folder; give the name of a file"));
        }
        let existing = if run.is_shared(&folder) { Existing::Resume } else { run.existing() };
        if existing == Existing::Refuse && (target.exists() || partial.exists()) {
            return Err(Error::Exists { location: location.to_owned() });
        }
        // before anything is written
        if target.exists() {
            if existing == Existing::Overwrite {
                check_removal(location, target)?;
            } else {
                check(location, target, &head, total)?;
            }
        }
        let lock = Lock::take(&folder)?;
        if existing == Existing::Overwrite {
            store::remove_file(target)?;
            clear(&folder)?;
        }
        let found = [target, &partial].into_iter().find(|path| path.exists()).map(Path::to_owned);
        if let Some(path) = &found {
            check(location, path, &head, total)?;
        } else {
            // a ledger without its file speaks of one that was deleted
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
        Ok(Self(Arc::new(Work { target, folder, file, offset, plane, planes, written })))
    }

    /// Where ledgers go.
    pub(super) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Puts a plane, little endian, to its place.
    pub(super) fn store(&self, z: u64, bytes: &[u8]) -> Result<(), Error> {
        let Work { file, offset, plane, target, .. } = &*self.0;
        let written = waiting(|| file.write_all_at(bytes, offset + z * plane));
        written.map_err(|source| Error::io("write", target, source))
    }

    /// Takes planes as written, and names the file when all are there.
    pub(super) fn enter(&self, first: i64, end: i64) -> Result<(), Error> {
        let work = &self.0;
        work.written().push([first, end].map(|z| z as usize));
        let listed = work.listed().map_err(|source| work.failed(source))?;
        let mut known = listed.into_iter().chain(work.written().clone());
        if files::syncs() && !work.are_all(&mut known) {
            files::note_step(Arc::clone(work) as Arc<dyn files::Settle>);
            return Ok(());
        }
        let folders = work.settle().map_err(|source| work.failed(source))?;
        folders.iter().for_each(|folder| files::note_folder(folder));
        Ok(())
    }

    /// Gives the file its name though planes are missing: they are 0.
    pub(super) fn name(&self) -> Result<(), Error> {
        let work = &self.0;
        let named = work.settle().and_then(|folders| work.name().map(|()| folders));
        let folders = named.map_err(|source| work.failed(source))?;
        folders.iter().for_each(|folder| files::note_folder(folder));
        Ok(())
    }
}

impl Drop for PlaneFile {
    fn drop(&mut self) {
        // a run has settled before; others have nobody to tell
        if let Err(error) = self.0.settle() {
            tracing::warn!("{}", self.0.failed(error));
        }
    }
}

impl Work {
    fn written(&self) -> MutexGuard<'_, Vec<[usize; 2]>> {
        // a panic elsewhere leaves it whole
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io("write", &self.target, source)
    }

    fn list(&self) -> PathBuf {
        self.folder.join(PLANES)
    }

    /// What the list holds.
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
        let _lock = Lock::take(&self.folder).map_err(io::Error::other)?;
        match fs::rename(self.folder.join(PARTIAL), &self.target) {
            // another process, or an earlier run, has named it
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

impl files::Settle for Work {
    fn path(&self) -> &Path {
        &self.target
    }

    /// Data, then the list, then the name.
    fn settle(&self) -> io::Result<[PathBuf; 2]> {
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
        // one short write: appended whole, also beside other processes
        list.write_all(text.as_bytes())?;
        files::finish(list)?;
        written.clear();
        if self.are_all(&mut self.listed()?.into_iter()) {
            self.name()?;
        }
        Ok(folders)
    }
}

/// Keeps other processes from beginning, replacing or naming the file meanwhile. Planes are written without.
struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Lock {
    fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(LOCK);
        let take = || -> io::Result<File> {
            fs::create_dir_all(folder)?;
            let file = File::options().append(true).create(true).open(&path)?;
            match file.lock() {
                // a file system without locks: what is left is to hope that nobody begins at the same moment
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                taken => taken?,
            }
            Ok(file)
        };
        take().map(Self).map_err(|source| Error::io("lock", &path, source))
    }
}

/// Makes the file in full length.
fn begin(folder: &Path, partial: &Path, head: &[u8], total: u64) -> Result<(), Error> {
    let name = store::temporary(folder);
    let make = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(&name)?;
        file.write_all(head)?;
        file.set_len(total)?;
        files::finish(file)?;
        fs::rename(&name, partial)?;
        files::note_folder(folder);
        Ok(())
    };
    make().map_err(|source| {
        let _ = fs::remove_file(&name);
        Error::io("create", partial, source)
    })
}

/// Whether a file begun earlier is the one that is wanted.
fn check(location: &str, path: &Path, head: &[u8], total: u64) -> Result<(), Error> {
    let size = fs::metadata(path).map_err(|source| Error::io("read", path, source))?.len();
    let mut found = Vec::new();
    let read = store::read_range(path, 0, head.len(), &mut found);
    let read = read.map_err(|source| Error::io("read", path, source))?;
    if read == Some(true) && found == head && size == total {
        return Ok(());
    }
    let message = "cannot be resumed: what is there has another shape, type or voxel size; give \
                   --overwrite to replace it";
    Err(Error::format(location, message))
}

/// Whether a file may be replaced: a TIFF or `.npy` file, and nothing else.
fn check_removal(location: &str, target: &Path) -> Result<(), Error> {
    let mut start = Vec::new();
    match store::read_range(target, 0, 6, &mut start) {
        Ok(None) => Ok(()),
        Ok(Some(true)) if start.starts_with(npy::MAGIC) || tiff::is_tiff(&start) => Ok(()),
        Ok(_) => {
            let message = "is a file that is neither TIFF nor .npy; it is not replaced, give \
                           another name";
            Err(Error::format(location, message))
        }
        Err(source) => Err(Error::io("read", target, source)),
    }
}

/// Empties the folder; the lock stays, as others may wait for it.
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
            store::remove_file(&path)?;
        }
    }
    Ok(())
}
