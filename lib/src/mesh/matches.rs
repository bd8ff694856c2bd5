//! Measured displacements, and the ties that they put on meshes.

use super::layout::Layout;
use super::springs::dot;
use super::ties::{self, Ties};
use crate::geom::{Grid, Point};

/// A displacement between nodes of which less than this share is known is unknown.
const LEAST_KNOWN: f64 = 0.5;

/// The displacements of the points of each section in another section.
#[derive(Clone, Debug)]
pub(super) struct Matches<const C: usize> {
    /// The nodes; for planes, one section for each z.
    pub(super) grid: Grid,
    /// The displacement of each node in micrometres; NaN where unknown.
    pub(super) displacements: Vec<[f32; C]>,
    /// The weight of each node.
    pub(super) weights: Vec<f32>,
    /// The number of sections by which the other section precedes the own one; 0 if the other does
    /// not move.
    pub(super) distance: isize,
    /// The index of the first node in the whole field, z, y, x.
    pub(super) first: [i64; 3],
}

/// How residuals reduce the weight of a match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Robust {
    /// The residual, in micrometres, at which the weight is a quarter, for sections at a distance of
    /// 0 or 1; it grows with the distance.
    pub(super) length: f64,
}

impl Robust {
    /// The function of Geman and `McClure` (Bull. Int. Stat. Inst. 52-4, 1987).
    fn factor(self, residual: f64, distance: isize) -> f64 {
        let length = self.length * distance.unsigned_abs().max(1) as f64;
        (1.0 + (residual / length).powi(2)).powi(-2)
    }
}

impl<const C: usize> Matches<C> {
    /// The displacement and the weight at a point (z, y, x in micrometres) of a section.
    fn at(&self, section: usize, point: Point) -> Option<([f64; C], f64)> {
        let place = self.grid.index(point);
        let mut taps = [[(0_usize, 1.0_f64), (0, 0.0)]; 3];
        if C == 2 {
            taps[0][0].0 = section;
        }
        for a in 3 - C..3 {
            let last = self.grid.shape[a] as f64 - 1.0;
            if !(-0.5..=last + 0.5).contains(&place[a]) {
                return None;
            }
            let p = place[a].clamp(0.0, last);
            let share = p - p.floor();
            taps[a] = [(p as usize, 1.0 - share), (p as usize + 1, share)];
        }
        let [_, ny, nx] = self.grid.shape;
        let (mut sum, mut of_weights, mut known) = ([0.0; C], 0.0, 0.0);
        for (z, wz) in taps[0] {
            for (y, wy) in taps[1] {
                for (x, wx) in taps[2] {
                    let share = wz * wy * wx;
                    if share == 0.0 {
                        continue;
                    }
                    let i = (z * ny + y) * nx + x;
                    let (vector, weight) = (&self.displacements[i], f64::from(self.weights[i]));
                    if weight > 0.0 && vector.iter().all(|v| v.is_finite()) {
                        known += share;
                        of_weights += share * weight;
                        (0..C).for_each(|c| sum[c] += share * f64::from(vector[c]));
                    }
                }
            }
        }
        (known >= LEAST_KNOWN).then(|| (sum.map(|v| v / known), of_weights / known))
    }

    /// The ties that the displacements put on the nodes of meshes that are displaced by `u`, without
    /// regard to their residuals.
    ///
    /// * `grid`: the nodes of the meshes
    ///
    /// The point p of a section that lies at a node q of the mesh is q plus the displacement of the
    /// node. It was found in the other section at p plus the measured displacement of p, which should
    /// be q plus the displacement of the other section's node.
    pub(super) fn ties(&self, layout: &Layout, grid: &Grid, u: &[[f64; C]]) -> Ties<C> {
        let mut found = vec![([0.0; C], 0.0); layout.len()];
        layout.fill_rows(&mut found, |row, out| {
            let base = row * layout.width();
            for (i, out) in out.iter_mut().enumerate() {
                let (section, at) = layout.position(base + i);
                if ties::partner(section, self.distance, layout.sections).is_none() {
                    continue;
                }
                let mut point = node_position(grid, section, at);
                if self.distance != 0 {
                    (0..C).for_each(|c| point[3 - C + c] += u[base + i][c]);
                }
                if let Some((vector, weight)) = self.at(section, point) {
                    *out = (vector.map(|v| v as f32), weight as f32);
                }
            }
            0.0
        });
        let (targets, weights) = found.into_iter().unzip();
        Ties { distance: self.distance, weights, targets }
    }
}

/// The position of a node, z, y, x in micrometres.
pub(super) fn node_position(grid: &Grid, section: usize, [z, y, x]: [usize; 3]) -> Point {
    // one of the two is 0
    grid.position([section + z, y, x].map(|v| v as f64))
}

impl<const C: usize> Ties<C> {
    /// The length of the residual of each tie, micrometres; NaN where there is no tie.
    pub(super) fn residuals(&self, layout: &Layout, u: &[[f64; C]]) -> Vec<f64> {
        (0..layout.len())
            .map(|i| {
                let (section, at) = layout.position(i);
                let other = ties::partner(section, self.distance, layout.sections);
                let Some(other) = other.filter(|_| self.weights[i] > 0.0) else {
                    return f64::NAN;
                };
                let other = u[layout.index(other, at)];
                let away: [f64; C] = std::array::from_fn(|c| {
                    let by = if self.distance == 0 { u[i][c] } else { other[c] - u[i][c] };
                    by - f64::from(self.targets[i][c])
                });
                dot(&away, &away).sqrt()
            })
            .collect()
    }

    /// Multiplies the weights by the factors of the residuals.
    pub(super) fn reweight(&mut self, layout: &Layout, u: &[[f64; C]], robust: Robust) {
        let residuals = self.residuals(layout, u);
        for (weight, residual) in self.weights.iter_mut().zip(residuals) {
            if residual.is_finite() {
                *weight *= robust.factor(residual, self.distance) as f32;
            }
        }
    }
}
