//! One resolution of a block with B-splines: Gauss-Newton steps of the control points.

use super::bspline::{Basis, Controls};
use super::cpu::{Stage, Sums};
use super::equations::{Equations, OF_STEP, Stiffness};
use super::lattice::Field;
use super::stiffness::{self, Terms};
use super::{Metric, Options};

/// Number of consecutive rejected steps after which no improvement is expected.
const MAX_REJECTED_STEPS: usize = 3;
/// After a rejected step, the damping is multiplied by this factor, and the next step is shortened
/// by its square root.
const DAMPING_FACTOR: f64 = 8.0;
/// Limits of the elasticity of the steps before the first cross-validation. Steps of too stiff a
/// field would not reach the displacements by which cross-validation recognises that a looser field
/// is better.
const LOOSE: [f64; 2] = [1.0, 2.0];
/// Upper limit of the elasticity of the step before cross-validation at a finer resolution. The
/// limit is needed because finer images can show displacements that coarser images do not show.
const STIFF: f64 = 8.0;
/// The cross-validation is repeated if the steps after it move the control points by more than this
/// root mean square distance, in voxels. It approximates the images by their gradients, which is
/// valid for displacements of at most a voxel.
const MAX_DISPLACEMENT: f64 = 0.5;
/// Maximum number of cross-validations at one resolution.
const CHOICES: usize = 3;
/// Number of steps after which the displacements are compared with [`MAX_DISPLACEMENT`].
const PROBE_STEPS: usize = 2;
/// Lower bound of the maximum number of steps after the last cross-validation, for the case that
/// `iterations` is less. Convergence can end the steps earlier.
const MIN_FINAL_STEPS: usize = 3;

/// The control points of a block, refined from resolution to resolution.
pub(super) struct FreeForm {
    controls: Controls,
    coefficients: Field,
    /// The elasticity: that of the options, or the last one that cross-validation chose.
    pub(super) elasticity: f64,
    /// Whether an elasticity was chosen at this resolution or a coarser one.
    is_chosen: bool,
}

/// Limits of a step.
pub(super) struct Limits {
    /// Voxel size of the resolution, micrometres.
    pub(super) voxel: f64,
    /// Longest displacement by a step, micrometres.
    pub(super) longest: f64,
    /// Jacobian determinants must stay above this.
    pub(super) jacobian: f64,
}

/// The registration at one resolution: its images, limits and options, and the weights of the
/// control points at its nodes.
struct Problem<'a, F> {
    stage: &'a Stage<'a>,
    limits: &'a Limits,
    options: &'a Options,
    /// Computes the similarity sums of the images resampled through a field.
    sums: F,
    basis: Basis,
    /// The weights of the control points at the coarser nodes at which the matrix of the normal
    /// equations is summed.
    coarse: Basis,
    /// Products of gradients, summed at the nodes of `coarse`, if they are the same for all steps.
    tensor: Option<[Vec<f32>; 6]>,
}

/// The field of the current control points, and the similarity sums of the images resampled through
/// this field.
struct State {
    field: Field,
    sums: Sums,
}

impl<F: Fn(&Field) -> Sums> Problem<'_, F> {
    fn pooled(&self, tensor: &[Vec<f32>; 6]) -> [Vec<f32>; 6] {
        tensor.each_ref().map(|image| self.stage.nodes.pool(image))
    }
}

impl FreeForm {
    pub(super) fn new(controls: Controls, elasticity: f64) -> Self {
        Self { coefficients: controls.zeros(), controls, elasticity, is_chosen: false }
    }

    /// Sets all displacements to 0.
    pub(super) fn reset(&mut self) {
        self.coefficients = self.controls.zeros();
    }

    /// Halves the spacing of the control points for the next resolution, without a change of the
    /// displacements.
    pub(super) fn refine(&mut self) {
        (self.controls, self.coefficients) = self.controls.halve(&self.coefficients);
    }

