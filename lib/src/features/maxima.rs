//! Local maxima over position and scale, and their refinement to sub-voxel positions.

use std::ops::Range;

use crate::filter::lines::vectorised;
use crate::geom::{Box3, Point};

/// The maximum number of times that a fit moves to a neighbouring voxel.
pub(super) const MAX_MOVES: usize = 3;

/// The offset, in voxels, beyond which a fit is repeated about the neighbouring voxel.
const MAX_OFFSET: f64 = 0.6;

/// The responses at one scale, or the part of them that is in memory.
pub(super) trait ResponseImage {
    /// The voxels `xs` of the row `(z, y)`.
    fn row(&self, z: usize, y: usize, xs: Range<usize>) -> &[f32];
}

/// A whole array in memory, C order `(z, y, x)`.
pub(super) struct FlatImage<'a> {
    pub(super) voxels: &'a [f32],
    /// The number of voxels along y and x.
    pub(super) extent: [usize; 2],
}

impl ResponseImage for FlatImage<'_> {
    fn row(&self, z: usize, y: usize, xs: Range<usize>) -> &[f32] {
        let start = (z * self.extent[0] + y) * self.extent[1];
        &self.voxels[start + xs.start..start + xs.end]
    }
}

/// The responses at one scale and, if they exist, at the adjacent scales.
pub(super) struct ScaleStack<'a, I> {
    /// The shape of the whole grid, z, y, x.
    pub(super) shape: [usize; 3],
    pub(super) below: Option<&'a I>,
    pub(super) here: &'a I,
    pub(super) above: Option<&'a I>,
}

/// The maximum of a fitted parabola. Voxel and offset are kept apart because rounding of their sum
/// would depend on the block.
pub(super) struct ParabolaPeak {
    pub(super) voxel: [usize; 3],
    /// The offset from the voxel, in voxels.
    pub(super) offset: Point,
    pub(super) height: f64,
}

/// The voxels of a plateau that count as maxima.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PlateauRule {
    /// All of them, as in scikit-image.
    All,
    /// The first one in the order of scale, z, y, x.
    First,
}

fn at(image: &impl ResponseImage, [z, y, x]: [usize; 3]) -> f32 {
    image.row(z, y, x..x + 1)[0]
}

vectorised! {
    /// Marks the voxels of `row` that are positive and at least as large as their two neighbours
    /// along x and their neighbours in the four rows `around`.
    fn mark(row: &[f32], around: [&[f32]; 4], marks: &mut [u8]) => mark_body
}

#[inline(always)]
fn mark_body<const FUSED: bool>(row: &[f32], around: [&[f32]; 4], marks: &mut [u8]) {
    let n = row.len();
    let (inner, left, right) = (&row[1..n - 1], &row[..n - 2], &row[2..]);
    let [a, b, c, d] = around.map(|other| &other[1..n - 1]);
    for (i, mark) in marks[1..n - 1].iter_mut().enumerate() {
        let value = inner[i];
        let top = (value > 0.0)
            && (value >= left[i])
            && (value >= right[i])
            && (value >= a[i])
            && (value >= b[i])
            && (value >= c[i])
            && (value >= d[i]);
        *mark = u8::from(top);
    }
}

