//! The equilibrium of meshes and measured displacements, in rounds.
//!
//! In each round, the displacements are looked up where the meshes are now, the ties that fit badly
//! get smaller weights, and the equilibrium is solved for. Where a mesh folds, the weights of its
//! ties are reduced and the equilibrium is searched for again from the mesh at rest.

use super::folds::{folds, grown};
use super::layout::Layout;
use super::matches::{Matches, Robust};
use super::solve::Problem;
use super::springs::dot;
use super::ties::{self, Ties};
use super::tiles::Frame;
use crate::geom::Grid;

/// The greatest number of rounds.
const ROUNDS: usize = 16;
/// In the second round, ties are judged by this many times the length that is asked for, and in
/// each further round by half as many.
const FIRST_LENGTH: f64 = 8.0;
/// The equilibrium of the first round is exact to this many times the tolerance, and that of each
/// further one to this fraction of what the round before moved.
const FIRST_TOLERANCE: f64 = 20.0;
const LATER_TOLERANCE: f64 = 0.1;
/// From this round on, nodes get no further ties: those at the rim of the known displacements would
/// otherwise come and go with them.
const LAST_GAIN: usize = 4;
/// How often folds are repaired.
const REPAIRS: usize = 8;
/// The factor by which the weights of ties at folds are reduced.
const REDUCTION: f32 = 0.25;
/// The constants of the springs that place what no match places, relative to the constant of a
/// match: from neighbouring sections to each other, and from all nodes to their position at rest.
const BRIDGE: f32 = 1e-5;
const ANCHOR: f64 = 1e-7;

/// Meshes, and the displacements that move them.
pub(super) struct Relaxation<const C: usize> {
    /// The nodes; for planes, one mesh for each z.
    pub(super) grid: Grid,
    pub(super) matches: Vec<Matches<C>>,
    /// The constant of the springs, relative to that of a match of weight 1.
    pub(super) stiffness: f64,
    /// The factors of the constants of each spring of each node; none if all are 1.
    pub(super) factors: Vec<Vec<f32>>,
    /// How residuals reduce the weight of a match.
    pub(super) robust: Option<Robust>,
    /// The meshes that do not move.
    pub(super) held: Vec<bool>,
    /// What is known from a mesh of lower resolution, in a tile.
    pub(super) frame: Option<Frame<C>>,
    /// The displacement of a node by which a round moves it at most in the end, micrometres.
    pub(super) tolerance: f64,
}

/// Meshes at their equilibrium.
#[derive(Debug)]
pub(super) struct Relaxed<const C: usize> {
    pub(super) layout: Layout,
    /// The displacement of each node in micrometres, in the order of the layout.
    pub(super) u: Vec<[f64; C]>,
    /// The ties of each of the fields, with their final weights.
    pub(super) ties: Vec<Ties<C>>,
    pub(super) rounds: usize,
    /// The nodes that folded at first, and at the end.
    pub(super) folded: [Vec<usize>; 2],
    /// The least relative area (or volume) of a corner of a cell.
    pub(super) least_area: f64,
}

impl<const C: usize> Relaxation<C> {
    /// The order of the nodes.
    pub(super) fn layout(&self) -> Layout {
        let [nz, ny, nx] = self.grid.shape;
        match C {
            2 => Layout { shape: [1, ny, nx], sections: nz },
            _ => Layout { shape: [nz, ny, nx], sections: 1 },
        }
    }

    /// Searches for the equilibrium.
    pub(super) fn relax(&self) -> Relaxed<C> {
        let layout = self.layout();
        let mut trust = vec![1.0_f32; layout.len()];
        let mut relaxed = self.settle(&layout, &trust);
        for repair in 0..=REPAIRS {
            let (folded, least) = folds(&layout, self.grid.spacing, &relaxed.u);
            if repair == 0 {
                relaxed.folded[0].clone_from(&folded);
            }
            relaxed.least_area = least;
            relaxed.folded[1] = folded;
            if relaxed.folded[1].is_empty() || repair == REPAIRS {
                break;
            }
            for i in grown(&layout, &relaxed.folded[1], 1 + repair) {
                trust[i] *= REDUCTION;
            }
            let [at_first, _] = relaxed.folded;
            relaxed = self.settle(&layout, &trust);
            relaxed.folded[0] = at_first;
        }
        relaxed
    }

