//! Dimension names, spacing and origin from the attributes of an array and of the groups above it,
//! in conventions other than OME's, which N5 tools and BigStream use in N5 and in Zarr.
//!
//! * `axes`, `units`, `resolution`: tensorstore's N5 driver, ilastik
//! * `pixelResolution`, `downsamplingFactors`, `scales`: n5-viewer, n5-spark, BigStitcher,
//!   BigStream
//! * `resolution`, `offset`, `downsamplingFactors`: Paintera, `BigDataViewer`
//! * `transform` of an array, or of its entry in the `multiscales` above it: COSEM
//! * `pixelWidth`, `pixelUnit`, `numChannels` and related attributes: Fiji (n5-ij)
//! * `spacing`, `origin`, `unit`: displacement fields of this library
//!
//! N5 lists per-dimension values with the fastest dimension first, as in `dimensions`; COSEM lists
//! the slowest first, unless it has `"order": "F"`.

use serde_json::{Map, Value};

use crate::geom::Point;
use crate::volume::calibration::{Calibration, micrometers};
use crate::volume::node::{Container, Node};
use crate::volume::{Error, shorten};

/// The dimension names and the calibration that were read from attributes.
pub(in crate::volume) struct Said {
    /// The names of the dimensions, slowest first, if they are given.
    pub(in crate::volume) names: Option<Vec<String>>,
    /// Spacing and origin.
    pub(in crate::volume) calibration: Calibration,
    /// Notes about values that were assumed or ignored.
    pub(in crate::volume) notes: Vec<String>,
}

/// The calibration according to one convention: `None` if its attributes are absent, an error if
/// they cannot be interpreted.
type FoundCalibration = Option<Result<Calibration, String>>;

const AXES: [&str; 3] = ["z", "y", "x"];

/// The default names of dimensions, slowest first: the last three are z, y, x.
pub(in crate::volume) fn default_names(rank: usize) -> Vec<String> {
    let all = ["t", "c", "z", "y", "x"];
    let known = all.len().min(rank);
    let mut names: Vec<String> = (0..rank - known).map(|d| format!("dimension {d}")).collect();
    names.extend(all[all.len() - known..].iter().map(|name| (*name).to_owned()));
    names
}

/// Reads the attributes of the array `node` and of the groups above it.
///
/// # Errors
/// [`Error`] if the metadata of a group above cannot be read.
pub(in crate::volume) fn of(node: &Node) -> Result<Said, Error> {
    let rank = node.metadata.get("shape").or(node.metadata.get("dimensions"));
    let rank = rank.and_then(Value::as_array).map_or(3, Vec::len);
    let mut notes = Vec::new();
    let parents = node.parents()?;
    let names = names(node, &parents, rank, &mut notes);
    let known = names.clone().unwrap_or_else(|| default_names(rank));
    if names.is_none() && rank > 3 && node.container == Container::N5 {
        let listed: Vec<&str> = known.iter().rev().map(String::as_str).collect();
        notes.push(format!(
            "its metadata do not name its {rank} dimensions; they are taken as {}, fastest first",
            listed.join(", ")
        ));
    }
    let attributes = &node.attributes;
    let listed = parents
        .iter()
        .find_map(|(parent, relative)| listed_transform(&parent.attributes, relative).map(cosem));
    let mut found = None;
    for candidate in
        [own(attributes), attributes.get("transform").map(cosem), listed, fiji(attributes)]
    {
        match candidate {
            Some(Ok(calibration)) => found = found.or(Some(calibration)),
            Some(Err(reason)) if found.is_none() => notes.push(reason),
            _ => {}
        }
    }
    let calibration = match found {
        Some(calibration) => calibration,
        None => pixels(node, &parents, &known, &mut notes),
    };
    Ok(Said { names, calibration, notes })
}

/// A list of strings, converted to lower case.
fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| Some(name.as_str()?.trim().to_lowercase())).collect()
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

