//! The joint fit of the affines of all blocks to all matches.
//!
//! The blended map is `p -> p + sum_b w_b(p) D_b(p)`, with one affine displacement `D_b` per block
//! and the blending weights `w_b` of [`LocalAffines`]. The following sum is minimised over all
//! blocks together:
//!
//! ```text
//!   sum_i  v_i |moved_i - fixed_i - sum_b w_b(fixed_i) D_b(fixed_i)|^2     data: the matches
//! + stiffness sum_(b,c) mean_corners |D_b - D_c|^2                       neighbouring blocks agree
//! + anchor    sum_b     mean_corners |D_b|^2                             stay at the initial map
//! ```
//!
//! The unit of `stiffness` and `anchor` is one match: a face of stiffness 4 pulls like 4 matches.
//! The first penalty vanishes if all blocks share one affine, so that a block without matches
//! extrapolates its neighbours rather than falling back to zero displacement. The fit uses the
//! blended map itself: no block is fitted alone and blended afterwards.

use std::collections::BTreeMap;

use crate::geom::{Accuracy, Affine, Grid, LocalAffines, Point, conjugate_gradients};

/// A displacement observed at a point of the fixed frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    /// The point, micrometres.
    pub(super) at: Point,
    /// The displacement of the moving image at that point, micrometres.
    pub(super) shift: Point,
    /// The weight of the observation; 0 excludes it.
    pub(super) weight: f64,
}

/// The weights of the penalties, in matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Penalty {
    /// The weight per face between two blocks.
    pub(super) stiffness: f64,
    /// The weight per block of the penalty on displacement.
    pub(super) anchor: f64,
}

type Block4 = [[f64; 4]; 4];

/// Fits one affine per block of `layout` (whose `affines` are ignored) to the observations.
///
/// Returns maps of the fixed frame to itself: identity plus the fitted displacement.
pub(super) fn solve(
    layout: &LocalAffines,
    observations: &[Observation],
    penalty: Penalty,
) -> Vec<Affine> {
    let counts = LocalAffines::counts(layout.domain.shape, layout.block);
    let size: Point = std::array::from_fn(|a| layout.block[a] as f64 * layout.domain.spacing[a]);
    let centres = centres(&layout.domain, layout.block, counts);
    let mut system = System::new(centres.len());
    for observation in observations.iter().filter(|o| o.weight > 0.0) {
        system.observe(layout, &centres, size, observation);
    }
    system.regularise(&centres, counts, size, penalty);
    let solution: [Vec<f64>; 3] = std::array::from_fn(|c| system.conjugate_gradients(c));
    (0..centres.len())
        .map(|b| {
            let theta = |c: usize, k: usize| solution[c][4 * b + k];
            let linear = std::array::from_fn(|r| {
                std::array::from_fn(|a| f64::from(u8::from(r == a)) + theta(r, a + 1) / size[a])
            });
            let offset = std::array::from_fn(|r| {
                theta(r, 0) - (0..3).map(|a| theta(r, a + 1) / size[a] * centres[b][a]).sum::<f64>()
            });
            Affine::from_parts(linear, offset)
        })
        .collect()
}

/// The physical centres of all blocks in C order, as if no block were cut off by the domain.
fn centres(domain: &Grid, block: [usize; 3], counts: [usize; 3]) -> Vec<Point> {
    let n = counts.iter().product::<usize>();
    (0..n)
        .map(|i| {
            let index = [i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]];
            domain
                .position(std::array::from_fn(|a| (index[a] as f64 + 0.5) * block[a] as f64 - 0.5))
        })
        .collect()
}

/// The basis functions `[1, (p - centre) / size]` of a block's affine displacement. Their
/// coefficients are all in micrometres.
fn basis(p: Point, centre: Point, size: Point) -> [f64; 4] {
    let at = |a: usize| (p[a] - centre[a]) / size[a];
    [1.0, at(0), at(1), at(2)]
}

/// The normal equations: a symmetric matrix with a 4x4 cell for every pair of coupled blocks.
struct System {
    rows: Vec<BTreeMap<usize, Block4>>,
    /// The right-hand sides for z, y, x, each with four values per block.
    right: [Vec<f64>; 3],
}

impl System {
    fn new(blocks: usize) -> Self {
        Self {
            rows: vec![BTreeMap::new(); blocks],
            right: std::array::from_fn(|_| vec![0.0; 4 * blocks]),
        }
    }

