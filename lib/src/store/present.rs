//! Finds out which of many files exist by listing their folders. This takes requests or system
//! calls for each folder instead of for each file.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::{EntryKind, IN_FLIGHT, concurrently, each, is_remote, stat_file, visit};

/// For each file in question, at most this many entries of its folder are listed: the first number
/// is for a disk, the second for a bucket. On a disk, listing an entry costs a small fraction of
/// examining a file; in a bucket, one request lists up to 1000 entries.
const LISTED_PER_FILE: [usize; 2] = [50, 1000];
/// Maximum number of threads that list local folders.
const THREADS: usize = 4;

/// Whether each of these files exists; `None` if this cannot be determined.
pub fn present(files: &[&Path]) -> Vec<Option<bool>> {
    let remote = files.iter().any(|file| is_remote(file));
    let (folders, number) = folders(files);
    let threads = if remote { IN_FLIGHT } else { THREADS.min(folders.len() / 16) };
    let listed = concurrently(&folders, threads, |(folder, count)| {
        names(folder, count.saturating_mul(LISTED_PER_FILE[usize::from(remote)]).max(1000))
    });
    let mut rest = Vec::new();
    let mut found: Vec<Option<bool>> = files
        .iter()
        .enumerate()
        .map(|(i, file)| match &listed[number[i]] {
            Ok(Some(names)) => {
                Some(file.file_name().is_some_and(|name| names.contains(&*name.to_string_lossy())))
            }
            Ok(None) => {
                rest.push(i);
                None
            }
            Err(_) => None,
        })
        .collect();
    let paths: Vec<PathBuf> = rest.iter().map(|i| files[*i].to_owned()).collect();
    for (i, stat) in rest.into_iter().zip(each(&paths, stat_file)) {
        found[i] = stat.ok().map(|stat| stat.is_some());
    }
    found
}

/// The folders of files, each with the number of files in it, and the index of each file's folder.
///
/// Paths are compared byte by byte, because comparing their components takes longer than listing
/// the folders.
fn folders<'a>(files: &[&'a Path]) -> (Vec<(&'a Path, usize)>, Vec<usize>) {
    let mut known: HashMap<&OsStr, usize> = HashMap::new();
    let mut folders: Vec<(&Path, usize)> = Vec::new();
    let number = files.iter().map(|file| {
        let folder = file.parent().unwrap_or(Path::new(""));
        let number = *known.entry(folder.as_os_str()).or_insert(folders.len());
        if number == folders.len() {
            folders.push((folder, 0));
        }
        folders[number].1 += 1;
        number
    });
    let number = number.collect();
    (folders, number)
}

/// The names of the files in a folder; `None` if the folder has more than `most` entries.
fn names(folder: &Path, most: usize) -> io::Result<Option<HashSet<String>>> {
    let mut names = HashSet::new();
    let mut count = 0;
    visit(folder, &mut |entry| {
        count += 1;
        if entry.kind == EntryKind::File {
            names.insert(entry.name);
        }
        if count > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok((count <= most).then_some(names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    #[test]
    fn files_are_found_in_small_and_large_folders_and_nowhere_else() {
        let local = tempfile::tempdir().unwrap();
        for root in [local.path(), Path::new("memory://present")] {
            for i in 0..1200 {
                store::put(&root.join(format!("large/{i}")), b"x").unwrap();
            }
            for name in ["c/0/0", "c/0/1", "c/1/7"] {
                store::put(&root.join(name), b"").unwrap();
            }
            let names =
                ["c/0/0", "large/1199", "c/0/2", "large/1200", "c/1/7", "none/0", "c/0", "c/0/1"];
            let files: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
            let there = [true, true, false, false, true, false, false, true];
            let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
            assert_eq!(present(&files), there.map(Some));
        }
        assert!(present(&[]).is_empty());
    }
}
