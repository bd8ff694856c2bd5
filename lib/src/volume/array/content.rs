//! Fingerprints of the content of arrays, by which a run recognizes its inputs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::fingerprint::Fingerprint;
use crate::store::{self, EntryKind, Stat};
use crate::volume::{Error, open, path_of, sections};

/// The maximum number of files of an array that are examined.
const MAX_FILES: u64 = 1024;
/// The same limit in a bucket or on a web server, where each file takes one request. All requests
/// are sent at the same time.
pub(super) const MAX_REQUESTS: u64 = 64;
/// Files of up to this many bytes in total are hashed completely.
const MAX_HASHED_BYTES: u64 = 64 << 20;

/// How an array is stored: the format of its bytes, and the files that hold them.
pub(in crate::volume) struct StoredContent<'a> {
    /// Everything that determines the meaning of the bytes: type, codecs, order, fill value.
    pub(in crate::volume) form: String,
    /// The number of files, including those of chunks that are not stored.
    pub(in crate::volume) count: u64,
    /// The path of file number `i`, for `i` below `count`.
    pub(in crate::volume) file: Box<dyn Fn(u64) -> PathBuf + 'a>,
    /// Whether each file is an image that must not change while it is read, so that its
    /// modification time is compared too. Otherwise the files are chunks, of which only the
    /// existence and the length are compared.
    pub(in crate::volume) is_whole: bool,
    /// Whether all local files are examined, however many there are.
    pub(in crate::volume) looks_at_all: bool,
}

impl<'a> StoredContent<'a> {
    /// An array stored in these files.
    pub(in crate::volume) fn in_files(form: String, files: Vec<PathBuf>) -> Self {
        let count = files.len() as u64;
        let file = Box::new(move |i| files[i as usize].clone());
        Self { form, count, file, is_whole: true, looks_at_all: false }
    }

    /// An array stored in one file per chunk; `file` gives the path for a chunk's index.
    ///
    /// * `shape`, `chunk`: elements along each dimension, of the array and of one file
    pub(in crate::volume) fn in_chunks(
        form: String,
        shape: &[u64],
        chunk: &[u64],
        file: impl Fn(&[u64]) -> PathBuf + 'a,
    ) -> Self {
        let counts: Vec<u64> = shape.iter().zip(chunk).map(|(n, c)| n.div_ceil(*c)).collect();
        let count = counts.iter().fold(1, |product: u64, n| product.saturating_mul(*n));
        let at = move |mut number: u64| {
            let mut index = vec![0; counts.len()];
            for (place, count) in index.iter_mut().zip(&counts).rev() {
                *place = number % count;
                number /= count;
            }
            file(&index)
        };
        Self { form, count, file: Box::new(at), is_whole: false, looks_at_all: false }
    }

    /// The numbers and paths of the examined files: up to [`MAX_FILES`] local or [`MAX_REQUESTS`]
    /// remote files, evenly spread over all files, or all local files with `looks_at_all`.
    fn sample(&self) -> (Vec<u64>, Vec<PathBuf>) {
        if self.count == 0 {
            return Default::default();
        }
        let first = (self.file)(0);
        let examined = if store::is_remote(&first) {
            self.count.min(MAX_REQUESTS)
        } else if self.looks_at_all {
            self.count
        } else {
            self.count.min(MAX_FILES)
        };
        let number = |i| (u128::from(i) * u128::from(self.count) / u128::from(examined)) as u64;
        let numbers: Vec<u64> = (0..examined).map(number).collect();
        let others = numbers[1..].iter().map(|number| (self.file)(*number));
        let paths = std::iter::once(first).chain(others).collect();
        (numbers, paths)
    }

    /// The paths of up to `most` files, evenly spread over all files.
    pub(in crate::volume) fn paths(&self, most: u64) -> Vec<PathBuf> {
        let examined = self.count.min(most);
        let number = |i| (u128::from(i) * u128::from(self.count) / u128::from(examined)) as u64;
        (0..examined).map(|i| (self.file)(number(i))).collect()
    }

