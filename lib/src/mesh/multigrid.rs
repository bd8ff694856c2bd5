//! An approximate inverse of the second derivatives of a mesh, by one cycle of multigrid.
//!
//! Each level has half the nodes of the one before along each axis. On a level, the springs keep
//! their directions at rest, and the ties of all sections at a node are solved for exactly, since
//! they are often far stiffer than the springs. The errors of high frequency that this leaves are
//! damped by Chebyshev polynomials (Briggs, Henson and `McCormick`, A Multigrid Tutorial, chapters
//! 3 and 7; Adams et al., J. Comput. Phys. 188, 2003, section 3).

use super::coarsest::Direct;
use super::layout::Layout;
use super::springs::{Spring, dot, springs, with_factors};
use super::ties::{self, Columns, Held, Ties};

/// The least number of nodes along an axis that are halved.
const LEAST: usize = 3;
/// The eigenvalues that are damped, relative to the diagonal. None exceeds 2, since a spring adds
/// at most twice its share of the diagonal.
const DAMPED: [f32; 2] = [0.3, 2.0];
/// The degree of the polynomials before and after the coarser levels.
const DEGREE: usize = 2;

/// One level of the approximate inverse.
struct Level<const C: usize> {
    layout: Layout,
    springs: Vec<Spring<C>>,
    /// The distance and the weights of each kind of tie.
    ties: Vec<(isize, Vec<f32>)>,
    /// What is added to the diagonal.
    anchor: f64,
    columns: Columns,
}

/// The approximate inverse: symmetric, so that conjugate gradients can use it.
pub(super) struct Multigrid<'a, const C: usize> {
    levels: Vec<Level<C>>,
    coarsest: Direct<C>,
    held: Held<'a>,
}

impl<'a, const C: usize> Multigrid<'a, C> {
    /// * `spacing`: the distances between nodes along z, y, x, micrometres
    /// * `stiffness`: as in [`springs`]
    /// * `factors`: those of the constants of each spring of each node; none if all are 1
    /// * `anchor`: the constant of springs of length 0 from all nodes to their positions at rest
    pub(super) fn new(
        layout: Layout,
        spacing: [f64; 3],
        stiffness: f64,
        factors: &[Vec<f32>],
        ties: &[Ties<C>],
        anchor: f64,
        held: Held<'a>,
    ) -> Self {
        let mut levels: Vec<Level<C>> = Vec::new();
        let (mut layout, mut spacing, mut anchor, mut stiffness) =
            (layout, spacing, anchor, stiffness);
        let mut weights: Vec<_> = ties.iter().map(|t| (t.distance, t.weights.clone())).collect();
        let mut factors = factors.to_vec();
        loop {
            let coarse = layout.halved();
            if coarse == layout {
                break;
            }
            let coarsen = |(distance, weights): &(isize, Vec<f32>)| {
                let fine: Vec<_> = weights.iter().map(|w| [*w]).collect();
                let mut out = vec![[0.0]; coarse.len()];
                restrict(&layout, &fine, &coarse, &mut out);
                (*distance, out.into_flattened())
            };
            let next = weights.iter().map(coarsen).collect();
            let springs = with_factors(springs(spacing, stiffness), &factors);
            for (spring, factors) in springs.iter().zip(&mut factors) {
                *factors = coarser_factors(spring, &layout, &coarse);
            }
            levels.push(Level::new(layout, springs, weights, anchor, held));
            weights = next;
            anchor *= layout.len() as f64 / coarse.len() as f64;
            for a in 0..3 {
                if coarse.shape[a] < layout.shape[a] {
                    spacing[a] *= 2.0;
                }
            }
            // the energy of a strain: twice the length squared, and half the springs along each axis
            stiffness *= if C == 3 { 2.0 } else { 1.0 };
            layout = coarse;
        }
        let springs = with_factors(springs(spacing, stiffness), &factors);
        let coarsest = Direct::new(&layout, &springs, &weights, anchor, held);
        Self { levels, coarsest, held }
    }

    /// Replaces `out` by the product of the approximate inverse with `right`.
    pub(super) fn apply(&self, right: &[[f64; C]], out: &mut [[f64; C]]) {
        let right: Vec<[f32; C]> = right.iter().map(|v| v.map(|v| v as f32)).collect();
        let found = self.cycle(0, &right);
        for (out, found) in out.iter_mut().zip(found) {
            *out = found.map(f64::from);
        }
    }

    fn cycle(&self, at: usize, right: &[[f32; C]]) -> Vec<[f32; C]> {
        let Some(level) = self.levels.get(at) else {
            return self.coarsest.solve(right);
        };
        let mut out = vec![[0.0; C]; right.len()];
        level.smooth(right, &mut out, self.held, true);
        let mut rest = vec![[0.0; C]; right.len()];
        level.residual(right, &out, self.held, &mut rest);
        let coarse = self.levels.get(at + 1).map_or(self.coarsest.layout, |next| next.layout);
        let mut gathered = vec![[0.0; C]; coarse.len()];
        restrict(&level.layout, &rest, &coarse, &mut gathered);
        let correction = self.cycle(at + 1, &gathered);
        add_prolonged(&coarse, &correction, &level.layout, &mut out);
        level.smooth(right, &mut out, self.held, false);
        out
    }
}

