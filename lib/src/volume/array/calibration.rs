//! Spacing and origin of voxels, and units of length.

use crate::geom::Point;

/// The spacing and origin from the metadata of an array or file, in micrometres along z, y, x.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::volume) struct Calibration {
    /// Distance between the centres of neighbouring voxels.
    pub(in crate::volume) spacing: Option<Point>,
    /// Pixel spacing along y and x, if the distance between planes is not stated.
    pub(in crate::volume) pixel: Option<[f64; 2]>,
    /// The centre of voxel 0.
    pub(in crate::volume) origin: Option<Point>,
    /// The index of the first voxel along z, y, x in the coordinate system of the file, usually 0.
    /// Without an `origin`, the origin is this index times the spacing.
    pub(in crate::volume) first: Point,
    /// Where the values come from, or why they are unknown.
    pub(in crate::volume) source: String,
}

impl Calibration {
    /// An unknown calibration, with the reason.
    pub(in crate::volume) fn unknown(reason: impl Into<String>) -> Self {
        Self { source: reason.into(), ..Self::default() }
    }

    /// The centre of voxel 0 in micrometres: the stated origin, or else the index of the first
    /// voxel times `spacing`. `None` if no origin is stated and that index is 0.
    ///
    /// * `planar`: whether the volume is one plane without a spacing along z; the index along z is
    ///   then taken as 0
    pub(in crate::volume) fn origin_for(&self, spacing: Point, planar: bool) -> Option<Point> {
        let of_index = || {
            let first = if planar { [0.0, self.first[1], self.first[2]] } else { self.first };
            let origin = std::array::from_fn(|a| first[a] * spacing[a]);
            (first != [0.0; 3]).then_some(origin)
        };
        self.origin.or_else(of_index)
    }
}

/// The length of a unit in micrometres; `None` for pixels and everything else that is not a known
/// unit of length. Accepts the names that OME-NGFF 0.4 and 0.5 allow, and the abbreviations of
/// ImageJ, OME-XML and N5 tools.
pub(in crate::volume) fn micrometers(unit: &str) -> Option<f64> {
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
