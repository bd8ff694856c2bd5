//! ITK transforms in text ("Insight Transform File V1.0"), in MATLAB files, as ANTs writes them
//! too, and in HDF5.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::bspline::BSpline;
use super::hdf5;
use super::map_steps::{ForeignField, MapStep, Payload, VectorMeaning};
use super::matlab::{self, Variable};
use super::models;
use super::read_error::ReadError;
use super::world::{Placement, World};
use crate::geom::Affine;
use crate::quote::{self, shorten};
use crate::store::document;

/// The first bytes of a text file.
pub(super) const MAGIC: &[u8] = b"#Insight Transform File";

/// A transform as stored in a file.
#[derive(Default)]
struct TransformRecord {
    /// The class of the transform, such as `AffineTransform_double_3_3`.
    name: String,
    parameters: Vec<f64>,
    fixed: Vec<f64>,
    /// The vectors of a displacement field, unless they are stored as parameters.
    vectors: Option<hdf5::Vectors>,
}

/// Reads the maps of an ITK file in any of its formats, in the order of application.
pub(super) fn read_file(path: &Path, world: World) -> Result<Vec<MapStep>, ReadError> {
    if document::read_start(path, hdf5::MAGIC.len()).map_err(ReadError::io)? == hdf5::MAGIC {
        return read_hdf5(path, world);
    }
    let bytes = document::read(path).map_err(ReadError::io)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if text.starts_with(MAGIC) {
        read_text(&String::from_utf8_lossy(text), world)
    } else if matlab::is_level_4(&bytes) {
        read_matlab(&bytes, world)
    } else {
        Err("is no transform file of ITK in text, MATLAB or HDF5; write it as .tfm".into())
    }
}

/// Reads the maps of an HDF5 file in the order of application.
fn read_hdf5(path: &Path, world: World) -> Result<Vec<MapStep>, ReadError> {
    let records = hdf5::records(path)?;
    let record = |record: hdf5::TransformRecord| {
        let (parameters, vectors) = match record.parameters {
            hdf5::Parameters::Here(numbers) => (numbers, None),
            hdf5::Parameters::There(vectors) => (Vec::new(), Some(*vectors)),
        };
        TransformRecord { name: record.name, parameters, fixed: record.fixed, vectors }
    };
    pieces(records.into_iter().map(record).collect(), world)
}

/// Reads the maps of a text file in the order of application.
pub(super) fn read_text(text: &str, world: World) -> Result<Vec<MapStep>, ReadError> {
    let mut records: Vec<TransformRecord> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once(':')
            .ok_or_else(|| format!("line {} has no 'Key: value' as ITK writes", i + 1))?;
        let numbers = |value: &str| -> Result<Vec<f64>, String> {
            let number = |word: &str| word.parse().map_err(|_| bad_number(i + 1, word));
            value.split_whitespace().map(number).collect()
        };
        match (key.trim(), records.last_mut()) {
            ("Transform", _) => {
                records.push(TransformRecord {
                    name: value.trim().to_owned(),
                    ..TransformRecord::default()
                });
            }
            ("Parameters", Some(record)) => record.parameters = numbers(value)?,
            ("FixedParameters", Some(record)) => record.fixed = numbers(value)?,
            (other, _) => {
                return Err(format!(
                    "line {} has '{}', which is no key of ITK's",
                    i + 1,
                    shorten(other)
                )
                .into());
            }
        }
    }
    pieces(records, world)
}

fn bad_number(line: usize, word: &str) -> String {
    format!("line {line} holds '{}', which is no number", shorten(word))
}

/// Reads the maps of a MATLAB file in the order of application.
pub(super) fn read_matlab(bytes: &[u8], world: World) -> Result<Vec<MapStep>, ReadError> {
    let variables = matlab::read(bytes)?;
    let records: Option<Vec<TransformRecord>> = variables
        .chunks(2)
        .map(|pair| match pair {
            [parameters, fixed] if fixed.name == "fixed" => Some(TransformRecord {
                name: parameters.name.clone(),
                parameters: parameters.numbers.clone(),
                fixed: fixed.numbers.clone(),
                vectors: None,
            }),
            _ => None,
        })
        .collect();
    let names: Vec<&str> = variables.iter().map(|v| v.name.as_str()).collect();
    let records = records.ok_or_else(|| {
        format!("holds {}; a transform has its class and 'fixed'", quote::list(&names))
    })?;
    pieces(records, world)
}

