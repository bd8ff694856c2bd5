//! The equilibrium by a slow integration in time, as in SOFIMA, with which the solver is compared.

use super::layout::Layout;
use super::springs::{Spring, dot};

/// The forces of the springs on each node.
///
/// * `keeps_order`: SOFIMA's `prefer_orig_order`, a force that has no equilibrium with flipped
///   springs
pub(super) fn forces<const C: usize>(
    layout: &Layout,
    springs: &[Spring<C>],
    u: &[[f64; C]],
    keeps_order: bool,
) -> Vec<[f64; C]> {
    let mut forces = vec![[0.0; C]; u.len()];
    for row in 0..layout.rows() {
        for spring in springs {
            let rest = dot(&spring.rest, &spring.rest).sqrt();
            layout.beside(row, spring.offset, |here, there, n| {
                for (p, q) in (here..here + n).zip(there..there + n) {
                    let d: [f64; C] = std::array::from_fn(|c| u[q][c] - u[p][c] + spring.rest[c]);
                    let length = dot(&d, &d).sqrt();
                    for c in 0..C {
                        let direction = spring.rest[c];
                        let sign = match keeps_order && direction != 0.0 {
                            true if d[c] == 0.0 => 0.0,
                            true => d[c].signum() * direction.signum(),
                            false => 1.0,
                        };
                        let force = -spring.stiffness * (1.0 - rest * sign / length) * d[c];
                        if force.is_finite() {
                            forces[q][c] += force;
                            forces[p][c] -= force;
                        }
                    }
                }
            });
        }
    }
    forces
}

/// The parameters of the integration (SOFIMA, `mesh.IntegrationConfig`), with its FIRE algorithm.
pub(super) struct Integration {
    pub(super) time_step: f64,
    pub(super) longest_step: f64,
    pub(super) tie: f64,
    /// The greatest force of a tie along an axis.
    pub(super) cap: f64,
    pub(super) keeps_order: bool,
}

/// Integrates the motion of the nodes, which are tied to `targets` (NaN where unknown), for a number
/// of steps, and returns their displacements.
pub(super) fn integrate<const C: usize>(
    layout: &Layout,
    springs: &[Spring<C>],
    targets: &[[f64; C]],
    of: &Integration,
    steps: usize,
) -> Vec<[f64; C]> {
    let mut u = vec![[0.0; C]; targets.len()];
    let mut v = u.clone();
    let total = |u: &[[f64; C]]| {
        let mut forces = forces(layout, springs, u, of.keeps_order);
        for i in 0..u.len() {
            for c in 0..C {
                let pull = -of.tie * (u[i][c] - targets[i][c]);
                if pull.is_finite() {
                    forces[i][c] += pull.clamp(-of.cap, of.cap);
                }
            }
        }
        forces
    };
    let (mut dt, mut alpha, mut good) = (of.time_step, 0.1, 0);
    let mut a = total(&u);
    for _ in 0..steps {
        for i in 0..u.len() {
            (0..C).for_each(|c| u[i][c] += dt * v[i][c] + 0.5 * dt * dt * a[i][c]);
        }
        let next = total(&u);
        for i in 0..u.len() {
            (0..C).for_each(|c| v[i][c] += 0.5 * dt * (a[i][c] + next[i][c]));
        }
        a = next;
        let power: f64 = a.iter().zip(&v).map(|(a, v)| dot(a, v)).sum();
        for i in 0..u.len() {
            let scale = dot(&v[i], &v[i]).sqrt() / (dot(&a[i], &a[i]).sqrt() + 1e-6);
            (0..C).for_each(|c| v[i][c] += alpha * (scale * a[i][c] - v[i][c]));
        }
        good = if power >= 0.0 { good + 1 } else { 0 };
        if power < 0.0 {
            (dt, alpha) = (0.5 * dt, 0.1);
            v.fill([0.0; C]);
        } else if good > 5 {
            (dt, alpha) = ((1.1 * dt).min(of.longest_step), 0.99 * alpha);
        }
    }
    u
}
