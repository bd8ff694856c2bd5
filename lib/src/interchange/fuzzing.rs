//! Entry points for fuzzing: reads transforms of other programs and evaluates them at some points.

use std::path::Path;

use super::map_steps::MapStep;
use super::reading::{self, Reading};
use super::world::AnatomicalFrame;
use crate::geom::{Box3, FieldSource};

pub use super::detect::SourceFormat;

/// Reads the transform at `location` in both directions, and part of its data; temporary files go
/// to `scratch`.
///
/// # Errors
/// The message of [`super::Error`].
pub fn read(location: &str, from: Option<SourceFormat>, scratch: &Path) -> Result<(), String> {
    let to_message = |error: super::Error| error.to_string();
    let backward = Reading { from, invert: true, ..Reading::default() };
    let _ = reading::read(location, &backward).map(|read| read.pieces.len());
    let framed = Reading { from, frame: Some(AnatomicalFrame::Ras), ..Reading::default() };
    let forward = reading::read(location, &Reading { from, ..Reading::default() });
    let read = match forward {
        Ok(read) => read,
        Err(error) => reading::read(location, &framed).map_err(|_| to_message(error))?,
    };
    read.pieces.into_iter().try_for_each(|piece| visit(piece, scratch))
}

fn visit(piece: MapStep, scratch: &Path) -> Result<(), String> {
    let points = [[0.0; 3], [1.0, 2.0, 3.0], [-1e12, 1e300, f64::NAN]];
    match piece {
        MapStep::Affine(map) => points.map(|p| map.apply(p)).map(drop),
        MapStep::Smooth(warp) => points.map(|p| warp.affine().apply(warp.apply(p))).map(drop),
        MapStep::Native(_) => points.map(drop),
        MapStep::ForeignField(mut field) => {
            field.prepare(scratch).map_err(|error| error.to_string())?;
            let bounds = field.grid().bounds();
            let corner = Box3::new(bounds.max.map(|n| (n - 8).max(0)), bounds.max);
            field.read(&corner).map_err(|error| error.to_string())?;
            points.map(drop)
        }
    };
    Ok(())
}
