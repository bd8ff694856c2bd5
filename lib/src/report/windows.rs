//! The small windows in which volumes are compared.

use crate::geom::{Box3, Grid};

/// Maximum number of windows. The values of so many windows take some 25 MB for three stages.
const WINDOWS: usize = 1 << 20;
/// Minimum edge length of a tile, voxels: about that of a chunk.
const TILE: usize = 128;

/// A grid of windows of `size` voxels: one window in every box of `every` voxels, and `counts`
/// windows along each axis.
///
/// If at most [`WINDOWS`] windows fill the volume, the windows are adjacent. In a larger volume, at
/// most [`WINDOWS`] windows are spread evenly, so that memory does not grow with the volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) size: [usize; 3],
    pub(super) every: [usize; 3],
    pub(super) counts: [usize; 3],
}

impl Windows {
    /// Windows of about 16 voxels along each side, as close to cubes as the spacing allows.
    pub(super) fn of(grid: &Grid) -> Self {
        let side = 16.0 * grid.mean_spacing();
        let size = std::array::from_fn(|a| {
            ((side / grid.spacing[a]).round() as usize).clamp(4, 64).min(grid.shape[a].max(1))
        });
        Self::spread(size, grid.shape, WINDOWS)
    }

    /// At most `most` windows of `size` voxels, spread evenly over a volume of `shape`.
    pub(super) fn spread(size: [usize; 3], shape: [usize; 3], most: usize) -> Self {
        let of = |every: [usize; 3]| std::array::from_fn(|a| shape[a].div_ceil(every[a]));
        let (mut every, mut counts): (_, [usize; 3]) = (size, of(size));
        while counts.iter().product::<usize>() > most {
            let Some(a) = (0..3).max_by_key(|&a| counts[a]) else { break };
            every[a] += size[a];
            counts = of(every);
        }
        Self { size, every, counts }
    }

    /// The shape of tiles that consist of whole windows.
    pub(super) fn tile(&self) -> [usize; 3] {
        self.size.map(|s| s * TILE.div_ceil(s))
    }

    /// Whether a window, given as a box relative to `tile`, belongs to the grid of windows.
    pub(super) fn keeps(&self, tile: &Box3, part: &Box3) -> bool {
        (0..3).all(|a| ((tile.min[a] + part.min[a]) as usize).is_multiple_of(self.every[a]))
    }

    pub(super) fn len(&self) -> usize {
        self.counts.iter().product()
    }
}

/// All adjacent windows of a tile, as boxes relative to the tile, including windows that do not
/// belong to the grid of windows ([`Windows::keeps`]).
pub(super) fn windows_in(tile: &Box3, windows: &Windows) -> Vec<Box3> {
    Box3::of_shape(tile.shape()).tiles(windows.size).collect()
}

/// Copies the values of a tile's windows to their places in the array of all windows.
pub(super) fn spread<T: Copy>(all: &mut [T], own: &[T], tile: &Box3, windows: &Windows) {
    let before = |corner: [i64; 3], a: usize| (corner[a] as usize).div_ceil(windows.every[a]);
    let first: [usize; 3] = std::array::from_fn(|a| before(tile.min, a));
    let counts: [usize; 3] = std::array::from_fn(|a| before(tile.max, a) - first[a]);
    for (i, &value) in own.iter().enumerate() {
        let at = [i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]];
        let at: [usize; 3] = std::array::from_fn(|a| first[a] + at[a]);
        all[(at[0] * windows.counts[1] + at[1]) * windows.counts[2] + at[2]] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raster_of_windows_is_bounded_for_any_volume() {
        for shape in [[10_000; 3], [100_000, 60_000, 40_000], [1, 500_000, 500_000]] {
            let windows = Windows::of(&Grid::new(shape, [1.0; 3], [0.0; 3]));
            assert!(windows.len() <= WINDOWS && windows.len() > WINDOWS / 4, "{windows:?}");
            assert!(
                (0..3).all(|a| windows.every[a].is_multiple_of(windows.size[a])),
                "{windows:?}"
            );
        }
        let small = Windows::of(&Grid::new([1000; 3], [1.0; 3], [0.0; 3]));
        assert_eq!(small.every, small.size);
    }
}