    /// The state of each file of [`StoredContent::sample`].
    ///
    /// # Errors
    /// [`Error::Io`] for a file whose metadata cannot be read.
    pub(in crate::volume) fn file_states(&self) -> Result<Vec<FileState>, Error> {
        let (_, paths) = self.sample();
        let is_whole = self.is_whole;
        let stats = each(&paths, |path| state(path, is_whole));
        let seen = |(path, stat): (PathBuf, _)| Ok(FileState { path, is_whole, stat: stat? });
        paths.into_iter().zip(stats).map(seen).collect()
    }

    /// The fingerprint of the array's content; the paths of its files are not part of it.
    ///
    /// An array of up to [`MAX_FILES`] files and [`MAX_HASHED_BYTES`] bytes is hashed completely.
    /// Of a larger array, the size and modification time of [`MAX_FILES`] evenly spread files (of
    /// all files with `looks_at_all`) are hashed, so that a rewritten array is recognized without
    /// reading it. In a bucket or on a web server, only an array of one file of up to
    /// [`MAX_HASHED_BYTES`] bytes is hashed completely; of other arrays, the sizes and entity tags
    /// (or modification times) of up to [`MAX_REQUESTS`] files are hashed.
    ///
    /// # Errors
    /// [`Error::Io`] for an existing file that cannot be read.
    pub(in crate::volume) fn fingerprint(&self) -> Result<String, Error> {
        let (numbers, paths) = self.sample();
        let mut found = Vec::new();
        for ((number, path), stat) in numbers.iter().zip(&paths).zip(each(&paths, stat)) {
            if let Some(stat) = stat? {
                found.push((*number, path, stat));
            }
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(self.form.as_bytes()).add_counts([self.count]);
        let bytes = found.iter().fold(0u64, |sum, (_, _, stat)| sum.saturating_add(stat.length));
        let most =
            if found.iter().any(|(_, path, _)| store::is_remote(path)) { 1 } else { MAX_FILES };
        let whole = self.count <= most && bytes <= MAX_HASHED_BYTES;
        for (number, path, stat) in found {
            fingerprint.add_counts([number, stat.length]);
            match version(path, &stat) {
                Some(version) if !whole => fingerprint.add(&version),
                _ => fingerprint.add(&content(path)?),
            };
        }
        Ok(fingerprint.hex())
    }
}

/// Applies `work` to the examined files: concurrently if the files are remote, because each file
/// then takes a request.
fn each<T: Send>(paths: &[PathBuf], work: impl Fn(&Path) -> T + Sync) -> Vec<T> {
    let is_remote = paths.iter().any(|path| store::is_remote(path));
    let at_once = if is_remote { MAX_REQUESTS as usize } else { 1 };
    store::concurrently(paths, at_once, |path| work(path))
}

/// The state of a file of an array.
#[derive(Debug)]
pub(in crate::volume) struct FileState {
    pub(in crate::volume) path: PathBuf,
    /// See [`StoredContent::is_whole`].
    pub(in crate::volume) is_whole: bool,
    /// Metadata of the file; `None` if the file does not exist.
    pub(in crate::volume) stat: Option<Stat>,
}

impl FileState {
    /// The current state of the file; `None` if the file does not exist.
    ///
    /// # Errors
    /// [`Error::Io`] for a file whose metadata cannot be read.
    pub(in crate::volume) fn now(&self) -> Result<Option<Stat>, Error> {
        state(&self.path, self.is_whole)
    }
}

/// The state of a file; if `is_whole` is false, only its kind and length.
fn state(path: &Path, is_whole: bool) -> Result<Option<Stat>, Error> {
    let stat = stat(path)?;
    Ok(stat.map(|stat| if is_whole { stat } else { Stat { changed: None, tag: None, ..stat } }))
}

/// The property by which a change of a file is recognized without reading the file: its entity tag
/// if the file is remote and has one, otherwise the time of its last change. `None` if neither is
/// known.
fn version(path: &Path, stat: &Stat) -> Option<Vec<u8>> {
    match &stat.tag {
        Some(tag) if store::is_remote(path) => Some(tag.as_bytes().to_vec()),
        _ => {
            let changed = stat.changed?.duration_since(SystemTime::UNIX_EPOCH);
            Some(changed.unwrap_or_default().as_nanos().to_le_bytes().to_vec())
        }
    }
}

fn content(path: &Path) -> Result<Vec<u8>, Error> {
    let content = store::get(path).map_err(|source| Error::io("read", path, source))?;
    content.ok_or_else(|| Error::missing(path.display(), "it was there a moment ago"))
}

fn stat(path: &Path) -> Result<Option<Stat>, Error> {
    store::stat_file(path).map_err(|source| Error::io("read", path, source))
}

/// The length of a file in bytes; `None` if it does not exist.
///
/// # Errors
/// [`Error::Io`] for a file whose metadata cannot be read.
pub(in crate::volume) fn length(path: &Path) -> Result<Option<u64>, Error> {
    Ok(stat(path)?.map(|stat| stat.length))
}

/// The fingerprint of the content of one file, such as a table or a transform, or of the array in a
/// folder. Of large files and arrays, only sizes and modification times are used; see
/// `docs/formats.md`, "Receipts".
///
/// # Errors
/// [`Error`] if nothing exists at `location`, or it is a folder that is not an array.
pub fn fingerprint(location: &str) -> Result<String, Error> {
    let path = path_of(location)?;
    let there = store::stat(&path).map_err(|source| Error::io("read", &path, source))?;
    match there.map(|stat| stat.kind) {
        Some(EntryKind::File) if sections::is_table(&path) => {
            open::find(location)?.source.stored().fingerprint()
        }
        Some(EntryKind::File) => StoredContent::in_files(String::new(), vec![path]).fingerprint(),
        // a web server does not tell whether there is a folder
        None if store::is_listable(&path) => {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            Err(Error::io("read", &path, source))
        }
        _ => open::find(location)?.source.stored().fingerprint(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn content_counts_and_its_place_does_not() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let of = |folder: &tempfile::TempDir| {
            let path = folder.path().to_owned();
            let file = move |at: &[u64]| path.join(format!("{}.{}", at[0], at[1]));
            StoredContent::in_chunks("uint8".into(), &[5, 4], &[2, 4], file).fingerprint().unwrap()
        };
        for folder in &folders {
            fs::write(folder.path().join("0.0"), [1, 2]).unwrap();
            fs::write(folder.path().join("2.0"), [3]).unwrap();
        }
        assert_eq!(of(&folders[0]), of(&folders[1]));
        let before = of(&folders[0]);
        fs::rename(folders[0].path().join("2.0"), folders[0].path().join("1.0")).unwrap();
        assert_ne!(of(&folders[0]), before, "a chunk that moved");
        fs::write(folders[1].path().join("2.0"), [4]).unwrap();
        assert_ne!(of(&folders[1]), before, "a voxel that changed");
        fs::remove_file(folders[1].path().join("2.0")).unwrap();
        assert_ne!(of(&folders[1]), before, "a chunk that went away");
    }

    #[test]
    fn of_many_files_those_looked_at_are_spread_over_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let seen = std::cell::RefCell::new(Vec::new());
        let file = |at: &[u64]| {
            seen.borrow_mut().push(at[0]);
            path.join(at[0].to_string())
        };
        let stored = StoredContent::in_chunks(String::new(), &[10 * MAX_FILES + 3], &[1], file);
        stored.fingerprint().unwrap();
        drop(stored);
        let seen = seen.into_inner();
        assert_eq!((seen.len() as u64, seen[0]), (MAX_FILES, 0));
        assert!(seen.is_sorted_by(|a, b| (10..=11).contains(&(b - a))), "{seen:?}");
    }

    #[test]
    fn a_large_file_counts_by_size_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let file = fs::File::create(&path).unwrap();
        file.set_len(MAX_HASHED_BYTES + 1).unwrap();
        let of = || super::fingerprint(&path.to_string_lossy()).unwrap();
        let before = of();
        assert_eq!(of(), before);
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(of(), before);
    }
}
