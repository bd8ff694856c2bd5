use std::path::Path;

use super::{Error, Table, number};
use crate::geom::Point;

/// How the affine of a block was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The block has enough inliers of its own.
    Fitted,
    /// The block has too few inliers of its own, so its affine also depends on the neighbouring
    /// blocks and the initial map.
    Regularised,
    /// A fallback rule gave the affine, without a fit. `local-affine` does not write this status.
    Fallback,
    /// The block contains no spot.
    Empty,
}

impl Status {
    const ALL: [Self; 4] = [Self::Fitted, Self::Regularised, Self::Fallback, Self::Empty];

    /// The name of the status in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fitted => "fitted",
            Self::Regularised => "regularised",
            Self::Fallback => "fallback",
            Self::Empty => "empty",
        }
    }
}

/// The result for one block of local affines.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockRow {
    /// The index of the block in the grid of blocks, `[z, y, x]`.
    pub index: [usize; 3],
    /// How the affine of the block was determined.
    pub status: Status,
    /// The reason for a status other than `fitted`; empty for `fitted`.
    pub reason: String,
    /// Number of spots of the fixed volume in the block.
    pub spots: usize,
    /// Number of spots of the block that were matched in the moving volume.
    pub matches: usize,
    /// Number of matches that are inliers of the fit.
    pub inliers: usize,
    /// Median residual of the inliers, micrometres; `None` without inliers.
    pub median: Option<f64>,
    /// Root mean square residual of the inliers, micrometres; `None` without inliers.
    pub rms: Option<f64>,
    /// Displacement of the block's centre by the local affines alone, before the initial transform
    /// is applied, `[z, y, x]` micrometres.
    pub shift: Point,
}

const COLUMNS: [&str; 13] = [
    "block_z",
    "block_y",
    "block_x",
    "status",
    "reason",
    "spots",
    "matches",
    "inliers",
    "median_um",
    "rms_um",
    "shift_z_um",
    "shift_y_um",
    "shift_x_um",
];

/// Writes one row per block.
///
/// # Errors
/// [`Error::Io`].
pub fn write_blocks(path: &Path, rows: &[BlockRow]) -> Result<(), Error> {
    let mut table = Table::new(&COLUMNS);
    let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
    for row in rows {
        let mut cells: Vec<String> = row.index.iter().map(ToString::to_string).collect();
        cells.extend([row.status.name().to_owned(), row.reason.clone()]);
        let counts = [row.spots, row.matches, row.inliers];
        cells.extend(counts.iter().map(ToString::to_string));
        cells.extend([optional(row.median), optional(row.rms)]);
        cells.extend(row.shift.iter().map(|&v| number(v)));
        table.rows.push(cells);
    }
    table.write(path)
}

/// Reads a table that [`write_blocks`] wrote.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] with the line.
pub fn read_blocks(path: &Path) -> Result<Vec<BlockRow>, Error> {
    let table = Table::read(path)?;
    let mut at = [0; COLUMNS.len()];
    for (column, name) in at.iter_mut().zip(COLUMNS) {
        *column = table.required_column(name)?;
    }
    (0..table.rows.len())
        .map(|row| {
            let count = |i: usize| table.count(row, at[i]);
            let optional = |i: usize| match table.rows[row][at[i]].as_str() {
                "" => Ok(None),
                _ => table.number(row, at[i]).map(Some),
            };
            let word = table.rows[row][at[3]].as_str();
            Ok(BlockRow {
                index: [count(0)?, count(1)?, count(2)?],
                status: Status::ALL.into_iter().find(|status| status.name() == word).ok_or_else(
                    || table.bad_cell(row, at[3], "fitted, regularised, fallback or empty"),
                )?,
                reason: table.rows[row][at[4]].clone(),
                spots: count(5)?,
                matches: count(6)?,
                inliers: count(7)?,
                median: optional(8)?,
                rms: optional(9)?,
                shift: [
                    table.number(row, at[10])?,
                    table.number(row, at[11])?,
                    table.number(row, at[12])?,
                ],
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<BlockRow> {
        let fitted = BlockRow {
            index: [0, 1, 2],
            status: Status::Fitted,
            reason: String::new(),
            spots: 100,
            matches: 50,
            inliers: 40,
            median: Some(0.1),
            rms: Some(1.0 / 3.0),
            shift: [0.5, -0.25, 1e-9],
        };
        let empty = BlockRow {
            status: Status::Empty,
            reason: "no voxel of the moving volume is in reach, \"none\"".to_owned(),
            median: None,
            rms: None,
            ..fitted.clone()
        };
        vec![fitted, empty]
    }

    #[test]
    fn block_rows_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocks.csv");
        write_blocks(&path, &rows()).unwrap();
        assert_eq!(read_blocks(&path).unwrap(), rows());
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r#"
        block_z,block_y,block_x,status,reason,spots,matches,inliers,median_um,rms_um,shift_z_um,shift_y_um,shift_x_um
        0,1,2,fitted,,100,50,40,0.1,0.3333333333333333,0.5,-0.25,1e-9
        0,1,2,empty,"no voxel of the moving volume is in reach, ""none""",100,50,40,,,0.5,-0.25,1e-9
        "#);
    }

    #[test]
    fn an_unknown_status_is_refused_with_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocks.csv");
        write_blocks(&path, &rows()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace("empty", "broken");
        std::fs::write(&path, text).unwrap();
        let message = read_blocks(&path).unwrap_err().to_string();
        assert!(message.ends_with(
            "line 3: column status holds 'broken', wanted fitted, regularised, fallback or empty; \
             correct or delete the line"
        ));
    }
}
