//! First pass: the matches of each task's spots, from the blocks that the task reads.

use anyhow::Context as _;
use serde_json::json;

use super::Options;
use super::cpu::Searcher;
use super::windows::VoxelBlock;
use crate::blocks::{self, Context, Task};
use crate::features::{self, SpotVoxel};
use crate::filter::{Regridded, despike};
use crate::geom::{Box3, Chain, Grid, LocalChain, Point, defaults};
use crate::volume::Volume;
use crate::warp;

/// The two volumes and the initial map between them. The volumes are compared at a common spacing,
/// which is the coarser spacing along each axis if their voxel sizes differ.
pub(super) struct VolumePair<'a> {
    pub(super) fixed: Regridded<'a>,
    pub(super) moving: Regridded<'a>,
    pub(super) initial: &'a Chain,
    pub(super) options: &'a Options,
}

/// The voxels of a task: those of the fixed volume, and those of the moving volume onto which they
/// map.
pub(super) struct TaskVoxels {
    around: Box3,
    fixed: Vec<f32>,
    moving: Vec<f32>,
    moving_grid: Grid,
    chain: LocalChain,
}

/// A spot of the fixed volume and its match in the moving volume.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Pairing {
    /// The position of the spot, micrometres.
    pub(super) at: Point,
    /// The displacement to its match in the moving volume resampled through the initial map,
    /// micrometres.
    pub(super) shift: Point,
    /// The Pearson correlation of the contexts.
    pub(super) correlation: f64,
}

/// The result of a task.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct TaskMatches {
    /// Whether the task's region maps into the moving volume.
    pub(super) overlaps: bool,
    /// The positions of the spots in the task's core, micrometres.
    pub(super) spots: Vec<Point>,
    /// The spots that matched.
    pub(super) pairings: Vec<Pairing>,
}

impl TaskMatches {
    pub(super) fn summary(&self) -> MatchCounts {
        let (spots, matches) = (self.spots.len(), self.pairings.len());
        MatchCounts { overlaps: self.overlaps, spots, matches }
    }
}

/// The summary of a task in the ledger, or the total of all tasks.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct MatchCounts {
    /// Whether the region maps into the moving volume.
    pub(super) overlaps: bool,
    /// The number of spots in the core.
    pub(super) spots: usize,
    /// The number of spots that matched.
    pub(super) matches: usize,
}

impl<'a> VolumePair<'a> {
    pub(super) fn new(
        fixed: &'a Volume,
        moving: &'a Volume,
        initial: &'a Chain,
        options: &'a Options,
    ) -> Self {
        let common = defaults::common_spacing(&fixed.grid(), &moving.grid());
        let [fixed, moving] = [fixed, moving].map(|volume| Regridded::new(volume, common));
        Self { fixed, moving, initial, options }
    }

    /// Records the spacing at which the volumes are compared, if it is not their own, and the
    /// context radius.
    pub(super) fn record(&self, ctx: &Context) {
        let spacing = self.fixed.grid().spacing;
        if !(self.fixed.is_stored() && self.moving.is_stored()) {
            tracing::info!("the voxels differ in size: compared at {spacing:?} um (z, y, x)");
            ctx.record("compared_at_um", json!(spacing));
        }
        ctx.record("context_radius_voxels", json!(self.radius()));
    }

    /// The stored grid of the fixed volume, which defines blocks and tasks.
    pub(super) fn stored_grid(&self) -> Grid {
        self.fixed.volume().grid()
    }

    /// Half the side of the contexts that are compared, voxels along z, y, x.
    fn radius(&self) -> [usize; 3] {
        self.options.context([&self.fixed.grid(), &self.moving.grid()])
    }

    /// The search range of shifts, voxels along z, y, x.
    fn reach(&self) -> [usize; 3] {
        self.options.reach([&self.fixed.grid(), &self.moving.grid()])
    }

    /// The box, on the grid of comparison, that covers a box of the fixed volume's stored grid.
    fn comparison_box(&self, core: &Box3) -> Box3 {
        if self.fixed.is_stored() {
            return *core;
        }
        self.fixed.grid().enclosing(self.stored_grid().extent(core))
    }

    /// The halo that a task reads around its core, in voxels. It is wide enough for a spot's
    /// context at the maximum shift, and for the diameter of the largest spot.
    pub(super) fn margin(&self) -> [usize; 3] {
        let spacing = self.fixed.grid().spacing;
        let (radius, reach) = (self.radius(), self.reach());
        let widest = self.options.radius[1];
        std::array::from_fn(|a| {
            let blob = (2.0 * widest / spacing[a]).ceil() as usize;
            (radius[a] + reach[a] + 1).max(blob)
        })
    }

