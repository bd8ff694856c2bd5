//! Sections in pieces: which part of a section a map explains, and where each map holds.

use serde::{Deserialize, Serialize};

use super::links::{find, in_space};
use crate::geom::{Affine, Grid};
use crate::metric::{Image, PairSums, sample};
use crate::refine::image_pair::{ImagePair, detail};
use crate::refine::pyramid::Pyramid;
use crate::refine::search::{SearchExtent, scale};

/// The longest side of the images whose local correlations are computed, pixels.
const SIDE: f64 = 256.0;
/// The side of a cell, pixels.
const CELL: usize = 8;
/// A window reaches this many cells to each side: where it is asked whether a map explains a section,
/// and where maps are compared with each other. The larger window averages chance out; the smaller
/// one resolves the border between pieces.
const REACH: [usize; 2] = [3, 1];
/// Stands for the correlation of a cell that a map takes out of the other section.
const OUTSIDE: f64 = -1.0;
/// A cell has content if its variance is this fraction of the median variance of the cells, or more.
const CONTENT: f64 = 0.1;
/// A map explains a cell if the correlation there is this fraction of that of the best cells, or
/// more.
const EXPLAINED: f64 = 0.35;
/// The rank of the correlation of the best cells.
const BEST: f64 = 0.9;
/// The smallest piece, as a fraction of the cells with content.
const LEAST_PIECE: f64 = 0.1;
/// Pieces whose maps differ by less than this fraction of the longest side are one piece: patch
/// flow finds such differences.
const LEAST_SHIFT: f64 = 0.03;

/// Where each of several maps holds: the number of a map for each cell of a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Labels {
    shape: [usize; 2],
    /// The corner of the first cell, and the size of a cell, micrometres.
    origin: [f64; 2],
    cell: [f64; 2],
    of: Vec<u8>,
}

impl Labels {
    /// The map that holds at a point, micrometres; beyond the section, that of the nearest cell.
    pub(super) fn at(&self, p: [f64; 2]) -> usize {
        let [y, x] = [0, 1].map(|a| {
            let at = ((p[a] - self.origin[a]) / self.cell[a]).floor();
            at.clamp(0.0, self.shape[a] as f64 - 1.0) as usize
        });
        usize::from(self.of[y * self.shape[1] + x])
    }
}

/// The correlations of a section with another one under several maps, cell by cell.
struct Cells {
    shape: [usize; 2],
    origin: [f64; 2],
    cell: [f64; 2],
    has_content: Vec<bool>,
    /// For each map, the correlation in the window around each cell; [`OUTSIDE`] if the map leads out
    /// of the other section.
    correlations: Vec<Vec<f64>>,
}

impl Cells {
    /// The cells of one section of a pair: the fixed one, or with the inverse maps the moving one.
    ///
    /// * `reach`: half the width of a window, cells
    fn of(images: &ImagePair<'_>, maps: &[Affine], is_moving: bool, reach: usize) -> Self {
        let size = maps.first().map_or(1.0, |map| scale(map, true));
        let sides = [images.fixed, images.moving];
        let resolution = resolution(images);
        let resolutions = [resolution, resolution * size];
        let [fixed, moving] = [0, 1].map(|i| detail(&sides[i].at(resolutions[i]), resolutions[i]));
        if is_moving {
            let back: Vec<Affine> = maps.iter().filter_map(|map| map.inverse().ok()).collect();
            Self::between(&moving, &fixed, &back, reach)
        } else {
            Self::between(&fixed, &moving, maps, reach)
        }
    }

