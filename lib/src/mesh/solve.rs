//! The equilibrium of meshes: the least energy of their springs and ties.

use super::layout::Layout;
use super::multigrid::{Multigrid, clear_held};
use super::springs::{self, Spring};
use super::ties::{self, Held, Ties};

/// The greatest number of steps of Newton's method.
const STEPS: usize = 30;
/// The greatest number of iterations of conjugate gradients for each.
const ITERATIONS: usize = 60;
/// Conjugate gradients stop when they have reduced the residual by this factor.
const REDUCTION: f64 = 0.02;
/// How often a step that does not reduce the energy is halved.
const HALVINGS: i32 = 6;

/// Meshes and what acts on them.
pub(super) struct Problem<'a, const C: usize> {
    pub(super) layout: Layout,
    /// The distances between nodes along z, y, x, micrometres.
    pub(super) spacing: [f64; 3],
    /// The constant of the springs ([`springs::springs`]).
    pub(super) stiffness: f64,
    /// The factors of the constants of each spring of each node; none if all are 1.
    pub(super) factors: &'a [Vec<f32>],
    /// The ties.
    pub(super) ties: Vec<Ties<C>>,
    /// The constant of springs of length 0 from all nodes to their positions at rest.
    pub(super) anchor: f64,
    /// The sections whose nodes do not move.
    pub(super) held: Held<'a>,
    /// Whether nothing ties the meshes to a place. They are then not shifted or turned as a whole,
    /// which would change neither their strain nor their fit to each other.
    pub(super) floats: bool,
}

/// What the solver did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Solution {
    /// The energy.
    pub(super) energy: f64,
    /// The steps of Newton's method.
    pub(super) steps: usize,
    /// The iterations of conjugate gradients.
    pub(super) iterations: usize,
    /// The longest displacement of a node in the last step, micrometres.
    pub(super) last: f64,
}

