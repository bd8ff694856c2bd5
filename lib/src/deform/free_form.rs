//! One resolution of a block with B-splines: Gauss-Newton steps of the control points.

use super::bspline::{Basis, Controls};
use super::cpu::{Stage, Sums};
use super::equations::Equations;
use super::lattice::Field;
use super::{Metric, Options};

/// Number of consecutive rejected steps after which no improvement is expected.
const VAIN: usize = 3;
/// After a rejected step, the damping is multiplied by this factor, and the next step is shortened
/// by its square root.
const MORE: f64 = 8.0;

/// The control points of a block, refined from resolution to resolution.
pub(super) struct FreeForm {
    controls: Controls,
    coefficients: Field,
}

/// Limits of a step.
pub(super) struct Limits {
    /// Longest displacement by a step, micrometres.
    pub(super) longest: f64,
    /// Jacobian determinants must stay above this.
    pub(super) jacobian: f64,
}

impl FreeForm {
    pub(super) fn new(controls: Controls) -> Self {
        Self { coefficients: controls.zeros(), controls }
    }

    /// Doubles the control points along each axis, for the next resolution.
    pub(super) fn refine(&mut self) {
        (self.controls, self.coefficients) = self.controls.halve(&self.coefficients);
    }

    /// Takes steps until the similarity no longer improves; returns the displacements at the nodes.
    pub(super) fn descend(
        &mut self,
        stage: &Stage,
        iterations: usize,
        limits: &Limits,
        options: &Options,
        sums: impl Fn(&Field) -> Sums,
    ) -> Field {
        let basis = self.controls.basis(&stage.nodes);
        let shape = self.controls.shape();
        let mut field = self.unfold(&basis, stage, limits);
        let mut best = sums(&field);
        let fixed_tensor = if options.metric == Metric::Mi { None } else { Some(stage.tensor()) };
        let mut stiffness = None;
        let (mut more, mut vain) = (1.0, 0);
        for _ in 0..iterations {
            let Some(tensor) = best.tensor.as_ref().or(fixed_tensor.as_ref()) else { break };
            let equations = Equations::new(&basis, shape, tensor);
            let stiffness = *stiffness.get_or_insert_with(|| equations.stiffness(options));
            let energy = |sums: &Sums, coefficients: &Field| {
                sums.energy + stiffness.energy(coefficients, shape, sums)
            };
            let damping = more * options.damping;
            let step = equations.solve(&best.slope, &self.coefficients, stiffness, damping);
            let share = more.sqrt().recip();
            let taken = self.advance(&basis, stage, step, share, limits).and_then(|(to, next)| {
                let now = sums(&next);
                let gain = energy(&best, &self.coefficients) - energy(&now, &to);
                let gain = gain / best.energy.abs().max(f64::MIN_POSITIVE);
                (now.voxels > 0 && gain > 0.0).then_some((to, next, now, gain))
            });
            let Some((to, next, now, gain)) = taken else {
                (more, vain) = (more * MORE, vain + 1);
                if vain == VAIN {
                    break;
                }
                continue;
            };
            (self.coefficients, field, best) = (to, next, now);
            if gain < options.tolerance {
                break;
            }
            (more, vain) = ((more / MORE).max(1.0), 0);
        }
        field
    }

    /// The displacements at the nodes of a resolution. If these show a fold that coarser nodes did
    /// not, all displacements are shortened until there is none.
    fn unfold(&mut self, basis: &Basis, stage: &Stage, limits: &Limits) -> Field {
        loop {
            let field = basis.field(&self.coefficients);
            if stage.nodes.least_jacobian(&field, stage.voxel).0 > limits.jacobian {
                return field;
            }
            // the determinant tends to 1 as displacements shrink
            self.coefficients.iter_mut().flatten().for_each(|v| *v *= 0.8);
        }
    }

    /// The control points after the fraction `share` of a step, and the displacements at the nodes.
    /// The step is shortened to the limit, then halved until nothing folds; `None` if that fails.
    fn advance(
        &self,
        basis: &Basis,
        stage: &Stage,
        mut step: Field,
        share: f64,
        limits: &Limits,
    ) -> Option<(Field, Field)> {
        // B-splines sum to 1: no point moves further than the control point that moves furthest
        let greatest = step.iter().flatten().fold(0.0f32, |m, v| m.max(v.abs()));
        let mut scale = (limits.longest as f32 / greatest).min(1.0) * share as f32;
        for _ in 0..4 {
            step.iter_mut().flatten().for_each(|v| *v *= scale);
            let mut coefficients = self.coefficients.clone();
            for (v, step) in coefficients.iter_mut().flatten().zip(step.iter().flatten()) {
                *v += step;
            }
            let field = basis.field(&coefficients);
            if stage.nodes.least_jacobian(&field, stage.voxel).0 > limits.jacobian {
                return Some((coefficients, field));
            }
            scale = 0.5;
        }
        None
    }
}
