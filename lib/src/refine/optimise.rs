//! Local optimisation of a map at one resolution.

use nalgebra::{DMatrix, DVector};

use super::model::{ModelParameters, change, displacement};
use crate::geom::Affine;
use crate::metric::{AffineSimilarity, Normalisation, Workspace};

/// Stopping criteria and constraints of the optimisation.
#[derive(Clone, Debug)]
pub(super) struct StopCriteria {
    /// Maximum number of steps tried.
    pub(super) iterations: usize,
    /// Voxel size of the moving image, micrometres. Steps are at most [`MAX_STEP`] voxels long, and
    /// the optimisation stops at a step shorter than [`CONVERGED_STEP`] voxels.
    pub(super) voxel: f64,
    /// Minimum number of samples that must fall on the moving image.
    pub(super) min_samples: usize,
}

/// The longest step, voxels: the linearisation is not valid beyond it.
const MAX_STEP: f64 = 3.0;
/// The optimisation has converged at a step this short, voxels.
const CONVERGED_STEP: f64 = 0.003;
/// The optimisation has converged at a relative decrease of the energy this small.
const CONVERGED_GAIN: f64 = 1e-6;
/// Initial damping. It is multiplied by 10 after a rejected step and by 0.1 after an accepted one.
const DAMPING: f64 = 1e-3;
/// Damping above which no step is expected to lower the energy.
const MAX_DAMPING: f64 = 1e8;

/// Result of the optimisation.
#[derive(Clone, Debug)]
pub(super) struct Optimum {
    /// The map with the lowest energy that was found.
    pub(super) map: Affine,
    /// The energy under `map`.
    pub(super) energy: f64,
    /// Number of samples on the moving image.
    pub(super) count: usize,
    /// Number of steps tried.
    pub(super) iterations: usize,
    /// Whether the optimisation ended because no further improvement was possible.
    pub(super) converged: bool,
}

/// Improves `start` by damped Gauss-Newton steps (Marquardt, J. SIAM 11, 1963). A step is accepted
/// only if it lowers the energy.
///
/// Returns `None` if the images overlap too little under `start`.
pub(super) fn optimise(
    pair: &AffineSimilarity<'_>,
    start: &Affine,
    parameters: &ModelParameters,
    criteria: &StopCriteria,
    work: &mut Workspace,
) -> Option<Optimum> {
    let first = pair.score(start, work)?;
    if first.count < criteria.min_samples.max(parameters.count()) {
        return None;
    }
    let normalisation = pair.normalisation(start, work)?;
    let mut here = pair.linearise(start, &normalisation, work)?;
    let mut optimum = Optimum {
        map: *start,
        energy: here.energy,
        count: here.count,
        iterations: 0,
        converged: false,
    };
    let mut damping = DAMPING;
    while optimum.iterations < criteria.iterations && !optimum.converged {
        optimum.iterations += 1;
        let gradient = parameters.gradient(&here.gradient);
        let curvature = parameters.curvature(&here.curvature);
        let Some(step) = solve(&gradient, &curvature, damping) else {
            damping *= 10.0;
            optimum.converged = damping > MAX_DAMPING;
            continue;
        };
        let (numbers, length) =
            shortened(parameters.numbers(&step), &normalisation, criteria.voxel);
        let map = optimum.map.then(&change(&numbers, &normalisation));
        let there = pair.linearise(&map, &normalisation, work);
        let better = there.filter(|there| {
            there.energy < optimum.energy
                && there.count >= criteria.min_samples.max(parameters.count())
        });
        let Some(there) = better else {
            damping *= 10.0;
            optimum.converged = damping > MAX_DAMPING || length < CONVERGED_STEP * criteria.voxel;
            continue;
        };
        let gain = optimum.energy - there.energy;
        optimum.converged = length < CONVERGED_STEP * criteria.voxel
            || gain < CONVERGED_GAIN * (optimum.energy.abs() + gain);
        (optimum.map, optimum.energy, optimum.count) = (map, there.energy, there.count);
        here = there;
        damping = (damping * 0.1).max(1e-9);
    }
    Some(optimum)
}

/// Shortens a step to at most [`MAX_STEP`] voxels; returns its parameters and its length in
/// micrometres.
fn shortened(
    mut numbers: [f64; 12],
    normalisation: &Normalisation,
    voxel: f64,
) -> ([f64; 12], f64) {
    let length = displacement(&numbers, normalisation);
    let most = MAX_STEP * voxel;
    if length > most {
        numbers.iter_mut().for_each(|n| *n *= most / length);
    }
    (numbers, length.min(most))
}

/// The damped Newton step; `None` if the equations cannot be solved.
fn solve(gradient: &[f64], curvature: &[f64], damping: f64) -> Option<Vec<f64>> {
    let n = gradient.len();
    let mut matrix = DMatrix::from_row_slice(n, n, curvature);
    let most = matrix.diagonal().max();
    if !(most > 0.0 && most.is_finite()) {
        return None;
    }
    for i in 0..n {
        // parameters that no sample determines must not change
        matrix[(i, i)] += damping * matrix[(i, i)].max(0.0) + 1e-9 * most;
    }
    let step = -matrix.cholesky()?.solve(&DVector::from_column_slice(gradient));
    step.iter().all(|s| s.is_finite()).then(|| step.iter().copied().collect())
}
