//! The displacements of tiles that fit best to the matches between them.
//!
//! A tile is displaced by a sum of functions of its pixels: a shift, a linear map, the nodes of a mesh,
//! and a distortion that all tiles have in common. A match demands that the two places that it joins
//! come to lie at one place of the plane. The coefficients that fit best, in the sense of least
//! squares, are the same linear system for y and for x.

use super::StitchModel;
use crate::geom::{Accuracy, conjugate_gradients};
use crate::tiles::Project;

/// When the solver stops.
const ACCURACY: Accuracy = Accuracy { residual: 1e-6, iterations: 5000 };
/// The weights of terms that keep coefficients small, relative to that of a match with correlation 1:
/// the shift of a tile from its stage position, the change of a linear map over half a tile, the
/// common distortion of third and of second degree, and the nodes of a mesh.
const SHIFT: f64 = 1e-4;
const LINEAR: f64 = 0.2;
const LENS: [f64; 2] = [0.07, 0.5];
const NODE: f64 = 1e-2;
/// The weight of the springs between the nodes of a mesh.
const SPRING: f64 = 1.0;
/// The number of nodes of a mesh along each axis.
const NODES: usize = 9;
/// The number of terms of the common distortion of third degree, as of a lens, and of second degree.
///
/// Only terms that change along an overlap are determined well: with all monomials of third degree, a
/// lens of 3 pixels was found with errors of 1 to 4 pixels that bend the whole plane.
const LENS_TERMS: [usize; 2] = [2, 3];
/// The number of times that matches are weighted by their residuals.
const ROUNDS: usize = 3;
/// A match counts a quarter at a residual of this many times the median, and at least this many pixels.
const OUTLIER: [f64; 2] = [3.0, 0.3];

/// The coefficients of one equation: unknowns and factors.
pub(super) type Row = Vec<(usize, f64)>;

/// Equations, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    /// The end of each equation in `terms`.
    ends: Vec<usize>,
    terms: Vec<(u32, f32)>,
    targets: Vec<[f64; 2]>,
    /// The square roots of the weights of squares.
    weights: Vec<f64>,
}

impl Rows {
    /// Adds the equation `weight * (sum of the terms - target) = 0`.
    pub(super) fn push(&mut self, terms: &[(usize, f64)], target: [f64; 2], weight: f64) {
        self.terms.extend(terms.iter().map(|(unknown, factor)| (*unknown as u32, *factor as f32)));
        self.ends.push(self.terms.len());
        self.targets.push(target);
        self.weights.push(weight);
    }

    /// The number of equations.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn row(&self, i: usize) -> &[(u32, f32)] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.terms[start..self.ends[i]]
    }

    /// The sum of the terms of an equation.
    fn value(&self, i: usize, x: &[f64]) -> f64 {
        self.row(i).iter().map(|(unknown, factor)| f64::from(*factor) * x[*unknown as usize]).sum()
    }

    /// The distances of all equations from their targets.
    pub(super) fn residuals(&self, x: &[[f64; 2]]) -> Vec<f64> {
        let axes = [0, 1].map(|c| x.iter().map(|x| x[c]).collect::<Vec<f64>>());
        let residual = |i: usize| {
            let by = |c: usize| self.value(i, &axes[c]) - self.targets[i][c];
            by(0).hypot(by(1))
        };
        (0..self.len()).map(residual).collect()
    }
}

/// The least squares solution of equations.
pub(super) fn solve(rows: &Rows, unknowns: usize) -> Vec<[f64; 2]> {
    let mut diagonal = vec![0.0; unknowns];
    for i in 0..rows.len() {
        for (unknown, factor) in rows.row(i) {
            diagonal[*unknown as usize] += (f64::from(*factor) * rows.weights[i]).powi(2);
        }
    }
    let times = |x: &[f64], out: &mut [f64]| {
        out.fill(0.0);
        for i in 0..rows.len() {
            let by = rows.value(i, x) * rows.weights[i].powi(2);
            for (unknown, factor) in rows.row(i) {
                out[*unknown as usize] += by * f64::from(*factor);
            }
        }
    };
    let precondition = |r: &[f64], out: &mut [f64]| {
        for ((out, r), own) in out.iter_mut().zip(r).zip(&diagonal) {
            *out = if *own > 0.0 { r / own } else { 0.0 };
        }
    };
    let axis = |c: usize| {
        let mut right = vec![0.0; unknowns];
        for i in 0..rows.len() {
            let by = rows.targets[i][c] * rows.weights[i].powi(2);
            for (unknown, factor) in rows.row(i) {
                right[*unknown as usize] += by * f64::from(*factor);
            }
        }
        conjugate_gradients(&right, times, precondition, ACCURACY).x
    };
    let (y, x) = rayon::join(|| axis(0), || axis(1));
    y.into_iter().zip(x).map(|(y, x)| [y, x]).collect()
}

/// The functions of which displacements are sums, and the numbers of their coefficients.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    model: StitchModel,
    lens: bool,
    shapes: Vec<[f64; 2]>,
}

impl Basis {
    pub(super) fn new(project: &Project, model: StitchModel, lens: bool) -> Self {
        let shapes = project.tiles.iter().map(|tile| tile.shape.map(|n| n as f64)).collect();
        Self { model, lens, shapes }
    }

