//! Coordinate frames of other programs, and conversion to and from voxloom's.

use crate::geom::{Affine, Grid, Point};

/// The directions of the x and y axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum AnatomicalFrame {
    /// As in ITK and voxloom.
    Lps,
    /// As in NIfTI headers and greedy's matrices: x and y are reversed.
    Ras,
}

impl AnatomicalFrame {
    /// The name of the frame in messages and receipts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lps => "LPS",
            Self::Ras => "RAS",
        }
    }

    fn signs(self) -> [f64; 3] {
        match self {
            Self::Lps => [1.0; 3],
            Self::Ras => [-1.0, -1.0, 1.0],
        }
    }
}

/// A unit of length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Unit {
    /// Nanometres.
    Nm,
    /// Micrometres.
    Um,
    /// Millimetres.
    Mm,
}

impl Unit {
    /// Micrometres per unit.
    pub(super) fn micrometres(self) -> f64 {
        match self {
            Self::Nm => 1e-3,
            Self::Um => 1.0,
            Self::Mm => 1e3,
        }
    }

    /// The name of the unit, in the plural.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nm => "nanometres",
            Self::Um => "micrometres",
            Self::Mm => "millimetres",
        }
    }
}

/// The world coordinates x, y, z of another program: its frame and the micrometres of its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct World {
    pub(super) frame: AnatomicalFrame,
    pub(super) micrometres: f64,
}

impl World {
    /// Converts a position or vector x, y, z to `[z, y, x]` micrometres.
    pub(super) fn vector(self, [x, y, z]: [f64; 3]) -> Point {
        let [a, b, c] = self.frame.signs();
        [z * c, y * b, x * a].map(|v| v * self.micrometres)
    }

    /// The inverse of [`World::vector`]: converts `[z, y, x]` micrometres to a position or vector
    /// x, y, z.
    pub(super) fn to_external_vector(self, [z, y, x]: Point) -> [f64; 3] {
        let [a, b, c] = self.frame.signs();
        [x * a, y * b, z * c].map(|v| v / self.micrometres)
    }

    /// Converts the map `p -> linear p + offset` of positions x, y, z to one of `[z, y, x]`
    /// micrometres.
    pub(super) fn map(self, linear: &[[f64; 3]; 3], offset: [f64; 3]) -> Affine {
        let signs = self.frame.signs();
        let turned = std::array::from_fn(|r| {
            std::array::from_fn(|c| linear[2 - r][2 - c] * signs[2 - r] * signs[2 - c])
        });
        Affine::from_parts(turned, self.vector(offset))
    }

    /// The inverse of [`World::map`]: the linear part and the offset in x, y, z.
    pub(super) fn to_external_map(self, map: &Affine) -> ([[f64; 3]; 3], [f64; 3]) {
        let (linear, signs) = (map.linear(), self.frame.signs());
        let turned = std::array::from_fn(|r| {
            std::array::from_fn(|c| linear[2 - r][2 - c] * signs[r] * signs[c])
        });
        (turned, self.to_external_vector(map.offset()))
    }
}

/// The samples of a file: sample `i, j, k` lies at `origin + i s0 + j s1 + k s2`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placement {
    /// Number of samples along z, y, x.
    pub(super) shape: [usize; 3],
    /// The steps s0, s1, s2 along the file's fastest, second and third axis, in world x, y, z.
    pub(super) steps: [[f64; 3]; 3],
    /// The position of the first sample, in world x, y, z.
    pub(super) origin: [f64; 3],
}

/// A step counts as parallel to an axis if its other components are at most this fraction of its
/// length. The single precision of NIfTI headers causes deviations of this size.
const PARALLEL_TOLERANCE: f64 = 1e-7;

impl Placement {
    /// Creates a placement from spacings along the file's axes and a matrix of direction cosines,
    /// whose columns are these axes.
    pub(super) fn new(
        shape: [usize; 3],
        spacing: [f64; 3],
        origin: [f64; 3],
        cosines: &[[f64; 3]; 3],
    ) -> Self {
        let steps = std::array::from_fn(|a| cosines.map(|row| row[a] * spacing[a]));
        Self { shape, steps, origin }
    }

