//! Repairs folds of the complete chain, as the last step of the deformation.
//!
//! The complete chain is the blended field followed by the initial map. At each node, its Jacobian
//! determinant is computed in each of the cells around the node. The node folds if one of these
//! determinants is not above 0 (not below 0 if the initial map mirrors), or if a determinant of the
//! field alone is not above [`LEAST`]. Around folded nodes, the field is replaced by a smoothed
//! field, over a region that grows with each try. This reconciles blocks that disagree; elsewhere
//! the field is unchanged.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::Error;
use super::lattice::{Field, Lattice};
use crate::blocks::{self, Context};
use crate::geom::{Box3, Chain, Grid, Point};

/// Maximum number of tries. The last try changes the field up to [`NEAREST`] times 2^(TRIES - 1)
/// nodes from a fold.
const TRIES: u32 = 6;
/// Distance from a fold, in nodes along each axis, up to which the first try changes the field; the
/// distance doubles with each further try.
const NEAREST: i64 = 4;
/// The field is also repaired where its determinant is at most this, because rounding errors could
/// turn a smaller determinant into a fold.
const LEAST: f64 = 1e-3;

/// Folds of the map at the nodes of a box.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Folds {
    /// The least Jacobian determinant of the complete chain.
    pub(super) least: f64,
    /// The nodes at which the field or the complete chain folds.
    pub(super) nodes: Vec<[i64; 3]>,
}

impl Folds {
    fn none() -> Self {
        Self { least: f64::INFINITY, nodes: Vec::new() }
    }

    fn join(mut self, other: Self) -> Self {
        self.least = self.least.min(other.least);
        self.nodes.extend(other.nodes);
        self
    }
}

/// A complete field, before and after its repair.
pub(super) struct Unfold<'a, R> {
    /// The grid of the nodes.
    pub(super) grid: Grid,
    /// The map that is applied after the field.
    pub(super) initial: &'a Chain,
    /// Reads the field at the nodes of a box; always returns the same values.
    pub(super) read: R,
    /// Shape of a chunk, nodes.
    pub(super) unit: [usize; 3],
    /// Chunks that were changed, by their first node.
    changed: BTreeMap<[i64; 3], Field>,
}

impl<'a, R: Fn(&Box3) -> Result<Field, Error> + Sync> Unfold<'a, R> {
    pub(super) fn new(grid: Grid, initial: &'a Chain, unit: [usize; 3], read: R) -> Self {
        Self { grid, initial, read, unit, changed: BTreeMap::new() }
    }

    /// Checks every node, and changes the field until no node folds or all tries are used. Returns
    /// the remaining folds and the number of nodes that folded before the first try.
    pub(super) fn repair(&mut self, ctx: &Context) -> Result<(Folds, usize), Error> {
        let bounds = self.grid.bounds();
        let chunks: Vec<Box3> = bounds.tiles(self.unit).collect();
        let mut folds = self.look_at(&chunks, ctx)?;
        let found = folds.nodes.len();
        for number in 0..TRIES {
            if folds.nodes.is_empty() {
                break;
            }
            let reach = NEAREST << number;
            let places = places(&folds.nodes, reach, &bounds);
            for place in &places {
                self.smooth(place, &folds.nodes, reach)?;
            }
            let seen: Vec<Box3> =
                places.iter().map(|place| place.grow([1; 3]).intersect(&bounds)).collect();
            // outside the boxes `seen`, the determinants are unchanged
            let again = self.look_at(&seen, ctx)?;
            folds = Folds { least: again.least, nodes: again.nodes };
        }
        if found > 0 {
            folds = self.look_at(&chunks, ctx)?;
        }
        Ok((folds, found))
    }

    /// The chunks that were changed.
    pub(super) fn changed(&self) -> impl Iterator<Item = (Box3, &Field)> {
        self.changed.iter().map(move |(min, field)| (self.chunk(*min), field))
    }

    fn chunk(&self, min: [i64; 3]) -> Box3 {
        let max = std::array::from_fn(|a| min[a] + self.unit[a] as i64);
        Box3::new(min, max).intersect(&self.grid.bounds())
    }

    /// The current field at the nodes of a box.
    fn field(&self, part: &Box3) -> Result<Field, Error> {
        let mut field = (self.read)(part)?;
        for (chunk, values) in self.changed() {
            let shared = chunk.intersect(part);
            if !shared.is_empty() {
                copy(values, &chunk, &mut field, part, &shared);
            }
        }
        Ok(field)
    }

