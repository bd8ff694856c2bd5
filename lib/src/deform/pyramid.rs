//! Images of a block from fine to coarse, and their normalisation. Unknown voxels are NaN.

use super::lattice::Lattice;
use crate::geom::Point;

/// Minimum length of an axis after downsampling, voxels.
const LEAST: usize = 16;
/// Variance that is added to the variance of each window, in units of the variance of the whole
/// image, so that weaker contrast is not amplified.
const STRUCTURE: f32 = 0.1;

/// Both images at one resolution.
pub(super) struct Level {
    /// The voxels of this resolution, as a lattice over the voxels of the block.
    pub(super) lattice: Lattice,
    pub(super) fixed: Vec<f32>,
    pub(super) moving: Vec<f32>,
}

/// Factors of the next downsampling, which makes voxels more isotropic.
fn shrink_by(lattice: &Lattice, voxel: Point) -> [usize; 3] {
    let spacing = lattice.spacing(voxel);
    let long = |a: usize| lattice.shape[a] >= 2 * LEAST;
    let finest = (0..3).filter(|&a| long(a)).map(|a| spacing[a]).fold(f64::INFINITY, f64::min);
    std::array::from_fn(|a| if long(a) && spacing[a] < 1.5 * finest { 2 } else { 1 })
}

/// The lattice of displacements for an image on this lattice: two voxels per node along axes whose
/// spacing is less than 1.5 times the finest, one along others.
pub(super) fn nodes(lattice: &Lattice, voxel: Point, block: [usize; 3]) -> Lattice {
    let spacing = lattice.spacing(voxel);
    let wide = |a: usize| block[a] > 1;
    let finest = (0..3).filter(|&a| wide(a)).map(|a| spacing[a]).fold(f64::INFINITY, f64::min);
    let by = |a: usize| if wide(a) && spacing[a] < 1.5 * finest { 2 } else { 1 };
    Lattice::over(block, std::array::from_fn(|a| by(a) * lattice.factor[a]))
}

/// The given images and at most `levels - 1` downsampled copies of them, finest first.
pub(super) fn build(
    fixed: Vec<f32>,
    moving: Vec<f32>,
    block: [usize; 3],
    voxel: Point,
    levels: usize,
) -> Vec<Level> {
    let mut all = vec![Level { lattice: Lattice::over(block, [1; 3]), fixed, moving }];
    while all.len() < levels {
        let last = &all[all.len() - 1];
        let by = shrink_by(&last.lattice, voxel);
        if by == [1; 3] {
            break;
        }
        let lattice = Lattice::over(block, std::array::from_fn(|a| by[a] * last.lattice.factor[a]));
        let shrink = |image: &[f32]| mean(image, last.lattice.shape, by, lattice.shape);
        let level = Level { lattice, fixed: shrink(&last.fixed), moving: shrink(&last.moving) };
        all.push(level);
    }
    all
}

/// Means of the known voxels in cells of `by` voxels; NaN for a cell without known voxels.
fn mean(image: &[f32], shape: [usize; 3], by: [usize; 3], to: [usize; 3]) -> Vec<f32> {
    let mut sums = Sums::new(to);
    sums.add(image, shape, by, |v| v);
    sums.sums.iter().zip(&sums.counts).map(|(sum, count)| sum / count).collect()
}

/// Sums and counts of the known voxels that each node represents.
struct Sums {
    shape: [usize; 3],
    sums: Vec<f32>,
    counts: Vec<f32>,
}

impl Sums {
    fn new(shape: [usize; 3]) -> Self {
        let len = shape.iter().product();
        Self { shape, sums: vec![0.0; len], counts: vec![0.0; len] }
    }

    fn add(&mut self, image: &[f32], shape: [usize; 3], by: [usize; 3], f: impl Fn(f32) -> f32) {
        let width = self.shape[2];
        for (row, voxels) in image.chunks_exact(shape[2]).enumerate() {
            let (z, y) = (row / shape[1] / by[0], row % shape[1] / by[1]);
            let at = (z * self.shape[1] + y) * width;
            let sums = self.sums[at..at + width].iter_mut().zip(&mut self.counts[at..at + width]);
            for (voxels, (sum, count)) in voxels.chunks(by[2]).zip(sums) {
                for &v in voxels {
                    let known = v.is_finite();
                    *sum += if known { f(v) } else { 0.0 };
                    *count += if known { 1.0 } else { 0.0 };
                }
            }
        }
    }
}

/// Mean and variance of the known voxels of an image, and the fraction that is known.
pub(super) fn moments(image: &[f32]) -> (f64, f64, f64) {
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0usize);
    for v in image.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v)) {
        sum += v;
        squares += v * v;
        count += 1;
    }
    let n = count.max(1) as f64;
    let mean = sum / n;
    (mean, (squares / n - mean * mean).max(0.0), count as f64 / image.len().max(1) as f64)
}