    /// The number of coefficients of a tile.
    fn each(&self) -> usize {
        match self.model {
            StitchModel::Translation => 1,
            StitchModel::Affine => 3,
            StitchModel::Elastic => 1 + NODES * NODES,
        }
    }

    /// The number of coefficients of all tiles.
    pub(super) fn unknowns(&self) -> usize {
        self.each() * self.shapes.len() + self.lens_terms()
    }

    /// The number of terms of the common distortion. With affine maps, terms of second degree would
    /// not be determined: they bend the whole plane, and change each tile by an affine map.
    fn lens_terms(&self) -> usize {
        match (self.lens, self.model) {
            (false, _) => 0,
            (true, StitchModel::Affine) => LENS_TERMS[0],
            (true, _) => LENS_TERMS[0] + LENS_TERMS[1],
        }
    }

    /// The place of a pixel in its tile: from -1 to 1 along the longer axis.
    fn relative(&self, tile: usize, place: [f64; 2]) -> [f64; 2] {
        let shape = self.shapes[tile];
        let half = shape[0].max(shape[1]) / 2.0;
        std::array::from_fn(|c| (place[c] - (shape[c] - 1.0) / 2.0) / half)
    }

    /// Adds the terms of the displacement of a pixel (y, x) of a tile, times `sign`, to a row.
    pub(super) fn add(&self, tile: usize, place: [f64; 2], sign: f64, row: &mut Row) {
        let first = tile * self.each();
        let [u, v] = self.relative(tile, place);
        row.push((first, sign));
        match self.model {
            StitchModel::Translation => {}
            StitchModel::Affine => row.extend([(first + 1, sign * u), (first + 2, sign * v)]),
            StitchModel::Elastic => {
                let shape = self.shapes[tile];
                let taps = [0, 1].map(|c| {
                    let last = (NODES - 1) as f64;
                    let at = (place[c] / (shape[c] - 1.0).max(1.0) * last).clamp(0.0, last);
                    let low = at.floor().min(last - 1.0);
                    [(low as usize, 1.0 - (at - low)), (low as usize + 1, at - low)]
                });
                for (y, wy) in taps[0] {
                    for (x, wx) in taps[1] {
                        row.push((first + 1 + y * NODES + x, sign * wy * wx));
                    }
                }
            }
        }
        let from = self.each() * self.shapes.len();
        let square = u * u + v * v;
        let terms = [square * u, square * v, u * u, u * v, v * v];
        let terms = terms.into_iter().take(self.lens_terms()).enumerate();
        row.extend(terms.map(|(k, term)| (from + k, sign * term)));
    }

    /// Adds the equations that keep coefficients small.
    fn regularise(&self, rows: &mut Rows) {
        let zero = [0.0; 2];
        for tile in 0..self.shapes.len() {
            let first = tile * self.each();
            rows.push(&[(first, 1.0)], zero, SHIFT);
            match self.model {
                StitchModel::Translation => {}
                StitchModel::Affine => {
                    (1..3).for_each(|k| rows.push(&[(first + k, 1.0)], zero, LINEAR));
                }
                StitchModel::Elastic => {
                    let node = |y: usize, x: usize| first + 1 + y * NODES + x;
                    for y in 0..NODES {
                        for x in 0..NODES {
                            rows.push(&[(node(y, x), 1.0)], zero, NODE);
                            let beside = [(y + 1, x), (y, x + 1)];
                            for (b, a) in beside.into_iter().filter(|(b, a)| *b.max(a) < NODES) {
                                let spring = [(node(y, x), 1.0), (node(b, a), -1.0)];
                                rows.push(&spring, zero, SPRING);
                            }
                        }
                    }
                }
            }
        }
        let from = self.each() * self.shapes.len();
        for k in 0..self.lens_terms() {
            rows.push(&[(from + k, 1.0)], zero, LENS[usize::from(k >= LENS_TERMS[0])]);
        }
    }

    /// The coefficients that fit best to the matches of `rows`; matches that do not fit count less.
    pub(super) fn fit(&self, rows: &Rows) -> Vec<[f64; 2]> {
        let count = rows.len();
        let mut system = rows.clone();
        self.regularise(&mut system);
        let mut found = solve(&system, self.unknowns());
        for _ in 0..ROUNDS {
            let residuals = rows.residuals(&found);
            let scale = (OUTLIER[0] * median(&residuals)).max(OUTLIER[1]);
            for i in 0..count {
                // the square root of the factor of Geman and McClure
                system.weights[i] = rows.weights[i] / (1.0 + (residuals[i] / scale).powi(2));
            }
            found = solve(&system, self.unknowns());
        }
        found
    }

    /// The displacement of a pixel (y, x) of a tile, pixels.
    pub(super) fn displacement(&self, tile: usize, place: [f64; 2], of: &[[f64; 2]]) -> [f64; 2] {
        let mut row = Row::new();
        self.add(tile, place, 1.0, &mut row);
        let sum = |c: usize| row.iter().map(|(k, factor)| factor * of[*k][c]).sum();
        [sum(0), sum(1)]
    }

    /// Whether the displacements are affine maps.
    pub(super) fn is_affine(&self) -> bool {
        !self.lens && self.model != StitchModel::Elastic
    }
}

/// The median; 0 of no values.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        return 0.0;
    }
    *sorted.select_nth_unstable_by(middle, f64::total_cmp).1
}