impl<I: ResponseImage> ScaleStack<'_, I> {
    /// The voxels of `inner` whose response is positive and maximal among their neighbours in
    /// position and scale, diagonal ones included. Neighbours outside the array or the range of
    /// scales are ignored.
    pub(super) fn maxima(&self, inner: &Box3, ties: PlateauRule) -> Vec<[usize; 3]> {
        let [min, max] = [inner.min, inner.max].map(|corner| corner.map(|v| v as usize));
        let mut found = Vec::new();
        if inner.is_empty() {
            return found;
        }
        let xs = min[2].saturating_sub(1)..(max[2] + 1).min(self.shape[2]);
        let mut marks = vec![0_u8; xs.len()];
        for z in min[0]..max[0] {
            for y in min[1]..max[1] {
                self.mark_row(z, y, xs.clone(), &mut marks);
                for x in min[2]..max[2] {
                    if marks[x - xs.start] != 0 && self.is_maximum([z, y, x], ties) {
                        found.push([z, y, x]);
                    }
                }
            }
        }
        found
    }

    /// Marks candidates for maxima by a fast test of a subset of the neighbours.
    fn mark_row(&self, z: usize, y: usize, xs: Range<usize>, marks: &mut [u8]) {
        let row = self.here.row(z, y, xs.clone());
        marks.fill(1);
        if row.len() > 2 {
            let (up, down) = (y.saturating_sub(1), (y + 1).min(self.shape[1] - 1));
            let around = [
                self.here.row(z, up, xs.clone()),
                self.here.row(z, down, xs.clone()),
                self.below.map_or(row, |below| below.row(z, y, xs.clone())),
                self.above.map_or(row, |above| above.row(z, y, xs.clone())),
            ];
            mark(row, around, marks);
        }
    }

    fn is_maximum(&self, [z, y, x]: [usize; 3], ties: PlateauRule) -> bool {
        let value = at(self.here, [z, y, x]);
        if value <= 0.0 {
            return false;
        }
        let range = |i: usize, n: usize| i.saturating_sub(1)..(i + 2).min(n);
        let beaten = |earlier: bool, other: f32| {
            other > value || (earlier && ties == PlateauRule::First && other == value)
        };
        let scales = [(0, self.below), (1, Some(self.here)), (2, self.above)];
        for (scale, image) in scales {
            let Some(image) = image else { continue };
            for k in range(z, self.shape[0]) {
                for j in range(y, self.shape[1]) {
                    let xs = range(x, self.shape[2]);
                    for (i, &other) in xs.clone().zip(image.row(k, j, xs)) {
                        if beaten((scale, k, j, i) < (1, z, y, x), other) {
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    /// Refines a maximum by fitting a parabola to the responses around the voxel `at`.
    ///
    /// If the fitted maximum is more than 0.6 voxel away along an axis, the fit is repeated about
    /// the neighbouring voxel, at most three times; the remaining offset is then clamped to 0.6. At
    /// a face of the array, and where the fit has no maximum, the result is the voxel itself. Axes
    /// of one voxel are not fitted.
    pub(super) fn refine(&self, at: [usize; 3]) -> ParabolaPeak {
        let mut voxel = at;
        let mut offset = [0.0; 3];
        let mut height = self.value(self.here, at);
        for turn in 0..=MAX_MOVES {
            let Some((step, top)) = self.fit(voxel) else { break };
            (offset, height) = (step, top);
            let far = offset.map(|o| o.abs() > MAX_OFFSET);
            if far == [false; 3] || turn == MAX_MOVES {
                break;
            }
            for a in 0..3 {
                let next = voxel[a] as i64 + if far[a] { offset[a].signum() as i64 } else { 0 };
                voxel[a] = next.clamp(0, self.shape[a] as i64 - 1) as usize;
            }
            offset = [0.0; 3];
            height = self.value(self.here, voxel);
        }
        ParabolaPeak { voxel, offset: offset.map(|o| o.clamp(-MAX_OFFSET, MAX_OFFSET)), height }
    }

    fn value(&self, image: &I, voxel: [usize; 3]) -> f64 {
        f64::from(at(image, voxel))
    }

    /// One step of Newton's method on central differences: the offset and the value of the maximum.
    fn fit(&self, at: [usize; 3]) -> Option<(Point, f64)> {
        let flat = self.shape.map(|n| n == 1);
        if (0..3).any(|a| !flat[a] && (at[a] == 0 || at[a] + 1 >= self.shape[a])) {
            return None;
        }
        let value = |by: [i64; 3]| {
            let there =
                std::array::from_fn(|a| if flat[a] { 0 } else { (at[a] as i64 + by[a]) as usize });
            self.value(self.here, there)
        };
        let unit = |a: usize, sign: i64| {
            let mut by = [0; 3];
            by[a] = sign;
            by
        };
        let here = value([0; 3]);
        let gradient: Point =
            std::array::from_fn(|a| 0.5 * (value(unit(a, 1)) - value(unit(a, -1))));
        let curvature = nalgebra::Matrix3::from_fn(|a, b| {
            if a == b && flat[a] {
                return -here.abs().max(f64::MIN_POSITIVE); // puts the maximum at offset 0
            }
            if a == b {
                return value(unit(a, 1)) - 2.0 * here + value(unit(a, -1));
            }
            let both = |s: i64, t: i64| {
                let mut by = [0; 3];
                (by[a], by[b]) = (s, t);
                value(by)
            };
            0.25 * (both(1, 1) - both(1, -1) - both(-1, 1) + both(-1, -1))
        });
        // the fit has a maximum, not a saddle, only if the negated curvature has a Cholesky factor
        let root = nalgebra::Cholesky::new(-curvature)?;
        let gradient = nalgebra::Vector3::from(gradient);
        let offset = root.solve(&gradient);
        let cut = offset.map(|o| o.clamp(-MAX_OFFSET, MAX_OFFSET));
        let top = here + gradient.dot(&cut) + 0.5 * cut.dot(&(curvature * cut));
        Some((offset.into(), top))
    }

    /// The offset in scale, in steps of the scale sequence, at which the response at `at` is
    /// greatest.
    pub(super) fn refine_scale(&self, at: [usize; 3]) -> f64 {
        let (Some(below), Some(above)) = (self.below, self.above) else { return 0.0 };
        let [low, here, high] = [below, self.here, above].map(|image| self.value(image, at));
        let curvature = low - 2.0 * here + high;
        if curvature < 0.0 { (0.5 * (low - high) / curvature).clamp(-0.5, 0.5) } else { 0.0 }
    }
}
