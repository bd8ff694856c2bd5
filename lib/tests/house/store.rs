//! Checks that sources access locations only through `store`, except those that handle local files.

use std::fs;
use std::path::Path;

use super::rust_files;

/// The files that use the file system directly, because they handle local files: the store itself
/// and its parts, formats that are a single local file, the process and its temporary folders, and
/// files that are written for the user of this machine.
const LOCAL: &[&str] = &[
    "blocks/files.rs",
    "blocks/fuzzing.rs",
    "blocks/ledger.rs",
    "blocks/active_runs.rs",
    "blocks/pack.rs",
    "blocks/process.rs",
    "cli/path_conflicts.rs",
    "cli/multicall.rs",
    "files/mod.rs",
    "files/pending.rs",
    "files/stream.rs",
    "interchange/fields.rs",
    "interchange/flat.rs",
    "interchange/hdf5.rs",
    "interchange/metaimage.rs",
    "interchange/nifti.rs",
    "interchange/nrrd.rs",
    "interchange/map_steps.rs",
    "interchange/unpack.rs",
    "phantom/mod.rs",
    "report/mod.rs",
    "store/local.rs",
    "volume/array/small.rs",
    "volume/formats/png.rs",
    "volume/formats/tiff/directory.rs",
    "volume/planes.rs",
    "volume/reader.rs",
    "volume/stack.rs",
];

/// Whether a source uses the file system, outside its tests.
fn uses_files(text: &str) -> bool {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    // examples in comments are allowed to use it
    code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("std::fs"))
}

#[test]
fn only_what_is_about_local_files_uses_the_file_system() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let is_test = ["tests", "testing", "oracle", "golden", "npz"].iter().any(|test| {
            name.contains(&format!("/{test}.rs")) || name.contains(&format!("{test}/"))
        });
        if !is_test && uses_files(&fs::read_to_string(&file).unwrap()) {
            found.push(name);
        }
    }
    let more: Vec<_> = found.iter().filter(|name| !LOCAL.contains(&name.as_str())).collect();
    assert!(more.is_empty(), "these use the file system and not `store`: {more:?}");
    let less: Vec<_> = LOCAL.iter().filter(|name| !found.iter().any(|f| f == *name)).collect();
    assert!(less.is_empty(), "these no longer use the file system: {less:?}");
}
