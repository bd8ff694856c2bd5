//! The parameters of a transform model: the directions in which the model allows a map to change.

use nalgebra::Matrix3;

use crate::geom::{Affine, Model};
use crate::metric::Normalisation;

/// A direction in the space of the twelve parameters of an affine change (see [`Normalisation`]).
type ChangeDirection = [f64; 12];

/// The directions in which a model can change a map, one for each parameter of the model.
#[derive(Clone, Debug)]
pub(super) struct ModelParameters {
    directions: Vec<ChangeDirection>,
}

impl ModelParameters {
    /// The parameters of `model`; for single planes, only those that keep points in the plane.
    pub(super) fn of(model: Model, planar: bool) -> Self {
        let axes: &[usize] = if planar { &[1, 2] } else { &[0, 1, 2] };
        let one = |at: &[(usize, usize, f64)]| {
            let mut direction = [0.0; 12];
            at.iter().for_each(|&(row, column, value)| direction[4 * row + column] = value);
            direction
        };
        let mut directions: Vec<ChangeDirection> =
            axes.iter().map(|&a| one(&[(a, 0, 1.0)])).collect();
        if model == Model::Affine {
            for &a in axes {
                directions.extend(axes.iter().map(|&b| one(&[(a, b + 1, 1.0)])));
            }
            return Self { directions };
        }
        if model != Model::Translation {
            for (i, &a) in axes.iter().enumerate() {
                directions.extend(
                    axes[i + 1..].iter().map(|&b| one(&[(a, b + 1, -1.0), (b, a + 1, 1.0)])),
                );
            }
        }
        if model == Model::Similarity {
            let scale: Vec<_> = axes.iter().map(|&a| (a, a + 1, 1.0)).collect();
            directions.push(one(&scale));
        }
        Self { directions }
    }

    /// Number of parameters.
    pub(super) fn count(&self) -> usize {
        self.directions.len()
    }

    /// The gradient with respect to the model's parameters, from `full`, the gradient with respect
    /// to all twelve affine parameters.
    pub(super) fn gradient(&self, full: &[f64; 12]) -> Vec<f64> {
        self.directions.iter().map(|d| dot(d, full)).collect()
    }

    /// The curvature with respect to the model's parameters, row by row, from `full`, the curvature
    /// with respect to all twelve affine parameters.
    pub(super) fn curvature(&self, full: &[[f64; 12]; 12]) -> Vec<f64> {
        let turned: Vec<[f64; 12]> =
            self.directions.iter().map(|d| std::array::from_fn(|i| dot(d, &full[i]))).collect();
        let rows = self.directions.iter();
        rows.flat_map(|d| turned.iter().map(move |t| dot(d, t))).collect()
    }

    /// Converts a step in the model's parameters to the twelve affine parameters.
    pub(super) fn numbers(&self, step: &[f64]) -> [f64; 12] {
        let mut numbers = [0.0; 12];
        for (d, s) in self.directions.iter().zip(step) {
            numbers.iter_mut().zip(d).for_each(|(n, d)| *n += s * d);
        }
        numbers
    }
}

fn dot(a: &[f64; 12], b: &[f64; 12]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The map `q -> centre + exp(L) (q - centre) + size t`, where `numbers` contains the matrix `L`
/// and the vector `t`.
///
/// The matrix exponential turns skew-symmetric matrices into rotations and never gives a
/// reflection. To first order, it equals the linear change with respect to which derivatives are
/// taken.
pub(super) fn change(numbers: &[f64; 12], normalisation: &Normalisation) -> Affine {
    let linear = Matrix3::from_fn(|a, b| numbers[4 * a + 1 + b]).exp();
    let linear = std::array::from_fn(|a| std::array::from_fn(|b| linear[(a, b)]));
    let shift = std::array::from_fn(|a| normalisation.size * numbers[4 * a]);
    Affine::translation(normalisation.centre.map(|c| -c))
        .then(&Affine::from_parts(linear, shift))
        .then(&Affine::translation(normalisation.centre))
}

/// Estimates how far a change moves points at the edge of the region that `normalisation`
/// describes, micrometres.
pub(super) fn displacement(numbers: &[f64; 12], normalisation: &Normalisation) -> f64 {
    let norm = |columns: std::ops::Range<usize>| {
        let squares = (0..3).flat_map(|a| columns.clone().map(move |b| numbers[4 * a + b].powi(2)));
        squares.sum::<f64>().sqrt()
    };
    // the corners of a box are 1.7 times as far from its centre as its points are in the root mean
    // square
    normalisation.size * (norm(0..1) + 1.7 * norm(1..4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NORMALISATION: Normalisation = Normalisation { centre: [3.0, -5.0, 8.0], size: 20.0 };

    #[test]
    fn models_have_their_parameters_in_space_and_in_the_plane() {
        for (model, space, plane) in [
            (Model::Translation, 3, 2),
            (Model::Rigid, 6, 3),
            (Model::Similarity, 7, 4),
            (Model::Affine, 12, 6),
        ] {
            assert_eq!(ModelParameters::of(model, false).count(), space);
            assert_eq!(ModelParameters::of(model, true).count(), plane);
        }
    }

    #[test]
    fn a_rigid_step_turns_and_a_similar_one_scales_evenly() {
        let step = [0.1, -0.2, 0.05, 0.3, -0.4, 0.2, 0.25];
        let rigid =
            change(&ModelParameters::of(Model::Rigid, false).numbers(&step), &NORMALISATION)
                .decompose();
        assert!(rigid.shear < 1e-9 && (rigid.determinant - 1.0).abs() < 1e-9);
        let similar = ModelParameters::of(Model::Similarity, false).numbers(&step);
        let similar = change(&similar, &NORMALISATION).decompose();
        assert!(similar.shear < 1e-9 && (similar.scales[0].ln() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn a_step_in_a_plane_leaves_the_other_axis_alone() {
        let step = [0.1, -0.2, 0.5, 0.3, -0.4, 0.2];
        let rows =
            change(&ModelParameters::of(Model::Affine, true).numbers(&step), &NORMALISATION).rows();
        assert_eq!(rows[0], [1.0, 0.0, 0.0, 0.0]);
        assert!(rows[1][0] == 0.0 && rows[2][0] == 0.0);
    }

    #[test]
    fn derivatives_by_parameters_are_sums_of_those_by_the_twelve_numbers() {
        let parameters = ModelParameters::of(Model::Similarity, false);
        let full: [f64; 12] = std::array::from_fn(|i| (i * i) as f64 - 3.0);
        let square: [[f64; 12]; 12] = std::array::from_fn(|i| full.map(|v| v * full[i]));
        let gradient = parameters.gradient(&full);
        let curvature = parameters.curvature(&square);
        for i in 0..7 {
            for j in 0..7 {
                assert!((curvature[7 * i + j] - gradient[i] * gradient[j]).abs() < 1e-9);
            }
        }
    }
}