/// The names of the dimensions, slowest first.
fn names(
    node: &Node,
    parents: &[(Node, String)],
    rank: usize,
    notes: &mut Vec<String>,
) -> Option<Vec<String>> {
    let slowest_first = node.container != Container::N5;
    let attributes = &node.attributes;
    let zarr = |value: Option<&Value>| value.filter(|_| slowest_first).and_then(of_zarr);
    let mut candidates = vec![
        ("dimension_names", zarr(node.metadata.get("dimension_names"))),
        ("_ARRAY_DIMENSIONS", zarr(attributes.get("_ARRAY_DIMENSIONS"))),
        (
            "axes",
            attributes.get("axes").and_then(strings).map(|mut axes| {
                if !slowest_first {
                    axes.reverse();
                }
                axes
            }),
        ),
        ("transform", attributes.get("transform").and_then(axes_of)),
    ];
    let listed = parents.iter().find_map(|(parent, relative)| {
        listed_transform(&parent.attributes, relative).and_then(axes_of)
    });
    candidates.push(("multiscales", listed));
    candidates.push(("numChannels", dimensions_of_fiji(attributes)));
    for (what, names) in candidates {
        let Some(names) = names else { continue };
        let named = |axis: &str| names.iter().filter(|name| *name == axis).count() == 1;
        if names.len() == rank && named("x") && named("y") {
            return Some(names);
        }
        notes.push(format!(
            "its {what} ({}) do not name {rank} dimensions with x and y among them, and are ignored",
            shorten(&names.join(", "))
        ));
    }
    None
}

/// The dimension names of Zarr v3 or xarray. A missing name becomes `dimension` and its index;
/// `None` if all are missing.
fn of_zarr(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array()?;
    if list.iter().all(Value::is_null) {
        return None;
    }
    let name = |(d, name): (usize, &Value)| match name.as_str() {
        Some(name) => name.trim().to_lowercase(),
        None => format!("dimension {d}"),
    };
    Some(list.iter().enumerate().map(name).collect())
}

/// The axes of COSEM's `transform`, slowest first.
fn axes_of(transform: &Value) -> Option<Vec<String>> {
    let mut axes = strings(transform.get("axes")?)?;
    let order = transform.get("order").or(transform.get("ordering")).and_then(Value::as_str);
    // without an explicit order, a list that begins with x is fastest first, as in N5
    let fastest_first = match order {
        Some(order) => order == "F",
        None => axes.first().is_some_and(|first| first == "x"),
    };
    if fastest_first {
        axes.reverse();
    }
    Some(axes)
}

/// The `transform` that COSEM gives an array in its entry of `multiscales`.
fn listed_transform<'a>(attributes: &'a Map<String, Value>, relative: &str) -> Option<&'a Value> {
    let images = attributes.get("multiscales")?.as_array()?;
    let datasets = images.iter().filter_map(|image| image.get("datasets")?.as_array()).flatten();
    let mut datasets = datasets.filter(|dataset| {
        let path = dataset.get("path").and_then(Value::as_str);
        path.is_some_and(|path| path.trim_matches('/') == relative)
    });
    datasets.find_map(|dataset| dataset.get("transform"))
}

/// The calibration from the attributes `spacing`, `origin` and `unit` of displacement fields.
fn own(attributes: &Map<String, Value>) -> FoundCalibration {
    let three = |key: &str| -> Option<Point> { numbers(attributes.get(key)?)?.try_into().ok() };
    let spacing = three("spacing")?;
    let unit = attributes.get("unit").and_then(Value::as_str).unwrap_or("um");
    let Some(um) = micrometers(unit) else { return Some(Err(no_length("spacing", unit))) };
    Some(Ok(Calibration {
        spacing: Some(spacing.map(|v| v * um)),
        origin: three("origin").map(|origin| origin.map(|v| v * um)),
        source: "spacing".into(),
        ..Calibration::default()
    }))
}

fn no_length(what: &str, unit: &str) -> String {
    format!("its {what} has the unit '{}', which is no length", shorten(unit))
}

