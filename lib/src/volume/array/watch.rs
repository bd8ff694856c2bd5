//! Detection of inputs that are deleted or replaced while they are read.
//!
//! A missing chunk reads as the fill value, so an input that is being deleted would read as zeros.
//! Whenever a chunk is missing, and again at the end of a run, two things are checked: the array's
//! metadata file is still the file that was opened (or another file with the same content), and
//! the first chunk that was found still exists. At the end of a run, the files that the
//! fingerprint examines (usually up to 1024, in a bucket up to 64) must also have their original
//! length and, unless they are chunks, their original modification time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::store::{self, Stat};
use crate::volume::content::{self, FileState};
use crate::volume::node::Node;
use crate::volume::source::Source;
use crate::volume::{Error, open, path_of, unfinished};

/// The state of an input when it was opened, with which its later state is compared.
#[derive(Debug)]
pub struct Watch {
    location: String,
    /// The metadata file of an array, or the file that is the volume.
    file: PathBuf,
    seen: Option<Stat>,
    /// The metadata of an array without its attributes, which are allowed to change.
    metadata: Option<Map<String, Value>>,
    /// The first chunk that was found.
    chunk: OnceLock<PathBuf>,
    /// The state of the sampled files of chunks and images when reading began.
    files: OnceLock<Vec<FileState>>,
    /// When [`Watch::check_periodically`] last found no change.
    last_check: Mutex<Option<Instant>>,
}

/// Minimum interval between two checks by [`Watch::check_periodically`] in a bucket, where each
/// check takes two requests. [`Watch::check`] at the end of a run does not depend on it.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

impl Watch {
    /// Watches a file that is the whole volume.
    pub(in crate::volume) fn file(location: &str, file: &Path) -> Self {
        let (location, file) = (location.to_owned(), file.to_owned());
        let seen = store::stat_file(&file).ok().flatten();
        let (chunk, files, last_check) = (OnceLock::new(), OnceLock::new(), Mutex::default());
        Self { location, file, seen, metadata: None, chunk, files, last_check }
    }

    /// Watches the metadata file of an array.
    pub(in crate::volume) fn array(location: &str, node: &Node) -> Self {
        let metadata = Some(array_part(node));
        Self { metadata, ..Self::file(location, &node.metadata_file()) }
    }

    /// Watches an array or file that is about to be read, and records the state of its files.
    pub(in crate::volume) fn of(location: &str, path: &Path, source: &dyn Source) -> Arc<Self> {
        let watch = source.watch().unwrap_or_else(|| Arc::new(Self::file(location, path)));
        if watch.files.get().is_none() {
            // errors are ignored here, because reading reports them; if another thread has set
            // `files` first, it has set the same value
            let _ = watch.files.set(source.stored().file_states().unwrap_or_default());
        }
        watch
    }

    /// Records that the file `chunk` exists.
    pub(in crate::volume) fn found(&self, chunk: &Path) {
        if self.chunk.get().is_none() {
            // another thread may have set a chunk in the meantime, which serves equally well
            let _ = self.chunk.set(chunk.to_owned());
        }
    }

    fn changed<T>(&self, what: &str, path: &Path) -> Result<T, Error> {
        let message = format!(
            "{what} while it was read ({}); what was read of it is not to be trusted, run again \
             when it is there and nobody writes to it",
            path.display()
        );
        Err(Error::format(&self.location, message))
    }

    /// Quick check that the input is unchanged, from its metadata file and one chunk. In a bucket,
    /// the check is skipped within [`CHECK_INTERVAL`] of the last one.
    ///
    /// # Errors
    /// [`Error::Format`], which names what was deleted or changed; [`Error::Io`].
    pub(in crate::volume) fn check_periodically(&self) -> Result<(), Error> {
        let last_check = || self.last_check.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = last_check().is_some_and(|at| at.elapsed() < CHECK_INTERVAL);
        if is_recent && store::is_remote(&self.file) {
            return Ok(());
        }
        self.check_file()?;
        *last_check() = Some(Instant::now());
        Ok(())
    }

    fn check_file(&self) -> Result<(), Error> {
        store::forget();
        let changed = |what, path| self.changed(what, path);
        let now =
            store::stat_file(&self.file).map_err(|source| Error::io("read", &self.file, source))?;
        if now.is_none() && self.seen.is_some() {
            return changed("went away", &self.file);
        }
        if now != self.seen {
            let folder = self.file.parent().unwrap_or(Path::new(""));
            let same = match &self.metadata {
                Some(metadata) => {
                    Node::read(folder)?.is_some_and(|node| array_part(&node) == *metadata)
                }
                None => false,
            };
            if !same {
                return changed("changed", &self.file);
            }
        }
        match self.chunk.get() {
            Some(chunk) if !store::exists(chunk) => changed("lost chunks", chunk),
            _ => Ok(()),
        }
    }

    /// Checks that the input is unchanged: its metadata, and the sampled files of its chunks.
    ///
    /// # Errors
    /// [`Error::Format`], which names what was deleted or changed; [`Error::Io`].
    pub fn check(&self) -> Result<(), Error> {
        self.check_file()?;
        let before = self.files.get().map_or(&[][..], Vec::as_slice);
        let is_remote = before.first().is_some_and(|seen| store::is_remote(&seen.path));
        let at_once = if is_remote { content::MAX_REQUESTS as usize } else { 1 };
        let now = store::concurrently(before, at_once, FileState::now);
        for (seen, now) in before.iter().zip(now) {
            let path = &seen.path;
            match (&seen.stat, now?) {
                (Some(_), None) if seen.is_whole => return self.changed("lost a file", path),
                (Some(_), None) => return self.changed("lost chunks", path),
                // a reader of an unfinished array expects chunks to be added
                (None, Some(_)) if unfinished::is_allowed() => {}
                (before, now) if *before != now => return self.changed("changed", path),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Watches the array in a folder, such as a displacement field; `None` for anything else.
pub fn watch(location: &str) -> Option<Arc<Watch>> {
    let path = path_of(location).ok().filter(|path| may_be_folder(path))?;
    let found = open::find(location).ok()?;
    Some(Watch::of(location, &path, &*found.source))
}

/// Whether a location may be a folder. This is assumed on a web server, where folders cannot be
/// listed.
fn may_be_folder(path: &Path) -> bool {
    !store::is_listable(path) || store::is_folder(path)
}

/// The metadata that chunks depend on, without the attributes that N5 stores in the same object.
fn array_part(node: &Node) -> Map<String, Value> {
    const N5: [&str; 4] = ["dimensions", "blockSize", "dataType", "compression"];
    let mut metadata = node.metadata.clone();
    if N5[..2].iter().all(|key| metadata.contains_key(*key)) {
        metadata.retain(|key, _| N5.contains(&key.as_str()));
    }
    metadata
}
