//! Where exactly, between voxels, the context of a moving spot matches that of its fixed partner.
//!
//! Two spots sit on voxels of two grids, so a match is off by up to a voxel along each axis, and
//! that, not the noise of the images, limits what is fitted to it. Here the correlation is climbed
//! over whole-voxel shifts to its peak, and a parabola through the peak and its 18 neighbours
//! places it between voxels. Correlating two noisy images has no bias towards whole voxels, which
//! matching by gradients has.

use nalgebra::{Matrix3, Vector3};

use super::contexts::{Contexts, MARGIN};
use super::cpu::dot;
use crate::geom::Point;
use crate::volume::Voxel;

/// Whole-voxel shifts along each axis.
const SHIFTS: usize = 2 * MARGIN + 1;

/// Shifts along z, y, x, counted from the corner of the cube that can be reached.
type Shift = [usize; 3];

/// Finds sub-voxel shifts of contexts of one size; keeps its memory between matches.
pub(super) struct Peak {
    size: [usize; 3],
    /// Elements from one z, one y, to the next, in both arrays.
    strides: [usize; 2],
    /// The fixed context, spread out in the layout of `moving`, so that the correlation at a shift
    /// is one product of two contiguous arrays.
    fixed: Vec<f32>,
    /// The moving context and its surroundings.
    moving: Vec<f32>,
    scratch: Vec<f32>,
    /// Length of the moving context at each shift.
    lengths: Vec<f32>,
    /// Correlation at each shift, NaN where it was not needed yet.
    known: Vec<f32>,
}

impl Peak {
    pub(super) fn new(radius: [usize; 3]) -> Self {
        let size = radius.map(|r| 2 * r + 1);
        let cube = size.map(|n| n + 2 * MARGIN);
        let strides = [cube[1] * cube[2], cube[2]];
        Self {
            size,
            strides,
            fixed: vec![0.0; (size[0] - 1) * strides[0] + (size[1] - 1) * strides[1] + size[2]],
            moving: vec![0.0; cube.iter().product()],
            scratch: Vec::new(),
            lengths: vec![0.0; SHIFTS.pow(3)],
            known: vec![f32::NAN; SHIFTS.pow(3)],
        }
    }

    /// The shift in voxels of moving context `j` that matches fixed context `i` best, and the
    /// correlation there.
    pub(super) fn find<T: Voxel, U: Voxel>(
        &mut self,
        fixed: &Contexts<'_, T>,
        i: usize,
        moving: &Contexts<'_, U>,
        j: usize,
    ) -> (Point, f32) {
        fixed.unit(i, &mut self.scratch);
        let mut lines = self.scratch.chunks_exact(self.size[2]);
        for z in 0..self.size[0] {
            for y in 0..self.size[1] {
                let to = z * self.strides[0] + y * self.strides[1];
                if let Some(line) = lines.next() {
                    self.fixed[to..to + line.len()].copy_from_slice(line);
                }
            }
        }
        moving.surroundings(j, self.strides, &mut self.moving);
        self.measure_lengths();
        self.known.fill(f32::NAN);
        let [low, high] =
            moving.reach(j).iter().enumerate().fold([[0; 3]; 2], |mut ends, (a, r)| {
                (ends[0][a], ends[1][a]) = (MARGIN - r[0], MARGIN + r[1]);
                ends
            });
        let top = self.climb(low, high);
        let (part, correlation) = self.parabola(top, low, high);
        let shift = std::array::from_fn(|a| top[a] as f64 - MARGIN as f64 + part[a]);
        (shift, correlation)
    }

    /// From no shift uphill along the axes, to a shift that beats its six neighbours.
    fn climb(&mut self, low: Shift, high: Shift) -> Shift {
        let mut top = [MARGIN; 3];
        let mut value = self.correlation(top);
        // each step goes up, so no shift is met twice
        loop {
            let mut next = None;
            for a in 0..3 {
                for up in [false, true] {
                    if (up && top[a] == high[a]) || (!up && top[a] == low[a]) {
                        continue;
                    }
                    let mut at = top;
                    at[a] = if up { at[a] + 1 } else { at[a] - 1 };
                    let there = self.correlation(at);
                    if there > value {
                        (value, next) = (there, Some(at));
                    }
                }
            }
            match next {
                Some(at) => top = at,
                None => return top,
            }
        }
    }

