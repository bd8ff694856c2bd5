//! From a map to the best one near it, at one resolution.

use nalgebra::{DMatrix, DVector};

use super::model::{Freedom, change, displacement};
use crate::geom::Affine;
use crate::metric::{Affinity, Frame, Workspace};

/// When to stop, and what not to do.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Steps tried at most.
    pub(super) iterations: usize,
    /// The size of a voxel, moving micrometres: steps are at most [`STRIDE`] of them, and one of
    /// less than [`CLOSE`] is the last.
    pub(super) voxel: f64,
    /// Samples that must stay on the moving image.
    pub(super) least: usize,
}

/// The longest step, voxels: as far as slopes tell anything.
const STRIDE: f64 = 3.0;
/// A step this short makes no difference, voxels.
const CLOSE: f64 = 0.003;
/// A relative gain that makes none.
const GAIN: f64 = 1e-6;
/// Damping to begin with, at most, and how it changes.
const DAMPING: f64 = 1e-3;
const MOST_DAMPING: f64 = 1e8;

/// Where a climb ended.
#[derive(Clone, Debug)]
pub(super) struct Summit {
    /// The map.
    pub(super) map: Affine,
    /// Its energy.
    pub(super) energy: f64,
    /// Samples on the moving image.
    pub(super) count: usize,
    /// Steps tried.
    pub(super) iterations: usize,
    /// Whether it ended because there was nothing to gain.
    pub(super) converged: bool,
}

/// Improves `start` by damped Gauss-Newton steps (Marquardt, J. SIAM 11, 1963), of which none is
/// taken that does not lower the energy.
///
/// None where the images have too little in common to begin with.
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

/// The numbers of a step, made as short as trust goes, and its length in micrometres.
fn shortened(mut numbers: [f64; 12], frame: &Frame, voxel: f64) -> ([f64; 12], f64) {
    let length = displacement(&numbers, frame);
    let most = STRIDE * voxel;
    if length > most {
        numbers.iter_mut().for_each(|n| *n *= most / length);
    }
    (numbers, length.min(most))
}

/// The damped Newton step.
fn solve(gradient: &[f64], curvature: &[f64], damping: f64) -> Option<Vec<f64>> {
    let n = gradient.len();
    let mut matrix = DMatrix::from_row_slice(n, n, curvature);
    let most = matrix.diagonal().max();
    if !(most > 0.0 && most.is_finite()) {
        return None;
    }
    for i in 0..n {
        // what no sample determines must not move
        matrix[(i, i)] += damping * matrix[(i, i)].max(0.0) + 1e-9 * most;
    }
    let step = -matrix.cholesky()?.solve(&DVector::from_column_slice(gradient));
    step.iter().all(|s| s.is_finite()).then(|| step.iter().copied().collect())
}
