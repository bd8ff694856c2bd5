//! The location of an array in its container, and the groups above it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::node::{self, Container, Node};
use super::{Begin, Error, Existing, Format, n5, ome};
use crate::geom::Grid;
use crate::store::{self, EntryKind, FolderEntry};

/// The folder for an array's temporary files: on the array's file system, hidden from listings.
pub(super) fn partial_folder(array: &Path) -> PathBuf {
    array.join(".voxloom").join("partial")
}

/// The paths that belong to an output.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OutputPaths {
    /// The array's folder.
    pub(super) array: PathBuf,
    /// The group that the location names, if it names an image group and not an array.
    pub(super) image: Option<PathBuf>,
    /// The groups above the array, beginning with the container's root.
    groups: Vec<PathBuf>,
    container: Container,
}

/// The container of a format whose volumes are folders; `None` for single files.
pub(super) fn container(format: Format) -> Option<Container> {
    match format {
        Format::Zarr3 => Some(Container::Zarr3),
        Format::Zarr2 => Some(Container::Zarr2),
        Format::N5 => Some(Container::N5),
        Format::Tiff | Format::Npy => None,
    }
}

/// Whether a path has the extension of a container.
fn names_container(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zarr" || extension == "n5")
}

impl OutputPaths {
    /// The paths of an image. A location such as `img.zarr` names a group whose level 0 is the
    /// array; a location such as `img.zarr/s0` names the array itself.
    pub(super) fn of_image(
        location: &str,
        path: &Path,
        container: Container,
    ) -> Result<Self, Error> {
        let node = Node::read(path)?;
        let is_group = node.is_some_and(|node| !node.is_array);
        let mut inside = false;
        for parent in store::ancestors(path).skip(1) {
            inside |= names_container(parent) || Node::read(parent)?.is_some();
        }
        if !inside || names_container(path) || is_group {
            let level = if container == Container::N5 { "s0" } else { "0" };
            let array = path.join(level);
            return Self::new(location, array, Some(path.to_owned()), container);
        }
        Self::new(location, path.to_owned(), None, container)
    }

    /// The paths of an array that the location names directly.
    pub(super) fn of_array(
        location: &str,
        path: &Path,
        container: Container,
    ) -> Result<Self, Error> {
        Self::new(location, path.to_owned(), None, container)
    }

    fn new(
        location: &str,
        array: PathBuf,
        image: Option<PathBuf>,
        container: Container,
    ) -> Result<Self, Error> {
        let mut groups: Vec<PathBuf> = Vec::new();
        let mut between: Vec<PathBuf> = Vec::new();
        for parent in store::ancestors(&array).skip(1) {
            if parent.as_os_str().is_empty() {
                break;
            }
            let node = Node::read(parent)?;
            if let Some(node) = &node {
                // an array at the location itself is handled by `check`
                if node.is_array && image.as_deref() != Some(parent) {
                    let message = format!(
                        "lies in {}, which is an array; give another name",
                        parent.display()
                    );
                    return Err(Error::format(location, message));
                }
                if node.container != container && image.as_deref() != Some(parent) {
                    let message = format!(
                        "lies in {}, which is {:?}; it cannot hold {container:?}, give another name \
                         or format",
                        parent.display(),
                        node.container
                    );
                    return Err(Error::format(location, message));
                }
            }
            between.push(parent.to_owned());
            if node.is_some() || names_container(parent) || image.as_deref() == Some(parent) {
                groups.append(&mut between);
            }
        }
        groups.reverse();
        Ok(Self { array, image, groups, container })
    }

    /// The path that the location names: the image group, or else the array.
    pub(super) fn named(&self) -> &Path {
        self.image.as_deref().unwrap_or(&self.array)
    }

    /// The folder that holds the ledger of the array's blocks.
    pub(super) fn ledger_folder(&self) -> PathBuf {
        self.array.join(".voxloom")
    }

    /// As [`OutputPaths::check`], with the value of [`Begin::existing`] for `run`. This value is
    /// the first of those returned.
    ///
    /// # Errors
    /// As [`OutputPaths::check`].
    pub(super) fn check_for(
        &self,
        location: &str,
        run: &impl Begin,
    ) -> Result<(Existing, bool), Error> {
        let existing = run.existing(&self.ledger_folder())?;
        Ok((existing, self.check(location, existing)?))
    }

