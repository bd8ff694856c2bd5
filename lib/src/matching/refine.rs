//! Refinement of an approximate map by robust least squares over all matches.
//!
//! It is iteratively reweighted least squares with Tukey's weights, which fall smoothly to 0 at a
//! cut-off. The cut-off is a multiple of `--align-threshold`, because most of the large residuals
//! of an affine map are true deformation, not wrong matches. If the deformed half of a sample were
//! excluded, the map would be biased towards the other half. Measured on the tutorial pair with
//! whole-voxel matches, the correlation of the images in the overlap is 0.816 for a fit to the
//! inliers (2 um) of the best sample's map, 0.829 if this fit is repeated until it is stable, and
//! 0.835 with the cut-off at 6 um.

use super::EstimateOptions;
use super::residuals::Pairs;
use crate::geom::{Affine, Point};

/// The cut-off as a multiple of the threshold.
const CUT_OFF: f64 = 3.0;

/// The maximum number of iterations; ten are typical.
const MAX_ITERATIONS: usize = 100;

/// The iteration ends when a refit moves every mapped fixed point by less than this distance along
/// each axis, micrometres.
const CONVERGED: f64 = 1e-7;

/// Refits `map` to all matches near it until it no longer changes.
pub(super) fn refine(
    fixed: &[Point],
    moving: &[Point],
    options: &EstimateOptions,
    map: Affine,
) -> Affine {
    let pairs = Pairs::new(fixed, moving);
    let mut map = map;
    let mut squares = vec![0.0; fixed.len()];
    let limit = (CUT_OFF * options.threshold()).powi(2);
    for _ in 0..MAX_ITERATIONS {
        pairs.squares(&map, &mut squares);
        let weight = |s: &f64| (1.0 - s / limit).max(0.0).powi(2);
        let weights: Vec<f64> = squares.iter().map(weight).collect();
        // if the matches with a weight above 0 do not determine a map, the current map is the best
        // available
        let Ok(next) = pairs.fit(options, &weights) else { return map };
        let moved = |p: &Point| {
            let (a, b) = (map.apply(*p), next.apply(*p));
            (0..3).map(|i| (a[i] - b[i]).abs()).fold(0.0, f64::max)
        };
        let most = fixed.iter().map(moved).fold(0.0, f64::max);
        map = next;
        if most < CONVERGED {
            break;
        }
    }
    map
}
