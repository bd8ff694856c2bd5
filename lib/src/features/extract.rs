//! Spots of a volume, block by block.

use std::path::Path;

use crate::blocks::{self, Context, Identity, Outcome, Plan, Rows, Task};
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
    if plan.is_all_asked(ctx) {
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
    let rows = Rows::create(&folder)?;
    plan.stream(
        ctx,
        &folder,
        |task| Input::read(volume, mask, &scheme, task),
        |task, input| Ok(input.detect(&grid, &scheme, clamp, task)),
        |task, found| write(&rows, task, &found),
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let found = gather(&rows, &plan, ctx)?;
    report(&found, ctx);
    let spots = match select(found, volume, options) {
        Ok(spots) => spots,
        Err(none) => {
            // other options are wanted, and those would have a ledger of their own
            rows.remove(ctx)?;
            return Err(none.into());
        }
    };
    ctx.record("spots", spots.len());
    table::write_spots(output, &spots)?;
    Ok(rows.remove(ctx)?)
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

/// Writes a task's rows: one that says what of the block counts for all, then the spots.
fn write(rows: &Rows, task: &Task, found: &Detection) -> anyhow::Result<Outcome> {
    if found.constant && found.not_finite == 0 {
        return Ok(Outcome::Empty);
    }
    let head = [found.greatest, found.not_finite as f64, 0.0, 0.0, 0.0, 0.0];
    let spots = found.spots.iter().flat_map(|s| {
        let [z, y, x] = s.position;
        [z, y, x, s.radius, s.response, s.intensity]
    });
    let bytes: Vec<u8> = head.into_iter().chain(spots).flat_map(f64::to_le_bytes).collect();
    rows.write(task, &bytes)?;
    Ok(if found.spots.is_empty() { Outcome::Empty } else { Outcome::Done })
}

/// The spots of all blocks, in the order of the plan.
fn gather(rows: &Rows, plan: &Plan, ctx: &Context) -> anyhow::Result<Detection> {
    let parts = rows.read_all(plan)?;
    let bytes: usize = parts.iter().map(Vec::len).sum();
    // once as bytes, once as spots, once in the cells of the pruning
    if 3 * bytes as u64 > ctx.memory {
        return Err(Error::TooMany { count: bytes / (8 * ROW), memory: ctx.memory }.into());
    }
    let mut all = Detection { constant: true, ..Detection::default() };
    for part in parts {
        let mut numbers = part.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
        let mut row = || -> Option<[f64; ROW]> {
            let row = [(); ROW].map(|()| numbers.next());
            row.iter().all(Option::is_some).then(|| row.map(Option::unwrap_or_default))
        };
        let Some([greatest, not_finite, ..]) = row() else { continue };
        all.greatest = all.greatest.max(greatest);
        all.not_finite += not_finite as u64;
        all.constant = false;
        while let Some([z, y, x, radius, response, intensity]) = row() {
            all.spots.push(SpotVoxel { position: [z, y, x], radius, response, intensity });
        }
    }
    Ok(all)
}

fn report(found: &Detection, ctx: &Context) {
    if found.not_finite > 0 {
        let count = found.not_finite;
        tracing::warn!("{count} voxels are no finite numbers; they were taken as 0");
    }
    ctx.record("voxels_not_finite", found.not_finite);
    ctx.record("blobs", found.spots.len());
    ctx.record("greatest_response", found.greatest);
}

/// The spots that count, best first, in space.
fn select(found: Detection, volume: &Volume, options: &Options) -> Result<Vec<Spot>, Error> {
    let location = volume.location().to_owned();
    if found.constant {
        return Err(Error::Constant { location });
    }
    let (grid, greatest, count) = (volume.grid(), found.greatest, found.spots.len());
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
