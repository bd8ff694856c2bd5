//! Local optimisation of a map at one resolution.

use nalgebra::{DMatrix, DVector};

use super::model::{Freedom, change, displacement};
use crate::geom::Affine;
use crate::metric::{Affinity, Frame, Workspace};

/// Stopping criteria and constraints of the optimisation.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Maximum number of steps tried.
    pub(super) iterations: usize,
    /// Voxel size of the moving image, micrometres. Steps are at most [`STRIDE`] voxels long, and
    /// the optimisation stops at a step shorter than [`CLOSE`] voxels.
    pub(super) voxel: f64,
    /// Minimum number of samples that must fall on the moving image.
    pub(super) least: usize,
}

/// The longest step, voxels: the linearisation is not valid beyond it.
const STRIDE: f64 = 3.0;
/// The optimisation has converged at a step this short, voxels.
const CLOSE: f64 = 0.003;
/// The optimisation has converged at a relative decrease of the energy this small.
const GAIN: f64 = 1e-6;
/// Initial damping. It is multiplied by 10 after a rejected step and by 0.1 after an accepted one.
const DAMPING: f64 = 1e-3;
/// Damping above which no step is expected to lower the energy.
const MOST_DAMPING: f64 = 1e8;

/// Result of the optimisation.
#[derive(Clone, Debug)]
pub(super) struct Summit {
    /// The map.
    pub(super) map: Affine,
    /// Its energy.
    pub(super) energy: f64,
    /// Number of samples on the moving image.
    pub(super) count: usize,
    /// Number of steps tried.
    pub(super) iterations: usize,
    /// Whether it ended because no further improvement was possible.
    pub(super) converged: bool,
}

/// Improves `start` by damped Gauss-Newton steps (Marquardt, J. SIAM 11, 1963). A step is accepted
/// only if it lowers the energy.
///
/// Returns `None` if the images overlap too little under `start`.
pub(super) fn climb(
    pair: &Affinity<'_>,
    start: &Affine,
    freedom: &Freedom,
    limits: &Limits,
    work: &mut Workspace,
) -> Option<Summit> {
    let first = pair.score(start, work)?;
    if first.count < limits.least.max(freedom.count()) {
        return None;
    }
    let frame = pair.frame(start, work)?;
    let mut here = pair.linearise(start, &frame, work)?;
    let mut summit = Summit {
        map: *start,
        energy: here.energy,
        count: here.count,
        iterations: 0,
        converged: false,
    };
    let mut damping = DAMPING;
    while summit.iterations < limits.iterations && !summit.converged {
        summit.iterations += 1;
        let gradient = freedom.gradient(&here.gradient);
        let curvature = freedom.curvature(&here.curvature);
        let Some(step) = solve(&gradient, &curvature, damping) else {
            damping *= 10.0;
            summit.converged = damping > MOST_DAMPING;
            continue;
        };
        let (numbers, length) = shortened(freedom.numbers(&step), &frame, limits.voxel);
        let map = summit.map.then(&change(&numbers, &frame));
        let there = pair.linearise(&map, &frame, work);
        let better = there.filter(|there| {
            there.energy < summit.energy && there.count >= limits.least.max(freedom.count())
        });
        let Some(there) = better else {
            damping *= 10.0;
            summit.converged = damping > MOST_DAMPING || length < CLOSE * limits.voxel;
            continue;
        };
        let gain = summit.energy - there.energy;
        summit.converged =
            length < CLOSE * limits.voxel || gain < GAIN * (summit.energy.abs() + gain);
        (summit.map, summit.energy, summit.count) = (map, there.energy, there.count);
        here = there;
        damping = (damping * 0.1).max(1e-9);
    }
    Some(summit)
}

/// Shortens a step to at most [`STRIDE`] voxels; returns its parameters and its length in
/// micrometres.
fn shortened(mut numbers: [f64; 12], frame: &Frame, voxel: f64) -> ([f64; 12], f64) {
    let length = displacement(&numbers, frame);
    let most = STRIDE * voxel;
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