    fn look_at(&self, boxes: &[Box3], ctx: &Context) -> Result<Folds, Error> {
        let found = boxes.par_iter().map(|core| {
            if let Some(signal) = ctx.cancel.signal() {
                return Err(blocks::Error::Interrupted { signal }.into());
            }
            self.look(core)
        });
        let mut all = found.try_reduce(Folds::none, |a, b| Ok(a.join(b)))?;
        all.nodes.sort_unstable();
        all.nodes.dedup();
        Ok(all)
    }

    /// The least determinant and the folds at the nodes of a box.
    fn look(&self, core: &Box3) -> Result<Folds, Error> {
        let part = core.grow([1; 3]).intersect(&self.grid.bounds());
        let field = self.field(&part)?;
        let (own, images) = self.images(&part, &field)?;
        let shape = part.shape();
        let orientation = self.orientation(&part)?;
        let mut folds = Folds::none();
        for node in core.tiles([1; 3]).map(|node| node.min) {
            let at: [usize; 3] = std::array::from_fn(|a| (node[a] - part.min[a]) as usize);
            let field = worst(&own, shape, self.grid.spacing, at, 1.0);
            let whole = worst(&images, shape, self.grid.spacing, at, orientation);
            // where the initial map is undefined, only the field is checked
            let whole = if whole.is_nan() { field } else { whole };
            folds.least = folds.least.min(whole);
            if !(field > LEAST && whole > 0.0) {
                folds.nodes.push(node);
            }
        }
        Ok(folds)
    }

    /// Positions of the nodes of a box after the field, and after the complete chain.
    fn images(&self, part: &Box3, field: &Field) -> Result<(Vec<Point>, Vec<Point>), Error> {
        let nodes = part.tiles([1; 3]).map(|node| self.grid.position(node.min.map(|v| v as f64)));
        let own: Vec<Point> = nodes
            .enumerate()
            .map(|(i, p)| std::array::from_fn(|a| p[a] + f64::from(field[a][i])))
            .collect();
        let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for p in &own {
            for a in 0..3 {
                extent[0][a] = extent[0][a].min(p[a]);
                extent[1][a] = extent[1][a].max(p[a]);
            }
        }
        let (chain, _) = self.initial.localise(extent).map_err(blocks::Error::Field)?;
        let images = own.iter().map(|p| chain.apply(*p)).collect();
        Ok((own, images))
    }

    /// The sign of the initial map's Jacobian determinant at the first node of a box: 1, or -1 if
    /// the map mirrors.
    fn orientation(&self, part: &Box3) -> Result<f64, Error> {
        let middle = part.min.map(|v| v as f64);
        let p = self.grid.position(middle);
        let step = self.grid.spacing;
        let extent =
            [std::array::from_fn(|a| p[a] - step[a]), std::array::from_fn(|a| p[a] + step[a])];
        let (chain, _) = self.initial.localise(extent).map_err(blocks::Error::Field)?;
        let columns: [Point; 3] = std::array::from_fn(|a| {
            if self.grid.shape[a] == 1 {
                return unit(a);
            }
            let (mut low, mut high) = (p, p);
            low[a] -= step[a];
            high[a] += step[a];
            let (low, high) = (chain.apply(low), chain.apply(high));
            std::array::from_fn(|c| high[c] - low[c])
        });
        Ok(if determinant(&columns) < 0.0 { -1.0 } else { 1.0 })
    }

    /// Replaces the field by a smoothed field near the folds in the box `place`.
    fn smooth(&mut self, place: &Box3, folds: &[[i64; 3]], reach: i64) -> Result<(), Error> {
        let bounds = self.grid.bounds();
        let part = place.grow([2 * reach; 3]).intersect(&bounds);
        let shape = part.shape();
        let lattice = Lattice { shape, factor: [1; 3] };
        let field = self.field(&part)?;
        let long = (0..3).filter(|&a| shape[a] > 1).map(|a| self.grid.spacing[a]);
        let step = long.fold(f64::INFINITY, f64::min);
        let mut near = vec![0.0f32; part.len()];
        for fold in folds.iter().filter(|fold| part.contains(**fold)) {
            let around = Box3::new(*fold, fold.map(|v| v + 1)).grow([reach / 2; 3]);
            for node in around.intersect(&part).tiles([1; 3]) {
                near[index(node.min, &part)] = 1.0;
            }
        }
        let near = lattice.smooth(&near, reach as f64 / 6.0 * step, self.grid.spacing);
        let smoothed = field
            .each_ref()
            .map(|image| lattice.smooth(image, 0.5 * reach as f64 * step, self.grid.spacing));
        let mut mended = field;
        for c in 0..3 {
            for ((v, smooth), near) in mended[c].iter_mut().zip(&smoothed[c]).zip(&near) {
                *v += near.clamp(0.0, 1.0) * (smooth - *v);
            }
        }
        let firsts: BTreeSet<[i64; 3]> = bounds
            .tiles(self.unit)
            .filter(|chunk| !chunk.intersect(place).is_empty())
            .map(|chunk| chunk.min)
            .collect();
        for first in firsts {
            let chunk = self.chunk(first);
            let mut values = self.field(&chunk)?;
            copy(&mended, &part, &mut values, &chunk, &chunk.intersect(place));
            self.changed.insert(first, values);
        }
        Ok(())
    }
}

