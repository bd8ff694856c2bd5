//! Reads the inputs of a report that are not volumes: receipts, tables and scores.

use std::path::Path;

use serde_json::Value;

use super::receipts::{self, Receipt};
use super::{Error, Request};
use crate::geom::Point;
use crate::quote;
use crate::table::{self, BlockRow, Match, Status};

/// The contents of all inputs that are not volumes.
#[derive(Default)]
pub(super) struct Papers {
    pub(super) receipts: Vec<Receipt>,
    pub(super) matches: Vec<Match>,
    pub(super) spots: Vec<Point>,
    pub(super) blocks: Vec<BlockRow>,
    pub(super) truth: Vec<(String, Value)>,
}

impl Papers {
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let truth = request
            .truth_scores
            .iter()
            .map(|score| Ok((score.name.clone(), read_score(Path::new(&score.location))?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            receipts: receipts::read_all(&request.receipts)?,
            matches: request.matches.as_deref().map_or(Ok(Vec::new()), table::read_matches)?,
            spots: match &request.fixed_spots {
                Some(path) => table::read_spots(path)?.iter().map(|s| s.position).collect(),
                None => Vec::new(),
            },
            blocks: request.blocks_table.as_deref().map_or(Ok(Vec::new()), table::read_blocks)?,
            truth,
        })
    }

    /// Warnings from receipts and tables.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut out: Vec<String> = self.receipts.iter().flat_map(Receipt::warnings).collect();
        let fell: Vec<&BlockRow> =
            self.blocks.iter().filter(|b| b.status == Status::Fallback).collect();
        if let Some(first) = fell.first() {
            let reason = if first.reason.is_empty() { "no reason given" } else { &first.reason };
            out.push(format!(
                "{} of {} blocks of the local step fell back, the first of them {},{},{}: {reason}",
                fell.len(),
                self.blocks.len(),
                first.index[0],
                first.index[1],
                first.index[2]
            ));
        }
        out
    }
}

/// Reads the output of `phantom score`.
fn read_score(path: &Path) -> Result<Value, Error> {
    let wrong = |message: String| Error::Input {
        path: path.display().to_string(),
        message: format!("{message}; wanted what `phantom score` prints"),
    };
    let value: Value = serde_json::from_str(&receipts::read_text(path)?)
        .map_err(|e| wrong(quote::json_error(&e)))?;
    for unit in ["um", "voxels"] {
        if value[unit]["median"].as_f64().is_none() {
            return Err(wrong(format!("there is no median in \"{unit}\"")));
        }
    }
    Ok(value)
}
