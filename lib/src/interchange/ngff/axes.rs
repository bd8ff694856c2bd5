//! Coordinate systems: which of their axes are z, y and x, and the unit of these axes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::super::read_error::ReadError;
use crate::geom::{Affine, Point};
use crate::quote::{self, shorten};
use crate::volume;

/// An axis of a coordinate system.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    name: String,
    kind: Option<String>,
    unit: Option<String>,
}

/// The axes of a coordinate system, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axes(Vec<Axis>);

impl Axes {
    fn read(system: &Value) -> Option<Self> {
        let text =
            |axis: &Value, key: &str| axis.get(key).and_then(Value::as_str).map(str::to_owned);
        let axes: Option<Vec<Axis>> = system
            .get("axes")?
            .as_array()?
            .iter()
            .map(|axis| {
                Some(Axis {
                    name: text(axis, "name")?,
                    kind: text(axis, "type"),
                    unit: text(axis, "unit"),
                })
            })
            .collect();
        axes.map(Self)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The names of the axes, separated by commas.
    pub(super) fn names(&self) -> String {
        self.0.iter().map(|axis| axis.name.as_str()).collect::<Vec<_>>().join(",")
    }

    fn is_space(axis: &Axis) -> bool {
        match axis.kind.as_deref() {
            Some(kind) => kind == "space" || kind == "array",
            None => !matches!(axis.name.as_str(), "t" | "c"),
        }
    }

    /// The indices of the spatial axes.
    fn space(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|&i| Self::is_space(&self.0[i])).collect()
    }

    /// The indices of z, y and x among the spatial axes: found by name, or else the last three
    /// spatial axes in this order.
    pub(super) fn spatial(&self) -> [Option<usize>; 3] {
        let space = self.space();
        let named = ["z", "y", "x"]
            .map(|name| space.iter().position(|&i| self.0[i].name.eq_ignore_ascii_case(name)));
        if named[1].is_some() && named[2].is_some() {
            return named;
        }
        let count = space.len();
        std::array::from_fn(|a| (count + a).checked_sub(3))
    }

    /// The indices of z, y and x among all axes.
    fn places(&self) -> [Option<usize>; 3] {
        let space = self.space();
        self.spatial().map(|i| i.map(|i| space[i]))
    }

    /// Micrometres in the unit of the spatial axes, which must be the same for all.
    pub(super) fn micrometres(&self) -> Result<f64, String> {
        let mut units: Vec<Option<&str>> =
            self.space().into_iter().map(|i| self.0[i].unit.as_deref()).collect();
        units.dedup();
        match units.as_slice() {
            [Some("micrometer" | "micrometre" | "micron" | "um")] => Ok(1.0),
            [Some("nanometer" | "nanometre" | "nm")] => Ok(1e-3),
            [Some("millimeter" | "millimetre" | "mm")] => Ok(1e3),
            [None] | [] => Err("has axes without a unit; give --unit".to_owned()),
            _ => {
                let units: Vec<&str> = units.iter().map(|unit| unit.unwrap_or("no unit")).collect();
                Err(format!(
                    "has axes in {}, wanted one of micrometer, nanometer and millimeter; give --unit",
                    quote::list(&units)
                ))
            }
        }
    }

    /// For each axis of this output system, the index of the corresponding axis of `input`, as
    /// given by a `mapAxis`: a map from names to names, or a list of indices.
    pub(super) fn sources(&self, input: &Self, map: &Value) -> Option<Vec<usize>> {
        let sources: Vec<usize> = match map {
            Value::Object(names) => self
                .0
                .iter()
                .map(|axis| {
                    let source = names.get(&axis.name)?.as_str()?;
                    input.0.iter().position(|axis| axis.name == source)
                })
                .collect::<Option<_>>()?,
            Value::Array(places) => {
                places.iter().map(|v| Some(v.as_u64()? as usize)).collect::<Option<_>>()?
            }
            _ => return None,
        };
        let each_once = (0..input.len()).all(|i| sources.iter().filter(|s| **s == i).count() == 1);
        (sources.len() == self.len() && each_once).then_some(sources)
    }
}

