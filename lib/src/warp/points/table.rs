//! Mapping points in CSV files: the columns `z_um`, `y_um` and `x_um` change, all others are kept.

use std::path::Path;

use super::{Error, Reached, forward, inverse, reached_fields, search_cost};
use crate::blocks::{self, Budget, Context, write_whole};
use crate::device::Cost;
use crate::geom::{Chain, Point};
use crate::store::document;
use crate::{quote, table, volume};

const COLUMNS: [&str; 3] = ["z_um", "y_um", "x_um"];

/// The maximum distance from the plane z = 0 at which a point counts as lying in it, micrometres.
const MAX_DISTANCE_FROM_PLANE: f64 = 1e-6;

/// The maximum number of lost points (points without a mapped position) that are logged one by one.
const MAX_LOGGED: usize = 10;

/// Reads a table of points, maps the points from the fixed to the moving space, or in the opposite
/// direction if `backwards`, and writes the table atomically. The receipt records the counts and
/// the largest residual.
///
/// # Errors
/// [`Error::Table`] for an invalid table, [`Error::NoInverse`] for a chain that cannot be inverted,
/// [`Error::Field`] if a field cannot be read, [`Error::Apart`] if all points lie outside a field,
/// [`Error::Blocks`] if the output exists or its name is that of another format.
pub fn map_table(
    from: &Path,
    to: &Path,
    chain: &Chain,
    backwards: bool,
    ctx: &Context,
) -> Result<(), Error> {
    if let Some((_, other)) = volume::other_format(&to.to_string_lossy(), &["csv", "tsv", "txt"]) {
        let to = to.display();
        return Err(blocks::Error::Usage(format!(
            "--output {to} would be CSV, but its name is that of {other}; let it end in .csv"
        ))
        .into());
    }
    ctx.refuse_existing(to)?;
    let budget = Budget::of(ctx);
    let mut rows = PointTable::read(from)?;
    ctx.input_file(&from.display().to_string());
    if ctx.is_plan_asked("carrying the points", &budget, &rows.cost(from, chain))? || !ctx.gathers()
    {
        return Ok(());
    }
    ctx.output_file(to);
    ctx.record("points", rows.points.len());
    let (carried, lost, why) = if backwards {
        let back = inverse(chain, &rows.points)?;
        let worst = back.residuals.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
        ctx.record("largest_residual_um", worst);
        (back.points, back.lost, "no point of the fixed space is mapped to")
    } else {
        let carried = forward(chain, &rows.points)?;
        let lost = (0..carried.len()).filter(|&i| carried[i].iter().any(|v| v.is_nan())).collect();
        (carried, lost, "the transform is unknown at")
    };
    outside_fields(from, chain, if backwards { &carried } else { &rows.points }, ctx)?;
    ctx.record("points_lost", lost.len());
    rows.name(from, &lost, why);
    rows.stay_in_plane(from, &carried)?;
    rows.points = carried;
    rows.write(to)
}

/// Warns of points that lie outside a field of the chain, and records their number.
///
/// * `points`: in the fixed space
///
/// # Errors
/// [`Error::Apart`] if all points lie outside a field.
fn outside_fields(
    from: &Path,
    chain: &Chain,
    points: &[Point],
    ctx: &Context,
) -> Result<(), Error> {
    for field in reached_fields(chain, points)? {
        let Reached { step, inside, outside, effect, .. } = field;
        ctx.record(&format!("points_outside_field_of_step_{step}"), outside);
        field.check()?;
        if outside > 0 {
            tracing::warn!(
                "{}: {outside} of {} points lie outside the field of step {step}, which {effect} there",
                from.display(),
                inside + outside
            );
        }
    }
    Ok(())
}

/// A CSV table with one point per row.
struct PointTable {
    header: csv::StringRecord,
    records: Vec<csv::StringRecord>,
    /// The indices of the columns `z_um`, `y_um`, `x_um`. Points in a plane have no `z_um`; their z
    /// is 0.
    columns: [Option<usize>; 3],
    points: Vec<Point>,
    lines: Vec<u64>,
}

impl PointTable {
    /// The memory of the table, its points and the search for their inverse images.
    fn cost(&self, from: &Path, chain: &Chain) -> Cost {
        let text = document::length(from).unwrap_or(0);
        let records = (size_of::<csv::StringRecord>() + 200) * self.records.len();
        // the text of the old and the new table; the points before and after mapping
        Cost::bytes("table", 2 * text + records as u64)
            + Cost::of::<[Point; 2]>("points", self.points.len())
            + search_cost(chain, usize::MAX, self.points.len())
    }

    /// Logs the lost points, up to [`MAX_LOGGED`] of them individually.
    fn name(&self, from: &Path, lost: &[usize], why: &str) {
        for &i in lost.iter().take(MAX_LOGGED) {
            let (line, point) = (self.lines[i], self.points[i]);
            tracing::warn!(
                "{}, line {line}: {why} {point:?} (z, y, x); written as NaN",
                from.display()
            );
        }
        if lost.len() > MAX_LOGGED {
            tracing::warn!("and {} more points", lost.len() - MAX_LOGGED);
        }
    }