impl<const C: usize> Problem<'_, C> {
    /// The springs of the meshes.
    pub(super) fn springs(&self) -> Vec<Spring<C>> {
        springs::with_factors(springs::springs(self.spacing, self.stiffness), self.factors)
    }

    /// The energy, and its gradient.
    pub(super) fn gradient(&self, springs: &[Spring<C>], u: &[[f64; C]]) -> (f64, Vec<[f64; C]>) {
        let mut gradient: Vec<[f64; C]> = u.iter().map(|u| u.map(|u| self.anchor * u)).collect();
        let energy = self.anchored(u)
            + springs::add_gradient(&self.layout, springs, u, &mut gradient)
            + ties::add_gradient(&self.layout, &self.ties, u, &mut gradient);
        self.layout.fill_rows(&mut gradient, |_, row| {
            clear_held(&self.layout, self.held, row);
            0.0
        });
        (energy, gradient)
    }

    fn anchored(&self, u: &[[f64; C]]) -> f64 {
        0.5 * self.anchor * u.as_flattened().iter().map(|u| u * u).sum::<f64>()
    }

    /// Moves the nodes to the equilibrium, until a step moves none by more than `tolerance`
    /// micrometres.
    ///
    /// * `u`: the displacements, from which the search begins; those of held sections do not change
    ///
    /// Newton's method without the second derivatives of the springs' directions (Gauss-Newton): its
    /// matrix is positive, its first step from rest is the solution of linear elasticity, and the
    /// terms left out are of the order of the strain.
    pub(super) fn solve(&self, u: &mut Vec<[f64; C]>, tolerance: f64) -> Solution {
        let springs = self.springs();
        let inverse = Multigrid::new(
            self.layout,
            self.spacing,
            self.stiffness,
            self.factors,
            &self.ties,
            self.anchor,
            self.held,
        );
        let (mut energy, mut gradient) = self.gradient(&springs, u);
        let mut solution = Solution { energy, ..Solution::default() };
        for _ in 0..STEPS {
            let (step, iterations) = self.step(&springs, &inverse, u, &gradient);
            solution.steps += 1;
            solution.iterations += iterations;
            let mut fraction = 1.0;
            let shorter = (0..HALVINGS).find_map(|halvings| {
                fraction = 0.5_f64.powi(halvings);
                let moved = u.iter().zip(&step);
                let moved: Vec<[f64; C]> =
                    moved.map(|(u, s)| std::array::from_fn(|c| u[c] + fraction * s[c])).collect();
                let (now, slope) = self.gradient(&springs, &moved);
                (now <= energy).then_some((moved, now, slope))
            });
            let Some(better) = shorter else {
                break; // no step reduces the energy: rounding errors
            };
            (*u, energy, gradient) = better;
            let longest = step.iter().map(|s| springs::dot(s, s)).fold(0.0, f64::max).sqrt();
            solution.last = fraction * longest;
            solution.energy = energy;
            if solution.last <= tolerance {
                break;
            }
        }
        solution
    }

    /// A step of Newton's method by preconditioned conjugate gradients, and their number.
    fn step(
        &self,
        springs: &[Spring<C>],
        inverse: &Multigrid<C>,
        u: &[[f64; C]],
        gradient: &[[f64; C]],
    ) -> (Vec<[f64; C]>, usize) {
        let directions = springs::directions(&self.layout, springs, u);
        let zero = || vec![[0.0; C]; u.len()];
        let mut step = zero();
        let mut rest: Vec<[f64; C]> = gradient.iter().map(|g| g.map(|g| -g)).collect();
        let (mut better, mut product) = (zero(), zero());
        self.hold_as_a_whole(&mut rest);
        inverse.apply(&rest, &mut better);
        self.hold_as_a_whole(&mut better);
        let mut along = better.clone();
        let mut square = self.dot(&rest, &better);
        let enough = REDUCTION * REDUCTION * square;
        for iteration in 0..ITERATIONS {
            if !(square > enough) {
                return (step, iteration);
            }
            self.product(springs, &directions, &along, &mut product);
            self.hold_as_a_whole(&mut product);
            let by = square / self.dot(&along, &product);
            if !by.is_finite() {
                return (step, iteration);
            }
            for i in 0..u.len() {
                for c in 0..C {
                    step[i][c] += by * along[i][c];
                    rest[i][c] -= by * product[i][c];
                }
            }
            inverse.apply(&rest, &mut better);
            self.hold_as_a_whole(&mut better);
            let next = self.dot(&rest, &better);
            let keep = next / square;
            for (along, better) in along.iter_mut().zip(&better) {
                *along = std::array::from_fn(|c| better[c] + keep * along[c]);
            }
            square = next;
        }
        (step, ITERATIONS)
    }

    /// Subtracts the shift, and the small rotations, of all meshes as a whole from `v`.
    fn hold_as_a_whole(&self, v: &mut [[f64; C]]) {
        if !self.floats {
            return;
        }
        let count = v.len().max(1) as f64;
        let shift: [f64; C] = std::array::from_fn(|c| v.iter().map(|v| v[c]).sum::<f64>() / count);
        v.iter_mut().for_each(|v| (0..C).for_each(|c| v[c] -= shift[c]));
        let middle: [f64; 3] = self.layout.shape.map(|n| (n as f64 - 1.0) / 2.0);
        let arm = |i: usize| -> [f64; C] {
            let (_, at) = self.layout.position(i);
            std::array::from_fn(|c| {
                let a = 3 - C + c;
                (at[a] as f64 - middle[a]) * self.spacing[a]
            })
        };
        for (c, d) in [(0, 1), (0, 2), (1, 2)].into_iter().filter(|(_, d)| *d < C) {
            let (mut along, mut square) = (0.0, 0.0);
            for (i, v) in v.iter().enumerate() {
                let arm = arm(i);
                along += arm[c] * v[d] - arm[d] * v[c];
                square += arm[c] * arm[c] + arm[d] * arm[d];
            }
            let angle = if square > 0.0 { along / square } else { 0.0 };
            for (i, v) in v.iter_mut().enumerate() {
                let arm = arm(i);
                v[d] -= angle * arm[c];
                v[c] += angle * arm[d];
            }
        }
    }

    fn dot(&self, a: &[[f64; C]], b: &[[f64; C]]) -> f64 {
        a.iter().zip(b).map(|(a, b)| springs::dot(a, b)).sum()
    }

    /// The product of the second derivatives with `s`.
    fn product(
        &self,
        springs: &[Spring<C>],
        directions: &[Vec<[f32; C]>],
        s: &[[f64; C]],
        out: &mut [[f64; C]],
    ) {
        for (out, s) in out.iter_mut().zip(s) {
            *out = s.map(|s| self.anchor * s);
        }
        springs::add_product(&self.layout, springs, directions, s, out);
        let kinds: Vec<_> =
            self.ties.iter().map(|tie| (tie.distance, tie.weights.as_slice())).collect();
        self.layout.fill_rows(out, |row, out| {
            ties::add_product_of_row(&self.layout, &kinds, s, row, out);
            clear_held(&self.layout, self.held, out);
            0.0
        });
    }
}
