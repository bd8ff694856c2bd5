//! The memory that a task of the first pass holds, phase by phase, as sums of named terms.

use super::block::{control_points, nodes_of, unit};
use super::pairs::Pair;
use super::pyramid;
use super::{Error, Metric, Model, Options};
use crate::blocks;
use crate::device::Cost;
use crate::geom::{Box3, Chain, Grid, Point};

/// The memory of a task at its peak, and while it waits to be aligned or written.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) peak: Cost,
    pub(super) waiting: Cost,
}

/// The data that a task reads in addition to the fixed voxels.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    /// Voxels of the moving volume.
    moving: usize,
    /// Voxels of the moving mask.
    moving_mask: usize,
    /// Voxels of the fixed mask.
    fixed_mask: usize,
    /// Vectors of the fields of the initial map.
    vectors: usize,
}

impl Pair<'_> {
    /// The memory held by a task of `block` voxels and its halo.
    ///
    /// The part of the moving volume that a task reads is estimated for a block at the centre of
    /// the fixed volume, where the faces of the volume do not clip the halo.
    ///
    /// # Errors
    /// Errors of reading a field of the initial map.
    pub(super) fn held(&self, block: [usize; 3]) -> Result<Held, Error> {
        let grid = self.fixed.grid();
        let overlap = self.options.overlap;
        let shape: [usize; 3] = std::array::from_fn(|a| {
            (block[a] + 2 * overlap.next_multiple_of(self.factor[a])).min(grid.shape[a])
        });
        let min = std::array::from_fn(|a| ((grid.shape[a] - shape[a]) / 2) as i64);
        let around = Box3::new(min, std::array::from_fn(|a| min[a] + shape[a] as i64));
        let extent = grid.extent(&around);
        let (image, vectors) = image_of(self.initial, extent)?;
        let met =
            |grid: Grid, image| grid.enclosing(image).grow([2; 3]).intersect(&grid.bounds()).len();
        let parts = Parts {
            moving: met(self.moving.grid(), image),
            moving_mask: self.masks.moving.map_or(0, |mask| met(mask.grid(), image)),
            fixed_mask: self.masks.fixed.map_or(0, |mask| met(mask.grid(), extent)),
            vectors,
        };
        Ok(held(shape, grid.spacing, parts, self.options))
    }
}

/// An extent that contains the image of `extent` under `chain`, and the number of vectors of the
/// chain's fields that are needed to map `extent`.
fn image_of(chain: &Chain, extent: [Point; 2]) -> Result<([Point; 2], usize), Error> {
    let (local, image) = chain.localise(extent).map_err(blocks::Error::Field)?;
    Ok((image, local.vectors()))
}

fn held(shape: [usize; 3], voxel: Point, parts: Parts, options: &Options) -> Held {
    let voxels: usize = shape.iter().product();
    let both = |name: &'static str| Cost::of::<[f32; 2]>(name, voxels);
    let images = both("fixed and moving voxels");
    let vectors = Cost::of::<[f32; 3]>("vectors of the initial map", parts.vectors);
    // a mask is read, converted, and resampled
    let mask = |part: usize| {
        let resampled = if part > 0 { voxels } else { 0 };
        Cost::of::<f32>("mask", 2 * part + resampled)
    };
    let pulling = Cost::of::<f32>("moving voxels as read", parts.moving)
        + Cost::of::<f32>("moving voxels", voxels)
        + vectors.clone();
    let masking = images.clone() + mask(parts.fixed_mask).or(mask(parts.moving_mask)) + vectors;
    let comparing = images.clone() + both("standardised voxels");
    let softening = images.clone() + Cost::of::<[f32; 3]>("smoothed voxels", voxels);
    let mut peak = pulling.or(masking).or(comparing).or(softening);
    if options.metric == Metric::Lcc {
        let windows = pyramid::windows(shape, voxel, options.radius * unit(voxel, shape));
        let normalising = images.clone()
            + Cost::of::<f32>("normalised voxels", voxels)
            + Cost::of::<[f32; 7]>("sums of windows", windows);
        peak = peak.or(normalising);
    }
    let chooses = options.choose && options.model != Model::Dense;
    let displaced = if options.metric == Metric::Mi || chooses { voxels } else { 0 };
    let stepping = images.clone()
        + Cost::of::<f32>("displaced moving voxels", displaced)
        + steps(shape, voxel, options);
    Held { peak: peak.or(stepping), waiting: images }
}

/// The memory of the steps at the finest resolution, at the nodes and control points.
fn steps(shape: [usize; 3], voxel: Point, options: &Options) -> Cost {
    let nodes = nodes_of(shape, voxel).len();
    let images = |name: &'static str, count: usize| Cost::of::<f32>(name, count * nodes);
    let is_mi = options.metric == Metric::Mi;
    match options.model {
        Model::Dense => {
            // at the start of a step: the field, the best field and the slope; during a step: the
            // slope averaged over windows, the update, the composed field and the smoothed field;
            // two images are buffers of the smoothing
            let fields = images("fields at the nodes", 3 * 7 + 2);
            let tensors = if is_mi { 12 } else { 6 };
            let begin = images("products of gradients", 6 + 6 + 6 + 2);
            let stepping = fields + images("products of gradients", tensors);
            if is_mi { stepping } else { stepping.or(begin) }
        }
        Model::Bspline { spacing } => {
            let tensors = if is_mi { 12 } else { 6 };
            images("fields at the nodes", 3 * 6)
                + images("products of gradients", tensors)
                + Cost::of::<[f32; 36]>("control points", control_points(shape, voxel, spacing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_follow_the_voxels_and_the_nodes() {
        let options = Options { model: Model::Dense, ..Options::default() };
        let parts = Parts { moving: 1000, ..Parts::default() };
        let held = held([64; 3], [1.0; 3], parts, &options);
        let voxels = 64u64.pow(3);
        assert_eq!(held.waiting.total(), 8 * voxels);
        // two `f32` images of the voxels, and 29 of the nodes, of which there is one per 8 voxels
        assert_eq!(held.peak.total(), 8 * voxels + 29 * 4 * voxels / 8);
        let thin = super::held([1, 512, 512], [1.0; 3], parts, &options);
        assert_eq!(thin.peak.total(), 8 * voxels + 29 * 4 * voxels / 4);
        // four times as many windows if the voxels of two axes are so large that each has a window
        let local = Options { metric: Metric::Lcc, radius: 4.0, ..options.clone() };
        let windows = |voxel| pyramid::windows([64; 3], voxel, local.radius * unit(voxel, [64; 3]));
        assert_eq!((windows([1.0; 3]), windows([4.0, 4.0, 1.0])), (32 * 32 * 32, 64 * 64 * 32));
        let wide = Parts { moving: 100 * voxels as usize, ..Parts::default() };
        let reading = super::held([64; 3], [1.0; 3], wide, &options).peak;
        assert_eq!(reading.total(), 404 * voxels);
    }
}
