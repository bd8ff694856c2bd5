//! The boxes that one task of one octave computes, and the voxels that it reads.

use super::background::{Axis, Background, Coarse};
use super::scheme::{Octave, REFINE_REACH};
use crate::filter::planes::Area;
use crate::geom::Box3;

/// The boxes of each processing stage of one octave, from the maxima back to the input voxels.
///
/// `core` to `base` are in voxels of the octave's grid, `image` and `input` in voxels of the
/// volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StageBoxes {
    /// The shape of the volume.
    pub(super) volume: [usize; 3],
    /// The shape of the octave's grid.
    pub(super) grid: [usize; 3],
    /// The grid voxels at which maxima are searched: those whose position in the volume is a voxel
    /// of the task's core.
    pub(super) core: Box3,
    /// The grid voxels at which responses are computed.
    pub(super) response: Box3,
    /// The grid voxels at which the levels after the first one are computed.
    pub(super) level: Box3,
    /// The grid voxels at which the first level is computed.
    pub(super) base: Box3,
    /// The voxels that are smoothed to the first level.
    pub(super) image: Box3,
    /// The voxels that are read, including those needed for the background.
    pub(super) input: Box3,
}

impl StageBoxes {
    /// The boxes for the voxels `core` of a volume of shape `volume`.
    pub(super) fn new(
        octave: &Octave,
        coarse: Option<Coarse>,
        core: &Box3,
        volume: [usize; 3],
    ) -> Self {
        let step = octave.step.map(|n| n as i64);
        let grid: [usize; 3] = std::array::from_fn(|a| volume[a].div_ceil(octave.step[a]));
        let bounds = Box3::of_shape(grid);
        // a grid voxel belongs to the task whose core contains its position in the volume
        let [min, max] = [core.min, core.max]
            .map(|corner| std::array::from_fn(|a| (corner[a] + step[a] - 1).div_euclid(step[a])));
        let core = Box3::new(min, max).intersect(&bounds);
        let grow = |part: &Box3, by: [usize; 3]| part.grow(by.map(|n| n as i64)).intersect(&bounds);
        let response = grow(&core, [REFINE_REACH; 3]);
        let level = grow(&response, [octave.difference_reach; 3]);
        let base = grow(&level, octave.level_reach());
        let mut image = Box3::new([0; 3], [0; 3]);
        let mut input = image;
        for a in 0..3 {
            let axis = Self::axis(octave, &base, volume, a);
            let [first, last] = axis.smoothed();
            (image.min[a], image.max[a]) = (first, last + 1);
            let range = coarse.map_or([first, last + 1], |c| c.reach(a, [first, last], volume[a]));
            (input.min[a], input.max[a]) = (range[0].min(first), range[1].max(last + 1));
        }
        Self { volume, grid, core, response, level, base, image, input }
    }

    fn axis<'a>(octave: &'a Octave, base: &Box3, volume: [usize; 3], a: usize) -> Axis<'a> {
        Axis {
            step: octave.step[a],
            range: [base.min[a], base.max[a]],
            kernel: &octave.base[a],
            extent: volume[a],
        }
    }

    /// The background of the octave's first level.
    pub(super) fn background(&self, octave: &Octave, coarse: Coarse) -> Background {
        let axis = |a| Self::axis(octave, &self.base, self.volume, a);
        Background::new(coarse, &[axis(0), axis(1), axis(2)])
    }
}

/// The rectangle that a box covers in each of its planes.
pub(super) fn area(part: &Box3) -> Area {
    Area { min: [part.min[1], part.min[2]], max: [part.max[1], part.max[2]] }
}
