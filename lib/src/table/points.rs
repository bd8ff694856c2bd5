use std::path::Path;

use super::spots::{check_position, point};
use super::{Error, Table, number};
use crate::geom::Point;

/// Points with the other columns of their table.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// Positions, `[z, y, x]` micrometres; one for each row of the table.
    pub positions: Vec<Point>,
    /// The table that was read; [`write_points`] replaces its position columns by `positions`.
    pub table: Table,
    /// The indices of the z, y and x columns.
    columns: [usize; 3],
}

/// Reads a CSV with the columns `z_um,y_um,x_um` or, in their absence, `z,y,x` (also taken as
/// micrometres), in any order. All other columns are kept as text.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] with the line.
pub fn read_points(path: &Path) -> Result<Points, Error> {
    let table = Table::read(path)?;
    let plain = ["z", "y", "x"].map(|name| table.column(name));
    let columns = match plain {
        [Some(z), Some(y), Some(x)] if table.column("z_um").is_none() => {
            tracing::info!("{}: columns z,y,x are taken as micrometres", path.display());
            [z, y, x]
        }
        _ => super::spots::position_columns(&table, "")?,
    };
    let positions =
        (0..table.rows.len()).map(|row| point(&table, row, columns)).collect::<Result<_, _>>()?;
    Ok(Points { positions, table, columns })
}

/// Writes the table of `points` with their current positions; all other cells are unchanged.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a position that is not finite.
///
/// ```
/// use voxloom::table::{read_points, write_points};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("points.csv");
/// std::fs::write(&path, "name,z_um,y_um,x_um\nsoma,1,2,3\n")?;
/// let mut points = read_points(&path)?;
/// points.positions[0][2] += 0.5;
/// write_points(&path, &points)?;
/// assert_eq!(std::fs::read_to_string(&path)?, "name,z_um,y_um,x_um\nsoma,1,2,3.5\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_points(path: &Path, points: &Points) -> Result<(), Error> {
    let mut table = points.table.clone();
    for (row, (cells, &position)) in table.rows.iter_mut().zip(&points.positions).enumerate() {
        check_position(path, row, position)?;
        for a in 0..3 {
            cells[points.columns[a]] = number(position[a]);
        }
    }
    table.write(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_moved_and_their_other_columns_pass_through() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.csv");
        std::fs::write(&path, "x_um,y_um,z_um,gene\n1,2,3,\"a,b\"\n4,5,6.50,007\n").unwrap();
        let mut points = read_points(&path).unwrap();
        assert_eq!(points.positions, [[3.0, 2.0, 1.0], [6.5, 5.0, 4.0]]);
        points.positions[0] = [0.1, 0.2, 0.3];
        write_points(&path, &points).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "x_um,y_um,z_um,gene\n0.3,0.2,0.1,\"a,b\"\n4,5,6.5,007\n");
    }

    #[test]
    fn plain_names_will_do_and_a_point_that_is_not_finite_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.csv");
        std::fs::write(&path, "z,y,x\n1,2,3\n").unwrap();
        let mut points = read_points(&path).unwrap();
        assert_eq!(points.positions, [[1.0, 2.0, 3.0]]);
        points.positions[0][1] = f64::INFINITY;
        assert!(write_points(&path, &points).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "z,y,x\n1,2,3\n");
    }
}
