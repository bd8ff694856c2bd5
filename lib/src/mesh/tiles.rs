//! Meshes of planes that are too large to be relaxed at once.
//!
//! The meshes are first relaxed at a lower resolution, all sections whole. The nodes of a tile, with
//! a halo around it, are then relaxed for all sections; the rim of the halo is tied to the mesh of
//! lower resolution. What happens at the rim hardly reaches the tile, because displacements that
//! matches do not support fade within a few nodes.

use super::layout::Layout;
use super::matches::{Matches, node_position};
use super::ties::Ties;
use crate::geom::{Box3, Grid, Point};

/// The width of the halo, in nodes.
pub(super) const HALO: usize = 24;
/// The factor between the distances of nodes.
pub(super) const REDUCTION: usize = 8;
/// The width of the rim that is tied to the mesh of lower resolution, in nodes, and the constant of
/// the ties.
const RIM: usize = 2;
const HOLD: f32 = 1.0;

/// The meshes at lower resolution.
#[derive(Debug)]
pub(super) struct Coarse {
    /// The nodes; one mesh for each z.
    pub(super) grid: Grid,
    pub(super) layout: Layout,
    /// The displacement of each node in micrometres, in the order of the layout.
    pub(super) u: Vec<[f64; 2]>,
}

/// Where the search for the equilibrium of a tile begins, and what holds its rim.
#[derive(Clone, Debug)]
pub(super) struct Frame<const C: usize> {
    /// The displacement of each node, micrometres.
    pub(super) start: Vec<[f64; C]>,
    pub(super) rim: Ties<C>,
}

/// The nodes at lower resolution that cover a grid.
pub(super) fn coarse_grid(grid: &Grid) -> Grid {
    let mut coarse = *grid;
    for a in 1..3 {
        coarse.shape[a] = (grid.shape[a] - 1).div_ceil(REDUCTION) + 1;
        coarse.spacing[a] *= REDUCTION as f64;
    }
    coarse
}

/// The matches of a plane at lower resolution: the mean displacement, and the sum of the weights, of
/// squares of nodes.
pub(super) fn reduced(fine: &Matches<2>) -> Matches<2> {
    let [nz, ny, nx] = fine.grid.shape;
    let mut grid = fine.grid;
    for a in 1..3 {
        grid.shape[a] = fine.grid.shape[a].div_ceil(REDUCTION);
        grid.spacing[a] *= REDUCTION as f64;
        grid.origin[a] += (REDUCTION as f64 - 1.0) / 2.0 * fine.grid.spacing[a];
    }
    let count = grid.shape.iter().product();
    let (mut sums, mut weights) = (vec![[0.0_f64; 2]; count], vec![0.0_f32; count]);
    for i in 0..nz * ny * nx {
        let (z, y, x) = (i / (ny * nx), i / nx % ny, i % nx);
        let (weight, vector) = (fine.weights[i], fine.displacements[i]);
        if weight > 0.0 && vector.iter().all(|v| v.is_finite()) {
            let to = (z * grid.shape[1] + y / REDUCTION) * grid.shape[2] + x / REDUCTION;
            weights[to] += weight;
            (0..2).for_each(|c| sums[to][c] += f64::from(weight) * f64::from(vector[c]));
        }
    }
    let displacements = sums
        .iter()
        .zip(&weights)
        .map(|(sum, weight)| sum.map(|v| (v / f64::from(*weight)) as f32))
        .collect();
    Matches { grid, displacements, weights, distance: fine.distance, first: [0; 3] }
}

impl Coarse {
    /// The displacement at a point (z, y, x in micrometres) of a section.
    fn at(&self, section: usize, point: Point) -> [f64; 2] {
        let place = self.grid.index(point);
        let taps = [1, 2].map(|a| {
            let last = self.grid.shape[a] - 1;
            let p = place[a].clamp(0.0, last as f64);
            let share = p - p.floor();
            [(p as usize, 1.0 - share), ((p as usize + 1).min(last), share)]
        });
        let mut sum = [0.0; 2];
        for (y, wy) in taps[0] {
            for (x, wx) in taps[1] {
                let u = &self.u[self.layout.index(section, [0, y, x])];
                (0..2).for_each(|c| sum[c] += wy * wx * u[c]);
            }
        }
        sum
    }

    /// The longest displacement along y and x, micrometres.
    pub(super) fn reach(&self) -> [f64; 2] {
        let along = |c: usize| self.u.iter().map(|u| u[c].abs()).fold(0.0, f64::max);
        [along(0), along(1)]
    }

    /// The frame of a tile.
    ///
    /// * `all`: the nodes of the whole mesh
    /// * `part`: the nodes of the tile and its halo
    pub(super) fn frame(&self, all: &Grid, part: &Box3) -> Frame<2> {
        let grid = all.crop(part);
        let layout = Layout { shape: [1, grid.shape[1], grid.shape[2]], sections: grid.shape[0] };
        let first = part.min[0] as usize;
        let node = |i: usize| {
            let (section, at) = layout.position(i);
            (section, at, self.at(first + section, node_position(&grid, section, at)))
        };
        let is_rim = |at: [usize; 3]| {
            (1..3).any(|a| {
                let from_start = part.min[a] > 0 && at[a] < RIM;
                let from_end =
                    (part.max[a] as usize) < all.shape[a] && at[a] + RIM >= grid.shape[a];
                from_start || from_end
            })
        };
        let nodes: Vec<_> = (0..layout.len()).map(node).collect();
        let weights = nodes.iter().map(|(_, at, _)| if is_rim(*at) { HOLD } else { 0.0 }).collect();
        let targets = nodes.iter().map(|(_, _, u)| u.map(|u| u as f32)).collect();
        Frame {
            start: nodes.iter().map(|(_, _, u)| *u).collect(),
            rim: Ties { distance: 0, weights, targets },
        }
    }
}
