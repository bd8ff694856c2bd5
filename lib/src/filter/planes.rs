//! Filters on a volume that is streamed plane by plane, so that only the planes within the reach of
//! a kernel are in memory.
//!
//! A [`Plane`] is a rectangle of one plane of a grid; a [`Ring`] holds the most recent planes of a
//! stream. As in the rest of `filter`, the grid is mirrored about its voxel edges, and every voxel
//! is computed by the same operations in the same order, whatever the rectangle.

use std::collections::VecDeque;

use super::Kernel;
use super::convolve::fold;
use super::lines::{LANES, Scratch, mirror, multiply_add, row, rows, vectorised};

/// A half-open rectangle of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First voxel, `[y, x]`.
    pub min: [i64; 2],
    /// One past the last voxel, `[y, x]`.
    pub max: [i64; 2],
}

impl Area {
    /// Voxels along y.
    pub fn height(&self) -> usize {
        (self.max[0] - self.min[0]).max(0) as usize
    }

    /// Voxels along x.
    pub fn width(&self) -> usize {
        (self.max[1] - self.min[1]).max(0) as usize
    }

    /// The area grown by `by` voxels on each side and clipped to a plane of `extent` voxels,
    /// `[y, x]`.
    #[must_use]
    pub fn grow(&self, by: [usize; 2], extent: [usize; 2]) -> Self {
        Self {
            min: std::array::from_fn(|a| (self.min[a] - by[a] as i64).max(0)),
            max: std::array::from_fn(|a| (self.max[a] + by[a] as i64).min(extent[a] as i64)),
        }
    }
}

/// The voxels of a rectangle of one plane.
pub struct Plane {
    area: Area,
    /// Number of entries from one row to the next; rows are padded to whole vectors.
    stride: usize,
    voxels: Scratch,
    zero: bool,
}

impl Plane {
    /// A plane of zeros.
    pub fn new(area: Area) -> Self {
        let stride = area.width().next_multiple_of(LANES);
        let mut voxels = Scratch::default();
        voxels.resize(stride * area.height());
        voxels.fill(0.0);
        Self { area, stride, voxels, zero: true }
    }

    /// The rectangle that the plane covers.
    pub fn area(&self) -> Area {
        self.area
    }

    /// Whether all voxels of the plane are known to be 0. Filters skip such planes.
    pub fn is_zero(&self) -> bool {
        self.zero
    }

    /// Sets all voxels to 0.
    pub fn clear(&mut self) {
        if !self.zero {
            self.voxels.fill(0.0);
            self.zero = true;
        }
    }

    /// The row at `y` of the grid, from the first voxel of the area on; padding of unspecified
    /// values follows its last voxel.
    pub fn row(&self, y: i64) -> &[f32] {
        let start = (y - self.area.min[0]) as usize * self.stride;
        &self.voxels[start..start + self.stride]
    }

    /// Like [`Plane::row`], for writing. The plane then no longer counts as zero.
    pub fn row_mut(&mut self, y: i64) -> &mut [f32] {
        self.zero = false;
        let start = (y - self.area.min[0]) as usize * self.stride;
        &mut self.voxels[start..start + self.stride]
    }
}

/// The planes of a stream that are still needed, in ascending order of z.
pub struct Ring {
    area: Area,
    first: i64,
    planes: VecDeque<Plane>,
    /// Released planes to be reused, because fresh memory costs page faults.
    spare: Vec<Plane>,
}

impl Ring {
    /// An empty ring for planes of `area`, the first of which is at z = `first`.
    pub fn new(area: Area, first: i64) -> Self {
        Self { area, first, planes: VecDeque::new(), spare: Vec::new() }
    }

    /// The rectangle that each plane covers.
    pub fn area(&self) -> Area {
        self.area
    }

    /// The z index of the plane that is to be added next.
    pub fn next(&self) -> i64 {
        self.first + self.planes.len() as i64
    }

    /// A plane to be filled; its contents are unspecified.
    pub fn blank(&mut self) -> Plane {
        self.spare.pop().unwrap_or_else(|| Plane::new(self.area))
    }

    /// Adds the next plane.
    pub fn push(&mut self, plane: Plane) {
        self.planes.push_back(plane);
    }

    /// Releases the planes before `z`.
    pub fn forget_before(&mut self, z: i64) {
        while self.first < z
            && let Some(plane) = self.planes.pop_front()
        {
            self.spare.push(plane);
            self.first += 1;
        }
    }

    /// The plane at `z`.
    ///
    /// # Panics
    /// If the plane has not been added yet or has been released.
    pub fn at(&self, z: i64) -> &Plane {
        &self.planes[(z - self.first) as usize]
    }

    /// The planes within `radius` of `z`, mirrored at the faces of a grid of `extent` planes.
    pub fn around(&self, z: i64, radius: usize, extent: usize) -> Vec<&Plane> {
        let radius = radius as i64;
        (z - radius..=z + radius).map(|k| self.at(mirror(k, extent) as i64)).collect()
    }
}

