//! The inverse of a chain at the nodes of a box of a grid.
//!
//! Every eighth node along each axis is solved by Newton's method from an initial guess
//! ([`points::inverse`]). For every other node, the iteration starts from the interpolation of
//! these solved nodes and uses the slope of the interpolation as the inverse Jacobian. The solved
//! nodes are aligned to the whole grid, and a node depends only on the eight solved nodes around
//! it, so that its result does not depend on the box in which it is computed.

use super::{Error, points};
use crate::blocks::Pool;
use crate::device::Cost;
use crate::geom::{Affine, Box3, Chain, FieldPart, Grid, LocalChain, LocalStep, Point, Transform};

/// The default tolerance: the maximum distance between a node and the image of its inverse, in
/// units of the smallest node spacing.
pub const TOLERANCE: f64 = 1e-4;

/// The spacing of the nodes that are solved by Newton's method, in nodes.
const NODE_SPACING: i64 = 8;
/// The number of steps with the interpolated slope after which a node is solved by Newton's method
/// instead.
const MAX_STEPS: usize = 12;
/// The step of the finite differences that detect folds at nodes solved by Newton's method,
/// micrometres.
const DIFFERENCE_STEP: f64 = 1e-3;

/// For each node of a box, the point that the chain maps to it.
#[derive(Clone, Debug)]
pub struct Inverse {
    /// For each node, the displacement to the point that the chain maps to it, micrometres, C
    /// order, components z, y, x; NaN where no point is known or the map folds.
    pub vectors: Vec<[f32; 3]>,
    /// The number of nodes whose vector is NaN.
    pub lost: u64,
    /// The number of nodes whose vector is NaN although a point was found, because the map folds
    /// there.
    pub folded: u64,
    /// The sum of the distances between the nodes and the images of their points, micrometres.
    pub residual_sum: f64,
    /// The maximum distance between a node and the image of its point, micrometres.
    pub residual_greatest: f64,
}

impl Inverse {
    fn of(mut vectors: Vec<[f32; 3]>, nodes: usize) -> Self {
        vectors[..nodes].fill([f32::NAN; 3]);
        Self { vectors, lost: 0, folded: 0, residual_sum: 0.0, residual_greatest: 0.0 }
    }

    fn enter(&mut self, i: usize, target: Point, q: Point, residual: f64) {
        self.vectors[i] = std::array::from_fn(|a| (q[a] - target[a]) as f32);
        self.residual_sum += residual;
        self.residual_greatest = self.residual_greatest.max(residual);
    }

    /// Converts the inverse to a step of a chain; `part` is the box of nodes of `grid` that it was
    /// computed for.
    pub fn into_step(self, grid: &Grid, part: &Box3) -> FieldPart {
        FieldPart { grid: *grid, part: *part, vectors: self.vectors, exterior: f64::NAN }
    }
}

/// A cell between eight solved nodes.
#[derive(Clone, Copy)]
struct Cell {
    /// The solutions at its nodes; corner `c` is the upper one along axis `a` if bit `a` of `c` is
    /// set.
    corners: [Point; 8],
    /// An extent that contains the corners, with a margin for the steps of a search that starts in
    /// the cell. NaN if a corner has no solution.
    extent: [Point; 2],
}

/// The solved nodes whose cells cover a box.
pub(super) struct SolvedNodes<'a> {
    chain: &'a Chain,
    grid: &'a Grid,
    /// The index of the first cell on the whole grid.
    first: [i64; 3],
    /// The number of cells along each axis.
    shape: [usize; 3],
    stride: [i64; 3],
    cells: Vec<Cell>,
    /// The sign of the chain's Jacobian determinant where it does not fold.
    orientation: f64,
}

/// The peak memory of [`inverse`] for the nodes of `part`, itemised.
///
/// # Errors
/// As [`inverse`].
pub fn cost(chain: &Chain, grid: &Grid, part: &Box3) -> Result<Cost, Error> {
    let extent = SolvedNodes::new(chain, grid, part)?.extent();
    let vectors = match extent {
        Some(extent) => chain.localise(extent).map_err(Error::Field)?.0.vectors(),
        None => 0,
    };
    let cells = part.len() / NODE_SPACING.pow(3) as usize + 1;
    Ok(Cost::of::<[f32; 3]>("inverse vectors", part.len())
        + Cost::of::<[f32; 3]>("vectors of the map", vectors)
        + Cost::of::<Cell>("solved nodes", 2 * cells)
        + points::search_cost(chain, points::MAX_CONCURRENT, part.len()))
}

