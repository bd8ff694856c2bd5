//! Background subtraction: structures wider than the largest blob, estimated by a morphological
//! opening on a coarse grid.
//!
//! The white top-hat subtracts from an image its opening (erosion, then dilation, by a box as wide
//! as the largest blob). The opening varies slowly, so it is computed on cell means (cells are
//! aligned to voxel 0 of the volume) and interpolated linearly between cell centres. This is cheap,
//! and noise biases the minimum of cell means less than the minimum of thousands of single voxels.
//! As smoothing is linear, the smoothed background is subtracted from the smoothed image.

use crate::filter::planes::{self, Area, Plane, Ring};
use crate::filter::{Extreme, Kernel, extreme_within, mirror};
use crate::geom::{Box3, Point};

/// The minimum number of cells per radius of the largest blob.
const CELLS_PER_RADIUS: f64 = 3.0;

/// The coarse grid of the background.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Coarse {
    /// Voxels per cell along each axis.
    pub(super) step: [usize; 3],
    /// The half width of the opening's box in cells: cells on each side of the central one.
    pub(super) half: [usize; 3],
}

impl Coarse {
    /// The grid for blobs of up to `radius` micrometres.
    pub(super) fn new(radius: f64, spacing: Point) -> Self {
        let voxels = spacing.map(|s| radius / s);
        let step = voxels.map(|r| ((r / CELLS_PER_RADIUS) as usize).max(1));
        let half = std::array::from_fn(|a| (voxels[a] / step[a] as f64).ceil().max(1.0) as usize);
        Self { step, half }
    }

    /// The half-open range of cells from which the voxels `first..=last` along axis `a` are
    /// interpolated.
    fn cells(&self, a: usize, [first, last]: [i64; 2], extent: usize) -> [i64; 2] {
        let place = |voxel: i64| {
            let (cell, _) = self.place(a, voxel, extent);
            cell as i64
        };
        let end = self.extent(a, extent) as i64;
        [place(first), (place(last) + 2).min(end)]
    }

    /// The number of cells along axis `a` of a volume that has `voxels` voxels along it.
    fn extent(&self, a: usize, voxels: usize) -> usize {
        voxels.div_ceil(self.step[a])
    }

    /// The last cell whose centre lies at or before `voxel` along axis `a`, and the distance of
    /// `voxel` from this centre, in cells.
    fn place(&self, a: usize, voxel: i64, extent: usize) -> (usize, f64) {
        let step = self.step[a] as f64;
        let last = (self.extent(a, extent) - 1) as f64;
        let at = ((voxel as f64 - 0.5 * (step - 1.0)) / step).clamp(0.0, last);
        (at.floor() as usize, at.fract())
    }

    /// The half-open range of voxels on which the background at the voxels `range[0]..=range[1]`
    /// depends, along axis `a`. It consists of whole cells, clipped to the volume.
    pub(super) fn reach(&self, a: usize, range: [i64; 2], extent: usize) -> [i64; 2] {
        let [first, end] = self.cells(a, range, extent);
        let (step, more) = (self.step[a] as i64, 2 * self.half[a] as i64);
        [((first - more) * step).max(0), ((end + more) * step).min(extent as i64)]
    }
}

/// The weights of consecutive cells along one axis, beginning with cell `first`, that give the
/// smoothed background at one grid voxel.
struct Taps {
    first: i64,
    weights: Vec<f32>,
}

/// The grid voxels along an axis at which the background is needed.
pub(super) struct Axis<'a> {
    /// Voxels of the volume per voxel of the grid.
    pub(super) step: usize,
    /// The half-open range of grid voxels.
    pub(super) range: [i64; 2],
    /// The kernel that smooths the image, in voxels of the volume.
    pub(super) kernel: &'a Kernel,
    /// The number of voxels of the volume along the axis.
    pub(super) extent: usize,
}

