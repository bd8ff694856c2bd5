//! The inverse at the nodes of one box.

use super::{Tally, widened};
use crate::geom::{Box3, Chain, Grid, LocalChain, Point};
use crate::warp::{self, points};

/// From one node that is solved from afar to the next.
const STRIDE: usize = 8;
/// Steps along the slope before a node is solved from afar too.
const STEPS: usize = 12;

/// The inverse of a box.
pub(super) struct Inverse {
    /// From each node of the moving space to its point of the fixed space, micrometres; NaN where there
    /// is none.
    pub(super) vectors: Vec<[f32; 3]>,
    pub(super) tally: Tally,
}

/// Nodes that are solved from afar: they enclose the box.
struct Scaffold {
    /// Node of the grid that is its first, and how many along each axis.
    first: [i64; 3],
    shape: [usize; 3],
    stride: [usize; 3],
    /// Where the map takes to each; NaN where not found.
    points: Vec<Point>,
}

/// Inverts `chain` at the nodes of `core`, a box of `grid`.
///
/// Numbers: `f64`; the field `f32`. Checked by: `tests::every_node_is_taken_back_to_where_it_came_from`.
pub(super) fn invert(
    chain: &Chain,
    grid: &Grid,
    core: &Box3,
    tolerance: f64,
) -> Result<Inverse, warp::Error> {
    let wide = widened(core, grid);
    let scaffold = Scaffold::new(chain, grid, &wide)?;
    let local = scaffold.localise(chain, grid)?;
    let limit = tolerance * grid.spacing.iter().copied().fold(f64::INFINITY, f64::min);
    let mut found: Vec<Point> = vec![[f64::NAN; 3]; wide.len()];
    let mut rest = Vec::new();
    let [_, height, width] = wide.shape();
    for (i, q) in found.iter_mut().enumerate() {
        let node = [i / (height * width), i / width % height, i % width];
        let index = std::array::from_fn(|a| wide.min[a] + node[a] as i64);
        let y = grid.position(index.map(|v| v as f64));
        match local.as_ref().and_then(|local| scaffold.follow(local, index, grid, y, limit)) {
            Some(point) => *q = point,
            None => rest.push((i, y)),
        }
    }
    let targets: Vec<Point> = rest.iter().map(|(_, y)| *y).collect();
    let solved = points::inverse(chain, &targets)?;
    for ((i, _), q) in rest.iter().zip(&solved.points) {
        found[*i] = *q;
    }
    finish(chain, grid, core, &wide, &found)
}

impl Scaffold {
    fn new(chain: &Chain, grid: &Grid, wide: &Box3) -> Result<Self, warp::Error> {
        let extent = wide.shape();
        let stride: [usize; 3] =
            std::array::from_fn(|a| if grid.shape[a] > 1 { STRIDE } else { 1 });
        let shape: [usize; 3] = std::array::from_fn(|a| (extent[a] - 1).div_ceil(stride[a]) + 1);
        let targets: Vec<Point> = (0..shape.iter().product::<usize>())
            .map(|i| {
                let at = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
                grid.position(std::array::from_fn(|a| {
                    (wide.min[a] + (at[a] * stride[a]) as i64) as f64
                }))
            })
            .collect();
        let points = points::inverse(chain, &targets)?.points;
        Ok(Self { first: wide.min, shape, stride, points })
    }

    /// The chain where the nodes come from; `None` where no node of the scaffold was found.
    fn localise(&self, chain: &Chain, grid: &Grid) -> Result<Option<LocalChain>, warp::Error> {
        let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for q in self.points.iter().filter(|q| q.iter().all(|v| v.is_finite())) {
            for a in 0..3 {
                extent[0][a] = extent[0][a].min(q[a]);
                extent[1][a] = extent[1][a].max(q[a]);
            }
        }
        if !extent[0][0].is_finite() {
            return Ok(None);
        }
        // steps may lead a little outside
        let margin: Point = std::array::from_fn(|a| grid.spacing[a] * self.stride[a] as f64);
        for a in 0..3 {
            extent[0][a] -= margin[a];
            extent[1][a] += margin[a];
        }
        Ok(Some(chain.localise(extent).map_err(warp::Error::Field)?.0))
    }