    fn between(own: &Image, other: &Image, maps: &[Affine], reach: usize) -> Self {
        let Grid { shape: [_, ny, nx], spacing, origin, .. } = own.grid;
        let shape = [ny, nx].map(|n| n.div_ceil(CELL));
        let mut sums = vec![vec![PairSums::default(); shape[0] * shape[1]]; maps.len()];
        let mut own_sums = vec![PairSums::default(); shape[0] * shape[1]];
        for (i, &value) in own.voxels.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            let [y, x] = [i / nx, i % nx];
            let cell = y / CELL * shape[1] + x / CELL;
            own_sums[cell].add(f64::from(value), 0.0);
            let p = own.grid.position([0.0, y as f64, x as f64]);
            for (map, sums) in maps.iter().zip(&mut sums) {
                let at = other.grid.index(map.apply(p)).map(|v| v as f32);
                let (seen, _) = sample(other, at);
                if !seen.is_nan() {
                    sums[cell].add(f64::from(value), f64::from(seen));
                }
            }
        }
        let own_sums = windows(&own_sums, shape, reach);
        let variance = |sums: &PairSums| sums.centred()[0] / sums.n;
        let mut variances: Vec<f64> =
            own_sums.iter().filter(|sums| sums.n > 0.0).map(variance).collect();
        let median = rank(&mut variances, 0.5);
        let full = ((2 * reach + 1) * CELL).pow(2) as f64;
        let has_content: Vec<bool> = own_sums
            .iter()
            .map(|sums| sums.n >= 0.25 * full && variance(sums) >= CONTENT * median)
            .collect();
        let correlations = sums
            .iter()
            .map(|sums| {
                windows(sums, shape, reach)
                    .iter()
                    .zip(&own_sums)
                    .map(|(sums, own)| {
                        let is_inside = sums.n >= 0.5 * own.n;
                        sums.correlation().filter(|_| is_inside).unwrap_or(OUTSIDE)
                    })
                    .collect()
            })
            .collect();
        let corner = [0, 1].map(|a| origin[1 + a] - 0.5 * spacing[1 + a]);
        let cell = [0, 1].map(|a| CELL as f64 * spacing[1 + a]);
        Self { shape, origin: corner, cell, has_content, correlations }
    }

    /// The map with the greatest correlation at a cell, and this correlation.
    fn best(&self, cell: usize) -> (usize, f64) {
        let of = self.correlations.iter().map(|of| of[cell]).enumerate();
        // of equal ones, the first
        of.reduce(|a, b| if b.1 > a.1 { b } else { a }).unwrap_or((0, OUTSIDE))
    }

    fn cells(&self) -> std::ops::Range<usize> {
        0..self.has_content.len()
    }

    fn content(&self) -> Vec<usize> {
        self.cells().filter(|cell| self.has_content[*cell]).collect()
    }

    /// The correlation from which on a cell is explained.
    fn limit(&self) -> f64 {
        let mut best: Vec<f64> = self.content().iter().map(|cell| self.best(*cell).1).collect();
        EXPLAINED * rank(&mut best, BEST)
    }

    /// The cells with content that no map explains, without single ones.
    fn unexplained(&self) -> Vec<bool> {
        let limit = self.limit();
        let is_left: Vec<bool> =
            self.cells().map(|cell| self.has_content[cell] && self.best(cell).1 < limit).collect();
        self.cells()
            .map(|cell| {
                let alike = around(cell, self.shape, 1).filter(|other| is_left[*other]).count();
                is_left[cell] && alike >= 4
            })
            .collect()
    }

    fn centre(&self, cell: usize) -> [f64; 2] {
        let at = [cell / self.shape[1], cell % self.shape[1]];
        [0, 1].map(|a| self.origin[a] + (at[a] as f64 + 0.5) * self.cell[a])
    }

    /// A copy of an image in which only the marked cells are known.
    fn masked(&self, of: &Pyramid, marked: &[bool]) -> Pyramid {
        let mut image = of.base().clone();
        let [_, _, nx] = image.grid.shape;
        for i in 0..image.voxels.len() {
            let [_, y, x] = image.grid.position([0.0, (i / nx) as f64, (i % nx) as f64]);
            let [cy, cx] = [0, 1].map(|a| {
                let at = ([y, x][a] - self.origin[a]) / self.cell[a];
                at.clamp(0.0, self.shape[a] as f64 - 1.0) as usize
            });
            if !marked[cy * self.shape[1] + cx] {
                image.voxels[i] = f32::NAN;
            }
        }
        Pyramid::new(image, of.resolution())
    }

    /// The map of each cell: that with the greatest correlation; in cells without content, that of
    /// the nearest cell with content.
    fn labels(&self) -> Labels {
        let mut of: Vec<Option<u8>> = self
            .cells()
            .map(|cell| self.has_content[cell].then(|| self.best(cell).0 as u8))
            .collect();
        while of.iter().any(Option::is_none) && of.iter().any(Option::is_some) {
            let before = of.clone();
            for cell in self.cells().filter(|cell| before[*cell].is_none()) {
                of[cell] = around(cell, self.shape, 1).find_map(|other| before[other]);
            }
        }
        let of = of.into_iter().map(Option::unwrap_or_default).collect();
        Labels { shape: self.shape, origin: self.origin, cell: self.cell, of }
    }
}

/// The resolution of local correlations, micrometres of the fixed section.
fn resolution(images: &ImagePair<'_>) -> f64 {
    (longest(images) / SIDE).max(images.fixed.resolution())
}