impl Layout {
    /// The layout with half the nodes along each axis that has enough of them; coarse node i is
    /// fine node 2 i, and the last coarse nodes can lie beyond the fine ones.
    fn halved(self) -> Self {
        let shape = self.shape.map(|n| if n >= LEAST { n / 2 + 1 } else { n });
        Self { shape, ..self }
    }
}

/// The coarse nodes around a fine node along an axis, with their weights.
fn around(i: usize, fine: usize, coarse: usize) -> [(usize, f32); 2] {
    match (fine == coarse, i % 2) {
        (true, _) => [(i, 1.0), (i, 0.0)],
        (_, 0) => [(i / 2, 1.0), (i / 2, 0.0)],
        _ => [(i / 2, 0.5), (i / 2 + 1, 0.5)],
    }
}

/// The fine nodes that a coarse node contributes to along an axis, with their weights.
fn contributors(i: usize, fine: usize, coarse: usize) -> impl Iterator<Item = (usize, f32)> {
    let taps = if fine == coarse {
        [(Some(i), 1.0), (None, 0.0), (None, 0.0)]
    } else {
        [((2 * i).checked_sub(1), 0.5), (Some(2 * i), 1.0), (Some(2 * i + 1), 0.5)]
    };
    taps.into_iter().filter_map(move |(at, weight)| Some((at.filter(|at| *at < fine)?, weight)))
}

/// The factors of the springs of the coarse nodes, each of which stands for fine ones in series.
fn coarser_factors<const C: usize>(spring: &Spring<C>, fine: &Layout, coarse: &Layout) -> Vec<f32> {
    let ratio: [usize; 3] =
        std::array::from_fn(|a| if coarse.shape[a] < fine.shape[a] { 2 } else { 1 });
    let links = (0..3).filter(|a| spring.offset[*a] != 0).map(|a| ratio[a]).max().unwrap_or(1);
    (0..coarse.len())
        .map(|i| {
            let (section, at) = coarse.position(i);
            let (mut compliance, mut count) = (0.0, 0);
            for link in 0..links as isize {
                let place: Option<Vec<usize>> = (0..3)
                    .map(|a| {
                        let at = (at[a] * ratio[a]).checked_add_signed(link * spring.offset[a])?;
                        (at < fine.shape[a]).then_some(at)
                    })
                    .collect();
                if let Some([z, y, x]) = place.as_deref() {
                    compliance += spring.factor(fine.index(section, [*z, *y, *x])).recip();
                    count += 1;
                }
            }
            if count == 0 { 1.0 } else { count as f32 / compliance }
        })
        .collect()
}

/// The transpose of the interpolation: each coarse node gathers from the fine nodes around it.
fn restrict<const C: usize>(
    fine: &Layout,
    values: &[[f32; C]],
    coarse: &Layout,
    out: &mut [[f32; C]],
) {
    let (nx, cx) = (fine.shape[2], coarse.shape[2]);
    coarse.fill_rows(out, |row, out| {
        let [_, ny, _] = coarse.shape;
        for (z, of_z) in contributors(row / ny, fine.shape[0], coarse.shape[0]) {
            for (y, of_y) in contributors(row % ny, fine.shape[1], coarse.shape[1]) {
                let base = (z * fine.shape[1] + y) * fine.width();
                for (i, out) in out.iter_mut().enumerate() {
                    for (x, of_x) in contributors(i % cx, nx, cx) {
                        let weight = of_z * of_y * of_x;
                        let value = &values[base + i / cx * nx + x];
                        (0..C).for_each(|c| out[c] += weight * value[c]);
                    }
                }
            }
        }
        0.0
    });
}

/// Adds the interpolation of the coarse values to the fine ones.
fn add_prolonged<const C: usize>(
    coarse: &Layout,
    values: &[[f32; C]],
    fine: &Layout,
    out: &mut [[f32; C]],
) {
    let (nx, cx) = (fine.shape[2], coarse.shape[2]);
    fine.fill_rows(out, |row, out| {
        let [_, ny, _] = fine.shape;
        for (z, of_z) in around(row / ny, fine.shape[0], coarse.shape[0]) {
            for (y, of_y) in around(row % ny, fine.shape[1], coarse.shape[1]) {
                let weight = of_z * of_y;
                if weight == 0.0 {
                    continue;
                }
                let base = (z * coarse.shape[1] + y) * coarse.width();
                for (i, out) in out.iter_mut().enumerate() {
                    let first = base + i / nx * cx;
                    for (x, of_x) in around(i % nx, nx, cx) {
                        let value = &values[first + x];
                        (0..C).for_each(|c| out[c] += weight * of_x * value[c]);
                    }
                }
            }
        }
        0.0
    });
}

