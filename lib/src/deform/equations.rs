//! The normal equations of a step of B-splines' control points.
//!
//! What the voxels say is summed up at nodes as for the dense field: the products of the gradients
//! and the gradients times the differences. The chain rule takes both on to the control points, by
//! the B-splines' adjoint.

use super::bspline::Basis;
use super::cpu::Sums;
use super::lattice::Field;
use super::{Metric, Options};

/// The damping, in that of `--damping` 1, as a share of the mean curvature (Levenberg, Quart. Appl.
/// Math. 2, 1944).
const DAMPING: f64 = 0.05;
/// The weight of the bending, in that of `--elasticity` 1, as a share of the mean curvature.
const BENDING: f64 = 0.0125;
/// Steps of the conjugate gradients.
const STEPS: usize = 12;
/// They end when what is left is this share of what there was.
const SOLVED: f64 = 0.03;

/// What a step of the control points is sought from: the curvature and the bending.
pub(super) struct Equations<'a> {
    basis: &'a Basis,
    /// Control points along each axis.
    shape: [usize; 3],
    /// Products of gradients at the nodes.
    tensor: &'a [Vec<f32>; 6],
    /// The diagonal of the curvature.
    diagonal: Field,
    /// Its mean, where it is not 0.
    mean: f64,
}

/// How control points resist being bent: the weight of the sum of squared second differences
/// (Rueckert et al., IEEE TMI 18, 1999).
#[derive(Clone, Copy)]
pub(super) struct Stiffness {
    weight: f32,
    /// Of its energy in that of the images.
    share: f64,
}

impl Stiffness {
    /// The energy of bent control points, as that of the images is counted.
    pub(super) fn energy(&self, bent: &Field, shape: [usize; 3], images: &Sums) -> f64 {
        let sum = f64::from(self.weight) * dot(bent, &bend(bent, shape));
        self.share * sum / images.voxels.max(1) as f64
    }
}

impl<'a> Equations<'a> {
    pub(super) fn new(basis: &'a Basis, shape: [usize; 3], tensor: &'a [Vec<f32>; 6]) -> Self {
        let squares = basis.squared();
        let diagonal: Field = [0, 3, 5].map(|i| squares.gather(&tensor[i]));
        let (sum, count) = diagonal
            .iter()
            .flatten()
            .filter(|v| **v > 0.0)
            .fold((0.0, 0usize), |(sum, count), v| (sum + f64::from(*v), count + 1));
        Self { basis, shape, tensor, diagonal, mean: sum / count.max(1) as f64 }
    }

    /// The stiffness that is in proportion to the images' curvature.
    pub(super) fn stiffness(&self, options: &Options) -> Stiffness {
        let weight = (BENDING * options.elasticity.powi(2) * self.mean) as f32;
        // a likelihood's curvature is its own, that of squares is twice that of the products
        let share = if options.metric == Metric::Mi { 0.5 } else { 1.0 };
        Stiffness { weight, share }
    }

    /// The step, by conjugate gradients, preconditioned by the diagonal.
    ///
    /// * `slope`: gradients times differences at the nodes
    /// * `from`: the control points so far
    /// * `damping`: of `--damping`
    pub(super) fn solve(
        &self,
        slope: &Field,
        from: &Field,
        stiffness: Stiffness,
        damping: f64,
    ) -> Field {
        let held = (DAMPING * damping * self.mean).max(f64::from(f32::MIN_POSITIVE)) as f32;
        // of the second differences along three axes
        let own = held + 18.0 * stiffness.weight;
        let inverse =
            self.diagonal.each_ref().map(|image| image.iter().map(|v| 1.0 / (v + own)).collect());
        let mut rest = slope.each_ref().map(|image| self.basis.gather(image));
        add(&mut rest, -stiffness.weight, &bend(from, self.shape));
        let mut found = rest.each_ref().map(|image| vec![0.0; image.len()]);
        let mut along = product(&rest, &inverse);
        let mut size = dot(&rest, &along);
        let enough = SOLVED * SOLVED * size;
        for _ in 0..STEPS {
            // NaN ends it too
            if !(size > enough) {
                break;
            }
            let image = self.times(&along, stiffness, held);
            let by = size / dot(&along, &image);
            if !by.is_finite() {
                break;
            }
            add(&mut found, by as f32, &along);
            add(&mut rest, -by as f32, &image);
            let next = product(&rest, &inverse);
            let now = dot(&rest, &next);
            let keep = (now / size) as f32;
            for (v, next) in along.iter_mut().flatten().zip(next.iter().flatten()) {
                *v = next + keep * *v;
            }
            size = now;
        }
        found
    }

    /// The product with the left side.
    fn times(&self, coefficients: &Field, stiffness: Stiffness, held: f32) -> Field {
        let mut field = self.basis.field(coefficients);
        let [fz, fy, fx] = &mut field;
        let [zz, zy, zx, yy, yx, xx] = self.tensor;
        for i in 0..fz.len() {
            let [a, b, c] = [fz[i], fy[i], fx[i]];
            fz[i] = zz[i] * a + zy[i] * b + zx[i] * c;
            fy[i] = zy[i] * a + yy[i] * b + yx[i] * c;
            fx[i] = zx[i] * a + yx[i] * b + xx[i] * c;
        }
        let mut out = field.each_ref().map(|image| self.basis.gather(image));
        add(&mut out, held, coefficients);
        add(&mut out, stiffness.weight, &bend(coefficients, self.shape));
        out
    }
}

/// Half the derivative of the sum of squared second differences along each axis.
fn bend(coefficients: &Field, shape: [usize; 3]) -> Field {
    let strides = [shape[1] * shape[2], shape[2], 1];
    coefficients.each_ref().map(|image| {
        let mut out = vec![0.0; image.len()];
        for (a, stride) in strides.into_iter().enumerate() {
            // all that follow a control point and are not the last two of their line
            for line in (0..image.len()).step_by(stride * shape[a]) {
                for i in line..line + stride * (shape[a] - 2) {
                    let (j, k) = (i + stride, i + 2 * stride);
                    let d = image[i] - 2.0 * image[j] + image[k];
                    out[i] += d;
                    out[j] -= 2.0 * d;
                    out[k] += d;
                }
            }
        }
        out
    })
}

fn dot(a: &Field, b: &Field) -> f64 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn product(a: &Field, b: &Field) -> Field {
    std::array::from_fn(|c| a[c].iter().zip(&b[c]).map(|(a, b)| a * b).collect())
}

fn add(to: &mut Field, by: f32, v: &Field) {
    for (to, v) in to.iter_mut().flatten().zip(v.iter().flatten()) {
        *to += by * v;
    }
}

#[cfg(test)]
mod tests;
