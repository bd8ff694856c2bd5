//! The ties between the meshes of sections, and to fixed positions, at the same node of each.

use std::ops::{AddAssign, Mul, Sub, SubAssign};

use super::layout::Layout;

/// Springs of length 0 that the measured displacements put on the nodes of each section s: they pull
/// u(s - distance) - u(s) to the target or, if the distance is 0, u(s) itself.
#[derive(Clone, Debug)]
pub(super) struct Ties<const C: usize> {
    /// The number of sections by which the other section precedes the own one.
    pub(super) distance: isize,
    /// The constant of each node; 0 where nothing was measured.
    pub(super) weights: Vec<f32>,
    /// The target of each node, micrometres.
    pub(super) targets: Vec<[f32; C]>,
}

/// The sections whose nodes do not move.
pub(super) type Held<'a> = &'a [bool];

/// The other section of a tie, if it exists.
pub(super) fn partner(section: usize, distance: isize, sections: usize) -> Option<usize> {
    section.checked_add_signed(-distance).filter(|s| *s < sections)
}

/// Calls `pair(section, partner)` for each section that has a partner.
fn for_each_pair(sections: usize, distance: isize, mut pair: impl FnMut(usize, usize)) {
    for section in 0..sections {
        if let Some(other) = partner(section, distance, sections) {
            pair(section, other);
        }
    }
}

/// Adds the gradient of the energy of the ties to `gradient`, and returns the energy.
pub(super) fn add_gradient<const C: usize>(
    layout: &Layout,
    ties: &[Ties<C>],
    u: &[[f64; C]],
    gradient: &mut [[f64; C]],
) -> f64 {
    let nx = layout.shape[2];
    layout.fill_rows(gradient, |row, out| {
        let base = row * layout.width();
        let mut energy = 0.0;
        for tie in ties {
            for_each_pair(layout.sections, tie.distance, |section, other| {
                for x in 0..nx {
                    let (own, other) = (section * nx + x, other * nx + x);
                    let weight = f64::from(tie.weights[base + own]);
                    if weight == 0.0 {
                        continue; // the target is not known
                    }
                    let rest = tie.targets[base + own];
                    for c in 0..C {
                        let away = match tie.distance {
                            0 => u[base + own][c],
                            _ => u[base + other][c] - u[base + own][c],
                        } - f64::from(rest[c]);
                        energy += 0.5 * weight * away * away;
                        out[other][c] += weight * away;
                        if tie.distance != 0 {
                            out[own][c] -= weight * away;
                        }
                    }
                }
            });
        }
        energy
    })
}

/// Adds the product of the second derivatives of the ties with `s` to a row of the result.
///
/// * `ties`: the distance and the weights of each kind of tie
pub(super) fn add_product_of_row<const C: usize, T>(
    layout: &Layout,
    ties: &[(isize, &[f32])],
    s: &[[T; C]],
    row: usize,
    out: &mut [[T; C]],
) where
    T: Copy + From<f32> + AddAssign + SubAssign + Mul<Output = T> + Sub<Output = T>,
{
    let (nx, base) = (layout.shape[2], row * layout.width());
    for (distance, weights) in ties {
        for_each_pair(layout.sections, *distance, |section, other| {
            for x in 0..nx {
                let (own, other) = (section * nx + x, other * nx + x);
                let weight = T::from(weights[base + own]);
                for c in 0..C {
                    if *distance == 0 {
                        out[own][c] += weight * s[base + own][c];
                    } else {
                        let by = weight * (s[base + own][c] - s[base + other][c]);
                        out[own][c] += by;
                        out[other][c] -= by;
                    }
                }
            }
        });
    }
}

/// The factors L and D of the matrix L D L^T of each column: the ties, plus a diagonal matrix.
#[derive(Debug)]
pub(super) struct Columns {
    /// The greatest distance of a tie.
    band: usize,
    /// For each row, section and distance, the values along x: 1/D at distance 0, then L.
    factors: Vec<f32>,
}

