//! Spots of a volume, block by block.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::blocks::{self, Context, Ending, Ends, Identity, Outcome, Plan, Rows, Task};
use crate::features::block::Block;
use crate::features::cpu::{Detection, detect};
use crate::features::scheme::Scheme;
use crate::features::{Options, OptionsError, SpotVoxel, prune, winsorize};
use crate::geom::{Box3, Grid};
use crate::table::{self, Spot};
use crate::volume::Volume;

/// Why there are no spots.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that cannot be.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// All voxels are equal.
    #[error("{location}: no spots: all its voxels are equal; is this the right channel and level?")]
    Constant {
        /// The volume.
        location: String,
    },
    /// Nothing counts as a spot.
    #[error(
        "{location}: no spots: {found} blobs were found, the strongest with a response of \
         {greatest:.3}, and none is left by threshold ({floor:.3}), border and mask; try another \
         --radius (now {low:.2}..{high:.2}), a lower --threshold or --border, another --mask"
    )]
    NoSpots {
        /// The volume.
        location: String,
        /// Blobs before the threshold.
        found: usize,
        /// The greatest response.
        greatest: f64,
        /// The least that counts.
        floor: f64,
        /// The smallest radius looked for.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// They cannot be ranked in memory.
    #[error(
        "{count} blobs were found, more than can be ranked in the memory allowed ({memory} bytes); \
         give a --threshold, or more --memory"
    )]
    TooMany {
        /// Blobs found.
        count: usize,
        /// Bytes allowed.
        memory: u64,
    },
}

/// Numbers of a row: a spot's position, radius, response, intensity.
const ROW: usize = 6;

/// Finds the spots of `volume` and writes them to the table `output`, best first.
///
/// * `mask`: spots whose nearest voxel of it is 0 or missing are dropped; it has its own grid
///
/// With `ctx.part` only the part's blocks are done, and the table is written by `ctx.finish`.
///
/// # Errors
/// [`Error`], and those of reading, running and writing.
pub fn extract(
    volume: &Volume,
    mask: Option<&Volume>,
    options: &Options,
    ctx: &Context,
    output: &Path,
) -> anyhow::Result<()> {
    options.check().map_err(|e| blocks::Error::Usage(e.to_string()))?;
    let grid = volume.grid();
    let scheme = Scheme::new(options, grid.spacing);
    let block = ctx.block_size.unwrap_or_else(|| scheme.block(grid.shape, ctx.memory));
    let identity = Identity::of("extract-spots")
        .with_volume("volume", volume)?
        .with_optional("mask", mask)?
        .with("options", options);
    let fitting = std::array::from_fn(|a| block[a].min(grid.shape[a]));
    let plan = Plan::tile(grid.bounds(), block, scheme.bytes(fitting, grid.shape), &identity);
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    ctx.refuse_existing(output)?;
    ctx.input(volume);
    if let Some(mask) = mask {
        ctx.input(mask);
    }
    ctx.output_file(output);
    let clamp = match options.winsorize {
        Some(fractions) if !ctx.finish => Some(winsorize::limits(volume, block, fractions)?),
        _ => None,
    };
    let folder = blocks::folder_beside(output);
    let rows = Rows::new(&folder);
    let ends = plan.stream(
        ctx,
        &folder,
        |task| Input::read(volume, mask, &scheme, task),
        |task, input| Ok(input.detect(&grid, &scheme, clamp, task)),
        |task, found| write(&rows, task, &found),
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let found = gather(&rows, &plan, &ends, options, ctx)?;
    report(&found, ctx);
    let spots = match select(found, volume, options) {
        Ok(spots) => spots,
        Err(none) => {
            // other options are wanted, and those would have a ledger of their own
            rows.discard(ctx);
            return Err(none.into());
        }
    };
    ctx.record("spots", spots.len());
    table::write_spots(output, &spots)?;
    rows.remove(ctx);
    Ok(())
}

/// What a task reads.
struct Input {
    bounds: Box3,
    voxels: Vec<f32>,
    mask: Option<Mask>,
}

/// A part of a mask.
struct Mask {
    grid: Grid,
    bounds: Box3,
    voxels: Vec<u8>,
}

impl Input {
    fn read(
        volume: &Volume,
        mask: Option<&Volume>,
        scheme: &Scheme,
        task: &Task,
    ) -> anyhow::Result<Self> {
        let grid = volume.grid();
        let bounds = scheme.input(&task.core, &grid.bounds());
        let voxels = volume.read(&bounds)?;
        let extent = grid.extent(&bounds);
        let mask = mask.map(|mask| Mask::read(mask, extent)).transpose()?;
        Ok(Self { bounds, voxels, mask })
    }

    fn detect(
        self,
        grid: &Grid,
        scheme: &Scheme,
        clamp: Option<[f32; 2]>,
        task: &Task,
    ) -> Detection {
        let Self { bounds, voxels, mask } = self;
        let block = Block { voxels: &voxels, bounds, core: task.core, volume: grid.bounds() };
        let mut found = detect(&block, scheme, clamp, grid.spacing);
        if let Some(mask) = mask {
            found.spots.retain(|spot| mask.holds(grid.position(spot.position)));
        }
        found
    }
}

impl Mask {
    fn read(mask: &Volume, extent: [[f64; 3]; 2]) -> anyhow::Result<Self> {
        let grid = mask.grid();
        let bounds = grid.enclosing(extent).grow([1; 3]).intersect(&grid.bounds());
        Ok(Self { grid, bounds, voxels: mask.read(&bounds)? })
    }

    /// Whether the mask's voxel nearest to a physical position is there and not 0.
    fn holds(&self, position: [f64; 3]) -> bool {
        let nearest = self.grid.index(position).map(|v| v.round() as i64);
        let [_, ny, nx] = self.bounds.shape();
        self.bounds.contains(nearest) && {
            let [z, y, x] = std::array::from_fn(|a| (nearest[a] - self.bounds.min[a]) as usize);
            self.voxels[(z * ny + y) * nx + x] != 0
        }
    }
}

/// What a block that is not constant leaves in its ledger entry, and what the blocks amount to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Summary {
    /// Rows that it wrote.
    blobs: usize,
    /// The greatest response, that of dropped blobs too.
    greatest: f64,
    /// Voxels that were no finite number.
    not_finite: u64,
}