    /// Steps from between the nodes of the scaffold to where the map takes to `y`.
    fn follow(
        &self,
        local: &LocalChain,
        index: [i64; 3],
        grid: &Grid,
        y: Point,
        limit: f64,
    ) -> Option<Point> {
        let strides = [self.shape[1] * self.shape[2], self.shape[2], 1];
        let mut low = [0; 3];
        let mut part = [0.0; 3];
        for a in 0..3 {
            let at = (index[a] - self.first[a]) as usize;
            low[a] = (at / self.stride[a]).min(self.shape[a].saturating_sub(2));
            part[a] = at as f64 / self.stride[a] as f64 - low[a] as f64;
        }
        let first: usize = (0..3).map(|a| low[a] * strides[a]).sum();
        let mut q = [0.0; 3];
        // how q changes with y: columns by axis of y
        let mut slope = [[0.0; 3]; 3];
        for corner in 0..8usize {
            let side: [usize; 3] = std::array::from_fn(|a| corner >> a & 1);
            if (0..3).any(|a| side[a] == 1 && self.shape[a] == 1) {
                continue;
            }
            let at = first + (0..3).map(|a| side[a] * strides[a]).sum::<usize>();
            let factor = |a: usize| if side[a] == 1 { part[a] } else { 1.0 - part[a] };
            let factors: Point = std::array::from_fn(factor);
            for c in 0..3 {
                q[c] += factors[0] * factors[1] * factors[2] * self.points[at][c];
            }
            for a in (0..3).filter(|&a| self.shape[a] > 1) {
                let across: f64 = (0..3).filter(|&b| b != a).map(|b| factors[b]).product();
                let sign = if side[a] == 1 { across } else { -across };
                for c in 0..3 {
                    slope[a][c] += sign * self.points[at][c];
                }
            }
        }
        for a in 0..3 {
            if self.shape[a] > 1 {
                let by = 1.0 / (grid.spacing[a] * self.stride[a] as f64);
                slope[a] = slope[a].map(|v| v * by);
            } else {
                slope[a][a] = 1.0;
            }
        }
        let mut last = f64::INFINITY;
        for _ in 0..STEPS {
            let image = local.apply(q);
            let r: Point = std::array::from_fn(|a| y[a] - image[a]);
            let residual = r.iter().map(|v| v * v).sum::<f64>().sqrt();
            if residual <= limit {
                return Some(q);
            }
            // NaN too
            if !(residual < 0.9 * last) {
                return None;
            }
            last = residual;
            for c in 0..3 {
                q[c] += slope[0][c] * r[0] + slope[1][c] * r[1] + slope[2][c] * r[2];
            }
        }
        None
    }
}

/// Residuals, folds and vectors of the core's nodes.
fn finish(
    chain: &Chain,
    grid: &Grid,
    core: &Box3,
    wide: &Box3,
    found: &[Point],
) -> Result<Inverse, warp::Error> {
    let [_, height, width] = wide.shape();
    let strides = [height * width, width, 1];
    let mut tally = Tally::default();
    let mut vectors = Vec::with_capacity(core.len());
    let mut kept = Vec::with_capacity(core.len());
    for z in core.min[0]..core.max[0] {
        for y in core.min[1]..core.max[1] {
            for x in core.min[2]..core.max[2] {
                let node = [z, y, x];
                let i: usize = (0..3).map(|a| (node[a] - wide.min[a]) as usize * strides[a]).sum();
                let at = grid.position(node.map(|v| v as f64));
                let q = found[i];
                if q.iter().all(|v| v.is_finite()) && !is_turned(found, i, strides, grid) {
                    kept.push((q, at));
                    vectors.push(std::array::from_fn(|a| (q[a] - at[a]) as f32));
                } else {
                    tally.lost += 1;
                    tally.folded += u64::from(q.iter().all(|v| v.is_finite()));
                    vectors.push([f32::NAN; 3]);
                }
            }
        }
    }
    tally.found = kept.len() as u64;
    let sources: Vec<Point> = kept.iter().map(|(q, _)| *q).collect();
    let unit = grid.spacing.iter().copied().fold(f64::INFINITY, f64::min);
    for (image, (q, at)) in points::forward(chain, &sources)?.iter().zip(&kept) {
        let square: f64 = (0..3).map(|a| (image[a] - at[a]).powi(2)).sum();
        let residual = square.sqrt() / unit;
        tally.sum += residual;
        tally.greatest = tally.greatest.max(residual);
        for a in 0..3 {
            tally.reach[a] = tally.reach[a].max((q[a] - at[a]).abs());
        }
    }
    Ok(Inverse { vectors, tally })
}

/// Whether the inverse turns space inside out at a node, by what its neighbours have.
fn is_turned(found: &[Point], i: usize, strides: [usize; 3], grid: &Grid) -> bool {
    let mut columns = [[0.0; 3]; 3];
    for a in 0..3 {
        if grid.shape[a] == 1 {
            columns[a][a] = 1.0;
            continue;
        }
        let (low, high) = (found[i - strides[a]], found[i + strides[a]]);
        let here = found[i];
        let known = |q: Point| q.iter().all(|v| v.is_finite());
        let (low, high) =
            (if known(low) { low } else { here }, if known(high) { high } else { here });
        columns[a] = std::array::from_fn(|c| high[c] - low[c]);
    }
    let [a, b, c] = columns;
    let determinant = a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
        + a[2] * (b[0] * c[1] - b[1] * c[0]);
    determinant < 0.0
}
