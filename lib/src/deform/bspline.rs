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
use crate::filter::lines::vectorised;
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

    /// Number of control points on each side of the central one, up to and including the first at
    /// or beyond the face of the block. One further control point on each side affects the block.
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
            // the last node can lie outside the block, if it represents fewer voxels than others
            let from_middle = (voxel + 0.5 - reach).clamp(-reach, reach) * self.voxel[a];
            // The control point at the centre has the index `half + 1`. The first of the four
            // control points that affect a position is the second one below this position.
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
                // `first` is the first coarse control point that affects the fine control point
                // `k`; both indices count from the centre
                let (first, row) = if k % 2 == 0 {
                    (k / 2 - 1, [0.125, 0.75, 0.125, 0.0])
                } else {
                    (k.div_euclid(2), [0.5, 0.5, 0.0, 0.0])
                };
                let first = (first + half + 1) as usize;
                // the window of taps is shifted if its last taps, of weight 0, lie beyond the end
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

/// The values of the four cubic B-splines that are not 0 at a position. The position lies `t`
/// spacings, from 0 to 1, beyond the centre of the second of the four.
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

/// Buffers between the passes along the axes.
#[derive(Default)]
pub(super) struct Scratch([Vec<f32>; 2]);

/// The weights of control points at the nodes of a lattice.
pub(super) struct Basis {
    axes: [Axis; 3],
}

impl Basis {
    /// Evaluates one component at the nodes.
    pub(super) fn evaluate(&self, coefficients: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        self.evaluate_into(coefficients, &mut Scratch::default(), &mut out);
        out
    }

    /// Like [`Basis::evaluate`], with buffers that are reused.
    pub(super) fn evaluate_into(
        &self,
        coefficients: &[f32],
        Scratch([planes, rows]): &mut Scratch,
        out: &mut Vec<f32>,
    ) {
        let [z, y, x] = &self.axes;
        // along x first, while there are few rows; the passes along y and z process whole rows at
        // once
        spread(x, coefficients, 1, rows);
        spread(y, rows, x.low.len(), planes);
        spread(z, planes, y.low.len() * x.low.len(), out);
    }

    /// Evaluates all components at the nodes.
    pub(super) fn field(&self, coefficients: &Field) -> Field {
        coefficients.each_ref().map(|image| self.evaluate(image))
    }

    /// The adjoint of [`Basis::evaluate`]: adds the value of each node, times the weight of each
    /// control point that affects the node, to this control point.
    pub(super) fn gather(&self, nodes: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        self.gather_into(nodes, &mut Scratch::default(), &mut out);
        out
    }

    /// Like [`Basis::gather`], with buffers that are reused.
    pub(super) fn gather_into(
        &self,
        nodes: &[f32],
        Scratch([planes, rows]): &mut Scratch,
        out: &mut Vec<f32>,
    ) {
        let [z, y, x] = &self.axes;
        collect(z, nodes, y.low.len() * x.low.len(), planes);
        collect(y, planes, x.low.len(), rows);
        collect(x, rows, 1, out);
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

vectorised! {
    /// Evaluates B-splines along one axis: takes coefficients at control points to values at nodes.
    ///
    /// * `image`: `(sets, controls, inner)`
    /// * `out`: becomes `(sets, nodes, inner)`
    fn spread(axis: &Axis, image: &[f32], inner: usize, out: &mut Vec<f32>) => spread_body
}

#[inline(always)]
fn spread_body<const FUSED: bool>(axis: &Axis, image: &[f32], inner: usize, out: &mut Vec<f32>) {
    let nodes = axis.low.len();
    let sets = image.len() / (axis.controls * inner);
    out.resize(sets * nodes * inner, 0.0);
    for (image, out) in
        image.chunks_exact(axis.controls * inner).zip(out.chunks_exact_mut(nodes * inner))
    {
        let each = out.chunks_exact_mut(inner).zip(axis.low.iter().zip(&axis.weights));
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
}

vectorised! {
    /// The adjoint of [`spread`]: takes values at nodes to sums at control points, along one axis.
    fn collect(axis: &Axis, image: &[f32], inner: usize, out: &mut Vec<f32>) => collect_body
}

#[inline(always)]
fn collect_body<const FUSED: bool>(axis: &Axis, image: &[f32], inner: usize, out: &mut Vec<f32>) {
    let nodes = axis.low.len();
    let sets = image.len() / (nodes * inner);
    out.clear();
    out.resize(sets * axis.controls * inner, 0.0);
    for (image, out) in
        image.chunks_exact(nodes * inner).zip(out.chunks_exact_mut(axis.controls * inner))
    {
        let each = image.chunks_exact(inner).zip(axis.low.iter().zip(&axis.weights));
        for (image, (&low, weights)) in each {
            let taps = &mut out[low * inner..][..TAPS * inner];
            if let (&[v], Some(taps)) = (image, taps.first_chunk_mut::<TAPS>()) {
                for (tap, w) in taps.iter_mut().zip(weights) {
                    *tap += w * v;
                }
                continue;
            }
            for (tap, &w) in taps.chunks_exact_mut(inner).zip(weights) {
                for (tap, v) in tap.iter_mut().zip(image) {
                    *tap += w * v;
                }
            }
        }
    }
}

#[cfg(test)]
mod oracle;