/// Inverts `chain` at the nodes of `part`, a box of `grid` in the moving space, to within
/// `tolerance` times the smallest node spacing.
///
/// Numbers: `f64`; the result is `f32`, relative to its node. Checked by:
/// `tests::an_inverse_undoes_its_chain_alike_in_boxes_of_any_size`.
///
/// # Errors
/// [`Error::NoInverse`] for a singular matrix, [`Error::Field`] if a field cannot be read.
pub fn inverse(chain: &Chain, grid: &Grid, part: &Box3, tolerance: f64) -> Result<Inverse, Error> {
    let mut found = inverse_from(chain, grid, part, tolerance, &Pool::default())?;
    found.vectors.truncate(part.len());
    Ok(found)
}

/// Like [`inverse`], but with buffers from `pool`. `Inverse::vectors` is one of these buffers and
/// can be longer than the number of nodes.
pub(super) fn inverse_from(
    chain: &Chain,
    grid: &Grid,
    part: &Box3,
    tolerance: f64,
    pool: &Pool<[f32; 3]>,
) -> Result<Inverse, Error> {
    let solved_nodes = SolvedNodes::new(chain, grid, part)?;
    let Some(extent) = solved_nodes.extent() else {
        return solved_nodes.inverse(None, part, tolerance, pool.take(part.len()));
    };
    let (local, _) = chain.localise_into(extent, |len| pool.take(len)).map_err(Error::Field)?;
    let found = solved_nodes.inverse(Some(&local), part, tolerance, pool.take(part.len()));
    give_back(local, pool);
    found
}

/// Returns the buffers of a chain's fields to the pool from which they were taken.
pub(super) fn give_back(chain: LocalChain, pool: &Pool<[f32; 3]>) {
    for step in chain.steps {
        if let LocalStep::Field(field) = step {
            pool.give_back(field.vectors);
        }
    }
}

impl<'a> SolvedNodes<'a> {
    pub(super) fn new(chain: &'a Chain, grid: &'a Grid, part: &Box3) -> Result<Self, Error> {
        let stride = grid.shape.map(|n| if n > 1 { NODE_SPACING } else { 1 });
        let first: [i64; 3] = std::array::from_fn(|a| part.min[a].div_euclid(stride[a]));
        let shape: [usize; 3] = std::array::from_fn(|a| {
            ((part.max[a] - 1).div_euclid(stride[a]) - first[a] + 1) as usize
        });
        // a grid of one plane has one layer of nodes
        let nodes: [usize; 3] = std::array::from_fn(|a| shape[a] + usize::from(stride[a] > 1));
        let at = |i: usize, n: [usize; 3]| [i / (n[1] * n[2]), i / n[2] % n[1], i % n[2]];
        let targets: Vec<Point> = (0..nodes.iter().product())
            .map(|i| {
                let node = at(i, nodes);
                grid.position(std::array::from_fn(|a| {
                    ((first[a] + node[a] as i64) * stride[a]) as f64
                }))
            })
            .collect();
        let points = points::inverse(chain, &targets)?.points;
        let cells = (0..shape.iter().product()).map(|i| {
            let low = at(i, shape);
            Cell::new(std::array::from_fn(|corner| {
                let node: [usize; 3] =
                    std::array::from_fn(|a| (low[a] + (corner >> a & 1)).min(nodes[a] - 1));
                points[(node[0] * nodes[1] + node[1]) * nodes[2] + node[2]]
            }))
        });
        let (cells, orientation) = (cells.collect(), orientation(chain));
        Ok(Self { chain, grid, first, shape, stride, cells, orientation })
    }

    /// The extent of all points that a search can reach; `None` if every cell has a corner without
    /// a solution.
    pub(super) fn extent(&self) -> Option<[Point; 2]> {
        let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for cell in &self.cells {
            for a in 0..3 {
                // `min` and `max` ignore NaN
                extent[0][a] = extent[0][a].min(cell.extent[0][a]);
                extent[1][a] = extent[1][a].max(cell.extent[1][a]);
            }
        }
        extent[0][0].is_finite().then_some(extent)
    }

