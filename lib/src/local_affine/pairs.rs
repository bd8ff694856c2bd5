//! First pass: what each task's spots match, from the blocks that it reads.

use anyhow::Context as _;
use serde_json::json;

use super::Options;
use super::cpu::Searcher;
use super::windows::Block;
use crate::blocks::{Context, Task};
use crate::features::{self, SpotVoxel};
use crate::filter::{Regridded, despike};
use crate::geom::{Box3, Chain, Grid, LocalChain, Point, defaults};
use crate::volume::Volume;
use crate::warp;

/// The two volumes and the map between them that is known so far. Both are seen at one spacing: where their
/// voxels differ, at the coarser along each axis.
pub(super) struct Pair<'a> {
    pub(super) fixed: Regridded<'a>,
    pub(super) moving: Regridded<'a>,
    pub(super) initial: &'a Chain,
    pub(super) options: &'a Options,
}

/// The voxels of a task: of the fixed volume, and of all that the moving one shows there.
pub(super) struct Input {
    around: Box3,
    fixed: Vec<f32>,
    moving: Vec<f32>,
    moving_grid: Grid,
    chain: LocalChain,
}

/// A spot of the fixed volume and its likeness.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Pairing {
    /// The spot, micrometres.
    pub(super) at: Point,
    /// To its likeness in the moving volume as the initial map shows it, micrometres.
    pub(super) shift: Point,
    /// Pearson correlation of the surroundings.
    pub(super) correlation: f64,
}

/// What a task found.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Found {
    /// Whether the moving volume shows anything there.
    pub(super) overlaps: bool,
    /// The spots of the task's core, micrometres.
    pub(super) spots: Vec<Point>,
    /// Those that matched.
    pub(super) pairings: Vec<Pairing>,
}

impl Found {
    pub(super) fn summary(&self) -> Summary {
        let (spots, matches) = (self.spots.len(), self.pairings.len());
        Summary { overlaps: self.overlaps, spots, matches }
    }
}

/// What the ledger keeps of a task, or what all of them amount to.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Summary {
    /// Whether the moving volume shows anything there.
    pub(super) overlaps: bool,
    /// Spots of the core.
    pub(super) spots: usize,
    /// Those that matched.
    pub(super) matches: usize,
}

impl<'a> Pair<'a> {
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

    /// Says at which spacing the volumes are compared, where it is not their own.
    pub(super) fn record(&self, ctx: &Context) {
        let spacing = self.fixed.grid().spacing;
        if !(self.fixed.is_stored() && self.moving.is_stored()) {
            tracing::info!("the voxels differ in size: compared at {spacing:?} um (z, y, x)");
            ctx.record("compared_at_um", json!(spacing));
        }
        ctx.record("context_radius_voxels", json!(self.radius()));
    }

    /// The fixed volume's own grid, in whose voxels blocks and tasks are counted.
    pub(super) fn whole(&self) -> Grid {
        self.fixed.volume().grid()
    }

    /// Half the side of the surroundings that are compared, voxels.
    fn radius(&self) -> [usize; 3] {
        self.options.context([&self.fixed.grid(), &self.moving.grid()])
    }

    /// How far shifts are looked for, voxels.
    fn reach(&self) -> [usize; 3] {
        self.options.reach([&self.fixed.grid(), &self.moving.grid()])
    }

    /// The box of voxels that are compared which covers a box of the fixed volume's own.
    fn seen(&self, core: &Box3) -> Box3 {
        if self.fixed.is_stored() {
            return *core;
        }
        self.fixed.grid().enclosing(self.whole().extent(core))
    }

    /// Voxels beyond the core that a task reads: a spot's surroundings, moved as far as allowed.
    pub(super) fn margin(&self) -> [usize; 3] {
        let spacing = self.fixed.grid().spacing;
        let (radius, reach) = (self.radius(), self.reach());
        let widest = self.options.radius[1];
        std::array::from_fn(|a| {
            let blob = (2.0 * widest / spacing[a]).ceil() as usize;
            (radius[a] + reach[a] + 1).max(blob)
        })
    }

    /// Reads a task's voxels; `None` where the volumes do not overlap.
    pub(super) fn read(&self, task: &Task) -> anyhow::Result<Option<Input>> {
        let grid = self.fixed.grid();
        let margin = self.margin().map(|v| v as i64);
        let around = self.seen(&task.core).grow(margin).intersect(&grid.bounds());
        if around.is_empty() {
            return Ok(None);
        }
        let (chain, image) = self
            .initial
            .localise(grid.extent(&around))
            .map_err(|e| anyhow::anyhow!("the initial transform cannot be read: {e}"))?;
        let moving_grid = self.moving.grid();
        let part = moving_grid.enclosing(image).grow([2; 3]).intersect(&moving_grid.bounds());
        if part.is_empty() {
            return Ok(None);
        }
        let mut fixed = self.fixed.read::<f32>(&around).context("reading the fixed volume")?;
        let mut moving = self.moving.read::<f32>(&part).context("reading the moving volume")?;
        // a hot voxel would be all that the surroundings of a spot have in common
        despike(&mut fixed, around.shape());
        despike(&mut moving, part.shape());
        Ok(Some(Input { around, fixed, moving, moving_grid: moving_grid.crop(&part), chain }))
    }

    /// Finds the spots of the core and their likenesses.
    pub(super) fn find(&self, task: &Task, input: Option<Input>) -> anyhow::Result<Found> {
        let Some(input) = input else { return Ok(Found::default()) };
        let onto = self.fixed.grid().crop(&input.around);
        // what the moving volume does not show is no number: surroundings that hold any are refused
        let options = warp::Options { fill: f64::NAN, ..warp::Options::default() };
        let mut warped: Vec<f32> =
            warp::resample_block(&input.moving, &input.moving_grid, &input.chain, &onto, &options);
        drop(input.moving);
        centre(&mut warped);
        let spots = self.spots(task, &onto, &input.fixed, input.around)?;
        let searcher = Searcher::new(
            Block { voxels: &input.fixed, shape: onto.shape },
            Block { voxels: &warped, shape: onto.shape },
            self.radius(),
            self.reach(),
        );
        let mut found = Found { overlaps: true, ..Found::default() };
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

    /// The spots whose nearest voxel lies in the core, voxels of the block that was read.
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
        let whole = self.whole();
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

/// The voxel nearest to a position in the block.
fn nearest(position: Point) -> [usize; 3] {
    position.map(|v| v.round().max(0.0) as usize)
}

/// Takes the mean off, so that sums of squares in `f32` do not drown in it.
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