/// The calibration from `transform: {axes, scale, translate, units}`, which COSEM and (in N5) this
/// library write.
fn cosem(transform: &Value) -> Result<Calibration, String> {
    let bad = || {
        let shown = shorten(&transform.to_string());
        format!("its transform {shown} lacks one of axes, scale and units for each of z, y, x")
    };
    let axes = transform.get("axes").and_then(strings).ok_or_else(bad)?;
    let list = |key: &str| transform.get(key).and_then(numbers);
    let scale = list("scale").filter(|scale| scale.len() == axes.len()).ok_or_else(bad)?;
    let translate = match transform.get("translate") {
        None | Some(Value::Null) => vec![0.0; axes.len()],
        Some(_) => list("translate").filter(|t| t.len() == axes.len()).ok_or_else(bad)?,
    };
    let units = transform.get("units").and_then(Value::as_array).ok_or_else(bad)?;
    let planar = axes.iter().all(|name| name != AXES[0]);
    let mut spacing = [1.0; 3];
    let mut origin = [0.0; 3];
    for (a, axis) in AXES.into_iter().enumerate() {
        let Some(i) = axes.iter().position(|name| name == axis) else {
            // a single plane has no z
            if a == 0 {
                continue;
            }
            return Err(bad());
        };
        let unit = units.get(i).and_then(Value::as_str).ok_or_else(bad)?;
        let um = micrometers(unit).ok_or_else(|| no_length("transform", unit))?;
        (spacing[a], origin[a]) = (scale[i] * um, translate[i] * um);
    }
    let [_, y, x] = spacing;
    Ok(Calibration {
        spacing: (!planar).then_some(spacing),
        pixel: planar.then_some([y, x]),
        origin: Some(origin),
        source: "transform".into(),
        ..Calibration::default()
    })
}

/// The calibration from Fiji's `pixelWidth`, `pixelHeight`, `pixelDepth`, `pixelUnit`, and from
/// `xOrigin`, `yOrigin`, `zOrigin`, the index of the voxel at position 0.
fn fiji(attributes: &Map<String, Value>) -> FoundCalibration {
    let number = |key: &str| attributes.get(key).and_then(Value::as_f64);
    let (width, height) = (number("pixelWidth")?, number("pixelHeight")?);
    let unit = attributes.get("pixelUnit").and_then(Value::as_str).unwrap_or_default();
    let Some(um) = micrometers(unit) else { return Some(Err(no_length("pixelWidth", unit))) };
    let spacing = [number("pixelDepth").unwrap_or(1.0), height, width].map(|v| v * um);
    let zero = ["zOrigin", "yOrigin", "xOrigin"].map(|key| number(key).unwrap_or(0.0));
    let origin = std::array::from_fn(|a| if zero[a] == 0.0 { 0.0 } else { -zero[a] * spacing[a] });
    Some(Ok(Calibration {
        spacing: Some(spacing),
        origin: Some(origin),
        source: "pixelWidth and pixelUnit".into(),
        ..Calibration::default()
    }))
}

/// Fiji's dimensions, slowest first: the reverse of x, y, c, z, t without those of size 1.
fn dimensions_of_fiji(attributes: &Map<String, Value>) -> Option<Vec<String>> {
    let several = |key: &str| Some(attributes.get(key)?.as_u64()? > 1);
    let mut names = vec!["x", "y"];
    for (key, name) in [("numChannels", "c"), ("numSlices", "z"), ("numFrames", "t")] {
        if several(key)? {
            names.push(name);
        }
    }
    names.reverse();
    Some(names.into_iter().map(str::to_owned).collect())
}

/// Reorders a list with one number per dimension to z, y, x, and returns the labels of its entries.
/// The list is in the order of `axes` in the same attributes, else fastest dimension first.
fn by_axis(
    attributes: &Map<String, Value>,
    value: &Value,
    names: &[String],
) -> Option<(Point, Vec<String>)> {
    let list = numbers(value)?;
    let fastest_first: Vec<String> = names.iter().rev().cloned().collect();
    let space = || ["x", "y", "z"].iter().take(list.len()).map(|name| (*name).to_owned()).collect();
    let axes = attributes.get("axes").and_then(strings).filter(|axes| axes.len() == list.len());
    let labels: Vec<String> = match axes {
        Some(axes) => axes,
        None if list.len() == names.len() => fastest_first,
        None if list.len() == 3 => space(),
        None => return None,
    };
    let mut point = [1.0; 3];
    for (a, axis) in AXES.into_iter().enumerate() {
        match labels.iter().position(|name| name == axis) {
            Some(i) => point[a] = list[i],
            None if names.iter().any(|name| name == axis) => return None,
            None => {}
        }
    }
    Some((point, labels))
}

/// A voxel size in micrometres, the lengths of its units in micrometres, and the attribute that
/// states it.
struct Size {
    spacing: Point,
    units: Point,
    source: String,
}

