//! The springs between the nodes of a mesh.
//!
//! A spring between two nodes resists changes of its length: its energy is k/2 times the square of
//! the change, which is 0 if the mesh is shifted or rotated.

use super::layout::Layout;

/// The springs in one direction, from each node to the neighbour at `offset`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spring<const C: usize> {
    /// The neighbour, along z, y, x.
    pub(super) offset: [isize; 3],
    /// The vector to the neighbour at rest, micrometres.
    pub(super) rest: [f64; C],
    /// The constant k.
    pub(super) stiffness: f64,
    /// The factor of the constant for the spring of each node, in the order of the layout; empty if
    /// all are 1.
    pub(super) factors: Vec<f32>,
}

pub(super) fn dot<const C: usize>(a: &[f64; C], b: &[f64; C]) -> f64 {
    (0..C).map(|c| a[c] * b[c]).sum()
}

impl<const C: usize> Spring<C> {
    fn length(&self) -> f64 {
        dot(&self.rest, &self.rest).sqrt()
    }

    fn back(&self) -> [isize; 3] {
        self.offset.map(|o| -o)
    }

    /// The factor of the constant of the spring that begins at a node.
    #[inline]
    pub(super) fn factor(&self, node: usize) -> f32 {
        self.factors.get(node).copied().unwrap_or(1.0)
    }
}

/// The springs of a mesh with `C` axes, those of a plane (y, x) or of a volume (z, y, x): along each
/// axis and each diagonal.
///
/// * `spacing`: the distances between nodes along z, y, x, micrometres
/// * `stiffness`: the constant of the springs along x. In planes, that of all axes, and diagonals
///   have its 1/sqrt(2); in volumes, the constant is inversely proportional to the length.
///
/// This is the mesh of SOFIMA (`mesh.inplane_force`, `mesh.elastic_mesh_3d`).
pub(super) fn springs<const C: usize>(spacing: [f64; 3], stiffness: f64) -> Vec<Spring<C>> {
    let mut springs = Vec::new();
    let range = |axis: usize| if 3 - axis > C { 0..=0 } else { -1..=1_isize };
    for z in range(0) {
        for y in range(1) {
            for x in range(2) {
                let offset = [z, y, x];
                if offset <= [0; 3] {
                    continue; // the same spring from its other end
                }
                let rest = std::array::from_fn(|c| offset[c + 3 - C] as f64 * spacing[c + 3 - C]);
                let mut spring = Spring { offset, rest, stiffness, factors: Vec::new() };
                let diagonal = offset.iter().filter(|o| **o != 0).count() > 1;
                if C == 3 {
                    spring.stiffness *= spacing[2] / spring.length();
                } else if diagonal {
                    spring.stiffness *= std::f64::consts::FRAC_1_SQRT_2;
                }
                springs.push(spring);
            }
        }
    }
    springs
}

/// The springs with the given factors of their constants, spring by spring; none if all are 1.
pub(super) fn with_factors<const C: usize>(
    mut springs: Vec<Spring<C>>,
    factors: &[Vec<f32>],
) -> Vec<Spring<C>> {
    for (spring, factors) in springs.iter_mut().zip(factors) {
        spring.factors.clone_from(factors);
    }
    springs
}

/// Adds the gradient of the energy of the springs to `gradient`, and returns the energy.
pub(super) fn add_gradient<const C: usize>(
    layout: &Layout,
    springs: &[Spring<C>],
    u: &[[f64; C]],
    gradient: &mut [[f64; C]],
) -> f64 {
    layout.fill_rows(gradient, |row, out| {
        let base = row * layout.width();
        let mut energy = 0.0;
        for spring in springs {
            let length = spring.length();
            layout.beside(row, spring.offset, |here, there, n| {
                for i in 0..n {
                    let k = spring.stiffness * f64::from(spring.factor(here + i));
                    let (force, stretch) = pull(spring, [k, length], &u[here + i], &u[there + i]);
                    energy += 0.5 * k * stretch * stretch;
                    (0..C).for_each(|c| out[here - base + i][c] -= force[c]);
                }
            });
            layout.beside(row, spring.back(), |here, there, n| {
                for i in 0..n {
                    let k = spring.stiffness * f64::from(spring.factor(there + i));
                    let (force, _) = pull(spring, [k, length], &u[there + i], &u[here + i]);
                    (0..C).for_each(|c| out[here - base + i][c] += force[c]);
                }
            });
        }
        energy
    })
}

/// The derivative of the energy of a spring with respect to the displacement of its end, and the
/// length that it has gained.
///
/// * `k`: the constant
/// * `length`: the length at rest
#[inline]
fn pull<const C: usize>(
    spring: &Spring<C>,
    [k, length]: [f64; 2],
    from: &[f64; C],
    to: &[f64; C],
) -> ([f64; C], f64) {
    let d: [f64; C] = std::array::from_fn(|c| to[c] - from[c] + spring.rest[c]);
    let now = dot(&d, &d).sqrt();
    let stretch = now - length;
    // a spring of length 0 has no direction
    let force = if now > 0.0 { k * stretch / now } else { 0.0 };
    (d.map(|d| force * d), stretch)
}

/// The directions of the springs, times the square root of their constants, spring by spring. The
/// energy to second order in a step is half the sum of the squares of their products with the
/// difference of the steps of both ends (Gauss-Newton).
pub(super) fn directions<const C: usize>(
    layout: &Layout,
    springs: &[Spring<C>],
    u: &[[f64; C]],
) -> Vec<Vec<[f32; C]>> {
    let of = |spring: &Spring<C>| {
        let mut along = vec![[0.0; C]; layout.len()];
        layout.fill_rows(&mut along, |row, out| {
            let base = row * layout.width();
            layout.beside(row, spring.offset, |here, there, n| {
                for i in 0..n {
                    let d: [f64; C] =
                        std::array::from_fn(|c| u[there + i][c] - u[here + i][c] + spring.rest[c]);
                    let k = spring.stiffness * f64::from(spring.factor(here + i));
                    let scale = k.sqrt() / dot(&d, &d).sqrt().max(f64::MIN_POSITIVE);
                    out[here - base + i] = d.map(|d| (scale * d) as f32);
                }
            });
            0.0
        });
        along
    };
    springs.iter().map(of).collect()
}

/// Adds the product of the second derivatives of the springs, from their [`directions`], with `s` to
/// `out`.
pub(super) fn add_product<const C: usize>(
    layout: &Layout,
    springs: &[Spring<C>],
    directions: &[Vec<[f32; C]>],
    s: &[[f64; C]],
    out: &mut [[f64; C]],
) {
    layout.fill_rows(out, |row, out| {
        let base = row * layout.width();
        for (spring, along) in springs.iter().zip(directions) {
            let add = |here: usize, there: usize, n: usize, from: usize, out: &mut [[f64; C]]| {
                let (own, other) = (&s[here..here + n], &s[there..there + n]);
                let along = &along[from..from + n];
                let out = &mut out[here - base..here - base + n];
                for i in 0..n {
                    let a = along[i].map(f64::from);
                    let by: f64 = (0..C).map(|c| a[c] * (own[i][c] - other[i][c])).sum();
                    (0..C).for_each(|c| out[i][c] += a[c] * by);
                }
            };
            layout.beside(row, spring.offset, |here, there, n| add(here, there, n, here, out));
            layout.beside(row, spring.back(), |here, there, n| add(here, there, n, there, out));
        }
        0.0
    });
}