    /// Checks whether the output exists and, to overwrite it, whether it may be removed. Returns
    /// `true` if the array exists and is to be resumed.
    ///
    /// # Errors
    /// [`Error::Exists`], or [`Error::Format`] for something that is not a volume.
    pub(super) fn check(&self, location: &str, existing: Existing) -> Result<bool, Error> {
        let named = self.named();
        // a single call of `stat`: between two calls, another process could replace the folder
        if store::stat(named).is_ok_and(|there| there.is_some_and(|t| t.kind == EntryKind::File)) {
            let message = "is a file; it is not replaced by a folder, give another name";
            return Err(Error::format(location, message));
        }
        let Some(node) = self.node(location, existing)? else {
            return Ok(false);
        };
        if existing == Existing::Refuse {
            return Err(Error::Exists { location: location.to_owned() });
        }
        if self.image.is_none() && !node.is_array {
            let message = "is a group; it is not replaced by an array, give another name";
            return Err(Error::format(location, message));
        }
        if existing == Existing::Overwrite {
            check_removal(location, &node)?;
            return Ok(false);
        }
        if self.image.is_some() && (node.is_array || node.container != self.container) {
            let found = if node.is_array { "an array" } else { "a group" };
            let message = format!(
                "cannot be resumed: it is {found} of {:?}, wanted is an image of {:?}; give \
                 --overwrite to replace it, or another name",
                node.container, self.container
            );
            return Err(Error::format(location, message));
        }
        Ok(Node::read(&self.array)?.is_some_and(|node| node.is_array))
    }

    /// The existing node; `None` if the folder is missing or holds no data.
    fn node(&self, location: &str, existing: Existing) -> Result<Option<Node>, Error> {
        let named = self.named();
        // another process can replace one array with another between the two calls: try again
        for attempt in 0..4 {
            if attempt > 0 {
                store::forget();
            }
            if let Some(node) = Node::read(named)? {
                return Ok(Some(node));
            }
            if holds_nothing(named).map_err(|error| Error::io("read", named, error))? {
                return Ok(None);
            }
        }
        let is_ours =
            store::exists(&self.ledger_folder()) && foreign(named, self.image.is_none())?.is_none();
        let message = match existing {
            Existing::Overwrite if is_ours => return Ok(None),
            _ if is_ours => {
                "is what remains of a volume whose removal was interrupted; give --overwrite to remove \
                 the rest"
            }
            _ => "is a folder with files that are no volume; it is not replaced, give another name",
        };
        Err(Error::format(location, message))
    }

    /// Removes the existing output, after [`OutputPaths::check`], for a run that replaces it. A
    /// local output disappears atomically for other processes. In a bucket, removing many objects
    /// takes time: the claim of the new run is written first and kept, so that a run that is still
    /// writing the output ends.
    pub(super) fn remove(&self, run: &impl Begin) -> Result<(), Error> {
        let (named, folder) = (self.named(), self.ledger_folder());
        let failed = |error| Error::io("remove", named, error);
        if !store::is_remote(named) {
            return store::delete_folder(named).map_err(failed);
        }
        if !store::exists(named) {
            return Ok(());
        }
        run.replace_claim(&folder)?;
        store::clear_folder(named, Some(&folder)).map_err(failed)
    }

    /// Removes temporary files of killed runs, in the array's folder and in the folder that holds
    /// the image or array.
    pub(super) fn sweep(&self) {
        for folder in [partial_folder(&self.array), self.array.clone()] {
            store::sweep(&folder);
        }
        store::parent(self.named()).into_iter().for_each(store::sweep);
    }

    /// The group that lists the array as a level, and the array's path relative to it.
    fn parent(&self) -> Option<(&Path, String)> {
        let parent = self.groups.last()?;
        let relative = self.array.strip_prefix(parent).ok()?.to_str()?.to_owned();
        Some((parent, relative))
    }

    /// Creates the groups that are missing.
    pub(super) fn make_groups(&self) -> Result<(), Error> {
        for (number, group) in self.groups.iter().enumerate() {
            if Node::read(group)?.is_some() {
                continue;
            }
            let (file, metadata) = match self.container {
                Container::Zarr3 => {
                    ("zarr.json", json!({"zarr_format": 3, "node_type": "group", "attributes": {}}))
                }
                Container::Zarr2 => (".zgroup", json!({"zarr_format": 2})),
                // only the root of an N5 container is marked as N5
                Container::N5 if number == 0 => ("attributes.json", json!({"n5": "2.0.0"})),
                Container::N5 => continue,
            };
            let Value::Object(metadata) = metadata else { continue };
            node::create_object(&group.join(file), metadata)?;
        }
        Ok(())
    }

    /// Lists the array with its grid as a level of the image in the group above; with `dry`, only
    /// checks whether that is possible. Does nothing for N5, which has no list of levels.
    pub(super) fn register(
        &self,
        location: &str,
        grid: &Grid,
        channels: bool,
        dry: bool,
    ) -> Result<(), Error> {
        let Some((parent, relative)) = self.parent() else { return Ok(()) };
        if self.container == Container::N5 {
            return Ok(());
        }
        let stem = parent.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = if ome::is_level_name(&relative) { &stem } else { &relative };
        let change = |attributes: &mut Map<String, Value>| {
            let zarr3 = self.container == Container::Zarr3;
            ome::register(attributes, zarr3, name, &relative, grid, channels)
        };
        let mut outcome = Ok(());
        if dry {
            if let Some(mut node) = Node::read(parent)?
                && !node.is_array
            {
                outcome = change(&mut node.attributes);
            }
        } else {
            Node::update(parent, |attributes| outcome = change(attributes))?;
        }
        outcome.map_err(|message| Error::format(location, message))
    }

