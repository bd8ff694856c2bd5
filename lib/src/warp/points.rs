//! Mapping points through a chain: forwards exactly, backwards by Newton's method.

use std::collections::BTreeMap;

use super::Error;
use crate::device::Cost;
use crate::geom::{Affine, Chain, LocalAffines, Point, Transform};

#[cfg(test)]
mod chains;
mod fields;
mod table;
pub(super) use fields::warn_outside;
use fields::{Reached, reached_fields};
pub use table::map_table;

/// The side of the cells into which points are grouped, in sample spacings of the finest field; it
/// bounds the part of a field that is read at a time.
const CELL_SIDE: f64 = 96.0;

/// The maximum distance in micrometres between a point and the image of its inverse for the search
/// to succeed.
pub const TOLERANCE: f64 = 1e-7;

/// The step of the finite differences that approximate the Jacobian, micrometres.
const DIFFERENCE_STEP: f64 = 1e-3;

/// The maximum number of Newton iterations per point.
const MAX_ITERATIONS: usize = 60;

/// The maximum number of times that a step is halved because it does not reduce the residual.
const MAX_HALVINGS: i32 = 8;

/// The maximum number of nodes whose inverse is searched at the same time.
pub const MAX_CONCURRENT: usize = 1 << 14;

/// Memory per point during the search, bytes: the point and its initial guess, the state of its
/// search, its probes and their images, and the indices of the probes by cell.
const SEARCH_BYTES: usize = 2 * size_of::<Point>()
    + size_of::<PointSearch>()
    + 8 * size_of::<Point>()
    + 4 * 2 * size_of::<usize>();

/// The memory of searching for `points` points, of which `at_once` are searched at the same time.
pub fn search_cost(chain: &Chain, at_once: usize, points: usize) -> Cost {
    Cost::bytes("search from afar", (points.min(at_once) * SEARCH_BYTES) as u64) + cell_cost(chain)
}

/// The maximum memory of the parts of a chain's fields that are read for one cell of points.
fn cell_cost(chain: &Chain) -> Cost {
    let edge = cell_edge(chain);
    let vectors = chain.steps.iter().map(|step| match step {
        Transform::Field(field) => {
            let grid = field.grid();
            // the samples in the cell, those around it, and one more on each side
            let along = |a: usize| {
                let cell = (edge[a] / grid.spacing[a]).min(1e9) as usize;
                (cell + 4).min(grid.shape[a])
            };
            along(0) * along(1) * along(2)
        }
        _ => 0,
    });
    Cost::of::<[f32; 3]>("vectors of a cell of points", vectors.sum())
}

/// The result of mapping points backwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Inverse {
    /// The inverse images, `[z, y, x]` in micrometres; NaN where none was found.
    pub points: Vec<Point>,
    /// The distance between each point and the image of its inverse, micrometres; NaN where the
    /// chain is undefined.
    pub residuals: Vec<f64>,
    /// The indices of the points without an inverse image.
    pub lost: Vec<usize>,
}

/// Maps points (`[z, y, x]` in micrometres) from the fixed to the moving space. Non-finite points
/// give NaN.
///
/// # Errors
/// [`Error::Field`] if a field cannot be read.
pub fn forward(chain: &Chain, points: &[Point]) -> Result<Vec<Point>, Error> {
    let mut out = vec![[f64::NAN; 3]; points.len()];
    for members in cells(chain, points).values() {
        let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for p in members.iter().map(|&i| points[i]) {
            for a in 0..3 {
                extent[0][a] = extent[0][a].min(p[a]);
                extent[1][a] = extent[1][a].max(p[a]);
            }
        }
        let (local, _) = chain.localise(extent).map_err(Error::Field)?;
        for &i in members {
            out[i] = local.apply(points[i]);
        }
    }
    Ok(out)
}

/// Maps points from the moving back to the fixed space. Chains of matrices are inverted exactly;
/// all others by damped Newton steps, until the image of a point is within [`TOLERANCE`] of its
/// target.
///
/// # Errors
/// [`Error::NoInverse`] for a singular matrix, [`Error::Field`] if a field cannot be read.
///
/// ```
/// use voxloom::geom::{Affine, Chain};
/// use voxloom::warp::points;
///
/// let chain = Chain::affine(Affine::translation([0.0, 0.0, 2.0]));
/// let back = points::inverse(&chain, &[[1.0, 1.0, 5.0]])?;
/// assert_eq!(back.points, [[1.0, 1.0, 3.0]]);
/// assert!(back.lost.is_empty());
/// # Ok::<(), voxloom::warp::Error>(())
/// ```
pub fn inverse(chain: &Chain, points: &[Point]) -> Result<Inverse, Error> {
    if chain.as_affine().is_some() {
        let back = inverse_chain(chain)?.as_affine().unwrap_or(Affine::IDENTITY);
        let points: Vec<Point> = points.iter().map(|&p| back.apply(p)).collect();
        return Ok(Inverse { residuals: vec![0.0; points.len()], points, lost: Vec::new() });
    }
    let guess = guesses(chain, points)?;
    let mut searches: Vec<PointSearch> = guess.into_iter().map(PointSearch::new).collect();
    for _ in 0..MAX_ITERATIONS {
        let open: Vec<usize> = (0..points.len()).filter(|&i| searches[i].open).collect();
        if open.is_empty() {
            break;
        }
        let trials: Vec<Point> = open.iter().flat_map(|&i| searches[i].probes()).collect();
        let images = forward(chain, &trials)?;
        for (&i, images) in open.iter().zip(images.as_chunks::<4>().0) {
            searches[i].update_jacobian(points[i], images);
        }
    }
    let lost: Vec<usize> =
        (0..points.len()).filter(|&i| !(searches[i].residual <= TOLERANCE)).collect();
    let mut out: Vec<Point> = searches.iter().map(|s| s.best).collect();
    for &i in &lost {
        out[i] = [f64::NAN; 3];
    }
    let residual = |s: &PointSearch| if s.residual.is_finite() { s.residual } else { f64::NAN };
    Ok(Inverse { points: out, residuals: searches.iter().map(residual).collect(), lost })
}

