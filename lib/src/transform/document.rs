//! Chains of transforms as JSON, after OME-NGFF's coordinate transformations (RFC 5).

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::convention::{CoordinateConvention, DIRECTION, Direction, check_direction};
use super::numbers::{self, Located};
use super::{Error, LOCAL_AFFINES};
use crate::geom::{Affine, Chain, Point, Transform};
use crate::quote::{self, shorten};
use crate::store;
use crate::store::document::{self, write_whole};

/// One step of a chain as the document stores it: arrays are given by location.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A matrix, stored in the document itself.
    Affine(Affine),
    /// The location of a displacement field.
    Field(String),
    /// The location of an array of local affines.
    LocalAffines(String),
}

/// Reads the steps of a document; relative locations of arrays are resolved against its folder.
///
/// A document whose direction is not `wanted` is refused, not inverted. With
/// [`Direction::MovingToFixed`] the steps returned are the inverse of the ones stored.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is not a valid chain.
pub fn read_document(path: &Path, wanted: Direction) -> Result<Vec<Step>, Error> {
    let location = path.display().to_string();
    let text = document::read_text(path).map_err(|source| Error::Io {
        action: "read",
        path: location.clone(),
        source,
    })?;
    parse(&text, path, wanted).map_err(|message| Error::Format { location, message })
}

/// Writes a chain of affines as JSON, atomically.
///
/// A [`Chain`] does not contain the locations of its fields and local affines, so a chain with such
/// steps is refused; write it with [`write_document`].
///
/// # Errors
/// [`Error::Format`] if a step is not an affine, is singular or is not finite; [`Error::Io`].
///
/// ```
/// use voxloom::geom::{Affine, Chain};
/// use voxloom::transform;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("global.json");
/// let map = Affine::translation([0.0, 1.5, -3.0]);
/// transform::write_chain(&path, &Chain::affine(map))?;
/// let read = transform::read_chain(&[path.display().to_string()])?;
/// assert_eq!(read.as_affine(), Some(map));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_chain(path: &Path, chain: &Chain) -> Result<(), Error> {
    let steps: Option<Vec<Step>> = chain
        .steps
        .iter()
        .map(|step| match step {
            Transform::Affine(map) => Some(Step::Affine(*map)),
            _ => None,
        })
        .collect();
    let steps = steps.ok_or_else(|| Error::Format {
        location: path.display().to_string(),
        message:
            "only matrices can be written out as JSON; write fields and local affines as arrays \
                  and refer to them"
                .to_owned(),
    })?;
    write_document(path, &steps)
}

/// Writes the steps of a chain as JSON, atomically. Arrays are referred to by paths relative to the
/// document, so that the document and the arrays can be moved together.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for an affine that is singular or not finite.
pub fn write_document(path: &Path, steps: &[Step]) -> Result<(), Error> {
    for step in steps {
        if let Step::Field(array) | Step::LocalAffines(array) = step
            && store::is_remote(path)
            && !store::is_remote(Path::new(array))
        {
            tracing::warn!(
                "{} refers to {array} on this machine's disk, and can be read only here; copy that array to \
                 the bucket, and write a document that refers to the copy",
                path.display()
            );
        }
    }
    let document = compose(path, steps)
        .map_err(|message| Error::Format { location: path.display().to_string(), message })?;
    let mut text = pretty(&document, 0);
    text.push('\n');
    write_whole(path, text.as_bytes()).map_err(|source| Error::Io {
        action: "write",
        path: path.display().to_string(),
        source,
    })
}

/// The object of a chain in the document at `path`, which can hold other things too. Arrays are
/// referred to by paths relative to the document.
///
/// # Errors
/// A message that names an affine that is singular or not finite.
pub fn compose(path: &Path, steps: &[Step]) -> Result<Value, String> {
    let mut transformations = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        transformations.push(match step {
            Step::Affine(map) => {
                numbers::check_affine(&Located::root("transformations").item(i), map)?;
                json!({ "type": "affine", "affine": map.rows() })
            }
            Step::Field(location) => {
                json!({ "type": "displacements", "path": relative(path, location) })
            }
            Step::LocalAffines(location) => {
                json!({ "type": LOCAL_AFFINES, "path": relative(path, location) })
            }
        });
    }
    if transformations.is_empty() {
        transformations.push(json!({ "type": "identity" }));
    }
    Ok(json!({
        "type": "sequence",
        "direction": DIRECTION,
        "input": "fixed",
        "output": "moving",
        "axes": ["z", "y", "x"],
        "unit": "micrometer",
        "transformations": transformations,
    }))
}