    /// The affine from a sample's index `[z, y, x]` to its position, `[z, y, x]` micrometres.
    pub(super) fn index_to_world(&self, world: World) -> Affine {
        let steps = self.steps.map(|step| world.vector(step));
        let linear = std::array::from_fn(|r| std::array::from_fn(|c| steps[2 - c][r]));
        Affine::from_parts(linear, world.vector(self.origin))
    }

    /// The grid of the samples. If its axes are rotated, mirrored or oblique in voxloom's frame,
    /// the grid has its origin at 0, and the affine from its frame to voxloom's is returned too.
    pub(super) fn grid(&self, world: World) -> (Grid, Option<Affine>) {
        let map = self.index_to_world(world);
        let linear = map.linear();
        let length = |c: usize| (0..3).map(|r| linear[r][c].powi(2)).sum::<f64>().sqrt();
        let spacing: Point = std::array::from_fn(length);
        let straight = (0..3).all(|c| {
            linear[c][c] > 0.0
                && (0..3).all(|r| r == c || linear[r][c].abs() <= PARALLEL_TOLERANCE * spacing[c])
        });
        if straight {
            return (Grid::new(self.shape, spacing, map.offset()), None);
        }
        let turned = std::array::from_fn(|r| std::array::from_fn(|c| linear[r][c] / spacing[c]));
        let grid = Grid::new(self.shape, spacing, [0.0; 3]);
        (grid, Some(Affine::from_parts(turned, map.offset())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    #[test]
    fn x_and_y_are_mirrored_in_ras_and_nothing_in_lps() {
        let lps = World { frame: AnatomicalFrame::Lps, micrometres: 1e3 };
        let ras = World { frame: AnatomicalFrame::Ras, micrometres: 1e3 };
        assert_eq!(lps.vector([1.0, 2.0, 3.0]), [3000.0, 2000.0, 1000.0]);
        assert_eq!(ras.vector([1.0, 2.0, 3.0]), [3000.0, -2000.0, -1000.0]);
        let (linear, offset) =
            ([[1.0, 0.1, 0.2], [0.3, 0.9, 0.4], [0.5, 0.6, 1.1]], [1.0, 2.0, 3.0]);
        for world in [lps, ras] {
            let map = world.map(&linear, offset);
            let p = [0.4, -0.5, 0.6];
            let q: [f64; 3] = std::array::from_fn(|r| {
                (0..3).map(|c| linear[r][c] * p[c]).sum::<f64>() + offset[r]
            });
            let (got, want) = (map.apply(world.vector(p)), world.vector(q));
            assert!((0..3).all(|a| (got[a] - want[a]).abs() < 1e-9));
            let (back, shift) = world.to_external_map(&map);
            assert_eq!((back, shift), (linear, offset));
        }
    }

    #[test]
    fn straight_samples_are_a_grid_and_others_a_turned_one() {
        let world = World { frame: AnatomicalFrame::Lps, micrometres: 1.0 };
        let straight = Placement::new([4, 5, 6], [1.0, 2.0, 3.0], [7.0, 8.0, 9.0], &UNIT);
        let grid = Grid::new([4, 5, 6], [3.0, 2.0, 1.0], [9.0, 8.0, 7.0]);
        assert_eq!(straight.grid(world), (grid, None));
        let mirrored = World { frame: AnatomicalFrame::Ras, ..world };
        let (grid, map) = straight.grid(mirrored);
        assert_eq!(grid, Grid::new([4, 5, 6], [3.0, 2.0, 1.0], [0.0; 3]));
        let at = map.unwrap().apply(grid.position([1.0, 1.0, 1.0]));
        assert_eq!(at, mirrored.vector([8.0, 10.0, 12.0]));
    }
}
