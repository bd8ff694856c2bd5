use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;

/// A row of the table that `local-affine` writes: how one block ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Block {
    pub(super) block_z: usize,
    pub(super) block_y: usize,
    pub(super) block_x: usize,
    /// `fitted`, `regularised`, `fallback` or `empty`.
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) spots_fixed: Option<u64>,
    pub(super) spots_moving: Option<u64>,
    pub(super) matches: Option<u64>,
    pub(super) inliers: Option<u64>,
    pub(super) median_um: Option<f64>,
    pub(super) rms_um: Option<f64>,
    pub(super) shift_z_um: Option<f64>,
    pub(super) shift_y_um: Option<f64>,
    pub(super) shift_x_um: Option<f64>,
}

/// Reads the table as CSV, or as a JSON array of objects with the same names.
pub(super) fn read(path: &Path) -> Result<Vec<Block>, Error> {
    let text = super::receipts::read_text(path)?;
    parse(&text).map_err(|message| Error::Input {
        path: path.display().to_string(),
        message: format!("{message}; wanted the table of blocks that local-affine writes"),
    })
}

fn parse(text: &str) -> Result<Vec<Block>, String> {
    let blocks: Vec<Block> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|e| e.to_string())?
    } else {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let headers = reader.headers().map_err(|e| e.to_string())?;
        for name in ["block_z", "block_y", "block_x", "status"] {
            if !headers.iter().any(|h| h == name) {
                return Err(format!("there is no column {name}"));
            }
        }
        reader.deserialize().collect::<Result<_, _>>().map_err(|e| e.to_string())?
    };
    match blocks.iter().find(|b| b.block_z.max(b.block_y).max(b.block_x) > 4095) {
        Some(b) => Err(format!("block {},{},{} is out of range", b.block_z, b.block_y, b.block_x)),
        None => Ok(blocks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_same_as_csv_and_as_json() {
        let csv = "block_z,block_y,block_x,status,reason,spots_fixed,spots_moving,matches,inliers,\
                   median_um,rms_um,shift_z_um,shift_y_um,shift_x_um\n\
                   0,1,2,fitted,,90,80,60,55,0.3,0.4,1.0,-2.0,0.5\n\
                   0,1,3,empty,no spots,0,0,0,0,,,,,\n";
        let blocks = parse(csv).unwrap();
        assert_eq!(blocks[0].inliers, Some(55));
        assert_eq!((blocks[1].median_um, blocks[1].reason.as_str()), (None, "no spots"));
        assert_eq!(parse(&serde_json::to_string(&blocks).unwrap()).unwrap(), blocks);
    }

    #[test]
    fn another_table_is_refused_by_the_column_it_lacks() {
        assert!(parse("z_um,y_um\n1,2\n").unwrap_err().contains("block_z"));
        assert!(parse("[{\"block_z\": 99999}]").unwrap_err().contains("out of range"));
    }
}
