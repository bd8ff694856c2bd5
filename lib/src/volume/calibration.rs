//! Where the voxels lie, and units of length.

use crate::geom::Point;

/// What a location says of its voxels, micrometres, z, y, x.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Calibration {
    /// From voxel centre to voxel centre.
    pub(super) spacing: Option<Point>,
    /// From pixel to pixel along y and x, where the distance of planes is not said.
    pub(super) pixel: Option<[f64; 2]>,
    /// The centre of voxel 0.
    pub(super) origin: Option<Point>,
    /// Who says so; or why nobody does.
    pub(super) source: String,
}

impl Calibration {
    /// Nothing is known, for this reason.
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self { source: reason.into(), ..Self::default() }
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