/// The steps of a chain in the object that [`compose`] made for the document at `path`.
///
/// # Errors
/// A message that says what is wrong with the object.
pub fn steps_of(object: &Value, path: &Path) -> Result<Vec<Step>, String> {
    let object = object.as_object().ok_or("is no transform; wanted an object")?;
    let mut steps = Vec::new();
    DocumentReader { path, wanted: Direction::FixedToMoving }.top(object, &mut steps)?;
    Ok(steps)
}

/// Formats JSON with arrays of scalars on one line, so that a matrix shows as rows.
///
/// * `depth`: by how many levels the value is indented
pub fn pretty(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    let nested = |v: &Value| v.is_array() || v.is_object();
    let (open, items, close) = match value {
        Value::Array(list) if list.iter().any(nested) => {
            ('[', list.iter().map(|v| pretty(v, depth + 1)).collect::<Vec<_>>(), ']')
        }
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(Value::to_string).collect();
            return format!("[{}]", items.join(", "));
        }
        Value::Object(map) if !map.is_empty() => {
            let item = |(key, v): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), pretty(v, depth + 1))
            };
            ('{', map.iter().map(item).collect(), '}')
        }
        _ => return value.to_string(),
    };
    let body = items.join(&format!(",\n{indent}"));
    format!("{open}\n{indent}{body}\n{}{close}", "  ".repeat(depth))
}

fn parse(text: &str, path: &Path, wanted: Direction) -> Result<Vec<Step>, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| not_json(text, &e))?;
    let Value::Object(object) = value else {
        return Err(
            "is JSON and no transform; wanted an object with \"type\", \"direction\", \"axes\" \
                    and \"unit\""
                .to_owned(),
        );
    };
    let reader = DocumentReader { path, wanted };
    let mut steps = Vec::new();
    reader.top(&object, &mut steps)?;
    if wanted == Direction::MovingToFixed {
        steps.reverse();
        for step in &mut steps {
            let Step::Affine(map) = step else {
                return Err("holds an array, and only matrices can be inverted here".to_owned());
            };
            *map = map.inverse().map_err(|e| e.to_string())?;
        }
    }
    Ok(steps)
}

/// Explains a syntax error. If the cause is NaN or Infinity, which Python writes but JSON does not
/// allow, the message names it.
fn not_json(text: &str, error: &serde_json::Error) -> String {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = line.get(error.column().saturating_sub(2)..).unwrap_or_default();
    if let Some(word) = ["NaN", "Infinity"].into_iter().find(|word| at.contains(word)) {
        return format!(
            "line {} holds {word}, wanted finite numbers; it comes from a fit that failed: make it anew",
            error.line()
        );
    }
    let why = quote::json_error(error);
    format!("is not a transform, for it is not valid JSON: {why}")
}

struct DocumentReader<'a> {
    path: &'a Path,
    wanted: Direction,
}