    fn add(&mut self, b: usize, c: usize, scale: f64, left: &[f64; 4], right: &[f64; 4]) {
        let cell = self.rows[b].entry(c).or_default();
        for (row, l) in cell.iter_mut().zip(left) {
            for (value, r) in row.iter_mut().zip(right) {
                *value += scale * l * r;
            }
        }
    }

    fn observe(&mut self, layout: &LocalAffines, centres: &[Point], size: Point, o: &Observation) {
        let shares: Vec<(usize, f64, [f64; 4])> = layout
            .shares(o.at)
            .into_iter()
            .filter(|&(_, weight)| weight != 0.0)
            .map(|(b, weight)| (b, weight, basis(o.at, centres[b], size)))
            .collect();
        for (b, w, phi) in &shares {
            for (c, v, psi) in &shares {
                self.add(*b, *c, o.weight * w * v, phi, psi);
            }
            for a in 0..3 {
                for (k, value) in phi.iter().enumerate() {
                    self.right[a][4 * b + k] += o.weight * w * value * o.shift[a];
                }
            }
        }
    }

    fn regularise(&mut self, centres: &[Point], counts: [usize; 3], size: Point, penalty: Penalty) {
        let strides = [counts[1] * counts[2], counts[2], 1];
        for b in 0..centres.len() {
            for p in cube(centres[b], size) {
                let phi = basis(p, centres[b], size);
                self.add(b, b, penalty.anchor / 8.0, &phi, &phi);
            }
            for a in 0..3 {
                if b / strides[a] % counts[a] + 1 == counts[a] {
                    continue;
                }
                let c = b + strides[a];
                let middle = std::array::from_fn(|i| f64::midpoint(centres[b][i], centres[c][i]));
                for p in cube(middle, size) {
                    let (phi, psi) = (basis(p, centres[b], size), basis(p, centres[c], size));
                    let scale = penalty.stiffness / 8.0;
                    self.add(b, b, scale, &phi, &phi);
                    self.add(c, c, scale, &psi, &psi);
                    self.add(b, c, -scale, &phi, &psi);
                    self.add(c, b, -scale, &psi, &phi);
                }
            }
        }
    }

    fn times(&self, x: &[f64], out: &mut [f64]) {
        for (b, row) in self.rows.iter().enumerate() {
            let mut sum = [0.0; 4];
            for (&c, cell) in row {
                for (s, line) in sum.iter_mut().zip(cell) {
                    *s += (0..4).map(|k| line[k] * x[4 * c + k]).sum::<f64>();
                }
            }
            out[4 * b..4 * b + 4].copy_from_slice(&sum);
        }
    }

    /// Solves for one component of the displacement by conjugate gradients, preconditioned with the
    /// inverses of the diagonal cells.
    fn conjugate_gradients(&self, component: usize) -> Vec<f64> {
        let right = &self.right[component];
        let n = right.len();
        let inverses: Vec<_> = self
            .rows
            .iter()
            .enumerate()
            .map(|(b, row)| {
                let cell = row.get(&b).copied().unwrap_or_default();
                let matrix = nalgebra::Matrix4::from_fn(|r, c| cell[r][c]);
                matrix.try_inverse().unwrap_or_else(nalgebra::Matrix4::identity)
            })
            .collect();
        let precondition = |r: &[f64], z: &mut [f64]| {
            for (b, inverse) in inverses.iter().enumerate() {
                let part = nalgebra::Vector4::from_column_slice(&r[4 * b..4 * b + 4]);
                z[4 * b..4 * b + 4].copy_from_slice((inverse * part).as_slice());
            }
        };
        let accuracy = Accuracy { residual: 1e-12, iterations: 10 * n };
        conjugate_gradients(right, |p, q| self.times(p, q), precondition, accuracy).x
    }
}

