//! The metadata files of Zarr and N5: the type of a folder, its attributes, the arrays below it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Error, path_of, shorten};
use crate::store::{self, EntryKind, ReadRange};

/// The maximum size of a metadata file in bytes: more than any list of blocks or images needs.
const MAX_METADATA: u64 = 64 << 20;

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
        names.iter().any(|name| store::exists(&folder.join(name)))
    }
}

/// A folder with Zarr or N5 metadata: a group or an array.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The path of the folder.
    pub(super) path: PathBuf,
    /// The format of the metadata.
    pub(super) container: Container,
    /// Whether the folder is an array; otherwise it is a group.
    pub(super) is_array: bool,
    /// The content of `zarr.json` (without attributes), `.zarray` or `.zgroup`, or
    /// `attributes.json`.
    pub(super) metadata: Map<String, Value>,
    /// User attributes, including those of conventions such as OME-NGFF; for N5 all of
    /// `attributes.json`.
    pub(super) attributes: Map<String, Value>,
}

/// For messages: the metadata files that a folder is searched for.
pub(super) const METADATA_FILES: &str = "zarr.json, .zarray, .zgroup or attributes.json";

/// Reads a JSON object; `None` if the file does not exist.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, Error> {
    let mut text = Vec::new();
    let length = store::read(path, ReadRange::Whole(MAX_METADATA), &mut text);
    let Some(length) = length.map_err(|source| Error::io("read", path, source))? else {
        return Ok(None);
    };
    if length > MAX_METADATA {
        let message = format!("has {length} bytes of metadata; {MAX_METADATA} are read at most");
        return Err(Error::format(path.display(), message));
    }
    let bad = |what: String| Error::format(path.display(), format!("is no JSON object: {what}"));
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        // many web servers answer with a page where there is no file
        _ if !store::is_listable(path) && text.trim_ascii_start().starts_with(b"<") => Ok(None),
        Ok(other) => Err(bad(format!("found {}", shorten(&other.to_string())))),
        Err(error) => Err(bad(crate::quote::json_error(&error))),
    }
}

/// The metadata files of one folder. In a bucket, they are requested all at once.
struct Files<'a> {
    folder: &'a Path,
    fetched: Vec<(&'static str, Object)>,
    /// The error of the first file to which access was denied.
    denied: Option<Error>,
}

/// The outcome of [`read_object`].
type Object = Result<Option<Map<String, Value>>, Error>;

impl<'a> Files<'a> {
    fn of(folder: &'a Path) -> Self {
        let mut fetched = Vec::new();
        if store::is_remote(folder) {
            let names = ["zarr.json", ".zarray", ".zgroup", ".zattrs", "attributes.json"];
            let paths = names.map(|name| folder.join(name));
            fetched = names.into_iter().zip(store::each(&paths, read_object)).collect();
        }
        Self { folder, fetched, denied: None }
    }

    /// The content of a file; `None` if it does not exist. A bucket whose objects may be read but
    /// not listed also denies access to objects that do not exist. A file to which access is denied
    /// therefore counts as missing; the error is returned only if the folder has no metadata.
    fn object(&mut self, name: &str) -> Object {
        let Some(at) = self.fetched.iter().position(|(known, _)| *known == name) else {
            return read_object(&self.folder.join(name));
        };
        match self.fetched.swap_remove(at).1 {
            Err(error) if is_denied(&error) => {
                self.denied.get_or_insert(error);
                Ok(None)
            }
            other => other,
        }
    }

    /// The result for a folder without metadata: `None`, or an error if access to a file was
    /// denied.
    fn none(self) -> Result<Option<Node>, Error> {
        self.denied.map_or(Ok(None), Err)
    }
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

impl Node {
    /// Reads the metadata of the folder `path`; `None` if it has none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let node = |container, is_array, metadata, attributes| {
            let path = path.to_owned();
            Ok(Some(Self { path, container, is_array, metadata, attributes }))
        };
        let mut files = Files::of(path);
        if let Some(mut metadata) = files.object("zarr.json")? {
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
            if let Some(metadata) = files.object(file)? {
                let attributes = files.object(".zattrs")?.unwrap_or_default();
                return node(Container::Zarr2, is_array, metadata, attributes);
            }
        }
        if let Some(metadata) = files.object("attributes.json")? {
            let is_array = metadata.contains_key("dimensions");
            return node(Container::N5, is_array, metadata.clone(), metadata);
        }
        files.none()
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