impl DocumentReader<'_> {
    fn top(&self, object: &Map<String, Value>, steps: &mut Vec<Step>) -> Result<(), String> {
        let known = ["type", "transformations", "coordinateTransformations"];
        if !known.iter().any(|key| object.contains_key(*key)) {
            let keys: Vec<_> = object.keys().take(5).map(String::as_str).collect();
            return Err(format!(
                "is JSON and no transform (found: {}); wanted \"type\" with \"direction\", \"axes\" and \
                 \"unit\"",
                quote::list(&keys)
            ));
        }
        check_direction(object, self.wanted)?;
        let frame = CoordinateConvention::read(object, None)?;
        self.transformation(object, frame, &Located::root(""), steps)
    }

    /// Appends the steps of `object` to `steps`.
    fn transformation(
        &self,
        object: &Map<String, Value>,
        frame: CoordinateConvention,
        at: &Located,
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let name = match object.get("type") {
            Some(name) => name.as_str().unwrap_or_default(),
            None => "sequence",
        };
        let within = |key: &str| {
            object.get(key).ok_or_else(|| at.of(&format!("has no \"{key}\", which a {name} needs")))
        };
        match name {
            "identity" => {}
            "sequence" => {
                let key = ["coordinateTransformations", "transformations"]
                    .into_iter()
                    .find(|key| object.contains_key(*key))
                    .unwrap_or("transformations");
                let at = at.member(key);
                let list = within(key)?.as_array().ok_or(format!("{at} is no list"))?;
                for (i, item) in list.iter().enumerate() {
                    self.nested(item, frame, &at.item(i), steps)?;
                }
            }
            "bijection" => self.nested(within("forward")?, frame, &at.member("forward"), steps)?,
            "displacements" => steps.push(Step::Field(self.resolve(within("path")?, at)?)),
            LOCAL_AFFINES => steps.push(Step::LocalAffines(self.resolve(within("path")?, at)?)),
            "affine" | "rotation" | "scale" | "translation" => {
                let numbers = within(name)?;
                let at = at.member(name);
                let map = matrix(name, numbers, frame, &at)?;
                numbers::check_affine(&at, &map)?;
                steps.push(Step::Affine(map));
            }
            other => {
                return Err(format!(
                    "{}the type \"{}\", which is not known; wanted identity, translation, scale, \
                     rotation, affine, displacements, {LOCAL_AFFINES}, sequence or bijection",
                    at.of("has "),
                    shorten(other)
                ));
            }
        }
        Ok(())
    }

    /// Like [`Self::transformation`], for a nested transformation, which may restate direction,
    /// axes and unit.
    fn nested(
        &self,
        value: &Value,
        outer: CoordinateConvention,
        at: &Located,
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let object = value
            .as_object()
            .ok_or_else(|| format!("{at} is no transformation: {}", quote::json(value)))?;
        if object.contains_key("direction") {
            check_direction(object, self.wanted).map_err(|e| format!("{at} {e}"))?;
        }
        let frame =
            CoordinateConvention::read(object, Some(outer)).map_err(|e| format!("{at} {e}"))?;
        self.transformation(object, frame, at, steps)
    }

    /// The location of the array at `path`, relative to the document. If nothing is there and the
    /// document is a symbolic link (workflow engines link inputs into other folders), the path is
    /// resolved against the folder of the link's target.
    fn resolve(&self, path: &Value, at: &Located) -> Result<String, String> {
        let path = path.as_str().filter(|path| !path.is_empty()).ok_or_else(|| {
            format!(
                "{} is {}, wanted the location of an array",
                at.member("path"),
                quote::json(path)
            )
        })?;
        if path.contains("://") || Path::new(path).is_absolute() {
            return Ok(path.to_owned());
        }
        let folder = self.path.with_file_name("");
        let here = store::resolve(&folder, path);
        let real = self.path.canonicalize().map(|real| real.with_file_name("").join(path));
        let found = match real {
            Ok(real) if !here.exists() && real.exists() => real,
            _ => here,
        };
        Ok(found.display().to_string())
    }
}

/// The map of an `affine`, `rotation`, `scale` or `translation`.
fn matrix(
    name: &str,
    value: &Value,
    frame: CoordinateConvention,
    at: &Located,
) -> Result<Affine, String> {
    const UNIT: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    Ok(match name {
        "translation" => Affine::translation(frame.vector(numbers::triple(value, at)?)),
        "scale" => {
            let factors = frame.factors(numbers::triple(value, at)?);
            let mut linear = UNIT;
            for a in 0..3 {
                linear[a][a] = factors[a];
            }
            Affine::from_parts(linear, [0.0; 3])
        }
        "rotation" => {
            let rows = numbers::rows(value, at, &[3], 3)?;
            let linear: [[f64; 3]; 3] =
                std::array::from_fn(|r| [rows[r][0], rows[r][1], rows[r][2]]);
            numbers::check_rotation(&linear, at)?;
            frame.affine(linear, [0.0; 3])
        }
        _ => {
            let rows = numbers::rows(value, at, &[3, 4], 4)?;
            numbers::check_last_row(rows.get(3).map(Vec::as_slice), &at.to_string())?;
            let translation: Point = std::array::from_fn(|r| rows[r][3]);
            frame.affine(std::array::from_fn(|r| [rows[r][0], rows[r][1], rows[r][2]]), translation)
        }
    })
}

/// `location` relative to the folder of `document`; the address or the absolute path of `location`
/// if only one of the two is in a bucket, or if they are in different buckets.
pub fn relative(document: &Path, location: &str) -> String {
    let absolute = |path: &Path| {
        if store::is_remote(path) { Ok(path.to_owned()) } else { std::path::absolute(path) }
    };
    let folder = absolute(document).map(|path| path.with_file_name(""));
    let (Ok(folder), Ok(target)) = (folder, absolute(Path::new(location))) else {
        return location.to_owned();
    };
    if !store::is_same_root(&folder, &target) {
        return target.display().to_string();
    }
    let (folder, target) = (normalise_path(&folder), normalise_path(&target));
    let shared = folder.iter().zip(&target).take_while(|(a, b)| a == b).count();
    let mut path: PathBuf = folder[shared..].iter().map(|_| "..").collect();
    path.extend(&target[shared..]);
    path.display().to_string()
}

/// The components of an absolute path, with `.` and `..` resolved lexically.
fn normalise_path(path: &Path) -> Vec<std::ffi::OsString> {
    let mut parts: Vec<std::ffi::OsString> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir if parts.len() > 1 => {
                parts.pop();
            }
            Component::CurDir | Component::ParentDir => {}
            part => parts.push(part.as_os_str().to_owned()),
        }
    }
    parts
}
