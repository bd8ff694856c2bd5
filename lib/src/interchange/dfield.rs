//! Displacement fields of BigWarp and of template-building in N5, HDF5 or Zarr
//! (<https://github.com/saalfeldlab/template-building/wiki/Hdf5-Deformation-fields>; n5-imglib2's
//! `N5DisplacementField`). Vectors are x, y, z, as floats or as integers times a quantisation
//! multiplier. A matrix may follow the field, or precede it if the field is an inverse.

use serde_json::{Map, Value};

use super::flat;
use super::hdf5;
use super::map_steps::{ForeignField, MapStep, Payload, VectorMeaning};
use super::read_error::ReadError;
use super::reading::{Convention, Read, Reading, warn};
use super::world::Unit;
use crate::geom::{Affine, Grid, Point};
use crate::quote;
use crate::volume::{self, VectorArray};

/// The name of a field that maps moving points to fixed ones.
const INVERSE: &str = "invdfield";
/// The name of a field that maps fixed points to moving ones.
const FORWARD: &str = "dfield";

/// The attributes of a field, with axes in the order x, y, z.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attributes {
    spacing: Option<Point>,
    offset: Point,
    multiplier: Option<f64>,
    affine: Option<([[f64; 3]; 3], [f64; 3])>,
    micrometres: Result<Option<f64>, String>,
}

/// Whether an array with this name and these attributes is a field of BigWarp or template-building.
pub(super) fn is_field(location: &str, attributes: &Map<String, Value>) -> bool {
    let has = |key: &str| attributes.contains_key(key);
    let named = name_of(location) == FORWARD || name_of(location) == INVERSE;
    let affine = attributes.get("affine").and_then(Value::as_array);
    !has("direction")
        && (has("quantization_multiplier")
            || (has("spacing")
                && (named || affine.is_some_and(|list| matches!(list.len(), 6 | 12)))))
}