/// The spatial part of a matrix as a map of `[z, y, x]` micrometres; `um` is micrometres per unit.
/// `None` if the matrix mixes spatial axes with others.
pub(super) fn pick(full: &[Vec<f64>], input: &Axes, output: &Axes, um: f64) -> Option<Affine> {
    let (columns, rows) = (input.places(), output.places());
    let width = input.len();
    for (r, row) in full.iter().enumerate() {
        for (c, value) in row[..width].iter().enumerate() {
            if rows.contains(&Some(r)) != columns.contains(&Some(c)) && *value != 0.0 {
                return None;
            }
        }
    }
    let mut map = Affine::IDENTITY.rows();
    for a in 0..3 {
        match (rows[a], columns[a]) {
            (Some(r), Some(_)) => {
                for b in 0..3 {
                    map[a][b] = columns[b].map_or(0.0, |c| full[r][c]);
                }
                map[a][3] = full[r][width] * um;
            }
            (None, None) => {}
            _ => return None,
        }
    }
    Some(Affine::from_rows(map))
}

/// The name of a transformation's `input` or `output`.
pub(super) fn label(object: &Map<String, Value>, key: &str) -> String {
    match object.get(key) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Object(reference)) => {
            let text = |key: &str| reference.get(key).and_then(Value::as_str);
            match (text("path"), text("name")) {
                (Some(path), Some(name)) => format!("{path}/{name}"),
                (Some(one), None) | (None, Some(one)) => one.to_owned(),
                (None, None) => String::new(),
            }
        }
        _ => String::new(),
    }
}

/// All coordinate systems, by name, or by `path/name` for those of another group.
pub(super) struct Systems {
    known: BTreeMap<String, Axes>,
}

impl Systems {
    pub(super) fn read(root: &Map<String, Value>, folder: &Path) -> Self {
        let mut known = BTreeMap::new();
        add(root, "", &mut known);
        // add the systems of images that transformations refer to
        let text = Value::Object(root.clone()).to_string();
        let paths = text.split("\"path\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        for path in paths {
            let there = folder.join(path.trim_start_matches('/')).display().to_string();
            if let Ok(Some((attributes, false))) = volume::attributes(&there) {
                add(super::root(&attributes), &format!("{path}/"), &mut known);
            }
        }
        Self { known }
    }

    /// The coordinate system named by `key` of a transformation.
    pub(super) fn named(&self, object: &Map<String, Value>, key: &str) -> Result<Axes, String> {
        let name = label(object, key);
        self.known.get(&name).cloned().ok_or_else(|| {
            format!(
                "has no coordinate system '{}', which a transformation names as its {key}",
                shorten(&name)
            )
        })
    }

    /// Like [`Systems::named`], but gives `outer`, the system of the enclosing transformation, if
    /// none is named.
    pub(super) fn or(
        &self,
        object: &Map<String, Value>,
        key: &str,
        outer: &Axes,
    ) -> Result<Axes, String> {
        if object.contains_key(key) && !label(object, key).is_empty() {
            self.named(object, key)
        } else {
            Ok(outer.clone())
        }
    }
}

fn add(root: &Map<String, Value>, prefix: &str, known: &mut BTreeMap<String, Axes>) {
    let mut holders: Vec<&Value> = root.get("scene").into_iter().collect();
    holders.extend(root.get("multiscales").and_then(Value::as_array).into_iter().flatten());
    let lists = holders.into_iter().map(|holder| holder.get("coordinateSystems"));
    for system in
        lists.chain([root.get("coordinateSystems")]).flatten().filter_map(Value::as_array).flatten()
    {
        if let (Some(name), Some(axes)) =
            (system.get("name").and_then(Value::as_str), Axes::read(system))
        {
            known.insert(format!("{prefix}{name}"), axes);
        }
    }
}