impl<const C: usize> Level<C> {
    fn new(
        layout: Layout,
        springs: Vec<Spring<C>>,
        ties: Vec<(isize, Vec<f32>)>,
        anchor: f64,
        held: Held,
    ) -> Self {
        // each spring pulls on both of its ends, along its direction
        let mut diagonal = [0.0; C];
        for spring in &springs {
            let square = dot(&spring.rest, &spring.rest);
            for c in 0..C {
                diagonal[c] += 2.0 * spring.stiffness * spring.rest[c].powi(2) / square;
            }
        }
        let diagonal = anchor + diagonal.into_iter().fold(0.0, f64::max);
        let borrowed: Vec<_> = ties.iter().map(|(d, w)| (*d, w.as_slice())).collect();
        let columns = Columns::new(&layout, &borrowed, held, diagonal);
        Self { layout, springs, ties, anchor, columns }
    }

    /// Replaces `out` by `right` minus the product of the level's matrix with `s`.
    fn residual(&self, right: &[[f32; C]], s: &[[f32; C]], held: Held, out: &mut [[f32; C]]) {
        let units: Vec<[f32; C]> = self.springs.iter().map(unit).collect();
        let kinds: Vec<_> = self.ties.iter().map(|(d, w)| (*d, w.as_slice())).collect();
        let (layout, anchor) = (&self.layout, self.anchor as f32);
        layout.fill_rows(out, |row, out| {
            let base = row * layout.width();
            let own = &s[base..base + out.len()];
            for (out, own) in out.iter_mut().zip(own) {
                *out = own.map(|v| anchor * v);
            }
            for (spring, unit) in self.springs.iter().zip(&units) {
                for (offset, is_own) in [(spring.offset, true), (spring.offset.map(|o| -o), false)]
                {
                    layout.beside(row, offset, |here, there, n| {
                        let from = if is_own { here } else { there };
                        let (own, other) = (&s[here..here + n], &s[there..there + n]);
                        let out = &mut out[here - base..here - base + n];
                        for i in 0..n {
                            let by: f32 = (0..C).map(|c| unit[c] * (own[i][c] - other[i][c])).sum();
                            let by = spring.factor(from + i) * by;
                            (0..C).for_each(|c| out[i][c] += unit[c] * by);
                        }
                    });
                }
            }
            ties::add_product_of_row(layout, &kinds, s, row, out);
            for (out, right) in out.iter_mut().zip(&right[base..]) {
                *out = std::array::from_fn(|c| right[c] - out[c]);
            }
            clear_held(layout, held, out);
            0.0
        });
    }

    /// Damps the errors of `out`.
    ///
    /// * `zero`: whether `out` is 0
    fn smooth(&self, right: &[[f32; C]], out: &mut [[f32; C]], held: Held, zero: bool) {
        let (middle, half) = (f32::midpoint(DAMPED[0], DAMPED[1]), (DAMPED[1] - DAMPED[0]) / 2.0);
        let mut rho = half / middle;
        let mut rest = if zero { right.to_vec() } else { vec![[0.0; C]; right.len()] };
        let mut step = vec![[0.0; C]; right.len()];
        let layout = &self.layout;
        for k in 0..DEGREE {
            if k > 0 || !zero {
                self.residual(right, out, held, &mut rest);
            }
            let (keep, add) = if k == 0 {
                (0.0, 1.0 / middle)
            } else {
                let next = 1.0 / (2.0 * middle / half - rho);
                let factors = (next * rho, 2.0 * next / half);
                rho = next;
                factors
            };
            layout.fill_rows(&mut rest, |row, rest| {
                self.columns.solve_row(layout, row, rest);
                0.0
            });
            layout.fill_rows(&mut step, |row, step| {
                for (step, rest) in step.iter_mut().zip(&rest[row * layout.width()..]) {
                    *step = std::array::from_fn(|c| keep * step[c] + add * rest[c]);
                }
                0.0
            });
            layout.fill_rows(out, |row, out| {
                for (out, step) in out.iter_mut().zip(&step[row * layout.width()..]) {
                    (0..C).for_each(|c| out[c] += step[c]);
                }
                0.0
            });
        }
    }
}

/// The direction of a spring at rest, times the square root of its constant.
pub(super) fn unit<const C: usize>(spring: &Spring<C>) -> [f32; C] {
    let square = dot(&spring.rest, &spring.rest);
    spring.rest.map(|r| (r * (spring.stiffness / square).sqrt()) as f32)
}

/// Sets the values of a row to 0 in sections that are held.
pub(super) fn clear_held<const C: usize, T: Copy + Default>(
    layout: &Layout,
    held: Held,
    row: &mut [[T; C]],
) {
    for (section, values) in row.chunks_exact_mut(layout.shape[2]).enumerate() {
        if held[section] {
            values.fill([T::default(); C]);
        }
    }
}