/// The spots of all blocks.
struct Gathered {
    all: Summary,
    /// Whether all voxels of all blocks were equal.
    constant: bool,
    /// Those above the threshold, in the order of the plan.
    spots: Vec<SpotVoxel>,
}

/// Writes a task's rows, its spots; what of the block counts for all goes into the ledger.
fn write(rows: &Rows, task: &Task, found: &Detection) -> anyhow::Result<Ending> {
    if found.constant && found.not_finite == 0 {
        return Ok(Outcome::Empty.into());
    }
    let &Detection { greatest, not_finite, .. } = found;
    let summary = Summary { blobs: found.spots.len(), greatest, not_finite };
    if found.spots.is_empty() {
        return Ok(Ending::from(Outcome::Empty).with_summary(&summary)?);
    }
    let numbers = found.spots.iter().flat_map(|s| {
        let [z, y, x] = s.position;
        [z, y, x, s.radius, s.response, s.intensity]
    });
    let stored = rows.write(task, &numbers.flat_map(f64::to_le_bytes).collect::<Vec<u8>>())?;
    Ok(Ending::from(Outcome::Done).with_rows(stored).with_summary(&summary)?)
}

/// The spots of all blocks. The threshold depends on the greatest response of all, which the ledger knows
/// before any rows are read: only what is above it is held in memory.
fn gather(
    rows: &Rows,
    plan: &Plan,
    ends: &Ends,
    options: &Options,
    ctx: &Context,
) -> anyhow::Result<Gathered> {
    let (mut all, mut constant) = (Summary::default(), true);
    for summary in ends.summaries::<Summary>() {
        let (_, summary) = summary?;
        all.blobs += summary.blobs;
        all.greatest = all.greatest.max(summary.greatest);
        all.not_finite += summary.not_finite;
        constant = false;
    }
    let floor = options.floor(all.greatest);
    let mut spots = Vec::new();
    for task in &plan.tasks {
        let Some(bytes) = rows.read(task, ends)? else { continue };
        let numbers: Vec<f64> =
            bytes.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
        let rows = numbers.as_chunks::<ROW>().0.iter();
        spots.extend(
            rows.map(|&[z, y, x, radius, response, intensity]| SpotVoxel {
                position: [z, y, x],
                radius,
                response,
                intensity,
            })
            .filter(|spot| spot.response > floor),
        );
        // once as it grows, once as spots, once in the cells of the pruning
        if (3 * spots.len() * size_of::<SpotVoxel>()) as u64 > ctx.memory {
            return Err(Error::TooMany { count: all.blobs, memory: ctx.memory }.into());
        }
    }
    Ok(Gathered { all, constant, spots })
}

fn report(found: &Gathered, ctx: &Context) {
    let found = found.all;
    if found.not_finite > 0 {
        let count = found.not_finite;
        tracing::warn!("{count} voxels are no finite numbers; they were taken as 0");
    }
    ctx.record("voxels_not_finite", found.not_finite);
    ctx.record("blobs", found.blobs);
    ctx.record("greatest_response", found.greatest);
}

/// The spots that count, best first, in space.
fn select(found: Gathered, volume: &Volume, options: &Options) -> Result<Vec<Spot>, Error> {
    let location = volume.location().to_owned();
    if found.constant {
        return Err(Error::Constant { location });
    }
    let (grid, Summary { greatest, blobs: count, .. }) = (volume.grid(), found.all);
    let spots = prune::select(found.spots, greatest, grid.spacing, options);
    if spots.is_empty() {
        let ([low, high], floor) = (options.radius, options.floor(greatest));
        return Err(Error::NoSpots { location, found: count, greatest, floor, low, high });
    }
    let spots = spots.iter().map(|spot| Spot {
        position: grid.position(spot.position),
        radius: spot.radius,
        response: spot.response,
        intensity: spot.intensity,
    });
    Ok(spots.collect())
}
