//! Atomic file writes, and names that no other process uses.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use crate::files;
use crate::store::document;

/// The ledger folder of this process, if its output is standard output.
static STREAM_FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// The folder of ledger and rows of a single-file output: `<output>.voxloom`. For standard output
/// it is in the system's temporary folder, and [`remove_folder_of_stream`] removes it.
pub fn ledger_folder_of(output: &Path) -> PathBuf {
    if files::is_stream(output) {
        let name = || std::env::temp_dir().join(format!("voxloom-{}", unique()));
        return STREAM_FOLDER.get_or_init(name).clone();
    }
    let mut name = output.as_os_str().to_owned();
    name.push(".voxloom");
    name.into()
}

/// The output whose ledger is in `folder`, for messages.
pub(super) fn output_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_suffix(".voxloom") {
        Some("") | None => folder.parent().unwrap_or(folder).display().to_string(),
        Some(file) => folder.with_file_name(file).display().to_string(),
    }
}

/// Removes the folder that [`ledger_folder_of`] named for standard output, at the end of the
/// process.
pub fn remove_folder_of_stream() {
    if let Some(folder) = STREAM_FOLDER.get() {
        // an error is ignored: the folder may never have been created, and is temporary anyway
        let _ = fs::remove_dir_all(folder);
    }
}

/// Writes a file atomically and syncs it to disk; parent folders are created. `-` is standard
/// output.
///
/// # Errors
/// [`Error::Io`]; `path` is then unchanged.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    document::write_whole(path, bytes).map_err(Error::io("write", path))
}

/// A name that no other process on any machine uses: host name, process id and random digits.
pub(super) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    // `RandomState` is randomly seeded by the standard library
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{host}-{}-{:08x}", std::process::id(), hasher.finish() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_write_replaces_and_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let below = folder.path().join("rows/none");
        assert!(write_whole(&below, b"x").unwrap_err().to_string().contains("rows/none"));
    }
}
