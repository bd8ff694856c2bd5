//! Lengths that suit volumes by their voxels alone: what the programs take where nothing is asked for, and
//! what `inspect --suggest` proposes.

use super::{Grid, Point};

/// Along a shorter axis nothing is compared or searched: its planes are compared one by one.
pub const SHORT: usize = 5;

/// Spacings that differ by less than this share count as equal: some 1 voxel at the rim of a context.
const SAME_SPACING: f64 = 0.1;

impl Grid {
    /// "One voxel" as a length, micrometres: the geometric mean of the spacing along the axes of more than
    /// one voxel.
    pub fn mean_spacing(&self) -> f64 {
        self.typical_spacing().iter().product::<f64>().cbrt()
    }

    /// The spacing; along an axis of one voxel the geometric mean of the others, since nothing is known of it.
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

/// The spacing at which two volumes are compared: along each axis the coarser of the two. `None` where they
/// are alike and are compared as they are.
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

/// Half the side of the surroundings that tell a place, in voxels along z, y, x: a cube in space of `half`
/// voxels on average, no axis longer than that, and a whole one fits five times into either volume.
///
/// * `grids`: of one spacing
pub fn context(half: usize, grids: [&Grid; 2]) -> [usize; 3] {
    let spacing = grids[0].typical_spacing();
    let length = half as f64 * grids[0].mean_spacing();
    std::array::from_fn(|a| {
        let shortest = grids[0].shape[a].min(grids[1].shape[a]);
        let cube = (length / spacing[a]).round().max(1.0) as usize;
        half.min(cube).min(shortest / SHORT)
    })
}

/// How near to a face of a volume a blob is thought to be cut, micrometres: at most a fifth of its shortest
/// axis, a single voxel left out.
pub fn border(grid: &Grid) -> f64 {
    let long = (0..3).filter(|&a| grid.shape[a] > 1);
    let fifth = |a: usize| (grid.shape[a] / SHORT) as f64 * grid.spacing[a];
    long.map(fifth).fold(f64::INFINITY, f64::min)
}

/// How near a match must be to a map to agree with it, micrometres: 1.2 voxels of the coarser volume.
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
        for planes in 1..SHORT {
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
