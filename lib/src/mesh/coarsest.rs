//! The exact solution on the coarsest level of the approximate inverse.

use super::layout::Layout;
use super::multigrid::unit;
use super::springs::Spring;
use super::ties::{self, Held};

/// The factors of the matrix of a level of few nodes. The unknowns of a section follow those of the
/// section before, so that the matrix is a band.
pub(super) struct Direct<const C: usize> {
    pub(super) layout: Layout,
    band: usize,
    /// The factors of [`ties::factorise`], of one column.
    factors: Vec<f64>,
}

impl<const C: usize> Direct<C> {
    /// * `ties`: the distance and the weights of each kind of tie
    pub(super) fn new(
        layout: &Layout,
        springs: &[Spring<C>],
        ties: &[(isize, Vec<f32>)],
        anchor: f64,
        held: Held,
    ) -> Self {
        let nodes: usize = layout.shape.iter().product();
        let furthest = ties.iter().map(|(d, _)| d.unsigned_abs()).max().unwrap_or(0);
        let band = (furthest + 1) * nodes * C - 1;
        let mut matrix =
            Matrix::<C> { layout, band, held, lower: vec![0.0; layout.len() * C * (band + 1)] };
        for i in 0..layout.len() {
            // held nodes have an equation of their own, whose solution is 0
            let is_held = held[layout.position(i).0];
            matrix.add(i, None, &scaled(if is_held { 1.0 } else { anchor }));
        }
        for spring in springs {
            let unit = unit(spring).map(f64::from);
            let by: [[f64; C]; C] =
                std::array::from_fn(|c| std::array::from_fn(|d| unit[c] * unit[d]));
            for row in 0..layout.rows() {
                layout.beside(row, spring.offset, |here, there, n| {
                    for i in 0..n {
                        let factor = f64::from(spring.factor(here + i));
                        let by = by.map(|row| row.map(|v| factor * v));
                        matrix.add(here + i, Some(there + i), &by);
                    }
                });
            }
        }
        for (distance, weights) in ties {
            for (i, weight) in weights.iter().enumerate() {
                let (section, at) = layout.position(i);
                let by = scaled(f64::from(*weight));
                if *distance == 0 {
                    if !held[section] {
                        matrix.add(i, None, &by);
                    }
                } else if let Some(other) = ties::partner(section, *distance, layout.sections) {
                    matrix.add(i, Some(layout.index(other, at)), &by);
                }
            }
        }
        let factors = ties::factorise(matrix.lower, layout.len() * C, band, 1);
        Self { layout: *layout, band, factors }
    }

    /// The solution of the equations with this right side.
    pub(super) fn solve(&self, right: &[[f32; C]]) -> Vec<[f32; C]> {
        let n = right.len() * C;
        let mut s = vec![0.0; n];
        for (i, v) in right.iter().enumerate() {
            (0..C).for_each(|c| s[place::<C>(&self.layout, i) + c] = f64::from(v[c]));
        }
        let row = |i: usize| &self.factors[i * (self.band + 1)..(i + 1) * (self.band + 1)];
        for i in 0..n {
            let sum: f64 = (1..=self.band.min(i)).map(|b| row(i)[b] * s[i - b]).sum();
            s[i] -= sum;
        }
        for i in (0..n).rev() {
            s[i] *= row(i)[0];
            let sum: f64 = (1..=self.band.min(n - 1 - i)).map(|b| row(i + b)[b] * s[i + b]).sum();
            s[i] -= sum;
        }
        (0..right.len())
            .map(|i| std::array::from_fn(|c| s[place::<C>(&self.layout, i) + c] as f32))
            .collect()
    }
}

/// A multiple of the identity.
fn scaled<const C: usize>(by: f64) -> [[f64; C]; C] {
    std::array::from_fn(|c| std::array::from_fn(|d| if c == d { by } else { 0.0 }))
}

/// The place of the first unknown of node `i`.
fn place<const C: usize>(layout: &Layout, i: usize) -> usize {
    let (section, [z, y, x]) = layout.position(i);
    let [nz, ny, nx] = layout.shape;
    C * (((section * nz + z) * ny + y) * nx + x)
}

/// The lower band of a symmetric matrix.
struct Matrix<'a, const C: usize> {
    layout: &'a Layout,
    band: usize,
    held: Held<'a>,
    lower: Vec<f64>,
}

impl<const C: usize> Matrix<'_, C> {
    /// Adds `by`, the second derivatives of an energy of the step of node `i` or, if there is a node
    /// `j`, of the difference of the steps of both. Nodes of held sections do not move.
    fn add(&mut self, i: usize, j: Option<usize>, by: &[[f64; C]; C]) {
        let entries = match j {
            None => vec![(i, i, 1.0)],
            Some(j) => vec![(i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)],
        };
        for (a, b, sign) in entries {
            let moves = |node| !self.held[self.layout.position(node).0];
            if j.is_some() && !(moves(a) && moves(b)) {
                continue;
            }
            let (row, column) = (place::<C>(self.layout, a), place::<C>(self.layout, b));
            for c in 0..C {
                for d in 0..C {
                    if let Some(back) = (row + c).checked_sub(column + d) {
                        self.lower[(row + c) * (self.band + 1) + back] += sign * by[c][d];
                    }
                }
            }
        }
    }
}