/// Clamps outliers, which would dominate the variance. Outliers lie beyond the 0.1 or 99.9
/// percentile by more than the distance between these two percentiles. The percentiles are
/// estimated from evenly spaced voxels.
pub(super) fn clamp_outliers(image: &mut [f32]) {
    /// Maximum number of voxels that are sorted.
    const SORTED: usize = 1 << 16;
    let step = image.len().div_ceil(SORTED).max(1);
    let mut values: Vec<f32> =
        image.iter().step_by(step).copied().filter(|v| v.is_finite()).collect();
    if values.is_empty() {
        return;
    }
    values.sort_unstable_by(f32::total_cmp);
    let beyond = values.len() / 1000;
    let (low, high) = (values[beyond], values[values.len() - 1 - beyond]);
    let range = high - low;
    // if all other voxels have the same value, the outliers are the only structure, and are kept
    if range > 0.0 && range.is_finite() {
        for v in image.iter_mut().filter(|v| v.is_finite()) {
            *v = v.clamp(low - range, high + range);
        }
    }
}

/// Replaces intensities by their ranks, from -sqrt(3) to sqrt(3), which have mean 0 and variance 1.
/// Ranks are computed from evenly spaced voxels and interpolated.
pub(super) fn equalise(image: &[f32]) -> Vec<f32> {
    /// Maximum number of voxels that are sorted.
    const SORTED: usize = 1 << 16;
    /// Number of intensities between which ranks are interpolated.
    const KNOTS: usize = 256;
    let step = image.len().div_ceil(SORTED).max(1);
    let mut values: Vec<f32> =
        image.iter().step_by(step).copied().filter(|v| v.is_finite()).collect();
    values.sort_unstable_by(f32::total_cmp);
    let last = values.len().saturating_sub(1);
    let mut knots: Vec<(f32, f32, f32)> = Vec::new();
    for k in 0..KNOTS {
        let part = k as f32 / (KNOTS - 1) as f32;
        let Some(&value) = values.get((part * last as f32) as usize) else { break };
        let rank = 3.0f32.sqrt() * (2.0 * part - 1.0);
        match knots.last_mut() {
            Some((at, _, highest)) if *at == value => *highest = rank,
            _ => knots.push((value, rank, rank)),
        }
    }
    // equal intensities have their mean rank
    let knots: Vec<(f32, f32)> =
        knots.iter().map(|&(value, lowest, highest)| (value, 0.5 * (lowest + highest))).collect();
    let rank = |v: f32| {
        if !v.is_finite() {
            return f32::NAN;
        }
        let above = knots.partition_point(|(value, _)| *value <= v);
        match (above.checked_sub(1).map(|i| knots[i]), knots.get(above)) {
            (Some((low, a)), Some(&(high, b))) => a + (b - a) * (v - low) / (high - low),
            (Some((_, rank)), None) | (None, Some(&(_, rank))) => rank,
            (None, None) => 0.0,
        }
    };
    image.iter().map(|&v| rank(v)).collect()
}

/// Subtracts a mean and divides by a standard deviation.
pub(super) fn standardise(image: &[f32], mean: f64, deviation: f64) -> Vec<f32> {
    let scale = 1.0 / deviation.max(f64::MIN_POSITIVE);
    image.iter().map(|&v| ((f64::from(v) - mean) * scale) as f32).collect()
}

/// Distance between windows along an axis, voxels. Because windows are smooth, it suffices to
/// compute their sums on a coarser lattice.
///
/// * `sigma`: standard deviation of the window, voxels
fn window_step(sigma: f64) -> usize {
    ((0.5 * sigma) as usize).clamp(1, 4)
}

/// Shape of the grid of windows on which sums are kept, and the number of voxels between
/// neighbouring windows along each axis, which is smaller along an axis with larger voxels.
///
/// * `spacing`: voxel spacing, micrometres
/// * `sigma`: standard deviation of the window, micrometres
fn window_grid(shape: [usize; 3], spacing: Point, sigma: f64) -> ([usize; 3], [usize; 3]) {
    let by = spacing.map(|spacing| window_step(sigma / spacing));
    (std::array::from_fn(|a| shape[a].div_ceil(by[a])), by)
}

/// Number of windows of a block for which [`normalise`] keeps sums.
pub(super) fn windows(shape: [usize; 3], spacing: Point, sigma: f64) -> usize {
    window_grid(shape, spacing, sigma).0.iter().product()
}

