//! Images in memory, and their smoothing and subsampling tile by tile.

use rayon::prelude::*;

use crate::filter::{Kernel, smooth};
use crate::geom::{Box3, Grid};

/// Maximum number of voxels of a tile, halo included: 8 MB of `f32`. Each thread holds about three
/// buffers of this size.
const TILE: usize = 2 << 20;

/// Minimum size of an output tile along each axis, voxels, whatever its halo.
const MIN_TILE: usize = 8;

/// An image in memory.
#[derive(Clone, Debug)]
pub struct Image {
    /// Shape, spacing and origin.
    pub grid: Grid,
    /// C order `(z, y, x)`; NaN where unknown.
    pub voxels: Vec<f32>,
}

impl Image {
    /// The lowest and the highest known value, after the fraction `share` of the known values at
    /// each end is left out; `None` if no value is known.
    pub fn range(&self, share: f64) -> Option<[f32; 2]> {
        range(self.voxels.iter().copied(), share)
    }

    /// The image smoothed by Gaussians of these variances (voxels squared, z, y, x), with every
    /// `step`-th voxel kept.
    #[must_use]
    pub fn downsampled(&self, variance: [f64; 3], step: [usize; 3]) -> Self {
        let read = |part: &Box3| Ok::<_, std::convert::Infallible>(crop(self, part));
        match downsample(&self.grid, variance, step, read) {
            Ok(image) => image,
            Err(never) => match never {},
        }
    }
}

/// The lowest and the highest finite value, after the fraction `share` of the finite values at each
/// end is left out; `None` if no value is finite.
pub(super) fn range(values: impl Iterator<Item = f32>, share: f64) -> Option<[f32; 2]> {
    let mut known: Vec<f32> = values.filter(|v| v.is_finite()).collect();
    if known.is_empty() {
        return None;
    }
    let cut = ((known.len() as f64 * share) as usize).min((known.len() - 1) / 2);
    let last = known.len() - 1 - cut;
    let (_, low, _) = known.select_nth_unstable_by(cut, f32::total_cmp);
    let low = *low;
    let (_, high, _) = known.select_nth_unstable_by(last, f32::total_cmp);
    Some([low, *high])
}

pub(super) fn crop(image: &Image, part: &Box3) -> Vec<f32> {
    let [_, ny, nx] = image.grid.shape;
    let mut out = Vec::with_capacity(part.len());
    for z in part.min[0]..part.max[0] {
        for y in part.min[1]..part.max[1] {
            let row = (z as usize * ny + y as usize) * nx;
            out.extend_from_slice(
                &image.voxels[row + part.min[2] as usize..row + part.max[2] as usize],
            );
        }
    }
    out
}

/// Reads an image tile by tile, smooths it by Gaussians of these variances (voxels squared) and
/// keeps every `step`-th voxel along each axis, from the first on.
///
/// * `grid`: the grid to read; `read` returns any box within it, C order, NaN where unknown
/// * returns an image of `ceil(shape / step)` voxels
///
/// Border: mirrored about the voxel edge. Unknown voxels have weight 0 (normalised convolution,
/// Knutsson and Westin 1993); an output voxel is NaN if unknown voxels have more than half of its
/// weight. Tiles are distributed over the threads of the current pool; the result does not depend
/// on the number of threads.
///
/// # Errors
/// Errors of `read`.
pub fn downsample<E: Send>(
    grid: &Grid,
    variance: [f64; 3],
    step: [usize; 3],
    read: impl Fn(&Box3) -> Result<Vec<f32>, E> + Sync,
) -> Result<Image, E> {
    let shape = std::array::from_fn(|a| grid.shape[a].div_ceil(step[a]));
    let kernels = variance.map(Kernel::discrete);
    tiled(grid, variance, step, tile(grid, shape, &kernels, step), read)
}

/// [`downsample`] with tiles of `size` voxels of the output.
pub(super) fn tiled<E: Send>(
    grid: &Grid,
    variance: [f64; 3],
    step: [usize; 3],
    size: [usize; 3],
    read: impl Fn(&Box3) -> Result<Vec<f32>, E> + Sync,
) -> Result<Image, E> {
    let kernels = variance.map(Kernel::discrete);
    let shape: [usize; 3] = std::array::from_fn(|a| grid.shape[a].div_ceil(step[a]));
    let spacing = std::array::from_fn(|a| grid.spacing[a] * step[a] as f64);
    let bounds = Box3::of_shape(shape);
    let tiles: Vec<Box3> = bounds.tiles(size).collect();
    let mut voxels = vec![0.0; bounds.len()];
    // tiles are computed in groups to bound the memory: the results of a group are stored before
    // the next group begins
    for group in tiles.chunks(2 * rayon::current_num_threads().max(1)) {
        let done: Result<Vec<_>, E> = group
            .par_iter()
            .map(|core| {
                let input = input(core, grid, &kernels, step);
                let raw = read(&input)?;
                Ok(smoothed(raw, &input, core, &kernels, step))
            })
            .collect();
        for (core, values) in group.iter().zip(done?) {
            copy_into(&values, core, shape, &mut voxels);
        }
    }
    Ok(Image { grid: Grid::new(shape, spacing, grid.origin), voxels })
}

