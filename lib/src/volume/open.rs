//! Opens the array at a location, and names its dimensions. The format is detected from the
//! content, not from the file name.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::calibration::Calibration;
use super::n5::N5Array;
use super::node::{self, Container, METADATA_FILES, Node};
use super::ome::{self, Image};
use super::source::Source;
use super::zarr::ZarrSource;
use super::{
    Error, Format, conventions, npy, other_format, path_of, png, sections, shorten, stack, tiff,
    unfinished,
};
use crate::store::{self, EntryKind, ReadRange, document};

/// An array, before z, y and x are selected from its dimensions.
pub(super) struct OpenedArray {
    /// Reads the voxels.
    pub(super) source: Box<dyn Source>,
    /// The names of the dimensions, slowest first: `t`, `c`, `z`, `y`, `x`, or as the file names
    /// them.
    pub(super) names: Vec<String>,
    /// Spacing and origin.
    pub(super) calibration: Calibration,
    /// The file or folder that holds the voxels.
    pub(super) path: PathBuf,
    /// The format of the array; PNG files, image stacks and tables of sections count as TIFF.
    pub(super) format: Format,
    /// The attributes of the array, where it has any.
    pub(super) attributes: serde_json::Map<String, Value>,
    /// Messages about metadata that were assumed or ignored.
    pub(super) notes: Vec<String>,
}

/// Finds and opens the array at a location.
pub(super) fn find(location: &str) -> Result<OpenedArray, Error> {
    find_image(location, None)
}

/// As [`find`]. If a TIFF file holds several images, `image` is the number, name or `ID` of the one
/// to open.
pub(super) fn find_image(location: &str, image: Option<&str>) -> Result<OpenedArray, Error> {
    let path = path_of(location)?;
    let other_image = image.is_some_and(|image| image != "0");
    let one_image = || {
        let message = "holds one image; --image is for TIFF files that hold several";
        Err(Error::format(location, message))
    };
    if store::is_remote(&path) && !other_image {
        // the metadata are needed in any case; if they exist, reading them first saves a request
        if let Some(node) = Node::read(&path)? {
            return folder(location, &path, Some(&node));
        }
    }
    let there = store::stat(&path).map_err(|source| Error::io("read", &path, source))?;
    match there.map(|about| about.kind) {
        Some(EntryKind::File) if is_tiff(&path) => file(location, &path, image),
        _ if other_image => one_image(),
        Some(EntryKind::Folder) => folder(location, &path, Node::read(&path)?.as_ref()),
        Some(EntryKind::File) => file(location, &path, None),
        None if location.contains(['*', '?', '[']) && !store::is_remote(&path) => {
            let files = stack::files(&path.to_string_lossy())?;
            stack_of(location, files)
        }
        None => Err(Error::missing(location, path_hint(&path))),
    }
}

/// A hint for a missing path: the closest existing folder and the arrays in it.
fn path_hint(path: &Path) -> String {
    let Some(parent) = store::ancestors(path).skip(1).find(|at| store::is_folder(at)) else {
        return "look at the path".into();
    };
    let arrays = match Node::read(parent) {
        // ignore errors here: the message is about the missing path
        Ok(Some(_)) => node::arrays_below(parent).unwrap_or_default(),
        _ => Vec::new(),
    };
    if arrays.is_empty() {
        let shown = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        format!("the folder {} is there, look at the rest of the path", shown.display())
    } else {
        format!("{} holds {}", parent.display(), some_of(&arrays))
    }
}

/// The first names of a list, to limit the length of messages.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

fn stack_of(location: &str, files: Vec<PathBuf>) -> Result<OpenedArray, Error> {
    let path = files[0].clone();
    let (source, names, calibration) = stack::open(location, files)?;
    Ok(OpenedArray {
        source,
        names,
        calibration,
        path,
        format: Format::Tiff,
        attributes: serde_json::Map::new(),
        notes: Vec::new(),
    })
}

/// Whether the file begins with a TIFF signature. Read errors are reported when it is opened.
fn is_tiff(path: &Path) -> bool {
    let mut start = Vec::new();
    let wanted = ReadRange::Range { start: 0, length: 4 };
    store::read(path, wanted, &mut start).is_ok() && tiff::is_tiff(&start)
}

fn file(location: &str, path: &Path, image: Option<&str>) -> Result<OpenedArray, Error> {
    let start = document::read_start(path, 8);
    let start = &*start.map_err(|source| Error::io("read", path, source))?;
    let (source, names, calibration, format): (Box<dyn Source>, _, _, _) =
        if start.starts_with(npy::MAGIC) {
            let (file, reversed, calibration) = npy::open(location, path)?;
            let mut names = conventions::default_names(file.layout.shape.len());
            if reversed {
                names.reverse();
            }
            (Box::new(file), names, calibration, Format::Npy)
        } else if tiff::is_tiff(start) {
            let (source, names, calibration) = tiff::open(location, path, image)?;
            (source, names, calibration, Format::Tiff)
        } else if start.starts_with(png::MAGIC) && store::is_remote(path) {
            let message = "is a PNG file in a bucket or on a web server, where Zarr, N5, TIFF and \
                           .npy can be read as volumes; copy it to a local path";
            return Err(Error::format(location, message));
        } else if start.starts_with(png::MAGIC) {
            return stack_of(location, vec![path.to_owned()]);
        } else if sections::is_table(path) {
            return sections::open(location, path);
        } else {
            return Err(Error::format(location, not_read(location)));
        };
    Ok(OpenedArray {
        source,
        names,
        calibration,
        path: path.to_owned(),
        format,
        attributes: unfinished::of_file(path)?,
        notes: Vec::new(),
    })
}

