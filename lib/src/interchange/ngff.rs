//! OME-NGFF coordinate transformations (RFC 5; version 0.6: `scene`) between named coordinate
//! systems, in the attributes of a group or in a JSON file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::map_steps::{ForeignField, MapStep, Payload, VectorMeaning};
use super::read_error::ReadError;
use crate::geom::{Affine, Grid, Point};
use crate::quote::{self, shorten};
use crate::volume::{self, VectorArray};

mod axes;
mod write;

use axes::{Axes, Systems};
pub(super) use write::{field_path, write};

/// Which transformation to read, and how.
pub(super) struct NgffRequest<'a> {
    /// The name of the transformation, if there are several.
    pub(super) name: Option<&'a str>,
    /// Micrometres per unit, overriding the unit of the axes.
    pub(super) micrometres: Option<f64>,
    /// Whether the map from output to input is wanted.
    pub(super) invert: bool,
}

/// The transformation, and the names of its input and output systems.
pub(super) struct NgffTransform {
    pub(super) pieces: Vec<MapStep>,
    pub(super) input: String,
    pub(super) output: String,
    pub(super) micrometres: f64,
    pub(super) axes: String,
}

/// The attributes of the group or JSON file at `location`, with the folder to which paths in them
/// are relative; `None` if they contain no transformations.
pub(super) fn attributes(
    location: &str,
) -> Result<Option<(Map<String, Value>, PathBuf)>, ReadError> {
    let path = Path::new(location);
    let (attributes, folder) = if path.is_dir() {
        match volume::attributes(location).map_err(|e| ReadError::volume(location, e))? {
            Some((attributes, false)) => (attributes, path.to_owned()),
            _ => return Ok(None),
        }
    } else {
        let text = crate::store::document::read_text(path).map_err(ReadError::io)?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(mut object)) => match object.remove("attributes") {
                Some(Value::Object(inner)) => (inner, path.with_file_name("")),
                _ => (object, path.with_file_name("")),
            },
            _ => return Ok(None),
        }
    };
    Ok((!transformations(&attributes).is_empty()).then_some((attributes, folder)))
}

fn root(attributes: &Map<String, Value>) -> &Map<String, Value> {
    attributes.get("ome").and_then(Value::as_object).unwrap_or(attributes)
}

/// All transformations from one coordinate system to another, which have an input and an output.
/// Transformations of an image's levels are not among them.
fn transformations(attributes: &Map<String, Value>) -> Vec<&Map<String, Value>> {
    let root = root(attributes);
    let lists = [
        root.get("scene").and_then(|scene| scene.get("coordinateTransformations")),
        root.get("coordinateTransformations"),
    ];
    lists
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(Value::as_object)
        .filter(|t| t.contains_key("input") && t.contains_key("output"))
        .collect()
}

/// Reads the requested transformation.
pub(super) fn read(location: &str, request: &NgffRequest) -> Result<NgffTransform, ReadError> {
    let (attributes, folder) = attributes(location)?
        .ok_or("holds no coordinateTransformations from an input to an output")?;
    let all = transformations(&attributes);
    let one = choose(&all, request.name)?;
    let systems = Systems::read(root(&attributes), &folder);
    let reader = NgffReader { folder: &folder, systems: &systems };
    let (input, output) = (systems.named(one, "input")?, systems.named(one, "output")?);
    let micrometres = match request.micrometres {
        Some(micrometres) => micrometres,
        None => input.micrometres().and_then(|unit| {
            let other = output.micrometres()?;
            if unit == other {
                Ok(unit)
            } else {
                Err("has an input and an output of different units".into())
            }
        })?,
    };
    let mut pieces = Vec::new();
    let at = AxesAndUnit { input: &input, output: &output, micrometres };
    reader.transformation(one, &at, request.invert, &mut pieces)?;
    let names = [axes::label(one, "input"), axes::label(one, "output")];
    let backward = names[0].contains("moving") || names[1].contains("fixed");
    if backward && !request.invert {
        let [from, to] = names.map(|name| shorten(&name));
        return Err(format!("goes from '{from}' to '{to}'; give --invert").into());
    }
    let [input_name, output_name] = names;
    Ok(NgffTransform {
        pieces,
        input: input_name,
        output: output_name,
        micrometres,
        axes: input.names(),
    })
}

