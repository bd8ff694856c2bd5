//! Checks of the options against the volumes.

use super::Options;
use super::pairs::VolumePair;
use crate::blocks::Error;
use crate::geom::Grid;

/// The upper limit for half the side of a context, voxels. The voxels of the largest context take
/// 8 MB in single precision.
const MAX_HALF_CONTEXT: usize = 64;
/// The upper limit of the stiffness of a face between blocks, in matches.
const MAX_STIFFNESS: f64 = 1e6;

/// Rejects values that are invalid for these volumes, naming the flag.
///
/// # Errors
/// [`Error::Usage`] with the value and the range allowed.
pub(super) fn check(pair: &VolumePair, options: &Options) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::Usage(message));
    let grids = [&pair.fixed.grid(), &pair.moving.grid()];
    options.spots(grids[0]).check_for(grids[0]).map_err(|e| Error::Usage(e.to_string()))?;
    // written so that NaN is rejected
    for (flag, value, [least, most]) in [
        ("--match-threshold", options.match_threshold, [-1.0, 1.0]),
        ("--stiffness", options.stiffness, [0.0, MAX_STIFFNESS]),
        ("--overlap", options.overlap, [0.0, 0.5]),
    ] {
        if !(least..=most).contains(&value) {
            return refuse(format!("{flag} {value} is out of range; wanted {least} to {most}"));
        }
    }
    let radius = options.context(grids);
    if radius.iter().any(|&r| r > MAX_HALF_CONTEXT) || radius == [0; 3] {
        let found = radius.map(|r| r.to_string()).join(",");
        return refuse(format!(
            "--context-radius is {found} voxels; wanted 1 to {MAX_HALF_CONTEXT}"
        ));
    }
    let longest_side = grids.map(longest_side).into_iter().fold(0.0, f64::max);
    let distance = options.max_distance;
    if !(distance > 0.0 && distance <= longest_side) {
        return refuse(format!(
            "--max-distance {distance} um is out of range; wanted above 0, and no more than the longest side of \
             the volumes, {longest_side} um"
        ));
    }
    Ok(())
}

/// The longest side of a volume, micrometres.
fn longest_side(grid: &Grid) -> f64 {
    (0..3).map(|a| grid.shape[a] as f64 * grid.spacing[a]).fold(0.0, f64::max)
}
