//! Refinement from coarse to fine resolutions.

use serde_json::{Value, json};

use super::climb::{Limits, Summit, climb};
use super::model::Freedom;
use super::scene::{Level, Scene, Start};
use super::{Error, Refusal};
use crate::geom::Affine;
use crate::metric::Workspace;

/// Minimum number of samples from which a map can be estimated.
pub(super) const FEWEST: usize = 64;

/// Result of the refinement.
#[derive(Clone, Debug)]
pub(super) struct Descent {
    /// The map that follows the initial one.
    pub(super) map: Affine,
    /// Energies of the initial map, if it has one, and of the result, at the finest level.
    pub(super) energy: [Option<f64>; 2],
    /// Overlaps of the initial map and of the result, at the finest level.
    pub(super) overlap: [f64; 2],
    /// Why the result is refused, if it is.
    pub(super) refusal: Option<Refusal>,
    /// One record per level, for the receipt.
    pub(super) levels: Vec<Value>,
    /// The finest resolution, fixed micrometres.
    pub(super) resolution: f64,
    /// Number of samples at that resolution.
    pub(super) samples: usize,
}

/// Refines the map that follows `start`, from the coarsest level to the finest.
///
/// * `before`: the user's initial map, if `start` was found by a search
/// * `scale`: moving lengths by fixed lengths under `start`
///
/// # Errors
/// [`Error::NoOverlap`] if too few samples fall on the moving image; [`Error::Metric`].
pub(super) fn descend(
    scene: &Scene<'_>,
    start: &Start<'_>,
    before: Option<&Start<'_>>,
    scale: f64,
    initial: &str,
) -> Result<Descent, Error> {
    let options = scene.options;
    let freedom = Freedom::of(options.model, scene.planar);
    let finest = scene.finest(scale);
    let mut work = Workspace::default();
    let mut map = Affine::IDENTITY;
    let mut lines = Vec::new();
    for number in (1..options.levels as i32).rev() {
        let level = match scene.level(finest * 2f64.powi(number), scale, start) {
            Ok(level) => level,
            // an image with only fine structure is constant at coarse resolutions
            Err(Error::Metric(_)) => continue,
            Err(error) => return Err(error),
        };
        if let Some(summit) = at_level(&level, start, &map, &freedom, scene, &mut work) {
            lines.push(line(&level, &summit, scene));
            map = summit.map;
        }
    }
    let level = scene.level(finest, scale, start)?;
    let pair = level.affinity(start);
    let unmoved = pair.score(&Affine::IDENTITY, &mut work);
    let moved = pair.score(&map, &mut work);
    if let (Some(unmoved), Some(moved)) = (&unmoved, &moved)
        && unmoved.energy < moved.energy
    {
        // the coarser levels led to a worse map: start again from the initial one
        map = Affine::IDENTITY;
    }
    let Some(summit) = at_level(&level, start, &map, &freedom, scene, &mut work) else {
        let found = unmoved.map_or(0, |score| score.count);
        let (of, initial) = (level.samples(), initial.to_owned());
        return Err(Error::NoOverlap { initial, found, of });
    };
    lines.push(line(&level, &summit, scene));
    let before = match before {
        Some(before) => level.affinity(before).score(&Affine::IDENTITY, &mut work),
        None => unmoved,
    };
    let overlap = [
        before.as_ref().map_or(0.0, |score| level.overlap(score.count)),
        level.overlap(summit.count),
    ];
    Ok(Descent {
        map: summit.map,
        energy: [before.map(|score| score.energy), Some(summit.energy)],
        refusal: refusal(scene, &summit, overlap[1]),
        overlap,
        levels: lines,
        resolution: finest,
        samples: level.samples(),
    })
}

fn at_level(
    level: &Level,
    start: &Start<'_>,
    map: &Affine,
    freedom: &Freedom,
    scene: &Scene<'_>,
    work: &mut Workspace,
) -> Option<Summit> {
    let limits =
        Limits { iterations: scene.options.iterations, voxel: level.resolution[1], least: FEWEST };
    climb(&level.affinity(start), map, freedom, &limits, work)
}

fn line(level: &Level, summit: &Summit, scene: &Scene<'_>) -> Value {
    let metric = scene.options.metric.shown(summit.energy);
    tracing::info!(
        resolution_um = level.resolution[0],
        metric,
        iterations = summit.iterations,
        overlap = level.overlap(summit.count),
        "refined"
    );
    json!({
        "resolution_um": level.resolution[0],
        "samples": level.samples(),
        "metric": metric,
        "iterations": summit.iterations,
        "converged": summit.converged,
        "overlap": level.overlap(summit.count),
    })
}

/// Checks whether a refinement is acceptable; the reason if it is not.
fn refusal(scene: &Scene<'_>, summit: &Summit, overlap: f64) -> Option<Refusal> {
    let parts = summit.map.decompose();
    let [most, _, least] = parts.scales.map(f64::abs);
    // the negated condition refuses NaN, too
    if !(parts.determinant > 0.0 && least > 1e-6 * most && most.is_finite()) {
        return Some(Refusal::Determinant { determinant: parts.determinant });
    }
    let limit = scene.options.max_scale;
    if most > limit || least < 1.0 / limit {
        let found = if most * least > 1.0 { most } else { least };
        return Some(Refusal::Scale { found, limit });
    }
    let wanted = scene.options.min_overlap;
    (overlap < wanted).then_some(Refusal::Overlap { found: overlap, wanted })
}