/// Converts records to pieces. A composite lists its members in the order in which they were added;
/// the last one is applied first.
fn pieces(mut records: Vec<TransformRecord>, world: World) -> Result<Vec<MapStep>, ReadError> {
    let composite = records.first().is_some_and(|r| r.name.starts_with("CompositeTransform"));
    if composite {
        records.remove(0);
        records.reverse();
    } else if records.len() != 1 {
        return Err(format!(
            "holds {} transforms and no CompositeTransform that says their order; write them as one",
            records.len()
        ).into());
    }
    let named = |record: TransformRecord| {
        let name = shorten(&record.name);
        piece(record, world).map_err(|e| e.within(|message| format!("{name}: {message}")))
    };
    records.into_iter().map(named).collect()
}

/// The parsed name of a class, such as `BSplineTransform_double_3_3_2`.
struct Class<'a> {
    name: &'a str,
    axes: usize,
    /// The order of a spline; 3 if the name does not state it.
    order: usize,
}

impl<'a> Class<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let words: Vec<&str> = text.split('_').collect();
        let number = |i: usize, usual: usize| match words.get(i) {
            None => Ok(usual),
            Some(word) => word
                .parse::<usize>()
                .map_err(|_| format!("ends in '{}', wanted dimensions such as 3_3", shorten(word))),
        };
        let (axes, order) = (number(2, 3)?, number(4, 3)?);
        if !matches!(axes, 2 | 3) {
            return Err(format!("has {axes} axes, wanted 2 or 3"));
        }
        if number(3, axes)? != axes {
            return Err("goes from one number of axes to another".to_owned());
        }
        Ok(Self { name: words[0], axes, order })
    }
}

fn piece(mut record: TransformRecord, world: World) -> Result<MapStep, ReadError> {
    let class = record.name.clone();
    let Class { name, axes, order } = Class::read(&class)?;
    match name {
        "BSplineTransform" | "BSplineDeformableTransform" => {
            let placement = grid(&record.fixed, axes)?;
            let spline = BSpline::new(&placement, world, order, axes, &record.parameters)?;
            return Ok(MapStep::Smooth(Arc::new(spline)));
        }
        "DisplacementFieldTransform" => {
            let TransformRecord { fixed, parameters, vectors, .. } = &mut record;
            let field = field(fixed, parameters, vectors.take(), axes, world)?;
            return Ok(MapStep::ForeignField(Box::new(field)));
        }
        "CompositeTransform" => return Err("a composite within another cannot be read".into()),
        // Slicer (vtkITKTransformConverter) gives these names to transforms to the parent, which
        // map moving points to fixed ones; their inverse would have to be computed
        "InverseBSplineTransform"
        | "InverseDisplacementFieldTransform"
        | "InverseThinPlateSplineKernelTransform" => {
            return Err("is a modeling transform of Slicer, which takes moving points to fixed ones; invert it \
                        in Slicer and save it again, or convert it to a displacement field there"
                .into());
        }
        _ => {}
    }
    let matrix = models::matrix(name, axes, &record.parameters, &record.fixed).ok_or(
        "is a transform that is not known here; write it as a matrix or a displacement field",
    )?;
    let (linear, offset) = matrix?;
    let map = world.map(&linear, offset);
    map.inverse().map_err(|e| e.to_string())?;
    Ok(MapStep::Affine(map))
}

/// Reads a grid from fixed parameters: size, origin and spacing along x, y, z; direction by rows.
fn grid(fixed: &[f64], axes: usize) -> Result<Placement, String> {
    if fixed.len() != axes * (3 + axes) {
        return Err(format!(
            "has {} fixed parameters, wanted {}: size, origin, spacing and direction of a grid",
            fixed.len(),
            axes * (3 + axes)
        ));
    }
    let three = |from: usize, rest: f64| -> [f64; 3] {
        std::array::from_fn(|a| if a < axes { fixed[from + a] } else { rest })
    };
    let size = three(0, 1.0);
    if let Some(bad) = size.iter().find(|n| !(1.0..=1e6).contains(*n) || n.fract() != 0.0) {
        return Err(format!("has a grid of {bad} samples along an axis"));
    }
    let cosines = std::array::from_fn(|r| {
        std::array::from_fn(|c| {
            if r < axes && c < axes { fixed[axes * (3 + r) + c] } else { f64::from(r == c) }
        })
    });
    let shape = [size[2] as usize, size[1] as usize, size[0] as usize];
    Ok(Placement::new(shape, three(2 * axes, 1.0), three(axes, 0.0), &cosines))
}

fn field(
    fixed: &[f64],
    parameters: &[f64],
    vectors: Option<hdf5::Vectors>,
    axes: usize,
    world: World,
) -> Result<ForeignField, ReadError> {
    let placement = grid(fixed, axes)?;
    if let Some(vectors) = vectors {
        let payload = Payload::Hdf5(vectors.on(placement.shape, axes)?);
        return ForeignField::new(&placement, world, world, VectorMeaning::Displacements, payload);
    }
    let count = placement.shape.iter().product::<usize>() * axes;
    if parameters.len() != count {
        return Err(format!("has {} numbers, wanted {count}", parameters.len()).into());
    }
    let vector = |v: &[f64]| std::array::from_fn(|a| v.get(a).copied().unwrap_or(0.0));
    let vectors = parameters.chunks_exact(axes).map(vector).collect();
    ForeignField::new(
        &placement,
        world,
        world,
        VectorMeaning::Displacements,
        Payload::Memory(vectors),
    )
}

