//! ITK's transforms: text ("Insight Transform File V1.0") and MATLAB files, which ANTs writes too.

use std::fmt::Write as _;
use std::sync::Arc;

use super::bspline::BSpline;
use super::matlab::{self, Variable};
use super::models;
use super::pieces::{Foreign, Holds, Payload, Piece};
use super::world::{Placement, World};
use crate::geom::Affine;

/// What a text file begins with.
pub(super) const MAGIC: &[u8] = b"#Insight Transform File";

/// A transform as a file lists it.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    /// Its class, such as `AffineTransform_double_3_3`.
    name: String,
    parameters: Vec<f64>,
    fixed: Vec<f64>,
}

/// The maps of a text file, first applied first.
pub(super) fn read_text(text: &str, world: World) -> Result<Vec<Piece>, String> {
    let mut records: Vec<Record> = Vec::new();
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
            ("Transform", _) => records.push(Record {
                name: value.trim().to_owned(),
                parameters: Vec::new(),
                fixed: Vec::new(),
            }),
            ("Parameters", Some(record)) => record.parameters = numbers(value)?,
            ("FixedParameters", Some(record)) => record.fixed = numbers(value)?,
            (other, _) => {
                return Err(format!("line {} has '{other}', which is no key of ITK's", i + 1));
            }
        }
    }
    pieces(records, world)
}

fn bad_number(line: usize, word: &str) -> String {
    format!("line {line} holds '{}', which is no number", word.chars().take(40).collect::<String>())
}

/// The maps of a MATLAB file, first applied first.
pub(super) fn read_matlab(bytes: &[u8], world: World) -> Result<Vec<Piece>, String> {
    let variables = matlab::read(bytes)?;
    let records: Option<Vec<Record>> = variables
        .chunks(2)
        .map(|pair| match pair {
            [parameters, fixed] if fixed.name == "fixed" => Some(Record {
                name: parameters.name.clone(),
                parameters: parameters.numbers.clone(),
                fixed: fixed.numbers.clone(),
            }),
            _ => None,
        })
        .collect();
    let names: Vec<&str> = variables.iter().map(|v| v.name.as_str()).collect();
    let records = records.ok_or_else(|| {
        format!("holds {}; a transform has its class and 'fixed'", names.join(", "))
    })?;
    pieces(records, world)
}

/// A composite lists its members in the order in which they were added: the last is applied first.
fn pieces(mut records: Vec<Record>, world: World) -> Result<Vec<Piece>, String> {
    let composite = records.first().is_some_and(|r| r.name.starts_with("CompositeTransform"));
    if composite {
        records.remove(0);
        records.reverse();
    } else if records.len() != 1 {
        return Err(format!(
            "holds {} transforms and no CompositeTransform that says their order; write them as one",
            records.len()
        ));
    }
    records
        .iter()
        .map(|record| piece(record, world).map_err(|e| format!("{}: {e}", record.name)))
        .collect()
}

fn piece(record: &Record, world: World) -> Result<Piece, String> {
    let mut words = record.name.split('_');
    let class = words.next().unwrap_or_default();
    let axes: usize = words.next_back().and_then(|n| n.parse().ok()).unwrap_or(3);
    if !matches!(axes, 2 | 3) {
        return Err(format!("has {axes} axes, wanted 2 or 3"));
    }
    match class {
        "BSplineTransform" | "BSplineDeformableTransform" => {
            let placement = grid(&record.fixed, axes)?;
            let spline = BSpline::new(&placement, world, 3, axes, &record.parameters)?;
            return Ok(Piece::Smooth(Arc::new(spline)));
        }
        "DisplacementFieldTransform" => {
            return Ok(Piece::Foreign(Box::new(field(record, axes, world)?)));
        }
        "CompositeTransform" => return Err("a composite within another cannot be read".to_owned()),
        _ => {}
    }
    let matrix = models::matrix(class, axes, &record.parameters, &record.fixed).ok_or(
        "is a transform that is not known here; write it as a matrix or a displacement field",
    )?;
    let (linear, offset) = matrix?;
    let map = world.map(&linear, offset);
    map.inverse().map_err(|e| e.to_string())?;
    Ok(Piece::Affine(map))
}

/// A grid as fixed parameters: size, origin, spacing, direction by rows; x first.
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
    if let Some(bad) = size.iter().find(|n| !(1.0..=1e6).contains(*n)) {
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

fn field(record: &Record, axes: usize, world: World) -> Result<Foreign, String> {
    let placement = grid(&record.fixed, axes)?;
    let count = placement.shape.iter().product::<usize>() * axes;
    if record.parameters.len() != count {
        return Err(format!("has {} numbers, wanted {count}", record.parameters.len()));
    }
    let vector = |v: &[f64]| std::array::from_fn(|a| v.get(a).copied().unwrap_or(0.0));
    let vectors = record.parameters.chunks_exact(axes).map(vector).collect();
    Foreign::new(&placement, world, world, Holds::Displacements, Payload::Memory(vectors))
}

/// Parameters by rows and offset, the fixed center 0.
fn numbers(map: &Affine, world: World) -> Vec<f64> {
    let (linear, offset) = world.unmap(map);
    linear.into_iter().flatten().chain(offset).collect()
}

/// A matrix as a text file.
pub(super) fn write_text(map: &Affine, world: World) -> String {
    let words: Vec<String> = numbers(map, world).iter().map(f64::to_string).collect();
    let mut text = String::from("#Insight Transform File V1.0\n#Transform 0\n");
    let _ = writeln!(text, "Transform: AffineTransform_double_3_3"); // a String takes all
    let _ = writeln!(text, "Parameters: {}\nFixedParameters: 0 0 0", words.join(" "));
    text
}

/// A matrix as ANTs' `0GenericAffine.mat`.
pub(super) fn write_matlab(map: &Affine, world: World) -> Vec<u8> {
    let transform =
        Variable { name: "AffineTransform_double_3_3".to_owned(), numbers: numbers(map, world) };
    let fixed = Variable { name: "fixed".to_owned(), numbers: vec![0.0; 3] };
    matlab::write(&[transform, fixed])
}
