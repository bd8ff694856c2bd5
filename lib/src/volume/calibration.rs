//! Where the voxels lie: units of length, and what the conventions other than OME's say.

use serde_json::{Map, Value};

use super::node::Node;
use crate::geom::Point;

/// What a location says of its voxels, micrometres, z, y, x.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Calibration {
    /// From voxel centre to voxel centre.
    pub(super) spacing: Option<Point>,
    /// The centre of voxel 0.
    pub(super) origin: Option<Point>,
    /// Who says so; or why nobody does.
    pub(super) source: String,
}

impl Calibration {
    /// Nothing is known, for this reason.
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self { spacing: None, origin: None, source: reason.into() }
    }
}

/// The micrometres of a unit of length: the names that OME-NGFF 0.4 and 0.5 allow, and the short
/// ones of ImageJ, OME-XML and N5 tools. `None` for pixels and whatever else is no length.
pub(super) fn micrometers(unit: &str) -> Option<f64> {
    let unit = unit.trim().trim_matches('"');
    Some(match unit {
        "\u{b5}m" | "\u{3bc}m" | "um" | "\\u00B5m" | "\\u03BCm" => 1.0,
        "\u{212b}" | "\u{c5}" | "A" => 1e-4,
        "pm" => 1e-6,
        "nm" => 1e-3,
        "mm" => 1e3,
        "cm" => 1e4,
        "dm" => 1e5,
        "m" => 1e6,
        "km" => 1e9,
        "in" => 25_400.0,
        "ft" => 304_800.0,
        _ => match unit.to_lowercase().replace("metre", "meter").trim_end_matches('s') {
            "micrometer" | "micron" | "um" => 1.0,
            "yoctometer" => 1e-18,
            "zeptometer" => 1e-15,
            "attometer" => 1e-12,
            "femtometer" => 1e-9,
            "picometer" => 1e-6,
            "angstrom" | "\u{e5}ngstr\u{f6}m" => 1e-4,
            "nanometer" => 1e-3,
            "millimeter" => 1e3,
            "centimeter" => 1e4,
            "inch" | "inche" => 25_400.0,
            "decimeter" => 1e5,
            "foot" | "feet" => 304_800.0,
            "yard" => 914_400.0,
            "meter" => 1e6,
            "hectometer" => 1e8,
            "kilometer" => 1e9,
            "mile" => 1.609_344e9,
            "megameter" => 1e12,
            "gigameter" => 1e15,
            _ => return None,
        },
    })
}

/// A JSON array of three numbers.
fn three(value: &Value) -> Option<Point> {
    let values: Vec<f64> = value.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
    values.try_into().ok()
}

/// The same, listed x, y, z.
fn three_reversed(value: &Value) -> Option<Point> {
    three(value).map(|[x, y, z]| [z, y, x])
}

fn times(a: Point, b: Point) -> Point {
    std::array::from_fn(|i| a[i] * b[i])
}

/// What the attributes of an array and of the groups above it say, of those conventions that N5
/// tools and BigStream follow on N5 and on Zarr.
pub(super) fn from_attributes(node: &Node) -> Calibration {
    if let Some(known) = own(&node.attributes).or_else(|| cosem(&node.attributes)) {
        return known;
    }
    let mut factors = node.attributes.get("downsamplingFactors").and_then(three_reversed);
    let mut found = resolution(&node.attributes);
    for (parent, relative) in node.parents() {
        if factors.is_none() {
            factors = scale_of(&parent.attributes, &relative);
        }
        found = found.or_else(|| resolution(&parent.attributes));
    }
    match found {
        Some((Ok(spacing), name)) => Calibration {
            spacing: Some(times(spacing, factors.unwrap_or([1.0; 3]))),
            origin: node.attributes.get("offset").and_then(three_reversed),
            source: match factors {
                Some(_) => format!("{name} x downsamplingFactors"),
                None => name.to_owned(),
            },
        },
        Some((Err(unit), name)) => {
            Calibration::unknown(format!("its {name} has the unit '{unit}', which is no length"))
        }
        None => Calibration::unknown("its metadata do not say"),
    }
}

/// `spacing`, `origin` and `unit`, as our own fields have them.
fn own(attributes: &Map<String, Value>) -> Option<Calibration> {
    let unit = attributes.get("unit").and_then(Value::as_str).map_or(Some(1.0), micrometers)?;
    let spacing = attributes.get("spacing").and_then(three)?;
    let origin = attributes.get("origin").and_then(three);
    Some(Calibration {
        spacing: Some(spacing.map(|v| v * unit)),
        origin: origin.map(|p| p.map(|v| v * unit)),
        source: "spacing".into(),
    })
}

/// `transform: {axes, scale, translate, units}`, as COSEM writes and we do on N5.
fn cosem(attributes: &Map<String, Value>) -> Option<Calibration> {
    let transform = attributes.get("transform")?;
    let axes: Vec<&str> =
        transform.get("axes")?.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    let scale = three(transform.get("scale")?)?;
    let translate = transform.get("translate").and_then(three).unwrap_or_default();
    let units = transform.get("units").and_then(Value::as_array);
    let mut spacing = [0.0; 3];
    let mut origin = [0.0; 3];
    for (a, axis) in ["z", "y", "x"].into_iter().enumerate() {
        let i = axes.iter().position(|name| *name == axis)?;
        let unit = micrometers(units?.get(i)?.as_str()?)?;
        spacing[a] = scale[i] * unit;
        origin[a] = translate[i] * unit;
    }
    Some(Calibration { spacing: Some(spacing), origin: Some(origin), source: "transform".into() })
}

/// `pixelResolution` in its two spellings, or `resolution`; an unknown unit is the error. A plain
/// array is in micrometres by convention.
fn resolution(attributes: &Map<String, Value>) -> Option<(Result<Point, String>, &'static str)> {
    for name in ["pixelResolution", "resolution"] {
        let Some(value) = attributes.get(name) else { continue };
        if let Some(spacing) = three_reversed(value) {
            return Some((Ok(spacing), name));
        }
        if let Some(spacing) = value.get("dimensions").and_then(three_reversed) {
            let unit = value.get("unit").and_then(Value::as_str).unwrap_or("um");
            let spacing = micrometers(unit).map(|unit| spacing.map(|v| v * unit));
            return Some((spacing.ok_or_else(|| unit.to_owned()), name));
        }
    }
    None
}

/// The entry of `scales` that belongs to level `s<n>`.
fn scale_of(attributes: &Map<String, Value>, relative: &str) -> Option<Point> {
    let level: usize = relative.strip_prefix('s')?.parse().ok()?;
    attributes.get("scales")?.get(level).and_then(three_reversed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_known_by_their_long_and_short_names_and_pixels_are_none() {
        for (unit, um) in [
            ("micrometer", 1.0),
            ("\u{b5}m", 1.0),
            ("nanometers", 1e-3),
            ("mm", 1e3),
            ("micron", 1.0),
        ] {
            assert_eq!(micrometers(unit), Some(um), "{unit}");
        }
        assert_eq!(micrometers("pixel"), None);
        assert_eq!(micrometers(""), None);
    }
}
