use super::{Affine, Box3, Point};
use crate::fingerprint::Fingerprint;

/// The placement of an array in physical space: the centre of voxel `i` lies at `origin + i *
/// spacing`.
///
/// ```
/// use voxloom::geom::Grid;
///
/// // 100 planes of 512 x 512 voxels of 0.4 x 0.2 x 0.2 um
/// let grid = Grid::new([100, 512, 512], [0.4, 0.2, 0.2], [0.0, 10.0, 0.0]);
/// assert_eq!(grid.position([5.0, 0.0, 1.0]), [2.0, 10.0, 0.2]);
/// assert_eq!(grid.index([2.0, 10.0, 0.2]), [5.0, 0.0, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Grid {
    /// The number of voxels along z, y, x.
    pub shape: [usize; 3],
    /// The distance between voxel centres along z, y, x, micrometres.
    pub spacing: Point,
    /// The centre of voxel 0, `[z, y, x]` in micrometres.
    pub origin: Point,
    /// Whether this is a single plane without a z axis; its z spacing is then a placeholder that is
    /// never written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub planar: bool,
}

impl Grid {
    /// Creates a grid of `shape` voxels.
    pub fn new(shape: [usize; 3], spacing: Point, origin: Point) -> Self {
        Self { shape, spacing, origin, planar: false }
    }

    /// Creates a grid of one plane `(y, x)` without a z axis; its z spacing is set to the spacing
    /// along y.
    pub fn plane(shape: [usize; 2], spacing: [f64; 2], origin: [f64; 2]) -> Self {
        let space = |first, [y, x]: [f64; 2]| [first, y, x];
        Self {
            shape: [1, shape[0], shape[1]],
            spacing: space(spacing[0], spacing),
            origin: space(0.0, origin),
            planar: true,
        }
    }

    /// The elements of `of` (for z, y, x) that apply to this grid: all, or y and x if it is planar.
    pub fn axes<'a, T>(&self, of: &'a [T; 3]) -> &'a [T] {
        &of[usize::from(self.planar)..]
    }

    /// Adds shape, spacing and origin to a fingerprint.
    pub fn add_to(&self, fingerprint: &mut Fingerprint) {
        fingerprint.add_counts(self.shape.map(|n| n as u64)).add_numbers(self.spacing);
        fingerprint.add_numbers(self.origin);
    }

    /// The box of all voxels.
    pub fn bounds(&self) -> Box3 {
        Box3::of_shape(self.shape)
    }

    /// The physical position of a (fractional) voxel index.
    pub fn position(&self, index: Point) -> Point {
        std::array::from_fn(|a| self.origin[a] + index[a] * self.spacing[a])
    }

    /// The fractional voxel index of a physical position.
    pub fn index(&self, position: Point) -> Point {
        std::array::from_fn(|a| (position[a] - self.origin[a]) / self.spacing[a])
    }

    /// The grid of the voxels in `part`.
    #[must_use]
    pub fn crop(&self, part: &Box3) -> Self {
        Self {
            shape: part.shape(),
            spacing: self.spacing,
            origin: self.position(part.min.map(|v| v as f64)),
            planar: self.planar,
        }
    }

    /// The physical positions `[low, high]` of the first and the last voxel centre of `part`.
    pub fn extent(&self, part: &Box3) -> [Point; 2] {
        [self.position(part.min.map(|v| v as f64)), self.position(part.max.map(|v| (v - 1) as f64))]
    }

    /// Sample positions (micrometres) on a regular lattice: 5 along each axis, from the centre of
    /// the first voxel to that of the last.
    pub fn sample(&self) -> Vec<Point> {
        const SAMPLES_PER_AXIS: usize = 5;
        let [low, high] = self.extent(&self.bounds());
        let point = |i: usize| {
            let at = [
                i / SAMPLES_PER_AXIS.pow(2),
                i / SAMPLES_PER_AXIS % SAMPLES_PER_AXIS,
                i % SAMPLES_PER_AXIS,
            ];
            let share = |a: usize| at[a] as f64 / (SAMPLES_PER_AXIS - 1) as f64;
            std::array::from_fn(|a| low[a] + (high[a] - low[a]) * share(a))
        };
        (0..SAMPLES_PER_AXIS.pow(3)).map(point).collect()
    }

    /// Whether a position is at most half a voxel outside the extent of the voxel centres.
    pub fn reaches(&self, p: Point) -> bool {
        let index = self.index(p);
        (0..3).all(|a| index[a] >= -0.5 && index[a] <= self.shape[a] as f64 - 0.5)
    }

    /// The smallest box of voxels whose centres enclose the physical extent `[low, high]`.
    pub fn enclosing(&self, [low, high]: [Point; 2]) -> Box3 {
        // limit far-away and infinite positions, so that the box can still be enlarged without
        // overflow; NaN becomes 0
        let clamp = |v: f64| v.clamp(-1e15, 1e15) as i64;
        let (low, high) = (self.index(low), self.index(high));
        Box3::new(low.map(|v| clamp(v.floor())), high.map(|v| clamp(v.ceil()) + 1))
    }

    /// The affine from voxel indices to physical positions.
    pub fn to_physical(&self) -> Affine {
        Affine::from_rows(std::array::from_fn(|a| {
            let mut row = [0.0; 4];
            row[a] = self.spacing[a];
            row[3] = self.origin[a];
            row
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enclosing_box_holds_the_voxels_on_both_sides() {
        let grid = Grid::new([10, 10, 10], [2.0, 1.0, 0.5], [1.0, 0.0, 0.0]);
        let part = grid.enclosing([[2.0, 3.0, 0.4], [4.9, 3.0, 0.6]]);
        assert_eq!(part, Box3::new([0, 3, 0], [3, 4, 3]));
    }

    /// The conversion of an index to a position and back has a rounding error. If the result were
    /// truncated instead of rounded, it would sometimes be the preceding voxel, for example at a
    /// spacing of 0.1 um.
    #[test]
    fn a_voxel_is_found_again_at_its_position() {
        let mut cut = 0;
        for spacing in [0.1, 0.23, 1.68, 0.92] {
            let grid = Grid::new([1 << 20; 3], [spacing; 3], [0.3, -7.7, 1e4]);
            for i in (0..1 << 20).step_by(997) {
                let index = grid.index(grid.position([i as f64; 3]));
                assert_eq!(index.map(|v| v.round() as i64), [i; 3]);
                cut += usize::from(index.map(|v| v as i64) != [i; 3]);
            }
        }
        assert!(cut > 100, "the test shows nothing: {cut}");
    }
}