fn choose<'a>(
    all: &[&'a Map<String, Value>],
    name: Option<&str>,
) -> Result<&'a Map<String, Value>, String> {
    let called = |t: &Map<String, Value>| -> String {
        let own = t.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        own.map_or_else(
            || format!("{} to {}", axes::label(t, "input"), axes::label(t, "output")),
            str::to_owned,
        )
    };
    let listed = || {
        let names: Vec<String> = all.iter().map(|t| format!("'{}'", called(t))).collect();
        quote::list(&names)
    };
    match (name, all) {
        (None, [one]) => Ok(one),
        (None, _) => Err(format!(
            "holds {} transformations; choose one with --name: {}",
            all.len(),
            listed()
        )),
        (Some(name), _) => {
            let found = all.iter().find(|t| called(t) == name);
            found
                .copied()
                .ok_or_else(|| format!("holds no transformation '{name}'; it has {}", listed()))
        }
    }
}

struct AxesAndUnit<'a> {
    input: &'a Axes,
    output: &'a Axes,
    micrometres: f64,
}

struct NgffReader<'a> {
    folder: &'a Path,
    systems: &'a Systems,
}

impl NgffReader<'_> {
    /// Appends the map of `object` or, with `inverse`, the inverse of this map to `pieces`.
    fn transformation(
        &self,
        object: &Map<String, Value>,
        outer: &AxesAndUnit,
        inverse: bool,
        pieces: &mut Vec<MapStep>,
    ) -> Result<(), ReadError> {
        let name = object.get("type").and_then(Value::as_str).unwrap_or_default();
        let (input, output) = (
            self.systems.or(object, "input", outer.input)?,
            self.systems.or(object, "output", outer.output)?,
        );
        let at = AxesAndUnit { input: &input, output: &output, micrometres: outer.micrometres };
        let child = |key: &str| {
            object
                .get(key)
                .and_then(Value::as_object)
                .ok_or_else(|| format!("has a {name} without \"{key}\""))
        };
        match name {
            "identity" => Ok(()),
            "sequence" => {
                let list = object.get("transformations").and_then(Value::as_array);
                let list = list.ok_or("has a sequence without \"transformations\"")?;
                let mut list: Vec<&Value> = list.iter().collect();
                if inverse {
                    list.reverse();
                }
                list.into_iter().try_for_each(|item| {
                    let item =
                        item.as_object().ok_or("has a sequence of what are no transformations")?;
                    self.transformation(item, &at, inverse, pieces)
                })
            }
            "bijection" => {
                let key = if inverse { "inverse" } else { "forward" };
                self.transformation(child(key)?, &at, false, pieces)
            }
            "inverseOf" => {
                let inner = child("transformation").or_else(|_| child("transform"))?;
                let turned = AxesAndUnit { input: &output, output: &input, ..at };
                self.transformation(inner, &turned, !inverse, pieces)
            }
            "displacements" | "coordinates" if inverse => Err(format!(
                "needs the inverse of {name}, which must be computed; import the {name} themselves and give \
                 them to invmap"
            ).into()),
            "displacements" | "coordinates" => {
                pieces.push(MapStep::ForeignField(Box::new(self.field(object, name, &at)?)));
                Ok(())
            }
            _ => {
                let map = matrix(name, object, &at)?;
                let turned = map.inverse().map_err(|e| format!("has a {name}: {e}"))?;
                pieces.push(MapStep::Affine(if inverse { turned } else { map }));
                Ok(())
            }
        }
    }

    fn field(
        &self,
        object: &Map<String, Value>,
        name: &str,
        at: &AxesAndUnit,
    ) -> Result<ForeignField, ReadError> {
        let path = object.get("path").and_then(Value::as_str);
        let path = path.ok_or_else(|| format!("has {name} without a \"path\""))?;
        if path.len() > 1024 {
            return Err(format!("has {name} with the path '{}'", shorten(path)).into());
        }
        if let Some(other) = object.get("interpolation").and_then(Value::as_str)
            && other != "linear"
        {
            let (path, other) = (shorten(path), shorten(other));
            tracing::warn!("{path}: asks for {other} interpolation; it is read for linear");
        }
        let node = self.folder.join(path.trim_start_matches('/'));
        let array = axes::FieldAxes::read(&node)?;
        let vectors = VectorArray::open(&array.location, Some(array.component), array.xyz)
            .map_err(|e| ReadError::because(e.to_string(), e))?;
        let um = at.micrometres;
        let of = |v: Point| v.map(|v| v * um);
        let grid = Grid::new(vectors.shape(), of(array.spacing), of(array.origin));
        // component i is the displacement along the i-th spatial axis of the output
        let mut turn = [[0.0; 3]; 3];
        for (a, place) in at.output.spatial().into_iter().enumerate() {
            if let Some(i) = place {
                turn[a][i] = um;
            }
        }
        let holds = if name == "displacements" {
            VectorMeaning::Displacements
        } else {
            VectorMeaning::Positions
        };
        ForeignField::on_grid(grid, turn, holds, Payload::Array(vectors))
    }
}

