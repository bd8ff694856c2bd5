use std::path::Path;

use super::spots::{check_position, point, position_columns};
use super::{Error, Match, Table, number};

const COLUMNS: [&str; 9] = [
    "fixed_z_um",
    "fixed_y_um",
    "fixed_x_um",
    "moving_z_um",
    "moving_y_um",
    "moving_x_um",
    "correlation",
    "inlier",
    "residual_um",
];

/// Writes matches with the columns `fixed_z_um,..,moving_x_um,correlation,inlier,residual_um`;
/// `inlier` is 1 or 0. A position that is not finite is an error.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub fn write_matches(path: &Path, matches: &[Match]) -> Result<(), Error> {
    let mut table = Table::new(&COLUMNS);
    for (row, pair) in matches.iter().enumerate() {
        check_position(path, row, pair.fixed)?;
        check_position(path, row, pair.moving)?;
        let mut cells: Vec<_> = pair.fixed.iter().chain(&pair.moving).map(|&v| number(v)).collect();
        cells.push(number(pair.correlation));
        cells.push(u8::from(pair.inlier).to_string());
        cells.push(number(pair.residual));
        table.rows.push(cells);
    }
    table.write(path)
}

/// Reads a table that [`write_matches`] wrote. Only the six position columns are required. Without
/// the column `inlier`, every match is an inlier; a missing correlation or residual is NaN.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] with the line.
pub fn read_matches(path: &Path) -> Result<Vec<Match>, Error> {
    let table = Table::read(path)?;
    let fixed = position_columns(&table, "fixed_")?;
    let moving = position_columns(&table, "moving_")?;
    let [correlation, inlier, residual] = [6, 7, 8].map(|i| table.column(COLUMNS[i]));
    (0..table.rows.len())
        .map(|row| {
            let or_nan = |column: Option<usize>| {
                column.map_or(Ok(f64::NAN), |column| table.number(row, column))
            };
            Ok(Match {
                fixed: point(&table, row, fixed)?,
                moving: point(&table, row, moving)?,
                correlation: or_nan(correlation)?,
                inlier: inlier.map_or(Ok(true), |column| truth(&table, row, column))?,
                residual: or_nan(residual)?,
            })
        })
        .collect()
}

fn truth(table: &Table, row: usize, column: usize) -> Result<bool, Error> {
    match table.rows[row][column].as_str() {
        "1" | "true" | "True" => Ok(true),
        "0" | "false" | "False" => Ok(false),
        _ => Err(table.bad_cell(row, column, "1 or 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.csv");
        let matches = [
            Match {
                fixed: [0.1, 0.2, 0.3],
                moving: [1.0 / 3.0, 2e-9, -1e22],
                correlation: 0.75,
                inlier: true,
                residual: 0.125,
            },
            Match {
                fixed: [0.0; 3],
                moving: [1.0; 3],
                correlation: -1.0,
                inlier: false,
                residual: f64::INFINITY,
            },
        ];
        write_matches(&path, &matches).unwrap();
        assert_eq!(read_matches(&path).unwrap(), matches);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.lines().next(),
            Some(
                "fixed_z_um,fixed_y_um,fixed_x_um,moving_z_um,moving_y_um,moving_x_um,correlation,\
                 inlier,residual_um"
            )
        );
    }

    #[test]
    fn an_inlier_is_1_or_0() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.csv");
        let header =
            "fixed_z_um,fixed_y_um,fixed_x_um,moving_z_um,moving_y_um,moving_x_um,inlier\n";
        std::fs::write(&path, format!("{header}1,2,3,4,5,6,True\n1,2,3,4,5,6,maybe\n")).unwrap();
        let message = read_matches(&path).unwrap_err().to_string();
        assert!(message.ends_with(
            "line 3: column inlier holds 'maybe', wanted 1 or 0; correct or delete the line"
        ));
    }
}
