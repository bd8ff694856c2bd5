//! Displacements that are sums of cubic B-splines on a grid of control points.
//!
//! This is the free-form deformation of Rueckert et al. (IEEE TMI 18, 1999), the `BSplineTransform`
//! of ITK: a displacement is the sum of the 4 x 4 x 4 control points around it, weighted by the
//! product of the uniform cubic B-splines of the axes. Evaluation and its adjoint are separable.
//!
//! One control point lies at the centre of the block, the others at whole spacings from it. Each
//! grid is therefore a subset of the grid of half its spacing, which can represent the same
//! displacements exactly.

use super::lattice::{Field, Lattice};
use crate::geom::Point;

/// Number of control points that affect a position, along each axis.
const TAPS: usize = 4;

/// A grid of control points over a block. Coefficients are one image per component z, y, x,
/// micrometres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Controls {
    /// Size of the block, voxels.
    block: [usize; 3],
    /// Voxel size of the block, micrometres.
    voxel: Point,
    /// Distance between control points, micrometres, the same along every axis.
    spacing: f64,
}

impl Controls {
    pub(super) fn over(block: [usize; 3], voxel: Point, spacing: f64) -> Self {
        Self { block, voxel, spacing }
    }

    /// Number of control points from the centre to the face of the block; one more affects the
    /// block.
    fn half(&self, axis: usize) -> usize {
        let reach = 0.5 * self.block[axis] as f64 * self.voxel[axis];
        ((reach / self.spacing).ceil() as usize).max(1)
    }

    /// Number of control points along each axis.
    pub(super) fn shape(&self) -> [usize; 3] {
        std::array::from_fn(|a| 2 * self.half(a) + 3)
    }

    /// Coefficients of zero displacement.
    pub(super) fn zeros(&self) -> Field {
        std::array::from_fn(|_| vec![0.0; self.shape().iter().product()])
    }

    /// The weights of the control points at the nodes of a lattice over the block.
    pub(super) fn basis(&self, nodes: &Lattice) -> Basis {
        Basis { axes: std::array::from_fn(|a| self.axis(a, nodes)) }
    }

    fn axis(&self, a: usize, nodes: &Lattice) -> Axis {
        let reach = 0.5 * self.block[a] as f64;
        let controls = 2 * self.half(a) + 3;
        let (mut low, mut weights) = (Vec::new(), Vec::new());
        for j in 0..nodes.shape[a] {
            let factor = nodes.factor[a] as f64;
            let voxel = factor * j as f64 + 0.5 * (factor - 1.0);
            // the last node may represent fewer voxels, and lie outside of the block
            let from_middle = (voxel + 0.5 - reach).clamp(-reach, reach) * self.voxel[a];
            // one control point precedes the first that lies within the block
            let at = from_middle / self.spacing + self.half(a) as f64;
            let first = (at as usize).min(controls - TAPS);
            low.push(first);
            weights.push(cubic(at - first as f64).map(|w| w as f32));
        }
        Axis { controls, low, weights }
    }

    /// The same displacements, with control points at half the spacing.
    ///
    /// Uses the two-scale relation of the cubic B-spline: (1, 4, 6, 4, 1) / 8.
    pub(super) fn halve(&self, coefficients: &Field) -> (Self, Field) {
        let finer = Self { spacing: 0.5 * self.spacing, ..*self };
        let axes: [Axis; 3] = std::array::from_fn(|a| {
            let (half, fine) = (self.half(a) as i64, finer.half(a) as i64);
            let controls = self.shape()[a];
            let (mut low, mut weights) = (Vec::new(), Vec::new());
            for k in -fine - 1..=fine + 1 {
                // the first coarse control point that affects it, counted from the centre
                let (first, row) = if k % 2 == 0 {
                    (k / 2 - 1, [0.125, 0.75, 0.125, 0.0])
                } else {
                    (k.div_euclid(2), [0.5, 0.5, 0.0, 0.0])
                };
                let first = (first + half + 1) as usize;
                // control points of weight 0 may lie beyond the last
                let over = (first + TAPS).saturating_sub(controls);
                low.push(first - over);
                weights.push(std::array::from_fn(|t| if t < over { 0.0 } else { row[t - over] }));
            }
            Axis { controls, low, weights }
        });
        let basis = Basis { axes };
        (finer, coefficients.each_ref().map(|image| basis.evaluate(image)))
    }
}

