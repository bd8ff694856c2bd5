//! Stores that are reached by an address, one for each bucket or host, created at first use.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{FolderEntry, ReadRange, Stat, location};

/// A bucket or a web server. Keys have no slash at either end. Implementations retry after
/// temporary faults; callers do not.
pub(super) trait Remote: Send + Sync {
    /// As [`super::read`]; `buffer` is empty when it is called.
    fn read(&self, key: &str, wanted: ReadRange, buffer: &mut Vec<u8>) -> io::Result<Option<u64>>;
    /// As [`super::put`].
    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()>;
    /// As [`super::put_if_absent`].
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> io::Result<bool>;
    /// Removes these objects, up to [`MOST_DELETED`] of them, with as few requests as the store
    /// allows; objects that do not exist are no error.
    fn delete(&self, keys: &[String]) -> io::Result<()>;
    /// As [`super::stat_file`].
    fn stat(&self, key: &str) -> io::Result<Option<Stat>>;
    /// The next entries of a folder, at most `most`, after the page that returned this token; and
    /// the token of the next page, if there is one.
    fn page(&self, key: &str, most: usize, token: Option<String>) -> io::Result<Page>;
    /// The next objects below a folder, at any depth, after the page that returned this token: their
    /// keys without that of the folder; and the token of the next page, if there is one.
    fn page_below(&self, key: &str, token: Option<String>) -> io::Result<PageBelow>;
}

/// Maximum number of objects of one call of [`Remote::delete`]: S3 removes so many with one request.
pub(super) const MOST_DELETED: usize = 1000;

/// Entries of a folder, and the token of the next page.
pub(super) type Page = (Vec<FolderEntry>, Option<String>);

/// Keys below a folder, and the token of the next page.
pub(super) type PageBelow = (Vec<String>, Option<String>);

type MountedStores = HashMap<(String, String), Arc<dyn Remote>>;

static STORES: Mutex<Option<MountedStores>> = Mutex::new(None);

/// The store of an address, and the key in it; `None` for a local path.
///
/// # Errors
/// Invalid settings for the store, such as an endpoint that is not a valid address.
pub(super) fn find(at: &Path) -> io::Result<Option<(Arc<dyn Remote>, String)>> {
    let Some((scheme, root, key)) = location::split(at) else { return Ok(None) };
    let mut known = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let name = (scheme.to_owned(), root.to_owned());
    let store = if let Some(store) = known.get(&name) {
        Arc::clone(store)
    } else {
        let store = open(scheme, root)?;
        known.insert(name, Arc::clone(&store));
        store
    };
    Ok(Some((store, key.to_owned())))
}

/// Makes a store available as `memory://name`.
#[cfg(all(test, feature = "cloud"))]
pub(super) fn mount(name: &str, store: Arc<dyn Remote>) -> std::path::PathBuf {
    let mut known = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().insert(("memory".to_owned(), name.to_owned()), store);
    format!("memory://{name}").into()
}

fn open(scheme: &str, root: &str) -> io::Result<Arc<dyn Remote>> {
    #[cfg(test)]
    if scheme == "memory" {
        return Ok(Arc::new(super::memory::Memory::default()));
    }
    #[cfg(feature = "cloud")]
    return super::cloud::open(scheme, root);
    #[cfg(not(feature = "cloud"))]
    {
        let message = format!("'{scheme}://{root}' is not a place that this build can reach");
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }
}