vectorised! {
    /// Convolves parallel rows with a symmetric kernel; the middle row is row `n`:
    /// `out = w[0] r[n] + sum over k > 0 of w[k] (r[n-k] + r[n+k])`.
    fn fold_rows(lines: &[&[f32]], weights: &[f32], out: &mut [f32]) => fold_rows_body
}

/// Processes two taps at a time, so that sums are stored half as often.
#[inline(always)]
fn fold_rows_body<const FUSED: bool>(lines: &[&[f32]], weights: &[f32], out: &mut [f32]) {
    let radius = weights.len() - 1;
    for (j, sums) in rows(out).enumerate() {
        let at = j * LANES;
        let middle = row(lines[radius], at);
        for i in 0..LANES {
            sums[i] = weights[0] * middle[i];
        }
        for k in (1..=radius).step_by(2) {
            let next = radius.min(k + 1);
            let near = weights[k];
            let far = if next > k { weights[next] } else { 0.0 };
            let (a, b) = (row(lines[radius - k], at), row(lines[radius + k], at));
            let (c, d) = (row(lines[radius - next], at), row(lines[radius + next], at));
            for i in 0..LANES {
                let sum = multiply_add::<FUSED>(near, a[i] + b[i], sums[i]);
                sums[i] = multiply_add::<FUSED>(far, c[i] + d[i], sum);
            }
        }
    }
}

vectorised! {
    /// `out += sum over j of weights[j] lines[j]`
    fn add_rows(lines: &[&[f32]], weights: &[f32], out: &mut [f32]) => add_rows_body
}

#[inline(always)]
fn add_rows_body<const FUSED: bool>(lines: &[&[f32]], weights: &[f32], out: &mut [f32]) {
    for (j, sums) in rows(out).enumerate() {
        for (&weight, line) in weights.iter().zip(lines) {
            let line = row(line, j * LANES);
            for i in 0..LANES {
                sums[i] = multiply_add::<FUSED>(weight, line[i], sums[i]);
            }
        }
    }
}

/// Convolves along z. `planes` are those within the kernel's radius, all of the same area.
///
/// `out` may have fewer rows than `planes`; along x it must cover the same voxels.
pub fn smooth_across(planes: &[&Plane], kernel: &Kernel, out: &mut Plane) {
    if planes.iter().all(|plane| plane.zero) {
        return out.clear();
    }
    let mut lines = Vec::with_capacity(planes.len());
    for y in out.area.min[0]..out.area.max[0] {
        lines.clear();
        lines.extend(planes.iter().map(|plane| plane.row(y)));
        fold_rows(&lines, kernel.weights(), out.row_mut(y));
    }
}

/// Adds planes, each multiplied by its weight, to `out`, which covers the same area.
pub fn add_across(planes: &[&Plane], weights: &[f32], out: &mut Plane) {
    for y in out.area.min[0]..out.area.max[0] {
        let lines: Vec<&[f32]> = planes.iter().map(|plane| plane.row(y)).collect();
        add_rows(&lines, weights, out.row_mut(y));
    }
}

/// Adds the `weights.len()` rows of a plane from `first` on, each multiplied by its weight, to a
/// row that covers the same voxels along x.
pub fn add_along(plane: &Plane, first: i64, weights: &[f32], out: &mut [f32]) {
    let lines: Vec<&[f32]> = (first..).take(weights.len()).map(|y| plane.row(y)).collect();
    add_rows(&lines, weights, out);
}

/// Convolution within planes, with its buffers.
#[derive(Default)]
pub struct PlaneFilter {
    column: Scratch,
    line: Scratch,
    filtered: Scratch,
}

impl PlaneFilter {
    /// Convolves along y and x and keeps every `step`-th voxel, counted from voxel 0 of the grid.
    ///
    /// * `image`: must cover the voxels that `out` depends on: those at `step` times the indices of
    ///   `out`, and the kernels' radii around them, clipped to the plane
    /// * `extent`: shape of the whole plane of which `image` is a part, `[y, x]`
    pub fn smooth(
        &mut self,
        image: &Plane,
        extent: [usize; 2],
        kernels: [&Kernel; 2],
        step: [usize; 2],
        out: &mut Plane,
    ) {
        if image.zero {
            return out.clear();
        }
        let [radius_y, radius_x] = kernels.map(|kernel| kernel.radius() as i64);
        let area = out.area;
        let first = area.min[1] * step[1] as i64;
        let last = (area.max[1] - 1) * step[1] as i64 + 1;
        self.column.resize(image.stride);
        self.filtered.resize(((last - first) as usize).next_multiple_of(LANES));
        let mut lines = Vec::with_capacity(2 * radius_y as usize + 1);
        for y in area.min[0]..area.max[0] {
            let centre = y * step[0] as i64;
            let near = centre - radius_y..=centre + radius_y;
            lines.clear();
            lines.extend(near.map(|y| image.row(mirror(y, extent[0]) as i64)));
            fold_rows(&lines, kernels[0].weights(), &mut self.column);
            let [from, to] = [first - radius_x, last + radius_x];
            extend(&self.column, image.area, extent[1], [from, to], &mut self.line);
            fold(&self.line, kernels[1].weights(), 1, LANES, &mut self.filtered);
            let kept = self.filtered.iter().step_by(step[1]);
            out.row_mut(y).iter_mut().zip(kept).for_each(|(out, &v)| *out = v);
        }
    }
}

