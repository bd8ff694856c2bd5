//! The `multiscales` metadata of OME-Zarr 0.4 (Zarr v2) and 0.5 (Zarr v3).
//!
//! Specification: <https://ngff.openmicroscopy.org/0.5/>, "multiscales" metadata: a list of images,
//! each with axes, levels ("datasets"), and coordinate transformations per level and for all
//! levels.

use serde_json::{Map, Value, json};

use crate::geom::Grid;
use crate::volume::calibration::{Calibration, micrometers};
use crate::volume::shorten;

/// One dimension of an image.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::volume) struct Axis {
    /// The name in lower case, such as `t`, `c`, `z`, `y` or `x`.
    pub(in crate::volume) name: String,
    /// The unit as written, such as `micrometer`.
    pub(in crate::volume) unit: Option<String>,
}

/// One resolution of an image: `position = scale * index + translation`, in the units of the axes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::volume) struct Level {
    /// The path from the group to the array.
    pub(in crate::volume) path: String,
    /// The scale along each dimension; empty if there is none.
    pub(in crate::volume) scale: Vec<f64>,
    /// The translation along each dimension; empty if the level has no transformation.
    pub(in crate::volume) translation: Vec<f64>,
}

/// One entry of `multiscales`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::volume) struct Image {
    /// Dimensions, slowest first.
    pub(in crate::volume) axes: Vec<Axis>,
    /// Resolutions, finest first.
    pub(in crate::volume) levels: Vec<Level>,
    /// The version of the metadata; empty if it is not given.
    pub(in crate::volume) version: String,
}

/// The list of images: from version 0.5 on inside `ome`, in older versions at the top level.
fn list(attributes: &Map<String, Value>) -> Option<&Vec<Value>> {
    let within = attributes.get("ome").and_then(|ome| ome.get("multiscales"));
    within.or_else(|| attributes.get("multiscales"))?.as_array()
}

/// Whether a group's attributes describe an image.
pub(in crate::volume) fn is_image(attributes: &Map<String, Value>) -> bool {
    list(attributes).is_some()
}