    /// The groups of the same format above this node, nearest first, each with the path from it to
    /// this node. Searches up to six levels; folders without metadata can lie in between.
    ///
    /// # Errors
    /// [`Error`] if metadata of the same format cannot be read.
    pub(super) fn parents(&self) -> Result<Vec<(Self, String)>, Error> {
        let above: Vec<_> =
            store::ancestors(&self.path).skip(1).take(6).map(Path::to_owned).collect();
        let mut parents = Vec::new();
        for (path, node) in above.iter().zip(store::each(&above, Self::read)) {
            let relative = self.path.strip_prefix(path).ok().and_then(Path::to_str);
            let node = match node {
                Err(error) if store::is_remote(path) && is_denied(&error) => {
                    tracing::warn!("{error}; a voxel size that it holds is not used");
                    None
                }
                Err(error) if self.container.has_file(path) => return Err(error),
                // ignore an invalid file with the name of another format's metadata
                other => other.unwrap_or(None),
            };
            let (Some(relative), Some(node)) = (relative, node) else { continue };
            if node.container == self.container && !node.is_array {
                parents.push((node, relative.to_owned()));
            }
        }
        Ok(parents)
    }

    /// Changes the attributes of the node at `path` on disk, atomically.
    pub(super) fn update(
        path: &Path,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<(), Error> {
        let Some(mut node) = Self::read(path)? else {
            return Err(Error::missing(path.display(), format!("it has no {METADATA_FILES}")));
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
/// [`Error`] if the metadata cannot be read.
pub fn attributes(location: &str) -> Result<Option<(Map<String, Value>, bool)>, Error> {
    let node = Node::read(&path_of(location)?)?;
    Ok(node.map(|node| (node.attributes, node.is_array)))
}

/// Whether a location on a web server is an array or a group. A web server can answer with a page
/// that lists the folder, so that the location looks like a file.
pub fn is_folder_on_the_web(path: &Path) -> bool {
    !store::is_listable(path) && matches!(Node::read(path), Ok(Some(_)))
}

/// Writes a JSON object atomically and durably.
pub(super) fn write_object(path: &Path, object: Map<String, Value>) -> Result<(), Error> {
    let text = format!("{:#}\n", Value::Object(object));
    store::put(path, text.as_bytes()).map_err(|source| Error::io("write", path, source))
}

/// Writes a metadata file of a new array or group. In a bucket, an existing file is kept: another
/// run may have created it in the meantime and changed its attributes.
pub(super) fn create_object(path: &Path, object: Map<String, Value>) -> Result<(), Error> {
    if !store::is_remote(path) {
        return write_object(path, object);
    }
    let text = format!("{:#}\n", Value::Object(object));
    let created = store::put_if_absent(path, text.as_bytes());
    created.map(drop).map_err(|source| Error::io("write", path, source))
}

/// The arrays up to four levels below `folder`, as paths relative to it, in natural order. The
/// search ends as soon as about 100 arrays are found.
///
/// # Errors
/// [`Error`] if metadata, or a folder in a bucket, cannot be read.
pub(super) fn arrays_below(folder: &Path) -> Result<Vec<String>, Error> {
    fn visit(
        folder: &Path,
        prefix: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), Error> {
        let entries = match store::list(folder) {
            Err(source) if store::is_remote(folder) && source.kind() != ErrorKind::Unsupported => {
                return Err(Error::io("list", folder, source));
            }
            other => other.unwrap_or_default(),
        };
        let is_shown = |name: &str| !name.starts_with('.');
        let folders =
            entries.into_iter().filter(|e| e.kind == EntryKind::Folder && is_shown(&e.name));
        let folders: Vec<_> = folders.map(|entry| folder.join(entry.name)).collect();
        for some in folders.chunks(store::IN_FLIGHT) {
            if found.len() >= 100 {
                break;
            }
            for (at, node) in some.iter().zip(store::each(some, Node::read)) {
                let name = at.file_name().unwrap_or_default().to_string_lossy();
                let path = format!("{prefix}{name}");
                match node? {
                    Some(node) if node.is_array => found.push(path),
                    _ if depth > 0 => visit(at, &format!("{path}/"), depth - 1, found)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(folder, "", 3, &mut found)?;
    found.sort_by(|a, b| natord::compare(a, b));
    Ok(found)
}
