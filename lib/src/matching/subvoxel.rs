//! The sub-voxel position at which the context of a moving spot best matches that of its fixed
//! partner.
//!
//! The contexts of two spots are centred on voxels of two different grids, so that a match is off
//! by up to a voxel along each axis. This error, not image noise, limits the accuracy of a fit. The
//! correlation is maximised over whole-voxel shifts by steepest ascent, and a parabola through the
//! maximum and its 18 neighbours gives the sub-voxel position. Unlike gradient-based matching, the
//! correlation of two noisy images has no bias towards whole voxels.

use super::contexts::{Contexts, MARGIN};
use super::cpu::dot;
use crate::filter::parabola;
use crate::geom::Point;
use crate::volume::Voxel;

/// The number of whole-voxel shifts along each axis.
const SHIFTS: usize = 2 * MARGIN + 1;

/// A shift along z, y, x, counted from the lowest shift, `-MARGIN`.
type Shift = [usize; 3];

/// The half width of the inner box of a context that is correlated here. The inner voxels locate
/// the match equally well (measured on the tutorial pair by how many matches agree with one map) at
/// a quarter of the cost, and are less affected by rotation and deformation of the tissue.
fn inner(radius: [usize; 3]) -> [usize; 3] {
    radius.map(|r| (2 * r).div_ceil(3))
}

/// Finds sub-voxel shifts of contexts of one size; reuses its memory between matches.
pub(super) struct Peak {
    inner: [usize; 3],
    size: [usize; 3],
    /// The strides along z and y of `fixed` and `moving`, in elements.
    strides: [usize; 2],
    /// The fixed context in the memory layout of `moving`, so that the correlation at a shift is
    /// one dot product of two contiguous arrays.
    fixed: Vec<f32>,
    /// The moving context and its surroundings.
    moving: Vec<f32>,
    scratch: Vec<f32>,
    /// The norm of the moving context at each shift.
    lengths: Vec<f32>,
    /// The correlation at each shift, times the norm of the fixed context; NaN if not computed yet.
    known: Vec<f32>,
}

impl Peak {
    pub(super) fn new(radius: [usize; 3]) -> Self {
        let inner = inner(radius);
        let size = inner.map(|r| 2 * r + 1);
        let cube = size.map(|n| n + 2 * MARGIN);
        let strides = [cube[1] * cube[2], cube[2]];
        Self {
            inner,
            size,
            strides,
            fixed: vec![0.0; (size[0] - 1) * strides[0] + (size[1] - 1) * strides[1] + size[2]],
            moving: vec![0.0; cube.iter().product()],
            scratch: Vec::new(),
            lengths: vec![0.0; SHIFTS.pow(3)],
            known: vec![f32::NAN; SHIFTS.pow(3)],
        }
    }

    /// The shift, in voxels along z, y, x, at which moving context `j` matches fixed context `i`
    /// best.
    pub(super) fn find<T: Voxel, U: Voxel>(
        &mut self,
        fixed: &Contexts<'_, T>,
        i: usize,
        moving: &Contexts<'_, U>,
        j: usize,
    ) -> Point {
        fixed.middle(i, self.inner, &mut self.scratch);
        let mut lines = self.scratch.chunks_exact(self.size[2]);
        for z in 0..self.size[0] {
            for y in 0..self.size[1] {
                let to = z * self.strides[0] + y * self.strides[1];
                if let Some(line) = lines.next() {
                    self.fixed[to..to + line.len()].copy_from_slice(line);
                }
            }
        }
        moving.surroundings(j, self.inner, self.strides, &mut self.moving);
        self.measure_lengths();
        self.known.fill(f32::NAN);
        let [low, high] =
            moving.reach(j).iter().enumerate().fold([[0; 3]; 2], |mut ends, (a, r)| {
                (ends[0][a], ends[1][a]) = (MARGIN - r[0], MARGIN + r[1]);
                ends
            });
        let top = self.ascend(low, high);
        let part = self.parabola(top, low, high);
        std::array::from_fn(|a| top[a] as f64 - MARGIN as f64 + part[a])
    }