    /// The downsampling factors along z, y, x of the array's level, which N5 stores with the array.
    pub(super) fn factors(&self, grid: &Grid) -> Result<[f64; 3], Error> {
        n5::factors(&self.array, grid)
    }
}

/// Whether a folder is missing, or holds only files of this library, as after a run that was killed
/// before it wrote data. Level folders in it are checked in the same way.
fn holds_nothing(folder: &Path) -> std::io::Result<bool> {
    for FolderEntry { name, kind, .. } in store::list(folder)? {
        let is_level = ome::is_level_name(&name) && kind == EntryKind::Folder;
        if name.starts_with(".voxloom") || (is_level && holds_nothing(&folder.join(&name))?) {
            continue;
        }
        return Ok(false);
    }
    Ok(true)
}

/// Checks that removing `node` would delete only one array, or a group that is one image.
fn check_removal(location: &str, node: &Node) -> Result<(), Error> {
    if let Some(other) = foreign(&node.path, node.is_array)? {
        let message = format!(
            "also holds {}, which is no part of a volume; it is not replaced, move that away or give \
             another name",
            other.display()
        );
        return Err(Error::format(location, message));
    }
    if node.is_array {
        return Ok(());
    }
    let arrays = node::arrays_below(&node.path)?;
    let images = ome::images(&node.attributes).unwrap_or_default();
    let count = images.len();
    // if there are several images, no array counts as a level: one image must not replace them all
    let one = images.into_iter().filter(|_| count == 1);
    let levels: Vec<String> = one.flat_map(|i| i.levels).map(|level| level.path).collect();
    let mut others: Vec<String> = arrays
        .iter()
        .filter(|name| !levels.contains(name) && !ome::is_level_name(name))
        .cloned()
        .collect();
    if arrays.is_empty() {
        // arrays may lie deeper than `arrays_below` searches
        let entries = store::list(&node.path).map_err(|e| Error::io("read", &node.path, e))?;
        let folders = entries.into_iter().filter(|entry| entry.kind == EntryKind::Folder);
        others.extend(folders.map(|entry| entry.name));
        others.retain(|name| !name.starts_with(".voxloom") && !ome::is_level_name(name));
    }
    if others.is_empty() {
        return Ok(());
    }
    let message = format!(
        "is a group that also holds {}; it is not replaced, name an array in it",
        others.join(", ")
    );
    Err(Error::format(location, message))
}

/// The first file or folder that does not belong to an array (or to a group and its arrays):
/// neither metadata nor a chunk nor a file of this library.
fn foreign(folder: &Path, is_array: bool) -> Result<Option<PathBuf>, Error> {
    const METADATA: [&str; 6] =
        ["zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata", "attributes.json"];
    // names of chunk files and folders: `c`, `c.0.1`, or `0` and `1` of `0/1`
    let is_number = |name: &str| {
        name.split('.').all(|part| part == "c" || part.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut nodes: HashMap<PathBuf, Option<bool>> = HashMap::new();
    let mut found = Ok(None);
    let mut is_foreign = |entry: &FolderEntry| -> Result<Option<PathBuf>, Error> {
        let (mut at, mut is_array) = (folder.to_owned(), is_array);
        let mut names = entry.name.split('/').peekable();
        while let Some(name) = names.next() {
            at.push(name);
            let is_last = names.peek().is_none();
            let is_file = is_last && entry.kind == EntryKind::File && !entry.is_link;
            let is_metadata = METADATA.contains(&name) && is_file;
            if name.starts_with(".voxloom") || is_metadata {
                return Ok(None);
            }
            if is_last && (entry.is_link || is_file) {
                return Ok((!(is_file && is_array && is_number(name))).then_some(at));
            }
            if is_array && is_number(name) {
                continue;
            }
            if !nodes.contains_key(&at) {
                let node = Node::read(&at)?.map(|node| node.is_array);
                // N5 groups need no metadata
                let is_level = !is_array && ome::is_level_name(name);
                nodes.insert(at.clone(), node.or(is_level.then_some(true)));
            }
            match nodes[&at] {
                Some(below) => is_array = below,
                None => return Ok(Some(at)),
            }
        }
        Ok(None)
    };
    // if another process is replacing the folder, nothing is found in it
    let visited = store::visit_below(folder, &mut |entry| {
        found = is_foreign(&entry);
        if matches!(found, Ok(None)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    visited.map_err(|e| Error::io("read", folder, e))?;
    found
}