fn longest(images: &ImagePair<'_>) -> f64 {
    let grid = images.fixed.base().grid;
    (1..3).map(|a| grid.shape[a] as f64 * grid.spacing[a]).fold(0.0, f64::max)
}

/// The sums of the window around each cell.
fn windows(cells: &[PairSums], shape: [usize; 2], reach: usize) -> Vec<PairSums> {
    (0..cells.len())
        .map(|cell| {
            let mut sum = cells[cell];
            around(cell, shape, reach).for_each(|other| sum.merge(&cells[other]));
            sum
        })
        .collect()
}

/// The other cells of the window around a cell.
fn around(cell: usize, [ny, nx]: [usize; 2], reach: usize) -> impl Iterator<Item = usize> {
    let [y, x] = [cell / nx, cell % nx];
    let rows = y.saturating_sub(reach)..(y + reach + 1).min(ny);
    rows.flat_map(move |row| {
        let columns = x.saturating_sub(reach)..(x + reach + 1).min(nx);
        columns.map(move |column| row * nx + column)
    })
    .filter(move |other| *other != cell)
}

/// The value at a rank, as a fraction; 0 of none.
fn rank(values: &mut [f64], at: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((values.len() - 1) as f64 * at).round() as usize;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

/// The map of another piece: of the part of both sections that `maps` do not explain; `None` if
/// this part is small, or if no other map is believed there.
pub(super) fn next(images: &ImagePair<'_>, maps: &[Affine]) -> Option<Affine> {
    let [own, other] = [false, true].map(|is_moving| Cells::of(images, maps, is_moving, REACH[0]));
    let [marked, marked_other] = [own.unexplained(), other.unexplained()];
    let left: Vec<usize> = own.cells().filter(|cell| marked[*cell]).collect();
    let is_small = |cells: &Cells, marked: &[bool]| {
        let count = marked.iter().filter(|is_marked| **is_marked).count();
        (count as f64) < LEAST_PIECE * cells.content().len().max(1) as f64
    };
    if is_small(&own, &marked) || is_small(&other, &marked_other) {
        return None;
    }
    let [fixed, moving] =
        [own.masked(images.fixed, &marked), other.masked(images.moving, &marked_other)];
    let parts = ImagePair { fixed: &fixed, moving: &moving, ..*images };
    let found = find(&parts, maps.first()?, SearchExtent::AsAsked).ok()?.map;
    let longest = longest(images);
    let is_other = maps.iter().all(|map| {
        let mut away: Vec<f64> = left
            .iter()
            .map(|cell| {
                let p = in_space(own.centre(*cell));
                let (a, b) = (map.apply(p), found.apply(p));
                (a[1] - b[1]).hypot(a[2] - b[2])
            })
            .collect();
        rank(&mut away, 0.5) > LEAST_SHIFT * longest
    });
    is_other.then_some(found)
}

/// The maps that hold in a part of the section that is no smaller than a piece; the first is kept.
pub(super) fn without_unused(images: &ImagePair<'_>, maps: Vec<Affine>) -> Vec<Affine> {
    if maps.len() == 1 {
        return maps;
    }
    let cells = Cells::of(images, &maps, false, REACH[1]);
    let (content, limit) = (cells.content(), cells.limit());
    let mut counts = vec![0; maps.len()];
    for cell in &content {
        let (map, correlation) = cells.best(*cell);
        counts[map] += usize::from(correlation >= limit);
    }
    let least = LEAST_PIECE * content.len() as f64;
    let is_used = |i: usize| i == 0 || counts[i] as f64 >= least;
    maps.into_iter().enumerate().filter(|(i, _)| is_used(*i)).map(|(_, map)| map).collect()
}

/// The fraction of the cells with content, where some map leads into the other section, that a map
/// explains; the smaller one of both sections.
pub(super) fn explained(images: &ImagePair<'_>, maps: &[Affine]) -> f64 {
    let of = |is_moving| {
        let cells = Cells::of(images, maps, is_moving, REACH[0]);
        let limit = cells.limit();
        let best = cells.content().into_iter().map(|cell| cells.best(cell).1);
        let common: Vec<f64> = best.filter(|correlation| *correlation > OUTSIDE).collect();
        let found = common.iter().filter(|correlation| **correlation >= limit).count();
        found as f64 / common.len().max(1) as f64
    };
    of(false).min(of(true))
}

/// Where each map holds: in the fixed section, and in the moving one.
pub(super) fn labels(images: &ImagePair<'_>, maps: &[Affine]) -> [Labels; 2] {
    [false, true].map(|is_moving| Cells::of(images, maps, is_moving, REACH[1]).labels())
}
