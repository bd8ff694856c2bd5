//! A store in memory, for tests: `memory://name`. It behaves like a bucket.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::remote::{Page, PageBelow, Remote};
use super::{EntryKind, FolderEntry, ReadRange, Stat};

/// The objects of one bucket, each with the number of the write that made it, and the number of
/// writes so far.
#[derive(Default)]
pub(super) struct Memory(Mutex<(BTreeMap<String, (Vec<u8>, u64)>, u64)>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, (BTreeMap<String, (Vec<u8>, u64)>, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of all objects below the folder `key`, relative to it.
    fn below(&self, key: &str) -> Vec<String> {
        let prefix = if key.is_empty() { String::new() } else { format!("{key}/") };
        let objects = self.lock();
        let below = objects.0.range(prefix.clone()..);
        below.map_while(|(key, _)| Some(key.strip_prefix(&prefix)?.to_owned())).collect()
    }
}

/// The page of `all` that follows the page with which `token` was returned, at most `most` and at
/// most 100 items; and the token of the next page.
fn page_of<T>(mut all: Vec<T>, most: usize, token: Option<String>) -> (Vec<T>, Option<String>) {
    let start = token.and_then(|token| token.parse().ok()).unwrap_or(0);
    let end = all.len().min(start + most.clamp(1, 100));
    let next = (end < all.len()).then(|| end.to_string());
    (all.drain(start..end).collect(), next)
}

impl Remote for Memory {
    fn read(&self, key: &str, wanted: ReadRange, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let objects = self.lock();
        let Some((bytes, _)) = objects.0.get(key) else { return Ok(None) };
        if let Some(range) = wanted.within(bytes.len() as u64) {
            buffer.extend(&bytes[range.start as usize..range.end as usize]);
        }
        Ok(Some(bytes.len() as u64))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let mut objects = self.lock();
        objects.1 += 1;
        let number = objects.1;
        objects.0.insert(key.to_owned(), (bytes.to_vec(), number));
        Ok(())
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> io::Result<bool> {
        let mut objects = self.lock();
        if objects.0.contains_key(key) {
            return Ok(false);
        }
        objects.1 += 1;
        let number = objects.1;
        objects.0.insert(key.to_owned(), (bytes.to_vec(), number));
        Ok(true)
    }

    fn delete(&self, keys: &[String]) -> io::Result<()> {
        let mut objects = self.lock();
        keys.iter().for_each(|key| drop(objects.0.remove(key)));
        Ok(())
    }

    fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
        let objects = self.lock();
        Ok(objects.0.get(key).map(|(bytes, number)| Stat {
            kind: EntryKind::File,
            length: bytes.len() as u64,
            changed: None,
            tag: Some(number.to_string()),
        }))
    }

    fn page(&self, key: &str, most: usize, token: Option<String>) -> io::Result<Page> {
        let mut entries: Vec<FolderEntry> = self
            .below(key)
            .iter()
            .map(|name| match name.split_once('/') {
                Some((folder, _)) => {
                    FolderEntry { name: folder.to_owned(), kind: EntryKind::Folder, is_link: false }
                }
                None => {
                    FolderEntry { name: name.to_owned(), kind: EntryKind::File, is_link: false }
                }
            })
            .collect();
        entries.dedup();
        Ok(page_of(entries, most, token))
    }

    fn page_below(&self, key: &str, token: Option<String>) -> io::Result<PageBelow> {
        Ok(page_of(self.below(key), usize::MAX, token))
    }
}