impl Columns {
    /// Factorises all columns.
    ///
    /// * `diagonal`: what is added to the diagonal
    pub(super) fn new(
        layout: &Layout,
        ties: &[(isize, &[f32])],
        held: Held,
        diagonal: f64,
    ) -> Self {
        let band = ties.iter().map(|(distance, _)| distance.unsigned_abs()).max().unwrap_or(0);
        let (nx, width) = (layout.shape[2], (band + 1) * layout.width());
        let mut factors = vec![0.0_f32; layout.rows() * width];
        let rows = Layout { shape: [1, layout.rows(), nx], sections: layout.sections * (band + 1) };
        rows.fill_rows(&mut factors, |row, out| {
            let matrix = matrix_of_row(layout, ties, held, diagonal, row, band);
            let factors = factorise(matrix, layout.sections, band, nx);
            for (out, value) in out.iter_mut().zip(factors) {
                *out = value as f32;
            }
            0.0
        });
        Self { band, factors }
    }

    /// Replaces the right side of the equations of a row by their solution.
    pub(super) fn solve_row<const C: usize>(
        &self,
        layout: &Layout,
        row: usize,
        s: &mut [[f32; C]],
    ) {
        let (nx, band) = (layout.shape[2], self.band);
        let base = row * layout.width() * (band + 1);
        let at = |section: usize, b: usize| {
            let first = base + (section * (band + 1) + b) * nx;
            &self.factors[first..first + nx]
        };
        for section in 0..layout.sections {
            let (before, own) = s.split_at_mut(section * nx);
            for b in 1..=band.min(section) {
                let other = &before[(section - b) * nx..][..nx];
                subtract(&mut own[..nx], at(section, b), other);
            }
        }
        for section in (0..layout.sections).rev() {
            let (own, after) = s[section * nx..].split_at_mut(nx);
            for (own, inverse) in own.iter_mut().zip(at(section, 0)) {
                own.iter_mut().for_each(|v| *v *= *inverse);
            }
            for b in 1..=band.min(layout.sections - 1 - section) {
                let other = &after[(b - 1) * nx..][..nx];
                subtract(own, at(section + b, b), other);
            }
        }
    }
}

fn subtract<const C: usize>(own: &mut [[f32; C]], factors: &[f32], other: &[[f32; C]]) {
    for ((own, factor), other) in own.iter_mut().zip(factors).zip(other) {
        (0..C).for_each(|c| own[c] -= *factor * other[c]);
    }
}

/// The lower bands of the matrices of a row: for each section and distance, the values along x.
fn matrix_of_row(
    layout: &Layout,
    ties: &[(isize, &[f32])],
    held: Held,
    diagonal: f64,
    row: usize,
    band: usize,
) -> Vec<f64> {
    let (nx, base) = (layout.shape[2], row * layout.width());
    let mut matrix = vec![0.0; (band + 1) * layout.width()];
    let at = |section: usize, b: usize| (section * (band + 1) + b) * nx;
    for section in 0..layout.sections {
        matrix[at(section, 0)..][..nx].fill(diagonal);
    }
    for (distance, weights) in ties {
        for_each_pair(layout.sections, *distance, |section, other| {
            for x in 0..nx {
                let weight = f64::from(weights[base + section * nx + x]);
                matrix[at(section, 0) + x] += weight;
                if *distance != 0 {
                    matrix[at(other, 0) + x] += weight;
                    if !held[section] && !held[other] {
                        matrix[at(section.max(other), distance.unsigned_abs()) + x] -= weight;
                    }
                }
            }
        });
    }
    matrix
}

/// The factors L and D of symmetric matrices L D L^T, from their lower bands: for each row and each
/// distance from the diagonal, the values along x. 1/D takes the place of the diagonal.
pub(super) fn factorise(mut matrix: Vec<f64>, sections: usize, band: usize, nx: usize) -> Vec<f64> {
    let at = |section: usize, b: usize| (section * (band + 1) + b) * nx;
    for own in 0..sections {
        let furthest = band.min(own);
        // L D, from the furthest section on
        for b in (1..=furthest).rev() {
            let other = own - b;
            for k in own - furthest..other {
                let (near, far) = (at(other, other - k), at(own, own - k));
                for x in 0..nx {
                    matrix[at(own, b) + x] -= matrix[far + x] * matrix[near + x];
                }
            }
        }
        for b in 1..=furthest {
            for x in 0..nx {
                let product = matrix[at(own, b) + x];
                let factor = product * matrix[at(own - b, 0) + x];
                matrix[at(own, b) + x] = factor;
                matrix[at(own, 0) + x] -= product * factor;
            }
        }
        for value in &mut matrix[at(own, 0)..][..nx] {
            *value = if *value > 0.0 { value.recip() } else { 0.0 };
        }
    }
    matrix
}
