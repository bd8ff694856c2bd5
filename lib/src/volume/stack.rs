//! Stacks of 2-D images: one file per plane, in natural order of the file names.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::calibration::Calibration;
use super::{Error, png, tiff};
use crate::store::{self, EntryKind};

/// The files that match a pattern such as `'sections/*.png'`, in natural order (2 before 10).
pub(super) fn files(location: &str) -> Result<Vec<PathBuf>, Error> {
    let paths = glob::glob(location)
        .map_err(|error| Error::format(location, format!("is no pattern: {error}")))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let folder = error.path().to_owned();
            Error::io("read", folder, error.into())
        })?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::missing(location, "no file matches the pattern"));
    }
    files.sort_by(|a, b| natord::compare(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(files)
}

/// The images of a folder, in natural order.
pub(super) struct Images {
    pub(super) files: Vec<PathBuf>,
    /// Messages about other files and folders in the folder, which were ignored.
    pub(super) notes: Vec<String>,
}

/// The files in a local folder with the extension of TIFF or PNG; `None` if there are none.
///
/// # Errors
/// [`Error::Format`] for a folder with files of both kinds; [`Error::Io`].
pub(super) fn in_folder(folder: &Path) -> Result<Option<Images>, Error> {
    if store::is_remote(folder) || !store::is_folder(folder) {
        return Ok(None);
    }
    let (mut found, mut others) = ([Vec::new(), Vec::new()], 0);
    let entries = store::list(folder).map_err(|source| Error::io("read", folder, source))?;
    let is_shown = |name: &str| !name.starts_with('.') && !name.ends_with(".voxloom");
    for entry in entries.into_iter().filter(|entry| is_shown(&entry.name)) {
        let path = folder.join(&entry.name);
        let extension =
            path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("tif" | "tiff") if entry.kind == EntryKind::File => found[0].push(path),
            Some("png") if entry.kind == EntryKind::File => found[1].push(path),
            _ => others += 1,
        }
    }
    if found.iter().all(|files| !files.is_empty()) {
        let message = format!(
            "is a folder of {} TIFF and {} PNG files; choose some with a pattern such as '{}/*.png'",
            found[0].len(),
            found[1].len(),
            folder.display()
        );
        return Err(Error::format(folder.display(), message));
    }
    let mut files = found.concat();
    files.sort_by(|a, b| natord::compare(&a.to_string_lossy(), &b.to_string_lossy()));
    let ignored = || format!("{others} other files and folders in it are ignored");
    let notes = (others > 0).then(ignored).into_iter().collect();
    Ok((!files.is_empty()).then_some(Images { files, notes }))
}

/// Opens a stack and names its dimensions.
pub(super) fn open(location: &str, files: Vec<PathBuf>) -> Result<tiff::Opened, Error> {
    let mut start = [0; 4];
    let first = &files[0];
    let read = File::open(first).and_then(|mut file| file.read_exact(&mut start));
    read.map_err(|source| Error::io("read", first, source))?;
    if start != png::MAGIC {
        return tiff::open_stack(location, files);
    }
    let (source, names) = png::PngStack::open(location, files)?;
    Ok((Box::new(source), names, Calibration::unknown("PNG files do not say")))
}
