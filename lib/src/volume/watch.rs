//! Inputs that go away, or are made anew, while they are read.
//!
//! A chunk that is not stored reads as the fill value, so that an input which is being deleted would
//! read as zeros. What is looked at instead, wherever a chunk is missing and once more at the end of a
//! run: the file of the array's metadata is the one that was opened (another one with the same
//! content will do), and the first chunk that was found is still there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::node::Node;
use super::{Error, store};

/// What is remembered of an input.
#[derive(Debug)]
pub struct Watch {
    location: String,
    /// The file of its metadata, or its file.
    file: PathBuf,
    seen: Option<Seen>,
    /// The metadata of an array; attributes may change meanwhile.
    metadata: Option<Map<String, Value>>,
    /// The first chunk that was found.
    chunk: OnceLock<PathBuf>,
}

/// What makes a file the same file.
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
    /// Of a file that is the whole volume.
    pub(super) fn file(location: &str, file: &Path) -> Self {
        let (location, file) = (location.to_owned(), file.to_owned());
        let seen = Seen::of(&file).ok().flatten();
        Self { location, file, seen, metadata: None, chunk: OnceLock::new() }
    }

    /// Of an array.
    pub(super) fn array(location: &str, node: &Node) -> Self {
        let metadata = Some(array_part(node));
        Self { metadata, ..Self::file(location, &node.metadata_file()) }
    }

    /// Notes a chunk that is there.
    pub(super) fn found(&self, chunk: &Path) {
        if self.chunk.get().is_none() {
            // another thread may have been faster: any chunk will do
            let _ = self.chunk.set(chunk.to_owned());
        }
    }

    /// Whether the input is still what was opened.
    ///
    /// # Errors
    /// [`Error::Format`] that names what went away or changed.
    pub fn check(&self) -> Result<(), Error> {
        let changed = |what: &str, path: &Path| {
            let message = format!(
                "{what} while it was read ({}); what was read of it is not to be trusted, run again \
                 when it is there and nobody writes to it",
                path.display()
            );
            Err(Error::format(&self.location, message))
        };
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
}

/// What the chunks depend on; an N5 array has its attributes in the same object.
fn array_part(node: &Node) -> Map<String, Value> {
    const N5: [&str; 4] = ["dimensions", "blockSize", "dataType", "compression"];
    let mut metadata = node.metadata.clone();
    if N5[..2].iter().all(|key| metadata.contains_key(*key)) {
        metadata.retain(|key, _| N5.contains(&key.as_str()));
    }
    metadata
}