    /// Reads a task's voxels; `None` if the volumes do not overlap there.
    pub(super) fn read(&self, task: &Task) -> anyhow::Result<Option<TaskVoxels>> {
        let grid = self.fixed.grid();
        let margin = self.margin().map(|v| v as i64);
        let around = self.comparison_box(&task.core).grow(margin).intersect(&grid.bounds());
        if around.is_empty() {
            return Ok(None);
        }
        let (chain, image) =
            self.initial.localise(grid.extent(&around)).map_err(blocks::Error::Field)?;
        let moving_grid = self.moving.grid();
        let part = moving_grid.enclosing(image).grow([2; 3]).intersect(&moving_grid.bounds());
        if part.is_empty() {
            return Ok(None);
        }
        let mut fixed = self.fixed.read::<f32>(&around).context("reading the fixed volume")?;
        let mut moving = self.moving.read::<f32>(&part).context("reading the moving volume")?;
        // a hot voxel could otherwise dominate the correlation of contexts
        despike(&mut fixed, around.shape());
        despike(&mut moving, part.shape());
        Ok(Some(TaskVoxels { around, fixed, moving, moving_grid: moving_grid.crop(&part), chain }))
    }

    /// Finds the spots of the core and their matches.
    pub(super) fn find(
        &self,
        task: &Task,
        input: Option<TaskVoxels>,
    ) -> anyhow::Result<TaskMatches> {
        let Some(input) = input else { return Ok(TaskMatches::default()) };
        let onto = self.fixed.grid().crop(&input.around);
        // voxels outside the moving volume become NaN, because contexts that contain NaN are
        // rejected
        let options = warp::Options { fill: f64::NAN, ..warp::Options::default() };
        let mut warped: Vec<f32> =
            warp::resample_block(&input.moving, &input.moving_grid, &input.chain, &onto, &options);
        drop(input.moving);
        centre(&mut warped);
        let spots = self.spots(task, &onto, &input.fixed, input.around)?;
        let searcher = Searcher::new(
            VoxelBlock { voxels: &input.fixed, shape: onto.shape },
            VoxelBlock { voxels: &warped, shape: onto.shape },
            self.radius(),
            self.reach(),
        );
        let mut found = TaskMatches { overlaps: true, ..TaskMatches::default() };
        for spot in spots {
            found.spots.push(onto.position(spot.position));
            let Some(peak) = searcher.search(nearest(spot.position)) else { continue };
            if peak.correlation >= self.options.match_threshold {
                found.pairings.push(Pairing {
                    at: onto.position(nearest(spot.position).map(|v| v as f64)),
                    shift: std::array::from_fn(|a| peak.shift[a] * onto.spacing[a]),
                    correlation: peak.correlation,
                });
            }
        }
        Ok(found)
    }

    /// The spots whose nearest voxel lies in the core, in voxel coordinates of the block that was
    /// read.
    fn spots(
        &self,
        task: &Task,
        onto: &Grid,
        fixed: &[f32],
        around: Box3,
    ) -> anyhow::Result<Vec<SpotVoxel>> {
        let core = task.core.shift(around.min.map(|v| -v));
        let options = self.options.spots(onto);
        let found = features::detect_in_memory(fixed, onto.shape, onto.spacing, &options)?;
        let whole = self.stored_grid();
        let inside = |spot: &SpotVoxel| {
            if self.fixed.is_stored() {
                return core.contains(nearest(spot.position).map(|v| v as i64));
            }
            let own = whole.index(onto.position(spot.position)).map(f64::round);
            let last: Point = std::array::from_fn(|a| (whole.shape[a] - 1) as f64);
            let own = std::array::from_fn(|a| own[a].clamp(0.0, last[a]) as i64);
            task.core.contains(own)
        };
        let mut spots: Vec<SpotVoxel> = found.into_iter().filter(inside).collect();
        spots.sort_by(|a, b| {
            a.position.partial_cmp(&b.position).unwrap_or(std::cmp::Ordering::Equal)
        });
        Ok(spots)
    }
}

/// The voxel of the block nearest to a position.
fn nearest(position: Point) -> [usize; 3] {
    position.map(|v| v.round().max(0.0) as usize)
}

/// Subtracts the mean, so that sums of squares in `f32` do not lose precision.
fn centre(voxels: &mut [f32]) {
    let (mut sum, mut count) = (0.0f64, 0u64);
    for v in voxels.iter().filter(|v| v.is_finite()) {
        sum += f64::from(*v);
        count += 1;
    }
    let mean = (sum / count.max(1) as f64) as f32;
    for v in voxels {
        *v -= mean;
    }
}
