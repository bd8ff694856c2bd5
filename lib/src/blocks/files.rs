//! Files that appear whole or not at all, under names that no other process takes.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use crate::files;

/// The folder of this process for the work on an output that is standard output.
static OF_STREAM: OnceLock<PathBuf> = OnceLock::new();

/// The folder for ledger and rows beside an output that is one file: `<output>.voxloom`. Standard output
/// has one among the system's temporary files, which [`remove_folder_of_stream`] removes.
pub fn folder_beside(output: &Path) -> PathBuf {
    if files::is_stream(output) {
        let name = || std::env::temp_dir().join(format!("voxloom-{}", unique()));
        return OF_STREAM.get_or_init(name).clone();
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

/// Removes what [`folder_beside`] named for standard output, at the end of the process.
pub fn remove_folder_of_stream() {
    if let Some(folder) = OF_STREAM.get() {
        // what cannot be removed, or was never made, is left to the system
        let _ = fs::remove_dir_all(folder);
    }
}

/// Writes a file whole or not at all, and to the disk; folders on the way are made. `-` is standard output.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    files::write_whole(path, bytes).map_err(Error::io("write", path))
}

/// As [`write_whole`], but that it is only on the disk once the ledger says so.
pub(super) fn write_rows(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", unique()));
    let written = files::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        files::write_later(file, &temporary, path)
    });
    written.map_err(|source| {
        // what the failure left behind; that it cannot be removed adds nothing to the report
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(source)
    })
}

/// A word that no other process on any machine uses: host, process and chance.
pub(super) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    // RandomState is seeded by the system's randomness
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
        write_rows(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        let below = folder.path().join("rows/none");
        assert!(write_whole(&below, b"x").unwrap_err().to_string().contains("rows/none"));
    }
}