impl Axis<'_> {
    /// The first and the last voxel of the volume in the support of the smoothing.
    pub(super) fn smoothed(&self) -> [i64; 2] {
        let (step, radius) = (self.step as i64, self.kernel.radius() as i64);
        let last = self.extent as i64 - 1;
        let [first, end] = self.range;
        [(first * step - radius).max(0), ((end - 1) * step + radius).min(last)]
    }

    /// Combines interpolation, smoothing and decimation into one set of weights per grid voxel.
    fn taps(&self, coarse: &Coarse, a: usize) -> Vec<Taps> {
        let radius = self.kernel.radius() as i64;
        let end = coarse.extent(a, self.extent);
        let one = |i: i64| {
            let centre = i * self.step as i64;
            let mut sums: Vec<(usize, f64)> = Vec::new();
            let mut add = |cell: usize, weight: f64| match sums
                .iter_mut()
                .find(|(known, _)| *known == cell)
            {
                Some((_, sum)) => *sum += weight,
                None => sums.push((cell, weight)),
            };
            for k in -radius..=radius {
                let weight = f64::from(self.kernel.weights()[k.unsigned_abs() as usize]);
                let voxel = mirror(centre + k, self.extent) as i64;
                let (cell, way) = coarse.place(a, voxel, self.extent);
                add(cell, weight * (1.0 - way));
                add((cell + 1).min(end - 1), weight * way);
            }
            sums.sort_by_key(|&(cell, _)| cell);
            let first = sums.first().map_or(0, |&(cell, _)| cell);
            let last = sums.last().map_or(0, |&(cell, _)| cell);
            let mut weights = vec![0.0; last - first + 1];
            sums.iter().for_each(|&(cell, sum)| weights[cell - first] = sum as f32);
            Taps { first: first as i64, weights }
        };
        (self.range[0]..self.range[1]).map(one).collect()
    }
}

/// The background of a volume that is streamed plane by plane.
pub(super) struct Background {
    coarse: Coarse,
    extent: [usize; 3],
    /// The area of the octave's grid where the background is needed.
    wanted: Area,
    first: i64,
    taps: [Vec<Taps>; 3],
    /// The voxels that are averaged into cells.
    fine: Box3,
    /// Sums along z and y for the current, incomplete plane of cells.
    sums: Plane,
    /// The number of planes added to `sums`.
    added: usize,
    /// Planes of cells: `eroded` holds the cell means after erosion along y and x; `dilated` holds
    /// the cell means after erosion along all axes and dilation along y and x; `opened` holds the
    /// finished opening.
    eroded: Ring,
    dilated: Ring,
    opened: Ring,
    /// One past the last opened plane that is needed.
    end: i64,
    /// For one plane of the octave's grid: `across` holds the opened planes interpolated and
    /// smoothed along z, and `along` holds `across` interpolated and smoothed along x.
    across: Plane,
    along: Plane,
}