/// The inverse of a chain that consists of matrices only.
///
/// # Errors
/// [`Error::NoInverse`], naming the first step that has no inverse or is not a matrix.
pub fn inverse_chain(chain: &Chain) -> Result<Chain, Error> {
    let mut steps = Vec::new();
    for (i, step) in chain.steps.iter().enumerate() {
        let no = |what: &str| Error::NoInverse { step: i + 1, what: what.to_owned() };
        match step {
            Transform::Affine(map) => {
                let back = map.inverse().map_err(|e| no(&format!("a matrix, and {e}")))?;
                steps.push(Transform::Affine(back));
            }
            Transform::LocalAffines(_) => {
                return Err(no("a set of local affines, whose inverse is no such set; \
                    give the inverse as a displacement field, which invmap makes"));
            }
            Transform::Field(_) => {
                return Err(no("a displacement field, whose inverse must be computed first; \
                    give the inverse as a displacement field, which invmap makes"));
            }
        }
    }
    steps.reverse();
    Ok(Chain { steps })
}

/// The sides of the cells for a chain, micrometres; infinite without a field.
fn cell_edge(chain: &Chain) -> Point {
    let mut edge = [f64::INFINITY; 3];
    for step in &chain.steps {
        if let Transform::Field(field) = step {
            let finest = field.grid().spacing.into_iter().fold(f64::INFINITY, f64::min);
            edge = edge.map(|e| e.min(CELL_SIDE * finest));
        }
    }
    edge
}

/// The indices of the finite points, grouped by cells of space so that a cell's part of a field
/// fits into memory.
fn cells(chain: &Chain, points: &[Point]) -> BTreeMap<[i64; 3], Vec<usize>> {
    let edge = cell_edge(chain);
    let mut cells: BTreeMap<[i64; 3], Vec<usize>> = BTreeMap::new();
    for (i, p) in points.iter().enumerate() {
        if p.iter().all(|v| v.is_finite()) {
            let cell = std::array::from_fn(|a| (p[a] / edge[a]).floor() as i64);
            cells.entry(cell).or_default().push(i);
        }
    }
    cells
}

/// The initial guesses: the points mapped back through the matrices and local affines, without
/// fields.
fn guesses(chain: &Chain, points: &[Point]) -> Result<Vec<Point>, Error> {
    let mut out = points.to_vec();
    for (i, step) in chain.steps.iter().enumerate().rev() {
        match step {
            Transform::Affine(map) => {
                let what = |e| format!("a matrix, and {e}");
                let back =
                    map.inverse().map_err(|e| Error::NoInverse { step: i + 1, what: what(e) })?;
                for p in &mut out {
                    *p = back.apply(*p);
                }
            }
            Transform::LocalAffines(maps) => {
                let middle = middle_of(maps).inverse().unwrap_or(Affine::IDENTITY);
                for p in &mut out {
                    let near = middle.apply(*p);
                    let shares = maps.shares(near);
                    let most = shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
                    let back = most.and_then(|(block, _)| maps.affines[block].inverse().ok());
                    *p = back.map_or(near, |back| back.apply(*p));
                }
            }
            // fields are ignored: their displacements are small, and the Newton iterations correct
            // for them
            Transform::Field(_) => {}
        }
    }
    Ok(out)
}

/// The mean of the matrices of all blocks.
fn middle_of(maps: &LocalAffines) -> Affine {
    let mut rows = [[0.0; 4]; 3];
    for map in &maps.affines {
        for (sum, row) in rows.iter_mut().zip(map.rows()) {
            for (sum, v) in sum.iter_mut().zip(row) {
                *sum += v / maps.affines.len() as f64;
            }
        }
    }
    Affine::from_rows(rows)
}

/// The search for the inverse image of one point.
struct PointSearch {
    best: Point,
    residual: f64,
    /// The Newton step from `best`.
    step: Point,
    halvings: i32,
    open: bool,
}

impl PointSearch {
    fn new(guess: Point) -> Self {
        let open = guess.iter().all(|v| v.is_finite());
        Self { best: guess, residual: f64::INFINITY, step: [0.0; 3], halvings: 0, open }
    }

