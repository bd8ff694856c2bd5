//! 4x4 matrices as text, as `numpy.savetxt` writes them for BigStream.
//!
//! Current BigStream orders rows and columns z, y, x, 1; its version of 2021 orders them
//! x, y, z, 1. The text does not state its order.

use std::fmt::Write as _;
use std::path::Path;

use super::Error;
use super::convention::reverse_axes;
use super::numbers::{Located, check_affine, check_last_row};
use crate::geom::Affine;
use crate::quote::shorten;
use crate::store::document::{self, write_whole};

/// The axis order of a text matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AxisOrder {
    /// z, y, x: current BigStream, and this project.
    #[default]
    Zyx,
    /// x, y, z: BigStream of 2021.
    Xyz,
}

/// Reads a matrix of 4x4 or 3x4 numbers, translation in micrometres. Commas, semicolons, brackets
/// and `#` comments are ignored.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub fn read_matrix_text(path: &Path, axes: AxisOrder) -> Result<Affine, Error> {
    let location = path.display().to_string();
    let text = document::read_text(path).map_err(|source| Error::Io {
        action: "read",
        path: location.clone(),
        source,
    })?;
    parse_matrix_text(&text, axes).map_err(|message| Error::Format { location, message })
}

/// Writes a 4x4 matrix as four lines of numbers, translation in micrometres, atomically.
///
/// # Errors
/// [`Error::Format`] for a map that is singular or not finite; [`Error::Io`].
///
/// ```
/// use voxloom::geom::Affine;
/// use voxloom::transform::{AxisOrder, read_matrix_text, write_matrix_text};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("affine.mat");
/// let map = Affine::translation([1.0, 2.0, 3.0]);
/// write_matrix_text(&path, &map, AxisOrder::Xyz)?;
/// assert_eq!(read_matrix_text(&path, AxisOrder::Xyz)?, map);
/// // read with the wrong axes, it is another map
/// assert_eq!(read_matrix_text(&path, AxisOrder::Zyx)?.offset(), [3.0, 2.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_matrix_text(path: &Path, map: &Affine, axes: AxisOrder) -> Result<(), Error> {
    check_affine(&Located::root("the matrix"), map)
        .map_err(|message| Error::Format { location: path.display().to_string(), message })?;
    write_whole(path, format_matrix_text(map, axes).as_bytes()).map_err(|source| Error::Io {
        action: "write",
        path: path.display().to_string(),
        source,
    })
}

/// Formats 19 significant digits, as `numpy.savetxt` does; 17 suffice to identify every double.
fn format_matrix_text(map: &Affine, axes: AxisOrder) -> String {
    let map = if axes == AxisOrder::Xyz { reverse_axes(map) } else { *map };
    let mut text = String::new();
    for row in map.rows().iter().chain([&[0.0, 0.0, 0.0, 1.0]]) {
        for (c, value) in row.iter().enumerate() {
            let end = if c == 3 { '\n' } else { ' ' };
            let _ = write!(text, "{}{end}", savetxt(*value)); // writing to a String cannot fail
        }
    }
    text
}

/// Formats a number like C's `%.18e`. Rust's `e` format omits a positive sign and the zero padding
/// of the exponent.
fn savetxt(value: f64) -> String {
    let text = format!("{value:.18e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

pub(super) fn parse_matrix_text(text: &str, axes: AxisOrder) -> Result<Affine, String> {
    let mut rows: Vec<[f64; 4]> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let is_gap = |c: char| c.is_whitespace() || ",;[]()".contains(c);
        let cells: Vec<_> = line.split(is_gap).filter(|cell| !cell.is_empty()).collect();
        if cells.is_empty() {
            continue;
        }
        let numbers =
            cells.iter().map(|cell| number(cell, i + 1)).collect::<Result<Vec<_>, _>>()?;
        rows.push(numbers.try_into().map_err(|numbers: Vec<_>| {
            let plane = if numbers.len() == 3 && rows.is_empty() {
                "; one of a plane, 3x3, is read by transcode --from greedy"
            } else {
                ""
            };
            format!(
                "line {} has {} numbers, wanted 4: a 4x4 matrix of rows z,y,x,1{plane}",
                i + 1,
                numbers.len()
            )
        })?);
    }
    if !matches!(rows.len(), 3 | 4) {
        return Err(format!("has {} rows of 4 numbers, wanted a 4x4 or 3x4 matrix", rows.len()));
    }
    check_last_row(rows.get(3).map(<[f64; 4]>::as_slice), "the matrix")?;
    let map = Affine::from_rows([rows[0], rows[1], rows[2]]);
    check_affine(&Located::root("the matrix"), &map)?;
    Ok(if axes == AxisOrder::Xyz { reverse_axes(&map) } else { map })
}

fn number(cell: &str, line: usize) -> Result<f64, String> {
    let value: f64 = cell.parse().map_err(|_| {
        format!(
            "line {line} holds '{}', which is no number; wanted a transform: a chain's JSON, a 4x4 matrix \
             or a field",
            shorten(cell)
        )
    })?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(format!("line {line} holds {}, wanted finite numbers", shorten(cell)))
    }
}
