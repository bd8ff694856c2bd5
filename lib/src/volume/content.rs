//! Fingerprints of the content of arrays, by which a run recognizes its inputs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Error, open, store};
use crate::fingerprint::Fingerprint;

/// The maximum number of files of an array that are examined.
const FILES: u64 = 1024;
/// Files of up to this many bytes in total are hashed completely.
const WHOLE: u64 = 64 << 20;

/// How an array is stored: the format of its bytes, and the files that hold them.
pub(super) struct Stored<'a> {
    /// Everything that determines the meaning of the bytes: type, codecs, order, fill value.
    pub(super) form: String,
    /// The number of files, including those of chunks that are not stored.
    pub(super) count: u64,
    /// The path of file number `i`, for `i` below `count`.
    pub(super) file: Box<dyn Fn(u64) -> PathBuf + 'a>,
}

impl<'a> Stored<'a> {
    /// An array stored in these files.
    pub(super) fn in_files(form: String, files: Vec<PathBuf>) -> Self {
        Self { form, count: files.len() as u64, file: Box::new(move |i| files[i as usize].clone()) }
    }

    /// An array stored in one file per chunk; `file` gives the path for a chunk's index.
    ///
    /// * `shape`, `chunk`: elements along each dimension, of the array and of one file
    pub(super) fn in_chunks(
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
        Self { form, count, file: Box::new(at) }
    }

    /// Up to [`FILES`] of the files with their numbers, evenly spread.
    fn sample(&self) -> impl Iterator<Item = (u64, PathBuf)> {
        let looked_at = self.count.min(FILES);
        (0..looked_at).map(move |i| {
            let number = (u128::from(i) * u128::from(self.count) / u128::from(looked_at)) as u64;
            (number, (self.file)(number))
        })
    }

    /// The length in bytes of each file of [`Stored::sample`]; `None` if it is not stored.
    ///
    /// # Errors
    /// [`Error::Io`] for a file whose metadata cannot be read.
    pub(super) fn lengths(&self) -> Result<Vec<(PathBuf, Option<u64>)>, Error> {
        let length = |(_, path): (u64, PathBuf)| {
            let length = length(&path)?;
            Ok((path, length))
        };
        self.sample().map(length).collect()
    }

    /// The fingerprint of the array's content; the paths of its files are not part of it.
    ///
    /// An array of up to [`FILES`] files and [`WHOLE`] bytes is hashed completely. Of a larger one,
    /// the size and modification time of [`FILES`] evenly spread files are hashed, so that a
    /// rewritten array is recognized without reading it.
    ///
    /// # Errors
    /// [`Error::Io`] for an existing file that cannot be read.
    pub(super) fn fingerprint(&self) -> Result<String, Error> {
        let mut found = Vec::new();
        for (number, path) in self.sample() {
            if let Some(about) = about(&path)? {
                found.push((number, path, about));
            }
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(self.form.as_bytes()).add_counts([self.count]);
        let bytes = found.iter().fold(0u64, |sum, (_, _, about)| sum.saturating_add(about.len()));
        let whole = self.count <= FILES && bytes <= WHOLE;
        for (number, path, about) in found {
            fingerprint.add_counts([number, about.len()]);
            if whole {
                let content = fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
                fingerprint.add(&content);
            } else {
                let changed =
                    about.modified().map_err(|source| Error::io("read", &path, source))?;
                let changed = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                fingerprint.add(&changed.as_nanos().to_le_bytes());
            }
        }
        Ok(fingerprint.hex())
    }
}

fn about(path: &Path) -> Result<Option<fs::Metadata>, Error> {
    match fs::metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(error) if store::is_missing(&error) => Ok(None),
        Err(source) => Err(Error::io("read", path, source)),
    }
}

/// The length of a file in bytes; `None` if it does not exist.
///
/// # Errors
/// [`Error::Io`] for a file whose metadata cannot be read.
pub(super) fn length(path: &Path) -> Result<Option<u64>, Error> {
    Ok(about(path)?.map(|about| about.len()))
}

/// The fingerprint of the content of one file, such as a table or a transform, or of the array in a
/// folder. Of large ones, only size and modification time are used; see `docs/formats.md`,
/// "Receipts".
///
/// # Errors
/// [`Error`]: nothing there, or not an array.
pub fn fingerprint(location: &str) -> Result<String, Error> {
    let path = store::path_of(location)?;
    match fs::metadata(&path) {
        Ok(about) if about.is_dir() => open::find(location)?.source.stored().fingerprint(),
        Ok(_) => Stored::in_files(String::new(), vec![path]).fingerprint(),
        Err(source) => Err(Error::io("read", &path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_and_its_place_does_not() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let of = |folder: &tempfile::TempDir| {
            let path = folder.path().to_owned();
            let file = move |at: &[u64]| path.join(format!("{}.{}", at[0], at[1]));
            Stored::in_chunks("uint8".into(), &[5, 4], &[2, 4], file).fingerprint().unwrap()
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
        let stored = Stored::in_chunks(String::new(), &[10 * FILES + 3], &[1], file);
        stored.fingerprint().unwrap();
        drop(stored);
        let seen = seen.into_inner();
        assert_eq!((seen.len() as u64, seen[0]), (FILES, 0));
        assert!(seen.is_sorted_by(|a, b| (10..=11).contains(&(b - a))), "{seen:?}");
    }

    #[test]
    fn a_large_file_counts_by_size_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let file = fs::File::create(&path).unwrap();
        file.set_len(WHOLE + 1).unwrap();
        let of = || super::fingerprint(&path.to_string_lossy()).unwrap();
        let before = of();
        assert_eq!(of(), before);
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(of(), before);
    }
}
