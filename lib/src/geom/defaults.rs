//! Default lengths derived from the voxel grids alone: used by the programs when no value is given,
//! and proposed by `inspect --suggest`.

use super::{Grid, Point};

/// Along an axis of fewer voxels than this, shifts are not searched and contexts are one voxel
/// thick.
pub const MIN_PLANES: usize = 5;

/// Spacings that differ by at most this fraction count as equal: over half the side of a context
/// (12 voxels), the difference adds up to about 1 voxel.
const SAME_SPACING: f64 = 0.1;

impl Grid {
    /// The length of "one voxel", micrometres: the geometric mean of [`Grid::typical_spacing`].
    pub fn mean_spacing(&self) -> f64 {
        self.typical_spacing().iter().product::<f64>().cbrt()
    }

    /// The spacing; for an axis of one voxel, whose own spacing is arbitrary, the geometric mean of
    /// the spacings of the other axes.
    pub fn typical_spacing(&self) -> Point {
        let long = (0..3).filter(|&a| self.shape[a] > 1);
        let count = long.clone().count();
        if matches!(count, 0 | 3) {
            return self.spacing;
        }
        let mean = long.map(|a| self.spacing[a]).product::<f64>().powf(1.0 / count as f64);
        std::array::from_fn(|a| if self.shape[a] > 1 { self.spacing[a] } else { mean })
    }
}

/// The spacing at which two volumes are compared, micrometres: along each axis the coarser of the
/// two, or that of the fixed volume if they agree to within 10 %. `None` if they agree along all
/// axes, so that neither volume needs resampling.
pub fn common_spacing(fixed: &Grid, moving: &Grid) -> Option<Point> {
    let differs = |a: usize| {
        let one = fixed.shape[a] == 1 || moving.shape[a] == 1;
        !one && (fixed.spacing[a] / moving.spacing[a]).ln().abs() > SAME_SPACING.ln_1p()
    };
    let coarser = |a: usize| {
        if differs(a) { fixed.spacing[a].max(moving.spacing[a]) } else { fixed.spacing[a] }
    };
    (0..3).any(differs).then(|| std::array::from_fn(coarser))
}

/// Half the side of the context around a point, in voxels along z, y, x. In physical space, the
/// context is about a cube whose half side is `half` times [`Grid::mean_spacing`]. Along each axis,
/// the result is at most `half`, and at most a fifth of the shape of either volume.
///
/// * `grids`: two grids of the same spacing
pub fn context(half: usize, grids: [&Grid; 2]) -> [usize; 3] {
    let spacing = grids[0].typical_spacing();
    let length = half as f64 * grids[0].mean_spacing();
    std::array::from_fn(|a| {
        let shortest = grids[0].shape[a].min(grids[1].shape[a]);
        let cube = (length / spacing[a]).round().max(1.0) as usize;
        half.min(cube).min(shortest / MIN_PLANES)
    })
}

/// The upper limit, micrometres, of the default distance from the faces of the volume within which
/// spots are dropped: a fifth of the shortest axis, ignoring axes of one voxel.
pub fn border(grid: &Grid) -> f64 {
    let long = (0..3).filter(|&a| grid.shape[a] > 1);
    let fifth = |a: usize| (grid.shape[a] / MIN_PLANES) as f64 * grid.spacing[a];
    long.map(fifth).fold(f64::INFINITY, f64::min)
}

/// The default maximum residual of an inlier, micrometres: 1.2 voxels of the coarser volume.
pub fn align_threshold(fixed: &Grid, moving: &Grid) -> f64 {
    1.2 * fixed.mean_spacing().max(moving.mean_spacing())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(shape: [usize; 3], spacing: Point) -> Grid {
        Grid::new(shape, spacing, [0.0; 3])
    }

    #[test]
    fn a_plane_has_the_voxel_of_its_own_two_axes() {
        let plane = grid([1, 160, 160], [50.0, 0.8, 0.2]);
        assert!((plane.mean_spacing() - 0.4).abs() < 1e-12);
        let [z, y, x] = plane.typical_spacing();
        assert!((z - 0.4).abs() < 1e-12 && (y, x) == (0.8, 0.2));
        let volume = grid([2, 160, 160], [50.0, 0.8, 0.2]);
        assert_eq!(volume.typical_spacing(), [50.0, 0.8, 0.2]);
        assert!((volume.mean_spacing() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn surroundings_are_even_in_space_and_fit_into_thin_volumes() {
        let of = |shape, spacing| {
            let grid = grid(shape, spacing);
            context(12, [&grid, &grid])
        };
        assert_eq!(of([100; 3], [1.84; 3]), [12; 3]);
        assert_eq!(of([100; 3], [100.0; 3]), [12; 3]);
        assert_eq!(of([100; 3], [2.0, 1.0, 1.0]), [8, 12, 12]);
        assert_eq!(of([12, 160, 160], [8.0, 0.8, 0.8]), [2, 12, 12]);
        assert_eq!(of([60, 160, 160], [8.0, 0.8, 0.8]), [3, 12, 12]);
        for planes in 1..MIN_PLANES {
            assert_eq!(of([planes, 160, 160], [1.0; 3]), [0, 12, 12]);
        }
        assert_eq!(of([5, 160, 30], [1.0; 3]), [1, 12, 6]);
    }

    #[test]
    fn the_common_spacing_is_the_coarser_one_axis_by_axis() {
        let fixed = grid([50; 3], [2.0, 1.0, 1.0]);
        assert_eq!(common_spacing(&fixed, &grid([50; 3], [2.1, 1.05, 0.95])), None);
        let moving = grid([50; 3], [1.0, 1.5, 1.05]);
        assert_eq!(common_spacing(&fixed, &moving), Some([2.0, 1.5, 1.0]));
        assert_eq!(common_spacing(&fixed, &grid([1, 50, 50], [9.0, 1.0, 1.0])), None);
    }
}