/// Copies a row of `area` to a line over `from..to`, mirrored beyond the grid, and appends zeros,
/// so that a vector can be read from any position.
fn extend(row: &[f32], area: Area, extent: usize, [from, to]: [i64; 2], out: &mut Scratch) {
    let len = (to - from) as usize;
    out.resize(len.next_multiple_of(LANES) + LANES);
    let [start, end] = [from.max(0), to.min(extent as i64)];
    let offset = (start - area.min[1]) as usize;
    out[(start - from) as usize..(end - from) as usize]
        .copy_from_slice(&row[offset..offset + (end - start) as usize]);
    for x in (from..start).chain(end..to) {
        out[(x - from) as usize] = row[(mirror(x, extent) as i64 - area.min[1]) as usize];
    }
    out[len..].fill(0.0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::oracle;

    /// A plane of an image, cut to `area`.
    fn plane(image: &[f32], shape: [usize; 3], z: usize, area: Area) -> Plane {
        let mut plane = Plane::new(area);
        for y in area.min[0]..area.max[0] {
            let start = (z * shape[1] + y as usize) * shape[2];
            let row = &image[start + area.min[1] as usize..start + area.max[1] as usize];
            plane.row_mut(y)[..row.len()].copy_from_slice(row);
        }
        plane
    }

    proptest! {
        #[test]
        fn planes_that_pass_by_are_smoothed_as_the_whole_is(
            shape in [1_usize..9, 1_usize..14, 1_usize..90],
            step in [1_usize..4, 1_usize..4],
            variance in [0.0..3.0, 0.0..9.0, 0.0..30.0],
            low in [0.0..1.0, 0.0..1.0],
            high in [0.0..1.0, 0.0..1.0],
            seed in any::<u32>(),
        ) {
            let image = oracle::noise(shape, seed);
            let kernels = variance.map(Kernel::discrete);
            let slow = oracle::convolve(&image, shape, &kernels);
            let extent = [shape[1], shape[2]];
            let grid: [usize; 2] = std::array::from_fn(|a| extent[a].div_ceil(step[a]));
            let min: [i64; 2] = std::array::from_fn(|a| (low[a] * grid[a] as f64) as i64);
            let max = std::array::from_fn(|a| {
                min[a] + 1 + (high[a] * (grid[a] as i64 - min[a] - 1) as f64) as i64
            });
            let area = Area { min, max };
            let fine = Area {
                min: std::array::from_fn(|a| min[a] * step[a] as i64),
                max: std::array::from_fn(|a| (max[a] - 1) * step[a] as i64 + 1),
            };
            let needed = fine.grow([kernels[1].radius(), kernels[2].radius()], extent);
            let mut ring = Ring::new(area, 0);
            let mut within = PlaneFilter::default();
            for z in 0..shape[0] {
                let mut out = ring.blank();
                let image = plane(&image, shape, z, needed);
                within.smooth(&image, extent, [&kernels[1], &kernels[2]], step, &mut out);
                ring.push(out);
            }
            for z in 0..shape[0] {
                let mut out = Plane::new(area);
                let planes = ring.around(z as i64, kernels[0].radius(), shape[0]);
                smooth_across(&planes, &kernels[0], &mut out);
                for y in area.min[0]..area.max[0] {
                    for x in area.min[1]..area.max[1] {
                        let found = f64::from(out.row(y)[(x - area.min[1]) as usize]);
                        let [y, x] = [y as usize * step[0], x as usize * step[1]];
                        let wanted = slow[(z * shape[1] + y) * shape[2] + x];
                        prop_assert!((found - wanted).abs() < 1e-5, "{} {}", found, wanted);
                    }
                }
            }
        }
    }

    #[test]
    fn planes_of_nothing_stay_nothing() {
        let area = Area { min: [0, 0], max: [5, 7] };
        let mut out = Plane::new(area);
        out.row_mut(2)[3] = 1.0;
        let kernel = Kernel::discrete(1.0);
        let zeros = Plane::new(area);
        PlaneFilter::default().smooth(&zeros, [5, 7], [&kernel, &kernel], [1, 1], &mut out);
        assert!(out.is_zero() && out.row(2)[3] == 0.0);
    }
}