/// The four cubic B-splines that are not 0 at the distance `t` behind the centre of the second.
fn cubic(t: f64) -> [f64; TAPS] {
    let s = 1.0 - t;
    [
        s * s * s / 6.0,
        (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0,
        (4.0 - 6.0 * s * s + 3.0 * s * s * s) / 6.0,
        t * t * t / 6.0,
    ]
}

/// The weights of control points along one axis, for each node.
struct Axis {
    controls: usize,
    /// The first of the four control points that affect each node.
    low: Vec<usize>,
    weights: Vec<[f32; TAPS]>,
}

/// The weights of control points at the nodes of a lattice.
pub(super) struct Basis {
    axes: [Axis; 3],
}

impl Basis {
    /// Evaluates one component at the nodes.
    pub(super) fn evaluate(&self, coefficients: &[f32]) -> Vec<f32> {
        let [z, y, x] = &self.axes;
        let planes = z.spread(coefficients, y.controls * x.controls);
        let rows = y.spread(&planes, x.controls);
        x.spread(&rows, 1)
    }

    /// Evaluates all components at the nodes.
    pub(super) fn field(&self, coefficients: &Field) -> Field {
        coefficients.each_ref().map(|image| self.evaluate(image))
    }

    /// The adjoint of [`Basis::evaluate`]: adds each node's value, times its weights, to its
    /// control points.
    pub(super) fn gather(&self, nodes: &[f32]) -> Vec<f32> {
        let [z, y, x] = &self.axes;
        let rows = x.collect(nodes, 1);
        let planes = y.collect(&rows, x.controls);
        z.collect(&planes, y.controls * x.controls)
    }

    /// The same control points with the squares of their weights.
    pub(super) fn squared(&self) -> Self {
        let square = |axis: &Axis| Axis {
            controls: axis.controls,
            low: axis.low.clone(),
            weights: axis.weights.iter().map(|row| row.map(|w| w * w)).collect(),
        };
        Self { axes: self.axes.each_ref().map(square) }
    }
}

impl Axis {
    /// From control points to nodes.
    ///
    /// * `image`: `(sets, controls, inner)`; returns `(sets, nodes, inner)`
    fn spread(&self, image: &[f32], inner: usize) -> Vec<f32> {
        let nodes = self.low.len();
        let sets = image.len() / (self.controls * inner);
        let mut out = vec![0.0; sets * nodes * inner];
        for (image, out) in
            image.chunks_exact(self.controls * inner).zip(out.chunks_exact_mut(nodes * inner))
        {
            let each = out.chunks_exact_mut(inner).zip(self.low.iter().zip(&self.weights));
            for (out, (&low, &[a, b, c, d])) in each {
                let taps = &image[low * inner..][..TAPS * inner];
                if let ([out], &[p, q, r, s]) = (&mut *out, taps) {
                    *out = a * p + b * q + c * r + d * s;
                    continue;
                }
                let (p, rest) = taps.split_at(inner);
                let (q, rest) = rest.split_at(inner);
                let (r, s) = rest.split_at(inner);
                for (i, out) in out.iter_mut().enumerate() {
                    *out = a * p[i] + b * q[i] + c * r[i] + d * s[i];
                }
            }
        }
        out
    }

    /// From nodes to control points: the adjoint of [`Axis::spread`].
    fn collect(&self, image: &[f32], inner: usize) -> Vec<f32> {
        let nodes = self.low.len();
        let sets = image.len() / (nodes * inner);
        let mut out = vec![0.0; sets * self.controls * inner];
        for (image, out) in
            image.chunks_exact(nodes * inner).zip(out.chunks_exact_mut(self.controls * inner))
        {
            let each = image.chunks_exact(inner).zip(self.low.iter().zip(&self.weights));
            for (image, (&low, weights)) in each {
                let taps = out[low * inner..][..TAPS * inner].chunks_exact_mut(inner);
                for (tap, &w) in taps.zip(weights) {
                    for (tap, v) in tap.iter_mut().zip(image) {
                        *tap += w * v;
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod oracle;