    /// See [`inverse`]; `local` is the chain in memory, or `None` if [`SolvedNodes::extent`] is
    /// `None`.
    fn inverse(
        &self,
        local: Option<&LocalChain>,
        part: &Box3,
        tolerance: f64,
        vectors: Vec<[f32; 3]>,
    ) -> Result<Inverse, Error> {
        let limit = tolerance * self.grid.spacing.iter().copied().fold(f64::INFINITY, f64::min);
        let mut found = Inverse::of(vectors, part.len());
        let mut rest = Vec::with_capacity(points::MAX_CONCURRENT);
        let mut i = 0;
        for z in part.min[0]..part.max[0] {
            for y in part.min[1]..part.max[1] {
                for x in part.min[2]..part.max[2] {
                    let node = [z, y, x];
                    let target = self.grid.position(node.map(|v| v as f64));
                    let follow = |local: &LocalChain| self.follow(local, node, target, limit);
                    match local.and_then(follow) {
                        Some((q, residual)) => found.enter(i, target, q, residual),
                        None => rest.push((i, target)),
                    }
                    if rest.len() == points::MAX_CONCURRENT {
                        self.solve(&mut rest, &mut found)?;
                    }
                    i += 1;
                }
            }
        }
        self.solve(&mut rest, &mut found)?;
        Ok(found)
    }

    /// Solves a node by an iteration that starts from the interpolation of the solved nodes around
    /// it. Returns its point and the residual, micrometres, or `None` if the iteration fails.
    fn follow(
        &self,
        local: &LocalChain,
        node: [i64; 3],
        target: Point,
        limit: f64,
    ) -> Option<(Point, f64)> {
        let mut share = [0.0; 3];
        let mut cell = 0;
        for a in 0..3 {
            let low = node[a].div_euclid(self.stride[a]);
            share[a] = (node[a] - low * self.stride[a]) as f64 / self.stride[a] as f64;
            cell = cell * self.shape[a] + (low - self.first[a]) as usize;
        }
        let cell = &self.cells[cell];
        let (mut q, mut slope) = cell.at(share);
        for a in 0..3 {
            if self.stride[a] > 1 {
                let by = 1.0 / (self.grid.spacing[a] * self.stride[a] as f64);
                slope[a] = slope[a].map(|v| v * by);
            } else {
                slope[a][a] = 1.0;
            }
        }
        // if the slope reverses orientation, the iteration would end where the map folds; a NaN
        // determinant fails this test too
        if !(determinant(slope) * self.orientation > 0.0) {
            return None;
        }
        let mut last = f64::INFINITY;
        for _ in 0..MAX_STEPS {
            if !(0..3).all(|a| q[a] >= cell.extent[0][a] && q[a] <= cell.extent[1][a]) {
                return None;
            }
            let image = local.apply(q);
            let r: Point = std::array::from_fn(|a| target[a] - image[a]);
            let residual = r.iter().map(|v| v * v).sum::<f64>().sqrt();
            if residual <= limit {
                return Some((q, residual));
            }
            // NaN fails this test too
            if !(residual < 0.9 * last) {
                return None;
            }
            last = residual;
            for c in 0..3 {
                q[c] += slope[0][c] * r[0] + slope[1][c] * r[1] + slope[2][c] * r[2];
            }
        }
        None
    }

    /// Solves the nodes `rest` by Newton's method and clears `rest`.
    fn solve(&self, rest: &mut Vec<(usize, Point)>, found: &mut Inverse) -> Result<(), Error> {
        let targets: Vec<Point> = rest.iter().map(|(_, target)| *target).collect();
        let solved = points::inverse(self.chain, &targets)?.points;
        let probes: Vec<Point> = solved
            .iter()
            .flat_map(|q| {
                (0..4).map(|i| {
                    std::array::from_fn(|a| q[a] + if i == a + 1 { DIFFERENCE_STEP } else { 0.0 })
                })
            })
            .collect();
        let images = points::forward(self.chain, &probes)?;
        for (((i, target), q), [here, beside @ ..]) in
            rest.drain(..).zip(solved).zip(images.as_chunks::<4>().0)
        {
            let rises = beside.map(|p| std::array::from_fn(|a| p[a] - here[a]));
            if determinant(rises) * self.orientation > 0.0 {
                let square: f64 = (0..3).map(|a| (here[a] - target[a]).powi(2)).sum();
                found.enter(i, target, q, square.sqrt());
            } else {
                found.lost += 1;
                found.folded += u64::from(q[0].is_finite());
            }
        }
        Ok(())
    }
}