/// Boxes around the folds in which the field is changed; boxes that touch are merged.
fn places(folds: &[[i64; 3]], reach: i64, bounds: &Box3) -> Vec<Box3> {
    let mut places: Vec<Box3> = Vec::new();
    for fold in folds {
        let mut place = Box3::new(*fold, fold.map(|v| v + 1)).grow([reach; 3]).intersect(bounds);
        while let Some(i) =
            places.iter().position(|other| !other.grow([1; 3]).intersect(&place).is_empty())
        {
            place = place.union(&places.swap_remove(i));
        }
        places.push(place);
    }
    places
}

fn index(node: [i64; 3], part: &Box3) -> usize {
    let [_, height, width] = part.shape();
    let [z, y, x] = std::array::from_fn(|a| (node[a] - part.min[a]) as usize);
    (z * height + y) * width + x
}

/// Copies the nodes `shared` from a field on the box `from` to one on the box `to`.
fn copy(source: &Field, from: &Box3, target: &mut Field, to: &Box3, shared: &Box3) {
    let width = shared.shape()[2];
    for z in shared.min[0]..shared.max[0] {
        for y in shared.min[1]..shared.max[1] {
            let row = [z, y, shared.min[2]];
            let (i, j) = (index(row, from), index(row, to));
            for c in 0..3 {
                target[c][j..j + width].copy_from_slice(&source[c][i..i + width]);
            }
        }
    }
}

/// The least determinant at a node over the cells around it, times `orientation`; NaN if a position
/// is NaN.
fn worst(
    images: &[Point],
    shape: [usize; 3],
    spacing: Point,
    at: [usize; 3],
    orientation: f64,
) -> f64 {
    let strides = [shape[1] * shape[2], shape[2], 1];
    let i = (0..3).map(|a| at[a] * strides[a]).sum::<usize>();
    let sides: [[Point; 2]; 3] = std::array::from_fn(|a| {
        let slope = |from: usize, to: usize| -> Point {
            std::array::from_fn(|c| (images[to][c] - images[from][c]) / spacing[a])
        };
        let next = (at[a] + 1 < shape[a]).then(|| slope(i, i + strides[a]));
        let previous = (at[a] > 0).then(|| slope(i - strides[a], i));
        // along an axis of one node the derivative is the unit vector
        let either = next.or(previous).unwrap_or(unit(a));
        [next.unwrap_or(either), previous.unwrap_or(either)]
    });
    let corners = (0..8usize)
        .map(|k| orientation * determinant(&std::array::from_fn(|a| sides[a][k >> a & 1])));
    corners.fold(
        f64::INFINITY,
        |least, d| if least.is_nan() || d.is_nan() { f64::NAN } else { least.min(d) },
    )
}

/// The unit vector of an axis.
fn unit(a: usize) -> Point {
    std::array::from_fn(|c| if c == a { 1.0 } else { 0.0 })
}

