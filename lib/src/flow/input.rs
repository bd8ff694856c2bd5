//! Reads the voxels of a block of patches.

use anyhow::Context as _;

use super::Options;
use super::cpu::BlockPair;
use crate::blocks::{self, Task};
use crate::geom::{Box3, Chain, Grid, LocalChain};
use crate::volume::{Masks, Volume, cut_out};
use crate::warp::{self, Interpolation};

/// Voxels this close to those of another grid, relative to the voxel size, lie on them.
const ALIGNED: f64 = 1e-6;
/// The number of voxels around a position that interpolation needs, except along z in planes.
const MARGIN: i64 = 8;

/// The two volumes and the map between them.
pub(super) struct Pair<'a> {
    pub(super) fixed: &'a Volume,
    pub(super) moving: &'a Volume,
    pub(super) masks: Masks<'a>,
    pub(super) initial: &'a Chain,
    pub(super) options: &'a Options,
}

/// The voxels of a task: one pair for each plane, or one for the volume. `None` if the moving volume
/// has no voxel there.
pub(super) type Input = Vec<Option<BlockPair>>;

impl Pair<'_> {
    /// The boxes of patches among the nodes of a task that are read separately: planes, or all.
    pub(super) fn slabs(&self, core: &Box3) -> Vec<Box3> {
        let core = self.options.patches.among(core, self.fixed.grid().shape);
        if core.is_empty() {
            Vec::new()
        } else if self.options.planes {
            (core.min[0]..core.max[0])
                .map(|z| {
                    let (mut min, mut max) = (core.min, core.max);
                    (min[0], max[0]) = (z, z + 1);
                    Box3::new(min, max)
                })
                .collect()
        } else {
            vec![core]
        }
    }

    pub(super) fn read(&self, task: &Task) -> anyhow::Result<Input> {
        self.slabs(&task.core).iter().map(|slab| self.read_slab(slab)).collect()
    }

    fn read_slab(&self, slab: &Box3) -> anyhow::Result<Option<BlockPair>> {
        let patches = &self.options.patches;
        let grid = self.fixed.grid();
        let part = patches.voxels(slab);
        let window = part.grow(patches.radius.map(|r| r as i64));
        let mut onto = grid.crop(&window);
        onto.origin[0] -= self.options.distance as f64 * grid.spacing[0];
        let (chain, image) =
            self.initial.localise(onto.extent(&onto.bounds())).map_err(blocks::Error::Field)?;
        let read = |volume: &Volume, is_mask| self.pull(volume, &chain, image, &onto, is_mask);
        let Some(mut moving) = read(self.moving, false).context("reading the moving volume")?
        else {
            return Ok(None);
        };
        let Some(mut fixed) = self.read_fixed(&part).context("reading the fixed volume")? else {
            return Ok(None);
        };
        if let Some(mask) = self.masks.moving {
            cut_out(&mut moving, read(mask, true).context("reading --moving-mask")?.as_deref());
        }
        if let Some(mask) = self.masks.fixed {
            let inside = self.pull_fixed(mask, &part, true);
            cut_out(&mut fixed, inside.context("reading --fixed-mask")?.as_deref());
        }
        for v in fixed.iter_mut().chain(&mut moving).filter(|v| !v.is_finite()) {
            *v = f32::NAN;
        }
        Ok(Some(BlockPair { nodes: slab.shape(), fixed, moving }))
    }

    /// The fixed voxels of a box, as they are or as they are seen through the initial map; `None` if
    /// the volume has none there.
    fn read_fixed(&self, part: &Box3) -> anyhow::Result<Option<Vec<f32>>> {
        if self.options.through {
            self.pull_fixed(self.fixed, part, false)
        } else {
            Ok(Some(self.fixed.read::<f32>(part)?))
        }
    }

    /// Resamples the fixed volume, or its mask, onto the voxels of a box of the fixed grid.
    fn pull_fixed(
        &self,
        volume: &Volume,
        part: &Box3,
        is_mask: bool,
    ) -> anyhow::Result<Option<Vec<f32>>> {
        let own = self.fixed.grid().crop(part);
        let extent = own.extent(&own.bounds());
        let (chain, image) = if self.options.through {
            self.initial.localise(extent).map_err(blocks::Error::Field)?
        } else {
            (LocalChain::default(), extent)
        };
        self.pull(volume, &chain, image, &own, is_mask)
    }

    /// Resamples a volume onto a grid, with NaN (0 for masks) where it has no voxels; `None` if it
    /// has none at all.
    ///
    /// * `image`: an extent that contains the grid's image under the chain, micrometres
    fn pull(
        &self,
        volume: &Volume,
        chain: &LocalChain,
        image: [[f64; 3]; 2],
        onto: &Grid,
        is_mask: bool,
    ) -> anyhow::Result<Option<Vec<f32>>> {
        if image.as_flattened().iter().any(|v| v.is_nan()) {
            return Ok(None);
        }
        let grid = volume.grid();
        let fill = if is_mask { 0.0 } else { f32::NAN };
        if chain.steps.is_empty()
            && let Some(first) = offset(&grid, onto)
        {
            return Ok(copy(volume, first, onto.shape, fill)?);
        }
        let margin = [if self.options.planes { 0 } else { MARGIN }, MARGIN, MARGIN];
        let mut part = grid.enclosing(image);
        if self.options.planes {
            // one plane: the nearest to the position along z
            let z = grid.index(image[0])[0];
            if (z - z.round()).abs() > 1e-3 {
                return Ok(None);
            }
            (part.min[0], part.max[0]) = (z.round() as i64, z.round() as i64 + 1);
        }
        let part = part.grow(margin).intersect(&grid.bounds());
        if part.is_empty() {
            return Ok(None);
        }
        let voxels = volume.read::<f32>(&part)?;
        let options = warp::Options {
            interpolation: if is_mask { Interpolation::Nearest } else { Interpolation::Cubic },
            fill: f64::from(fill),
            ..warp::Options::default()
        };
        Ok(Some(warp::resample_block(&voxels, &grid.crop(&part), chain, onto, &options)))
    }
}