impl Cell {
    fn new(corners: [Point; 8]) -> Self {
        let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for q in corners {
            for a in 0..3 {
                extent[0][a] = extent[0][a].min(q[a]);
                extent[1][a] = extent[1][a].max(q[a]);
            }
        }
        let known = corners.as_flattened().iter().all(|v| v.is_finite());
        let edge = (0..3).map(|a| extent[1][a] - extent[0][a]).fold(0.0, f64::max);
        // a step of the search can leave the cell slightly
        let margin = if known { edge / 2.0 } else { f64::NAN };
        let extent = [extent[0].map(|v| v - margin), extent[1].map(|v| v + margin)];
        Self { corners, extent }
    }

    /// The interpolated point at the fractional position `share` in the cell, and its derivative
    /// along each axis of the cell.
    #[inline(always)]
    fn at(&self, share: Point) -> (Point, [Point; 3]) {
        let mut q = [0.0; 3];
        let mut slope = [[0.0; 3]; 3];
        for (corner, point) in self.corners.iter().enumerate() {
            let weights: Point =
                std::array::from_fn(
                    |a| {
                        if corner >> a & 1 == 1 { share[a] } else { 1.0 - share[a] }
                    },
                );
            let signs: Point =
                std::array::from_fn(|a| if corner >> a & 1 == 1 { 1.0 } else { -1.0 });
            for c in 0..3 {
                q[c] += weights[0] * weights[1] * weights[2] * point[c];
                slope[0][c] += signs[0] * weights[1] * weights[2] * point[c];
                slope[1][c] += signs[1] * weights[0] * weights[2] * point[c];
                slope[2][c] += signs[2] * weights[0] * weights[1] * point[c];
            }
        }
        (q, slope)
    }
}

fn determinant([a, b, c]: [Point; 3]) -> f64 {
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
}