fn cube(centre: Point, size: Point) -> [Point; 8] {
    std::array::from_fn(|i| {
        std::array::from_fn(|a| centre[a] + size[a] * if i >> a & 1 == 0 { -0.5 } else { 0.5 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(blocks: [usize; 3]) -> LocalAffines {
        let block = [10, 12, 16];
        LocalAffines {
            domain: Grid::new(
                std::array::from_fn(|a| blocks[a] * block[a]),
                [2.0, 1.0, 0.5],
                [5.0, -3.0, 0.0],
            ),
            block,
            overlap: [5.0, 6.0, 8.0],
            affines: Vec::new(),
        }
    }

    fn scattered(domain: &Grid, n: usize) -> impl Iterator<Item = Point> {
        let domain = *domain;
        let mut state = 1u64;
        (0..n).map(move |_| {
            domain.position(std::array::from_fn(|a| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as f64 / 2f64.powi(31) * (domain.shape[a] - 1) as f64
            }))
        })
    }

    const LOOSE: Penalty = Penalty { stiffness: 0.1, anchor: 1e-9 };

    #[test]
    fn one_affine_is_found_in_every_block_even_where_nothing_was_seen() {
        let layout = layout([3, 2, 4]);
        let truth = Affine::from_parts(
            [[1.02, 0.01, 0.0], [-0.02, 0.98, 0.03], [0.0, 0.01, 1.01]],
            [1.0, -2.0, 0.5],
        );
        // the upper half along x has no observations
        let middle = layout.domain.position(layout.domain.shape.map(|n| n as f64 / 2.0))[2];
        let seen: Vec<_> = scattered(&layout.domain, 400)
            .filter(|p| p[2] < middle)
            .map(|at| {
                let q = truth.apply(at);
                let shift = std::array::from_fn(|a| q[a] - at[a]);
                Observation { at, shift, weight: 1.0 }
            })
            .collect();
        let maps = solve(&layout, &seen, LOOSE);
        let extent = layout.domain.extent(&layout.domain.bounds());
        for map in maps {
            assert!(map.distance(&truth, extent) < 1e-3, "{}", map.distance(&truth, extent));
        }
    }

    #[test]
    fn no_small_change_of_any_block_lowers_the_cost() {
        let mut layout = layout([2, 2, 2]);
        let wave = |p: Point| [(p[2] * 0.3).sin(), (p[0] * 0.2).cos(), (p[1] * 0.25).sin()];
        let seen: Vec<_> = scattered(&layout.domain, 120)
            .map(|at| Observation { at, shift: wave(at), weight: 1.0 + (at[0] * 7.0).sin().abs() })
            .collect();
        let penalty = Penalty { stiffness: 2.0, anchor: 0.3 };
        let maps = solve(&layout, &seen, penalty);
        layout.affines.clone_from(&maps);
        let best = cost(&layout, &seen, penalty);
        for b in 0..maps.len() {
            for r in 0..3 {
                for c in 0..4 {
                    for change in [-1e-3, 1e-3] {
                        let mut rows = maps[b].rows();
                        rows[r][c] += change;
                        layout.affines[b] = Affine::from_rows(rows);
                        assert!(cost(&layout, &seen, penalty) > best);
                        layout.affines[b] = maps[b];
                    }
                }
            }
        }
    }

    /// The sum in the documentation of this module, written out.
    fn cost(layout: &LocalAffines, seen: &[Observation], penalty: Penalty) -> f64 {
        let squared = |d: Point| d.iter().map(|v| v * v).sum::<f64>();
        let counts = LocalAffines::counts(layout.domain.shape, layout.block);
        let size: Point =
            std::array::from_fn(|a| layout.block[a] as f64 * layout.domain.spacing[a]);
        let centres = centres(&layout.domain, layout.block, counts);
        let mut sum: f64 = seen
            .iter()
            .map(|o| {
                let q = layout.apply(o.at);
                o.weight * squared(std::array::from_fn(|a| q[a] - o.at[a] - o.shift[a]))
            })
            .sum();
        for b in 0..centres.len() {
            for p in cube(centres[b], size) {
                let q = layout.affines[b].apply(p);
                sum += penalty.anchor / 8.0 * squared(std::array::from_fn(|a| q[a] - p[a]));
            }
            for c in b + 1..centres.len() {
                let difference: f64 =
                    (0..3).map(|a| ((centres[b][a] - centres[c][a]) / size[a]).abs()).sum();
                if (difference - 1.0).abs() > 1e-9 {
                    continue;
                }
                let middle = std::array::from_fn(|i| f64::midpoint(centres[b][i], centres[c][i]));
                for p in cube(middle, size) {
                    let (q, r) = (layout.affines[b].apply(p), layout.affines[c].apply(p));
                    sum += penalty.stiffness / 8.0 * squared(std::array::from_fn(|a| q[a] - r[a]));
                }
            }
        }
        sum
    }
}