    /// Takes steps until the similarity no longer improves; returns the displacements at the nodes.
    ///
    /// If `options.choose` is set, the first steps use a loose elasticity; if a coarser resolution
    /// has already chosen an elasticity, a single step with that elasticity (at most [`STIFF`])
    /// replaces them. Then cross-validation chooses the elasticity of all further steps.
    pub(super) fn descend(
        &mut self,
        stage: &Stage,
        iterations: usize,
        limits: &Limits,
        options: &Options,
        sums: impl Fn(&Field) -> Sums,
    ) -> Field {
        let basis = self.controls.basis(&stage.nodes);
        let coarse = self.controls.basis(&stage.nodes.halved());
        let mut problem = Problem { stage, limits, options, sums, basis, coarse, tensor: None };
        if options.metric != Metric::Mi {
            problem.tensor = Some(problem.pooled(&stage.tensor()));
        }
        let field = self.unfold(&problem.basis, stage, limits);
        let sums = (problem.sums)(&field);
        let state = State { field, sums };
        if !options.choose {
            return self.steps(&problem, state, iterations, self.elasticity).0.field;
        }
        let (first, steps) = if self.is_chosen {
            (self.elasticity.min(STIFF), 1)
        } else {
            (self.elasticity.clamp(LOOSE[0], LOOSE[1]), iterations)
        };
        let (state, _) = self.steps(&problem, state, steps.min(iterations), first);
        let Some(chosen) = self.choose(&problem, &state, first) else { return state.field };
        (self.elasticity, self.is_chosen) = (chosen, true);
        self.settle(&problem, state, iterations).field
    }

    /// Takes steps with the chosen elasticity, and repeats the cross-validation if these steps move
    /// the control points by more than [`MAX_DISPLACEMENT`].
    fn settle<F: Fn(&Field) -> Sums>(
        &mut self,
        problem: &Problem<F>,
        mut state: State,
        iterations: usize,
    ) -> State {
        for _ in 1..CHOICES {
            let before = self.coefficients.clone();
            let (next, left) =
                self.steps(problem, state, PROBE_STEPS.min(iterations), self.elasticity);
            state = next;
            if root_mean_square(&before, &self.coefficients)
                < MAX_DISPLACEMENT * problem.limits.voxel
            {
                let rest = if left > 0 {
                    0
                } else {
                    iterations.saturating_sub(PROBE_STEPS).max(MIN_FINAL_STEPS)
                };
                return self.steps(problem, state, rest, self.elasticity).0;
            }
            let Some(chosen) = self.choose(problem, &state, self.elasticity) else { break };
            self.elasticity = chosen;
        }
        self.steps(problem, state, iterations.max(MIN_FINAL_STEPS), self.elasticity).0
    }

    /// The elasticity that cross-validation finds best, with `loose` as the initial guess; `None`
    /// if the block has too few cells.
    fn choose<F: Fn(&Field) -> Sums>(
        &self,
        problem: &Problem<F>,
        state: &State,
        loose: f64,
    ) -> Option<f64> {
        let nodes = problem.stage.nodes;
        let own = state.sums.tensor.as_ref().map(|tensor| problem.pooled(tensor));
        let mut tensor = own.or_else(|| problem.tensor.clone())?;
        let shared = match problem.options.metric {
            Metric::Mi => 1.0,
            _ => problem.stage.shared_gradient(&state.field).clamp(0.05, 1.0),
        };
        tensor.iter_mut().flatten().for_each(|v| *v *= shared as f32);
        let slope = state.sums.slope.each_ref().map(|image| nodes.pool(image));
        let terms = Terms { nodes: nodes.halved(), tensor, slope };
        stiffness::choose(&self.controls, &terms, &self.coefficients, loose)
    }