/// The voxel of `grid` on which the first voxel of `onto` lies; `None` if not all voxels of `onto`
/// lie on voxels of `grid`.
fn offset(grid: &Grid, onto: &Grid) -> Option<[i64; 3]> {
    let first = grid.index(onto.origin);
    let fits = (0..3).all(|a| {
        let drift = (onto.spacing[a] / grid.spacing[a] - 1.0) * onto.shape[a] as f64;
        (first[a] - first[a].round()).abs() < ALIGNED && drift.abs() < ALIGNED
    });
    (fits && first.iter().all(|v| v.abs() < 1e15)).then(|| first.map(|v| v.round() as i64))
}

/// The box of the given shape that begins at voxel `first` of a volume, with `fill` outside the
/// volume; `None` if no voxel is inside.
fn copy(
    volume: &Volume,
    first: [i64; 3],
    shape: [usize; 3],
    fill: f32,
) -> Result<Option<Vec<f32>>, crate::volume::Error> {
    let whole = Box3::new(first, std::array::from_fn(|a| first[a] + shape[a] as i64));
    let part = whole.intersect(&volume.grid().bounds());
    if part.is_empty() {
        return Ok(None);
    }
    let voxels = volume.read::<f32>(&part)?;
    if part == whole {
        return Ok(Some(voxels));
    }
    let mut out = vec![fill; whole.len()];
    let [_, height, width] = part.shape();
    for (i, row) in voxels.chunks_exact(width).enumerate() {
        let at = |a: usize, i: usize| (part.min[a] - first[a]) as usize + i;
        let to = (at(0, i / height) * shape[1] + at(1, i % height)) * shape[2] + at(2, 0);
        out[to..to + width].copy_from_slice(row);
    }
    Ok(Some(out))
}
