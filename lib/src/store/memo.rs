//! A cache of the answers of buckets and web servers while a program starts.
//!
//! Before a program begins its work, it examines the same locations several times: to find out what
//! each contains, to check that no input would be overwritten, and to find what an earlier run has
//! done. In a bucket, each of these examinations takes a request. Between [`remember`] and
//! [`forget`], answers about metadata, versions and folders are kept, so that the program sees one
//! state of its inputs. Chunks and the files of runs (`.voxloom`) are never kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::remote::{Page, PageBelow};
use super::{OWN_FOLDER, ReadRange, Stat};

/// The maximum time that answers are kept.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Maximum number of answers of each kind.
const MAX_ANSWERS: usize = 10_000;
/// Maximum size of a kept file, in bytes.
const MAX_FILE: usize = 1 << 20;
/// The metadata files of arrays and groups, whose content is kept like that of all `.json` files.
const METADATA: [&str; 5] = ["zarr.json", ".zarray", ".zgroup", ".zattrs", "attributes.json"];

/// A folder and the token of one of its pages.
type PageKey = (PathBuf, Option<String>);

struct Memo {
    since: Instant,
    files: HashMap<PathBuf, Option<Vec<u8>>>,
    stats: HashMap<PathBuf, Option<Stat>>,
    prefixes: HashMap<PathBuf, bool>,
    pages: HashMap<PageKey, Page>,
    pages_below: HashMap<PageKey, PageBelow>,
}

static MEMO: Mutex<Option<Memo>> = Mutex::new(None);

/// Starts to keep answers. This ends when [`forget`] is called, when this process writes to a
/// bucket or deletes from it, or after 10 seconds.
pub fn remember() {
    let memo = Memo {
        since: Instant::now(),
        files: HashMap::new(),
        stats: HashMap::new(),
        prefixes: HashMap::new(),
        pages: HashMap::new(),
        pages_below: HashMap::new(),
    };
    *MEMO.lock().unwrap_or_else(PoisonError::into_inner) = Some(memo);
}

