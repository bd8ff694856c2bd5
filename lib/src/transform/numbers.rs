//! Parses and checks the numbers of a document; errors state where in the document a number is.

use std::fmt;

use serde_json::Value;

use crate::geom::{Affine, Point};
use crate::quote;

/// A place in a document, such as `transformations[1].affine`.
#[derive(Clone, Debug)]
pub(super) struct Located(String);

impl Located {
    pub(super) fn root(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub(super) fn member(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    pub(super) fn item(&self, i: usize) -> Self {
        Self(format!("{}[{i}]", self.0))
    }

    /// Prefixes `what` with this place; at the document's root there is no prefix.
    pub(super) fn of(&self, what: &str) -> String {
        if self.0.is_empty() { what.to_owned() } else { format!("{} {what}", self.0) }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn finite(value: &Value, at: &Located) -> Result<f64, String> {
    value
        .as_f64()
        .filter(|v| v.is_finite())
        .ok_or_else(|| format!("{at} is {}, wanted a finite number", quote::json(value)))
}

fn list<'a>(value: &'a Value, at: &Located) -> Result<&'a Vec<Value>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("{at} is {}, wanted a list of numbers", quote::json(value)))
}

/// Three finite numbers, one per axis, in the order of the document.
pub(super) fn triple(value: &Value, at: &Located) -> Result<Point, String> {
    let items = list(value, at)?;
    if items.len() != 3 {
        return Err(format!("{at} has {} numbers, wanted one for each of 3 axes", items.len()));
    }
    let mut point = [0.0; 3];
    for a in 0..3 {
        point[a] = finite(&items[a], &at.item(a))?;
    }
    Ok(point)
}

/// A matrix as a list of rows: `width` numbers per row, and a row count that `heights` contains.
pub(super) fn rows(
    value: &Value,
    at: &Located,
    heights: &[usize],
    width: usize,
) -> Result<Vec<Vec<f64>>, String> {
    let mut rows = Vec::new();
    for (r, row) in list(value, at)?.iter().enumerate() {
        let at = at.item(r);
        let numbers = list(row, &at)?.iter().enumerate();
        rows.push(numbers.map(|(c, v)| finite(v, &at.item(c))).collect::<Result<Vec<_>, _>>()?);
    }
    let widths: Vec<_> = rows.iter().map(Vec::len).collect();
    if !heights.contains(&rows.len()) || widths.iter().any(|&w| w != width) {
        let heights: Vec<_> = heights.iter().map(|h| format!("{h}x{width}")).collect();
        return Err(format!(
            "{at} is a matrix of {} rows with {} numbers, wanted {}: one row for each of 3 axes",
            rows.len(),
            quote::numbers(&widths),
            heights.join(" or ")
        ));
    }
    Ok(rows)
}

/// Checks that the fourth row of a matrix, if it has four, is `[0, 0, 0, 1]` to within 1e-9.
pub(super) fn check_last_row(row: Option<&[f64]>, at: &str) -> Result<(), String> {
    match row {
        Some(row) if (0..4).any(|c| (row[c] - if c == 3 { 1.0 } else { 0.0 }).abs() > 1e-9) => {
            Err(format!("{at} has the last row {row:?}, wanted [0, 0, 0, 1]: is it transposed?"))
        }
        _ => Ok(()),
    }
}

/// Checks that the rows are orthonormal to within 1e-3, so that a matrix written with few digits is
/// accepted. Reflections are accepted too.
pub(super) fn check_rotation(linear: &[[f64; 3]; 3], at: &Located) -> Result<(), String> {
    for i in 0..3 {
        for j in 0..3 {
            let dot: f64 = (0..3).map(|k| linear[i][k] * linear[j][k]).sum();
            if (dot - f64::from(i == j)).abs() > 1e-3 {
                return Err(format!(
                    "{at} is no rotation (its rows are not perpendicular and of length 1); write it as \
                     \"affine\""
                ));
            }
        }
    }
    Ok(())
}

/// Refuses a map that is not finite or is singular.
pub(super) fn check_affine(at: &Located, map: &Affine) -> Result<(), String> {
    for (r, row) in map.rows().iter().enumerate() {
        for (c, value) in row.iter().enumerate() {
            if !value.is_finite() {
                return Err(format!("{} is {value}, wanted a finite number", at.item(r).item(c)));
            }
        }
    }
    map.inverse().map(|_| ()).map_err(|e| {
        format!(
            "{at} is singular (determinant {}) and flattens space; it comes from a fit that failed: \
             make it anew",
            crate::table::number(e.determinant)
        )
    })
}
