//! The normal equations of a step of B-spline control points.
//!
//! Image terms are summed at nodes as for the dense field: products of gradients, and gradients
//! times differences. The chain rule maps both to the control points, by the adjoint of the
//! B-splines. The matrix may use coarser nodes than the right side: it only shapes the step.

use super::Metric;
use super::bspline::Basis;
use super::cpu::Sums;
use super::lattice::Field;

/// The damping at `--damping` 1, as a fraction of the mean curvature (Levenberg, Quart. Appl. Math.
/// 2, 1944).
const DAMPING: f64 = 0.05;
/// The weight of the bending at `--elasticity` 1, as a fraction of the mean curvature.
const BENDING: f64 = 0.0125;
/// When the conjugate gradients end.
#[derive(Clone, Copy)]
pub(super) struct Accuracy {
    /// Maximum number of iterations.
    pub(super) steps: usize,
    /// Relative residual.
    pub(super) residual: f64,
}

/// The accuracy of a step, which the next one corrects.
pub(super) const OF_STEP: Accuracy = Accuracy { steps: 40, residual: 0.01 };

/// The normal equations: the curvature of the images, to which damping and bending are added.
pub(super) struct Equations<'a> {
    basis: &'a Basis,
    /// Number of control points along each axis.
    shape: [usize; 3],
    /// Products of gradients at the nodes, zz zy zx yy yx xx.
    tensor: &'a [Vec<f32>; 6],
    /// The diagonal of the curvature matrix.
    diagonal: Field,
    /// The mean of its positive entries.
    mean: f64,
}

/// The bending stiffness of control points: the weight of the sum of squared second differences
/// (Rueckert et al., IEEE TMI 18, 1999).
#[derive(Clone, Copy)]
pub(super) struct Stiffness {
    weight: f32,
    /// Factor that converts the bending energy to the scale of the images' energy.
    share: f64,
}

impl Stiffness {
    /// Half the gradient of the weighted bending energy.
    #[cfg(test)]
    pub(super) fn bend(&self, bent: &Field, shape: [usize; 3]) -> Field {
        bend(bent, shape).map(|image| image.iter().map(|v| self.weight * v).collect())
    }

    /// The bending energy of control points, on the scale of the images' energy.
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

    /// The stiffness at an elasticity, in proportion to the images' curvature.
    pub(super) fn stiffness(&self, elasticity: f64, metric: Metric) -> Stiffness {
        let weight = (BENDING * elasticity.powi(2) * self.mean) as f32;
        // the tensor is the curvature of a likelihood, but half the curvature of a sum of squares
        let share = if metric == Metric::Mi { 0.5 } else { 1.0 };
        Stiffness { weight, share }
    }

    /// Solves for the step by conjugate gradients, preconditioned by the diagonal.
    ///
    /// * `slope`: gradients times differences, gathered at the control points
    /// * `from`: the current control points
    /// * `damping`: `--damping`, increased after rejected steps
    pub(super) fn solve(
        &self,
        slope: Field,
        from: &Field,
        stiffness: Stiffness,
        damping: f64,
        accuracy: Accuracy,
    ) -> Field {
        let held = (DAMPING * damping * self.mean).max(f64::from(f32::MIN_POSITIVE)) as f32;
        // the diagonal of the second differences along three axes
        let own = held + 18.0 * stiffness.weight;
        let inverse =
            self.diagonal.each_ref().map(|image| image.iter().map(|v| 1.0 / (v + own)).collect());
        let mut rest = slope;
        add(&mut rest, -stiffness.weight, &bend(from, self.shape));
        let mut found = rest.each_ref().map(|image| vec![0.0; image.len()]);
        let mut along = product(&rest, &inverse);
        let mut size = dot(&rest, &along);
        let enough = accuracy.residual.powi(2) * size;
        for _ in 0..accuracy.steps {
            // NaN ends the iterations, too
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

    /// The product of the left side's matrix with a vector of coefficients.
    fn times(&self, coefficients: &Field, stiffness: Stiffness, held: f32) -> Field {
        let mut field = self.basis.field(coefficients);
        multiply(self.tensor, &mut field);
        let mut out = field.each_ref().map(|image| self.basis.gather(image));
        add(&mut out, held, coefficients);
        add(&mut out, stiffness.weight, &bend(coefficients, self.shape));
        out
    }
}

/// Multiplies the vector of each node by the node's matrix.
pub(super) fn multiply(tensor: &[Vec<f32>; 6], [fz, fy, fx]: &mut Field) {
    let [zz, zy, zx, yy, yx, xx] = tensor;
    for i in 0..fz.len() {
        let [a, b, c] = [fz[i], fy[i], fx[i]];
        fz[i] = zz[i] * a + zy[i] * b + zx[i] * c;
        fy[i] = zy[i] * a + yy[i] * b + yx[i] * c;
        fx[i] = zx[i] * a + yx[i] * b + xx[i] * c;
    }
}

/// Half the gradient of the sum of squared second differences along each axis.
fn bend(coefficients: &Field, shape: [usize; 3]) -> Field {
    let strides = [shape[1] * shape[2], shape[2], 1];
    coefficients.each_ref().map(|image| {
        let mut out = vec![0.0; image.len()];
        for (a, stride) in strides.into_iter().enumerate() {
            // every control point of a line along this axis but its last two
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

pub(super) fn dot(a: &Field, b: &Field) -> f64 {
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
