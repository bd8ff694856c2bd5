//! Inspects the files in an array's folder: an array whose chunks have other names than its
//! metadata specify must not be mistaken for an empty one.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::store::{self, EntryKind, FolderEntry};

/// The maximum number of directory entries examined; [`flat`] and [`nested`] assume that larger
/// folders contain chunks.
const MAX_ENTRIES: usize = 10_000;
/// The maximum depth of nested folders searched for chunks with other names.
const MAX_DEPTH: usize = 12;

/// Whether a name consists of digits, like one component of a chunk's index.
pub(super) fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a folder has an entry whose name is that of a chunk. Also true if the folder cannot be
/// listed, or has more than [`MAX_ENTRIES`] entries.
pub(super) fn flat(folder: &Path, is_chunk: &dyn Fn(&str) -> bool) -> bool {
    if !store::is_listable(folder) {
        return true;
    }
    let (mut entries, mut found) = (0, false);
    // errors are reported when chunks are read
    let _ = store::visit(folder, &mut |entry| {
        entries += 1;
        found = entries > MAX_ENTRIES || is_chunk(&entry.name);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

/// Whether a file lies `depth` levels below `folder` such that all names on the path to it are
/// numbers. Also true if the folder cannot be listed, or has more than [`MAX_ENTRIES`] entries.
pub(super) fn nested(folder: &Path, depth: usize) -> bool {
    if !store::is_listable(folder) {
        return true;
    }
    let (mut entries, mut found) = (0, false);
    // errors are reported when chunks are read
    let _ = store::visit_below(folder, &mut |entry| {
        entries += 1;
        let mut names = entry.name.split('/');
        found = entries > MAX_ENTRIES
            || entry.kind == EntryKind::File
                && names.clone().count() == depth
                && names.all(is_number);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

/// The first file in an array's folder that looks like a chunk with another name: a file whose name
/// begins with a digit or `c.`, or a file in a folder whose name is `c` or begins with a digit or
/// `c.`, unless that folder is itself an array.
pub(super) fn other(folder: &Path) -> Option<String> {
    fn first_file(path: &Path, kind: EntryKind, depth: usize) -> Option<PathBuf> {
        if kind == EntryKind::File {
            return Some(path.to_owned());
        }
        let has = |file: &str| store::exists(&path.join(file));
        if depth == 0 || ["zarr.json", ".zarray", "attributes.json"].into_iter().any(has) {
            return None;
        }
        first_of(path, 100, &|entry| first_file(&path.join(&entry.name), entry.kind, depth - 1))
    }
    let found = first_of(folder, MAX_ENTRIES, &|FolderEntry { name, kind, .. }| {
        let is_named =
            name.starts_with(|c: char| c.is_ascii_digit()) || name == "c" || name.starts_with("c.");
        is_named.then(|| first_file(&folder.join(name), *kind, MAX_DEPTH))?
    })?;
    Some(found.strip_prefix(folder).ok()?.display().to_string())
}

/// The first result that `find` returns for one of the first `most` entries of a folder.
fn first_of<T>(folder: &Path, most: usize, find: &dyn Fn(&FolderEntry) -> Option<T>) -> Option<T> {
    let (mut entries, mut found) = (0, None);
    store::visit(folder, &mut |entry| {
        entries += 1;
        if entries > most {
            return ControlFlow::Break(());
        }
        found = find(&entry);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .ok()?;
    found
}
