//! The normal equations of a step of B-spline control points.
//!
//! Image terms are summed at nodes as for the dense field: products of gradients, and gradients
//! times differences. By the chain rule, the adjoint of the B-splines maps these sums to the
//! control points. The matrix can use coarser nodes than the right-hand side, because the matrix
//! affects the length and direction of a step, but not the solution to which the steps converge.

use super::Metric;
use super::bspline::{Basis, Scratch};
use super::cpu::Sums;
use super::lattice::Field;
use crate::filter::lines::vectorised;

/// The damping at `--damping` 1, as a fraction of the mean curvature (Levenberg, Quart. Appl. Math.
/// 2, 1944).
const DAMPING: f64 = 0.05;
/// The weight of the bending energy at `--elasticity` 1, as a fraction of the mean curvature.
const BENDING: f64 = 0.0125;
/// Stopping criteria of the conjugate gradient method.
#[derive(Clone, Copy)]
pub(super) struct Accuracy {
    /// Maximum number of iterations.
    pub(super) steps: usize,
    /// Relative residual at which the iterations end.
    pub(super) residual: f64,
}

/// The accuracy of a step; the next step corrects the remaining error.
pub(super) const OF_STEP: Accuracy = Accuracy { steps: 40, residual: 0.01 };

/// The normal equations: the matrix of the images' curvature, to which [`Equations::solve`] adds
/// damping and bending.
pub(super) struct Equations<'a> {
    basis: &'a Basis,
    /// Number of control points along each axis.
    shape: [usize; 3],
    /// Products of gradients at the nodes, zz zy zx yy yx xx.
    tensor: &'a [Vec<f32>; 6],
    /// The diagonal of the curvature matrix.
    diagonal: Field,
    /// The mean of the positive entries of `diagonal`.
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
        // for mutual information, the tensor is the curvature of a likelihood; for the other
        // metrics, it is half the curvature of a sum of squares
        let share = if metric == Metric::Mi { 0.5 } else { 1.0 };
        Stiffness { weight, share }
    }

    /// Solves for the step by conjugate gradients, preconditioned by the diagonal.
    ///
    /// * `slope`: gradients times differences, gathered at the control points
    /// * `from`: the current control points
    /// * `start`: an approximate step, such as that of a similar stiffness
    /// * `damping`: `--damping`, increased after rejected steps
    pub(super) fn solve(
        &self,
        slope: Field,
        from: &Field,
        start: Option<Field>,
        stiffness: Stiffness,
        damping: f64,
        accuracy: Accuracy,
    ) -> Field {
        let held = (DAMPING * damping * self.mean).max(f64::from(f32::MIN_POSITIVE)) as f32;
        // the diagonal of the bending matrix: 6 for each of the three axes
        let own = held + 18.0 * stiffness.weight;
        let inverse: Field =
            self.diagonal.each_ref().map(|image| image.iter().map(|v| 1.0 / (v + own)).collect());
        let mut work = Work::default();
        let mut rest = slope;
        add_bending(&mut rest, -stiffness.weight, from, self.shape);
        let mut along = product(&rest, &inverse);
        let enough = accuracy.residual.powi(2) * dot(&rest, &along);
        let mut found =
            start.unwrap_or_else(|| rest.each_ref().map(|image| vec![0.0; image.len()]));
        if found.iter().flatten().any(|v| *v != 0.0) {
            self.times(&found, stiffness, held, &mut work);
            add(&mut rest, -1.0, &work.out);
            along = product(&rest, &inverse);
        }
        let mut size = dot(&rest, &along);
        for _ in 0..accuracy.steps {
            // NaN ends the iterations, too
            if !(size > enough) {
                break;
            }
            self.times(&along, stiffness, held, &mut work);
            let by = size / dot(&along, &work.out);
            if !by.is_finite() {
                break;
            }
            add(&mut found, by as f32, &along);
            add(&mut rest, -by as f32, &work.out);
            let now = weighted(&rest, &inverse);
            let keep = (now / size) as f32;
            for ((along, rest), inverse) in along.iter_mut().zip(&rest).zip(&inverse) {
                for ((v, rest), inverse) in along.iter_mut().zip(rest).zip(inverse) {
                    *v = rest * inverse + keep * *v;
                }
            }
            size = now;
        }
        found
    }

    /// Writes the product of the matrix of the equations with `coefficients` to `work.out`.
    fn times(&self, coefficients: &Field, stiffness: Stiffness, held: f32, work: &mut Work) {
        let Work { scratch, field, out } = work;
        for (image, coefficients) in field.iter_mut().zip(coefficients) {
            self.basis.evaluate_into(coefficients, scratch, image);
        }
        multiply(self.tensor, field);
        for (out, image) in out.iter_mut().zip(field) {
            self.basis.gather_into(image, scratch, out);
        }
        add(out, held, coefficients);
        add_bending(out, stiffness.weight, coefficients, self.shape);
    }
}

