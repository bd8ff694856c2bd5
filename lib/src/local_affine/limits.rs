//! Options that no pair of volumes can be meant by.

use super::Options;
use super::pairs::Pair;
use crate::blocks::Error;
use crate::geom::Grid;

/// Half the side of the surroundings at most, voxels: 8 MB of them in single precision.
const WIDEST: usize = 64;
/// A face between blocks weighs like so many matches at most.
const STIFFEST: f64 = 1e6;

/// Refuses numbers that make no sense for these volumes, by the name of their flag.
///
/// # Errors
/// [`Error::Usage`] with what was found and what was wanted.
pub(super) fn check(pair: &Pair, options: &Options) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::Usage(message));
    let grids = [&pair.fixed.grid(), &pair.moving.grid()];
    options.spots(grids[0]).check_for(grids[0]).map_err(|e| Error::Usage(e.to_string()))?;
    // written so that NaN is refused
    for (flag, value, [least, most]) in [
        ("--match-threshold", options.match_threshold, [-1.0, 1.0]),
        ("--stiffness", options.stiffness, [0.0, STIFFEST]),
        ("--overlap", options.overlap, [0.0, 1.0]),
    ] {
        if !(least..=most).contains(&value) {
            return refuse(format!("{flag} {value} is out of range; wanted {least} to {most}"));
        }
    }
    let radius = options.context(grids);
    if radius.iter().any(|&r| r > WIDEST) || radius == [0; 3] {
        let found = radius.map(|r| r.to_string()).join(",");
        return refuse(format!("--context-radius is {found} voxels; wanted 1 to {WIDEST}"));
    }
    let longest = grids.map(longest).into_iter().fold(0.0, f64::max);
    let distance = options.max_distance;
    if !(distance > 0.0 && distance <= longest) {
        return refuse(format!(
            "--max-distance {distance} um is out of range; wanted above 0, and no more than the longest side of \
             the volumes, {longest} um"
        ));
    }
    Ok(())
}

/// The longest side of a volume, micrometres.
fn longest(grid: &Grid) -> f64 {
    (0..3).map(|a| grid.shape[a] as f64 * grid.spacing[a]).fold(0.0, f64::max)
}
