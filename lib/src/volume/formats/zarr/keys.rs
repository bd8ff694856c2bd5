//! The file names of chunks.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::volume::{chunk_search, shorten};

/// The encoding of a chunk's index as a file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// Whether the prefix `c` precedes the index.
    prefix: bool,
    /// The separator between numbers.
    separator: char,
}

/// The result of a search for chunks in an array's folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChunkKeys {
    /// The folder has at least one chunk under an expected name.
    Chunk,
    /// The folder has no chunk under an expected name, but has this file, which looks like a chunk.
    Other(String),
    /// The folder has no chunks.
    Nothing,
}

impl Keys {
    /// Parses `chunk_key_encoding` of version 3.
    ///
    /// # Errors
    /// An unknown encoding.
    pub(super) fn of_version3(encoding: Option<&Value>) -> Result<Self, String> {
        let shown = encoding.unwrap_or(&Value::Null);
        let bad = || {
            let shown = shorten(&shown.to_string());
            format!(
                "has the chunk_key_encoding {shown}; 'default' and 'v2' with '/' or '.' can be read"
            )
        };
        let name = shown.get("name").or(encoding).and_then(Value::as_str).ok_or_else(bad)?;
        let separator = shown.get("configuration").and_then(|c| c.get("separator"));
        let separator = match (separator.and_then(Value::as_str), name) {
            (Some("/"), _) | (None, "default") => '/',
            (Some("."), _) | (None, "v2") => '.',
            _ => return Err(bad()),
        };
        match name {
            "default" => Ok(Self { prefix: true, separator }),
            "v2" => Ok(Self { prefix: false, separator }),
            _ => Err(bad()),
        }
    }

    /// Parses `dimension_separator` of version 2. If it is missing, as in files of zarr-python
    /// before 2.8 and n5-zarr before 2023, it is inferred from the existing chunks.
    ///
    /// # Errors
    /// An unknown separator.
    pub(super) fn of_version2(
        separator: Option<&Value>,
        folder: &Path,
        rank: usize,
    ) -> Result<Self, String> {
        let keys = |separator| Self { prefix: false, separator };
        match separator {
            Some(Value::String(text)) if text == "/" => Ok(keys('/')),
            Some(Value::String(text)) if text == "." => Ok(keys('.')),
            None | Some(Value::Null) => match keys('.').examine(folder, rank) {
                ChunkKeys::Other(_) if keys('/').examine(folder, rank) == ChunkKeys::Chunk => {
                    Ok(keys('/'))
                }
                _ => Ok(keys('.')),
            },
            Some(other) => {
                let shown = shorten(&other.to_string());
                Err(format!("has the dimension_separator {shown}; '/' and '.' are known"))
            }
        }
    }

    /// The path of a chunk's file.
    pub(super) fn path(self, folder: &Path, index: &[u64]) -> PathBuf {
        let mut name = String::new();
        if self.prefix {
            name.push('c');
        }
        for i in index {
            if !name.is_empty() {
                name.push(self.separator);
            }
            name.push_str(&i.to_string());
        }
        folder.join(name)
    }

    /// Examines the folder of an array of this rank for chunks under the expected names.
    pub(super) fn examine(self, folder: &Path, rank: usize) -> ChunkKeys {
        let is_there = || match (self.separator, self.prefix) {
            ('/', true) => chunk_search::nested(&folder.join("c"), rank),
            ('/', false) => chunk_search::nested(folder, rank),
            _ => chunk_search::flat(folder, &|name| {
                let numbers = if self.prefix { name.strip_prefix("c.") } else { Some(name) };
                let parts = numbers.map(|numbers| numbers.split('.'));
                parts.is_some_and(|mut parts| {
                    parts.clone().count() == rank && parts.all(chunk_search::is_number)
                })
            }),
        };
        if is_there() {
            return ChunkKeys::Chunk;
        }
        match chunk_search::other(folder) {
            None => ChunkKeys::Nothing,
            // another run may have written the first chunk after the first search
            Some(_) if is_there() => ChunkKeys::Chunk,
            Some(found) => ChunkKeys::Other(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    #[test]
    fn chunks_are_found_under_their_own_names_only() {
        let default = Keys::of_version3(Some(&json!({"name": "default"}))).unwrap();
        let dots = json!({"name": "default", "configuration": {"separator": "."}});
        let dots = Keys::of_version3(Some(&dots)).unwrap();
        let old = Keys::of_version3(Some(&json!({"name": "v2"}))).unwrap();
        for (keys, own) in [(default, "c/0/1/2"), (dots, "c.0.1.2"), (old, "0.1.2")] {
            assert_eq!(keys.path(Path::new("a"), &[0, 1, 2]), Path::new("a").join(own));
            for file in ["c/0/1/2", "c.0.1.2", "0.1.2", "0/1/2", "c/0/1"] {
                let wanted =
                    if file == own { ChunkKeys::Chunk } else { ChunkKeys::Other(file.to_owned()) };
                assert_eq!(keys.examine(folder(&["zarr.json", file]).path(), 3), wanted);
            }
            let more = folder(&["zarr.json", ".voxloom/0", "notes.txt", "s1/zarr.json"]);
            assert_eq!(keys.examine(more.path(), 3), ChunkKeys::Nothing);
        }
    }

    #[test]
    fn version_2_without_a_separator_has_the_one_of_its_chunks() {
        for (file, separator) in [("0.0.0", '.'), ("3/0/1", '/'), (".zattrs", '.')] {
            let keys = Keys::of_version2(None, folder(&[".zarray", file]).path(), 3).unwrap();
            assert_eq!(keys.separator, separator, "{file}");
        }
        assert!(Keys::of_version2(Some(&json!("-")), Path::new("."), 3).is_err());
    }
}
