//! From contexts to matches: best partners in both directions, then sub-voxel refinement.

use super::contexts::Contexts;
use super::correlate::{BestColumn, BestColumnQuery, best};
use super::error::usage;
use super::neighbours::NeighbourGrid;
use super::orientations::Orientation;
use super::subvoxel::Peak;
use super::threading::Threading;
use super::{Error, MatchOptions};
use crate::geom::{Grid, defaults};
use crate::table::Match;
use crate::volume::Voxel;

/// The maximum half width of a context; such a context takes 8 MB in single precision.
const MAX_HALF_CONTEXT: usize = 64;

/// An upper bound of the difference, due to rounding, between the correlation of a fixed with a
/// moving context and that of the moving with the fixed one.
const ROUNDING: f32 = 2e-6;

/// Checks the flags, and that contexts of the two volumes can be compared. Returns the half width
/// of a context in voxels along z, y, x.
pub(super) fn check(
    options: &MatchOptions,
    fixed: &Grid,
    moving: &Grid,
) -> Result<[usize; 3], Error> {
    let threshold = options.match_threshold;
    if !(-1.0..1.0).contains(&threshold) {
        let (found, wanted) = (threshold.to_string(), "wanted a correlation from -1 to below 1");
        return Err(usage("--match-threshold", &found, wanted));
    }
    let radius = options.radius([fixed, moving]);
    let flat = radius.iter().filter(|&&r| r == 0).count();
    if flat > 1 || radius.iter().any(|&r| r > MAX_HALF_CONTEXT) {
        let found = radius.map(|r| r.to_string()).join(",") + "vox";
        let wanted = "wanted 1 to 64 voxels along two axes at least";
        return Err(usage("--context-radius", &found, wanted));
    }
    if let Some(distance) = options.max_distance
        && (distance.is_nan() || distance <= 0.0)
    {
        let (found, wanted) = (distance.to_string(), "wanted a length above 0 um");
        return Err(usage("--max-distance", &found, wanted));
    }
    if defaults::common_spacing(fixed, moving).is_some() {
        return Err(Error::VoxelSizes { fixed: fixed.spacing, moving: moving.spacing });
    }
    Ok(radius)
}

/// Finds the matches, in the order of the fixed spots.
///
/// * `frame`: the orientation in which the moving contexts were taken
pub(super) fn pair<T: Voxel, U: Voxel>(
    fixed: &Contexts<'_, T>,
    moving: &Contexts<'_, U>,
    grids: [&Grid; 2],
    frame: Orientation,
    options: &MatchOptions,
    share: Threading,
) -> Vec<Match> {
    let floor = options.match_threshold as f32;
    let ask = |row| BestColumnQuery { row, floor, except: None };
    let questions: Vec<_> = (0..fixed.len()).map(ask).collect();
    let neighbours = options.max_distance.map(|distance| neighbour_grid(moving, distance));
    let partners = best(fixed, moving, &questions, neighbours.as_ref(), share);
    let mut pairs: Vec<(usize, BestColumn)> =
        partners.into_iter().enumerate().filter_map(|(i, p)| p.map(|p| (i, p))).collect();
    tracing::debug!(matches = pairs.len(), "fixed spots have a partner");
    if options.mutual() {
        pairs = mutual(fixed, moving, pairs, options, share);
        tracing::debug!(matches = pairs.len(), "partners are each other's best");
    }
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    // the contexts are in the order of their voxels, but the result must be in the order of the
    // spots
    order.sort_by_key(|&n| fixed.places[pairs[n].0].spot);
    let place = |peak: &mut Option<Peak>, n: usize| {
        let (i, BestColumn { column: j, correlation }) = pairs[n];
        let (p, q) = (fixed.places[i], moving.places[j]);
        let mut one = Match {
            fixed: p.position,
            moving: q.position,
            correlation: f64::from(correlation),
            inlier: false,
            residual: f64::NAN,
        };
        if options.subvoxel() {
            let peak = peak.get_or_insert_with(|| Peak::new(fixed.radius));
            let shift = peak.find(fixed, i, moving, j);
            // the central voxel of the fixed context was matched, not the position of the spot
            // within that voxel
            one.fixed = grids[0].position(p.voxel.map(|v| v as f64));
            let at = std::array::from_fn(|a| q.voxel[a] as f64 + shift[a]);
            one.moving = grids[1].position(frame.position(at, grids[1].shape));
        }
        one
    };
    let matches = share.map(pairs.len(), || None, place);
    order.into_iter().map(|n| matches[n]).collect()
}

fn neighbour_grid<T: Voxel>(contexts: &Contexts<'_, T>, distance: f64) -> NeighbourGrid {
    NeighbourGrid::new(contexts.places.iter().map(|p| p.position).collect(), distance)
}

/// Keeps the pairs whose moving spot has no better fixed spot than its partner.
fn mutual<T: Voxel, U: Voxel>(
    fixed: &Contexts<'_, T>,
    moving: &Contexts<'_, U>,
    pairs: Vec<(usize, BestColumn)>,
    options: &MatchOptions,
    share: Threading,
) -> Vec<(usize, BestColumn)> {
    // of pairs with the same moving spot, only the best (the first if equal) can remain
    let mut chosen: Vec<Option<(usize, f32)>> = vec![None; moving.len()];
    for &(i, BestColumn { column, correlation }) in &pairs {
        let slot = &mut chosen[column];
        if slot.is_none_or(|(_, best)| correlation > best) {
            *slot = Some((i, correlation));
        }
    }
    let questions: Vec<_> = chosen
        .iter()
        .enumerate()
        .filter_map(|(row, slot)| {
            let (i, correlation) = (*slot)?;
            Some(BestColumnQuery { row, floor: correlation + ROUNDING, except: Some(i) })
        })
        .collect();
    let neighbours = options.max_distance.map(|distance| neighbour_grid(fixed, distance));
    let rivals = best(moving, fixed, &questions, neighbours.as_ref(), share);
    for (question, rival) in questions.iter().zip(rivals) {
        if rival.is_some() {
            chosen[question.row] = None;
        }
    }
    pairs
        .into_iter()
        .filter(|(i, partner)| chosen[partner.column].is_some_and(|(best, _)| best == *i))
        .collect()
}