/// The images that a group's attributes describe; empty if there are none.
///
/// # Errors
/// A message about what is invalid in the metadata.
pub(in crate::volume) fn images(attributes: &Map<String, Value>) -> Result<Vec<Image>, String> {
    let version = attributes
        .get("ome")
        .and_then(|ome| ome.get("version"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    list(attributes).into_iter().flatten().map(|entry| image(entry, version)).collect()
}

fn image(entry: &Value, version: &str) -> Result<Image, String> {
    let datasets = entry.get("datasets").and_then(Value::as_array);
    let datasets = datasets.ok_or("its multiscales metadata have no list 'datasets'")?;
    // from version 0.6 on, axes belong to coordinate systems; the levels are in the first system
    let systems = entry.get("coordinateSystems");
    let listed =
        systems.and_then(|systems| systems.get(0)?.get("axes")).or_else(|| entry.get("axes"));
    let axes: Vec<Axis> = match listed.and_then(Value::as_array) {
        Some(axes) => axes.iter().map(axis).collect::<Result<_, _>>()?,
        // before version 0.3, images had these five dimensions
        None => {
            ["t", "c", "z", "y", "x"].map(|name| Axis { name: name.into(), unit: None }).to_vec()
        }
    };
    // from version 0.6 on, the image's own transformations lead from the first coordinate system to
    // others, so they do not apply to the levels
    let common = entry.get("coordinateTransformations").filter(|_| systems.is_none());
    let levels = datasets
        .iter()
        .map(|dataset| {
            let path = dataset.get("path").and_then(Value::as_str);
            let path = path.ok_or("a dataset of its multiscales metadata has no 'path'")?;
            let mut level = Level { path: path.into(), scale: Vec::new(), translation: Vec::new() };
            for list in [dataset.get("coordinateTransformations"), common].into_iter().flatten() {
                level.apply(list, axes.len())?;
            }
            Ok(level)
        })
        .collect::<Result<_, String>>()?;
    let version = entry.get("version").and_then(Value::as_str).unwrap_or(version).to_owned();
    Ok(Image { axes, levels, version })
}

fn axis(value: &Value) -> Result<Axis, String> {
    let name = value.as_str().or_else(|| value.get("name").and_then(Value::as_str));
    let name = name.ok_or("an axis of its multiscales metadata has no name")?.to_lowercase();
    let unit = value.get("unit").and_then(Value::as_str).map(str::to_owned);
    Ok(Axis { name, unit })
}

impl Level {
    /// Applies the transformations in `list`, in order, after those that this level already has.
    fn apply(&mut self, list: &Value, rank: usize) -> Result<(), String> {
        for step in list.as_array().into_iter().flatten() {
            let kind = step.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind == "identity" {
                continue;
            }
            if kind == "sequence" {
                self.apply(step.get("transformations").unwrap_or(&Value::Null), rank)?;
                continue;
            }
            let numbers = step.get(kind).and_then(Value::as_array);
            let numbers: Vec<f64> =
                numbers.into_iter().flatten().filter_map(Value::as_f64).collect();
            if numbers.len() != rank {
                return Err(format!(
                    "dataset '{}' has a transformation of type '{}' that is not a list of {rank} \
                     numbers, one per axis",
                    shorten(&self.path),
                    shorten(kind)
                ));
            }
            if self.translation.is_empty() {
                self.translation = vec![0.0; rank];
            }
            match kind {
                "scale" => {
                    if self.scale.is_empty() {
                        self.scale = vec![1.0; rank];
                    }
                    for d in 0..rank {
                        self.scale[d] *= numbers[d];
                        self.translation[d] *= numbers[d];
                    }
                }
                "translation" => {
                    for d in 0..rank {
                        self.translation[d] += numbers[d];
                    }
                }
                _ => {
                    return Err(format!(
                        "dataset '{}' has a transformation of type '{}'; scale and translation are \
                         understood",
                        shorten(&self.path),
                        shorten(kind)
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Image {
    /// The spacing and origin of a level. Without a z axis, [`Calibration::pixel`] (along y and x)
    /// is set instead of [`Calibration::spacing`].
    pub(in crate::volume) fn calibration(&self, level: usize) -> Calibration {
        let level = &self.levels[level];
        if level.scale.is_empty() {
            return Calibration::unknown("its multiscales metadata have no scale");
        }
        let mut spacing = [1.0; 3];
        let mut origin = [0.0; 3];
        for (a, name) in ["z", "y", "x"].into_iter().enumerate() {
            let Some(d) = self.axes.iter().position(|axis| axis.name == name) else { continue };
            let Some(unit) = &self.axes[d].unit else {
                return Calibration::unknown(format!("its axis {name} has no unit"));
            };
            let Some(um) = micrometers(unit) else {
                return Calibration::unknown(format!(
                    "its axis {name} has the unit '{}', which is no length",
                    shorten(unit)
                ));
            };
            spacing[a] = level.scale[d] * um;
            origin[a] = level.translation[d] * um;
        }
        let version =
            if self.version.is_empty() { String::new() } else { format!(" {}", self.version) };
        let planar = self.axes.iter().all(|axis| axis.name != "z");
        let [_, y, x] = spacing;
        Calibration {
            spacing: (!planar).then_some(spacing),
            pixel: planar.then_some([y, x]),
            origin: Some(origin),
            source: format!("OME-Zarr{version} scale of '{}'", level.path),
            ..Calibration::default()
        }
    }
}

/// The names of the dimensions, slowest first, of an array that is written on this grid.
pub(in crate::volume) fn names_of(grid: &Grid, channels: bool) -> Vec<&'static str> {
    let space = grid.axes(&["z", "y", "x"]).iter().copied();
    channels.then_some("c").into_iter().chain(space).collect()
}

/// An entry of the list `datasets`; `units` are the lengths in micrometres of the units of the axes
/// z, y, x.
fn dataset(path: &str, grid: &Grid, units: [f64; 3], channels: bool) -> Value {
    let of = |channel: f64, space: &[f64; 3]| -> Vec<f64> {
        let space = std::array::from_fn(|a| space[a] / units[a]);
        channels.then_some(channel).into_iter().chain(grid.axes(&space).iter().copied()).collect()
    };
    let (scale, translation) = (of(1.0, &grid.spacing), of(0.0, &grid.origin));
    json!({"path": path, "coordinateTransformations": [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": translation}
    ]})
}

/// The lengths in micrometres of an image's units along z, y, x. The image must be one that a level
/// with this grid can be added to: axes z, y, x with units of length, preceded by c if `channels`,
/// and no coordinate transformation common to all levels.
fn units(entry: &Value, grid: &Grid, channels: bool) -> Result<[f64; 3], String> {
    let known = image(entry, "")?;
    let names: Vec<&str> = known.axes.iter().map(|axis| axis.name.as_str()).collect();
    let wanted = names_of(grid, channels);
    let space = known.axes.iter().skip(usize::from(channels));
    let units: Option<Vec<f64>> =
        space.map(|axis| axis.unit.as_deref().and_then(micrometers)).collect();
    let units = units.map(|units| if grid.planar { [&[1.0], &units[..]].concat() } else { units });
    match units.and_then(|units| units.try_into().ok()) {
        Some(units) if names == wanted && entry.get("coordinateTransformations").is_none() => {
            Ok(units)
        }
        _ => Err(format!(
            "the image that it would belong to has the axes {}, or no unit of length, or a \
             transformation of its own; write to another container",
            names.join(",")
        )),
    }
}

/// The volume of a voxel in the units of the axes (the product of the scales) of an entry of
/// `datasets`; levels are sorted by it.
fn volume_of(dataset: &Value) -> f64 {
    let steps = dataset.get("coordinateTransformations").and_then(Value::as_array);
    let scale = steps.into_iter().flatten().find_map(|step| step.get("scale")?.as_array());
    scale.into_iter().flatten().filter_map(Value::as_f64).product()
}

/// An image with one level.
fn new_image(zarr3: bool, name: &str, path: &str, grid: &Grid, channels: bool) -> Value {
    let dataset = dataset(path, grid, [1.0; 3], channels);
    let axis = |name: &str| match name {
        "c" => json!({"name": name, "type": "channel"}),
        _ => json!({"name": name, "type": "space", "unit": "micrometer"}),
    };
    let axes: Vec<Value> = names_of(grid, channels).into_iter().map(axis).collect();
    let mut image = json!({"name": name, "axes": axes, "datasets": [dataset]});
    if !zarr3 {
        image["version"] = "0.4".into();
    }
    image
}

/// Whether `name` is that of a pyramid level: digits, with or without `s` before them (`0`, `s0`).
pub(in crate::volume) fn is_level_name(name: &str) -> bool {
    let digits = name.strip_prefix('s').unwrap_or(name);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lists the level `path` with this grid in a group's attributes, replacing an older entry for it;
/// levels are ordered from fine to coarse. A dataset whose name is not that of a level becomes an
/// image of its own.
///
/// # Errors
/// A message about why the level cannot be added to the existing image.
pub(in crate::volume) fn register(
    attributes: &mut Map<String, Value>,
    zarr3: bool,
    name: &str,
    path: &str,
    grid: &Grid,
    channels: bool,
) -> Result<(), String> {
    let mut entries = list(attributes).cloned().unwrap_or_default();
    let lists = |entry: &Value, wanted: &dyn Fn(&str) -> bool| {
        let datasets = entry.get("datasets").and_then(Value::as_array);
        let mut paths =
            datasets.into_iter().flatten().filter_map(|d| d.get("path").and_then(Value::as_str));
        paths.any(wanted)
    };
    let place =
        entries.iter().position(|entry| lists(entry, &|listed| listed == path)).or_else(|| {
            is_level_name(path)
                .then(|| entries.iter().position(|entry| lists(entry, &is_level_name)))
                .flatten()
        });
    if let Some(place) = place {
        let dataset = dataset(path, grid, units(&entries[place], grid, channels)?, channels);
        if let Some(datasets) = entries[place].get_mut("datasets").and_then(Value::as_array_mut) {
            datasets.retain(|d| d.get("path").and_then(Value::as_str) != Some(path));
            datasets.push(dataset);
            datasets.sort_by(|a, b| volume_of(a).total_cmp(&volume_of(b)));
        }
    } else {
        entries.push(new_image(zarr3, name, path, grid, channels));
    }
    if zarr3 {
        let ome = attributes.entry("ome").or_insert_with(|| json!({}));
        if ome.get("version").is_none() {
            ome["version"] = "0.5".into();
        }
        ome["multiscales"] = entries.into();
    } else {
        attributes.insert("multiscales".into(), entries.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn transformations_of_a_level_and_of_the_image_are_multiplied() {
        let attributes = object(&json!({"multiscales": [{
            "axes": [{"name": "c"}, {"name": "z", "unit": "nanometer"},
                     {"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "millimeter"}],
            "datasets": [{"path": "0", "coordinateTransformations": [
                {"type": "scale", "scale": [1, 500, 2, 0.001]},
                {"type": "translation", "translation": [0, 100, 3, 0]}]}],
            "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 2, 2]}],
            "version": "0.4"
        }]}));
        let images = images(&attributes).unwrap();
        let known = images[0].calibration(0);
        assert_eq!(known.spacing, Some([1.0, 4.0, 2.0]));
        assert_eq!(known.origin, Some([0.2, 6.0, 0.0]));
    }

    #[test]
    fn an_image_of_version_0_6_has_its_axes_in_a_system_and_its_places_in_sequences() {
        let axes = ["z", "y", "x"].map(|name| json!({"name": name, "unit": "nanometer"}));
        let attributes = object(&json!({"ome": {"version": "0.6", "multiscales": [{
            "coordinateSystems": [{"name": "physical", "axes": axes}, {"name": "more", "axes": axes}],
            "datasets": [{"path": "s0", "coordinateTransformations": [{
                "type": "sequence", "input": {"path": "s0"}, "output": {"name": "physical"},
                "transformations": [
                    {"type": "scale", "scale": [500, 200, 100]},
                    {"type": "translation", "translation": [1000, 0, 2000]}]}]}],
            "coordinateTransformations": [{"type": "scale", "scale": [2, 2, 2],
                "input": {"name": "physical"}, "output": {"name": "more"}}],
        }]}}));
        let known = images(&attributes).unwrap()[0].calibration(0);
        assert_eq!(known.spacing, Some([0.5, 0.2, 0.1]));
        assert_eq!(known.origin, Some([1.0, 0.0, 2.0]));
    }

    #[test]
    fn levels_registered_in_any_order_are_listed_from_fine_to_coarse() {
        let mut attributes = Map::new();
        for (path, spacing) in [("1", 2.0), ("0", 1.0), ("2", 4.0), ("1", 2.5)] {
            let grid = Grid::new([4; 3], [spacing; 3], [0.0; 3]);
            register(&mut attributes, true, "image", path, &grid, false).unwrap();
        }
        let image = &images(&attributes).unwrap()[0];
        let paths: Vec<_> = image.levels.iter().map(|level| level.path.as_str()).collect();
        assert_eq!(paths, ["0", "1", "2"]);
        assert_eq!(image.levels[1].scale, [2.5; 3]);
    }

    #[test]
    fn a_level_takes_the_units_of_its_image() {
        let axes = ["z", "y", "x"].map(|name| json!({"name": name, "unit": "nanometer"}));
        let mut attributes = object(&json!({"multiscales": [{"axes": axes, "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [40, 4, 4]}]}
        ]}]}));
        let grid = Grid::new([4; 3], [0.08, 0.008, 0.008], [0.02, 0.002, 0.002]);
        register(&mut attributes, false, "image", "1", &grid, false).unwrap();
        let image = &images(&attributes).unwrap()[0];
        for a in 0..3 {
            assert!((image.calibration(1).spacing.unwrap()[a] - grid.spacing[a]).abs() < 1e-12);
            assert!((image.calibration(1).origin.unwrap()[a] - grid.origin[a]).abs() < 1e-12);
        }
    }

    #[test]
    fn an_axis_without_a_unit_is_no_voxel_size() {
        let attributes = object(&json!({"multiscales": [{
            "axes": ["z", "y", "x"],
            "datasets": [{"path": "0", "coordinateTransformations": [
                {"type": "scale", "scale": [1, 1, 1]}]}]}]}));
        let known = images(&attributes).unwrap()[0].calibration(0);
        assert_eq!(known.spacing, None);
        assert!(known.source.contains("no unit"));
    }
}
