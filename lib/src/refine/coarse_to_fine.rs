//! Refinement from coarse to fine resolutions.

use serde_json::{Value, json};

use super::image_pair::{ImagePair, InitialMap, Level};
use super::model::ModelParameters;
use super::optimise::{Optimum, StopCriteria, optimise};
use super::{Error, Refusal};
use crate::geom::Affine;
use crate::metric::Workspace;

/// Minimum number of samples from which a map can be estimated.
pub(super) const MIN_SAMPLES: usize = 64;

/// Result of the refinement.
#[derive(Clone, Debug)]
pub(super) struct Refinement {
    /// The map that follows the initial one.
    pub(super) map: Affine,
    /// Energies of the initial map and of the result, at the finest level; `None` if the energy is
    /// undefined.
    pub(super) energy: [Option<f64>; 2],
    /// Overlaps of the initial map and of the result, at the finest level.
    pub(super) overlap: [f64; 2],
    /// The reason if the result is refused.
    pub(super) refusal: Option<Refusal>,
    /// One record per level, for the receipt.
    pub(super) levels: Vec<Value>,
    /// The finest resolution, fixed micrometres.
    pub(super) resolution: f64,
    /// Number of samples at the finest resolution.
    pub(super) samples: usize,
}

/// Refines the map that follows `start`, from the coarsest level to the finest.
///
/// * `before`: the user's initial map, if `start` was found by a search
/// * `scale`: scale of `start`, moving lengths divided by fixed lengths
///
/// # Errors
/// [`Error::NoOverlap`] if too few samples fall on the moving image; [`Error::Metric`] if an image
/// is constant or has no known voxel.
pub(super) fn refine_levels(
    images: &ImagePair<'_>,
    start: &InitialMap<'_>,
    before: Option<&InitialMap<'_>>,
    scale: f64,
    initial: &str,
) -> Result<Refinement, Error> {
    let options = images.options;
    let parameters = ModelParameters::of(options.model, images.planar);
    let finest = images.finest(scale);
    let mut work = Workspace::default();
    let mut map = Affine::IDENTITY;
    let mut lines = Vec::new();
    for number in (1..options.levels as i32).rev() {
        let level = match images.level(finest * 2f64.powi(number), scale, start) {
            Ok(level) => level,
            // an image with only fine structure is constant at coarse resolutions
            Err(Error::Metric(_)) => continue,
            Err(error) => return Err(error),
        };
        if let Some(optimum) = at_level(&level, start, &map, &parameters, images, &mut work) {
            lines.push(line(&level, &optimum, images));
            map = optimum.map;
        }
    }
    let level = images.level(finest, scale, start)?;
    let pair = level.similarity(start);
    let unmoved = pair.score(&Affine::IDENTITY, &mut work);
    let moved = pair.score(&map, &mut work);
    if let (Some(unmoved), Some(moved)) = (&unmoved, &moved)
        && unmoved.energy < moved.energy
    {
        // the coarser levels led to a worse map: start again from the initial one
        map = Affine::IDENTITY;
    }
    let Some(optimum) = at_level(&level, start, &map, &parameters, images, &mut work) else {
        let found = unmoved.map_or(0, |score| score.count);
        let (of, initial) = (level.samples(), initial.to_owned());
        return Err(Error::NoOverlap { initial, found, of });
    };
    lines.push(line(&level, &optimum, images));
    let before = match before {
        Some(before) => level.similarity(before).score(&Affine::IDENTITY, &mut work),
        None => unmoved,
    };
    let overlap = [
        before.as_ref().map_or(0.0, |score| level.overlap(score.count)),
        level.overlap(optimum.count),
    ];
    Ok(Refinement {
        map: optimum.map,
        energy: [before.map(|score| score.energy), Some(optimum.energy)],
        refusal: refusal(images, &optimum, overlap[1]),
        overlap,
        levels: lines,
        resolution: finest,
        samples: level.samples(),
    })
}

fn at_level(
    level: &Level,
    start: &InitialMap<'_>,
    map: &Affine,
    parameters: &ModelParameters,
    images: &ImagePair<'_>,
    work: &mut Workspace,
) -> Option<Optimum> {
    let criteria = StopCriteria {
        iterations: images.options.iterations,
        voxel: level.resolution[1],
        min_samples: MIN_SAMPLES,
    };
    optimise(&level.similarity(start), map, parameters, &criteria, work)
}

fn line(level: &Level, optimum: &Optimum, images: &ImagePair<'_>) -> Value {
    let metric = images.options.metric.shown(optimum.energy);
    if !images.quiet {
        tracing::info!(
            resolution_um = level.resolution[0],
            metric,
            iterations = optimum.iterations,
            overlap = level.overlap(optimum.count),
            "refined"
        );
    }
    json!({
        "resolution_um": level.resolution[0],
        "samples": level.samples(),
        "metric": metric,
        "iterations": optimum.iterations,
        "converged": optimum.converged,
        "overlap": level.overlap(optimum.count),
    })
}

/// The reason to refuse a refinement; `None` if it is acceptable.
fn refusal(images: &ImagePair<'_>, optimum: &Optimum, overlap: f64) -> Option<Refusal> {
    let parts = optimum.map.decompose();
    let [most, _, least] = parts.scales.map(f64::abs);
    // the negated condition refuses NaN, too
    if !(parts.determinant > 0.0 && least > 1e-6 * most && most.is_finite()) {
        return Some(Refusal::Determinant { determinant: parts.determinant });
    }
    let limit = images.options.max_scale;
    if most > limit || least < 1.0 / limit {
        let found = if most * least > 1.0 { most } else { least };
        return Some(Refusal::Scale { found, limit });
    }
    let wanted = images.options.min_overlap;
    (overlap < wanted).then_some(Refusal::Overlap { found: overlap, wanted })
}