impl Background {
    /// The background at the grid voxels given by `axes`.
    pub(super) fn new(coarse: Coarse, axes: &[Axis<'_>; 3]) -> Self {
        let extent = axes.each_ref().map(|axis| axis.extent);
        let fine: [[i64; 2]; 3] =
            std::array::from_fn(|a| coarse.reach(a, axes[a].smoothed(), extent[a]));
        let fine = Box3::new(fine.map(|r| r[0]), fine.map(|r| r[1]));
        let cell = |a: usize, v: i64| v.div_euclid(coarse.step[a] as i64);
        let end =
            |a: usize, v: i64| (v + coarse.step[a] as i64 - 1).div_euclid(coarse.step[a] as i64);
        let area = Area {
            min: [1, 2].map(|a| cell(a, fine.min[a])),
            max: [1, 2].map(|a| end(a, fine.max[a])),
        };
        let wanted =
            Area { min: [1, 2].map(|a| axes[a].range[0]), max: [1, 2].map(|a| axes[a].range[1]) };
        let [first, last] = coarse.cells(0, axes[0].smoothed(), extent[0]);
        let half = coarse.half[0] as i64;
        let along = Area { min: [area.min[0], wanted.min[1]], max: [area.max[0], wanted.max[1]] };
        Self {
            coarse,
            extent,
            wanted,
            first: axes[0].range[0],
            taps: std::array::from_fn(|a| axes[a].taps(&coarse, a)),
            fine,
            sums: Plane::new(Area {
                min: [area.min[0], fine.min[2]],
                max: [area.max[0], fine.max[2]],
            }),
            added: 0,
            eroded: Ring::new(area, cell(0, fine.min[0])),
            dilated: Ring::new(area, (first - half).max(0)),
            opened: Ring::new(area, first),
            end: last,
            across: Plane::new(area),
            along: Plane::new(along),
        }
    }

    /// Whether the background at plane `z` of the octave's grid can be computed yet.
    pub(super) fn is_ready(&self, z: i64) -> bool {
        let taps = &self.taps[0][(z - self.first) as usize];
        taps.first + taps.weights.len() as i64 <= self.opened.next()
    }

    /// Takes plane `z` of the volume. Planes must come in ascending order.
    pub(super) fn push(&mut self, z: i64, plane: &Plane) {
        if !(self.fine.min[0]..self.fine.max[0]).contains(&z) {
            return;
        }
        self.add(plane);
        let step = self.coarse.step[0] as i64;
        if (z + 1) % step == 0 || z + 1 == self.extent[0] as i64 {
            self.finish_cell();
            self.open();
        }
    }

    /// Adds a plane to the sums of its cells along z and y.
    fn add(&mut self, plane: &Plane) {
        if self.added == 0 {
            self.sums.clear();
        }
        self.added += 1;
        if plane.is_zero() {
            return;
        }
        let step = self.coarse.step[1] as i64;
        let offset = (self.fine.min[2] - plane.area().min[1]) as usize;
        let width = self.fine.shape()[2];
        for y in self.fine.min[1]..self.fine.max[1] {
            let row = &plane.row(y)[offset..offset + width];
            let sums = self.sums.row_mut(y / step);
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
        }
    }

    /// Turns the sums of a plane of cells into means and erodes them along y and x.
    fn finish_cell(&mut self) {
        let mut plane = self.eroded.blank();
        let added = std::mem::take(&mut self.added);
        if self.sums.is_zero() {
            plane.clear();
            return self.eroded.push(plane);
        }
        let tall = |cell: i64| {
            let step = self.coarse.step[1] as i64;
            step.min(self.extent[1] as i64 - cell * step) as usize
        };
        let (area, width) = (plane.area(), self.fine.shape()[2]);
        for y in area.min[0]..area.max[0] {
            let cells = self.sums.row(y)[..width].chunks(self.coarse.step[2]);
            for (mean, cell) in plane.row_mut(y).iter_mut().zip(cells) {
                *mean = cell.iter().sum::<f32>() / (added * tall(y) * cell.len()) as f32;
            }
        }
        self.extreme_in_plane(&mut plane, Extreme::Min);
        self.eroded.push(plane);
    }

    /// Completes erosion and dilation across z for all planes of cells whose neighbours are known.
    fn open(&mut self) {
        let half = self.coarse.half[0] as i64;
        let last = self.coarse.extent(0, self.extent[0]) as i64 - 1;
        while (self.dilated.next() + half).min(last) < self.eroded.next()
            && self.dilated.next() <= last
        {
            let z = self.dilated.next();
            let mut plane = self.dilated.blank();
            across(&self.eroded, [z - half, z + half], last, Extreme::Min, &mut plane);
            self.extreme_in_plane(&mut plane, Extreme::Max);
            self.dilated.push(plane);
            self.eroded.forget_before(z + 1 - half);
        }
        while self.opened.next() < self.end
            && (self.opened.next() + half).min(last) < self.dilated.next()
        {
            let z = self.opened.next();
            let mut plane = self.opened.blank();
            across(&self.dilated, [z - half, z + half], last, Extreme::Max, &mut plane);
            self.opened.push(plane);
            self.dilated.forget_before(z + 1 - half);
        }
    }

    /// Replaces each cell by the extreme of its neighbourhood along y and x.
    fn extreme_in_plane(&self, plane: &mut Plane, which: Extreme) {
        if plane.is_zero() {
            return;
        }
        let area = plane.area();
        let (height, width) = (area.height(), area.width());
        let mut image = Vec::with_capacity(height * width);
        (area.min[0]..area.max[0]).for_each(|y| image.extend_from_slice(&plane.row(y)[..width]));
        let [_, y, x] = self.coarse.half;
        extreme_within(&mut image, [height, width], [y, x], which);
        for (y, row) in (area.min[0]..area.max[0]).zip(image.chunks_exact(width.max(1))) {
            plane.row_mut(y)[..width].copy_from_slice(row);
        }
    }

    /// Subtracts the smoothed background from plane `z` of the smoothed image on the octave's grid.
    pub(super) fn subtract(&mut self, z: i64, image: &mut Plane) {
        let taps = &self.taps[0][(z - self.first) as usize];
        let planes: Vec<&Plane> =
            (taps.first..).take(taps.weights.len()).map(|z| self.opened.at(z)).collect();
        if planes.iter().all(|plane| plane.is_zero()) {
            return;
        }
        self.across.clear();
        planes::add_across(&planes, &taps.weights, &mut self.across);
        let area = self.across.area();
        let along_x = &self.taps[2];
        for y in area.min[0]..area.max[0] {
            let cells = self.across.row(y);
            for (value, taps) in self.along.row_mut(y).iter_mut().zip(along_x) {
                let near = &cells[(taps.first - area.min[1]) as usize..];
                *value = taps.weights.iter().zip(near).map(|(weight, cell)| weight * cell).sum();
            }
        }
        for (y, taps) in (self.wanted.min[0]..).zip(&self.taps[1]) {
            let minus: Vec<f32> = taps.weights.iter().map(|weight| -weight).collect();
            planes::add_along(&self.along, taps.first, &minus, image.row_mut(y));
        }
        let next = self.taps[0].get((z + 1 - self.first) as usize);
        self.opened.forget_before(next.map_or(taps.first, |next| next.first));
    }
}

/// The extreme across the planes `from..=to` of a ring, clipped to `0..=last`.
fn across(ring: &Ring, [from, to]: [i64; 2], last: i64, which: Extreme, out: &mut Plane) {
    let planes: Vec<&Plane> = (from.max(0)..=to.min(last)).map(|z| ring.at(z)).collect();
    if planes.iter().all(|plane| plane.is_zero()) {
        return out.clear();
    }
    let area = out.area();
    for y in area.min[0]..area.max[0] {
        let row = out.row_mut(y);
        row.copy_from_slice(planes[0].row(y));
        for plane in &planes[1..] {
            row.iter_mut().zip(plane.row(y)).for_each(|(a, &b)| *a = which.of(*a, b));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::features::testing::TestRandom;
    use crate::filter::{opening, smooth};

    fn noise(shape: [usize; 3], seed: u64) -> Vec<f32> {
        let mut dice = TestRandom::new(seed);
        (0..shape.iter().product()).map(|_| 100.0 * dice.roll() as f32).collect()
    }

    /// The background at every voxel, computed directly: cell means, opened, interpolated.
    fn slow(image: &[f32], shape: [usize; 3], coarse: &Coarse) -> Vec<f32> {
        let cells: [usize; 3] = std::array::from_fn(|a| coarse.extent(a, shape[a]));
        let step = coarse.step;
        let mut means = Vec::new();
        for cell in Box3::of_shape(cells).tiles([1; 3]) {
            let min = std::array::from_fn(|a| cell.min[a] * step[a] as i64);
            let max = std::array::from_fn(|a| min[a] + step[a] as i64);
            let part = Box3::new(min, max).intersect(&Box3::of_shape(shape));
            let voxels = crate::features::testing::crop(image, shape, &part);
            means.push(voxels.iter().sum::<f32>() / voxels.len() as f32);
        }
        let opened = opening(means, cells, coarse.half.map(|n| 2 * n + 1));
        let at = |voxel: Box3| {
            let places: [(usize, f64); 3] =
                std::array::from_fn(|a| coarse.place(a, voxel.min[a], shape[a]));
            let mut sum = 0.0;
            for corner in 0..8 {
                let beyond: [usize; 3] = std::array::from_fn(|a| corner >> a & 1);
                let weight: f64 = (0..3)
                    .map(|a| if beyond[a] == 1 { places[a].1 } else { 1.0 - places[a].1 })
                    .product();
                let [z, y, x]: [usize; 3] =
                    std::array::from_fn(|a| (places[a].0 + beyond[a]).min(cells[a] - 1));
                sum += weight * f64::from(opened[(z * cells[1] + y) * cells[2] + x]);
            }
            sum as f32
        };
        Box3::of_shape(shape).tiles([1; 3]).map(at).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_background_of_planes_that_pass_by_is_the_smoothed_opening_of_means(
            shape in [1_usize..30, 1_usize..30, 1_usize..40],
            cell in [1_usize..5, 1_usize..5, 1_usize..5],
            half in [1_usize..4, 1_usize..4, 1_usize..4],
            step in [1_usize..4, 1_usize..4, 1_usize..4],
            variance in [0.0..4.0, 0.0..4.0, 0.0..4.0],
            low in [0.0..1.0, 0.0..1.0, 0.0..1.0],
            high in [0.0..1.0, 0.0..1.0, 0.0..1.0],
            seed in 0_u64..1000,
        ) {
            let coarse = Coarse { step: cell, half };
            let kernels = variance.map(Kernel::discrete);
            let image = noise(shape, seed);
            let (wanted, grid) = smooth(&slow(&image, shape, &coarse), shape, &kernels, step);
            let range: [[i64; 2]; 3] = std::array::from_fn(|a| {
                let first = (low[a] * grid[a] as f64) as i64;
                let more = (high[a] * (grid[a] as i64 - first - 1) as f64) as i64;
                [first, first + 1 + more]
            });
            let axes: [Axis<'_>; 3] = std::array::from_fn(|a| Axis {
                step: step[a], range: range[a], kernel: &kernels[a], extent: shape[a],
            });
            let mut background = Background::new(coarse, &axes);
            let reach: [[i64; 2]; 3] =
                std::array::from_fn(|a| coarse.reach(a, axes[a].smoothed(), shape[a]));
            let mut z = range[0][0];
            let mut plane = Plane::new(Area {
                min: [reach[1][0], reach[2][0]], max: [reach[1][1], reach[2][1]],
            });
            for fine in reach[0][0]..reach[0][1] {
                for y in reach[1][0]..reach[1][1] {
                    let start = (fine as usize * shape[1] + y as usize) * shape[2];
                    let row = &image[start + reach[2][0] as usize..start + reach[2][1] as usize];
                    plane.row_mut(y)[..row.len()].copy_from_slice(row);
                }
                background.push(fine, &plane);
                while z < range[0][1] && background.is_ready(z) {
                    let mut out = Plane::new(background.wanted);
                    background.subtract(z, &mut out);
                    for y in range[1][0]..range[1][1] {
                        for x in range[2][0]..range[2][1] {
                            let found = -out.row(y)[(x - range[2][0]) as usize];
                            let at = (z as usize * grid[1] + y as usize) * grid[2] + x as usize;
                            prop_assert!((found - wanted[at]).abs() < 1e-3, "{} {}", found, wanted[at]);
                        }
                    }
                    z += 1;
                }
            }
            prop_assert_eq!(z, range[0][1]);
        }
    }
}
