//! One image at any resolution.

use crate::geom::{Box3, Grid};
use crate::metric::{Image, shrink};

/// The standard deviation of what blurs an image of a resolution, in units of it. A camera's voxel
/// is taken to be blurred so already.
const BLUR: f64 = 0.5;
/// A resolution that is finer than this many times an image's own is its own.
pub(super) const NEAR: f64 = 1.25;
/// No level is made of an image whose sides are this long at most, voxels.
const SMALLEST: usize = 16;

/// How an image of a grid becomes one of a resolution: variances in voxels squared, and steps.
///
/// Axes with coarser voxels than the resolution are left as they are, so that anisotropic images
/// become even first; an axis of one voxel has nothing to smooth.
pub(super) fn thinning(grid: &Grid, own: f64, resolution: f64) -> ([f64; 3], [usize; 3]) {
    let (mut variance, mut step) = ([0.0; 3], [1; 3]);
    if resolution < NEAR * own {
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

/// The finest spacing along the axes that have more than one voxel.
pub(super) fn finest(grid: &Grid) -> f64 {
    let axes = (0..3).filter(|&a| grid.shape[a] > 1);
    let least = axes.map(|a| grid.spacing[a]).fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { grid.mean_spacing() }
}

/// An image, and coarser ones made from it as they are wanted.
pub(super) struct Pyramid {
    /// From fine to coarse, each of twice the resolution.
    levels: Vec<(f64, Image)>,
}

impl Pyramid {
    /// An image of this resolution, micrometres, and coarser ones, from which those of any
    /// resolution follow with little work.
    pub(super) fn new(image: Image, resolution: f64) -> Self {
        let mut levels = vec![(resolution, image)];
        while let Some((own, image)) = levels.last() {
            let next = 2.0 * own;
            let (variance, step) = thinning(&image.grid, *own, next);
            if step == [1; 3] || image.grid.shape.iter().all(|&n| n <= SMALLEST) {
                break;
            }
            let level = (next, image.shrunk(variance, step));
            levels.push(level);
        }
        Self { levels }
    }

    /// The resolution of the finest.
    pub(super) fn resolution(&self) -> f64 {
        self.levels[0].0
    }

    /// The finest image.
    pub(super) fn base(&self) -> &Image {
        &self.levels[0].1
    }

    /// The image of a resolution: the finest where it is no coarser than that.
    pub(super) fn at(&self, resolution: f64) -> Image {
        let fits = self.levels.iter().rev().find(|(own, _)| *own <= resolution * 1.000_1);
        let (own, image) = fits.unwrap_or(&self.levels[0]);
        let (variance, step) = thinning(&image.grid, *own, resolution);
        if step == [1; 3] && variance == [0.0; 3] {
            return image.clone();
        }
        image.shrunk(variance, step)
    }
}

/// Reads an image at a resolution through `read`, tile by tile.
///
/// # Errors
/// What `read` says.
pub(super) fn read_at<E: Send>(
    grid: &Grid,
    resolution: f64,
    read: impl Fn(&Box3) -> Result<Vec<f32>, E> + Sync,
) -> Result<Image, E> {
    let (variance, step) = thinning(grid, finest(grid), resolution);
    shrink(grid, variance, step, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uneven_voxels_become_even_first() {
        let grid = Grid::new([20, 100, 100], [2.0, 0.5, 0.5], [0.0; 3]);
        let (variance, step) = thinning(&grid, 0.5, 2.0);
        assert_eq!(step, [1, 4, 4]);
        assert!(variance[0] == 0.0 && (variance[1] - 3.75).abs() < 1e-12);
        assert_eq!(thinning(&grid, 0.5, 4.0).1, [2, 8, 8]);
        assert_eq!(thinning(&grid, 0.5, 0.6), ([0.0; 3], [1; 3]));
    }

    #[test]
    fn a_level_made_in_steps_is_that_made_at_once() {
        let grid = Grid::new([1, 64, 64], [1.0; 3], [0.0; 3]);
        let voxels = (0..4096).map(|i| (f64::from(i % 64) * 0.1).sin() as f32).collect();
        let image = Image { grid, voxels };
        let (variance, step) = thinning(&grid, 1.0, 4.0);
        let once = image.shrunk(variance, step);
        let stepwise = Pyramid::new(image, 1.0).at(4.0);
        assert_eq!(once.grid, stepwise.grid);
        // where a border is mirrored depends on the voxels that there are: leave it out
        let inside = |i: &usize| (2..14).contains(&(i % 16)) && (2..14).contains(&(i / 16));
        for i in (0..256).filter(inside) {
            let (once, stepwise) = (once.voxels[i], stepwise.voxels[i]);
            assert!((once - stepwise).abs() < 5e-3, "{once} {stepwise}");
        }
    }
}