/// The arrangement of a field's array, with lengths in the unit of its coordinate system.
pub(super) struct FieldAxes {
    pub(super) location: String,
    /// The dimension of the vector components.
    pub(super) component: usize,
    /// Whether the other dimensions are x, y, z instead of z, y, x.
    pub(super) xyz: bool,
    pub(super) spacing: Point,
    pub(super) origin: Point,
}

impl FieldAxes {
    /// Reads the arrangement of an array with its own metadata (RFC 5), or of the first level of a
    /// group with `multiscales` (0.6).
    pub(super) fn read(node: &Path) -> Result<Self, ReadError> {
        let location = node.display().to_string();
        let bad = |what: &str| format!("refers to {}, which {what}", shorten(&location));
        let (attributes, is_array) = volume::attributes(&location)
            .map_err(|e| ReadError::volume(&location, e))?
            .ok_or_else(|| bad("is not there"))?;
        let root = super::root(&attributes);
        let image = root.get("multiscales").and_then(|list| list.get(0));
        let systems = image
            .and_then(|image| image.get("coordinateSystems"))
            .or_else(|| root.get("coordinateSystems"));
        let axes = systems
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Axes::read)
            .find(|axes| axes.0.iter().any(is_component))
            .ok_or_else(|| {
                bad("has no coordinate system with an axis of displacements or coordinates")
            })?;
        let component = axes.0.iter().position(is_component).unwrap_or_default();
        let (array, calibration) = match (is_array, image) {
            (false, Some(image)) => {
                let level = image.get("datasets").and_then(|list| list.get(0));
                let path = level.and_then(|level| level.get("path")).and_then(Value::as_str);
                let path = path.ok_or_else(|| bad("has no datasets"))?;
                (node.join(path), level.and_then(|level| level.get("coordinateTransformations")))
            }
            (true, _) => (node.to_owned(), root.get("coordinateTransformations")),
            (false, None) => return Err(bad("is a group without multiscales").into()),
        };
        let spatial = axes.spatial();
        let xyz = spatial[2] < spatial[1];
        let order: Vec<usize> = spatial.into_iter().flatten().collect();
        if !(order.is_sorted() || order.iter().rev().is_sorted()) {
            return Err(bad("has axes that are neither z,y,x nor x,y,z").into());
        }
        let (scale, shift) = calibrate(calibration, axes.len()).ok_or_else(|| {
            bad("is placed by something else than a scale and a translation of all its axes")
        })?;
        let places = axes.places();
        Ok(Self {
            location: array.display().to_string(),
            component,
            xyz,
            spacing: places.map(|i| i.map_or(1.0, |i| scale[i])),
            origin: places.map(|i| i.map_or(0.0, |i| shift[i])),
        })
    }
}

fn is_component(axis: &Axis) -> bool {
    matches!(axis.kind.as_deref(), Some("displacement" | "coordinate"))
}

/// Composes a list of scales and translations, possibly nested, into one scale and translation.
fn calibrate(list: Option<&Value>, rank: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let (mut scale, mut shift) = (vec![1.0; rank], vec![0.0; rank]);
    let mut pending: Vec<&Value> =
        list.and_then(Value::as_array).into_iter().flatten().rev().collect();
    while let Some(item) = pending.pop() {
        let name = item.get("type")?.as_str()?;
        if name == "sequence" {
            pending.extend(item.get("transformations")?.as_array()?.iter().rev());
            continue;
        }
        if name == "identity" {
            continue;
        }
        let numbers: Vec<f64> =
            item.get(name)?.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
        if numbers.len() != rank || !matches!(name, "scale" | "translation") {
            return None;
        }
        for i in 0..rank {
            if name == "scale" {
                scale[i] *= numbers[i];
                shift[i] *= numbers[i];
            } else {
                shift[i] += numbers[i];
            }
        }
    }
    Some((scale, shift))
}