    /// The equilibrium with the given factors of the weights of each node.
    fn settle(&self, layout: &Layout, trust: &[f32]) -> Relaxed<C> {
        let at_rest = || vec![[0.0; C]; layout.len()];
        let mut u = self.frame.as_ref().map_or_else(at_rest, |frame| frame.start.clone());
        let mut ties = Vec::new();
        let mut rounds = 0;
        // the first rounds need not be exact
        let moves = self.matches.iter().any(|matches| matches.distance != 0);
        let is_exact = !moves && self.robust.is_none();
        let mut enough = self.tolerance * if is_exact { 0.25 } else { FIRST_TOLERANCE };
        let last_judged = self.robust.map_or(0, |_| 1 + FIRST_LENGTH.log2() as usize);
        while rounds < ROUNDS {
            let before_last = ties;
            ties = self.ties(layout, trust, &u, rounds);
            if rounds >= LAST_GAIN {
                forget_new(&mut ties, &before_last);
            }
            let before = u.clone();
            let problem = self.problem(layout, &ties);
            let found = problem.solve(&mut u, enough);
            rounds += 1;
            let moved = u.iter().zip(&before).map(|(a, b)| {
                let by: [f64; C] = std::array::from_fn(|c| a[c] - b[c]);
                dot(&by, &by)
            });
            let moved = moved.fold(0.0, f64::max).sqrt();
            let is_still = moved <= self.tolerance;
            enough = (LATER_TOLERANCE * moved).clamp(self.tolerance / 4.0, enough);
            tracing::debug!("round {rounds}: nodes move by {moved:.4} um at most; {found:?}");
            if is_exact || (is_still && rounds > last_judged) {
                break;
            }
        }
        let least_area = f64::INFINITY;
        Relaxed { layout: *layout, u, ties, rounds, folded: [Vec::new(), Vec::new()], least_area }
    }

    /// The ties at the present position of the meshes.
    fn ties(&self, layout: &Layout, trust: &[f32], u: &[[f64; C]], round: usize) -> Vec<Ties<C>> {
        self.matches
            .iter()
            .map(|matches| {
                let mut ties = matches.ties(layout, &self.grid, u);
                if let Some(robust) = self.robust.filter(|_| round > 0) {
                    let wider = (FIRST_LENGTH / 2.0_f64.powi(round as i32 - 1)).max(1.0);
                    ties.reweight(layout, u, Robust { length: robust.length * wider });
                }
                for i in 0..layout.len() {
                    let (section, at) = layout.position(i);
                    let other = ties::partner(section, ties.distance, layout.sections);
                    let other = other.map_or(1.0, |other| trust[layout.index(other, at)]);
                    ties.weights[i] *= trust[i].min(other);
                }
                ties
            })
            .collect()
    }

    fn problem<'a>(&'a self, layout: &Layout, ties: &[Ties<C>]) -> Problem<'a, C> {
        let mut ties = ties.to_vec();
        if ties.iter().any(|tie| tie.distance != 0) {
            ties.push(Ties {
                distance: 1,
                weights: vec![BRIDGE; layout.len()],
                targets: vec![[0.0; C]; layout.len()],
            });
        }
        ties.extend(self.frame.iter().map(|frame| frame.rim.clone()));
        let floats = !self.held.contains(&true) && ties.iter().all(|tie| tie.distance != 0);
        Problem {
            layout: *layout,
            spacing: self.grid.spacing,
            stiffness: self.stiffness,
            factors: &self.factors,
            ties,
            anchor: ANCHOR,
            held: &self.held,
            floats,
        }
    }
}

/// Removes the ties of nodes that had none before.
fn forget_new<const C: usize>(ties: &mut [Ties<C>], before: &[Ties<C>]) {
    for (ties, before) in ties.iter_mut().zip(before) {
        for (weight, before) in ties.weights.iter_mut().zip(&before.weights) {
            if *before == 0.0 {
                *weight = 0.0;
            }
        }
    }
}