    /// The peak of the parabola through `top` and its neighbours, from `top`, and its height.
    ///
    /// Along an axis where `top` has no neighbours on both sides nothing is added.
    fn parabola(&mut self, top: Shift, low: Shift, high: Shift) -> (Point, f32) {
        let free: [bool; 3] = std::array::from_fn(|a| low[a] < top[a] && top[a] < high[a]);
        let height = f64::from(self.correlation(top));
        let mut slope = Vector3::zeros();
        let mut bend = Matrix3::identity() * -1.0;
        for a in (0..3).filter(|&a| free[a]) {
            let [up, down] = [1, -1].map(|by| f64::from(self.correlation(moved(top, a, by))));
            slope[a] = (up - down) / 2.0;
            bend[(a, a)] = up + down - 2.0 * height;
            for b in (0..a).filter(|&b| free[b]) {
                let corner = |peak: &mut Self, i: isize, j: isize| {
                    f64::from(peak.correlation(moved(moved(top, a, i), b, j)))
                };
                let cross = corner(self, 1, 1) + corner(self, -1, -1)
                    - corner(self, 1, -1)
                    - corner(self, -1, 1);
                bend[(a, b)] = cross / 4.0;
                bend[(b, a)] = cross / 4.0;
            }
        }
        let inside = |part: &Vector3<f64>| part.iter().all(|v| v.abs() <= 1.0);
        let whole = (-bend).cholesky().map(|c| c.solve(&slope)).filter(inside);
        // a ridge has no peak of its own: then axis by axis, where `top` beats its neighbours
        let part = whole.unwrap_or_else(|| {
            Vector3::from_fn(|a, _| if bend[(a, a)] < 0.0 { -slope[a] / bend[(a, a)] } else { 0.0 })
        });
        let peak = height + 0.5 * slope.dot(&part);
        (part.into(), peak.clamp(height, 1.0_f64.max(height)) as f32)
    }

    /// The correlation at a shift.
    fn correlation(&mut self, at: Shift) -> f32 {
        let index = (at[0] * SHIFTS + at[1]) * SHIFTS + at[2];
        if self.known[index].is_nan() {
            let from = at[0] * self.strides[0] + at[1] * self.strides[1] + at[2];
            let length = self.lengths[index];
            let product = dot(&self.fixed, &self.moving[from..]);
            self.known[index] = if length > 0.0 { product / length } else { -1.0 };
        }
        self.known[index]
    }

    /// The length of the moving context about its own mean at every shift, from running sums.
    fn measure_lengths(&mut self) {
        let [nz, ny, nx] = self.size;
        let [plane, line] = self.strides;
        let mut sums = vec![[0.0f32; 2]; plane];
        let voxels = (nz * ny * nx) as f32;
        for z in 0..SHIFTS {
            // the sums over z of each column, then of one more y, one more x, each moved along
            let add = |sums: &mut [[f32; 2]], z: usize, sign: f32| {
                for (sum, &v) in sums.iter_mut().zip(&self.moving[z * plane..]) {
                    sum[0] += sign * v;
                    sum[1] += sign * v * v;
                }
            };
            if z == 0 {
                (0..nz).for_each(|z| add(&mut sums, z, 1.0));
            } else {
                add(&mut sums, z - 1, -1.0);
                add(&mut sums, z - 1 + nz, 1.0);
            }
            for y in 0..SHIFTS {
                let mut row = vec![[0.0f32; 2]; line];
                for sums in sums[y * line..(y + ny) * line].chunks_exact(line) {
                    for (r, s) in row.iter_mut().zip(sums) {
                        r[0] += s[0];
                        r[1] += s[1];
                    }
                }
                for x in 0..SHIFTS {
                    let [sum, square] =
                        row[x..x + nx].iter().fold([0.0; 2], |[a, b], r| [a + r[0], b + r[1]]);
                    let length = (square - sum * sum / voxels).max(0.0).sqrt();
                    self.lengths[(z * SHIFTS + y) * SHIFTS + x] = length;
                }
            }
        }
    }
}

fn moved(mut at: Shift, axis: usize, by: isize) -> Shift {
    at[axis] = at[axis].saturating_add_signed(by);
    at
}