/// The orientation of the chain: -1 if it is a reflection, otherwise 1. Only affines and local
/// affines are considered, because fields are assumed not to reflect.
fn orientation(chain: &Chain) -> f64 {
    let of = |map: &Affine| map.determinant().signum();
    let steps = chain.steps.iter().map(|step| match step {
        Transform::Affine(map) => of(map),
        Transform::LocalAffines(maps) => maps.affines.iter().map(of).sum::<f64>().signum(),
        Transform::Field(_) => 1.0,
    });
    steps.product()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::geom::{Field, LocalAffines};

    const GRID: Grid = Grid {
        shape: [21, 27, 30],
        spacing: [1.2, 0.8, 0.7],
        origin: [2.0, -3.0, 1.0],
        planar: false,
    };

    fn waves(height: f64) -> Transform {
        let grid = Grid::new([12, 14, 15], [2.5, 2.0, 1.8], [0.0, -4.0, 0.0]);
        let vectors = (0..grid.bounds().len()).map(|i| {
            let [_, ny, nx] = grid.shape;
            let t = [i / (ny * nx), i / nx % ny, i % nx].map(|v| v as f64);
            let u = [(t[1] * 0.7).sin(), (t[2] * 0.6).cos(), (t[0] * 0.8 + t[2] * 0.3).sin()];
            u.map(|v| (v * height) as f32)
        });
        Transform::Field(Arc::new(Field { grid, vectors: vectors.collect() }))
    }

    /// A chain of a field of amplitude `height` (micrometres), local affines and a reflection.
    fn mixture(height: f64) -> Chain {
        let mirror = Affine::from_parts(
            [[0.97, 0.03, 0.0], [-0.02, 1.04, 0.05], [0.02, 0.0, -1.02]],
            [0.5, 0.25, 22.0],
        );
        let domain = Grid::new([20, 20, 20], [1.5; 3], [0.0, -4.0, 0.0]);
        let affines = (0..8)
            .map(|i| Affine::translation([0.2 * f64::from(i % 3), 0.1, -0.3 * f64::from(i % 2)]));
        let affines = affines.collect();
        let local = LocalAffines { domain, block: [10; 3], overlap: [5.0; 3], affines };
        let steps = vec![
            waves(height),
            Transform::LocalAffines(Arc::new(local)),
            Transform::Affine(mirror),
        ];
        Chain { steps }
    }

    fn nodes(grid: &Grid) -> Vec<Point> {
        grid.bounds().tiles([1; 3]).map(|v| grid.position(v.min.map(|v| v as f64))).collect()
    }

    #[test]
    fn an_inverse_undoes_its_chain_alike_in_boxes_of_any_size() {
        let flat = Grid { shape: [1, 40, 50], ..GRID };
        for (chain, grid) in [(mixture(0.3), GRID), (mixture(0.0), flat)] {
            let whole = inverse(&chain, &grid, &grid.bounds(), TOLERANCE).unwrap();
            let unit = grid.spacing.iter().copied().fold(f64::INFINITY, f64::min);
            let nodes = nodes(&grid);
            let sources: Vec<Point> = nodes
                .iter()
                .zip(&whole.vectors)
                .map(|(y, v)| std::array::from_fn(|a| y[a] + f64::from(v[a])))
                .collect();
            let mut known = 0;
            for (y, image) in nodes.iter().zip(points::forward(&chain, &sources).unwrap()) {
                known += usize::from(image[0].is_finite());
                let distance = (0..3).map(|a| (image[a] - y[a]).powi(2)).sum::<f64>().sqrt();
                assert!(!(distance > 1.2 * TOLERANCE * unit), "{y:?} comes back to {image:?}");
            }
            assert!(known * 100 > nodes.len() * 95, "{known} of {}", nodes.len());
            assert_eq!(nodes.len() - known, whole.lost as usize);
            for tile in grid.bounds().tiles([7, 9, 11]) {
                let part = inverse(&chain, &grid, &tile, TOLERANCE).unwrap();
                let mut there = part.vectors.iter();
                for [z, y, x] in tile.tiles([1; 3]).map(|t| t.min.map(|v| v as usize)) {
                    let here = whole.vectors[(z * grid.shape[1] + y) * grid.shape[2] + x];
                    let bits = |v: [f32; 3]| v.map(f32::to_bits);
                    assert_eq!(there.next().map(|v| bits(*v)), Some(bits(here)), "{z},{y},{x}");
                }
            }
        }
    }

    #[test]
    fn where_a_chain_folds_only_what_is_not_turned_is_taken() {
        let chain = mixture(4.0);
        let found = inverse(&chain, &GRID, &GRID.bounds(), TOLERANCE).unwrap();
        assert!(found.lost > 50 && found.folded > 0 && found.folded < found.lost, "{found:?}");
        for (y, v) in nodes(&GRID).iter().zip(&found.vectors).filter(|(_, v)| v[0].is_finite()) {
            let q: Point = std::array::from_fn(|a| y[a] + f64::from(v[a]));
            let probes: [Point; 4] = std::array::from_fn(|i| {
                std::array::from_fn(|a| q[a] + if i == a + 1 { DIFFERENCE_STEP } else { 0.0 })
            });
            let images = points::forward(&chain, &probes).unwrap();
            let rises: [Point; 3] =
                std::array::from_fn(|i| std::array::from_fn(|a| images[i + 1][a] - images[0][a]));
            // the chain is a reflection, so that the determinant is negative; the tolerance is for
            // probes on both sides of a face between two cells of the field
            assert!(determinant(rises) < 1e-10, "{y:?}: {rises:?}");
        }
    }

    #[test]
    fn unknown_vectors_leave_unknown_places_and_no_others() {
        let grid = Grid::new([12, 12, 12], [1.0; 3], [0.0; 3]);
        let mut vectors = vec![[0.0, 0.25, 0.0]; 12 * 12 * 12];
        vectors[..144].fill([f32::NAN; 3]);
        let field = Transform::Field(Arc::new(Field { grid, vectors }));
        let found =
            inverse(&Chain { steps: vec![field] }, &grid, &grid.bounds(), TOLERANCE).unwrap();
        for (i, v) in found.vectors.iter().enumerate() {
            // the edge value extends by half a sample; near the end of this margin two points map
            // to one place
            let inner = (1..11).contains(&(i / 12 % 12)) && i / 144 > 1;
            assert!(!inner || (v[1] + 0.25).abs() < 2e-4, "{i}: {v:?}");
            assert!(i >= 144 || v[0].is_nan(), "{i}: {v:?}");
        }
        assert_eq!(found.lost, found.vectors.iter().filter(|v| v[0].is_nan()).count() as u64);
    }
}