/// The parameters of an affine transform: the matrix by rows, then the offset, for a center of 0.
fn numbers(map: &Affine, world: World) -> Vec<f64> {
    let (linear, offset) = world.to_external_map(map);
    linear.into_iter().flatten().chain(offset).collect()
}

/// Formats a matrix as a text file.
pub(super) fn write_text(map: &Affine, world: World) -> String {
    let words: Vec<String> = numbers(map, world).iter().map(f64::to_string).collect();
    let mut text = String::from("#Insight Transform File V1.0\n#Transform 0\n");
    let _ = writeln!(text, "Transform: AffineTransform_double_3_3"); // cannot fail
    let _ = writeln!(text, "Parameters: {}\nFixedParameters: 0 0 0", words.join(" "));
    text
}

/// Formats a matrix like ANTs' `0GenericAffine.mat`.
pub(super) fn write_matlab(map: &Affine, world: World) -> Vec<u8> {
    let transform =
        Variable { name: "AffineTransform_double_3_3".to_owned(), numbers: numbers(map, world) };
    let fixed = Variable { name: "fixed".to_owned(), numbers: vec![0.0; 3] };
    matlab::write(&[transform, fixed])
}

#[cfg(test)]
mod tests {
    use super::super::world::AnatomicalFrame;
    use super::*;

    const WORLD: World = World { frame: AnatomicalFrame::Lps, micrometres: 1e3 };

    fn text(class: &str, parameters: &str, fixed: &str) -> String {
        format!(
            "#Insight Transform File V1.0\nTransform: {class}\nParameters: {parameters}\nFixedParameters: {fixed}\n"
        )
    }

    fn refusal(class: &str) -> String {
        let text = text(class, "1 0 0 0 1 0 0 0 1 0 0 0", "0 0 0");
        read_text(&text, WORLD).err().unwrap().to_string()
    }

    #[test]
    fn the_name_of_a_class_gives_axes_and_the_order_of_a_spline() {
        for (order, count) in [("", 4), ("_1", 2), ("_2", 3), ("_3", 4)] {
            let size = format!("{count} {count} {count}");
            let fixed = format!("{size} 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1");
            let zeros = vec!["0.5"; 3 * count * count * count].join(" ");
            let text = text(&format!("BSplineTransform_double_3_3{order}"), &zeros, &fixed);
            let found = read_text(&text, WORLD).unwrap();
            let [MapStep::Smooth(spline)] = found.as_slice() else { panic!() };
            let middle = [500.0 * (count as f64 - 1.0); 3];
            let moved = spline.apply(middle);
            assert!(
                (0..3).all(|a| (moved[a] - middle[a] - 500.0).abs() < 1e-9),
                "{order}: {moved:?}"
            );
            // the position at which the support is complete depends on the order
            let rim = (count as f64 - 1.0) / 2.0 - 0.5;
            let outside = [1e3 * (rim - 0.1); 3];
            assert_eq!(spline.apply(outside), outside, "{order}");
        }
        let cases = [
            ("BSplineTransform_double_3_3_x", "'x'"),
            ("AffineTransform_double_4_4", "4 axes"),
            ("AffineTransform_double_3_2", "from one number of axes to another"),
            ("AffineTransform_double_three_3", "'three'"),
            ("InverseBSplineTransform_double_3_3", "modeling transform of Slicer"),
            ("InverseDisplacementFieldTransform_double_3_3", "modeling transform of Slicer"),
            ("ThinPlateSplineKernelTransform_double_3_3", "not known here"),
        ];
        for (class, words) in cases {
            assert!(refusal(class).contains(words), "{}", refusal(class));
        }
        let none = text("BSplineTransform_double_3_3_0", "", "1 1 1 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1");
        assert!(
            read_text(&none, WORLD).err().unwrap().to_string().contains("order 0; orders 1 to 3")
        );
    }

    #[test]
    fn a_message_quotes_little_of_a_file() {
        for long in ["A".repeat(20_000) + "_double_3_3", "B_double_".to_owned() + &"3".repeat(9999)]
        {
            assert!(refusal(&long).len() < 400, "{}", refusal(&long).len());
        }
        let lines = format!("#Insight Transform File V1.0\n{}: 1\n", "K".repeat(20_000));
        assert!(read_text(&lines, WORLD).err().unwrap().to_string().len() < 300);
    }
}