/// The error message for a file that does not have the signature of a supported format.
fn not_read(location: &str) -> String {
    const READ: &str = "TIFF, PNG and .npy files can be read, and Zarr and N5 folders";
    let name = location.strip_suffix(".gz").unwrap_or(location);
    match other_format(name, &[]) {
        Some(("tif" | "tiff" | "png" | "npy", own)) => {
            format!(
                "is no {own} file, as its name says it is: it is damaged, or holds something else"
            )
        }
        Some((_, other)) => {
            format!("is {other} by its name, which is not read as a volume; {READ}")
        }
        None => format!("is a file of no known format; {READ}"),
    }
}

/// Returns an error for a group of several images, because its location does not say which
/// image is meant.
fn refuse_several(location: &str, path: &Path, images: &[Image]) -> Result<(), Error> {
    if images.len() < 2 {
        return Ok(());
    }
    let names: Vec<String> = images
        .iter()
        .filter_map(|image| {
            Some(format!("{}/{}", path.display(), shorten(&image.levels.first()?.path)))
        })
        .collect();
    let message =
        format!("is a group of {} images; name one of them: {}", images.len(), some_of(&names));
    Err(Error::format(location, message))
}

fn folder(location: &str, path: &Path, node: Option<&Node>) -> Result<OpenedArray, Error> {
    if let Some(node) = node {
        if node.is_array {
            return array(location, node.clone());
        }
        let images = images(location, node)?;
        refuse_several(location, path, &images)?;
        if let Some(level) = images.first().and_then(|image| image.levels.first()) {
            let below = store::resolve(path, &level.path);
            return match Node::read(&below)? {
                Some(node) if node.is_array => array(location, node),
                _ => {
                    let what = format!("its level '{}' is not there", shorten(&level.path));
                    Err(Error::missing(location, what))
                }
            };
        }
    }
    let arrays = node::arrays_below(path)?;
    // a group stands for its only array, or for the finest level of an N5 image
    let meant = match arrays.as_slice() {
        [only] => Some(only),
        [first, ..] if first == "s0" && arrays.iter().all(|name| ome::is_level_name(name)) => {
            Some(first)
        }
        _ => None,
    };
    if let Some(name) = meant
        && let Some(node) = Node::read(&path.join(name))?
    {
        return array(location, node);
    }
    if node.is_none()
        && arrays.is_empty()
        && let Some(images) = stack::in_folder(path)?
    {
        let stack::Images { files, notes } = images;
        return Ok(OpenedArray { notes, ..stack_of(location, files)? });
    }
    if arrays.is_empty() {
        let message = match node {
            _ if !store::is_listable(path) => "is a group on a web server, whose arrays cannot be \
                                               listed; name one of them"
                .to_owned(),
            Some(_) => "is a group that holds no array".to_owned(),
            None => format!(
                "is a folder that is no volume: it has no {METADATA_FILES} and no TIFF or PNG images"
            ),
        };
        return Err(Error::format(location, message));
    }
    let names: Vec<String> =
        arrays.iter().map(|name| format!("{}/{name}", path.display())).collect();
    let message =
        format!("is a group of {} arrays; name one of them: {}", arrays.len(), some_of(&names));
    Err(Error::format(location, message))
}

/// The images that the OME-NGFF metadata of a group list; empty for N5, which has no such metadata.
pub(super) fn images(location: &str, node: &Node) -> Result<Vec<Image>, Error> {
    if node.container == Container::N5 {
        return Ok(Vec::new());
    }
    ome::images(&node.attributes).map_err(|message| Error::format(location, message))
}

/// The nearest group above this array that lists it as a level of an image, that image, and the
/// index of the level; `None` if no group does.
pub(super) fn image_of(location: &str, node: &Node) -> Result<Option<(Node, Image, usize)>, Error> {
    for (parent, relative) in node.parents()? {
        for image in images(location, &parent)? {
            let level = image.levels.iter().position(|level| level.path == relative);
            if let Some(level) = level {
                return Ok(Some((parent, image, level)));
            }
        }
    }
    Ok(None)
}

fn array(location: &str, node: Node) -> Result<OpenedArray, Error> {
    let image = match node.container {
        Container::N5 => None,
        _ => image_of(location, &node)?,
    };
    let (source, format): (Box<dyn Source>, _) = match node.container {
        Container::N5 => (Box::new(N5Array::open(location, &node)?), Format::N5),
        Container::Zarr3 => (Box::new(ZarrSource::open(location, node.clone())?), Format::Zarr3),
        Container::Zarr2 => (Box::new(ZarrSource::open(location, node.clone())?), Format::Zarr2),
    };
    let rank = source.layout().shape.len();
    let convention = conventions::of(&node)?;
    let mut notes = source.notes();
    let mut names = convention.names.unwrap_or_else(|| conventions::default_names(rank));
    let mut known = convention.calibration;
    if image.is_none() {
        notes.extend(convention.notes);
    }
    if let Some((_, image, level)) = image {
        if image.axes.len() != rank {
            let message = format!(
                "has {rank} dimensions, its multiscales metadata {} axes",
                image.axes.len()
            );
            return Err(Error::format(location, message));
        }
        names = image.axes.iter().map(|axis| axis.name.clone()).collect();
        let calibration = image.calibration(level);
        if calibration.spacing.is_some() || known.spacing.is_none() {
            known = calibration;
        }
    }
    Ok(OpenedArray {
        source,
        names,
        calibration: known,
        path: node.path.clone(),
        format,
        attributes: node.attributes,
        notes,
    })
}
