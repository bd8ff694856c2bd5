//! The document of a project: the location, plane, shape, position and map of each tile.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Error, Project, Tile};
use crate::quote::shorten;
use crate::store;
use crate::store::document::write_whole;
use crate::transform;

/// The value of `type`, and the version of the form.
const TYPE: &str = "voxloom:tiles";
const VERSION: u64 = 1;

/// The longest side of a tile, pixels.
const MAX_SIDE: u64 = 1 << 30;

pub(super) fn write(project: &Project, path: &Path) -> Result<(), Error> {
    let location = || path.display().to_string();
    let bad = |message| Error::Format { location: location(), message };
    let tiles: Result<Vec<Value>, Error> = project
        .tiles
        .iter()
        .map(|tile| {
            let mut entry = json!({
                "location": transform::relative(path, &tile.location),
                "z": tile.z,
                "shape": tile.shape,
                "position": tile.position,
                "linked": tile.linked,
                "transform": transform::compose(path, &tile.map).map_err(bad)?,
            });
            if let Some(mask) = &tile.mask {
                entry["mask"] = transform::relative(path, mask).into();
            }
            Ok(entry)
        })
        .collect();
    let [z, y, x] = project.spacing;
    let document = json!({
        "type": TYPE,
        "version": VERSION,
        "axes": ["z", "y", "x"],
        "unit": "micrometer",
        "spacing": [project.has_depth.then_some(z), Some(y), Some(x)],
        "tiles": tiles?,
    });
    let mut text = transform::pretty(&document, 0);
    text.push('\n');
    write_whole(path, text.as_bytes()).map_err(|source| Error::Io {
        action: "write",
        path: location(),
        source,
    })
}

/// Reads a document.
///
/// # Errors
/// [`Error::Format`] that names what is wrong.
pub(super) fn parse(location: &str, path: &Path, text: &str) -> Result<Project, Error> {
    let bad = |message: String| Error::Format { location: location.to_owned(), message };
    let value: Value = serde_json::from_str(text)
        .map_err(|e| bad(format!("is not valid JSON: {}", crate::quote::json_error(&e))))?;
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind != TYPE {
        return Err(bad(format!(
            "is no project of tiles: its \"type\" is \"{}\", wanted \"{TYPE}\", as stitch writes it",
            shorten(kind)
        )));
    }
    let version = value.get("version").and_then(Value::as_u64);
    if version != Some(VERSION) {
        return Err(bad(format!(
            "has the version {}; this program reads version {VERSION}",
            value.get("version").map_or("none".to_owned(), crate::quote::json)
        )));
    }
    let length = |v: &Value| v.as_f64().filter(|v| v.is_finite() && *v > 0.0);
    let stated = value.get("spacing").and_then(Value::as_array).map(Vec::as_slice);
    let (depth, pixel) = match stated {
        Some([z, y, x]) => (length(z), length(y).zip(length(x))),
        _ => (None, None),
    };
    let (y, x) = pixel
        .ok_or_else(|| bad("has no \"spacing\" of three lengths above 0 (z may be null)".into()))?;
    let list = value.get("tiles").and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| bad("has no \"tiles\"".into()))?;
    let mut tiles = Vec::with_capacity(list.len());
    for (i, entry) in list.iter().enumerate() {
        tiles.push(tile(path, entry).map_err(|message| bad(format!("tiles[{i}] {message}")))?);
    }
    tiles.sort_by_key(|tile: &Tile| tile.z);
    Ok(Project {
        location: location.to_owned(),
        spacing: [depth.unwrap_or(y), y, x],
        has_depth: depth.is_some(),
        tiles,
    })
}

fn tile(path: &Path, entry: &Value) -> Result<Tile, String> {
    let entry = entry.as_object().ok_or("is no object")?;
    let z = entry.get("z").and_then(Value::as_i64).filter(|z| z.abs() <= 1 << 40);
    let shape = pair(entry, "shape", |v| v.as_u64().filter(|n| (1..=MAX_SIDE).contains(n)))
        .ok_or("has no \"shape\" of two numbers of pixels")?;
    let position = pair(entry, "position", |v| v.as_f64().filter(|v| v.is_finite()))
        .ok_or("has no \"position\" of two numbers of pixels")?;
    let map = entry.get("transform").ok_or("has no \"transform\"")?;
    Ok(Tile {
        location: file(path, entry, "location")?.ok_or("has no \"location\"")?,
        mask: file(path, entry, "mask")?,
        z: z.ok_or("has no \"z\", the whole number of its plane")?,
        shape: shape.map(|n| n as usize),
        position,
        map: transform::steps_of_object(map, path).map_err(|why| format!("transform {why}"))?,
        linked: entry.get("linked").and_then(Value::as_bool).unwrap_or(true),
    })
}

/// Two values along y, x.
fn pair<T: Copy>(
    entry: &Map<String, Value>,
    key: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Option<[T; 2]> {
    let list = entry.get(key)?.as_array()?;
    let [y, x] = list.as_slice() else { return None };
    Some([read(y)?, read(x)?])
}

/// A location relative to the document.
fn file(path: &Path, entry: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    let Some(value) = entry.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let text = value.as_str().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| format!("has a \"{key}\" that is no location"))?;
    if store::is_remote(Path::new(text)) {
        return Ok(Some(text.to_owned()));
    }
    let folder = store::parent(path).unwrap_or(Path::new(""));
    Ok(Some(store::resolve(folder, text).display().to_string()))
}