/// Discards all answers, and keeps no further ones. Call it before something is compared with its
/// present state.
pub fn forget() {
    *MEMO.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The kept answer with this `key`; without one, that of `ask`, which is then kept. Answers about
/// files of runs are not kept, because other runs change these files.
fn recall<K: Hash + Eq, V: Clone>(
    at: &Path,
    key: K,
    answers: fn(&mut Memo) -> &mut HashMap<K, V>,
    ask: impl FnOnce() -> io::Result<V>,
) -> io::Result<V> {
    if at.iter().any(|part| part == OWN_FOLDER) {
        return ask();
    }
    let with = |work: &mut dyn FnMut(&mut HashMap<K, V>)| {
        let mut memo = MEMO.lock().unwrap_or_else(PoisonError::into_inner);
        if memo.as_ref().is_some_and(|memo| memo.since.elapsed() > MAX_AGE) {
            *memo = None;
        }
        if let Some(memo) = memo.as_mut() {
            work(answers(memo));
        }
    };
    let mut known = None;
    with(&mut |answers| known = answers.get(&key).cloned());
    if let Some(known) = known {
        return Ok(known);
    }
    let answer = ask()?;
    let mut new = Some((key, answer.clone()));
    with(&mut |answers| {
        if answers.len() < MAX_ANSWERS {
            answers.extend(new.take());
        }
    });
    Ok(answer)
}

/// As [`super::read`]; `fetch` sends the request and reads into the buffer.
pub(super) fn read(
    at: &Path,
    wanted: ReadRange,
    buffer: &mut Vec<u8>,
    fetch: impl FnOnce(&mut Vec<u8>) -> io::Result<Option<u64>>,
) -> io::Result<Option<u64>> {
    let is_metadata = METADATA.iter().any(|name| at.file_name().is_some_and(|own| own == *name));
    let is_document = at.extension().is_some_and(|extension| extension == "json");
    let ReadRange::Whole(most) = wanted else { return fetch(buffer) };
    if !(is_metadata || is_document) || most < MAX_FILE as u64 {
        return fetch(buffer);
    }
    let mut long = None;
    let kept = recall(
        at,
        at.to_owned(),
        |memo| &mut memo.files,
        || {
            let length = fetch(buffer)?;
            if length.is_some_and(|length| length > MAX_FILE as u64) {
                long = length;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(length.map(|_| buffer.clone()))
        },
    );
    if long.is_some() {
        return Ok(long);
    }
    buffer.clear();
    Ok(kept?.map(|bytes| {
        *buffer = bytes;
        buffer.len() as u64
    }))
}

/// As [`super::stat_file`]; `ask` sends the request.
pub(super) fn stat(
    at: &Path,
    ask: impl FnOnce() -> io::Result<Option<Stat>>,
) -> io::Result<Option<Stat>> {
    recall(at, at.to_owned(), |memo| &mut memo.stats, ask)
}

/// Whether there are objects below a location. A kept metadata file below it proves this; without
/// one, `ask` sends the request.
pub(super) fn is_prefix(at: &Path, ask: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    for name in METADATA {
        // `recall` returns this error if no answer is kept
        let unknown = || Err(io::ErrorKind::NotFound.into());
        if let Ok(Some(_)) = recall(at, at.join(name), |memo| &mut memo.files, unknown) {
            return Ok(true);
        }
    }
    recall(at, at.to_owned(), |memo| &mut memo.prefixes, ask)
}

/// A page of the entries of a folder; `ask` sends the request.
pub(super) fn page(
    folder: &Path,
    token: Option<&str>,
    ask: impl FnOnce() -> io::Result<Page>,
) -> io::Result<Page> {
    recall(folder, (folder.to_owned(), token.map(str::to_owned)), |memo| &mut memo.pages, ask)
}

/// A page of the objects below a folder; `ask` sends the request.
pub(super) fn page_below(
    folder: &Path,
    token: Option<&str>,
    ask: impl FnOnce() -> io::Result<PageBelow>,
) -> io::Result<PageBelow> {
    recall(folder, (folder.to_owned(), token.map(str::to_owned)), |memo| &mut memo.pages_below, ask)
}

#[cfg(test)]
#[cfg(feature = "cloud")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::memory::Memory;
    use super::super::remote::Remote;
    use super::*;
    use crate::store::{self, FolderEntry, remote};

    /// A store that counts requests.
    #[derive(Default)]
    struct Counted(Memory, AtomicUsize);

    impl Counted {
        fn count(&self) -> &Memory {
            self.1.fetch_add(1, Ordering::SeqCst);
            &self.0
        }
    }

    impl Remote for Counted {
        fn read(&self, key: &str, wanted: ReadRange, to: &mut Vec<u8>) -> io::Result<Option<u64>> {
            self.count().read(key, wanted, to)
        }
        fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
            self.count().put(key, bytes)
        }
        fn put_if_absent(&self, key: &str, bytes: &[u8]) -> io::Result<bool> {
            self.count().put_if_absent(key, bytes)
        }
        fn delete(&self, keys: &[String]) -> io::Result<()> {
            self.count().delete(keys)
        }
        fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
            self.count().stat(key)
        }
        fn page(&self, key: &str, most: usize, token: Option<String>) -> io::Result<Page> {
            self.count().page(key, most, token)
        }
        fn page_below(&self, key: &str, token: Option<String>) -> io::Result<PageBelow> {
            self.count().page_below(key, token)
        }
    }

    /// The answers to all kinds of requests about a folder that contains an array.
    #[derive(Debug, PartialEq)]
    struct Answers {
        metadata: Option<Vec<u8>>,
        long: usize,
        missing: Option<Vec<u8>>,
        stats: [Option<Stat>; 3],
        entries: Vec<FolderEntry>,
        below: Vec<String>,
    }

    fn ask(root: &Path) -> Answers {
        let whole = |name: &str| {
            let mut bytes = Vec::new();
            let there = store::read(&root.join(name), ReadRange::Whole(64 << 20), &mut bytes);
            there.unwrap().map(|_| bytes)
        };
        let mut below = Vec::new();
        store::visit_below(root, &mut |entry| {
            below.push(entry.name);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        Answers {
            metadata: whole("zarr.json"),
            long: whole("long/zarr.json").unwrap().len(),
            missing: whole(".zarray"),
            stats: ["", "zarr.json", "nothing"].map(|name| store::stat(&root.join(name)).unwrap()),
            entries: store::list(root).unwrap(),
            below,
        }
    }

    /// Other tests that run at the same time are not disturbed by the kept answers, because
    /// anything that they write to a bucket discards all answers.
    #[test]
    fn answers_are_kept_until_something_is_written_and_are_the_same() {
        let counted = Arc::new(Counted::default());
        let requests = || counted.1.load(Ordering::SeqCst);
        let root = remote::mount("memo", counted.clone()).join("a.zarr");
        store::put(&root.join("zarr.json"), b"{}").unwrap();
        store::put(&root.join("long/zarr.json"), &vec![7; MAX_FILE + 1]).unwrap();
        let wanted = ask(&root);
        let before = requests();
        assert_eq!(ask(&root), wanted);
        let each = requests() - before;
        // because other tests may write meanwhile, this is tried up to 100 times
        let saved = (0..100).any(|_| {
            remember();
            assert_eq!(ask(&root), wanted);
            let before = requests();
            assert_eq!(ask(&root), wanted);
            // only the long file is requested again
            requests() - before == 1
        });
        assert!(saved, "{each} requests");
        store::put(&root.join("zarr.json"), b"[]").unwrap();
        store::put(&root.join(".zarray"), b"{}").unwrap();
        let now = ask(&root);
        assert_eq!((&*now.metadata.unwrap(), &*now.missing.unwrap()), (&b"[]"[..], &b"{}"[..]));
        assert_eq!(now.below.len(), 3);
        remember();
        store::delete(&root.join("zarr.json")).unwrap();
        assert_eq!(ask(&root).metadata, None);
        forget();
    }

    #[test]
    fn files_of_runs_and_chunks_are_asked_for_each_time() {
        let mut buffer = Vec::new();
        for name in ["memory://x/a/.voxloom/zarr.json", "memory://x/a/c/0/0"] {
            remember();
            for content in [1, 2, 3] {
                let fetch = |buffer: &mut Vec<u8>| {
                    *buffer = vec![content];
                    Ok(Some(1))
                };
                read(Path::new(name), ReadRange::Whole(u64::MAX), &mut buffer, fetch).unwrap();
                assert_eq!(buffer, [content]);
            }
        }
        forget();
    }
}