    /// Takes steps with the given elasticity. Returns the last accepted state, and the number of
    /// iterations that were not needed.
    fn steps<F: Fn(&Field) -> Sums>(
        &mut self,
        problem: &Problem<F>,
        mut best: State,
        iterations: usize,
        elasticity: f64,
    ) -> (State, usize) {
        let Problem { options, .. } = problem;
        let shape = self.controls.shape();
        let mut stiffness: Option<Stiffness> = None;
        let (mut more, mut vain) = (1.0, 0);
        for number in 0..iterations {
            let own = best.sums.tensor.as_ref().map(|tensor| problem.pooled(tensor));
            let Some(tensor) = own.as_ref().or(problem.tensor.as_ref()) else { break };
            let equations = Equations::new(&problem.coarse, shape, tensor);
            let stiffness =
                *stiffness.get_or_insert_with(|| equations.stiffness(elasticity, options.metric));
            let energy = |sums: &Sums, coefficients: &Field| {
                sums.energy + stiffness.energy(coefficients, shape, sums)
            };
            let damping = more * options.damping;
            let slope = best.sums.slope.each_ref().map(|image| problem.basis.gather(image));
            let step =
                equations.solve(slope, &self.coefficients, None, stiffness, damping, OF_STEP);
            let share = more.sqrt().recip();
            let next = self.advance(&problem.basis, problem.stage, step, share, problem.limits);
            let taken = next.and_then(|(to, field)| {
                let sums = (problem.sums)(&field);
                let gain = energy(&best.sums, &self.coefficients) - energy(&sums, &to);
                let gain = gain / best.sums.energy.abs().max(f64::MIN_POSITIVE);
                (sums.voxels > 0 && gain > 0.0).then_some((to, State { field, sums }, gain))
            });
            let Some((to, next, gain)) = taken else {
                (more, vain) = (more * DAMPING_FACTOR, vain + 1);
                if vain == MAX_REJECTED_STEPS {
                    return (best, iterations - number - 1);
                }
                continue;
            };
            (self.coefficients, best) = (to, next);
            if gain < options.tolerance {
                return (best, iterations - number - 1);
            }
            (more, vain) = ((more / DAMPING_FACTOR).max(1.0), 0);
        }
        (best, 0)
    }

    /// The displacements at the nodes of `stage`. If the field folds at these nodes, although it
    /// did not at coarser ones, all displacements are shortened until the field does not fold.
    fn unfold(&mut self, basis: &Basis, stage: &Stage, limits: &Limits) -> Field {
        loop {
            let field = basis.field(&self.coefficients);
            if stage.nodes.is_unfolded(&field, stage.voxel, limits.jacobian) {
                return field;
            }
            // this loop ends because the determinant tends to 1 as displacements shrink
            self.coefficients.iter_mut().flatten().for_each(|v| *v *= 0.8);
        }
    }

    /// The control points after the fraction `share` of a step, and the displacements at the nodes.
    /// The step is first shortened to `limits.longest`. While the field folds, the step is halved,
    /// up to three times; `None` if the field still folds.
    fn advance(
        &self,
        basis: &Basis,
        stage: &Stage,
        mut step: Field,
        share: f64,
        limits: &Limits,
    ) -> Option<(Field, Field)> {
        // no point moves further than the control point that moves furthest, because B-splines sum
        // to 1
        let greatest = step.iter().flatten().fold(0.0f32, |m, v| m.max(v.abs()));
        let mut scale = (limits.longest as f32 / greatest).min(1.0) * share as f32;
        for _ in 0..4 {
            step.iter_mut().flatten().for_each(|v| *v *= scale);
            let mut coefficients = self.coefficients.clone();
            for (v, step) in coefficients.iter_mut().flatten().zip(step.iter().flatten()) {
                *v += step;
            }
            let field = basis.field(&coefficients);
            if stage.nodes.is_unfolded(&field, stage.voxel, limits.jacobian) {
                return Some((coefficients, field));
            }
            scale = 0.5;
        }
        None
    }
}
/// The root mean square length of the differences between two fields.
fn root_mean_square(from: &Field, to: &Field) -> f64 {
    let squares = from
        .iter()
        .zip(to)
        .flat_map(|(from, to)| from.iter().zip(to).map(|(from, to)| f64::from(to - from).powi(2)));
    (squares.sum::<f64>() / from[0].len().max(1) as f64).sqrt()
}