/// Buffers of [`Equations::times`].
#[derive(Default)]
struct Work {
    scratch: Scratch,
    /// The displacements at the nodes.
    field: Field,
    /// The product, at the control points.
    out: Field,
}

vectorised! {
    /// Multiplies the vector of each node by the node's matrix.
    pub(super) fn multiply(tensor: &[Vec<f32>; 6], field: &mut Field) => multiply_body
}

#[inline(always)]
fn multiply_body<const FUSED: bool>(tensor: &[Vec<f32>; 6], [fz, fy, fx]: &mut Field) {
    let len = fz.len();
    let [zz, zy, zx, yy, yx, xx] = tensor.each_ref().map(|image| &image[..len]);
    let (fz, fy, fx) = (&mut fz[..len], &mut fy[..len], &mut fx[..len]);
    for i in 0..len {
        let [a, b, c] = [fz[i], fy[i], fx[i]];
        fz[i] = zz[i] * a + zy[i] * b + zx[i] * c;
        fy[i] = zy[i] * a + yy[i] * b + yx[i] * c;
        fx[i] = zx[i] * a + yx[i] * b + xx[i] * c;
    }
}

/// Half the gradient of the sum of squared second differences along each axis.
fn bend(coefficients: &Field, shape: [usize; 3]) -> Field {
    let mut out = coefficients.each_ref().map(|image| vec![0.0; image.len()]);
    add_bending(&mut out, 1.0, coefficients, shape);
    out
}

vectorised! {
    /// Adds `weight` times half the gradient of the sum of squared second differences along each
    /// axis.
    fn add_bending(
        out: &mut Field, weight: f32, coefficients: &Field, shape: [usize; 3],
    ) => add_bending_body
}

#[inline(always)]
fn add_bending_body<const FUSED: bool>(
    out: &mut Field,
    weight: f32,
    coefficients: &Field,
    shape: [usize; 3],
) {
    let strides = [shape[1] * shape[2], shape[2], 1];
    for (out, image) in out.iter_mut().zip(coefficients) {
        for (a, stride) in strides.into_iter().enumerate() {
            let lines = stride * shape[a];
            for (image, out) in image.chunks_exact(lines).zip(out.chunks_exact_mut(lines)) {
                bend_lines(image, out, weight, stride);
            }
        }
    }
}

/// Adds `weight` times half the gradient of the squared second differences along `stride`
/// interleaved lines to `out`.
#[inline(always)]
fn bend_lines(image: &[f32], out: &mut [f32], weight: f32, stride: usize) {
    // every control point of a line but its last two
    for row in (0..image.len() - 2 * stride).step_by(stride) {
        let (first, rest) = image[row..row + 3 * stride].split_at(stride);
        let (middle, last) = rest.split_at(stride);
        let (to_first, rest) = out[row..row + 3 * stride].split_at_mut(stride);
        let (to_middle, to_last) = rest.split_at_mut(stride);
        for i in 0..stride {
            let d = weight * (first[i] - 2.0 * middle[i] + last[i]);
            to_first[i] += d;
            to_middle[i] -= 2.0 * d;
            to_last[i] += d;
        }
    }
}

pub(super) fn dot(a: &Field, b: &Field) -> f64 {
    a.iter().zip(b).map(|(a, b)| sum_of(a, b, |a, b| f64::from(a) * f64::from(b))).sum()
}

/// The sum of a function of two images, in eight independent partial sums, which can be vectorised.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let (groups, rest) = a.as_chunks::<8>();
    let (others, last) = b.as_chunks::<8>();
    for (a, b) in groups.iter().zip(others) {
        for l in 0..8 {
            sums[l] += f(a[l], b[l]);
        }
    }
    for (l, (a, b)) in rest.iter().zip(last).enumerate() {
        sums[l] += f(*a, *b);
    }
    sums.iter().sum()
}

fn product(a: &Field, b: &Field) -> Field {
    std::array::from_fn(|c| a[c].iter().zip(&b[c]).map(|(a, b)| a * b).collect())
}

/// The sum of the squares of `a` times the weights `b`.
fn weighted(a: &Field, b: &Field) -> f64 {
    a.iter().zip(b).map(|(a, b)| sum_of(a, b, |a, b| f64::from(a) * f64::from(a * b))).sum()
}

fn add(to: &mut Field, by: f32, v: &Field) {
    for (to, v) in to.iter_mut().zip(v) {
        for (to, v) in to.iter_mut().zip(v) {
            *to += by * v;
        }
    }
}

#[cfg(test)]
mod tests;