    /// Steepest ascent: from zero shift, moves to the best of the six neighbours until the shift
    /// is a local maximum.
    fn ascend(&mut self, low: Shift, high: Shift) -> Shift {
        let mut top = [MARGIN; 3];
        let mut value = self.correlation(top);
        // each step increases the correlation, so no shift is visited twice
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

    /// The offset from `top` of the maximum of a parabola through `top` and its neighbours.
    ///
    /// The offset is 0 along an axis where `top` does not have neighbours on both sides.
    fn parabola(&mut self, top: Shift, low: Shift, high: Shift) -> Point {
        let free = std::array::from_fn(|a| low[a] < top[a] && top[a] < high[a]);
        let value = |by: [isize; 3]| {
            f64::from(
                self.correlation(std::array::from_fn(|a| top[a].saturating_add_signed(by[a]))),
            )
        };
        parabola::vertex(value, free)
    }

    /// The correlation at a shift, times the norm of the fixed context.
    fn correlation(&mut self, at: Shift) -> f32 {
        let index = (at[0] * SHIFTS + at[1]) * SHIFTS + at[2];
        if self.known[index].is_nan() {
            let from = at[0] * self.strides[0] + at[1] * self.strides[1] + at[2];
            let length = self.lengths[index];
            let product = dot(&self.fixed, &self.moving[from..]);
            self.known[index] = if length > 0.0 { product / length } else { 0.0 };
        }
        self.known[index]
    }

    /// Computes the norm of the moving context, minus its own mean, at every shift by running sums.
    fn measure_lengths(&mut self) {
        let [nz, ny, nx] = self.size;
        let [plane, line] = self.strides;
        let mut sums = vec![[0.0f32; 2]; plane];
        let voxels = (nz * ny * nx) as f32;
        for z in 0..SHIFTS {
            // running sums over z for each column; then sums over y and over x
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

#[cfg(test)]
mod tests {
    use super::super::contexts::{Store, places};
    use super::super::threading::Threading;
    use super::*;
    use crate::geom::Grid;

    const SHAPE: [usize; 3] = [30, 32, 34];
    const RADIUS: [usize; 3] = [9, 10, 11];

    /// An image of blobs, sampled with the origin shifted by `by`.
    fn blobs(by: Point) -> Vec<f32> {
        let centres =
            [[14.0, 15.0, 16.0], [10.0, 18.0, 13.0], [18.0, 12.0, 20.0], [15.0, 20.0, 21.0]];
        let mut voxels = Vec::new();
        for z in 0..SHAPE[0] {
            for y in 0..SHAPE[1] {
                for x in 0..SHAPE[2] {
                    let at = [z as f64 + by[0], y as f64 + by[1], x as f64 + by[2]];
                    let blob = |c: &Point| {
                        let square: f64 = (0..3).map(|a| (at[a] - c[a]).powi(2)).sum();
                        (-square / 18.0).exp()
                    };
                    voxels.push((100.0 + 50.0 * centres.iter().map(blob).sum::<f64>()) as f32);
                }
            }
        }
        voxels
    }

    fn contexts(voxels: &[f32], at: Point) -> Contexts<'_, f32> {
        let grid = Grid::new(SHAPE, [1.0; 3], [0.0; 3]);
        let places = places(&grid, &[at], RADIUS, false);
        let store = Store::array(voxels, SHAPE, [0; 3], &places);
        Contexts::describe(store, SHAPE, &places, RADIUS, Threading::Alone)
    }

    #[test]
    fn a_shift_between_voxels_is_found_to_a_twentieth() {
        let fixed = blobs([0.0; 3]);
        for by in [[0.0, 0.0, 0.0], [0.3, -0.4, 0.15], [1.7, -1.2, 0.5], [-2.3, 0.6, 2.2]] {
            let moving = blobs(by);
            let (one, two) =
                (contexts(&fixed, [14.0, 15.0, 16.0]), contexts(&moving, [14.0, 15.0, 16.0]));
            let shift = Peak::new(RADIUS).find(&one, 0, &two, 0);
            for a in 0..3 {
                assert!((shift[a] + by[a]).abs() < 0.05, "{by:?}: {shift:?}");
            }
        }
    }

    #[test]
    fn at_a_face_the_search_stays_inside() {
        let fixed = blobs([0.0; 3]);
        // the true position is [9.2, 15, 15.7], and z = 9 is the lowest centre of a context
        let moving = blobs([4.8, 0.0, 0.3]);
        let one = contexts(&fixed, [14.0, 15.0, 16.0]);
        let two = contexts(&moving, [10.0, 15.0, 15.0]);
        let shift = Peak::new(RADIUS).find(&one, 0, &two, 0);
        assert_eq!(shift[0], -1.0);
        assert!(shift[1].abs() < 0.1 && (shift[2] - 0.7).abs() < 0.2, "{shift:?}");
    }

    #[test]
    fn what_is_constant_or_no_number_moves_nothing() {
        let fixed = blobs([0.0; 3]);
        let mut moving = fixed.clone();
        moving[(27 * 32 + 15) * 34 + 16] = f32::NAN; // outside the context
        let (one, two) =
            (contexts(&fixed, [14.0, 15.0, 16.0]), contexts(&moving, [14.0, 15.0, 16.0]));
        let shift = Peak::new(RADIUS).find(&one, 0, &two, 0);
        assert!(shift.iter().all(|v| v.abs() < 0.05), "{shift:?}");
        moving[(14 * 32 + 15) * 34 + 16] = f32::NAN;
        assert_eq!(contexts(&moving, [14.0, 15.0, 16.0]).len(), 0);
        assert_eq!(contexts(&vec![7.3; fixed.len()], [14.0, 15.0, 16.0]).len(), 0);
    }
}