/// The voxel size from `pixelResolution` (a list, or an object with `dimensions` and `unit`) or
/// `resolution`, with the attributes `units` or `unit`. Without a unit, micrometres are assumed.
fn resolution(
    attributes: &Map<String, Value>,
    names: &[String],
    notes: &mut Vec<String>,
) -> Option<Result<Size, String>> {
    for name in ["pixelResolution", "resolution"] {
        let Some(value) = attributes.get(name) else { continue };
        let list = value.get("dimensions").unwrap_or(value);
        let Some((size, labels)) = by_axis(attributes, list, names) else {
            notes.push(format!(
                "its {name} {} does not fit its dimensions, and is ignored",
                shorten(&value.to_string())
            ));
            continue;
        };
        let units = attributes.get("units").and_then(Value::as_array);
        let units = units.filter(|units| units.len() == labels.len());
        let one = value.get("unit").or(attributes.get("unit")).and_then(Value::as_str);
        let mut units_um = [1.0; 3];
        for (a, axis) in AXES.into_iter().enumerate() {
            let Some(i) = labels.iter().position(|label| label == axis) else { continue };
            let unit = units.and_then(|units| units[i].as_str()).or(one).unwrap_or("um");
            let Some(um) = micrometers(unit) else { return Some(Err(no_length(name, unit))) };
            units_um[a] = um;
        }
        let stated = units.is_some() || one.is_some();
        if name == "resolution" && !stated {
            notes.push(
                "its resolution has no unit and is taken as micrometres; --spacing overrides it, \
                 for example with nm, which Paintera's files have"
                    .into(),
            );
        }
        let source = if stated { "" } else { " (no unit: micrometres)" };
        return Some(Ok(Size {
            spacing: std::array::from_fn(|a| size[a] * units_um[a]),
            units: units_um,
            source: format!("{name}{source}"),
        }));
    }
    None
}

/// The calibration of a level: voxel size times downsampling factors, and the centre of voxel 0.
fn pixels(
    node: &Node,
    parents: &[(Node, String)],
    names: &[String],
    notes: &mut Vec<String>,
) -> Calibration {
    let list = |attributes: &Map<String, Value>, key: &str| -> Option<Point> {
        Some(by_axis(attributes, attributes.get(key)?, names)?.0)
    };
    let mut found = resolution(&node.attributes, names, notes);
    let mut factors = list(&node.attributes, "downsamplingFactors");
    let own_offset = list(&node.attributes, "offset");
    let mut offset = None;
    for (parent, relative) in parents {
        let attributes = &parent.attributes;
        factors = factors.or_else(|| factors_of(attributes, relative, names));
        found = found.or_else(|| resolution(attributes, names, notes));
        offset = offset.or_else(|| list(attributes, "offset"));
    }
    let Size { spacing, units, mut source } = match found {
        Some(Ok(found)) => found,
        Some(Err(reason)) => return Calibration::unknown(reason),
        None => {
            let reason = notes.last().cloned();
            return Calibration::unknown(reason.unwrap_or("its metadata do not say".into()));
        }
    };
    if factors.is_some() {
        source += " x downsamplingFactors";
    }
    let factor = factors.unwrap_or([1.0; 3]);
    // the first voxel of a level is centred on the full-resolution voxels that it averages
    let middle = |a: usize| (factor[a] - 1.0) / 2.0 * spacing[a];
    let origin = match (own_offset, offset) {
        (Some(offset), _) => Some(std::array::from_fn(|a| offset[a] * units[a])),
        (None, Some(offset)) => Some(std::array::from_fn(|a| offset[a] * units[a] + middle(a))),
        _ if factor != [1.0; 3] => Some(std::array::from_fn(middle)),
        _ => None,
    };
    let spacing = Some(std::array::from_fn(|a| spacing[a] * factor[a]));
    Calibration { spacing, origin, source, ..Calibration::default() }
}

/// The downsampling factors of level `relative` (`s<n>`): entry n of `scales`, or of a group's
/// `downsamplingFactors`.
fn factors_of(attributes: &Map<String, Value>, relative: &str, names: &[String]) -> Option<Point> {
    let level: usize = relative.strip_prefix('s')?.parse().ok()?;
    let list = attributes.get("scales").or(attributes.get("downsamplingFactors"))?;
    Some(by_axis(attributes, list.get(level)?, names)?.0)
}