    fn trial(&self) -> Point {
        let share = 0.5f64.powi(self.halvings);
        std::array::from_fn(|a| self.best[a] + share * self.step[a])
    }

    /// The next point to try, and a small step from it along each axis.
    fn probes(&self) -> [Point; 4] {
        let trial = self.trial();
        std::array::from_fn(|i| {
            std::array::from_fn(|a| trial[a] + if i == a + 1 { DIFFERENCE_STEP } else { 0.0 })
        })
    }

    fn update_jacobian(&mut self, wanted: Point, images: &[Point; 4]) {
        let off: Point = std::array::from_fn(|a| wanted[a] - images[0][a]);
        let residual = off.iter().map(|v| v * v).sum::<f64>().sqrt();
        if !(residual < self.residual) {
            self.halvings += 1;
            self.open = self.residual.is_finite() && self.halvings <= MAX_HALVINGS;
            return;
        }
        self.best = self.trial();
        self.residual = residual;
        self.halvings = 0;
        let jacobian = std::array::from_fn(|r| {
            std::array::from_fn(|c| (images[c + 1][r] - images[0][r]) / DIFFERENCE_STEP)
        });
        match Affine::from_parts(jacobian, [0.0; 3]).inverse() {
            Ok(back) if residual > TOLERANCE => self.step = back.apply_vector(off),
            _ => self.open = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::geom::{Field, Grid};

    fn wavy(grid: Grid, height: f64) -> Field {
        let vectors = (0..grid.bounds().len())
            .map(|i| {
                let [_, ny, nx] = grid.shape;
                let t = [i / (ny * nx), i / nx % ny, i % nx].map(|v| v as f64);
                let u = [(t[1] * 0.7).sin(), (t[2] * 0.6).cos(), (t[0] * 0.8 + t[2] * 0.3).sin()];
                u.map(|v| (v * height) as f32)
            })
            .collect();
        Field { grid, vectors }
    }

    fn bent_chain() -> Chain {
        let map = Affine::from_parts(
            [[1.02, 0.03, 0.0], [-0.02, 0.97, 0.01], [0.01, 0.0, 1.05]],
            [-30.0, 12.0, 80.0],
        );
        let domain = Grid::new([20, 20, 20], [2.0; 3], [0.0; 3]);
        let affines = (0..8)
            .map(|i| map.then(&Affine::translation([f64::from(i % 3), 0.5, -f64::from(i % 2)])))
            .collect();
        let local = LocalAffines { domain, block: [10; 3], overlap: [3.0; 3], affines };
        let field = wavy(Grid::new([12, 12, 12], [4.0; 3], [0.0; 3]), 0.8);
        Chain {
            steps: vec![
                Transform::Field(Arc::new(field)),
                Transform::LocalAffines(Arc::new(local)),
            ],
        }
    }

    proptest! {
        #[test]
        fn a_point_carried_there_and_back_is_where_it_was(
            points in prop::collection::vec(prop::array::uniform3(2.0..38.0f64), 1..20)
        ) {
            let chain = bent_chain();
            let there = forward(&chain, &points).unwrap();
            let back = inverse(&chain, &there).unwrap();
            prop_assert!(back.lost.is_empty());
            for (p, q) in points.iter().zip(&back.points) {
                for a in 0..3 {
                    prop_assert!((p[a] - q[a]).abs() < 1e-4, "{p:?} {q:?}");
                }
            }
        }

        #[test]
        fn points_in_many_cells_go_where_each_goes_alone(
            points in prop::collection::vec(prop::array::uniform3(-500.0..500.0f64), 1..20)
        ) {
            let field = wavy(Grid::new([100, 100, 100], [3.0; 3], [-100.0; 3]), 2.0);
            let chain = Chain { steps: vec![Transform::Field(Arc::new(field.clone()))] };
            for (p, q) in points.iter().zip(forward(&chain, &points).unwrap()) {
                let u = field.displacement(*p);
                for a in 0..3 {
                    prop_assert!((p[a] + u[a] - q[a]).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn a_point_that_nothing_is_mapped_to_is_named_and_left_empty() {
        let mut field = wavy(Grid::new([8, 8, 8], [5.0; 3], [0.0; 3]), 0.5);
        field.vectors.fill([f32::NAN; 3]);
        let chain = Chain { steps: vec![Transform::Field(Arc::new(field))] };
        let back = inverse(&chain, &[[10.0; 3], [500.0; 3]]).unwrap();
        assert_eq!(back.lost, [0]);
        assert!(back.points[0][0].is_nan());
        assert_eq!(back.points[1], [500.0; 3]);
    }

    #[test]
    fn a_chain_with_a_flat_matrix_has_no_inverse_and_says_which_step() {
        let flat = Affine::from_rows([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0; 4]]);
        let chain =
            Chain { steps: vec![Transform::Affine(Affine::IDENTITY), Transform::Affine(flat)] };
        let error = inverse_chain(&chain).err().unwrap().to_string();
        assert!(error.contains("step 2") && error.contains("singular"), "{error}");
    }
}
