//! Sampling a part of a volume row by row, for operations that combine several volumes.

use super::voxel_map::VoxelMap;
use super::{Interpolation, cpu};
use crate::geom::{Box3, Grid, LocalChain};
use crate::volume::Voxel;

/// A row along x of sampled voxels.
pub(crate) struct SampledRow<'a> {
    /// The index of the first voxel in the box.
    pub(crate) first: usize,
    /// The positions in the moving volume along z, y, x, voxels.
    pub(crate) positions: [&'a [f64]; 3],
    /// The values, NaN outside the moving volume.
    pub(crate) values: &'a [f32],
}

/// A part of a volume in memory.
pub(crate) struct PartOf<'a, T> {
    /// The voxels in C order.
    pub(crate) voxels: &'a [T],
    /// The box of the volume that they cover.
    pub(crate) part: Box3,
    /// The grid of the whole volume.
    pub(crate) grid: Grid,
}

/// Samples a part of a volume at the voxels of the box `core` of `onto`, row by row.
pub(crate) fn each_sampled_row<T: Voxel>(
    moving: &PartOf<'_, T>,
    chain: &LocalChain,
    (onto, core): (&Grid, &Box3),
    interpolation: Interpolation,
    row: &mut dyn FnMut(SampledRow<'_>),
) {
    let rows = VoxelMap::new(chain, onto, &moving.grid);
    let width = core.shape()[2];
    let whole = moving.grid.shape;
    let moving = cpu::Moving { voxels: moving.voxels, channels: 1, part: moving.part, whole };
    cpu::each_value_row(&moving, &rows, core, interpolation, &mut |first, positions, values| {
        let positions = positions.axes.each_ref().map(|axis| &axis[..width]);
        row(SampledRow { first, positions, values: &values[..width] });
    });
}

/// The distance, in voxels, within which voxels contribute to an interpolated value.
pub(crate) fn support(interpolation: Interpolation) -> i64 {
    cpu::support(interpolation)
}
