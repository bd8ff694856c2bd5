//! Systems of linear equations with symmetric positive matrices.

/// What [`conjugate_gradients`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// The unknowns.
    pub x: Vec<f64>,
    /// The number of iterations.
    pub iterations: usize,
}

/// When [`conjugate_gradients`] stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// The residual, measured by the preconditioner, relative to that of the start.
    pub residual: f64,
    /// The maximum number of iterations.
    pub iterations: usize,
}

/// Solves `A x = right` by preconditioned conjugate gradients (Hestenes and Stiefel, J. Res. Natl.
/// Bur. Stand. 49, 1952) from `x = 0`.
///
/// * `times`: writes `A p` to its second argument; `A` is symmetric and positive
/// * `precondition`: writes an approximation of the inverse of `A`, times `r`, to its second argument
///
/// A matrix that is only semidefinite is solved too, if the equations have a solution.
pub fn conjugate_gradients(
    right: &[f64],
    mut times: impl FnMut(&[f64], &mut [f64]),
    precondition: impl Fn(&[f64], &mut [f64]),
    accuracy: Accuracy,
) -> Solution {
    let n = right.len();
    let (mut x, mut r, mut z) = (vec![0.0; n], right.to_vec(), vec![0.0; n]);
    precondition(&r, &mut z);
    let (mut p, mut q) = (z.clone(), vec![0.0; n]);
    let mut rho = dot(&r, &z);
    let enough = rho * accuracy.residual * accuracy.residual;
    let mut iterations = 0;
    // NaN ends the iterations, too
    while iterations < accuracy.iterations && rho > enough {
        iterations += 1;
        times(&p, &mut q);
        let step = rho / dot(&p, &q);
        if !step.is_finite() {
            break;
        }
        for i in 0..n {
            x[i] += step * p[i];
            r[i] -= step * q[i];
        }
        precondition(&r, &mut z);
        let next = dot(&r, &z);
        let ratio = next / rho;
        rho = next;
        for i in 0..n {
            p[i] = z[i] + ratio * p[i];
        }
    }
    Solution { x, iterations }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_solution_is_that_of_a_factorisation(
            n in 1_usize..12, numbers in prop::collection::vec(-1.0..1.0_f64, 156),
        ) {
            let half = DMatrix::from_fn(n, n, |r, c| numbers[r * n + c]);
            let matrix = &half * half.transpose() + DMatrix::identity(n, n) * 0.1;
            let right = DVector::from_fn(n, |r, _| numbers[144 + r]);
            let found = conjugate_gradients(
                right.as_slice(),
                |p, out| out.copy_from_slice((&matrix * DVector::from_column_slice(p)).as_slice()),
                |r, out| (0..n).for_each(|i| out[i] = r[i] / matrix[(i, i)]),
                Accuracy { residual: 1e-12, iterations: 1000 },
            );
            let slow = matrix.clone().cholesky().unwrap().solve(&right);
            for (found, slow) in found.x.iter().zip(slow.iter()) {
                prop_assert!((found - slow).abs() < 1e-6 * (1.0 + slow.abs()), "{found} {slow}");
            }
        }
    }

    #[test]
    fn equations_without_a_right_side_are_solved_by_nothing() {
        let found = conjugate_gradients(
            &[0.0; 3],
            |p, out| out.copy_from_slice(p),
            |r, out| out.copy_from_slice(r),
            Accuracy { residual: 1e-9, iterations: 10 },
        );
        assert_eq!(found, Solution { x: vec![0.0; 3], iterations: 0 });
    }
}