/// The map of a transformation that is a single matrix.
fn matrix(name: &str, object: &Map<String, Value>, at: &AxesAndUnit) -> Result<Affine, String> {
    let (n, m) = (at.input.len(), at.output.len());
    let known = ["translation", "scale", "rotation", "affine", "mapAxis"];
    if !known.contains(&name) {
        return Err(format!(
            "has the type '{}', which is not known; wanted identity, translation, scale, rotation, affine, \
             mapAxis, sequence, displacements, coordinates, bijection or inverseOf",
            shorten(name)
        ));
    }
    let value = object.get(name).ok_or_else(|| {
        format!("has a {name} whose numbers are not in the JSON; write them there")
    })?;
    let wrong =
        || format!("has the {name} {}, which does not fit {n} axes to {m}", quote::json(value));
    let numbers = |value: &Value| -> Option<Vec<f64>> {
        value.as_array()?.iter().map(|v| v.as_f64().filter(|v| v.is_finite())).collect()
    };
    let rows = |width: usize| -> Option<Vec<Vec<f64>>> {
        let rows: Option<Vec<Vec<f64>>> = value.as_array()?.iter().map(numbers).collect();
        rows.filter(|rows| rows.len() == m && rows.iter().all(|row| row.len() == width))
    };
    // rows: axes of the output; columns: axes of the input, then the offset
    let mut full = vec![vec![0.0; n + 1]; m];
    match name {
        "translation" | "scale" => {
            let list = numbers(value).filter(|list| list.len() == n && n == m).ok_or_else(wrong)?;
            for (i, v) in list.into_iter().enumerate() {
                full[i][i] = if name == "scale" { v } else { 1.0 };
                full[i][n] = if name == "scale" { 0.0 } else { v };
            }
        }
        "rotation" => {
            for (to, from) in full.iter_mut().zip(rows(n).ok_or_else(wrong)?) {
                to[..n].copy_from_slice(&from);
            }
        }
        "mapAxis" => {
            for (i, source) in
                at.output.sources(at.input, value).ok_or_else(wrong)?.into_iter().enumerate()
            {
                full[i][source] = 1.0;
            }
        }
        _ => full = rows(n + 1).ok_or_else(wrong)?,
    }
    axes::pick(&full, at.input, at.output, at.micrometres).ok_or_else(|| {
        format!("has a {name} that mixes axes of space with others, which cannot be read")
    })
}
