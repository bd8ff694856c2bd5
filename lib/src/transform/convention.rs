use serde_json::{Map, Value};

use crate::geom::{Affine, Point};
use crate::quote;

/// The name of the direction in which voxloom stores transforms.
pub(super) const DIRECTION: &str = "fixed-to-moving";
/// The name of the inverse direction.
const BACKWARD: &str = "moving-to-fixed";

/// The direction in which a transform maps points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Direction {
    /// From the fixed (output) space to the moving (input) space, as all programs expect.
    #[default]
    FixedToMoving,
    /// From the moving to the fixed space: an inverse.
    MovingToFixed,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FixedToMoving => DIRECTION,
            Self::MovingToFixed => BACKWARD,
        })
    }
}

/// The axis order and unit in which the numbers of a document are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CoordinateConvention {
    /// Whether the axes are x, y, z instead of z, y, x.
    xyz: bool,
    /// Micrometres per unit of length.
    micrometres: f64,
}

impl Default for CoordinateConvention {
    fn default() -> Self {
        Self { xyz: false, micrometres: 1.0 }
    }
}

impl CoordinateConvention {
    /// Reads axes and unit from `object`. If one of them is missing, it is inherited from `outer`,
    /// the convention of the enclosing object.
    pub(super) fn read(object: &Map<String, Value>, outer: Option<Self>) -> Result<Self, String> {
        let axes = object.get("axes").map(read_axes).transpose()?;
        let unit = match object.get("unit") {
            Some(unit) => Some(read_unit(unit)?),
            None => object.get("axes").map(read_axis_units).transpose()?.flatten(),
        };
        Ok(Self {
            xyz: axes.or(outer.map(|o| o.xyz)).ok_or(
                "has no \"axes\"; add the ones that its numbers are in, \"axes\": [\"z\",\"y\",\"x\"]",
            )?,
            micrometres: unit.or(outer.map(|o| o.micrometres)).ok_or(
                "has no \"unit\"; add the one that its lengths are in, \"unit\": \"micrometer\"",
            )?,
        })
    }

    /// Converts a vector of lengths in this convention to `[z, y, x]` micrometres.
    pub(super) fn vector(self, v: Point) -> Point {
        self.factors(v).map(|x| x * self.micrometres)
    }

    /// Reorders three dimensionless numbers in this convention to `[z, y, x]`.
    pub(super) fn factors(self, [a, b, c]: Point) -> Point {
        if self.xyz { [c, b, a] } else { [a, b, c] }
    }

    /// Converts a map in this convention to a map of `[z, y, x]` micrometres.
    pub(super) fn affine(self, linear: [[f64; 3]; 3], translation: Point) -> Affine {
        let map = Affine::from_parts(linear, translation.map(|x| x * self.micrometres));
        if self.xyz { reverse_axes(&map) } else { map }
    }
}

/// The same map with its axes reversed: from x, y, z to z, y, x or back. No number is rounded.
pub fn reverse_axes(map: &Affine) -> Affine {
    let rows = map.rows();
    Affine::from_rows([2, 1, 0].map(|r: usize| [rows[r][2], rows[r][1], rows[r][0], rows[r][3]]))
}

/// Refuses an object that does not state its direction, or whose direction is not `wanted`.
pub(super) fn check_direction(
    object: &Map<String, Value>,
    wanted: Direction,
) -> Result<(), String> {
    let (wanted, other, cure) = match wanted {
        Direction::FixedToMoving => {
            (DIRECTION, BACKWARD, "turn it with `transcode FILE --to json --invert`")
        }
        Direction::MovingToFixed => {
            (BACKWARD, DIRECTION, "leave out --direction moving-to-fixed, or --invert")
        }
    };
    match object.get("direction").map(|d| d.as_str().unwrap_or_default()) {
        Some(found) if found == wanted => Ok(()),
        Some(found) if found == other => {
            Err(format!("is in the direction '{other}', wanted '{wanted}'; {cure}"))
        }
        Some(_) => Err(format!(
            "has the direction {}, wanted \"{wanted}\"",
            quote::json(object.get("direction").unwrap_or(&Value::Null))
        )),
        None => Err(format!(
            "does not say which way it takes points; if it takes points of the fixed volume to the \
             moving one, add \"direction\": \"{DIRECTION}\""
        )),
    }
}

fn read_axes(axes: &Value) -> Result<bool, String> {
    let names: Vec<&str> = axes
        .as_array()
        .and_then(|list| {
            list.iter().map(|axis| axis.as_str().or_else(|| axis.get("name")?.as_str())).collect()
        })
        .unwrap_or_default();
    match names.as_slice() {
        ["z", "y", "x"] => Ok(false),
        ["x", "y", "z"] => Ok(true),
        _ if names.len() != 3 => Err(format!(
            "has {} axes ({}), wanted the three [\"z\",\"y\",\"x\"]",
            names.len(),
            quote::json(axes)
        )),
        _ => Err(format!(
            "has the axes {}, wanted [\"z\",\"y\",\"x\"] (or [\"x\",\"y\",\"z\"], which is turned)",
            quote::json(axes)
        )),
    }
}

/// Reads the unit from the axes, which is where OME-NGFF stores it; `None` if no axis has a unit.
fn read_axis_units(axes: &Value) -> Result<Option<f64>, String> {
    let units: Vec<_> =
        axes.as_array().into_iter().flatten().filter_map(|axis| axis.get("unit")).collect();
    if units.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!(
            "has axes of different units ({}), wanted one unit",
            quote::json(axes)
        ));
    }
    units.first().map(|unit| read_unit(unit)).transpose()
}

fn read_unit(unit: &Value) -> Result<f64, String> {
    Ok(match unit.as_str().unwrap_or_default() {
        "micrometer" | "micrometre" | "micron" | "um" | "\u{b5}m" | "\u{3bc}m" => 1.0,
        "nanometer" | "nanometre" | "nm" => 1e-3,
        "millimeter" | "millimetre" | "mm" => 1e3,
        _ => {
            return Err(format!(
                "has the unit {}, wanted \"micrometer\", \"nanometer\" or \"millimeter\"",
                quote::json(unit)
            ));
        }
    })
}