    /// Rejects mapped points with z other than 0 if the table has no z column.
    fn stay_in_plane(&self, from: &Path, carried: &[Point]) -> Result<(), table::Error> {
        let leaves = |p: &Point| self.columns[0].is_none() && p[0].abs() > MAX_DISTANCE_FROM_PLANE;
        let Some(out) = carried.iter().position(leaves) else { return Ok(()) };
        Err(table::Error::Format {
            path: from.display().to_string(),
            line: Some(self.lines[out]),
            message: format!(
                "has no z_um, and the transform takes the point to z {} um; add the column",
                quote::rounded(carried[out][0])
            ),
        })
    }

    fn read(path: &Path) -> Result<Self, table::Error> {
        let refused = |line: Option<u64>, message: String| table::Error::Format {
            path: path.display().to_string(),
            line,
            message,
        };
        let bytes = document::read(path).map_err(|e| io("read", path, e))?;
        let mut reader = csv::Reader::from_reader(&*bytes);
        let malformed = |e: &csv::Error| {
            refused(e.position().map(csv::Position::line), format!("is no CSV table: {e}"))
        };
        let header = reader.headers().map_err(|e| malformed(&e))?.clone();
        let columns = COLUMNS.map(|name| header.iter().position(|h| h.trim() == name));
        let twice = |name: &&&str| header.iter().filter(|h| h.trim() == **name).count() > 1;
        if let Some(name) = COLUMNS.iter().find(twice) {
            let message =
                format!("has two columns {name}; positions are z_um, y_um, x_um, once each");
            return Err(refused(Some(1), message));
        }
        if bytes.trim_ascii().is_empty() {
            return Err(refused(None, "is empty; positions are z_um, y_um, x_um".to_owned()));
        }
        // only the column z_um is optional
        if let Some(a) = (1..3).find(|&a| columns[a].is_none()) {
            let a = if columns == [None; 3] { 0 } else { a };
            return Err(refused(
                Some(1),
                format!(
                    "has no column {} (columns: {}); positions are z_um, y_um, x_um in micrometres, of a \
                     plane y_um, x_um",
                    COLUMNS[a],
                    header.iter().collect::<Vec<_>>().join(", ")
                ),
            ));
        }
        let mut rows = Self { header, records: vec![], columns, points: vec![], lines: vec![] };
        for record in reader.records() {
            let record = record.map_err(|e| malformed(&e))?;
            let line = record.position().map_or(0, csv::Position::line);
            let mut point = [0.0; 3];
            for a in 0..3 {
                let Some(column) = columns[a] else { continue };
                let text = record[column].trim();
                point[a] = text.parse().map_err(|_| {
                    refused(Some(line), format!("{} is {text:?}, not a number", COLUMNS[a]))
                })?;
            }
            rows.points.push(point);
            rows.lines.push(line);
            rows.records.push(record);
        }
        Ok(rows)
    }

    fn write(&self, path: &Path) -> Result<(), Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let text = |e: csv::Error| table::Error::Format {
            path: path.display().to_string(),
            line: None,
            message: e.to_string(),
        };
        writer.write_record(&self.header).map_err(text)?;
        for (record, point) in self.records.iter().zip(&self.points) {
            let cell = |(column, old): (usize, &str)| match self
                .columns
                .iter()
                .position(|c| *c == Some(column))
            {
                Some(axis) => format!("{:.6}", point[axis]),
                None => old.to_owned(),
            };
            writer.write_record(record.iter().enumerate().map(cell)).map_err(text)?;
        }
        let bytes = writer.into_inner().map_err(|e| io("write", path, e.into_error()))?;
        Ok(write_whole(path, &bytes)?)
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> table::Error {
    table::Error::Io { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn columns_that_are_no_positions_are_carried_along_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
        fs::write(&from, "name,x_um,y_um,z_um,count\n\"a, b\",1,2,3,007\n,-1.5,0,4e1,\n").unwrap();
        let mut rows = PointTable::read(&from).unwrap();
        assert_eq!(rows.points, [[3.0, 2.0, 1.0], [40.0, 0.0, -1.5]]);
        rows.points[0] = [9.0, 8.0, f64::NAN];
        rows.write(&to).unwrap();
        assert_eq!(
            fs::read_to_string(&to).unwrap(),
            "name,x_um,y_um,z_um,count\n\"a, b\",NaN,8.000000,9.000000,007\n\
             ,-1.500000,0.000000,40.000000,\n"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_table_that_does_not_fit_says_where_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.csv");
        for (text, wanted) in [
            ("z,y,x\n1,2,3\n", "no column z_um"),
            ("z_um,y_um,x_um\n1,2,3\n1,two,3\n", "line 3: y_um is \"two\""),
            ("z_um,y_um,x_um\n1,2\n", "line 2"),
        ] {
            fs::write(&path, text).unwrap();
            let error = PointTable::read(&path).err().unwrap().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