/// Subtracts the mean of a Gaussian window around each voxel and divides by the standard deviation
/// in this window. The mean square difference of two images that were normalised in this way is two
/// minus twice their local correlation.
///
/// * `image`: with mean 0 and variance 1 over the whole block
/// * `sigma`: standard deviation of the window, micrometres
pub(super) fn normalise(image: &[f32], lattice: &Lattice, voxel: Point, sigma: f64) -> Vec<f32> {
    let spacing = lattice.spacing(voxel);
    let (to, by) = window_grid(lattice.shape, spacing, sigma);
    let windows = Lattice { shape: to, factor: by };
    let pixels = Lattice { shape: lattice.shape, factor: [1; 3] };
    let smooth = |image: &[f32]| windows.smooth(image, sigma, spacing);
    let mut sums = Sums::new(to);
    sums.add(image, lattice.shape, by, |v| v);
    let counts = smooth(&sums.counts);
    let means = smooth(&sums.sums);
    sums.sums.fill(0.0);
    sums.add(image, lattice.shape, by, |v| v * v);
    let squares = smooth(&sums.sums);
    let share = |v: &[f32]| -> Vec<f32> {
        v.iter().zip(&counts).map(|(v, n)| if *n > 1e-3 { v / n } else { 0.0 }).collect()
    };
    let (means, squares) = (share(&means), share(&squares));
    let steps = pixels.steps_in(&windows);
    let [_, height, width] = lattice.shape;
    let (mut mean, mut square, mut line) = (vec![0.0; width], vec![0.0; width], Vec::new());
    let mut out = vec![0.0; image.len()];
    for (row, (out, image)) in
        out.chunks_exact_mut(width).zip(image.chunks_exact(width)).enumerate()
    {
        let at = [row / height, row % height];
        windows.row(&means, &steps, at, &mut line, &mut mean);
        windows.row(&squares, &steps, at, &mut line, &mut square);
        for x in 0..width {
            let variance = (square[x] - mean[x] * mean[x]).max(0.0) + STRUCTURE;
            out[x] = (image[x] - mean[x]) / variance.sqrt();
        }
    }
    out
}

/// Blurs an image of mean 0; unknown voxels stay unknown.
pub(super) fn soften(image: &mut [f32], lattice: &Lattice, voxel: Point, sigma: f64) {
    let known: Vec<f32> = image.iter().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
    let smooth = lattice.smooth(&known, sigma, voxel);
    for (v, smooth) in image.iter_mut().zip(smooth) {
        if v.is_finite() {
            *v = smooth;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_axes_are_left_until_voxels_are_even() {
        let levels = build(
            vec![1.0; 20 * 64 * 64],
            vec![2.0; 20 * 64 * 64],
            [20, 64, 64],
            [2.0, 0.5, 0.5],
            9,
        );
        let factors: Vec<_> = levels.iter().map(|level| level.lattice.factor).collect();
        assert_eq!(factors, [[1, 1, 1], [1, 2, 2], [1, 4, 4]]);
        assert!(levels[2].fixed.iter().all(|v| *v == 1.0));
        assert_eq!(nodes(&levels[0].lattice, [2.0, 0.5, 0.5], [20, 64, 64]).factor, [1, 2, 2]);
    }

    #[test]
    fn ranks_do_not_depend_on_the_contrast_and_are_standardised() {
        let image: Vec<f32> = (0..4096u32)
            .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / 16_777_216.0)
            .chain([f32::NAN])
            .collect();
        let ranks = equalise(&image);
        let bright: Vec<f32> = image.iter().map(|v| (3.0 * v).exp()).collect();
        for (a, b) in ranks.iter().zip(equalise(&bright)) {
            assert!((a - b).abs() < 0.02 || (a.is_nan() && b.is_nan()), "{a} {b}");
        }
        let (mean, variance, _) = moments(&ranks);
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!(ranks[4096].is_nan());
        assert!(equalise(&[7.0; 5]).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn what_is_not_known_is_left_out_of_means() {
        let image = [1.0, f32::NAN, 3.0, 5.0, f32::NAN];
        let found = mean(&image, [1, 1, 5], [1, 1, 2], [1, 1, 3]);
        assert_eq!(found[..2], [1.0, 4.0]);
        assert!(found[2].is_nan());
    }

    #[test]
    fn a_normalised_image_does_not_know_brightness_and_contrast() {
        let shape = [24, 24, 24];
        let image: Vec<f32> = (0..24 * 24 * 24)
            .map(|i| ((i % 24) as f32 * 0.9).sin() + ((i / 24 % 24) as f32 * 0.7).cos())
            .collect();
        let (mean, variance, known) = moments(&image);
        assert_eq!(known, 1.0);
        let lattice = Lattice::over(shape, [1; 3]);
        let plain = standardise(&image, mean, variance.sqrt());
        let shaded: Vec<f32> =
            plain.iter().enumerate().map(|(i, v)| v * (1.0 + (i / 576) as f32 / 24.0)).collect();
        let normal = |image: &[f32]| normalise(image, &lattice, [1.0; 3], 4.0);
        let (plain, shaded) = (normal(&plain), normal(&shaded));
        let apart = plain.iter().zip(&shaded).map(|(a, b)| (a - b).abs()).sum::<f32>();
        let mean = apart / plain.len() as f32;
        assert!(mean < 0.05, "{mean}");
    }
}