/// The determinant of a matrix of three columns.
fn determinant([a, b, c]: &[Point; 3]) -> f64 {
    a[0] * (b[1] * c[2] - b[2] * c[1]) - b[0] * (a[1] * c[2] - a[2] * c[1])
        + c[0] * (a[1] * b[2] - a[2] * b[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::Affine;

    fn context() -> Context {
        Context::default()
    }

    /// A field with folds like those between two blocks that disagree: some nodes at x = 19 are
    /// displaced beyond their neighbours at x = 20.
    fn torn(grid: Grid) -> impl Fn(&Box3) -> Result<Field, Error> + Sync {
        move |part: &Box3| {
            let mut field: Field = std::array::from_fn(|_| vec![0.0; part.len()]);
            for (i, node) in part.tiles([1; 3]).enumerate() {
                let [z, y, x] = node.min;
                let near = (8..12).contains(&z) && (8..14).contains(&y);
                let wave = 0.1 * (z as f64 * 0.3).sin() * grid.spacing[2];
                field[2][i] = (if near && x == 19 { 1.8 } else { wave }) as f32;
            }
            Ok(field)
        }
    }

    #[test]
    fn folds_between_blocks_are_found_and_smoothed_away_and_all_else_stays() {
        let grid = Grid::new([20, 24, 40], [1.0, 1.0, 1.5], [3.0, 0.0, -2.0]);
        for linear in [
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [[-1.0, 0.0, 0.1], [0.0, 1.1, 0.0], [0.0, 0.0, 0.9]],
        ] {
            let initial = Chain::affine(Affine::from_parts(linear, [1.0, 2.0, 3.0]));
            let read = torn(grid);
            let before = read(&grid.bounds()).unwrap();
            let mut unfold = Unfold::new(grid, &initial, [16; 3], read);
            let (left, found) = unfold.repair(&context()).unwrap();
            assert!(found > 10, "{found} folds: the test shows nothing");
            assert!(left.nodes.is_empty() && left.least > 0.0, "{left:?}");
            let after = unfold.field(&grid.bounds()).unwrap();
            for (i, node) in grid.bounds().tiles([1; 3]).enumerate() {
                let near = (node.min[2] - 19).abs() < 10;
                assert!(near || after[2][i] == before[2][i], "{node}");
            }
            let changed = before[2].iter().zip(&after[2]).filter(|(a, b)| a != b).count();
            assert!(changed < before[2].len() / 2, "{changed} nodes changed");
            let whole = unfold.look(&grid.bounds()).unwrap();
            assert_eq!(whole, left);
        }
    }

    #[test]
    fn a_fold_of_the_initial_map_is_seen_though_the_field_has_none() {
        let grid = Grid::new([1, 1, 40], [1.0; 3], [0.0; 3]);
        // between x = 10 and x = 20, the map reverses the direction of x
        let vectors = (0..40).map(|x| [0.0, 0.0, -1.5 * (x.clamp(10, 20) - 10) as f32]).collect();
        let field = crate::geom::Field { grid, vectors };
        let initial =
            Chain { steps: vec![crate::geom::Transform::Field(std::sync::Arc::new(field))] };
        let read = |part: &Box3| -> Result<Field, Error> {
            Ok(std::array::from_fn(|_| vec![0.0; part.len()]))
        };
        let folds = Unfold::new(grid, &initial, [16; 3], read).look(&grid.bounds()).unwrap();
        assert!(
            folds.nodes.contains(&[0, 0, 15]) && !folds.nodes.contains(&[0, 0, 30]),
            "{folds:?}"
        );
    }

    #[test]
    fn maps_that_compress_strongly_but_do_not_fold_are_no_fold() {
        // both fields compress: the initial one by a factor of 0.4, the tested one by 0.1 in every
        // other cell
        let grid = Grid::new([1, 1, 40], [1.0; 3], [0.0; 3]);
        let squeeze = |x: f64| if x < 20.0 { -0.6 * x } else { -12.0 };
        let vectors = (0..40).map(|x| [0.0, 0.0, squeeze(f64::from(x)) as f32]).collect();
        let field = crate::geom::Field { grid, vectors };
        let initial =
            Chain { steps: vec![crate::geom::Transform::Field(std::sync::Arc::new(field))] };
        let read = |part: &Box3| -> Result<Field, Error> {
            let mut field: Field = std::array::from_fn(|_| vec![0.0; part.len()]);
            for (i, node) in part.tiles([1; 3]).enumerate() {
                field[2][i] = if node.min[2] % 2 == 0 { 0.0 } else { -0.9 };
            }
            Ok(field)
        };
        let unfold = Unfold::new(grid, &initial, [16; 3], read);
        let folds = unfold.look(&grid.bounds()).unwrap();
        assert!(folds.nodes.is_empty(), "{folds:?}");
        assert!(folds.least < 0.05, "{}", folds.least);
    }

    #[test]
    fn a_plane_is_looked_at_within_its_plane() {
        let grid = Grid::new([1, 24, 40], [7.0, 1.0, 1.0], [0.0; 3]);
        let initial = Chain::default();
        let read = move |part: &Box3| -> Result<Field, Error> {
            let mut field: Field = std::array::from_fn(|_| vec![0.0; part.len()]);
            for (i, node) in part.tiles([1; 3]).enumerate() {
                field[2][i] = if node.min == [0, 12, 19] { 1.4 } else { 0.0 };
            }
            Ok(field)
        };
        let mut unfold = Unfold::new(grid, &initial, [64; 3], read);
        let (left, found) = unfold.repair(&context()).unwrap();
        assert!(found > 0 && left.nodes.is_empty() && left.least > 0.0, "{found} {left:?}");
    }
}
