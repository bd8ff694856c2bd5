//! Inspects the files in an array's folder: an array whose chunks have other names than its
//! metadata specify must not be mistaken for an empty one.

use std::fs;
use std::path::{Path, PathBuf};

/// The maximum number of directory entries examined; in larger folders chunks are assumed to exist.
const LOOKS: usize = 10_000;
/// The maximum depth of nested folders searched for chunks with other names.
const DEPTH: usize = 12;

/// Whether a name is one number of a chunk's index.
pub(super) fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a folder has an entry whose name is that of a chunk.
pub(super) fn flat(folder: &Path, is_chunk: &dyn Fn(&str) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let mut entries = entries.flatten().enumerate();
    entries.any(|(i, entry)| i >= LOOKS || entry.file_name().to_str().is_some_and(is_chunk))
}

/// Whether a file lies `depth` levels below `folder`, all names on the path to it being numbers.
pub(super) fn nested(folder: &Path, depth: usize) -> bool {
    fn visit(folder: &Path, depth: usize, looks: &mut usize) -> bool {
        let Ok(entries) = fs::read_dir(folder) else { return false };
        for entry in entries.flatten() {
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                return true;
            }
            if !entry.file_name().to_str().is_some_and(is_number) {
                continue;
            }
            let path = entry.path();
            let found = if path.is_dir() {
                depth > 1 && visit(&path, depth - 1, looks)
            } else {
                depth == 1
            };
            if found {
                return true;
            }
        }
        false
    }
    let mut looks = LOOKS;
    visit(folder, depth, &mut looks)
}

/// The first file in an array's folder that looks like a chunk with another name: a file whose name
/// begins with a digit or `c.`, or that lies in a folder `c` or one whose name begins with a digit,
/// unless that folder is itself an array.
pub(super) fn other(folder: &Path) -> Option<String> {
    fn first_file(path: &Path, depth: usize) -> Option<PathBuf> {
        if !path.is_dir() {
            return Some(path.to_owned());
        }
        let has = |file: &str| path.join(file).exists();
        if depth == 0 || ["zarr.json", ".zarray", "attributes.json"].into_iter().any(has) {
            return None;
        }
        let mut entries = fs::read_dir(path).ok()?.flatten().take(100);
        entries.find_map(|entry| first_file(&entry.path(), depth - 1))
    }
    let entries = fs::read_dir(folder).ok()?.flatten().take(LOOKS);
    let mut named = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(|c: char| c.is_ascii_digit()) || name == "c" || name.starts_with("c.")
    });
    let found = named.find_map(|entry| first_file(&entry.path(), DEPTH))?;
    Some(found.strip_prefix(folder).ok()?.display().to_string())
}