/// The size of an output tile for which at most [`TILE`] voxels are read; the longest axis is
/// halved first, down to [`MIN_TILE`].
fn tile(grid: &Grid, shape: [usize; 3], kernels: &[Kernel; 3], step: [usize; 3]) -> [usize; 3] {
    let mut size = shape;
    loop {
        let read = |a: usize| (size[a] * step[a] + 2 * kernels[a].radius()).min(grid.shape[a]);
        let long = (0..3).filter(|&a| size[a] > MIN_TILE).max_by_key(|&a| size[a] * step[a]);
        match long {
            Some(a) if (0..3).map(read).product::<usize>() > TILE => size[a] = size[a].div_ceil(2),
            _ => return size,
        }
    }
}

/// The box to read for a tile; it begins at a voxel that is kept.
fn input(core: &Box3, grid: &Grid, kernels: &[Kernel; 3], step: [usize; 3]) -> Box3 {
    let bounds = grid.bounds();
    let mut part = *core;
    for a in 0..3 {
        let (k, r) = (step[a] as i64, kernels[a].radius() as i64);
        part.min[a] = ((core.min[a] * k - r).max(0)).div_euclid(k) * k;
        part.max[a] = ((core.max[a] - 1) * k + r + 1).min(bounds.max[a]);
    }
    part
}

/// The output tile `core`, computed from the box that was read for it.
fn smoothed(
    mut raw: Vec<f32>,
    input: &Box3,
    core: &Box3,
    kernels: &[Kernel; 3],
    step: [usize; 3],
) -> Vec<f32> {
    let shape = input.shape();
    let weights = known_weights(&mut raw);
    let (mut values, kept) = smooth(&raw, shape, kernels, step);
    if let Some(weights) = weights {
        let (weights, _) = smooth(&weights, shape, kernels, step);
        for (value, weight) in values.iter_mut().zip(weights) {
            *value = if weight >= 0.5 { *value / weight } else { f32::NAN };
        }
    }
    let first: [i64; 3] =
        std::array::from_fn(|a| core.min[a] - input.min[a].div_euclid(step[a] as i64));
    let part = Box3::new(first, std::array::from_fn(|a| first[a] + core.shape()[a] as i64));
    if part == Box3::of_shape(kept) {
        return values;
    }
    crop(&Image { grid: Grid::new(kept, [1.0; 3], [0.0; 3]), voxels: values }, &part)
}

/// Weights of the voxels, 1 if known and otherwise 0, with unknown values set to 0; `None` if all
/// are known.
fn known_weights(values: &mut [f32]) -> Option<Vec<f32>> {
    if values.iter().all(|v| v.is_finite()) {
        return None;
    }
    let one = |v: &mut f32| {
        let is_known = v.is_finite();
        if !is_known {
            *v = 0.0;
        }
        f32::from(u8::from(is_known))
    };
    Some(values.iter_mut().map(one).collect())
}

fn copy_into(values: &[f32], core: &Box3, shape: [usize; 3], out: &mut [f32]) {
    let width = core.shape()[2];
    let mut rows = values.chunks_exact(width.max(1));
    for z in core.min[0]..core.max[0] {
        for y in core.min[1]..core.max[1] {
            let at = (z as usize * shape[1] + y as usize) * shape[2] + core.min[2] as usize;
            if let Some(row) = rows.next() {
                out[at..at + width].copy_from_slice(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_for_a_tile_is_bounded_however_large_image_and_step_are() {
        for (shape, step) in
            [([2000; 3], 8), ([4000, 300, 9000], 3), ([1, 60_000, 60_000], 16), ([700; 3], 1)]
        {
            let grid = Grid::new(shape, [1.0; 3], [0.0; 3]);
            let step = shape.map(|n: usize| n.min(step));
            let kernels = step.map(|n| Kernel::discrete(0.25 * (n * n - 1) as f64));
            let reduced = std::array::from_fn(|a| shape[a].div_ceil(step[a]));
            let size = tile(&grid, reduced, &kernels, step);
            let most = Box3::of_shape(reduced)
                .tiles(size)
                .take(50)
                .map(|core| input(&core, &grid, &kernels, step).len())
                .max();
            assert!(most.is_some_and(|n| n <= TILE + TILE / 2), "{shape:?} {size:?}: {most:?}");
        }
    }
}
