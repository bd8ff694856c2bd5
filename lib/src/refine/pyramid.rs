//! An image pyramid, from which an image is computed at any resolution.

use crate::geom::{Box3, Grid};
use crate::metric::{Image, downsample};

/// Standard deviation of the blur of an image, in units of its resolution. A camera's voxel is
/// assumed to have this blur already.
const BLUR: f64 = 0.5;
/// The full image is used for requested resolutions finer than this multiple of its own resolution.
pub(super) const OWN_RESOLUTION_FACTOR: f64 = 1.25;
/// Images whose sides are all at most this long are not reduced further, voxels.
const MIN_SIDE: usize = 16;

/// The parameters that reduce an image on `grid` from its resolution `own` to `resolution` (both in
/// micrometres): the variances of the Gaussians, voxels squared, and the decimation steps, voxels,
/// each along z, y, x.
///
/// Axes whose voxels are coarser than the resolution are kept, so that anisotropic images become
/// isotropic first. An axis of one voxel is not smoothed.
pub(super) fn decimation(grid: &Grid, own: f64, resolution: f64) -> ([f64; 3], [usize; 3]) {
    let (mut variance, mut step) = ([0.0; 3], [1; 3]);
    if resolution < OWN_RESOLUTION_FACTOR * own {
        return (variance, step);
    }
    for a in 0..3 {
        let spacing = grid.spacing[a];
        if grid.shape[a] > 1 {
            let had = BLUR * own.max(spacing);
            variance[a] = ((BLUR * resolution).powi(2) - had * had).max(0.0) / (spacing * spacing);
            step[a] = ((resolution / spacing + 1e-6) as usize).clamp(1, grid.shape[a]);
        }
    }
    (variance, step)
}

/// The finest spacing among the axes that have more than one voxel, micrometres.
pub(super) fn finest(grid: &Grid) -> f64 {
    let axes = (0..3).filter(|&a| grid.shape[a] > 1);
    let least = axes.map(|a| grid.spacing[a]).fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { grid.mean_spacing() }
}

/// An image and its coarser levels.
pub(super) struct Pyramid {
    /// Resolution (micrometres) and image of each level. Each level is twice as coarse as the
    /// previous one.
    levels: Vec<(f64, Image)>,
}

impl Pyramid {
    /// Builds the levels of `image`, which has the resolution `resolution` (micrometres). From the
    /// levels, images of any coarser resolution are computed with little work.
    pub(super) fn new(image: Image, resolution: f64) -> Self {
        let mut levels = vec![(resolution, image)];
        while let Some((own, image)) = levels.last() {
            let next = 2.0 * own;
            let (variance, step) = decimation(&image.grid, *own, next);
            if step == [1; 3] || image.grid.shape.iter().all(|&n| n <= MIN_SIDE) {
                break;
            }
            let level = (next, image.downsampled(variance, step));
            levels.push(level);
        }
        Self { levels }
    }

    /// The resolution of the finest level, micrometres.
    pub(super) fn resolution(&self) -> f64 {
        self.levels[0].0
    }

    /// The finest image.
    pub(super) fn base(&self) -> &Image {
        &self.levels[0].1
    }

    /// The image at `resolution` (micrometres), or the finest level if the latter is coarser.
    pub(super) fn at(&self, resolution: f64) -> Image {
        let fits = self.levels.iter().rev().find(|(own, _)| *own <= resolution * 1.000_1);
        let (own, image) = fits.unwrap_or(&self.levels[0]);
        let (variance, step) = decimation(&image.grid, *own, resolution);
        if step == [1; 3] && variance == [0.0; 3] {
            return image.clone();
        }
        image.downsampled(variance, step)
    }
}

/// Reads an image at `resolution` (micrometres) through `read`, tile by tile.
///
/// # Errors
/// Errors of `read`.
pub(super) fn read_at<E: Send>(
    grid: &Grid,
    resolution: f64,
    read: impl Fn(&Box3) -> Result<Vec<f32>, E> + Sync,
) -> Result<Image, E> {
    let (variance, step) = decimation(grid, finest(grid), resolution);
    downsample(grid, variance, step, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uneven_voxels_become_even_first() {
        let grid = Grid::new([20, 100, 100], [2.0, 0.5, 0.5], [0.0; 3]);
        let (variance, step) = decimation(&grid, 0.5, 2.0);
        assert_eq!(step, [1, 4, 4]);
        assert!(variance[0] == 0.0 && (variance[1] - 3.75).abs() < 1e-12);
        assert_eq!(decimation(&grid, 0.5, 4.0).1, [2, 8, 8]);
        assert_eq!(decimation(&grid, 0.5, 0.6), ([0.0; 3], [1; 3]));
    }

    #[test]
    fn a_level_made_in_steps_is_that_made_at_once() {
        let grid = Grid::new([1, 64, 64], [1.0; 3], [0.0; 3]);
        let voxels = (0..4096).map(|i| (f64::from(i % 64) * 0.1).sin() as f32).collect();
        let image = Image { grid, voxels };
        let (variance, step) = decimation(&grid, 1.0, 4.0);
        let once = image.downsampled(variance, step);
        let stepwise = Pyramid::new(image, 1.0).at(4.0);
        assert_eq!(once.grid, stepwise.grid);
        // the border is not compared, because mirroring there depends on the voxels of the level
        let inside = |i: &usize| (2..14).contains(&(i % 16)) && (2..14).contains(&(i / 16));
        for i in (0..256).filter(inside) {
            let (once, stepwise) = (once.voxels[i], stepwise.voxels[i]);
            assert!((once - stepwise).abs() < 5e-3, "{once} {stepwise}");
        }
    }
}
