//! From coarse to fine.

use serde_json::{Value, json};

use super::climb::{Limits, Summit, climb};
use super::model::Freedom;
use super::scene::{Level, Scene, Start};
use super::{Error, Refusal};
use crate::geom::Affine;
use crate::metric::Workspace;

/// Fewer samples than this tell nothing of a map.
pub(super) const FEWEST: usize = 64;

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Descent {
    /// What follows the initial map.
    pub(super) map: Affine,
    /// Energies of the initial map, where it has any, and of the result, at the finest level.
    pub(super) energy: [Option<f64>; 2],
    /// Overlaps likewise.
    pub(super) overlap: [f64; 2],
    /// Why the result is not to be believed.
    pub(super) refusal: Option<Refusal>,
    /// A line for each level, for the receipt.
    pub(super) levels: Vec<Value>,
    /// The finest resolution, fixed micrometres.
    pub(super) resolution: f64,
    /// Samples there.
    pub(super) samples: usize,
}

/// Refines the map that follows `start`, level by level.
///
/// * `before`: the map that the user gave, where `start` is another one that was found
/// * `scale`: moving lengths by fixed lengths under `start`
///
/// # Errors
/// [`Error::NoOverlap`], [`Error::Metric`].
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
            // what is seen only close by is constant from afar
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
        // the coarser levels led away: begin here again
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

/// What a refinement must be like to be believed.
fn refusal(scene: &Scene<'_>, summit: &Summit, overlap: f64) -> Option<Refusal> {
    let parts = summit.map.decompose();
    let [most, _, least] = parts.scales.map(f64::abs);
    // written so that NaN is refused
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