fn name_of(location: &str) -> &str {
    location.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The attribute `key` as a list of finite numbers; `None` if it is missing.
fn list(attributes: &Map<String, Value>, key: &str) -> Result<Option<Vec<f64>>, String> {
    let Some(value) = attributes.get(key) else { return Ok(None) };
    let numbers: Option<Vec<f64>> = value
        .as_array()
        .and_then(|list| list.iter().map(|v| v.as_f64().filter(|v| v.is_finite())).collect());
    match numbers {
        Some(numbers) => Ok(Some(numbers)),
        None => Err(format!("has the {key} {}, wanted finite numbers", quote::json(value))),
    }
}

impl Attributes {
    /// Reads the attributes of a field with this number of axes.
    pub(super) fn read(attributes: &Map<String, Value>, axes: usize) -> Result<Self, String> {
        let three = |key: &str, rest: f64| -> Result<Option<Point>, String> {
            let Some(values) = list(attributes, key)? else { return Ok(None) };
            if values.len() != axes {
                return Err(format!("has {} numbers as its {key}, wanted {axes}", values.len()));
            }
            Ok(Some(std::array::from_fn(|a| values.get(a).copied().unwrap_or(rest))))
        };
        let multiplier = ["quantization_multiplier", "multiplier"]
            .into_iter()
            .find_map(|key| Some((key, attributes.get(key)?)));
        let multiplier = match multiplier {
            None => None,
            Some((key, value)) => match value.as_f64().filter(|v| v.is_finite() && *v != 0.0) {
                Some(multiplier) => Some(multiplier),
                None => {
                    return Err(format!(
                        "has the {key} {}, wanted a number other than 0",
                        quote::json(value)
                    ));
                }
            },
        };
        let affine = match list(attributes, "affine")? {
            None => None,
            Some(rows) if rows.len() == axes * (axes + 1) => Some(matrix(&rows, axes)),
            Some(rows) => {
                return Err(format!(
                    "has an affine of {} numbers, wanted {}",
                    rows.len(),
                    axes * (axes + 1)
                ));
            }
        };
        Ok(Self {
            spacing: three("spacing", 1.0)?,
            offset: three("offset", 0.0)?.unwrap_or_default(),
            multiplier,
            affine,
            micrometres: unit(attributes),
        })
    }
}

impl Attributes {
    /// Warns if the vectors are integers without a quantisation multiplier.
    fn warn(&self, location: &str, is_integer: bool) {
        if is_integer && self.multiplier.is_none() {
            let note =
                "holds whole numbers and no quantization_multiplier; they are taken as they are";
            warn(location, &[note.to_owned()]);
        }
    }
}

/// The linear part and the offset of a matrix whose rows x, y, z each end with the offset.
fn matrix(rows: &[f64], axes: usize) -> ([[f64; 3]; 3], [f64; 3]) {
    let cell = |r: usize, c: usize| rows[r * (axes + 1) + c];
    let linear = std::array::from_fn(|r| {
        std::array::from_fn(|c| if r < axes && c < axes { cell(r, c) } else { f64::from(r == c) })
    });
    (linear, std::array::from_fn(|r| if r < axes { cell(r, axes) } else { 0.0 }))
}

fn unit(attributes: &Map<String, Value>) -> Result<Option<f64>, String> {
    let Some(value) = attributes.get("unit").or(attributes.get("units")) else { return Ok(None) };
    let name = match value {
        Value::Array(list) if list.windows(2).all(|pair| pair[0] == pair[1]) => list.first(),
        other => Some(other),
    };
    match name.and_then(Value::as_str).map(|name| (name, flat::unit(name))) {
        Some((_, Some(micrometres))) => Ok(Some(micrometres)),
        Some(("pixel" | "pixels" | "", None)) => Ok(None),
        _ => Err(format!("has the unit {}, wanted um, nm or mm; give --unit", quote::json(value))),
    }
}

/// Reads the field at `location`.
pub(super) fn read(location: &str, reading: &Reading) -> Result<Read, ReadError> {
    let unread = |error: volume::Error| ReadError::volume(location, error);
    if std::path::Path::new(location).is_file() {
        return of_file(location, reading);
    }
    let (attributes, is_array) =
        volume::attributes(location).map_err(unread)?.ok_or("is no array of N5 or Zarr")?;
    if !is_array {
        return Err(
            format!("is a group; name the field in it, such as {location}/{FORWARD}").into()
        );
    }
    let array = VectorArray::open(location, None, false).map_err(unread)?;
    let attributes = Attributes::read(&attributes, array.components())?;
    attributes.warn(location, array.is_integer());
    pieces(name_of(location), &attributes, reading, array.shape(), Payload::Array(array))
}

/// Reads a field of an HDF5 file: the one named by --name, else `dfield` or `0/dfield`, else the
/// only array.
fn of_file(location: &str, reading: &Reading) -> Result<Read, ReadError> {
    let path = std::path::Path::new(location);
    let hdf5::Hdf5Content::Arrays(names) = hdf5::content(path)? else {
        return Err("is HDF5 with transforms of ITK; leave --from out".into());
    };
    let stated = reading.name.as_deref().map(|name| name.trim_matches('/'));
    let only = [FORWARD, "0/dfield"].into_iter().find(|name| names.iter().any(|n| n == name));
    let name = match (stated.or(only), names.as_slice()) {
        (Some(name), _) => name,
        (None, [one]) => one,
        (None, []) => return Err("is HDF5 that holds no array".into()),
        (None, several) => {
            return Err(format!(
                "is HDF5 with {}; images in HDF5 are not read (save them as OME-Zarr, N5 or TIFF); if one of \
                 the arrays is a displacement field, transcode --name reads it",
                quote::list(several)
            ).into());
        }
    };
    let (vectors, attributes) = hdf5::Vectors::open(path, name)?;
    if reading.from.is_none() && !is_field(name, &attributes) {
        return Err(format!(
            "is HDF5 whose array {} does not say that it is a displacement field of BigWarp; if it is one, give \
             --from bigwarp-field; if not, write it as .nrrd or .tfm",
            quote::shorten(name)
        ).into());
    }
    let attributes = Attributes::read(&attributes, vectors.components())?;
    attributes.warn(location, vectors.is_integer());
    pieces(name_of(name), &attributes, reading, vectors.shape(), Payload::Hdf5(vectors))
}

/// The field and its matrix, if there is one, in the order in which they are applied.
pub(super) fn pieces(
    name: &str,
    attributes: &Attributes,
    reading: &Reading,
    shape: [usize; 3],
    payload: Payload,
) -> Result<Read, ReadError> {
    let inverse = name == INVERSE;
    if inverse && reading.from.is_none() {
        return Err(format!(
            "is named as an inverse: it takes moving points to fixed ones; read {FORWARD} beside it, or say \
             --from bigwarp-field to take it as it stands"
        ).into());
    }
    let stated = if reading.unit.is_none() { attributes.micrometres.clone()? } else { None };
    let um = stated.unwrap_or_else(|| reading.unit.unwrap_or(Unit::Um).micrometres());
    // converts x, y, z in the unit of the file to z, y, x in micrometres
    let turned = |[x, y, z]: Point| [z * um, y * um, x * um];
    let spacing = reading
        .spacing
        .or(attributes.spacing.map(turned))
        .ok_or("does not say how far apart its vectors are ('spacing'); give --spacing z,y,x")?;
    let origin = reading.origin.unwrap_or_else(|| turned(attributes.offset));
    let scale = um * attributes.multiplier.unwrap_or(1.0);
    let turn =
        std::array::from_fn(|a| std::array::from_fn(|c| if a + c == 2 { scale } else { 0.0 }));
    let grid = Grid::new(shape, spacing, origin);
    let field = MapStep::ForeignField(Box::new(ForeignField::on_grid(
        grid,
        turn,
        VectorMeaning::Displacements,
        payload,
    )?));
    let mut pieces = vec![field];
    if let Some((linear, offset)) = attributes.affine {
        let rows = std::array::from_fn(|r| std::array::from_fn(|c| linear[2 - r][2 - c]));
        let map = Affine::from_parts(rows, turned(offset));
        map.inverse().map_err(|e| format!("has an affine that is {e}"))?;
        if map != Affine::IDENTITY {
            pieces.insert(usize::from(!inverse), MapStep::Affine(map));
        }
    }
    let matrix = match (pieces.len(), inverse) {
        (1, _) => "",
        (_, true) => ", after a matrix",
        (_, false) => ", then a matrix",
    };
    let quantised = attributes.multiplier.map_or_else(String::new, |m| format!(" times {m}"));
    let convention = Convention {
        format: "a field of BigWarp",
        axes: "x,y,z",
        frame: None,
        micrometres: um,
        unit_is_stated: stated.is_some(),
        more: format!(", displacements{quantised}{matrix}; outside of the field 0"),
    };
    Ok((pieces, convention))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attributes(value: &Value, axes: usize) -> Result<Attributes, String> {
        Attributes::read(value.as_object().unwrap(), axes)
    }

    fn read(name: &str, value: &Value, from: bool) -> Result<Vec<MapStep>, ReadError> {
        let reading = Reading {
            from: from.then_some(crate::interchange::SourceFormat::BigwarpField),
            ..Reading::default()
        };
        // displacements of 1 along x, 2 along y, 3 along z
        let payload = Payload::Memory(vec![[1.0, 2.0, 3.0]; 24]);
        let stated = attributes(value, 3)?;
        pieces(name, &stated, &reading, [2, 3, 4], payload).map(|(pieces, _)| pieces)
    }

    #[test]
    fn vectors_are_multiplied_turned_and_followed_by_the_matrix() {
        let value = json!({"spacing": [4, 3, 2], "offset": [7, 8, 9], "unit": "nm",
            "quantization_multiplier": 0.5, "affine": [1, 0, 0, 10, 0, 1, 0, 20, 0, 0, 1, 30]});
        let found = read("dfield", &value, false).unwrap();
        let [MapStep::ForeignField(field), MapStep::Affine(map)] = found.as_slice() else {
            panic!()
        };
        use crate::geom::FieldSource;
        let grid = Grid::new(
            [2, 3, 4],
            [2.0, 3.0, 4.0].map(|v| v * 1e-3),
            [9.0, 8.0, 7.0].map(|v| v * 1e-3),
        );
        assert_eq!(field.grid(), grid);
        let first = field.read(&crate::geom::Box3::new([0; 3], [1; 3])).unwrap();
        assert_eq!(first, [[1.5e-3, 1e-3, 0.5e-3]]);
        assert_eq!(map.offset(), [30.0, 20.0, 10.0].map(|v| v * 1e-3));
        // an inverse field is applied after its matrix, and must be requested explicitly
        assert!(
            read(INVERSE, &value, false).err().unwrap().to_string().contains("named as an inverse")
        );
        let found = read(INVERSE, &value, true).unwrap();
        assert!(matches!(found.as_slice(), [MapStep::Affine(_), MapStep::ForeignField(_)]));
        let same = json!({"spacing": [1, 1, 1], "affine": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]});
        assert_eq!(read("dfield", &same, false).unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_with_the_attributes_is_said() {
        for (value, words) in [
            (json!({}), "does not say how far apart"),
            (json!({"spacing": [1, 1]}), "2 numbers as its spacing"),
            (json!({"spacing": [1, 1, "x"]}), "wanted finite numbers"),
            (json!({"spacing": [1, 1, 1], "quantization_multiplier": 0}), "other than 0"),
            (json!({"spacing": [1, 1, 1], "affine": [1, 0]}), "affine of 2 numbers"),
            (json!({"spacing": [1, 1, 1], "affine": vec![0; 12]}), "singular"),
            (json!({"spacing": [1, 0, 1]}), "above 0"),
            (json!({"spacing": [1, 1, 1], "unit": "furlong"}), "furlong"),
        ] {
            let stated = read("dfield", &value, false).err().unwrap().to_string();
            assert!(stated.contains(words), "{value}: {stated}");
        }
        let plane = json!({"spacing": [2, 3], "affine": [1, 0.5, 10, 0, 1, 20]});
        let stated = attributes(&plane, 2).unwrap();
        assert_eq!(stated.spacing, Some([2.0, 3.0, 1.0]));
        assert_eq!(stated.affine.unwrap().0[0], [1.0, 0.5, 0.0]);
    }

    #[test]
    fn fields_of_bigwarp_are_known_and_ours_are_not_theirs() {
        let is = |name: &str, value: Value| is_field(name, value.as_object().unwrap());
        assert!(is("a.n5/x", json!({"quantization_multiplier": 1})));
        assert!(is("a.n5/0/dfield/", json!({"spacing": [1, 1, 1]})));
        assert!(is("a.n5/x", json!({"spacing": [1, 1, 1], "affine": vec![0; 12]})));
        assert!(!is("a.n5/x", json!({"spacing": [1, 1, 1]})));
        assert!(!is("dfield", json!({"spacing": [1, 1, 1], "direction": "fixed-to-moving"})));
    }
}
