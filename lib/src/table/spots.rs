use std::path::Path;

use super::{Error, Spot, Table, number};
use crate::geom::Point;

const POSITION: [&str; 3] = ["z_um", "y_um", "x_um"];
const REST: [&str; 3] = ["radius_um", "response", "intensity"];

/// Writes spots with the columns `z_um,y_um,x_um,radius_um,response,intensity`. A position that is
/// not finite is an error.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
///
/// ```
/// use voxloom::table::{Spot, read_spots, write_spots};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("spots.csv");
/// let spot = Spot { position: [1.5, 20.0, 30.25], radius: 2.0, response: 0.5, intensity: 800.0 };
/// write_spots(&path, &[spot])?;
/// assert_eq!(read_spots(&path)?, [spot]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_spots(path: &Path, spots: &[Spot]) -> Result<(), Error> {
    let mut table = Table::new(&[POSITION, REST].concat());
    for (row, spot) in spots.iter().enumerate() {
        check_position(path, row, spot.position)?;
        let rest = [spot.radius, spot.response, spot.intensity];
        table.rows.push(spot.position.iter().chain(&rest).map(|&v| number(v)).collect());
    }
    table.write(path)
}

/// Reads a table that [`write_spots`] wrote. Only the three position columns are required; a
/// missing radius, response or intensity is 0.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] with the line.
pub fn read_spots(path: &Path) -> Result<Vec<Spot>, Error> {
    let table = Table::read(path)?;
    let position = position_columns(&table, "")?;
    let rest = REST.map(|name| table.column(name));
    (0..table.rows.len())
        .map(|row| {
            let cell = |i: usize| rest[i].map_or(Ok(0.0), |column| table.number(row, column));
            Ok(Spot {
                position: point(&table, row, position)?,
                radius: cell(0)?,
                response: cell(1)?,
                intensity: cell(2)?,
            })
        })
        .collect()
}

pub(super) fn position_columns(table: &Table, prefix: &str) -> Result<[usize; 3], Error> {
    let [z, y, x] = POSITION.map(|name| table.required_column(&format!("{prefix}{name}")));
    Ok([z?, y?, x?])
}

pub(super) fn point(table: &Table, row: usize, columns: [usize; 3]) -> Result<Point, Error> {
    let [z, y, x] = columns.map(|column| table.finite(row, column));
    Ok([z?, y?, x?])
}

/// Refuses a position that is not finite, so that it is never written.
pub(super) fn check_position(path: &Path, row: usize, position: Point) -> Result<(), Error> {
    if position.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    Err(Error::Format {
        path: path.display().to_string(),
        line: None,
        message: format!("row {row} would have the position {position:?}, wanted finite numbers"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_spot() -> impl Strategy<Value = Spot> {
        let finite = || any::<f64>().prop_filter("finite", |v| v.is_finite());
        (prop::array::uniform3(finite()), finite(), finite(), finite()).prop_map(
            |(position, radius, response, intensity)| Spot {
                position,
                radius,
                response,
                intensity,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn spots_come_back_bit_for_bit(spots in prop::collection::vec(any_spot(), 0..20)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("spots.csv");
            write_spots(&path, &spots).unwrap();
            prop_assert_eq!(read_spots(&path).unwrap(), spots);
        }
    }

    fn read(text: &str) -> Result<Vec<Spot>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.csv");
        std::fs::write(&path, text).unwrap();
        read_spots(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "s.csv"))
    }

    #[test]
    fn columns_are_found_by_name_in_any_order_and_others_are_left_alone() {
        let spots = read("name,x_um,z_um,y_um,intensity\nfirst,3,1,2,7\n").unwrap();
        let want = Spot { position: [1.0, 2.0, 3.0], radius: 0.0, response: 0.0, intensity: 7.0 };
        assert_eq!(spots, [want]);
    }

    #[test]
    fn a_bad_position_is_refused_by_line_and_column() {
        assert_eq!(
            read("z_um,y_um,x_um\n1,2,3\n1,NaN,3\n").unwrap_err(),
            "s.csv, line 3: column y_um holds 'NaN', wanted a finite number; correct or delete the \
             line"
        );
        assert_eq!(
            read("z_um,y_um,x_um\n1,2,three\n").unwrap_err(),
            "s.csv, line 2: column x_um holds 'three', wanted a number; correct or delete the line"
        );
        assert_eq!(
            read("z,y,x\n1,2,3\n").unwrap_err(),
            "s.csv, line 1: has no column 'z_um' (found: z,y,x); name the columns in its first line"
        );
    }

    #[test]
    fn a_missing_file_is_named_and_a_position_that_is_not_finite_is_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.csv");
        let missing = read_spots(&path).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read ") && missing.contains("s.csv"), "{missing}");
        let spot =
            Spot { position: [0.0, f64::NAN, 0.0], radius: 1.0, response: 1.0, intensity: 1.0 };
        assert!(write_spots(&path, &[spot]).is_err());
        assert!(!path.exists());
    }
}
