//! Detection of inputs that are deleted or replaced while they are read.
//!
//! A missing chunk reads as the fill value, so an input that is being deleted would read as zeros.
//! Whenever a chunk is missing, and once more at the end of a run, two things are checked: the
//! array's metadata file is still the one that was opened (or another one with the same content),
//! and the first chunk that was found still exists. At the end of a run, the files that the
//! fingerprint samples (all chunks of an array of up to a thousand) must also have their original
//! length.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::content;
use super::node::Node;
use super::source::Source;
use super::{Error, open, store, unfinished};

/// The remembered state of an input.
#[derive(Debug)]
pub struct Watch {
    location: String,
    /// The metadata file of an array, or the file that is the volume.
    file: PathBuf,
    seen: Option<Seen>,
    /// The metadata of an array without its attributes, which may change.
    metadata: Option<Map<String, Value>>,
    /// The first chunk that was found.
    chunk: OnceLock<PathBuf>,
    /// The paths and lengths of chunk files; `None` for chunks that are not stored.
    lengths: OnceLock<Vec<(PathBuf, Option<u64>)>>,
}

/// The properties by which a file is recognized.
#[derive(Debug, PartialEq)]
struct Seen {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl Seen {
    fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(about) => Ok(Some(Self {
                inode: about.ino(),
                length: about.len(),
                modified: about.modified().ok(),
            })),
            Err(error) if store::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Watch {
    /// Watches a file that is the whole volume.
    pub(super) fn file(location: &str, file: &Path) -> Self {
        let (location, file) = (location.to_owned(), file.to_owned());
        let seen = Seen::of(&file).ok().flatten();
        let (chunk, lengths) = (OnceLock::new(), OnceLock::new());
        Self { location, file, seen, metadata: None, chunk, lengths }
    }

    /// Watches an array.
    pub(super) fn array(location: &str, node: &Node) -> Self {
        let metadata = Some(array_part(node));
        Self { metadata, ..Self::file(location, &node.metadata_file()) }
    }

    /// Watches an array or file that is about to be read, and records the lengths of its files.
    pub(super) fn of(location: &str, path: &Path, source: &dyn Source) -> Arc<Self> {
        let watch = source.watch().unwrap_or_else(|| Arc::new(Self::file(location, path)));
        if watch.lengths.get().is_none() {
            // errors are ignored here, as reading will report them; if another thread has set the
            // lengths first, they are the same
            let _ = watch.lengths.set(source.stored().lengths().unwrap_or_default());
        }
        watch
    }

    /// Notes a chunk that exists.
    pub(super) fn found(&self, chunk: &Path) {
        if self.chunk.get().is_none() {
            // another thread may have been first: any chunk will do
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

    /// Quick check that the input is unchanged, from its metadata file and one chunk.
    ///
    /// # Errors
    /// [`Error::Format`], which names what was deleted or changed.
    pub(super) fn glance(&self) -> Result<(), Error> {
        let changed = |what, path| self.changed(what, path);
        let now = Seen::of(&self.file).map_err(|source| Error::io("read", &self.file, source))?;
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
            Some(chunk) if !chunk.exists() => changed("lost chunks", chunk),
            _ => Ok(()),
        }
    }

    /// Checks that the input is unchanged: its metadata, and the sampled files of its chunks.
    ///
    /// # Errors
    /// [`Error::Format`], which names what was deleted or changed; [`Error::Io`].
    pub fn check(&self) -> Result<(), Error> {
        self.glance()?;
        for (path, before) in self.lengths.get().into_iter().flatten() {
            match (before, content::length(path)?) {
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
    let path = store::path_of(location).ok().filter(|path| path.is_dir())?;
    let found = open::find(location).ok()?;
    Some(Watch::of(location, &path, &*found.source))
}

/// The metadata that chunks depend on. N5 stores attributes in the same object; they are left out.
fn array_part(node: &Node) -> Map<String, Value> {
    const N5: [&str; 4] = ["dimensions", "blockSize", "dataType", "compression"];
    let mut metadata = node.metadata.clone();
    if N5[..2].iter().all(|key| metadata.contains_key(*key)) {
        metadata.retain(|key, _| N5.contains(&key.as_str()));
    }
    metadata
}
