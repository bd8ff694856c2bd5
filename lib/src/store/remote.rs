//! Stores that are reached by an address, one for each bucket or host, created at first use.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{FolderEntry, ReadRange, Stat, location};

/// A bucket or a web server. Keys have no slash at either end. Implementations retry after
/// temporary faults; callers do not.
pub(super) trait Remote: Send + Sync {
    /// As [`super::read`]; `buffer` must be empty.
    fn read(&self, key: &str, wanted: ReadRange, buffer: &mut Vec<u8>) -> io::Result<Option<u64>>;
    /// As [`super::put`].
    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()>;
    /// As [`super::put_if_absent`].
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> io::Result<bool>;
    /// Removes the objects with these keys, at most [`MOST_DELETED`], with as few requests as the
    /// store allows. Objects that do not exist are no error.
    fn delete(&self, keys: &[String]) -> io::Result<()>;
    /// As [`super::stat_file`].
    fn stat(&self, key: &str) -> io::Result<Option<Stat>>;
    /// The entries of a folder that follow the page with which `token` was returned, at most
    /// `most`; and the token of the next page, if there is one.
    fn page(&self, key: &str, most: usize, token: Option<String>) -> io::Result<Page>;
    /// The objects below a folder, at any depth, that follow the page with which `token` was
    /// returned: their keys relative to the folder; and the token of the next page, if there is
    /// one.
    fn page_below(&self, key: &str, token: Option<String>) -> io::Result<PageBelow>;
}

/// Maximum number of objects per call of [`Remote::delete`]. One S3 request removes up to this
/// many.
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
