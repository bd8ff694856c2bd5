//! The metadata files of Zarr and N5: the type of a folder, its attributes, the arrays below it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Error, shorten, store};

/// The maximum size of a metadata file in bytes: more than any list of blocks or images needs.
const MOST: u64 = 64 << 20;

/// The formats whose volumes are folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Zarr3,
    Zarr2,
    N5,
}

impl Container {
    /// Whether a folder has a metadata file of this format.
    fn has_file(self, folder: &Path) -> bool {
        let names: &[&str] = match self {
            Self::Zarr3 => &["zarr.json"],
            Self::Zarr2 => &[".zarray", ".zgroup", ".zattrs"],
            Self::N5 => &["attributes.json"],
        };
        names.iter().any(|name| folder.join(name).exists())
    }
}

/// A folder with Zarr or N5 metadata: a group or an array.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The path of the folder.
    pub(super) path: PathBuf,
    /// The format of the metadata.
    pub(super) container: Container,
    /// Whether it is an array; a group otherwise.
    pub(super) is_array: bool,
    /// The content of `zarr.json` (without attributes), `.zarray` or `.zgroup`, or
    /// `attributes.json`.
    pub(super) metadata: Map<String, Value>,
    /// User attributes, including those of conventions; for N5 all of `attributes.json`.
    pub(super) attributes: Map<String, Value>,
}

/// For messages: the metadata files that a folder is searched for.
pub(super) const LOOKED_FOR: &str = "zarr.json, .zarray, .zgroup or attributes.json";

/// Reads a JSON object; `None` if the file does not exist.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, Error> {
    let Some(file) = store::SizedFile::open(path)? else { return Ok(None) };
    if file.length() > MOST {
        let message = format!("has {} bytes of metadata; {MOST} are read at most", file.length());
        return Err(Error::format(path.display(), message));
    }
    let mut text = Vec::new();
    file.read(0, file.length() as usize, &mut text)?;
    let bad = |what: String| Error::format(path.display(), format!("is no JSON object: {what}"));
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(other) => Err(bad(format!("found {}", shorten(&other.to_string())))),
        Err(error) => Err(bad(crate::quote::json_error(&error))),
    }
}

impl Node {
    /// Reads the metadata of the folder `path`; `None` if it has none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let node = |container, is_array, metadata, attributes| {
            let path = path.to_owned();
            Ok(Some(Self { path, container, is_array, metadata, attributes }))
        };
        if let Some(mut metadata) = read_object(&path.join("zarr.json"))? {
            let is_array = match metadata.get("node_type").and_then(Value::as_str) {
                Some("array") => true,
                Some("group") => false,
                _ => {
                    let message = "has a zarr.json whose node_type is neither array nor group";
                    return Err(Error::format(path.display(), message));
                }
            };
            let attributes = match metadata.remove("attributes") {
                Some(Value::Object(attributes)) => attributes,
                _ => Map::new(),
            };
            return node(Container::Zarr3, is_array, metadata, attributes);
        }
        for (file, is_array) in [(".zarray", true), (".zgroup", false)] {
            if let Some(metadata) = read_object(&path.join(file))? {
                let attributes = read_object(&path.join(".zattrs"))?.unwrap_or_default();
                return node(Container::Zarr2, is_array, metadata, attributes);
            }
        }
        if let Some(metadata) = read_object(&path.join("attributes.json"))? {
            let is_array = metadata.contains_key("dimensions");
            return node(Container::N5, is_array, metadata.clone(), metadata);
        }
        Ok(None)
    }

    /// The file that holds [`Node::metadata`].
    pub(super) fn metadata_file(&self) -> PathBuf {
        self.path.join(match (self.container, self.is_array) {
            (Container::Zarr3, _) => "zarr.json",
            (Container::Zarr2, true) => ".zarray",
            (Container::Zarr2, false) => ".zgroup",
            (Container::N5, _) => "attributes.json",
        })
    }

    /// The groups above, nearest first, each with the path from it to this node. Folders without
    /// metadata may lie in between.
    ///
    /// # Errors
    /// [`Error`]: unreadable metadata of the same format.
    pub(super) fn parents(&self) -> Result<Vec<(Self, String)>, Error> {
        let mut parents = Vec::new();
        for path in self.path.ancestors().skip(1).take(6) {
            let relative = self.path.strip_prefix(path).ok().and_then(Path::to_str);
            let node = match Self::read(path) {
                Err(error) if self.container.has_file(path) => return Err(error),
                // an unrelated file of that name, in a folder of another format
                other => other.unwrap_or(None),
            };
            let (Some(relative), Some(node)) = (relative, node) else { continue };
            if node.container == self.container && !node.is_array {
                parents.push((node, relative.to_owned()));
            }
        }
        Ok(parents)
    }

    /// Changes the attributes on disk, atomically.
    pub(super) fn update(
        path: &Path,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<(), Error> {
        let Some(mut node) = Self::read(path)? else {
            return Err(Error::missing(path.display(), format!("it has no {LOOKED_FOR}")));
        };
        let before = node.attributes.clone();
        change(&mut node.attributes);
        if node.attributes == before {
            return Ok(());
        }
        let (file, object) = match node.container {
            Container::Zarr3 => {
                node.metadata.insert("attributes".into(), node.attributes.into());
                ("zarr.json", node.metadata)
            }
            Container::Zarr2 => (".zattrs", node.attributes),
            Container::N5 => ("attributes.json", node.attributes),
        };
        write_object(&path.join(file), object)
    }
}

/// The attributes of the Zarr or N5 folder at `location`, and whether it is an array; `None` if
/// there is no such folder.
///
/// # Errors
/// [`Error`]: metadata that cannot be read.
pub fn attributes(location: &str) -> Result<Option<(Map<String, Value>, bool)>, Error> {
    let node = Node::read(&store::path_of(location)?)?;
    Ok(node.map(|node| (node.attributes, node.is_array)))
}

/// Writes a JSON object atomically.
pub(super) fn write_object(path: &Path, object: Map<String, Value>) -> Result<(), Error> {
    let text = format!("{:#}\n", Value::Object(object));
    store::write_whole(path, text.as_bytes())
}

/// The arrays below `folder`, as paths relative to it, in natural order.
///
/// # Errors
/// [`Error`]: unreadable metadata.
pub(super) fn arrays_below(folder: &Path) -> Result<Vec<String>, Error> {
    fn visit(
        folder: &Path,
        prefix: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), Error> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || !entry.path().is_dir() || found.len() >= 100 {
                continue;
            }
            let path = format!("{prefix}{name}");
            match Node::read(&entry.path())? {
                Some(node) if node.is_array => found.push(path),
                _ if depth > 0 => visit(&entry.path(), &format!("{path}/"), depth - 1, found)?,
                _ => {}
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(folder, "", 3, &mut found)?;
    found.sort_by(|a, b| natord::compare(a, b));
    Ok(found)
}
